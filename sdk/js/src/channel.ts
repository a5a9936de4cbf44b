import { Emitter } from "./emitter.js";
import { CorecastError } from "./errors.js";

/** A published message as it was received. */
export interface Message<Data = any> {
  event: string;
  channel: string;
  data?: Data;
}

export type ChannelState =
  /** Requested, or about to be. */
  | "subscribing"
  /** Every message that is published from now on arrives, once, in order. */
  | "subscribed"
  /** Ended by `unsubscribe()` or by the server. */
  | "unsubscribed"
  /** Refused by the server or by the signing backend. `subscribe` of the socket tries again. */
  | "failed";

/** Events of the subscription itself. A published event cannot have one of these names. */
export interface ChannelSystemEvents {
  /** The subscription is live, for the first time or after a reconnect. Messages published in between did not arrive. */
  "socket:subscribed": undefined;
  /** Refused for good (`state` is `failed`), or refused for now and retried (`state` is `subscribing`). */
  "socket:subscribe.error": CorecastError;
  /** The server ended the subscription. It stays ended until `subscribe` of the socket is called. */
  "socket:unsubscribed": undefined;
}

/**
 * One reference to a subscription, from `subscribe` to `unsubscribe`, with handlers of its own. References to the same channel
 * share one subscription on the server. `Events` maps the names of published events to the types of their data.
 */
export class Channel<Events extends object = Record<string, any>> extends Emitter<Events & ChannelSystemEvents, Message> {
  readonly name: string;
  #state: ChannelState = "subscribing";
  #promise!: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: CorecastError) => void;
  #settled = true;
  #release: (channel: Channel<any>) => Promise<void>;
  #released: Promise<void> | undefined;

  /** @internal */
  constructor(name: string, release: (channel: Channel<any>) => Promise<void>) {
    super();
    this.name = name;
    this.#release = release;
    this._subscribing();
  }

  get state(): ChannelState {
    return this.#state;
  }

  /**
   * Resolves when the subscription is live. Rejects with a `CorecastError` if it is refused or ended, or if the connection ended
   * for good. After a lost connection this is a new promise.
   */
  get subscribed(): Promise<void> {
    return this.#promise;
  }

  /**
   * Releases this reference, once: no handler of it is called any more. The last release ends the subscription. Resolves when
   * the server has confirmed that, or when nothing needs confirming. `subscribe` of the socket returns a new reference.
   */
  unsubscribe(): Promise<void> {
    return (this.#released ??= this.#release(this));
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
    this.#promise.catch(() => {}); // an application that does not await it gets no unhandled rejection
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
    this._reject(error);
  }

  /** @internal */
  _reject(error: CorecastError): void {
    this.#settled = true;
    this.#reject(error);
  }
}
