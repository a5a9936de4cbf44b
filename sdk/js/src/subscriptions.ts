import type { Signature, Signer } from "./auth.js";
import { Channel, type Message } from "./channel.js";
import { deadline, now, type Timer } from "./clock.js";
import { CorecastError } from "./errors.js";
import { backOff, type BackOff, bounded, FULL, passes } from "./retry.js";

/** A connection on which `socket:connected` has arrived. */
export interface Link {
  socketId: string;
  send(event: string, data: object): void;
}

/**
 * What the application wants, what this connection has, and the requests that bring the two together.
 *
 * Invariants: a channel has at most one request in flight, so two requests for it cannot cross; a signature is used only on the
 * connection that it was made for; a message reaches a channel only while its subscription is live and wanted.
 */
export class Subscriptions {
  #slots = new Map<string, Slot>();
  /** Requests without a reply, in order, which is the order of the replies. `undefined`: a ping. */
  #inFlight: (Slot | undefined)[] = [];
  #link: Link | undefined;
  #signer: Signer | undefined;
  #signTimeout: number;
  #backOff: BackOff;
  /** Time before which the signing backend asked not to be contacted. */
  #signNotBefore = 0;
  /** Why there is no connection and no attempt to connect. */
  #over: CorecastError | undefined;

  constructor(signer: Signer | undefined, signTimeout: number, backOff: BackOff) {
    this.#signer = signer;
    this.#signTimeout = signTimeout;
    this.#backOff = backOff;
  }

