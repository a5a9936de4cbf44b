/** What the client does after a close code (docs/protocol.md, close codes). */
export enum Verdict {
  BackOff,
  AtOnce,
  /** Reconnect after at least a second, with back-off. */
  Later,
  /** The client made a mistake: reconnect as `Later`, without the requests that may have caused it. */
  Mend,
  /** The server refuses the client: do not reconnect. */
  Never,
}

export function verdict(closeCode: number): Verdict {
  return (
    [Verdict.Never, Verdict.Later, Verdict.AtOnce][Math.floor(closeCode / 100) - 40] ??
    ([1002, 1003, 1007, 1009].includes(closeCode) ? Verdict.Mend : Verdict.BackOff)
  );
}

/**
 * Whether the client repeats a refused subscribe by itself, by error code: these limits free up, and the connection is fine.
 * `auth_invalid` is repeated once, with a new signature. Every other code is final.
 */
export function passes(code: string): boolean {
  return ["rate_limited", FULL, "presence_full", "unavailable"].includes(code);
}

export const FULL = "too_many_subscriptions";

/** Bounds of the back-off, in milliseconds. */
export interface BackOff {
  /** Upper bound of the first wait. */
  min: number;
  /** Upper bound of every wait. */
  max: number;
}

/** Full jitter: a random wait below a bound that doubles with each failure, so that many clients reconnect spread out. */
export function backOff(failures: number, { min, max }: BackOff): number {
  return Math.random() * Math.min(max, min * 2 ** failures, TIMER_MAX_MS / 2);
}

/** Milliseconds for which the server asks not to be contacted. The back-off is added to it. */
export function earliest(verdict: Verdict, reason: string): number {
  const asked = /retry after (\d+) ?ms/i.exec(reason)?.[1];
  return Math.max(verdict < Verdict.Later ? 0 : LATER_MS, bounded(asked));
}

/** The wait that an HTTP header `Retry-After` asks for: seconds, or a date. `undefined`: none. */
export function retryAfter(header: string | null | undefined): number | undefined {
  const ms = header ? (/^\d+$/.test(header) ? +header * 1_000 : Date.parse(header) - Date.now()) : NaN;
  return ms === ms ? bounded(ms) : undefined;
}

/** A wait from outside: at most half of what setTimeout accepts, because a back-off is added, and 0 if it is not a number. */
export function bounded(ms: unknown): number {
  return Math.min(Math.max(Number(ms) || 0, 0), TIMER_MAX_MS / 2);
}

const LATER_MS = 1_000;
/** The longest delay that setTimeout accepts: with a longer one it fires at once. */
export const TIMER_MAX_MS = 2 ** 31 - 1;
