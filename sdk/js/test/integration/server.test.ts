import { expect, onTestFinished, test, vi } from "vitest";
import { once } from "node:events";
import { createServer, type RequestListener, type Server as HttpServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { WebSocket } from "ws";
import { type ConnectionState, Corecast, type Options } from "../../src/index.js";
import { CorecastBackend } from "../../src/server.js";
import { freePort, KEY, Server } from "../corecast.js";
import { backend, serve, server, track } from "./site.js";

serve("", "--heart-interval", "1", "--heart-timeout", "1", "--max-subscriptions", "8");

function client(options: Options = {}): Corecast {
  return track(new Corecast(server.url, { WebSocket, backOff: { min: 50, max: 200 }, connectTimeout: 1_000, ...options }));
}

function reached(socket: Corecast, state: ConnectionState): Promise<void> {
  return new Promise((resolve) => {
    if (socket.state === state) return resolve();
    const on = () => {
      socket.off(state, on);
      resolve();
    };
    socket.on(state, on);
  });
}

test("10 000 messages arrive, in order, once", async () => {
  // With the default heartbeats: a stall of a second on this machine does not close the connection.
  const own = await Server.start("--http", "off");
  const publisher = new CorecastBackend({ key: KEY, adminSocket: own.adminSocket });
  onTestFinished(async () => {
    await publisher.close();
    await own.dispose();
  });
  const socket = track(new Corecast(own.url, { WebSocket }));
  const channel = socket.subscribe<{ n: number }>("flood");
  const seen: number[] = [];
  const all = new Promise<void>((resolve) => channel.bind("n", (n) => seen.push(n) === 10_000 && resolve()));
  await channel.subscribed;
  for (let n = 0; n < 10_000; n += 1_000) {
    await Promise.all(Array.from({ length: 1_000 }, (_, i) => publisher.publish("flood", "n", n + i)));
  }
  await all;
  expect(seen).toEqual(Array.from({ length: 10_000 }, (_, n) => n));
});

test("the server's refusals carry its codes", async () => {
  const socket = client();
  await expect(socket.subscribe("private-a:b").subscribed).rejects.toMatchObject({ code: "invalid_channel" });
  await expect(socket.subscribe("private-x").subscribed).rejects.toMatchObject({ code: "auth_required" });
});

test("a channel beyond the server's limit becomes live when another one is left", async () => {
  const socket = client();
  const channels = Array.from({ length: 8 }, (_, n) => socket.subscribe(`c${n}`));
  const ninth = socket.subscribe("c8");
  const refused = new Promise<string>((resolve) => ninth.once("socket:subscribe.error", ({ code }) => resolve(code)));
  await Promise.all(channels.map(({ subscribed }) => subscribed));
  expect(await refused).toBe("too_many_subscriptions");
  await channels[3]!.unsubscribe();
  await ninth.subscribed;
});

test("a name that the server cannot read fails alone", async () => {
  const socket = client();
  const [bad, good] = ["\ud83d", "good"].map((name) => socket.subscribe(name)); // one half of an emoji
  await good!.subscribed;
  await expect(bad!.subscribed).rejects.toMatchObject({ code: expect.stringMatching(/^(malformed_message|invalid_channel)$/) });
});

test("two references share a subscription of the server", async () => {
  const socket = client();
  const [first, second] = [socket.subscribe("shared"), socket.subscribe("shared")];
  await Promise.all([first.subscribed, second.subscribed]);
  const heard = new Promise((resolve) => second.bind("x", resolve));
  await first.unsubscribe();
  expect(await backend.publish("shared", "x", 1)).toBe(1);
  expect(await heard).toBe(1);
  await second.unsubscribe();
  expect(await backend.publish("shared", "x", 2)).toBe(0);
});

/** An HTTP server of the application, and its URL. */
async function application(answer: RequestListener): Promise<{ url: string; http: HttpServer }> {
  const http = createServer(answer).listen(0, "127.0.0.1");
  onTestFinished(() => void http.close().closeAllConnections());
  await once(http, "listening");
  return { url: `127.0.0.1:${(http.address() as AddressInfo).port}`, http };
}

test("a refused connection tells its cause", async () => {
  const cause = async (url: string) => {
    const socket = track(new Corecast(url, { WebSocket }));
    const error = await new Promise((resolve) => socket.on("closed", resolve));
    expect(socket.lastError).toBe(error);
    return error;
  };
  expect(await cause(`ws://127.0.0.1:${await freePort()}`)).toMatchObject({
    code: "connect_failed",
    message: expect.stringContaining("ECONNREFUSED"),
  });
  const { url, http } = await application(() => {});
  http.on("upgrade", (_, socket) => socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"));
  expect(await cause(`ws://${url}`)).toMatchObject({ code: "connect_failed", status: 403 });
});

test("signing endpoints over HTTP: redirects, a login page, nothing", async () => {
  const { url } = await application(async (request, response) => {
    const path = request.url!;
    if (path === "/login") return response.setHeader("content-type", "text/html").end("<html>Log in</html>");
    if (path === "/302") return response.writeHead(302, { location: "/login" }).end();
    if (path === "/307") return response.writeHead(307, { location: "/auth" }).end();
    if (path === "/204") return response.writeHead(204).end();
    let form = "";
    for await (const text of request) form += text;
    const { status, body } = await backend.authorize(new URLSearchParams(form), () => true);
    response.writeHead(status).end(body);
  });
  const outcome = (path: string) =>
    client({ auth: `http://${url}${path}` })
      .subscribe("private-a")
      .subscribed.catch((error) => error);
  expect(await outcome("/auth")).toBeUndefined();
  expect(await outcome("/307")).toBeUndefined();
  for (const [path, status, text] of [
    ["/login", 200, `http://${url}/login answered 200 without JSON: <html>Log in</html>`],
    ["/302", 200, `http://${url}/302 answered 200 after a redirect to http://${url}/login without JSON: <html>Log in</html>`],
    ["/204", 204, `http://${url}/204 answered 204 without JSON: an empty body`],
  ] as const) {
    expect(await outcome(path)).toMatchObject({ code: "auth_refused", status, message: text });
  }
});

test("disconnect aborts a pending request to the signing endpoint", async () => {
  const { url, http } = await application(() => {});
  const socket = client({ auth: `http://${url}/auth` });
  socket.subscribe("private-a");
  const [, response] = (await once(http, "request")) as [unknown, ServerResponse];
  const closed = once(response, "close");
  socket.disconnect();
  await closed;
});

test("private channels, with and without channel_data; a wrong signature is refused", async () => {
  const socket = client({
    auth: ({ socketId, channel }) =>
      channel === "private-wrong" ? { auth: "a:b" } : backend.sign(socketId, channel, channel.endsWith("1") ? '{"id":1}' : undefined),
  });
  await Promise.all(["private-1", "private-2"].map((name) => socket.subscribe(name).subscribed));
  await expect(socket.subscribe("private-wrong").subscribed).rejects.toMatchObject({ code: "auth_invalid" });
});

test("unsubscribe is confirmed, and the server no longer counts the subscriber", async () => {
  const socket = client();
  const channel = socket.subscribe("left");
  await channel.subscribed;
  expect(await backend.publish("left", "x")).toBe(1);
  await channel.unsubscribe();
  expect(await backend.publish("left", "x")).toBe(0);
});

test("after a restart of the server the client reconnects and signs private channels again", async () => {
  const attempts: number[] = [];
  const closes: { code: number; at: number }[] = [];
  class Observed extends WebSocket {
    constructor(url: string) {
      super(url);
      attempts.push(performance.now());
      this.once("close", (code) => closes.push({ code, at: performance.now() }));
    }
  }
  const socket = client({
    WebSocket: Observed,
    auth: ({ socketId, channel }) => backend.sign(socketId, channel),
    // The test does not depend on the speed of the machine.
    livedAfter: 60_000,
    unavailableAfter: 60_000,
  });
  const channels = ["a", "private-b"].map((name) => socket.subscribe(name));
  await Promise.all(channels.map(({ subscribed }) => subscribed));
  const states: ConnectionState[] = [];
  socket.on("state_change", ({ current }) => states.push(current));
  // Without jitter the least time between a loss and the next attempt is known.
  const random = vi.spyOn(Math, "random").mockReturnValue(1);
  onTestFinished(() => random.mockRestore());
  for (const [signal, code] of [["SIGTERM", 1012], ["SIGKILL", 1006]] as const) {
    attempts.length = closes.length = states.length = 0;
    const before = socket.socketId;
    const lost = reached(socket, "connecting");
    await server.stop(signal);
    await lost;
    expect(channels.map(({ state }) => state)).toEqual(["subscribing", "subscribing"]);
    const back = channels.map((channel) => channel.subscribed);
    // Some attempts fail while the server is down.
    await expect.poll(() => closes.length, { timeout: 10_000 }).toBeGreaterThan(3);
    expect(closes[0]!.code).toBe(code);
    const bounds = signal === "SIGTERM" ? [50, 100, 200] : [200, 200, 200]; // no connection lived
    for (const [n, bound] of bounds.entries()) expect(attempts[n]! - closes[n]!.at).toBeGreaterThan(bound - 2);
    expect(states).toEqual(["connecting"]);
    await server.start();
    await Promise.all(back);
    expect(states).toEqual(["connecting", "connected"]);
    expect(socket.socketId).not.toBe(before);
    const heard = channels.map((channel) => new Promise((resolve) => channel.bind(signal, resolve)));
    expect(await backend.publish(["a", "private-b"], signal, "back")).toBe(2);
    expect(await Promise.all(heard)).toEqual(["back", "back"]);
  }
});

test("after shed and drain the client reconnects when the wait that it was told is over, not before", async () => {
  const opened: number[] = [];
  const closes: { code: number; reason: string; at: number }[] = [];
  class Observed extends WebSocket {
    constructor(url: string) {
      super(url);
      opened.push(performance.now());
      this.once("close", (code, reason) => closes.push({ code, reason: String(reason), at: performance.now() }));
    }
  }
  const own = await Server.start("--http", "off");
  onTestFinished(() => own.dispose());
  const socket = track(new Corecast(own.url, { WebSocket: Observed, backOff: { min: 50, max: 200 } }));
  const channel = socket.subscribe("a");
  await channel.subscribed;
  const heard: unknown[] = [];
  channel.bind("n", (n) => heard.push(n));
  for (const command of ["shed", "drain"]) {
    const publisher = new CorecastBackend({ key: KEY, adminSocket: own.adminSocket });
    const before = socket.socketId;
    const lost = reached(socket, "connecting");
    expect(await publisher.publish("a", "n", command)).toBe(1);
    const asked = await publisher.request(command, { over_ms: 0, ...(command === "shed" ? { percent: 100 } : {}) });
    expect(asked).toMatchObject({ connections: 1, over_ms: 0 });
    await lost;
    await publisher.close();
    const { code, reason, at } = closes.at(-1)!;
    expect(code).toBe(1012);
    const wait = Number(/^retry after (\d+) ms$/.exec(reason)?.[1]);
    expect(wait).toBeGreaterThanOrEqual(500);
    const attempts = opened.length;
    if (command === "drain") {
      await own.stop(); // it ends by itself; otherwise at once
      await own.start();
    }
    await channel.subscribed;
    expect(opened[attempts]! - at).toBeGreaterThan(wait - 2);
    expect(socket.socketId).not.toBe(before);
  }
  expect(heard).toEqual(["shed", "drain"]);
});

test("a silent network is noticed by the missing pong, and the client reconnects when it recovers", async () => {
  const socket = client();
  const channel = socket.subscribe("a");
  await channel.subscribed;
  server.signal("SIGSTOP");
  try {
    await reached(socket, "connecting"); // interval 1 s, timeout 1 s
  } finally {
    server.signal("SIGCONT");
  }
  await channel.subscribed;
});

test("disconnected by the server: final with 4000, reconnects at once with 4200", async () => {
  const socket = client();
  const first = await socket.connect();
  const moved = reached(socket, "connecting");
  await backend.request("disconnect", { socket_id: first, code: 4200, reason: "move" });
  await moved;
  const second = await socket.connect();
  expect(second).not.toBe(first);
  const channel = socket.subscribe("a");
  await channel.subscribed;
  await backend.request("disconnect", { socket_id: second, reason: "banned" });
  await reached(socket, "failed");
  await expect(channel.subscribed).rejects.toMatchObject({ code: "closed", closeCode: 4000, message: "banned" });
});

test("the server unsubscribes a client", async () => {
  const socket = client();
  const channel = socket.subscribe("a");
  await channel.subscribed;
  const told = new Promise((resolve) => channel.bind("socket:unsubscribed", resolve));
  await backend.request("unsubscribe", { socket_id: socket.socketId, channel: "a" });
  await told;
  expect(await backend.publish("a", "x")).toBe(0);
});
