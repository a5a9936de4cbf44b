/** For the business backend, in Node: signs subscriptions to private channels, and publishes over the admin socket. */
import { createHmac } from "node:crypto";
import { connect, type Socket } from "node:net";
import { CorecastError } from "./errors.js";
import { type BackOff, backOff } from "./retry.js";

export { CorecastError } from "./errors.js";

export interface BackendOptions {
  /** `ID:SECRET`, as the server is given it. Needed to sign. */
  key?: string;
  /** Path of the server's admin socket. Needed to publish. */
  adminSocket?: string;
  /** Milliseconds that a request may take, from the call to the reply. Default 5 000. */
  timeout?: number;
  /** Requests that may wait for a reply; beyond it `queue_full`. Default 10 000. */
  queueMax?: number;
  /** Bytes of one request; the server's `--admin-line-limit`, beyond which it closes the connection. Default 1 MiB. */
  lineMax?: number;
  /** Bounds of the reconnection delay, in ms. Default `{ min: 50, max: 2_000 }`. */
  backOff?: Partial<BackOff>;
}

/** What a signing endpoint answers: JSON of this. */
export interface Signature {
  auth: string;
  channel_data?: string;
}

export interface PublishOptions {
  /** A socket_id that the message does not go to: that of the client that caused it. */
  exclude?: string;
}

/** What the backend does with a corecast server: `sign`, `authorize`, `publish`, `request`. */
export class CorecastBackend {
  #options: BackendOptions;
  #socket: Socket | undefined;
  #connected = false;
  #closed = false;
  #failures = 0;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #lastId = 0;
  /** Not handed to the socket yet. */
  #waiting: Request[] = [];
  /** Handed to the socket; replies come in this order. */
  #sent: Request[] = [];
  #flushing = false;
  #received = "";

  constructor(options: BackendOptions) {
    this.#options = options;
  }

