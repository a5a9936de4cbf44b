/** What a close code asks of the client (PROTOCOL.md, Closing). */
export type Verdict =
  /** Refused for good. */
  | "never"
  /** The client did something wrong, and must not repeat it. */
  | "mend"
  /** After at least a second, with back-off. */
  | "later"
  | "at_once"
  | "back_off";

export function verdict(closeCode: number): Verdict {
  if (closeCode >= 4000 && closeCode < 4300) {
    return closeCode < 4100 ? "never" : closeCode < 4200 ? "later" : "at_once";
  }
  return [1002, 1003, 1007, 1009].includes(closeCode) ? "mend" : "back_off";
}

/** Bounds of the back-off, in milliseconds. */
export interface BackOff {
  /** The longest that the first wait can be. */
  min: number;
  /** The longest that any wait can be. */
  max: number;
}

/** Full jitter: anything between nothing and a bound that doubles with every failure, so that a crowd comes back spread out. */
export function backOff(failures: number, { min, max }: BackOff): number {
  return Math.random() * Math.min(max, min * 2 ** failures);
}

/** Milliseconds that the server asks to be left alone for; the back-off comes on top. */
export function earliest(closeCode: number, reason: string): number {
  return Math.max(["later", "mend"].includes(verdict(closeCode)) ? LATER_MS : 0, retryAfter(reason));
}

/** A close reason may say `retry after N ms`. Bounded, because setTimeout fires at once beyond its bound. */
function retryAfter(reason: string): number {
  return Math.min(Number(/retry after (\d+) ?ms/i.exec(reason)?.[1] ?? 0), TIMER_MAX_MS / 2);
}

const LATER_MS = 1_000;
/** The longest delay that setTimeout takes. */
export const TIMER_MAX_MS = 2 ** 31 - 1;
