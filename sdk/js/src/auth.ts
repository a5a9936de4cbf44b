import { CorecastError } from "./errors.js";

/** A signature, as the business backend answers it. */
export interface Signature {
  auth: string;
  /** Travels with the signature, which covers it. */
  channel_data?: string;
}

export interface AuthRequest {
  socketId: string;
  channel: string;
  /** Aborted when the answer has taken too long. */
  signal: AbortSignal;
}

/**
 * Signs one subscription. Throw a `CorecastError`, or return nothing, to refuse for good; anything else that is thrown is
 * taken for a passing failure, and tried again with back-off.
 */
export type AuthFunction = (request: AuthRequest) => Signature | null | undefined | Promise<Signature | null | undefined>;

/** A backend that signs. It gets a form, POSTed, and answers with JSON. */
export interface AuthEndpoint {
  /**
   * For one channel: form `socket_id`, `channel_name`; answer `{"auth": "…", "channel_data": "…"}`.
   * A status from 400 to 499 refuses for good (not 408, 425 and 429); everything else is tried again with back-off.
   */
  endpoint: string;
  /** Headers of the request, or a function that gives them each time. */
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  /** More members of the form. */
  params?: Record<string, string>;
  /** Of the request; the browser's default sends cookies to the page's own origin. */
  credentials?: RequestCredentials;
  /**
   * Signs all private channels that are due in one request: form `socket_id`, `channel_name[]` once for each channel;
   * answer `{"private-a": {"auth": "…"}, "private-b": {"error": "…"}}`.
   */
  batch?: boolean;
  /** `decimal` sends the second spelling of the socket_id, the one that Pusher's server libraries accept. Default `uuid`. */
  socketId?: "uuid" | "decimal";
}

export type Auth = string | AuthEndpoint | AuthFunction;

/** @internal */
export type Authorize = (socketId: string, channel: string) => Promise<Signature>;

/** @internal */
export function authorizer(auth: Auth, timeoutMs: number): Authorize {
  if (typeof auth === "function") {
    return (socketId, channel) =>
      inTime(timeoutMs, async (signal) => signature(await auth({ socketId, channel, signal })));
  }
  const options = typeof auth === "string" ? { endpoint: auth } : auth;
  if (options.batch) return batched(options, timeoutMs);
  return (socketId, channel) =>
    inTime(timeoutMs, async (signal) =>
      signature(await post(options, socketId, [["channel_name", channel]], signal)),
    );
}

/** Everything asked for in one turn of the event loop goes into one request. */
function batched(options: AuthEndpoint, timeoutMs: number): Authorize {
  let due: { socketId: string; channels: string[]; answer: Promise<any> } | undefined;
  return async (socketId, channel) => {
    if (due?.socketId !== socketId) {
      const channels: string[] = [];
      const batch = {
        socketId,
        channels,
        answer: Promise.resolve().then(() => {
          if (due === batch) due = undefined;
          const members = channels.map((name) => ["channel_name[]", name]);
          return inTime(timeoutMs, (signal) => post(options, socketId, members, signal));
        }),
      };
      due = batch;
    }
    due.channels.push(channel);
    return signature((await due.answer)?.[channel]);
  };
}

async function post(options: AuthEndpoint, socketId: string, channels: string[][], signal: AbortSignal): Promise<any> {
  const { headers, params } = options;
  const body = new URLSearchParams(params);
  body.append("socket_id", options.socketId === "decimal" ? decimalSocketId(socketId) : socketId);
  for (const [member, channel] of channels) body.append(member!, channel!);
  const init: RequestInit = { method: "POST", body, signal };
  if (headers) init.headers = typeof headers === "function" ? await headers() : headers;
  if (options.credentials) init.credentials = options.credentials;
  const response = await fetch(options.endpoint, init);
  const { status } = response;
  if (response.ok) return response.json();
  const message = `${options.endpoint} answered ${status}`;
  if (status >= 400 && status < 500 && ![408, 425, 429].includes(status)) throw refused(message);
  throw new Error(message);
}

function signature(answer: any): Signature {
  if (typeof answer?.auth !== "string") throw refused(answer?.error ?? "the backend gave no signature");
  return answer;
}

function refused(message: string): CorecastError {
  return new CorecastError("auth_refused", message);
}

/** The UUID's two 64-bit halves in decimal, joined by a dot (PROTOCOL.md, Authorization). */
function decimalSocketId(uuid: string): string {
  const digits = uuid.replace(/-/g, "");
  return BigInt("0x" + digits.slice(0, 16)) + "." + BigInt("0x" + digits.slice(16));
}

function inTime<T>(timeoutMs: number, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  return new Promise<T>((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error(`no signature within ${timeoutMs} ms`));
      abort.abort();
    }, timeoutMs);
    run(abort.signal)
      .then(resolve, reject)
      .finally(() => clearTimeout(timer));
  });
}
