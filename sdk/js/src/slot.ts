import type { Signer } from "./auth.js";
import type { Channel, Member, Message, Position, Shared } from "./channel.js";
import type { Timer } from "./clock.js";
import type { Deferred } from "./deferred.js";
import type { Emitter } from "./emitter.js";

/** What this connection has of a channel. */
export enum Wire {
  Idle,
  Authorizing,
  Subscribing,
  Subscribed,
  Unsubscribing,
}

/** Everything about one channel, or about the user, which is a channel without a name. */
export interface Slot extends Shared {
  /** The references that the application holds. */
  _channels: Channel<any>[];
  /** Whether the subscription is to be live: it has references, and it was not refused. */
  _wanted?: boolean;
  _wire: Wire;
  /** Of the user only. */
  _signer?: Signer | undefined;
  /** Set while a signature is requested. */
  _stopSigning?: (() => void) | undefined;
  /** The last signature was refused as invalid, and another one was requested. */
  _signedAgain?: boolean;
  /** Refused because the connection has too many subscriptions. */
  _full?: boolean;
  _failures: number;
  _timer?: Timer;
  /** Runs from a gap to its report. */
  _gapTimer?: Timer;
  /** Set while the last release is not confirmed. */
  _leaving?: Deferred<void> | undefined;
  /** The position that the last subscribe was sent with. */
  _since?: Position | undefined;
}

/** Calls `visit` for each reference, including those that it removes. */
export function each<T>(slot: Slot, visit: (channel: Channel<any>) => T): T[] {
  return slot._channels.map(visit);
}

export function emit(slot: Slot, event: string, data?: unknown, message?: Message): void {
  each(slot, (channel) => channel._emit(event, data, message));
}

export function isLive(slot: Slot | undefined): slot is Slot {
  return !!slot?._wanted && slot._wire === Wire.Subscribed;
}

/** Stops what is going on for this slot. */
export function cancel(slot: Slot): void {
  slot._stopSigning?.();
  clearTimeout(slot._timer);
  clearTimeout(slot._gapTimer);
  slot._stopSigning = slot._timer = slot._gapTimer = undefined;
}

/** The subscription is live: takes its position and members from the reply. Returns the position if it was recovered. */
export function begin(slot: Slot, socketId: string, data: any): Position | undefined {
  const position = slot._position;
  // If the position is not the one that was sent, the request was made for references that have been released.
  slot._recovered = position && position === slot._since && data?.recovered && data.epoch === position.epoch;
  slot._presence = { members: [], ...data?.presence };
  return slot._recovered ? position : moveTo(slot, socketId, data);
}

/** A message of a live subscription. The handlers of `all` are called after those of the channel. */
export function deliver(slot: Slot, offset: number | undefined, message: Message, all: Emitter<any, Message>): void {
  const position = slot._position;
  if (position && offset! <= position.offset) return;
  const { event, data } = message;
  emit(slot, event, data, message);
  all._emit(event, data, message);
  // A handler may have taken a later message, and a message that is not kept has no offset.
  if (position && offset! > position.offset) position.offset = offset!;
}

/** `socket:gap`: messages may be missing. Its report waits for a random time, so that not every client loads its state at once. */
export function gap(slot: Slot, socketId: string, data: any): void {
  moveTo(slot, socketId, data);
  each(slot, (channel) => (channel._behind = true));
  slot._gapTimer ??= setTimeout(() => {
    slot._gapTimer = undefined;
    each(slot, (channel) => channel._load());
  }, Math.random() * GAP_SPREAD_MS);
}

/** `socket:member_added` and `socket:member_removed`, or `socket:presence` where only the number is known. */
export function presence(slot: Slot, event: string, data: any): void {
  const known = slot._presence.members.find(({ user_id }) => user_id === data.user_id);
  const members: Member[] = slot._presence.members.filter((member) => member !== known);
  if (event === "socket:member_added") members.push(data);
  slot._presence = { count: data.count ?? members.length, members };
  if (event !== "socket:presence") emit(slot, event, { ...known, ...data });
  each(slot, (channel) => channel._tellPresence());
}

/** Another position; none if `data` has none. */
export function moveTo(slot: Slot, socket_id: string | undefined, data: any): undefined {
  slot._position = data?.epoch && { epoch: data.epoch, offset: data.offset, socket_id };
}

const GAP_SPREAD_MS = 5_000;
