import { type Auth, decimalSocketId, signer } from "./auth.js";
import type { Channel, Message } from "./channel.js";
import { deadline, now, type Timer } from "./clock.js";
import { Emitter } from "./emitter.js";
import { CorecastError } from "./errors.js";
import { type Heart, Heartbeat, heartOf } from "./heartbeat.js";
import { type BackOff, backOff, earliest, verdict } from "./retry.js";
import { Subscriptions } from "./subscriptions.js";
import { watchEnvironment } from "./wake.js";

export type ConnectionState =
  /** Constructed with `autoConnect: false`; `connect` was not called yet. */
  | "initialized"
  /** Connecting, or waiting for the next attempt. */
  | "connecting"
  /** `socketId` is known, and subscriptions are requested. */
  | "connected"
  /** Still connecting, without success for `unavailableAfter`, or the browser reports that it is offline. */
  | "unavailable"
  /** `disconnect` was called. */
  | "disconnected"
  /** The server refused for good, or there is no WebSocket: only `connect` tries again. */
  | "failed";

export interface StateChange {
  previous: ConnectionState;
  current: ConnectionState;
}

/** What a socket emits: each state by its name, each change of state, the end of each connection, and errors. */
export type SocketEvents = { [State in ConnectionState]: undefined } & {
  state_change: StateChange;
  /** An attempt to connect has failed, or a connection was lost or closed by the server. `lastError` is the same object. */
  closed: CorecastError;
  /**
   * Something needs attention: a `socket:error` that belongs to no subscription, a message that cannot be read, or a close
   * that the client could not prevent (see the table of close codes). The connection recovers by itself if it can.
   */
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
  /** Signs for private channels: the URL of an endpoint, an endpoint with settings, or a function. */
  auth?: Auth;
  /** Whether the constructor connects. Default true. */
  autoConnect?: boolean;
  /** A WebSocket class such as that of the package `ws`, for environments without a built-in one (Node 20). */
  WebSocket?: new (url: string) => WebSocketLike;
  /** Bounds of the reconnection delay, in ms. Default `{ min: 500, max: 20_000 }`. */
  backOff?: Partial<BackOff>;
  /** Milliseconds for which a connection must last to reset the back-off. Default 5 000. */
  livedAfter?: number;
  /** Milliseconds from opening to `socket:connected`. Default 10 000. */
  connectTimeout?: number;
  /** Milliseconds without a connection after which the state is `unavailable`. Default 10 000. */
  unavailableAfter?: number;
  /** Milliseconds that a signature may take. Default 10 000. */
  authTimeout?: number;
  /**
   * Reads a published message from its text, instead of `JSON.parse`: to keep 64-bit numbers exact, or to keep the text. It must
   * return an object with `event`, `channel` and `data`.
   */
  parse?: (text: string) => unknown;
  /** Initial value of `socket.debug`. */
  debug?: Debug;
}

/** Where to log: `true` logs to the console. */
export type Debug = boolean | ((line: string) => void);

type AnyMessageHandler = (event: string, data: any, message: Message) => void;

/** A connection that reconnects by itself, and its subscriptions. */
export class Corecast extends Emitter<SocketEvents> {
  /** The class of all errors, for code that has only the global `Corecast`. */
  static readonly CorecastError = CorecastError;

  readonly url: string;
  /** Logs each message, each change of state, and each wait for a reconnect. The log contains signatures. */
  debug: Debug;
  #options: Options;
  #bounds: BackOff;
  #subscriptions: Subscriptions;
  #messages = new Emitter<any, Message>();
  #state: ConnectionState = "initialized";
  #socketId: string | undefined;
  #lastError: CorecastError | undefined;
  #ws: WebSocketLike | undefined;
  #heartbeat: Heartbeat | undefined;
  #stopConnectTimer: (() => void) | undefined;
  #retryTimer: Timer;
  #unavailableTimer: Timer;
  #stopWatching: (() => void) | undefined;
  /** Connections in a row that did not last for `livedAfter`. */
  #failures = 0;
  /** When `socket:connected` arrived. */
  #connectedAt: number | undefined;
  /** Time before which the server asked not to be contacted. */
  #notBefore = 0;
  /** The previous connection was closed because of a mistake of the client. */
  #blamed = false;
  #waiting: { resolve: (socketId: string) => void; reject: (error: CorecastError) => void }[] = [];

