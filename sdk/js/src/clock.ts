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
    timer = setTimeout(() => (again && now() - due > LATE_MS ? wait(Math.min(ms, GRACE_MS), false) : expired()), ms);
  };
  wait(ms, true);
  return () => clearTimeout(timer);
}

const LATE_MS = 500;
const GRACE_MS = 5_000;
