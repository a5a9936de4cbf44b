import { TIMER_MAX_MS } from "./retry.js";

/** `heart` of `socket:connected`, in seconds. */
export interface Heart {
  interval: number;
  timeout: number;
}

/**
 * Pings every `interval`, whether or not the last pong is there yet: the server counts silence from the last ping on. A ping
 * that is not answered within `timeout` means that the connection is dead.
 */
export class Heartbeat {
  #interval: ReturnType<typeof setInterval>;
  #deadline: ReturnType<typeof setTimeout> | undefined;
  #awaited = 0;
  #id = 0;

  constructor(
    private readonly heart: Heart,
    private readonly ping: (id: number) => void,
    private readonly dead: () => void,
  ) {
    this.#interval = setInterval(() => this.#beat(heart.timeout), milliseconds(heart.interval));
  }

  /** Asks now, and does not wait long: the machine may have slept, or changed its network. */
  probe(): void {
    this.#stopWaiting();
    this.#beat(Math.min(this.heart.timeout, PROBE_TIMEOUT_S));
  }

  pong(reply: unknown): void {
    if (typeof reply === "number" && reply >= this.#awaited) this.#stopWaiting();
  }

  stop(): void {
    clearInterval(this.#interval);
    this.#stopWaiting();
  }

  #beat(timeout: number): void {
    this.#id += 1;
    if (this.#deadline === undefined) {
      this.#awaited = this.#id;
      this.#deadline = setTimeout(this.dead, milliseconds(timeout));
    }
    this.ping(this.#id);
  }

  #stopWaiting(): void {
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
  }
}

/** What `socket:connected` says wins, member by member. */
export function heartOf(said: Partial<Heart> | undefined): Heart {
  const seconds = (value: unknown, otherwise: number) => (typeof value === "number" && value > 0 ? value : otherwise);
  return { interval: seconds(said?.interval, INTERVAL_S), timeout: seconds(said?.timeout, TIMEOUT_S) };
}

function milliseconds(seconds: number): number {
  return Math.min(seconds * 1_000, TIMER_MAX_MS);
}

/** PROTOCOL.md, Heartbeats. */
const INTERVAL_S = 120;
const TIMEOUT_S = 30;
const PROBE_TIMEOUT_S = 5;
