import type { Signature, Signer } from "./auth.js";
import { Channel, type Message, type Position } from "./channel.js";
import { deadline, now } from "./clock.js";
import { deferred } from "./deferred.js";
import type { Emitter } from "./emitter.js";
import { CorecastError } from "./errors.js";
import { backOff, type BackOff, bounded, FULL, passes } from "./retry.js";
import { begin, cancel, deliver, each, emit, gap, isLive, moveTo, presence, type Slot, Wire } from "./slot.js";

/** A connection on which `socket:connected` has arrived. */
export interface Link {
  _socketId: string;
  /** Returns whether the connection is open. */
  _send(event: string, data: unknown, channel?: string): boolean;
  /** The ping is answered, without its id. */
  _pong(): void;
}

/** A frame as it was received, read by `JSON.parse`. */
export interface Frame {
  event: string;
  channel?: string;
  data?: any;
  offset?: number;
}

export type Subscriptions = ReturnType<typeof subscriptions>;

/**
 * What the application wants, what this connection has, and the requests that bring the two together.
 *
 * Invariants: a channel has at most one request in flight, so two requests for it cannot cross; a signature is used only on the
 * connection that it was made for; a message reaches a channel only while its subscription is live and wanted.
 */
export function subscriptions(
  signer: Signer | undefined,
  signTimeout: number,
  bounds: BackOff,
  all: Emitter<any, Message>,
) {
  const slots = new Map<string | undefined, Slot>();
  /** Requests without a reply, in order, which is the order of the replies. `undefined`: a ping. */
  let inFlight: (Slot | undefined)[] = [];
  let link: Link | undefined;
  /**
   * Gets each frame after a subscribe. What was missed follows the reply at once, so that a frame without an offset or with a
   * later one shows that all has arrived. Messages of the earlier connection itself are not among it.
   */
  let recovering: ((frame: Frame) => unknown) | undefined;
  /** Time before which the signing backend asked not to be contacted. */
  let signNotBefore = 0;
  /** Why the socket is not connected and does not try to connect. */
  let over: CorecastError | undefined;

  /** `name`: `undefined` signs in. */
  function subscribe(name: string | undefined, since?: Position | null, userSigner?: Signer): Channel<any> {
    let slot = slots.get(name)!;
    if (!slot) {
      slot = {
        _name: name,
        _channels: [],
        _wire: Wire.Idle,
        _failures: 0,
        _presence: { members: [] },
        _release: (channel) => release(slot, channel),
        _trigger: (event, data) => name !== undefined && !!link?._send(event, data, name),
      };
      slots.set(name, slot);
    }
    slot._signer = userSigner;
    const channel = new Channel(slot);
    if (since && !slot._channels[0]) {
      moveTo(slot, since.socket_id, since);
      channel._behind = !slot._position;
    }
    slot._channels.push(channel);
    if (slot._wanted) {
      // The application binds its handlers after this call.
      queueMicrotask(() => drive(slot));
    } else {
      slot._failures = 0;
      slot._signedAgain = false;
      want(slot);
      drive(slot);
    }
    if (over) channel._reject(over);
    return channel;
  }

  function want(slot: Slot): void {
    slot._wanted = true;
    each(slot, (channel) => channel._subscribing());
  }

  function release(slot: Slot, channel: Channel<any>): Promise<void> {
    channel._silence();
    channel._ended("unsubscribed", new CorecastError("unsubscribed", "unsubscribe was called"));
    slot._channels = slot._channels.filter((other) => other !== channel);
    if (slot._channels[0]) return Promise.resolve();
    slot._wanted = false;
    slot._position = undefined;
    const { _promise } = (slot._leaving ??= deferred());
    if (slot._wire < Wire.Subscribing) {
      cancel(slot);
      free(slot);
    }
    advance(slot);
    return _promise;
  }

  /** Takes the next step from what this connection has to what is wanted. Does nothing while a reply is due. */
  function drive(slot: Slot): void {
    const { _name, _wire, _wanted } = slot;
    if (_wanted && _wire === Wire.Subscribed) {
      return void each(slot, (channel) => channel.state === "subscribing" && channel._subscribed());
    }
    if (!link || slot._timer) return;
    if (!_wanted) {
      if (_wire === Wire.Subscribed) leave(slot);
    } else if (_wire === Wire.Idle) {
      const user = slots.get(undefined);
      // The signature may count on the user: the server must know it first.
      if (user?._wanted && !isLive(user) && _name?.startsWith("presence-")) return;
      const by = slot._signer ?? (/^(private|presence)-/.test(_name!) ? signer : undefined);
      if (!by) join(slot);
      else if (now() < signNotBefore) driveAfter(slot, signNotBefore - now());
      else sign(slot, by, link);
    }
  }

  function driveIdle(): void {
    for (const slot of slots.values()) if (slot._wire === Wire.Idle) drive(slot);
  }

  /** After a change of the slot. Presence channels may have waited for the user. */
  function advance(slot: Slot): void {
    drive(slot);
    if (slot._name === undefined) driveIdle();
  }

  function driveAfter(slot: Slot, ms: number): void {
    slot._timer = setTimeout(() => {
      slot._timer = undefined;
      drive(slot);
    }, ms);
  }

  function join(slot: Slot, signature?: Signature): void {
    slot._since = slot._position;
    const event = slot._name === undefined ? "socket:signin" : "socket:subscribe";
    request(slot, Wire.Subscribing, event, { ...signature, since: slot._since });
  }

  function leave(slot: Slot): void {
    if (slot._name === undefined) free(slot); // nothing signs out
    else request(slot, Wire.Unsubscribing, "socket:unsubscribe");
  }

  function request(slot: Slot, wire: Wire, event: string, data?: object): void {
    slot._wire = wire;
    inFlight.push(slot);
    link!._send(event, { channel: slot._name, ...data });
  }

  function sign(slot: Slot, signer: Signer, { _socketId }: Link): void {
    const abort = new AbortController();
    const cancelDeadline = deadline(signTimeout, () => {
      failed(new Error(`${signer._from}: no signature for ${slot._channels[0]!.name} within ${signTimeout} ms`));
      abort.abort();
    });
    const stop = () => {
      cancelDeadline();
      abort.abort();
    };
    /** Whether the answer is still of use. */
    const answered = () => {
      if (slot._stopSigning !== stop) return false;
      cancelDeadline();
      slot._stopSigning = undefined;
      return true;
    };
    const failed = (error: any) => {
      if (!answered()) return;
      free(slot);
      if (error instanceof CorecastError) {
        fail(slot, error);
        return advance(slot);
      }
      const { message = `${error}`, status, retryAfter } = error ?? {};
      const least = bounded(retryAfter);
      signNotBefore = Math.max(signNotBefore, now() + least);
      later(slot, new CorecastError("auth_unavailable", message, undefined, status), least);
    };
    slot._stopSigning = stop;
    slot._wire = Wire.Authorizing;
    signer._sign(_socketId, slot._name, abort.signal).then(({ auth, channel_data, user_data }) => {
      if (answered()) join(slot, { auth, channel_data, user_data } as Signature);
    }, failed);
  }

  /** The server has nothing of this channel on this connection. */
  function free(slot: Slot): void {
    slot._wire = Wire.Idle;
    slot._leaving?._resolve();
    slot._leaving = undefined;
    if (!slot._channels[0]) slots.delete(slot._name);
  }

  function refused(slot: Slot, error: CorecastError): void {
    slot._full = error.code === FULL;
    if (passes(error.code)) {
      later(slot, error);
    } else if (error.code === "auth_invalid" && !slot._signedAgain) {
      slot._signedAgain = true; // a token may have expired, or a key may have been replaced
    } else {
      fail(slot, error);
    }
  }

  function end(slot: Slot, state: "failed" | "unsubscribed", error: CorecastError): void {
    slot._wanted = false;
    each(slot, (channel) => channel._ended(state, error));
  }

  function fail(slot: Slot, error: CorecastError): void {
    end(slot, "failed", error);
    emit(slot, "socket:subscribe.error", error);
  }

  function later(slot: Slot, error?: CorecastError, least = 0): void {
    driveAfter(slot, Math.max(least, RETRY_MIN_MS) + backOff(slot._failures++, bounds));
    if (error) emit(slot, "socket:subscribe.error", error);
  }

  /** One subscription less: a channel that was refused because there were too many is requested now. */
  function placeFreed(): void {
    for (const slot of slots.values()) {
      if (!slot._full || !slot._timer) continue;
      cancel(slot);
      return drive(slot);
    }
  }

  /** Whether a request of this kind was in flight for the slot. */
  function answered(slot: Slot, wire: Wire): boolean {
    if (slot._wire !== wire) return false;
    inFlight.splice(inFlight.indexOf(slot), 1);
    return true;
  }

  /** The reply to a subscribe or a sign-in. */
  function joined(slot: Slot | undefined, data: any, error?: CorecastError): void {
    if (!slot || !answered(slot, Wire.Subscribing)) return;
    if (!error || error.code === "already_subscribed") {
      slot._wire = Wire.Subscribed;
      slot._failures = 0;
      slot._signedAgain = false;
      const position = begin(slot, link!._socketId, data);
      recovering = ({ offset }) =>
        position && position === slot._position && (offset! <= data.offset || moveTo(slot, link!._socketId, data));
    } else {
      free(slot);
      if (slot._wanted) refused(slot, error);
    }
    advance(slot);
  }

  /** `socket:unsubscribed`, requested or not, or `socket:unsubscribe.error`. */
  function left(slot: Slot | undefined, error?: CorecastError): void {
    if (!slot) return;
    if (answered(slot, Wire.Unsubscribing)) {
      if (error && error.code !== "not_subscribed") {
        slot._wire = Wire.Subscribed;
        slot._recovered = slot._position = undefined; // messages that arrived meanwhile were dropped
        later(slot);
      } else {
        free(slot);
        placeFreed();
      }
      drive(slot);
    } else if (!error && slot._wire === Wire.Subscribed) {
      cancel(slot);
      free(slot);
      end(slot, "unsubscribed", new CorecastError("unsubscribed", "the server ended the subscription"));
      emit(slot, "socket:unsubscribed");
      placeFreed();
    }
  }

  return {
    _subscribe: subscribe,

    async _unsubscribe(name: string): Promise<void> {
      const slot = slots.get(name);
      if (slot) await Promise.all(each(slot, (channel) => channel.unsubscribe()));
    },

    _get: (name: string): Channel<any> | undefined => slots.get(name)?._channels[0],

    _all: (): Channel<any>[] => [...slots.values()].flatMap(({ _name, _channels }) => (_name !== undefined && _channels[0]) || []),

    /** The connection is up: requests everything that is wanted. */
    _connected(to: Link): void {
      link = to;
      driveIdle();
    },

    /** The connection is gone, with everything the server knew. `blame`: its cause, if that was a request in flight. */
    _lost(blame?: CorecastError): void {
      link = recovering = undefined;
      inFlight = [];
      const failed: Slot[] = [];
      for (const slot of slots.values()) {
        if (blame && slot._wanted && slot._wire === Wire.Subscribing) failed.push(slot);
        else if (slot._wanted) want(slot);
        cancel(slot);
        free(slot);
      }
      for (const slot of failed) fail(slot, blame!);
    },

    /**
     * With `error`: the socket is not connected and does not try again. `final`: this also holds for subscriptions that are
     * requested from now on. Without: the application connects again.
     */
    _giveUp(error?: CorecastError, final?: boolean): void {
      over = final ? error : undefined;
      for (const slot of slots.values()) {
        if (slot._wanted) error ? each(slot, (channel) => channel._reject(error)) : want(slot);
      }
    },

    /** A ping is sent. */
    _ping: () => void inFlight.push(undefined),

    /** The oldest ping is answered. */
    _pong(): void {
      const at = inFlight.indexOf(undefined);
      if (at >= 0) inFlight.splice(at, 1);
    },

    _before: (frame: Frame): unknown => recovering?.(frame),

    /** A published message: `message` as the application reads it. */
    _message({ channel, offset }: Frame, message: Message): void {
      const slot = slots.get(channel);
      if (isLive(slot)) deliver(slot, offset, message, all);
    },

    /** A system event that concerns a subscription. */
    _event({ event, channel, data }: Frame, error?: CorecastError): void {
      const slot = slots.get(channel);
      const oldest = () => (channel === undefined ? inFlight.find((slot) => slot) : slot);
      switch (event) {
        case "socket:signed_in":
        case "socket:signin.error":
          return joined(slot, data, error);
        case "socket:subscribed":
        case "socket:subscribe.error":
          return joined(oldest(), data, error);
        case "socket:unsubscribed":
        case "socket:unsubscribe.error":
          return left(oldest(), error);
        case "socket:gap":
          if (isLive(slot)) gap(slot, link!._socketId, data);
          return;
        case "socket:member_added":
        case "socket:member_removed":
        case "socket:presence":
          if (slot && slot._wire >= Wire.Subscribed) presence(slot, event, data);
      }
    },

    /** `socket:error`: about a client event, or the reply to the oldest request. Returns whether a channel is told. */
    _error(channel: string | undefined, error: CorecastError): boolean {
      const slot = channel === undefined ? inFlight[0] : slots.get(channel);
      if (channel !== undefined) {
        if (slot) emit(slot, "socket:error", error);
      } else if (slot) {
        joined(slot, undefined, error);
        left(slot, error);
      } else {
        inFlight.shift();
        link?._pong();
      }
      return !!slot;
    },
  };
}

const RETRY_MIN_MS = 500;
