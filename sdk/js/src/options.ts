import type { Auth } from "./auth.js";
import type { Position } from "./channel.js";
import type { CorecastError } from "./errors.js";
import type { BackOff } from "./retry.js";

export type ConnectionState =
  /** Constructed with `autoConnect: false`; `connect` was not called yet. */
  | "initialized"
  /** Connecting, or waiting for the next attempt. */
  | "connecting"
  /** `socketId` is known, and subscriptions are requested. */
  | "connected"
  /** Still connecting, without success for `unavailableAfter`, or the browser reports that it is offline. */
  | "unavailable"
  /** `disconnect` was called. */
  | "disconnected"
  /** The server refused for good, or the environment has no WebSocket: only `connect` tries again. */
  | "failed";

export interface StateChange {
  previous: ConnectionState;
  current: ConnectionState;
}

/** What a socket emits: each state by its name, each change of state, the end of each connection, and errors. */
export type SocketEvents = { [State in ConnectionState]: undefined } & {
  state_change: StateChange;
  /** An attempt to connect has failed, or a connection was lost or closed by the server. `lastError` is the same object. */
  closed: CorecastError;
  /**
   * Something needs attention: a `socket:error` that belongs to no channel, a message that cannot be read, or a close that the
   * client could not prevent (see the table of close codes). The connection recovers by itself if it can.
   */
  error: CorecastError;
};

/** The part of the WebSocket interface that is used. */
export interface WebSocketLike {
  readyState: number;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

export interface Options {
  /** Signs for private and presence channels: the URL of an endpoint, an endpoint with settings, or a function. */
  auth?: Auth;
  /** Whether the constructor connects. Default true. */
  autoConnect?: boolean;
  /** A WebSocket class such as that of the package `ws`, for environments without a built-in one (Node 20). */
  WebSocket?: new (url: string) => WebSocketLike;
  /** Bounds of the reconnection delay, in ms. Default `{ min: 500, max: 20_000 }`. */
  backOff?: Partial<BackOff>;
  /** Milliseconds for which a connection must last to reset the back-off. Default 5 000. */
  livedAfter?: number;
  /** Milliseconds from opening to `socket:connected`. Default 10 000. */
  connectTimeout?: number;
  /** Milliseconds without a connection after which the state is `unavailable`. Default 10 000. */
  unavailableAfter?: number;
  /** Milliseconds that a signature may take. Default 10 000. */
  authTimeout?: number;
  /**
   * Reads a published message from its text, instead of `JSON.parse`: to keep 64-bit numbers exact, or to keep the text. It must
   * return an object with `event`, `channel` and `data`.
   */
  parse?: (text: string) => unknown;
  /** Initial value of `socket.debug`. */
  debug?: Debug;
}

export interface SubscribeOptions {
  /**
   * Where the application's state was taken from the channel: everything after it follows. `socket:load` is emitted only if that
   * cannot be. A further reference to a channel gets `socket:load` instead.
   */
  since?: Position | null;
}

/** Where to log: `true` logs to the console. */
export type Debug = boolean | ((line: string) => void);
