import { deadline, now, type Timer } from "./clock.js";
import { type Deferred, deferred } from "./deferred.js";
import { call } from "./emitter.js";
import { CorecastError } from "./errors.js";
import { type Heart, type Heartbeat, heartbeat } from "./heartbeat.js";
import type { ConnectionState, Debug, Options, WebSocketLike } from "./options.js";
import { type BackOff, backOff, earliest, TIMER_MAX_MS, Verdict, verdict } from "./retry.js";
import type { Frame, Subscriptions } from "./subscriptions.js";
import { watchEnvironment } from "./wake.js";

/** What a connection works for: the socket of the application. */
export interface Host {
  readonly url: string;
  debug: Debug;
  _emit(event: string, data?: unknown): void;
}

export type Connection = ReturnType<typeof connection>;

/** Connects, keeps the connection alive, and reconnects, on behalf of `subscriptions`. */
export function connection(
  host: Host,
  options: Options,
  bounds: BackOff,
  subscriptions: Subscriptions,
) {
  let state: ConnectionState = "initialized";
  let socketId: string | undefined;
  let userId: string | undefined;
  let lastError: CorecastError | undefined;
  let ws: WebSocketLike | undefined;
  let heart: Heartbeat | undefined;
  let stopConnectTimer: (() => void) | undefined;
  let retryTimer: Timer;
  let unavailableTimer: Timer;
  let stopWatching: (() => void) | undefined;
  /** Connections in a row that did not last for `livedAfter`. */
  let failures = 0;
  /** When `socket:connected` arrived. */
  let connectedAt = 0;
  /** Time before which the server asked not to be contacted. */
  let notBefore = 0;
  /** The previous connection was closed because of a mistake of the client. */
  let blamed = false;
  /** What `connect` returned while there was no connection. */
  let awaited: Deferred<string> | undefined;

  const webSocket = () => options.WebSocket ?? (globalThis.WebSocket as Options["WebSocket"]);

  function start(): void {
    if (stopWatching) return;
    failures = notBefore = 0;
    blamed = false;
    subscriptions._giveUp();
    if (!webSocket()) {
      const help = "no WebSocket here: pass options.WebSocket";
      return stop("failed", new CorecastError("no_websocket", help));
    }
    stopWatching = watchEnvironment(wake, offline);
    try {
      open();
    } catch (error) {
      stop("failed", new CorecastError("connect_failed", `${error}`));
      throw error;
    }
    trying();
  }

  function stop(to: "disconnected" | "failed", error: CorecastError): void {
    stopWatching?.();
    stopWatching = undefined;
    clearTimeout(retryTimer);
    stopUnavailableTimer();
    const failed = to === "failed";
    if (failed) lastError = error;
    subscriptions._giveUp(error, failed);
    awaited?._reject(error);
    awaited = undefined;
    enter(to);
    if (failed) host._emit("closed", error);
  }

  function open(): void {
    clearTimeout(retryTimer);
    const opened = (ws = new (webSocket()!)(host.url));
    let cause: string | undefined;
    opened.onmessage = ({ data }) => {
      if (opened === ws) receive(data);
    };
    opened.onclose = ({ code, reason }) => {
      if (opened === ws) lost(code, reason, cause);
    };
    opened.onerror = (event) => {
      cause = event?.message || event?.error?.code || undefined; // browsers do not tell
      // A close follows, except in Node 22 if the connection was never open.
      if (opened === ws && opened.readyState === CONNECTING) lost(ABNORMAL, "", cause);
    };
    const timeout = options.connectTimeout ?? 10_000;
    stopConnectTimer = deadline(timeout, () => drop(NO_PONG, ABNORMAL, `no socket:connected within ${timeout} ms`));
  }

  function receive(text: unknown): void {
    log(`← ${text}`);
    try {
      const frame: Frame = JSON.parse(text as string);
      let message: any = frame;
      const isSystem = frame.event.startsWith("socket:"); // throws if the event is not a string
      if (options.parse && !isSystem) message = options.parse(text as string);
      message.event; // throws if `message` is null or undefined
      subscriptions._before(frame);
      if (isSystem) system(frame); // throws if its data is of another kind
      else subscriptions._message(frame, message);
    } catch {
      host._emit("error", new CorecastError("malformed_message", `not a message: ${`${text}`.slice(0, 100)}`));
    }
  }

  function system(frame: Frame): void {
    const { event, channel, data } = frame;
    const error = event.endsWith("error") ? new CorecastError(data?.code ?? "unknown", data?.error ?? "unknown") : undefined;
    switch (event) {
      case "socket:connected":
        return connected(data);
      case "socket:ping":
        return void send("socket:pong");
      case "socket:pong":
        subscriptions._pong();
        return heart?._pong(data?.reply ?? 0);
      case "socket:error":
        if (!subscriptions._error(channel, error!)) host._emit("error", error);
        return;
      case "socket:signed_in":
        userId = data?.user_id;
    }
    subscriptions._event(frame, error);
  }

  function connected(data: { socket_id: string; heart?: Heart } | undefined): void {
    if (heart || typeof data?.socket_id !== "string") return;
    stopConnectTimer?.();
    stopUnavailableTimer();
    connectedAt = now();
    socketId = data.socket_id;
    heart = heartbeat(
      data.heart,
      (id) => {
        subscriptions._ping();
        send("socket:ping", { id });
      },
      () => drop(NO_PONG, NO_PONG, "no pong in time"),
    );
    subscriptions._connected({
      _socketId: socketId,
      _send: send,
      _pong: heart._pong,
    });
    if (!heart) return; // the application's auth function has called disconnect, and maybe connect
    awaited?._resolve(data.socket_id);
    awaited = undefined;
    enter("connected");
  }

  /** Returns whether the connection is open. */
  function send(event: string, data?: unknown, channel?: string): boolean {
    // What is sent while the socket closes is lost. The next connection requests everything again.
    if (ws?.readyState !== OPEN) return false;
    const text = JSON.stringify({ event, channel, data });
    log(`→ ${text}`);
    ws.send(text);
    return true;
  }

  /** Closes the connection. With `as`, the code that it counts as closed with, the client reconnects. */
  function drop(code: number, as?: number, cause?: string): void {
    const dropped = ws;
    ws = undefined; // the closing handshake may take long if the server does not answer
    dropped?.close(code, "");
    if (as) lost(as, "", cause);
    else forget();
  }

  function forget(blame?: CorecastError): void {
    ws = socketId = userId = undefined;
    stopConnectTimer?.();
    heart?._stop();
    heart = undefined;
    subscriptions._lost(blame);
  }

  function lost(code: number, reason: string, cause = `closed with ${code}`): void {
    const error =
      code === ABNORMAL && !heart
        ? new CorecastError("connect_failed", `${host.url}: ${cause}`, code, status(cause))
        : new CorecastError("closed", reason || cause, code);
    const kind = verdict(code);
    const lived = heart && now() - connectedAt >= (options.livedAfter ?? 5_000);
    if (lived) failures = 0;
    const again = blamed && !lived;
    // A second "at once" in a row backs off: otherwise client and server would spin.
    const wait = kind === Verdict.AtOnce && failures === 0 ? 0 : backOff(failures, bounds);
    failures += 1;
    lastError = error;
    blamed = kind === Verdict.Mend;
    const watched = stopWatching;
    if (kind === Verdict.Never || (blamed && again)) {
      forget(error);
      // A handler may have called disconnect, and connect: that holds.
      if (watched === stopWatching) stop("failed", error);
    } else {
      const least = earliest(kind, reason);
      notBefore = now() + least;
      log(`${error.message}; retries in ${Math.round(least + wait)} ms`);
      retryTimer = setTimeout(retry, least + wait);
      forget(blamed ? error : undefined);
      if (stopWatching) trying(); // a handler may have called disconnect
      host._emit("closed", error);
    }
    if (kind !== Verdict.BackOff) host._emit("error", error);
  }

  function retry(): void {
    try {
      open();
    } catch (error) {
      lost(ABNORMAL, "", `${error}`);
    }
  }

  function trying(): void {
    unavailableTimer ??= setTimeout(() => enter("unavailable"), Math.min(options.unavailableAfter ?? 10_000, TIMER_MAX_MS));
    if (state !== "unavailable") enter("connecting");
  }

  function stopUnavailableTimer(): void {
    clearTimeout(unavailableTimer);
    unavailableTimer = undefined;
  }

  /** The browser is online again, or the page is visible again: checks now what would be noticed later. */
  function wake(): void {
    if (heart) heart._probe();
    else if (!ws && now() >= notBefore) retry();
  }

  /** The browser may be wrong: attempts go on, and a connection that still answers stays. */
  function offline(): void {
    if (heart) heart._probe();
    else enter("unavailable");
  }

  function enter(current: ConnectionState): void {
    const previous = state;
    if (previous === current) return;
    state = current;
    log(`${previous} → ${current}`);
    host._emit(current);
    if (state === current) host._emit("state_change", { previous, current });
  }

  function log(line: string): void {
    const { debug } = host;
    if (typeof debug === "function") call(debug, line);
    else if (debug) console.debug("corecast", line);
  }

  return {
    _state: () => state,
    _socketId: () => socketId,
    _userId: () => userId,
    _lastError: () => lastError,
    _start: start,

    _connect(): Promise<string> {
      if (socketId) return Promise.resolve(socketId);
      const { _promise } = (awaited ??= deferred());
      try {
        start();
      } catch {
        // the promise is rejected
      }
      return _promise;
    },

    _disconnect(): void {
      if (state === "initialized") return;
      drop(1000);
      stop("disconnected", new CorecastError("disconnected", "disconnect was called"));
    },
  };
}

/** The HTTP status in the error message of the package `ws`. */
function status(message: string): number | undefined {
  return Number(/server response: (\d+)/.exec(message)?.[1]) || undefined;
}

const CONNECTING = 0;
const OPEN = 1;
/** The close code that the server uses for a missing pong. */
const NO_PONG = 4201;
/** The close code that a WebSocket reports if there was no close frame. */
const ABNORMAL = 1006;
