import { type Auth, authorizer } from "./auth.js";
import type { Channel } from "./channel.js";
import { Emitter } from "./emitter.js";
import { CorecastError } from "./errors.js";
import { type Heart, Heartbeat, heartOf } from "./heartbeat.js";
import { type BackOff, backOff, earliest, verdict } from "./retry.js";
import { Subscriptions } from "./subscriptions.js";
import { watchEnvironment } from "./wake.js";

export type ConnectionState =
  /** Made with `autoConnect: false`, and `connect` was not called yet. */
  | "initialized"
  /** Connecting, or about to, again and again. */
  | "connecting"
  /** `socketId` is known, and subscriptions are asked for. */
  | "connected"
  /** Still trying, without success for `unavailableAfter`, or the browser says that it is offline. */
  | "unavailable"
  /** By `disconnect`. */
  | "disconnected"
  /** The server refused for good: nothing happens until `connect` is called. */
  | "failed";

export interface StateChange {
  previous: ConnectionState;
  current: ConnectionState;
}

/** What a socket emits: every state by its name, every change of state, and errors that no channel is told. */
export type SocketEvents = { [State in ConnectionState]: undefined } & {
  state_change: StateChange;
  /** `socket:error` of the server, a close that was an error, or a message that is none. The connection sees to itself. */
  error: CorecastError;
};

/** The part of the WebSocket interface that is used. */
export interface WebSocketLike {
  readyState: number;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

export interface Options {
  /** Who signs for private channels: the URL of an endpoint, an endpoint with settings, or a function. */
  auth?: Auth;
  /** Connect when constructed. Default true. */
  autoConnect?: boolean;
  /** Where there is no built-in WebSocket (Node before 22): the class, as the package `ws` exports it. */
  WebSocket?: new (url: string) => WebSocketLike;
  /** Bounds of the reconnection delay, in ms. Default `{ min: 500, max: 20_000 }`. */
  backOff?: Partial<BackOff>;
  /** Milliseconds after which a connection counts as having lived, which resets the back-off. Default 5 000. */
  livedAfter?: number;
  /** Milliseconds from opening to `socket:connected`. Default 10 000. */
  connectTimeout?: number;
  /** Milliseconds without a connection after which the state is `unavailable`. Default 10 000. */
  unavailableAfter?: number;
  /** Milliseconds that a signature may take. Default 10 000. */
  authTimeout?: number;
}

/** A connection that keeps itself alive, and the subscriptions on it. */
export class Corecast extends Emitter<SocketEvents> {
  #options: Options;
  #bounds: BackOff;
  #subscriptions: Subscriptions;
  #state: ConnectionState = "initialized";
  #socketId: string | undefined;
  #ws: WebSocketLike | undefined;
  #heartbeat: Heartbeat | undefined;
  #connectTimer: Timer;
  #retryTimer: Timer;
  #unavailableTimer: Timer;
  #stopWatching: (() => void) | undefined;
  /** Connections in a row that did not live. */
  #failures = 0;
  /** When `socket:connected` came; 0: it has not. */
  #connectedAt = 0;
  /** The server asked not to be called before. */
  #notBefore = 0;
  /** The connection before this one ended through the client's fault. */
  #blamed = false;
  #waiting: { resolve: (socketId: string) => void; reject: (error: CorecastError) => void }[] = [];

