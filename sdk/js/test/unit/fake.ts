import { Corecast, type Options } from "../../src/index.js";

export interface Sent {
  event: string;
  data?: any;
}

/** The client's end of a scripted connection: nothing happens on it unless the test does it. */
export class FakeSocket {
  readyState = 0;
  onmessage: ((event: any) => void) | null = null;
  onclose: ((event: any) => void) | null = null;
  onerror: ((event: any) => void) | null = null;
  sent: Sent[] = [];
  closedWith: number | undefined;

  constructor(readonly url: string) {}

  send(text: string) {
    if (this.readyState !== 1) throw new Error("sent on a socket that is not open");
    this.sent.push(JSON.parse(text));
  }

  close(code?: number) {
    this.readyState = 2;
    this.closedWith = code;
  }

  /** The server sends a message. */
  say(event: string, members: { channel?: string; data?: unknown; offset?: number; user_id?: string } = {}) {
    this.onmessage?.({ data: JSON.stringify({ event, ...members }) });
  }

  connected(socket_id = "s1", heart?: object) {
    this.readyState = 1;
    this.say("socket:connected", { data: { socket_id, heart } });
  }

  /** The connection ends. */
  end(code: number, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  names(event: string): string[] {
    return this.sent.filter((sent) => sent.event === event).map((sent) => sent.data?.channel);
  }
}

export class Fake {
  sockets: FakeSocket[] = [];
  WebSocket: new (url: string) => FakeSocket;

  constructor() {
    const { sockets } = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url: string) {
        super(url);
        sockets.push(this);
      }
    };
  }

  client(options: Options = {}): Corecast {
    return new Corecast("ws://fake", { WebSocket: this.WebSocket, ...options });
  }

  get last(): FakeSocket {
    return this.sockets.at(-1)!;
  }
}
