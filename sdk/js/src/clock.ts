import { TIMER_MAX_MS } from "./retry.js";

export type Timer = ReturnType<typeof setTimeout> | undefined;

/** Milliseconds of a monotonic clock. */
export const now = (): number => performance.now();

/**
 * Calls `expired` after `ms`, unless the returned function is called before. A timer that fires late means that this
 * program did not run: the page was frozen, throttled or busy. The event that it waits for may have arrived and not be
 * handled yet. So a late timer waits once more, for a short time.
 */
export function deadline(ms: number, expired: () => void): () => void {
  let timer: Timer;
  const wait = (ms: number, again: boolean) => {
    const due = now() + ms;
    const late = () => again && now() - due > LATE_MS;
    timer = setTimeout(() => (late() ? wait(Math.min(ms, GRACE_MS), false) : expired()), Math.min(ms, TIMER_MAX_MS));
  };
  wait(ms, true);
  return () => clearTimeout(timer);
}

const LATE_MS = 500;
const GRACE_MS = 5_000;
