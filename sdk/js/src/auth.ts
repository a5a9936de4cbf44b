import { CorecastError } from "./errors.js";
import { retryAfter } from "./retry.js";

/** A signature, as the application's backend returns it. */
export interface Signature {
  auth: string;
  /** Sent with the signature, which covers it. */
  channel_data?: string;
}

export interface AuthRequest {
  socketId: string;
  channel: string;
  /** Aborted after `authTimeout`, and when the connection or subscription that needs the signature has ended. */
  signal: Signal;
}

/** `AbortSignal`, where the DOM's or Node's types are loaded. */
export type Signal = typeof globalThis extends { AbortSignal: { prototype: infer T } }
  ? T
  : { readonly aborted: boolean; addEventListener(type: "abort", listener: () => void): void };

/**
 * Signs one subscription. To refuse for good, throw a `CorecastError` or return nothing. Any other exception counts as a
 * temporary failure and is retried with back-off. If it has a number `retryAfter`, the retry waits at least that many
 * milliseconds.
 */
export type AuthFunction = (request: AuthRequest) => Signature | null | undefined | Promise<Signature | null | undefined>;

/** A signing endpoint of the application's backend. It gets a POST with a form and answers with JSON. */
export interface AuthEndpoint {
  /**
   * For one channel: form `socket_id`, `channel_name`; answer `{"auth": "…", "channel_data": "…"}`.
   * Retried with back-off: no answer, statuses 408, 425, 429 and 500 to 599 (except 501 and 505), and every other error with the
   * header `Retry-After`, which is respected. Final: everything else, including a successful answer without JSON.
   */
  endpoint: string;
  /** Headers of the request, or a function that is called for each request. */
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  /** Additional members of the form. */
  params?: Record<string, string>;
  /** As for `fetch`, whose default sends cookies to the page's own origin. */
  credentials?: "omit" | "same-origin" | "include";
  /**
   * Signs all private channels that are due in one request: form `socket_id`, `channel_name[]` for each channel; answer
   * `{"private-a": {"auth": "…"}, "private-b": {"error": "…"}}`.
   */
  batch?: boolean;
  /** `decimal` sends the second spelling of the socket_id, which Pusher's server libraries accept. Default `uuid`. */
  socketId?: "uuid" | "decimal";
}

export type Auth = string | AuthEndpoint | AuthFunction;

/** A signature over the user of a connection, as the application's backend returns it. */
export interface UserSignature {
  auth: string;
  /** JSON with the `id` of the user. The signature covers it. */
  user_data: string;
}

/** Signs in one connection. Refuses and fails as an `AuthFunction` does. */
export type UserAuthFunction = (
  request: Omit<AuthRequest, "channel">,
) => UserSignature | null | undefined | Promise<UserSignature | null | undefined>;

/** As `Auth`. An endpoint gets the form `socket_id` and answers `{"auth": "…", "user_data": "…"}`; `batch` does not matter. */
export type UserAuth = string | AuthEndpoint | UserAuthFunction;

type AnySignature = Signature & Partial<UserSignature>;

/** `channel`: `undefined` signs in. */
type Sign = (socketId: string, channel: string | undefined, signal: AbortSignal) => Promise<AnySignature>;

/** @internal */
export interface Signer {
  /** `signal` is aborted when the connection or subscription that needs the signature has ended. */
  _sign: Sign;
  /** For error messages. */
  _from: string;
}

/** @internal */
export function signer(auth: Auth | UserAuth): Signer {
  if (typeof auth === "function") {
    const _from = "the auth function";
    return {
      _from,
      _sign: async (socketId, channel, signal) =>
        signature(await (auth as Function)({ socketId, channel, signal }), channel, _from),
    };
  }
  const options = typeof auth === "string" ? { endpoint: auth } : auth;
  return { _from: text(options?.endpoint, "auth"), _sign: signByEndpoint(options) };
}

