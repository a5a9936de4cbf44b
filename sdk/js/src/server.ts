/** For the application's backend, in Node: signs subscriptions and users, and publishes over the admin socket. */
import { createHmac } from "node:crypto";
import { connect, type Socket } from "node:net";
import type { Signature, UserSignature } from "./auth.js";
import type { Position } from "./channel.js";
import { CorecastError } from "./errors.js";
import { type BackOff, backOff, TIMER_MAX_MS } from "./retry.js";

export type { Signature, UserSignature } from "./auth.js";
export type { Position } from "./channel.js";
export { CorecastError } from "./errors.js";

export interface BackendOptions {
  /** `ID:SECRET`, one of the server's keys. Needed to sign. */
  key?: string;
  /** Path of the server's admin socket. Needed to publish. */
  adminSocket?: string;
  /** Milliseconds that a request may take, from the call to the reply. Default 5 000. */
  timeout?: number;
  /** Requests that may wait for a reply. Further ones fail with `queue_full`. Default 10 000. */
  queueMax?: number;
  /**
   * Bytes of one request. Longer ones fail with `too_large`. At most the server's `--admin-line-limit`, because the server
   * closes the connection at a longer line. Default 1 MiB.
   */
  lineMax?: number;
  /** Bounds of the reconnection delay, in ms. Default `{ min: 50, max: 2_000 }`. */
  backOff?: Partial<BackOff>;
}

export interface PublishOptions {
  /** The socket_id of a connection that does not receive the message: usually that of the client that caused it. */
  exclude?: string;
  /**
   * Up to 64 bytes. The server publishes the first request with this text to a channel, and for 5 minutes no other: so a publish
   * that failed with `timeout` or `connection_lost` can be repeated.
   */
  dedupe?: string;
  /** Up to 64 bytes: what the message updates, for channels whose slow readers get only the newest message of each key. */
  key?: string;
}

/** A user of a presence channel. */
export interface PresenceMember {
  /** 1 to 128 bytes. A number counts as the string of its digits. */
  user_id: string | number;
  /** Shown to the other members: any JSON of at most 1 KiB, or what the server is configured for. */
  user_info?: unknown;
}

/** The user that a connection is signed in as. `id` has 1 to 128 bytes. */
export interface User {
  id: string;
  [more: string]: unknown;
}

export interface HistoryOptions {
  /** Only messages after this position. */
  since?: Position;
  /** At most 1 000, which is the default; 0: only the channel's position. */
  limit?: number;
  /** Newest first. */
  reverse?: boolean;
  /** The `next` of the previous page. */
  after?: string;
}

/** What a channel keeps. */
export interface History {
  /** With `offset`, the position of the channel: that of its newest message. Absent if the channel keeps no history. */
  epoch?: string;
  offset?: number;
  /** Whether nothing is missing of what was asked for. */
  complete: boolean;
  messages: { offset: number; event: string; data?: any }[];
  /** Absent on the last page. */
  next?: string;
}

export interface Members {
  count: number;
  members: { user_id: string; user_info?: any; connections: number }[];
}

/** The backend's side of a corecast server. */
export class CorecastBackend {
  #options: BackendOptions;
  #socket: Socket | undefined;
  #connected = false;
  /** Why the last attempt to connect failed. */
  #cause = "";
  #closed = false;
  #failures = 0;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #lastId = 0;
  /** Not written to the socket yet. */
  #waiting: Request[] = [];
  /** Written to the socket, without a reply yet. Replies come in this order. */
  #sent: Request[] = [];
  #flushing = false;
  #received = "";

  constructor(options: BackendOptions) {
    this.#options = options;
  }