  subscribe(name: string): Channel<any> {
    let slot = this.#slots.get(checked(name));
    if (!slot) this.#slots.set(name, (slot = new Slot(name)));
    const channel = new Channel(name, (released) => this.#release(slot, released));
    slot.channels.push(channel);
    if (slot.wanted) {
      // The application binds its handlers after this call.
      queueMicrotask(() => this.#drive(slot));
    } else {
      slot.wanted = true;
      slot.failures = 0;
      slot.signedAgain = false;
      slot.each((channel) => channel._subscribing());
      this.#drive(slot);
    }
    if (this.#over) channel._reject(this.#over);
    return channel;
  }

  unsubscribe(name: string): Promise<void> {
    const released = this.#slots.get(checked(name))?.each((channel) => channel.unsubscribe());
    return Promise.all(released ?? []).then(() => {});
  }

  get(name: string): Channel<any> | undefined {
    return this.#slots.get(checked(name))?.channels[0];
  }

  all(): Channel<any>[] {
    return [...this.#slots.values()].flatMap(({ channels }) => channels[0] ?? []);
  }

  /** The connection is up: requests everything that is wanted. */
  connected(link: Link): void {
    this.#link = link;
    for (const slot of this.#slots.values()) this.#drive(slot);
  }

  /** The connection is gone, with everything the server knew. `blame`: its cause, if that was a request in flight. */
  lost(blame?: CorecastError): void {
    this.#link = undefined;
    this.#inFlight = [];
    const failed: Slot[] = [];
    for (const slot of this.#slots.values()) {
      if (blame && slot.wanted && slot.wire === Wire.Subscribing) failed.push(slot);
      else if (slot.wanted) slot.each((channel) => channel._subscribing());
      slot.cancel();
      this.#free(slot);
    }
    for (const slot of failed) this.#fail(slot, blame!);
  }

  /** There is no connection and no further attempt. `over`: also for subscriptions that are requested from now on. */
  giveUpWaiting(error: CorecastError, over: boolean): void {
    this.#over = over ? error : undefined;
    for (const slot of this.#slots.values()) if (slot.wanted) slot.each((channel) => channel._reject(error));
  }

  /** The application connects again after `giveUpWaiting`. */
  awaitAgain(): void {
    this.#over = undefined;
    for (const slot of this.#slots.values()) if (slot.wanted) slot.each((channel) => channel._subscribing());
  }

  /** Whether the message belongs to a live subscription. */
  message(message: Message): boolean {
    const slot = this.#slots.get(message.channel);
    if (!slot?.wanted || slot.wire !== Wire.Subscribed) return false;
    slot.each((channel) => channel.state === "subscribed" && channel._emit(message.event, message.data, message));
    return true;
  }

  /** A ping is sent. */
  ping(): void {
    this.#inFlight.push(undefined);
  }

  /** The oldest ping is answered. */
  pong(): void {
    const at = this.#inFlight.indexOf(undefined);
    if (at >= 0) this.#inFlight.splice(at, 1);
  }

  /** `socket:error`: the reply to the oldest request. Returns whether that was a ping, a subscribe, or another request. */
  error(error: CorecastError): "ping" | "subscribe" | undefined {
    if (this.#inFlight.length === 0) return undefined;
    const slot = this.#inFlight[0];
    if (!slot) {
      this.#inFlight.shift();
      return "ping";
    }
    if (slot.wire === Wire.Subscribing) {
      this.subscribeReply(slot.name, error);
      return "subscribe";
    }
    this.unsubscribeReply(slot.name, error);
    return undefined;
  }

  /** `socket:subscribed`, or `socket:subscribe.error` with its `error`. Without `name` it is the oldest request's reply. */
  subscribeReply(name: string | undefined, error?: CorecastError): void {
    const slot = this.#answered(Wire.Subscribing, name);
    if (!slot) return;
    if (!error || error.code === "already_subscribed") {
      slot.wire = Wire.Subscribed;
      slot.failures = 0;
      slot.signedAgain = false;
    } else {
      this.#free(slot);
      if (slot.wanted) this.#refused(slot, error);
    }
    this.#drive(slot);
  }

  /** `socket:unsubscribed`, requested or not, or `socket:unsubscribe.error` with its `error`. */
  unsubscribeReply(name: string | undefined, error?: CorecastError): void {
    const slot = this.#answered(Wire.Unsubscribing, name);
    if (slot) {
      if (error && error.code !== "not_subscribed") {
        slot.wire = Wire.Subscribed;
        this.#later(slot);
      } else {
        this.#free(slot);
        this.#placeFreed();
      }
      this.#drive(slot);
    } else if (!error) {
      this.#ended(name);
    }
  }

  /** The server ended a subscription without a request. */
  #ended(name: string | undefined): void {
    const slot = this.#slots.get(name ?? "");
    if (slot?.wire !== Wire.Subscribed) return;
    slot.cancel();
    slot.wanted = false;
    this.#free(slot);
    const error = new CorecastError("unsubscribed", "the server ended the subscription");
    slot.each((channel) => channel._ended("unsubscribed", error));
    slot.each((channel) => channel._emit("socket:unsubscribed"));
    this.#placeFreed();
  }

  #release(slot: Slot, channel: Channel<any>): Promise<void> {
    channel._silence();
    channel._ended("unsubscribed", new CorecastError("unsubscribed", `unsubscribe was called for ${slot.name}`));
    slot.channels = slot.channels.filter((other) => other !== channel);
    if (slot.channels.length > 0) return Promise.resolve();
    slot.wanted = false;
    return new Promise((resolve) => {
      slot.leaving.push(resolve);
      if (slot.wire === Wire.Idle || slot.wire === Wire.Authorizing) {
        slot.cancel();
        this.#free(slot);
      }
      this.#drive(slot);
    });
  }

  /** Takes the next step from what this connection has to what is wanted. Does nothing while a reply is due. */
  #drive(slot: Slot): void {
    const { wire } = slot;
    if (slot.wanted && wire === Wire.Subscribed) {
      return void slot.each((channel) => channel.state === "subscribing" && channel._subscribed());
    }
    if (!this.#link || slot.timer !== undefined) return;
    if (!slot.wanted) {
      if (wire === Wire.Subscribed) this.#request(slot, Wire.Unsubscribing, "socket:unsubscribe");
    } else if (wire === Wire.Idle) {
      if (!this.#signer || !slot.name.startsWith("private-")) this.#request(slot, Wire.Subscribing, "socket:subscribe");
      else if (now() < this.#signNotBefore) this.#driveAfter(slot, this.#signNotBefore - now());
      else this.#sign(slot, this.#signer, this.#link);
    }
  }

  #sign(slot: Slot, signer: Signer, link: Link): void {
    const abort = new AbortController();
    const cancel = deadline(this.#signTimeout, () => {
      failed(new Error(`${signer._from}: no signature for ${slot.name} within ${this.#signTimeout} ms`));
      abort.abort();
    });
    const stop = () => {
      cancel();
      abort.abort();
    };
    /** Whether the answer is still of use. */
    const answered = () => {
      if (slot.stopSigning !== stop) return false;
      cancel();
      slot.stopSigning = undefined;
      return true;
    };
    const failed = (error: any) => {
      if (!answered()) return;
      this.#free(slot);
      if (error instanceof CorecastError) return this.#fail(slot, error);
      const { message = `${error}`, status, retryAfter } = error ?? {};
      const least = bounded(retryAfter);
      this.#signNotBefore = Math.max(this.#signNotBefore, now() + least);
      this.#later(slot, new CorecastError("auth_unavailable", message, undefined, status), least);
    };
    slot.stopSigning = stop;
    slot.wire = Wire.Authorizing;
    signer._sign(link.socketId, slot.name, abort.signal).then(({ auth, channel_data }) => {
      if (answered()) this.#request(slot, Wire.Subscribing, "socket:subscribe", { auth, channel_data } as Signature);
    }, failed);
  }

  #request(slot: Slot, wire: Wire, event: string, signature?: Signature): void {
    slot.wire = wire;
    this.#inFlight.push(slot);
    this.#link!.send(event, { channel: slot.name, ...signature });
  }

  /** The slot that a reply answers, no longer in flight. `undefined`: no such request. */
  #answered(wire: Wire, name: string | undefined): Slot | undefined {
    const slot = name === undefined ? this.#inFlight.find((slot) => slot) : this.#slots.get(name);
    if (slot?.wire !== wire) return undefined;
    this.#inFlight.splice(this.#inFlight.indexOf(slot), 1);
    return slot;
  }

  /** The server has nothing of this channel on this connection. */
  #free(slot: Slot): void {
    slot.wire = Wire.Idle;
    for (const resolve of slot.leaving.splice(0)) resolve();
    if (slot.channels.length === 0) this.#slots.delete(slot.name);
  }

  #refused(slot: Slot, error: CorecastError): void {
    slot.full = error.code === FULL;
    if (passes(error.code)) {
      this.#later(slot, error);
    } else if (error.code === "auth_invalid" && !slot.signedAgain) {
      slot.signedAgain = true; // a token may have expired, or a key may have been replaced
    } else {
      this.#fail(slot, error);
    }
  }

  #fail(slot: Slot, error: CorecastError): void {
    slot.wanted = false;
    slot.each((channel) => channel._ended("failed", error));
    slot.each((channel) => channel._emit("socket:subscribe.error", error));
  }

  #later(slot: Slot, error?: CorecastError, least = RETRY_MIN_MS): void {
    this.#driveAfter(slot, Math.max(least, RETRY_MIN_MS) + backOff(slot.failures++, this.#backOff));
    if (error) slot.each((channel) => channel._emit("socket:subscribe.error", error));
  }

