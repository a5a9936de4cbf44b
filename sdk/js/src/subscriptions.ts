import type { Authorize, Signature } from "./auth.js";
import { Channel, type Message } from "./channel.js";
import { CorecastError } from "./errors.js";
import { backOff, type BackOff } from "./retry.js";

/** A connection on which `socket:connected` has arrived. */
export interface Link {
  socketId: string;
  send(event: string, data: object): void;
}

/**
 * What the application wants, what this connection has, and the requests that bring the two together.
 *
 * Invariants: at most one request in flight per channel, so a request never meets one of its own kind; a signature is used
 * only on the connection that it was made for; a message reaches a channel only while its subscription is live *and* wanted.
 */
export class Subscriptions {
  #slots = new Map<string, Slot>();
  /** In request order, which is the order of the replies. */
  #inFlight: Slot[] = [];
  #link: Link | undefined;

  constructor(
    private readonly authorize: Authorize | undefined,
    private readonly backOff: BackOff,
  ) {}

  subscribe(name: string): Channel<any> {
    let slot = this.#slots.get(name);
    if (!slot) this.#slots.set(name, (slot = new Slot(name)));
    const { channel } = slot;
    if (channel && slot.wanted) return channel;
    slot.wanted = true;
    slot.failures = 0;
    channel?._subscribing();
    const given = (slot.channel = channel ?? new Channel(name, (left) => this.#leave(slot, left)));
    this.#drive(slot);
    return given;
  }

  get(name: string): Channel<any> | undefined {
    return this.#slots.get(name)?.channel;
  }

  all(): Channel<any>[] {
    return [...this.#slots.values()].flatMap((slot) => slot.channel ?? []);
  }

  /** The connection is up: asks for everything that is wanted, once. */
  connected(link: Link): void {
    this.#link = link;
    for (const slot of this.#slots.values()) this.#drive(slot);
  }

  /** The connection is gone, and with it all that the server knew. `blame`: the error of the requests that ended it. */
  lost(blame?: CorecastError): void {
    this.#link = undefined;
    this.#inFlight = [];
    const failed: Slot[] = [];
    for (const slot of this.#slots.values()) {
      if (blame && slot.wanted && slot.wire === Wire.Subscribing) failed.push(slot);
      else if (slot.wanted) slot.channel?._subscribing();
      slot.cancel();
      this.#free(slot);
    }
    for (const slot of failed) this.#fail(slot, blame!);
  }

  /** Nothing will reconnect: whoever awaits a subscription is told. */
  giveUpWaiting(error: CorecastError): void {
    for (const slot of this.#slots.values()) if (slot.wanted) slot.channel?._giveUpWaiting(error);
  }

  /** The application came back after `giveUpWaiting`. */
  awaitAgain(): void {
    for (const slot of this.#slots.values()) if (slot.wanted) slot.channel?._subscribing();
  }

  message(message: Message): void {
    const slot = this.#slots.get(message.channel);
    if (slot?.wanted && slot.wire === Wire.Subscribed) slot.channel?._emit(message.event, message.data, message);
  }

  /** `socket:subscribed`, or `socket:subscribe.error` with its `error`. A server of the founding document names no channel. */
  subscribeReply(name: string | undefined, error?: CorecastError): void {
    const slot = this.#answered(Wire.Subscribing, name);
    if (!slot) return;
    if (!error || error.code === "already_subscribed") {
      slot.wire = Wire.Subscribed;
      slot.failures = 0;
    } else {
      this.#free(slot);
      if (slot.wanted) {
        if (error.code === "rate_limited") this.#later(slot, error);
        else this.#fail(slot, error);
      }
    }
    this.#drive(slot);
  }

  /** `socket:unsubscribed`, asked for or not, or `socket:unsubscribe.error` with its `error`. */
  unsubscribeReply(name: string | undefined, error?: CorecastError): void {
    const slot = this.#answered(Wire.Unsubscribing, name);
    if (slot) {
      if (error && error.code !== "not_subscribed") {
        slot.wire = Wire.Subscribed;
        this.#later(slot);
      } else {
        this.#free(slot);
      }
      this.#drive(slot);
    } else if (!error) {
      this.#ended(name);
    }
  }

  /** The server ended a subscription of its own accord. */
  #ended(name: string | undefined): void {
    const slot = this.#slots.get(name ?? "");
    if (slot?.wire !== Wire.Subscribed) return;
    slot.cancel();
    slot.wanted = false;
    this.#free(slot);
    slot.channel?._ended("unsubscribed", new CorecastError("unsubscribed", "the server ended the subscription"));
    slot.channel?._emit("socket:unsubscribed");
  }

  #leave(slot: Slot, channel: Channel<any>): Promise<void> {
    if (slot.channel !== channel) return Promise.resolve();
    channel._silence();
    channel._ended("unsubscribed", new CorecastError("unsubscribed", `left ${slot.name}`));
    slot.channel = undefined;
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

  /** Takes the next step from what this connection has towards what is wanted. Waits while an answer is due. */
  #drive(slot: Slot): void {
    const { channel, wire } = slot;
    if (slot.wanted && wire === Wire.Subscribed && channel?.state === "subscribing") return channel._subscribed();
    if (!this.#link || slot.timer !== undefined) return;
    if (!slot.wanted) {
      if (wire === Wire.Subscribed) this.#request(slot, Wire.Unsubscribing, "socket:unsubscribe");
    } else if (wire === Wire.Idle) {
      if (this.authorize && slot.name.startsWith("private-")) this.#sign(slot, this.authorize, this.#link);
      else this.#request(slot, Wire.Subscribing, "socket:subscribe");
    }
  }

  #sign(slot: Slot, authorize: Authorize, link: Link): void {
    const attempt = ++slot.attempt;
    slot.wire = Wire.Authorizing;
    authorize(link.socketId, slot.name).then(
      ({ auth, channel_data }) => {
        if (slot.attempt !== attempt) return;
        this.#request(slot, Wire.Subscribing, "socket:subscribe", { auth, channel_data } as Signature);
      },
      (error) => {
        if (slot.attempt !== attempt) return;
        this.#free(slot);
        if (error instanceof CorecastError) this.#fail(slot, error);
        else this.#later(slot, new CorecastError("auth_unavailable", String(error?.message ?? error)));
      },
    );
  }

  #request(slot: Slot, wire: Wire, event: string, signature?: Signature): void {
    slot.wire = wire;
    this.#inFlight.push(slot);
    this.#link!.send(event, { channel: slot.name, ...signature });
  }

  /** The slot that a reply answers, no longer in flight. `undefined`: nobody asked. */
  #answered(wire: Wire, name: string | undefined): Slot | undefined {
    const slot = name === undefined ? this.#inFlight[0] : this.#slots.get(name);
    if (slot?.wire !== wire) return undefined;
    this.#inFlight.splice(this.#inFlight.indexOf(slot), 1);
    return slot;
  }

  /** This connection knows nothing of the channel any more. */
  #free(slot: Slot): void {
    slot.wire = Wire.Idle;
    for (const resolve of slot.leaving.splice(0)) resolve();
    if (!slot.channel) this.#slots.delete(slot.name);
  }

  #fail(slot: Slot, error: CorecastError): void {
    slot.wanted = false;
    slot.channel?._ended("failed", error);
    slot.channel?._emit("socket:subscribe.error", error);
  }

  #later(slot: Slot, error?: CorecastError): void {
    slot.timer = setTimeout(
      () => {
        slot.timer = undefined;
        this.#drive(slot);
      },
      RETRY_MIN_MS + backOff(slot.failures++, this.backOff),
    );
    if (error) slot.channel?._emit("socket:subscribe.error", error);
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

class Slot {
  /** What the application holds; `undefined` once it left. */
  channel: Channel<any> | undefined;
  /** Whether it is to be live. Not after a refusal, though there is a channel. */
  wanted = false;
  wire = Wire.Idle;
  /** Counts signatures asked for: an answer to an earlier attempt is nobody's. */
  attempt = 0;
  failures = 0;
  timer: ReturnType<typeof setTimeout> | undefined;
  leaving: (() => void)[] = [];

  constructor(readonly name: string) {}

  /** Nothing that was going on for this slot goes on. */
  cancel(): void {
    this.attempt += 1;
    clearTimeout(this.timer);
    this.timer = undefined;
  }
}

const RETRY_MIN_MS = 500;
