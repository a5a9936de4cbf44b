/** What the server or this client refused, with a `code` for programs and a `message` for people. */
export class CorecastError extends Error {
  override readonly name = "CorecastError";

  constructor(
    /**
     * The server's codes (PROTOCOL.md): `invalid_channel`, `auth_required`, `auth_invalid`, `too_many_subscriptions`,
     * `rate_limited`, `malformed_message`, …
     * This client's own: `auth_refused` (the backend will not sign), `auth_unavailable` (it did not answer; tried again),
     * `unsubscribed` (the channel was left), `disconnected` (by `disconnect()`), `closed` (by the server, see `closeCode`).
     */
    readonly code: string,
    message: string,
    /** The WebSocket close code, where one was the reason. */
    readonly closeCode?: number,
  ) {
    super(message);
  }
}
