/** A refusal or failure: `code` is for programs, `message` for people. */
export class CorecastError extends Error {
  override readonly name = "CorecastError";

  constructor(
    /**
     * A code of the server (docs/protocol.md): `invalid_channel`, `auth_required`, `auth_invalid`, `too_many_subscriptions`,
     * `rate_limited`, `malformed_message`, `presence_full`, `client_event_refused`, …
     *
     * Or a code of this client:
     * - `auth_refused`: the backend refuses to sign, or its answer is not a signature. Final.
     * - `auth_unavailable`: the backend did not answer, or asks to retry. The client retries.
     * - `unsubscribed`: the subscription was ended, by this application or by the server.
     * - `disconnected`: `disconnect()` was called.
     * - `connect_failed`: the attempt to connect failed. See `status`.
     * - `closed`: the connection was closed or lost. See `closeCode`.
     * - `no_websocket`: the environment has no WebSocket.
     */
    readonly code: string,
    message: string,
    /** The WebSocket close code, if the error comes from a close. */
    readonly closeCode?: number,
    /** The HTTP status, if the error comes from an HTTP response. */
    readonly status?: number,
  ) {
    super(message);
  }
}
