import { type Deferred, deferred } from "./deferred.js";
import { Emitter } from "./emitter.js";
import { CorecastError } from "./errors.js";

/** A published message as it was received. */
export interface Message<Data = any> {
  event: string;
  /** Absent in a message to the user. */
  channel?: string;
  data?: Data;
  /** The place of the message in a channel that keeps history. Larger for each later message, with gaps. */
  offset?: number;
  /** The sender of a client event in a presence channel, as the server knows it. */
  user_id?: string;
}

/** A place in a channel that keeps history. */
export interface Position {
  /** The life of the log that numbers the messages. */
  epoch: string;
  offset: number;
  /** The connection that took the messages until here: what was published with `exclude` of it is not sent again. */
  socket_id?: string;
}

/** A user in a presence channel. */
export interface Member<Info = any> {
  user_id: string;
  user_info?: Info;
}

export interface Presence<Info = any> {
  count: number;
  members: readonly Member<Info>[];
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
export interface ChannelSystemEvents<Info = any> {
  /** Live, for the first time or after a reconnect. `recovered`: no message was missed, and `socket:load` does not follow. */
  "socket:subscribed": { recovered: boolean };
  /**
   * The application loads the state that the messages of the channel change: the subscription is new, or messages may have been
   * missed. Later messages arrive meanwhile.
   */
  "socket:load": undefined;
  /** Refused for good (`state` is `failed`), or refused for now and retried (`state` is `subscribing`). */
  "socket:subscribe.error": CorecastError;
  /** The server ended the subscription. It stays ended until `subscribe` of the socket is called. */
  "socket:unsubscribed": undefined;
  /** The server refused a client event. */
  "socket:error": CorecastError;
  /** `count` or `members` has changed, or is known for the first time on this connection. */
  "socket:presence": Presence<Info>;
  "socket:member_added": Member<Info>;
  "socket:member_removed": Member<Info>;
}

/** @internal What the references to one channel have in common. */
export interface Shared {
  /** `undefined`: the user. */
  readonly _name: string | undefined;
  _position?: Position | undefined;
  /** The last subscribe was answered with everything that was missed. */
  _recovered?: boolean | undefined;
  _presence: Partial<Presence> & Pick<Presence, "members">;
  _release(channel: Channel<any>): Promise<void>;
  _trigger(event: string, data: unknown): boolean;
}

/**
 * One reference to a subscription, from `subscribe` to `unsubscribe`, with handlers of its own. References to the same channel
 * share one subscription on the server. `Events` maps the names of published events to the types of their data. `Info` is the
 * type of `user_info` of the members.
 */
export class Channel<Events extends object = Record<string, any>, Info = any> extends Emitter<
  Events & ChannelSystemEvents<Info>,
  Message
> {
  /** The name of the channel; `#user` if `signIn` returned it. */
  readonly name: string;
  #state!: ChannelState;
  #subscribed!: Deferred<void>;
  #settled = true;
  #shared: Shared;
  #released: Promise<void> | undefined;
  /** @internal `socket:load` is due. */
  _behind = true;

  /** @internal */
  constructor(shared: Shared) {
    super();
    this.name = shared._name ?? USER;
    this.#shared = shared;
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
    return this.#subscribed._promise;
  }

  /**
   * The place of the last message whose handlers have returned, or where the subscription began. `undefined` if the channel keeps
   * no history. Each reconnect asks for what follows it.
   */
  get position(): Position | undefined {
    const { _position } = this.#shared;
    return _position && { ..._position };
  }

  /** The members of a presence channel, in the order of joining, as last known. A new array after each change. */
  get members(): readonly Member<Info>[] {
    return this.#shared._presence.members;
  }

  /** The number of members, or of connections where the server tells only that. `undefined` if it tells neither. */
  get count(): number | undefined {
    return this.#shared._presence.count;
  }

  /**
   * Sends a client event to the other subscribers. The name starts with `client-`. Returns whether it was sent: only while the
   * subscription is live, and without a confirmation. A refusal is emitted as `socket:error`. Throws if the name is not valid
   * Unicode.
   */
  trigger<Name extends keyof Events & `client-${string}`>(event: Name, data?: Events[Name]): boolean {
    // Throws at half of a surrogate pair: the server's answer to such a name would be taken for that to another request.
    if (!encodeURIComponent(event).startsWith("client-")) throw new TypeError(`the name of a client event must start with client-: ${event}`);
    return this.#state === "subscribed" && this.#shared._trigger(event, data);
  }

  /**
   * Releases this reference, once: no handler of it is called any more. The last release ends the subscription. Resolves when
   * the server has confirmed that, or when nothing needs confirming. `subscribe` of the socket returns a new reference.
   */
  unsubscribe(): Promise<void> {
    return (this.#released ??= this.#shared._release(this));
  }

  /** @internal */
  _subscribing(): void {
    this.#state = "subscribing";
    if (this.#settled) this.#subscribed = deferred();
    this.#settled = false;
  }

  /** @internal */
  _subscribed(): void {
    this.#state = "subscribed";
    this.#settled = true;
    this.#subscribed._resolve();
    this._behind ||= !this.#shared._recovered;
    this._emit("socket:subscribed", { recovered: !this._behind });
    this._tellPresence();
    this._load();
  }

  /** @internal */
  _load(): void {
    if (!this._behind || this.#state !== "subscribed") return;
    this._behind = false;
    this._emit("socket:load");
  }

  /** @internal */
  _tellPresence(): void {
    if (this.count !== undefined) this._emit("socket:presence", this.#shared._presence);
  }

  /** @internal */
  _ended(state: ChannelState, error: CorecastError): void {
    this.#state = state;
    this._reject(error);
  }

  /** @internal */
  _reject(error: CorecastError): void {
    this.#settled = true;
    this.#subscribed._reject(error);
  }
}

const USER = "#user";
