import { deadline, now, type Timer } from "./clock.js";
import { TIMER_MAX_MS } from "./retry.js";

/** `heart` of `socket:connected`, in seconds. */
export interface Heart {
  interval: number;
  timeout: number;
}

/**
 * Pings every `interval`, whether or not the last pong has arrived, because the server measures silence from the last ping. A
 * ping that is not answered within `timeout` means that the connection is dead.
 */
export class Heartbeat {
  #heart: Heart;
  #ping: (id: number) => void;
  #dead: () => void;
  #timer: Timer;
  /** When the next ping is due. */
  #due = 0;
  #stopWaiting: (() => void) | undefined;
  #awaited = 0;
  #id = 0;

  constructor(heart: Heart, ping: (id: number) => void, dead: () => void) {
    this.#heart = heart;
    this.#ping = ping;
    this.#dead = dead;
    this.#schedule(true);
  }

  /** Pings now, and waits a short time only: the machine may have slept, or changed its network. */
  probe(): void {
    this.#answered();
    this.#beat(Math.min(this.#heart.timeout, PROBE_TIMEOUT_S));
  }

  /** `socket:pong`, or an error that answers the ping: `reply` is then not known. */
  pong(reply: unknown = this.#id): void {
    if (!((reply as number) >= this.#awaited)) return;
    this.#answered();
    // Chromium fires the timers of a hidden page once a minute only if they were set by a chain of at least five timers. A
    // timer set here, while a message is handled, starts a new chain.
    this.#schedule();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#answered();
  }

  #schedule(anew?: boolean): void {
    clearTimeout(this.#timer);
    if (anew) this.#due = now() + milliseconds(this.#heart.interval);
    this.#timer = setTimeout(() => this.#beat(this.#heart.timeout), this.#due - now());
  }

  #beat(timeout: number): void {
    this.#id += 1;
    if (!this.#stopWaiting) {
      this.#awaited = this.#id;
      this.#stopWaiting = deadline(milliseconds(timeout), this.#dead);
    }
    this.#schedule(true);
    this.#ping(this.#id);
  }

  #answered(): void {
    this.#stopWaiting?.();
    this.#stopWaiting = undefined;
  }
}

/** Each member that `socket:connected` has replaces the default. */
export function heartOf(told: Partial<Heart> | undefined): Heart {
  const seconds = (value: unknown, otherwise: number) => (typeof value === "number" && value > 0 ? value : otherwise);
  return { interval: seconds(told?.interval, INTERVAL_S), timeout: seconds(told?.timeout, TIMEOUT_S) };
}

function milliseconds(seconds: number): number {
  return Math.min(seconds * 1_000, TIMER_MAX_MS);
}

/** docs/protocol.md, heartbeats. */
const INTERVAL_S = 120;
const TIMEOUT_S = 30;
const PROBE_TIMEOUT_S = 5;