  /** Signs the subscription of one connection to one private channel. Throws where either is not what its name says. */
  sign(socketId: string, channel: string, channelData?: string): Signature {
    const [, id, secret] = /^([^:]+):(.+)$/.exec(this.#options.key ?? "") ?? [];
    if (!id || !secret) throw new CorecastError("no_key", "signing needs the option key, ID:SECRET");
    return sign(id, secret, socketId, channel, channelData);
  }

  /**
   * The answer of a signing endpoint: `form` is what the client POSTed (single or batch), `may` decides for each channel:
   * `true` signs, a string signs with it as channel_data, anything else refuses. `status` and `body` (JSON) go back to the client.
   */
  async authorize(
    form: URLSearchParams,
    may: (channel: string) => boolean | string | Promise<boolean | string>,
  ): Promise<{ status: number; body: string }> {
    const socketId = form.get("socket_id") ?? "";
    const one = async (channel: string) => {
      try {
        const decision = await may(channel);
        if (decision !== true && typeof decision !== "string") return { error: "forbidden" };
        return this.sign(socketId, channel, decision === true ? undefined : decision);
      } catch (error) {
        if (error instanceof CorecastError && error.code !== "no_key") return { error: error.message };
        throw error;
      }
    };
    const channel = form.get("channel_name");
    if (channel !== null) {
      const answer = await one(channel);
      return { status: "error" in answer ? 403 : 200, body: JSON.stringify(answer) };
    }
    const answers: [string, Signature | { error: string }][] = [];
    for (const name of form.getAll("channel_name[]")) answers.push([name, await one(name)]);
    return { status: 200, body: JSON.stringify(Object.fromEntries(answers)) };
  }

  /** Publishes to a channel, or to up to 100 of them. Resolves, once the server has taken it, with how many it goes to. */
  async publish(channel: string | string[], event: string, data?: unknown, options: PublishOptions = {}): Promise<number> {
    const to = typeof channel === "string" ? { channel } : { channels: channel };
    const reply = await this.request("publish", { ...to, event, data, ...options });
    return reply.subscribers as number;
  }

  /**
   * Any command of the admin socket (PROTOCOL.md). Calls may overlap; they are sent in order, and in one write where they are
   * made in one turn. While there is no connection they wait. Rejects with the server's `code`, or with `timeout`,
   * `queue_full`, `too_large`, `closed`, or `connection_lost`: sent, and never answered, so it may have happened or not.
   */
  request(command: string, members: object = {}): Promise<Record<string, unknown>> {
    return new Promise((resolve, reject) => {
      const { queueMax = 10_000, lineMax = 1 << 20, timeout = 5_000 } = this.#options;
      const id = ++this.#lastId;
      const line = JSON.stringify({ id, command, ...members }) + "\n";
      if (this.#closed) return reject(new CorecastError("closed", "close was called"));
      if (this.#waiting.length + this.#sent.length >= queueMax) {
        return reject(new CorecastError("queue_full", `${queueMax} requests wait for a reply`));
      }
      if (Buffer.byteLength(line) > lineMax) {
        return reject(new CorecastError("too_large", `the request is over ${lineMax} bytes`));
      }
      const request: Request = { id, line, resolve, reject };
      request.timer = setTimeout(() => {
        const at = this.#waiting.indexOf(request);
        if (at >= 0) this.#waiting.splice(at, 1); // else its reply is still to be counted off
        settle(request);
        reject(new CorecastError("timeout", `no reply within ${timeout} ms`));
      }, timeout);
      this.#waiting.push(request);
      this.#connect();
      this.#flushSoon();
    });
  }

  /** Resolves once every request was answered, or failed; there can be no further one. */
  async close(): Promise<void> {
    this.#closed = true;
    const pending = [...this.#waiting, ...this.#sent];
    await Promise.all(pending.map((request) => new Promise<void>((resolve) => (request.done = resolve))));
    clearTimeout(this.#retryTimer);
    this.#socket?.destroy();
  }

  #connect(): void {
    if (this.#socket || this.#retryTimer) return;
    const { adminSocket } = this.#options;
    if (!adminSocket) return this.#failAll(this.#waiting, "no_admin_socket", "publishing needs the option adminSocket");
    const socket = (this.#socket = connect(adminSocket));
    socket.setEncoding("utf8");
    socket.on("connect", () => {
      this.#connected = true;
      this.#flushSoon();
    });
    socket.on("data", (text: string) => this.#receive(text));
    socket.on("error", () => {}); // a close follows
    socket.on("close", () => this.#lost());
  }

  #lost(): void {
    this.#socket = undefined;
    this.#connected = false;
    this.#received = "";
    this.#failAll(this.#sent, "connection_lost", "the connection to the server ended before the reply");
    if (this.#waiting.length === 0) return; // the next request connects
    this.#retryTimer = setTimeout(
      () => {
        this.#retryTimer = undefined;
        if (this.#waiting.length > 0) this.#connect();
      },
      backOff(this.#failures++, { min: 50, max: 2_000, ...this.#options.backOff }),
    );
  }

  #flushSoon(): void {
    if (this.#flushing || !this.#connected) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      const requests = this.#waiting.splice(0);
      if (requests.length === 0) return;
      if (!this.#connected) return void this.#waiting.unshift(...requests);
      this.#sent.push(...requests);
      this.#socket!.ref().write(requests.map((request) => request.line).join(""));
    });
  }

  #receive(text: string): void {
    const lines = (this.#received + text).split("\n");
    this.#received = lines.pop()!;
    for (const line of lines) {
      const { id, ok, code, error, ...rest } = JSON.parse(line);
      const request = this.#sent[0];
      // Out of step, nothing that follows could be believed. What was sent fails with the close.
      if (request?.id !== id) return void this.#socket!.destroy();
      this.#sent.shift();
      this.#failures = 0;
      settle(request!);
      if (ok) request!.resolve(rest);
      else request!.reject(new CorecastError(code, error));
    }
    if (this.#sent.length === 0) this.#socket!.unref(); // an idle connection keeps no process alive
  }

  #failAll(requests: Request[], code: string, message: string): void {
    for (const request of requests.splice(0)) {
      settle(request);
      request.reject(new CorecastError(code, message));
    }
  }
}

/** Signs with a key pair. See `CorecastBackend.sign`. */
export function sign(id: string, secret: string, socketId: string, channel: string, channelData?: string): Signature {
  // A socket_id with more in it could make the signature of one channel pass for another's.
  if (!SOCKET_ID.test(socketId)) throw new CorecastError("invalid_socket_id", "not a socket_id");
  if (!PRIVATE_CHANNEL.test(channel) || channel.length > 200) {
    throw new CorecastError("invalid_channel", "not the name of a private channel");
  }
  const data = channelData === undefined ? {} : { channel_data: channelData };
  const text = [socketId, channel, ...Object.values(data)].join(":");
  return { auth: `${id}:${createHmac("sha256", secret).update(text).digest("hex")}`, ...data };
}

interface Request {
  id: number;
  line: string;
  resolve: (reply: Record<string, unknown>) => void;
  reject: (error: CorecastError) => void;
  timer?: ReturnType<typeof setTimeout>;
  done?: () => void;
}

function settle(request: Request): void {
  clearTimeout(request.timer);
  request.done?.();
}

/** Both spellings (PROTOCOL.md, Authorization). */
const SOCKET_ID = /^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{1,20}\.\d{1,20})$/;
const PRIVATE_CHANNEL = /^private-[A-Za-z0-9_\-=@,.;/]*$/;