  /** `url`: a string or a `URL`. Throws a `TypeError` if it is not a WebSocket URL. */
  constructor(url: string | { readonly href: string }, options: Options = {}) {
    super();
    this.url = webSocketUrl(`${url}`);
    this.#options = options;
    this.debug = options.debug ?? false;
    this.#bounds = { min: 500, max: 20_000, ...options.backOff };
    const { auth, authTimeout = 10_000 } = options;
    this.#subscriptions = new Subscriptions(auth ? signer(auth) : undefined, authTimeout, this.#bounds);
    if (options.autoConnect ?? true) this.#start();
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** The server's name for this connection. Each connection has another one. */
  get socketId(): string | undefined {
    return this.#socketId;
  }

  /** The second spelling of `socketId`, which Pusher's server libraries accept. */
  get socketIdDecimal(): string | undefined {
    return this.#socketId && decimalSocketId(this.#socketId);
  }

  /** Why the last attempt to connect failed, or why the last connection ended. Not reset by a successful attempt. */
  get lastError(): CorecastError | undefined {
    return this.#lastError;
  }

  /** Connects, unless it already does. Resolves with the socket_id. Rejects if the server refuses for good. */
  connect(): Promise<string> {
    const promise = new Promise<string>((resolve, reject) => {
      if (this.#socketId !== undefined) return resolve(this.#socketId);
      this.#waiting.push({ resolve, reject });
    });
    promise.catch(() => {}); // an application that does not await it gets no unhandled rejection
    try {
      this.#start();
    } catch {
      // the promise is rejected
    }
    return promise;
  }

  /** Disconnects and does not reconnect. `connect` restores the subscriptions and their handlers. */
  disconnect(): void {
    if (this.#state === "initialized") return;
    this.#drop(1000, "");
    this.#stop("disconnected", new CorecastError("disconnected", "disconnect was called"));
  }

  /**
   * Returns a new reference to the subscription of a channel, which exists as long as it has references. It is live once
   * `subscribed` resolves, and is restored after each reconnect. A subscription that was refused is tried again.
   */
  subscribe<Events extends object = Record<string, any>>(name: string): Channel<Events> {
    return this.#subscriptions.subscribe(name);
  }

  /** Releases all references to a channel. Resolves when the server has confirmed the end of the subscription. */
  unsubscribe(name: string): Promise<void> {
    return this.#subscriptions.unsubscribe(name);
  }

  /** The oldest reference to a channel. This does not count as a reference. */
  channel<Events extends object = Record<string, any>>(name: string): Channel<Events> | undefined {
    return this.#subscriptions.get(name);
  }

  /** The oldest reference to each channel. */
  channels(): Channel[] {
    return this.#subscriptions.all();
  }

  /** Calls `handler` once for each message of every subscribed channel, after the handlers of the channel. */
  bindGlobal(handler: AnyMessageHandler): this {
    this.#messages.bindAll(handler);
    return this;
  }

  /** Removes one handler given to `bindGlobal`, or all of them. */
  unbindGlobal(handler?: AnyMessageHandler): this {
    this.#messages.unbindAll(handler);
    return this;
  }

  #start(): void {
    if (this.#stopWatching) return;
    this.#failures = this.#notBefore = 0;
    this.#blamed = false;
    this.#subscriptions.awaitAgain();
    if (!this.#class) {
      const help = "no WebSocket here: pass options.WebSocket, for example that of the package ws";
      return this.#stop("failed", new CorecastError("no_websocket", help));
    }
    this.#stopWatching = watchEnvironment(
      () => this.#wake(),
      () => this.#offline(),
    );
    try {
      this.#open();
    } catch (error) {
      this.#stop("failed", new CorecastError("connect_failed", `${error}`));
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
    const failed = state === "failed";
    if (failed) this.#lastError = error;
    this.#subscriptions.giveUpWaiting(error, failed);
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    this.#enter(state);
    if (failed) this._emit("closed", error);
  }

  get #class(): Options["WebSocket"] {
    return this.#options.WebSocket ?? (globalThis.WebSocket as Options["WebSocket"]);
  }

  #open(): void {
    clearTimeout(this.#retryTimer);
    const ws = (this.#ws = new this.#class!(this.url));
    this.#connectedAt = undefined;
    let cause: string | undefined;
    ws.onmessage = ({ data }) => {
      if (ws === this.#ws) this.#receive(data);
    };
    ws.onclose = ({ code, reason }) => {
      if (ws === this.#ws) this.#lost(code, reason, cause);
    };
    ws.onerror = (event) => {
      cause = event?.message || event?.error?.code || undefined; // browsers do not tell
      // A close follows, except in Node 22 if the connection was never open.
      if (ws === this.#ws && ws.readyState === CONNECTING) this.#lost(ABNORMAL, "", cause);
    };
    const timeout = this.#options.connectTimeout ?? 10_000;
    this.#stopConnectTimer = deadline(timeout, () =>
      this.#drop(NO_PONG, "", ABNORMAL, `no socket:connected within ${timeout} ms`),
    );
  }

  #receive(text: unknown): void {
    if (this.debug) this.#log(`← ${text}`);
    let message: any;
    try {
      message = JSON.parse(text as string);
      if (this.#options.parse && !`${message?.event}`.startsWith("socket:")) message = this.#options.parse(text as string);
    } catch {
      message = {}; // not a message, like everything else without an event
    }
    const { event, channel, data } = message ?? {};
    if (typeof event !== "string") {
      return this._emit("error", new CorecastError("malformed_message", `not a message: ${`${text}`.slice(0, 100)}`));
    }
    if (!event.startsWith("socket:")) {
      if (this.#subscriptions.message(message)) this.#messages._emit(event, data, message);
      return;
    }
    const error = () => new CorecastError(data?.code ?? "unknown", data?.error ?? "unknown");
    switch (event) {
      case "socket:connected":
        return this.#connected(data);
      case "socket:ping":
        return this.#send("socket:pong");
      case "socket:pong":
        this.#subscriptions.pong();
        return this.#heartbeat?.pong(data?.reply ?? 0);
      case "socket:subscribed":
        return this.#subscriptions.subscribeReply(channel);
      case "socket:subscribe.error":
        return this.#subscriptions.subscribeReply(channel, error());
      case "socket:unsubscribed":
        return this.#subscriptions.unsubscribeReply(channel);
      case "socket:unsubscribe.error":
        return this.#subscriptions.unsubscribeReply(channel, error());
      case "socket:error":
        return this.#refused(channel, error());
    }
  }

  /** `socket:error`. Without a channel it is the reply to the oldest request, whichever that is. */
  #refused(channel: string | undefined, error: CorecastError): void {
    const request = channel === undefined && this.#subscriptions.error(error);
    if (request === "ping") this.#heartbeat?.pong();
    if (request !== "subscribe") this._emit("error", error);
  }

  #connected(data: { socket_id: string; heart?: Heart } | undefined): void {
    if (this.#connectedAt !== undefined || typeof data?.socket_id !== "string") return;
    const ws = this.#ws;
    this.#stopConnectTimer?.();
    clearTimeout(this.#unavailableTimer);
    this.#unavailableTimer = undefined;
    this.#connectedAt = now();
    this.#socketId = data.socket_id;
    this.#heartbeat = new Heartbeat(
      heartOf(data.heart),
      (id) => {
        this.#subscriptions.ping();
        this.#send("socket:ping", { id });
      },
      () => this.#drop(NO_PONG, "", NO_PONG, "no pong in time"),
    );
    this.#subscriptions.connected({
      socketId: data.socket_id,
      send: (event, request) => ws === this.#ws && this.#send(event, request),
    });
    for (const { resolve } of this.#waiting.splice(0)) resolve(data.socket_id);
    this.#enter("connected");
  }

  #send(event: string, data?: object): void {
    // What is sent while the socket closes is lost. The next connection requests everything again.
    if (this.#ws?.readyState !== OPEN) return;
    const text = JSON.stringify({ event, data });
    this.#log(`→ ${text}`);
    this.#ws.send(text);
  }

  /** Closes the connection. With `as`, the code that it counts as closed with, the client reconnects. */
  #drop(code: number, reason: string, as?: number, cause?: string): void {
    const ws = this.#ws;
    this.#ws = undefined; // the closing handshake may take long if the server does not answer
    ws?.close(code, reason);
    if (as) this.#lost(as, "", cause);
    else this.#forget();
  }

  #forget(blame?: CorecastError): void {
    this.#ws = this.#socketId = undefined;
    this.#stopConnectTimer?.();
    this.#heartbeat?.stop();
    this.#heartbeat = undefined;
    this.#subscriptions.lost(blame);
  }

  #lost(code: number, reason: string, cause = `closed with ${code}`): void {
    const error =
      code === ABNORMAL && this.#connectedAt === undefined
        ? new CorecastError("connect_failed", `${this.url}: ${cause}`, code, status(cause))
        : new CorecastError("closed", reason || cause, code);
    const kind = verdict(code);
    const again = this.#blamed;
    if (now() - this.#connectedAt! >= (this.#options.livedAfter ?? 5_000)) this.#failures = 0;
    // A second "at once" in a row backs off: otherwise client and server would spin.
    const wait = kind === "at_once" && this.#failures === 0 ? 0 : backOff(this.#failures, this.#bounds);
    this.#failures += 1;
    this.#lastError = error;
    this.#blamed = kind === "mend";
    if (kind === "never" || (this.#blamed && again)) {
      this.#forget(error);
      this.#stop("failed", error);
    } else {
      const least = earliest(code, reason);
      this.#notBefore = now() + least;
      this.#log(`${error.message}; next attempt in ${Math.round(least + wait)} ms`);
      this.#retryTimer = setTimeout(() => this.#retry(), least + wait);
      this.#forget(this.#blamed ? error : undefined);
      if (this.#stopWatching) this.#trying(); // a handler may have called disconnect
      this._emit("closed", error);
    }
    if (kind !== "back_off") this._emit("error", error);
  }

  #retry(): void {
    try {
      this.#open();
    } catch (error) {
      this.#lost(ABNORMAL, "", `${error}`);
    }
  }

  #trying(): void {
    this.#unavailableTimer ??= setTimeout(() => this.#enter("unavailable"), this.#options.unavailableAfter ?? 10_000);
    if (this.#state !== "unavailable") this.#enter("connecting");
  }

  /** The browser is online again, or the page is visible again: checks now what would be noticed later. */
  #wake(): void {
    if (this.#heartbeat) this.#heartbeat.probe();
    else if (!this.#ws && now() >= this.#notBefore) this.#retry();
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
    this.#log(`${previous} → ${current}`);
    this._emit(current);
    if (this.#state === current) this._emit("state_change", { previous, current });
  }

  #log(line: string): void {
    const { debug } = this;
    if (typeof debug === "function") debug(line);
    else if (debug) console.debug("corecast", line);
  }
}

function webSocketUrl(url: string): string {
  try {
    if (/^wss?:/.test(new URL(url).protocol) && !url.includes("#")) return url;
  } catch {
    // not a URL
  }
  throw new TypeError(`not a WebSocket URL (ws://… or wss://…, without #): ${url}`);
}

/** The HTTP status in the error message of the package `ws`. */
function status(message: string): number | undefined {
  const found = /server response: (\d+)/.exec(message);
  return found ? +found[1]! : undefined;
}

const CONNECTING = 0;
const OPEN = 1;
/** The close code that the server uses for a missing pong. */
const NO_PONG = 4201;
/** The close code that a WebSocket reports if there was no close frame. */
const ABNORMAL = 1006;