/** With `batch`, all channels that are requested in one turn of the event loop share one HTTP request. */
function signByEndpoint(options: AuthEndpoint): Sign {
  let due: { _socketId: string; _channels: string[]; _signals: AbortSignal[]; _answer: Promise<Answer> } | undefined;
  return async (_socketId, channel, signal) => {
    if (!options.batch || channel === undefined) {
      const { _body, _from, _status } = await post(options, _socketId, channel, signal);
      return signature(_body, channel, _from, _status);
    }
    if (due?._socketId !== _socketId) {
      const abort = new AbortController();
      const _channels: string[] = [];
      const _signals: AbortSignal[] = [];
      const _answer = Promise.resolve().then(() => {
        if (due?._channels === _channels) due = undefined;
        const aborted = () => _signals.every(({ aborted }) => aborted) && abort.abort();
        for (const signal of _signals) signal.addEventListener("abort", aborted);
        aborted();
        return post(options, _socketId, _channels, abort.signal);
      });
      due = { _socketId, _channels, _signals, _answer };
    }
    due._channels.push(channel);
    due._signals.push(signal);
    const { _body, _from, _status } = await due._answer;
    return signature(_body?.[channel], channel, _from, _status);
  };
}

/** The JSON of a successful response, and where it came from. */
interface Answer {
  _body: any;
  _from: string;
  _status: number;
}

/** `channel`: several for a batch, `undefined` for the user. */
async function post(
  options: AuthEndpoint,
  socketId: string,
  channel: string | string[] | undefined,
  signal: AbortSignal,
): Promise<Answer> {
  const { endpoint, headers, params, credentials } = options;
  const form = new URLSearchParams(params);
  form.append("socket_id", options.socketId === "decimal" ? decimalSocketId(socketId) : socketId);
  for (const name of [channel ?? []].flat()) form.append(name === channel ? "channel_name" : "channel_name[]", name);
  const failed = (error: any) => {
    throw new Error(`${endpoint}: ${error?.message ?? error}`);
  };
  const response = await fetch(endpoint, {
    method: "POST",
    body: form,
    signal,
    credentials,
    headers: typeof headers === "function" ? await headers() : headers,
  } as RequestInit).catch(failed);
  const { status: _status } = response;
  const _from = `${endpoint} answered ${_status}` + (response.redirected ? ` after a redirect to ${response.url}` : "");
  if (response.ok) {
    const text = await response.text().catch(failed);
    try {
      return { _body: JSON.parse(text), _from, _status };
    } catch {
      throw refused(`${_from} without JSON: ${text.slice(0, 100) || "an empty body"}`, _status);
    }
  }
  const wait = retryAfter(response.headers.get("retry-after"));
  if (wait === undefined && !PASSING.test(`${_status}`)) throw refused(_from, _status);
  throw Object.assign(new Error(_from), { status: _status, retryAfter: wait });
}

function signature(body: any, channel: string | undefined, from: string, status?: number): AnySignature {
  const { auth, channel_data = "", user_data = channel, error } = body ?? {};
  if ([auth, channel_data, user_data].every((text) => typeof text === "string")) return body;
  throw refused(error ? `${error}` : `no signature: ${from}, for ${channel ?? "the user"}`, status);
}

function refused(message: string, status?: number): CorecastError {
  return new CorecastError("auth_refused", message, undefined, status);
}

/** @internal Throws at once: with a value that is not a string a request would never end. */
export function text(value: string, what: string): string {
  if (typeof value !== "string") throw new TypeError(`${what} must be a string, not ${value}`);
  return value;
}

/** The UUID's two 64-bit halves in decimal, joined by a dot (docs/protocol.md, the two spellings of a socket_id). */
export function decimalSocketId(uuid: string): string {
  const digits = uuid.replace(/-/g, "");
  return BigInt("0x" + digits.slice(0, 16)) + "." + BigInt("0x" + digits.slice(16));
}

/** Statuses of temporary failures. With any other status a retry would get the same answer. */
const PASSING = /^(408|425|429|5(?!01|05)\d\d)$/;