  /**
   * Signs the subscription of one connection to one private or presence channel. A presence channel without `channelData` is for
   * a connection that has signed in. Throws a `CorecastError` if an argument is not valid.
   */
  sign(socketId: string, channel: string, channelData?: string): Signature {
    return sign(...this.#key(), socketId, channel, channelData);
  }

  /** Signs the subscription of one connection to one presence channel, for this member. Throws as `sign` does. */
  signPresence(socketId: string, channel: string, member: PresenceMember): Signature {
    const { user_id, user_info } = member ?? {};
    if (!`${channel}`.startsWith("presence-")) throw new CorecastError("invalid_channel", "not the name of a presence channel");
    if (!Number.isFinite(user_id)) checkId(user_id, "user_id");
    return this.sign(socketId, channel, JSON.stringify({ user_id, user_info }));
  }

  /** Signs one connection in as this user: the answer to a form with a `socket_id` alone. Throws as `sign` does. */
  signUser(socketId: string, user: User): UserSignature {
    checkSocketId(socketId);
    checkId(user?.id, "id");
    const [id, secret] = this.#key();
    const user_data = JSON.stringify(user);
    return { auth: hmac(id, secret, `${socketId}::user::${user_data}`), user_data };
  }

  #key(): [id: string, secret: string] {
    const [, id, secret] = /^([^:]+):(.+)$/.exec(this.#options.key ?? "") ?? [];
    if (!id || !secret) throw new CorecastError("no_key", "signing needs the option key: ID:SECRET");
    return [id, secret];
  }

  /**
   * Answers a request to a signing endpoint. `form` is what the client POSTed, for one channel or for several. `may` decides for
   * each channel: `true` signs, a member signs a presence channel for it, a string signs with it as channel_data, anything else
   * refuses. Send `status` and `body` (JSON) to the client.
   */
  async authorize(form: Form, may: (channel: string) => Decision | Promise<Decision>): Promise<{ status: number; body: string }> {
    const socketId = form.get("socket_id") ?? "";
    const one = async (channel: string): Promise<Signature | { error: string }> => {
      try {
        const decision = await may(channel);
        if (typeof decision === "string") return this.sign(socketId, channel, decision);
        if (typeof decision === "object" && decision) return this.signPresence(socketId, channel, decision);
        return decision === true ? this.sign(socketId, channel) : { error: "forbidden" };
      } catch (error) {
        if (error instanceof CorecastError && error.code !== "no_key") return { error: error.message };
        throw error;
      }
    };
    const channel = form.get("channel_name");
    if (channel !== null) {
      const answer = await one(channel);
      return { status: "error" in answer ? 403 : 200, body: JSON.stringify(answer) };
    }
    const names = form.getAll("channel_name[]");
    if (names.length === 0) return { status: 400, body: '{"error":"the form has no channel_name and no channel_name[]"}' };
    const answers = await Promise.all(names.map(async (name) => [name, await one(name)] as const));
    return { status: 200, body: JSON.stringify(Object.fromEntries(answers)) };
  }

  /** Publishes to a channel, or to up to 100 channels. Resolves with the number of subscribers once the server has accepted it. */
  async publish(channel: string | string[], event: string, data?: unknown, options: PublishOptions = {}): Promise<number> {
    const to = typeof channel === "string" ? { channel } : { channels: channel };
    const reply = await this.request("publish", { ...to, event, data, ...options });
    return reply.subscribers as number;
  }

  /** Publishes to every connection that is signed in as this user, or as one of up to 100. Resolves with their number. */
  async publishToUser(user: string | string[], event: string, data?: unknown, options: PublishOptions = {}): Promise<number> {
    const to = typeof user === "string" ? { user } : { users: user };
    const reply = await this.request("publish", { ...to, event, data, ...options });
    return reply.subscribers as number;
  }

  /** Reads what a channel keeps, oldest first, a page at a time. */
  async history(channel: string, { since, ...options }: HistoryOptions = {}): Promise<History> {
    const after = since && { epoch: since.epoch, offset: since.offset };
    return (await this.request("history", { channel, since: after, ...options })) as unknown as History;
  }

  /** The members of a presence channel, in the order of joining. */
  async members(channel: string): Promise<Members> {
    return (await this.request("members", { channel })) as unknown as Members;
  }

  /** Closes every connection that is signed in as this user, with a close code from 4000 to 4999. Resolves with their number. */
  async disconnectUser(user: string, options: { code?: number; reason?: string } = {}): Promise<number> {
    return (await this.request("disconnect", { user, ...options })).connections as number;
  }

  /**
   * Sends any command of the admin socket and resolves with the reply's members. Requests are pipelined in the order of the
   * calls; those made in one turn of the event loop share one write. Without a connection they wait. Rejects with the server's
   * `code`, or with `timeout`, `queue_full`, `too_large`, `closed`, `no_admin_socket`, or with one of two codes that leave open
   * whether the command was executed: `connection_lost` (sent, but the connection ended before the reply) and `malformed_reply`.
   */
  request(command: string, members: object = {}): Promise<Record<string, unknown>> {
    return new Promise((resolve, reject) => {
      const { queueMax = 10_000, lineMax = 1 << 20, timeout = 5_000 } = this.#options;
      const id = ++this.#lastId;
      const line = JSON.stringify({ ...members, id, command }) + "\n";
      if (this.#closed) return reject(new CorecastError("closed", "close was called"));
      if (this.#waiting.length + this.#sent.length >= queueMax) {
        return reject(new CorecastError("queue_full", `${queueMax} requests already wait for a reply (queueMax)`));
      }
      if (Buffer.byteLength(line) > lineMax) {
        return reject(new CorecastError("too_large", `the request is longer than ${lineMax} bytes (lineMax)`));
      }
      const request: Request = { id, line, resolve, reject };
      request.timer = setTimeout(() => {
        const at = this.#waiting.indexOf(request);
        if (at >= 0) this.#waiting.splice(at, 1); // else it keeps its place in the order of the replies
        settle(request);
        if (this.#sent.at(-1)?.settled) this.#socket?.unref(); // nothing is waited for
        reject(new CorecastError("timeout", `no reply within ${timeout} ms${this.#cause && `: ${this.#cause}`}`));
      }, Math.min(timeout, TIMER_MAX_MS));
      this.#waiting.push(request);
      this.#connect();
      this.#flushSoon();
    });
  }

  /** Refuses further requests, and resolves once every earlier one was answered or has failed. */
  async close(): Promise<void> {
    this.#closed = true;
    const pending = [...this.#waiting, ...this.#sent].filter(({ settled }) => !settled);
    await Promise.all(pending.map((request) => new Promise<void>((resolve) => (request.done = resolve))));
    clearTimeout(this.#retryTimer);
    this.#socket?.destroy();
  }

  #connect(): void {
    if (this.#socket || this.#retryTimer) return;
    const { adminSocket } = this.#options;
    if (!adminSocket) return this.#failAll(this.#waiting, "no_admin_socket", "a request needs the option adminSocket");
    const socket = (this.#socket = connect(adminSocket));
    socket.setEncoding("utf8");
    socket.on("connect", () => {
      this.#connected = true;
      this.#cause = "";
      this.#flushSoon();
    });
    socket.on("data", (text: string) => this.#receive(text));
    socket.on("error", ({ message }) => (this.#cause = message)); // a close follows
    socket.on("close", () => this.#lost());
  }

  #lost(): void {
    this.#socket = undefined;
    this.#connected = false;
    this.#received = "";
    this.#failAll(this.#sent, "connection_lost", "the connection to the server ended before the reply");
    if (this.#waiting.length === 0) return; // the next request connects
    const { min = 50, max = 2_000 } = this.#options.backOff ?? {};
    this.#retryTimer = setTimeout(
      () => {
        this.#retryTimer = undefined;
        if (this.#waiting.length > 0) this.#connect();
      },
      backOff(this.#failures++, { min, max }),
    );
  }

  #flushSoon(): void {
    if (this.#flushing || !this.#connected) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      const requests = this.#waiting.splice(0);
      if (requests.length === 0) return;
      if (!this.#connected) return void this.#waiting.unshift(...requests);
      this.#sent.push(...requests);
      this.#socket!.ref().write(requests.map((request) => request.line).join(""));
    });
  }

  #receive(text: string): void {
    const lines = text.split("\n");
    lines[0] = this.#received + lines[0];
    this.#received = lines.pop()!;
    for (const line of lines) {
      const reply = parse(line);
      const at = this.#sent.findIndex(({ id }) => id === reply.id);
      if (at < 0 && reply.id > 0 && reply.id < (this.#sent[0]?.id ?? Infinity)) continue; // that request has failed already
      this.#failAll(this.#sent.splice(0, at), "malformed_reply", "the reply to a later request came first");
      // Without a known id (the server could not read the request) the reply belongs to the oldest request: replies are in order.
      const request = this.#sent.shift();
      if (!request) continue;
      this.#failures = 0;
      settle(request);
      const { id, ok, code, error, ...rest } = reply;
      if (ok === true && id === request.id) request.resolve(rest);
      else if (ok === false && typeof code === "string") request.reject(new CorecastError(code, String(error)));
      else request.reject(new CorecastError("malformed_reply", `not the reply to a request: ${line.slice(0, 100)}`));
    }
    if (this.#sent.length === 0) this.#socket!.unref(); // an idle connection keeps no process alive
  }

  #failAll(requests: Request[], code: string, message: string): void {
    for (const request of requests.splice(0)) {
      settle(request);
      request.reject(new CorecastError(code, message));
    }
  }
}

/** Signs with a key pair. See `CorecastBackend.sign`. */
export function sign(id: string, secret: string, socketId: string, channel: string, channelData?: string): Signature {
  checkSocketId(socketId);
  if (!SIGNED_CHANNEL.test(channel) || channel.length > 200) {
    throw new CorecastError("invalid_channel", "not the name of a private or presence channel");
  }
  if (channelData !== undefined && typeof channelData !== "string") {
    throw new CorecastError("invalid_data", "channel_data must be a string");
  }
  const data = channelData === undefined ? {} : { channel_data: channelData };
  const text = [socketId, channel, ...Object.values(data)].join(":");
  return { auth: hmac(id, secret, text), ...data };
}

function hmac(id: string, secret: string, text: string): string {
  return `${id}:${createHmac("sha256", secret).update(text).digest("hex")}`;
}

/** A socket_id that contains more could make the signature of one channel valid for another one. */
function checkSocketId(socketId: string): void {
  if (!SOCKET_ID.test(socketId)) throw new CorecastError("invalid_socket_id", "not a socket_id");
}

function checkId(id: unknown, name: string): void {
  if (typeof id === "string" && id && Buffer.byteLength(id) <= 128) return;
  throw new CorecastError("invalid_data", `${name} must be a string of 1 to 128 bytes`);
}

/** Whether a user may join a channel, and as which member. */
export type Decision = boolean | string | PresenceMember;

/** The part of `URLSearchParams` and `FormData` that is used. */
export interface Form {
  get(name: string): any;
  getAll(name: string): any[];
}

interface Request {
  id: number;
  line: string;
  resolve: (reply: Record<string, unknown>) => void;
  reject: (error: CorecastError) => void;
  timer?: ReturnType<typeof setTimeout>;
  done?: () => void;
  /** Answered, or failed: its place in the order of the replies may still be kept. */
  settled?: boolean;
}

function parse(line: string): any {
  try {
    return JSON.parse(line) ?? {};
  } catch {
    return {};
  }
}

function settle(request: Request): void {
  clearTimeout(request.timer);
  request.settled = true;
  request.done?.();
}

/** Both spellings (PROTOCOL.md, Authorization). */
const SOCKET_ID = /^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{1,20}\.\d{1,20})$/;
const SIGNED_CHANNEL = /^(private|presence)-[A-Za-z0-9_\-=@,.;/]*$/;
