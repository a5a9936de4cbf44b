import { deadline, now, type Timer } from "./clock.js";
import { TIMER_MAX_MS } from "./retry.js";

/** `heart` of `socket:connected`, in seconds. */
export interface Heart {
  interval: number;
  timeout: number;
}

export type Heartbeat = ReturnType<typeof heartbeat>;

/**
 * Each time that `heart` has replaces the default.
 *
 * Pings every `interval`, whether or not the last pong has arrived, because the server measures silence from the last ping. A
 * ping that is not answered within `timeout` means that the connection is dead.
 */
export function heartbeat(heart: Partial<Heart> | undefined, ping: (id: number) => void, dead: () => void) {
  const interval = milliseconds(heart?.interval, INTERVAL_S);
  const timeout = milliseconds(heart?.timeout, TIMEOUT_S);
  let timer: Timer;
  /** When the next ping is due. */
  let due = 0;
  let stopWaiting: (() => void) | undefined;
  /** When a missing pong means that the connection is dead. Infinity: no pong is due. */
  let expires = Infinity;
  let awaited = 0;
  let id = 0;

  function schedule(anew?: boolean): void {
    clearTimeout(timer);
    if (anew) due = now() + interval;
    timer = setTimeout(() => beat(timeout), due - now());
  }

  function beat(timeout: number): void {
    id += 1;
    // A later ping never extends the deadline of an earlier one.
    if (now() + timeout < expires) {
      answered();
      expires = now() + timeout;
      awaited = id;
      stopWaiting = deadline(timeout, dead);
    }
    schedule(true);
    ping(id);
  }

  function answered(): void {
    stopWaiting?.();
    expires = Infinity;
  }

  schedule(true);
  return {
    /** Pings now, and waits a short time only: the machine may have slept, or changed its network. */
    _probe(): void {
      beat(Math.min(timeout, PROBE_TIMEOUT_MS));
    },

    /** `socket:pong`, or an error that answers the ping: `reply` is then not known. */
    _pong(reply: unknown = id): void {
      if (!((reply as number) >= awaited)) return;
      answered();
      // Chromium fires the timers of a hidden page once a minute only if they were set by a chain of at least five timers. A
      // timer set here, while a message is handled, starts a new chain.
      schedule();
    },

    _stop(): void {
      clearTimeout(timer);
      answered();
    },
  };
}

/** A time of `socket:connected`, in milliseconds. */
function milliseconds(told: number | undefined, otherwise: number): number {
  return Math.min((told! > 0 ? told! : otherwise) * 1_000, TIMER_MAX_MS);
}

/** docs/protocol.md, heartbeats. */
const INTERVAL_S = 120;
const TIMEOUT_S = 30;
const PROBE_TIMEOUT_MS = 5_000;