  constructor(
    readonly url: string,
    options: Options = {},
  ) {
    super();
    this.#options = options;
    this.#bounds = { min: 500, max: 20_000, ...options.backOff };
    const { auth, authTimeout = 10_000 } = options;
    this.#subscriptions = new Subscriptions(auth ? authorizer(auth, authTimeout) : undefined, this.#bounds);
    if (options.autoConnect ?? true) this.#start();
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** The server's name for this connection; another one after each reconnect. */
  get socketId(): string | undefined {
    return this.#socketId;
  }

  /** Connects, where it was not asked to yet. Resolves with the socket_id; rejects where the server refuses for good. */
  connect(): Promise<string> {
    const promise = new Promise<string>((resolve, reject) => {
      if (this.#socketId !== undefined) return resolve(this.#socketId);
      this.#waiting.push({ resolve, reject });
    });
    promise.catch(() => {}); // nobody has to await it
    try {
      this.#start();
    } catch {
      // the promise was rejected
    }
    return promise;
  }

  /** Disconnects, and stays so. Channels and their handlers are kept for `connect`. */
  disconnect(): void {
    if (this.#state === "initialized") return;
    this.#drop(1000, "");
    this.#stop("disconnected", new CorecastError("disconnected", "disconnect was called"));
  }

  /**
   * The subscription to a channel: the one there is, or a new one. It is live once `subscribed` resolves, and asked for again
   * after each reconnect. One that was refused is tried again.
   */
  subscribe<Events extends object = Record<string, any>>(name: string): Channel<Events> {
    return this.#subscriptions.subscribe(name);
  }

  /** The same as `unsubscribe` of the channel. */
  unsubscribe(name: string): Promise<void> {
    return this.channel(name)?.unsubscribe() ?? Promise.resolve();
  }

  /** The channel of that name, where it was subscribed to and not left. */
  channel<Events extends object = Record<string, any>>(name: string): Channel<Events> | undefined {
    return this.#subscriptions.get(name);
  }

  /** Every channel that was subscribed to and not left. */
  channels(): Channel[] {
    return this.#subscriptions.all();
  }

  #start(): void {
    if (this.#stopWatching) return;
    this.#stopWatching = watchEnvironment(
      () => this.#wake(),
      () => this.#offline(),
    );
    this.#failures = this.#notBefore = 0;
    this.#blamed = false;
    this.#subscriptions.awaitAgain();
    try {
      this.#open();
    } catch (error) {
      this.#stop("failed", new CorecastError("closed", String(error)));
      throw error;
    }
    this.#trying();
  }

  #stop(state: "disconnected" | "failed", error: CorecastError): void {
    this.#stopWatching?.();
    this.#stopWatching = undefined;
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#unavailableTimer);
    this.#unavailableTimer = undefined;
    this.#subscriptions.giveUpWaiting(error);
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    this.#enter(state);
  }

  #open(): void {
    clearTimeout(this.#retryTimer);
    const Class = this.#options.WebSocket ?? (globalThis.WebSocket as Options["WebSocket"]);
    if (!Class) throw new TypeError("no WebSocket here: pass one as options.WebSocket, for example that of the package ws");
    const ws = (this.#ws = new Class(this.url));
    this.#connectedAt = 0;
    ws.onmessage = ({ data }) => {
      if (ws === this.#ws) this.#receive(data);
    };
    ws.onclose = ({ code, reason }) => {
      if (ws === this.#ws) this.#lost(code, reason);
    };
    ws.onerror = () => {}; // a close follows; `ws` throws where nobody listens
    this.#connectTimer = setTimeout(
      () => this.#drop(NO_PONG, "no socket:connected in time", ABNORMAL),
      this.#options.connectTimeout ?? 10_000,
    );
  }

  #receive(text: unknown): void {
    let message: any;
    try {
      message = JSON.parse(text as string);
    } catch {
      // no message, like everything else that has no event
    }
    const { event, channel, data } = message ?? {};
    if (typeof event !== "string") return this._emit("error", new CorecastError("malformed_message", "not a message"));
    if (!event.startsWith("socket:")) return this.#subscriptions.message(message);
    switch (event) {
      case "socket:connected":
        return this.#connected(data);
      case "socket:ping":
        return this.#send("socket:pong");
      case "socket:pong":
        return this.#heartbeat?.pong(data?.reply);
      case "socket:subscribed":
        return this.#subscriptions.subscribeReply(channel);
      case "socket:subscribe.error":
        return this.#subscriptions.subscribeReply(channel, errorOf(data));
      case "socket:unsubscribed":
        return this.#subscriptions.unsubscribeReply(channel);
      case "socket:unsubscribe.error":
        return this.#subscriptions.unsubscribeReply(channel, errorOf(data));
      case "socket:error":
        return this._emit("error", errorOf(data));
    }
  }

  #connected(data: { socket_id: string; heart?: Heart } | undefined): void {
    if (this.#connectedAt || typeof data?.socket_id !== "string") return;
    const ws = this.#ws;
    clearTimeout(this.#connectTimer);
    clearTimeout(this.#unavailableTimer);
    this.#unavailableTimer = undefined;
    this.#connectedAt = Date.now();
    this.#socketId = data.socket_id;
    this.#heartbeat = new Heartbeat(
      heartOf(data.heart),
      (id) => this.#send("socket:ping", { id }),
      () => this.#drop(NO_PONG, "no pong in time", NO_PONG),
    );
    this.#subscriptions.connected({
      socketId: data.socket_id,
      send: (event, request) => ws === this.#ws && this.#send(event, request),
    });
    for (const { resolve } of this.#waiting.splice(0)) resolve(data.socket_id);
    this.#enter("connected");
  }

  #send(event: string, data?: object): void {
    // A message sent while the socket is closing is lost, as it should be: the next connection asks for everything anew.
    if (this.#ws?.readyState === OPEN) this.#ws.send(JSON.stringify({ event, data }));
  }

  /** Ends the connection from this side. `as`: the code that it then counts as closed with; none: it is not followed up. */
  #drop(code: number, reason: string, as?: number): void {
    const ws = this.#ws;
    this.#ws = undefined; // the closing handshake may take long where nobody answers
    ws?.close(code, reason);
    if (as) this.#lost(as, reason);
    else this.#forget();
  }

  #forget(blame?: CorecastError): void {
    this.#ws = this.#socketId = undefined;
    clearTimeout(this.#connectTimer);
    this.#heartbeat?.stop();
    this.#heartbeat = undefined;
    this.#subscriptions.lost(blame);
  }

  #lost(code: number, reason: string): void {
    const now = Date.now();
    const error = new CorecastError("closed", reason || `closed with ${code}`, code);
    const kind = verdict(code);
    const again = this.#blamed;
    if (this.#connectedAt && now - this.#connectedAt >= (this.#options.livedAfter ?? 5_000)) this.#failures = 0;
    // A second "at once" in a row backs off, or both ends would spin.
    const wait = kind === "at_once" && this.#failures === 0 ? 0 : backOff(this.#failures, this.#bounds);
    this.#failures += 1;
    this.#blamed = kind === "mend";
    if (kind === "never" || (this.#blamed && again)) {
      this.#forget(error);
      this.#stop("failed", error);
    } else {
      const least = earliest(code, reason);
      this.#notBefore = now + least;
      this.#retryTimer = setTimeout(() => this.#retry(), least + wait);
      this.#forget(this.#blamed ? error : undefined);
      if (this.#stopWatching) this.#trying(); // a handler may have disconnected
    }
    if (kind !== "back_off") this._emit("error", error);
  }

  #retry(): void {
    try {
      this.#open();
    } catch (error) {
      this.#lost(ABNORMAL, String(error));
    }
  }

  #trying(): void {
    this.#unavailableTimer ??= setTimeout(() => this.#enter("unavailable"), this.#options.unavailableAfter ?? 10_000);
    if (this.#state !== "unavailable") this.#enter("connecting");
  }

  /** Online again, or looked at again: finds out now what would show later. */
  #wake(): void {
    if (this.#heartbeat) this.#heartbeat.probe();
    else if (!this.#ws && Date.now() >= this.#notBefore) this.#retry();
  }

  /** The browser may be wrong: attempts go on, and a connection that still answers stays. */
  #offline(): void {
    if (this.#heartbeat) this.#heartbeat.probe();
    else this.#enter("unavailable");
  }

  #enter(current: ConnectionState): void {
    const previous = this.#state;
    if (previous === current) return;
    this.#state = current;
    this._emit(current);
    if (this.#state === current) this._emit("state_change", { previous, current });
  }
}

type Timer = ReturnType<typeof setTimeout> | undefined;

function errorOf(data: { error?: string; code?: string } | undefined): CorecastError {
  return new CorecastError(data?.code ?? "unknown", data?.error ?? "unknown");
}

const OPEN = 1;
/** The server's code for the same thing. */
const NO_PONG = 4201;
/** What a WebSocket says where there was no close frame. */
const ABNORMAL = 1006;
