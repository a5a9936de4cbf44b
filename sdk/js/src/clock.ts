export type Timer = ReturnType<typeof setTimeout> | undefined;

/** Milliseconds of a clock that is never set. */
export const now = (): number => performance.now();

/**
 * Calls `expired` after `ms`, unless the function that it returns is called before. A timer that fires late means that this
 * program did not run: the page was frozen, throttled or busy, and what the timer waits for may have arrived without having been
 * handled. So a late timer waits once more, for a short time.
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
