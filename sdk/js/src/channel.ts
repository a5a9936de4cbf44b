import { Emitter } from "./emitter.js";
import { CorecastError } from "./errors.js";

/** A business message as it came. */
export interface Message<Data = any> {
  event: string;
  channel: string;
  data?: Data;
}

export type ChannelState =
  /** Wanted, and not live yet, or not live again yet. */
  | "subscribing"
  /** Live: every message published from now on arrives, once, in order. */
  | "subscribed"
  /** Left, by `unsubscribe()` or by the server. */
  | "unsubscribed"
  /** Refused by the server or by the signing backend; `subscribe` of the socket tries again. */
  | "failed";

/** What happens to the subscription itself. A business event cannot have such a name. */
export interface ChannelSystemEvents {
  /** Live; again after every reconnect. What was published in between did not arrive. */
  "socket:subscribed": undefined;
  /** Refused for good (`state` is `failed`), or for now and tried again (`state` is `subscribing`). */
  "socket:subscribe.error": CorecastError;
  /** The server ended the subscription. It stays ended until `subscribe` of the socket is called. */
  "socket:unsubscribed": undefined;
}

/** One subscription, from `subscribe` to `unsubscribe`. `Events` maps the names of business events to the types of their data. */
export class Channel<Events extends object = Record<string, any>> extends Emitter<Events & ChannelSystemEvents, Message> {
  #state: ChannelState = "subscribing";
  #promise!: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: CorecastError) => void;
  #settled = true;
  #leave: (channel: Channel<any>) => Promise<void>;

  /** @internal */
  constructor(
    readonly name: string,
    leave: (channel: Channel<any>) => Promise<void>,
  ) {
    super();
    this.#leave = leave;
    this._subscribing();
  }

  get state(): ChannelState {
    return this.#state;
  }

  /**
   * Resolves once the subscription is live. Rejects with a `CorecastError` where it is refused, left, or where the connection
   * was ended for good. After a connection was lost this is a new promise.
   */
  get subscribed(): Promise<void> {
    return this.#promise;
  }

  /**
   * Leaves the channel. No handler is called from here on. Resolves once the server has confirmed it, or the connection is
   * gone. To come back, call `subscribe` of the socket: it gives a new `Channel`.
   */
  unsubscribe(): Promise<void> {
    return this.#leave(this);
  }

  /** @internal */
  _subscribing(): void {
    this.#state = "subscribing";
    if (!this.#settled) return;
    this.#settled = false;
    this.#promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#promise.catch(() => {}); // nobody has to await it
  }

  /** @internal */
  _subscribed(): void {
    this.#state = "subscribed";
    this.#settled = true;
    this.#resolve();
    this._emit("socket:subscribed");
  }

  /** @internal */
  _ended(state: ChannelState, error: CorecastError): void {
    this.#state = state;
    this._giveUpWaiting(error);
  }

  /** @internal */
  _giveUpWaiting(error: CorecastError): void {
    this.#settled = true;
    this.#reject(error);
  }
}
