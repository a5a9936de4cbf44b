import { decimalSocketId, signer, text, type UserAuth } from "./auth.js";
import type { Channel, Message } from "./channel.js";
import { type Connection, connection } from "./connection.js";
import { Emitter } from "./emitter.js";
import { CorecastError } from "./errors.js";
import type { ConnectionState, Debug, Options, SocketEvents, SubscribeOptions } from "./options.js";
import { type Subscriptions, subscriptions } from "./subscriptions.js";

type AnyMessageHandler = (event: string, data: any, message: Message) => void;

/** A connection that reconnects by itself, and its subscriptions. */
export class Corecast extends Emitter<SocketEvents> {
  /** The class of all errors, for code that has only the global `Corecast`. */
  static get CorecastError(): typeof CorecastError {
    return CorecastError; // a static field would become a static block, which browsers before 2023 do not all have
  }

  readonly url: string;
  /** Logs each message, each change of state, and each wait for a reconnect. The log contains signatures. */
  debug: Debug;
  #subscriptions: Subscriptions;
  #messages = new Emitter<any, Message>();
  #connection: Connection;

  /** `url`: a string or a `URL`. Throws a `TypeError` if it is not a WebSocket URL. */
  constructor(url: string | { readonly href: string }, options: Options = {}) {
    super();
    this.url = webSocketUrl(`${url}`);
    const { auth, authTimeout = 10_000, autoConnect = true, debug = false } = options;
    this.debug = debug;
    const { min = 500, max = 20_000 } = options.backOff ?? {};
    const bounds = { min, max };
    this.#subscriptions = subscriptions(auth ? signer(auth) : undefined, authTimeout, bounds, this.#messages);
    this.#connection = connection(this, options, bounds, this.#subscriptions);
    if (autoConnect) this.#connection._start();
  }

  get state(): ConnectionState {
    return this.#connection._state();
  }

  /** The server's name for this connection. Each connection has another one. */
  get socketId(): string | undefined {
    return this.#connection._socketId();
  }

  /** The second spelling of `socketId`, which Pusher's server libraries accept. */
  get socketIdDecimal(): string | undefined {
    const { socketId } = this;
    return socketId && decimalSocketId(socketId);
  }

  /** The user that the connection is signed in as. */
  get userId(): string | undefined {
    return this.#connection._userId();
  }

  /** Why the last attempt to connect failed, or why the last connection ended. Not reset by a successful attempt. */
  get lastError(): CorecastError | undefined {
    return this.#connection._lastError();
  }

  /** Connects, unless it already does. Resolves with the socket_id. Rejects if the server refuses for good. */
  connect(): Promise<string> {
    return this.#connection._connect();
  }

  /** Disconnects and does not reconnect. `connect` restores the subscriptions and their handlers. */
  disconnect(): void {
    this.#connection._disconnect();
  }

  /**
   * Returns a new reference to the subscription of a channel, which exists as long as it has references. It is live once
   * `subscribed` resolves, and is restored after each reconnect. A subscription that was refused is tried again.
   */
  subscribe<Events extends object = Record<string, any>, Info = any>(
    name: string,
    options: SubscribeOptions = {},
  ): Channel<Events, Info> {
    return this.#subscriptions._subscribe(text(name, "a channel"), options.since);
  }

  /**
   * Signs this connection and every later one in as a user of the application, whom the backend names and signs for. Returns a
   * new reference to what is published to that user, which is used as a channel. Presence channels wait for the sign-in.
   */
  signIn<Events extends object = Record<string, any>>(auth: UserAuth): Channel<Events> {
    return this.#subscriptions._subscribe(undefined, null, signer(auth));
  }

  /** Releases all references to a channel. Resolves when the server has confirmed the end of the subscription. */
  unsubscribe(name: string): Promise<void> {
    return this.#subscriptions._unsubscribe(text(name, "a channel"));
  }

  /** The oldest reference to a channel. This does not count as a reference. */
  channel<Events extends object = Record<string, any>>(name: string): Channel<Events> | undefined {
    return this.#subscriptions._get(text(name, "a channel"));
  }

  /** The oldest reference to each channel. */
  channels(): Channel[] {
    return this.#subscriptions._all();
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

}

function webSocketUrl(url: string): string {
  try {
    if (/^wss?:/.test(new URL(url).protocol) && !url.includes("#")) return url;
  } catch {
    // not a URL
  }
  throw new TypeError(`not a WebSocket URL (ws: or wss:, without #): ${url}`);
}