  #driveAfter(slot: Slot, ms: number): void {
    slot.timer = setTimeout(() => {
      slot.timer = undefined;
      this.#drive(slot);
    }, ms);
  }

  /** One subscription less: a channel that was refused because there were too many is requested now. */
  #placeFreed(): void {
    for (const slot of this.#slots.values()) {
      if (!slot.full || slot.timer === undefined) continue;
      slot.cancel();
      return this.#drive(slot);
    }
  }
}

/** What this connection has of a channel. */
enum Wire {
  Idle,
  Authorizing,
  Subscribing,
  Subscribed,
  Unsubscribing,
}

/** Everything about one channel name. */
class Slot {
  /** The references that the application holds. */
  channels: Channel<any>[] = [];
  /** Whether the subscription is to be live: it has references, and it was not refused. */
  wanted = false;
  wire = Wire.Idle;
  /** Set while a signature is requested. */
  stopSigning: (() => void) | undefined;
  /** The last signature was refused as invalid, and another one was requested. */
  signedAgain = false;
  /** Refused because the connection has too many subscriptions. */
  full = false;
  failures = 0;
  timer: Timer;
  leaving: (() => void)[] = [];

  constructor(readonly name: string) {}

  /** Calls `visit` for each reference, including those that it removes. */
  each<T>(visit: (channel: Channel<any>) => T): T[] {
    return [...this.channels].map(visit);
  }

  /** Stops what is going on for this slot. */
  cancel(): void {
    this.stopSigning?.();
    this.stopSigning = undefined;
    clearTimeout(this.timer);
    this.timer = undefined;
  }
}

function checked(name: string): string {
  if (typeof name !== "string") throw new TypeError(`the name of a channel must be a string, not ${name}`);
  return name;
}

const RETRY_MIN_MS = 500;
