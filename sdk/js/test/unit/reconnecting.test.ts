import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Corecast, type CorecastError, type Options } from "../../src/index.js";
import { Fake } from "./fake.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** Milliseconds until the next connection is opened; `undefined`: none is. */
function waited(fake: Fake): number | undefined {
  const before = fake.sockets.length;
  for (let ms = 0; ms <= 70_000; ms += 10) {
    if (fake.sockets.length > before) return ms;
    vi.advanceTimersByTime(10);
  }
  return undefined;
}

function client(random = 0.5) {
  vi.spyOn(Math, "random").mockReturnValue(random);
  const fake = new Fake();
  return { fake, socket: fake.client() };
}

function closed(code: number, reason = "") {
  const { fake, socket } = client();
  fake.last.connected();
  fake.last.end(code, reason);
  return { fake, socket };
}

describe("by close code", () => {
  test.each([1000, 1001, 1005, 1006, 1011, 1012, 4300, 4999])("%i: with back-off", (code) => {
    expect(waited(closed(code).fake)).toBe(250);
  });

  test.each([4000, 4001, 4099])("%i: not", (code) => {
    const { fake, socket } = closed(code, "go away");
    expect([socket.state, waited(fake), vi.getTimerCount()]).toEqual(["failed", undefined, 0]);
  });

  test.each([4100, 4101, 4199])("%i: after at least 1 s, with back-off", (code) => {
    expect(waited(closed(code).fake)).toBe(1_250);
  });

  test.each([4200, 4201, 4202, 4299])("%i: at once, and with back-off if it happens again", (code) => {
    const { fake } = closed(code);
    expect(waited(fake)).toBeLessThanOrEqual(10);
    fake.last.connected();
    fake.last.end(code);
    expect(waited(fake)).toBe(500);
  });

  test("1009 again, after a connection that has lasted: reconnects", () => {
    const { fake, socket } = closed(1009);
    expect(waited(fake)).toBe(1_250);
    fake.last.connected();
    vi.advanceTimersByTime(5_000);
    fake.last.end(1009);
    expect([socket.state, waited(fake)]).toEqual(["connecting", 1_250]);
    fake.last.connected();
    vi.advanceTimersByTime(4_999);
    fake.last.end(1009);
    expect(socket.state).toBe("failed");
  });

  test.each([1002, 1003, 1007, 1009])("%i: reconnects without the requests in flight; a second time, not at all", async (code) => {
    const { fake, socket } = client();
    const live = socket.subscribe("live");
    fake.last.connected();
    fake.last.say("socket:subscribed", { channel: "live" });
    const guilty = socket.subscribe("guilty");
    const errors = vi.fn();
    socket.on("error", errors);
    fake.last.end(code, "do not");
    await expect(guilty.subscribed).rejects.toMatchObject({ code: "closed", closeCode: code });
    expect(waited(fake)).toBe(1_250);
    fake.last.connected();
    expect(fake.last.names("socket:subscribe")).toEqual(["live"]);
    fake.last.end(code, "do not");
    expect([socket.state, guilty.state, live.state]).toEqual(["failed", "failed", "failed"]);
    expect(waited(fake)).toBeUndefined();
    expect(errors).toHaveBeenCalledTimes(2);
  });

  test("the reason's retry after N ms is waited for, and the back-off is added", () => {
    expect(waited(closed(1012, "restarting: retry after 7000 ms").fake)).toBe(7_250);
    expect(waited(closed(4200, "retry after 3000 ms").fake)).toBe(3_000);
    expect(waited(closed(4000, "retry after 3000 ms").fake)).toBeUndefined();
  });

  test.each([1000, 1001, 1012, 4100, 4999])("%i, and the wait of its reason, however it is written", (code) => {
    for (const [reason, wait] of [
      ["retry after 2500 ms", 2_500],
      ["Retry after 2500ms", 2_500],
      ["moved; retry after 2500 ms, please", 2_500],
    ] as const) {
      expect(waited(closed(code, reason).fake)).toBe(wait + 250);
    }
    for (const reason of ["retry after ms", "retry after -5 ms", "retry after 2.5 s", "retry soon"]) {
      expect(waited(closed(code, reason).fake)).toBeLessThanOrEqual(1_250);
    }
  });

  test("a wait is for one time: an attempt that fails after it only backs off", () => {
    const { fake } = closed(1012, "retry after 7000 ms");
    expect(waited(fake)).toBe(7_250);
    fake.last.end(1006);
    expect(waited(fake)).toBe(500);
  });

  test("clients that are told different waits reconnect at different times", () => {
    const waits = [500, 1_200, 2_400].map((ms) => waited(closed(1012, `retry after ${ms} ms`).fake));
    expect(waits).toEqual([750, 1_450, 2_650]);
  });
});

test("the delay is anything up to a bound that doubles to 20 s", () => {
  const { fake } = client(0.999999);
  const delays = Array.from({ length: 8 }, () => {
    fake.last.end(1006);
    return waited(fake)!;
  });
  expect(delays).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]);
  vi.spyOn(Math, "random").mockReturnValue(0);
  fake.last.end(1006);
  expect(waited(fake)).toBeLessThanOrEqual(10);
});

test.each([{}, { min: undefined }, { max: undefined }])("bounds that are not given are the default ones: %o", (backOff) => {
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  const fake = new Fake();
  fake.client({ backOff } as Options);
  fake.last.end(1006);
  expect(waited(fake)).toBe(250);
});

test("only a connection that has lived resets the back-off", () => {
  const { fake } = client();
  for (const expected of [250, 500, 1_000]) {
    fake.last.connected();
    vi.advanceTimersByTime(4_000);
    fake.last.end(1006);
    expect(waited(fake)).toBe(expected);
  }
  fake.last.connected();
  vi.advanceTimersByTime(5_000);
  fake.last.end(1006);
  expect(waited(fake)).toBe(250);
});

test("states, in order, and state_change for each", () => {
  const fake = new Fake();
  const socket = fake.client({ autoConnect: false });
  const seen: string[] = [socket.state];
  socket.on("state_change", ({ previous, current }) => {
    expect(previous).toBe(seen.at(-1));
    seen.push(current);
  });
  const connected = vi.fn();
  socket.on("connected", connected);
  void socket.connect();
  fake.last.connected();
  fake.last.end(1006);
  vi.advanceTimersByTime(500);
  fake.last.connected("s2");
  expect(socket.socketId).toBe("s2");
  socket.disconnect();
  void socket.connect();
  fake.last.connected();
  fake.last.end(4001, "no");
  expect(seen).toEqual([
    "initialized", "connecting", "connected", "connecting", "connected", "disconnected", "connecting", "connected", "failed",
  ]); // prettier-ignore
  expect(connected).toHaveBeenCalledTimes(3);
});

test("unavailable after 10 s without a connection, until there is one", () => {
  const { fake, socket } = client();
  fake.last.end(1006);
  const changes: string[] = [];
  socket.on("state_change", ({ current }) => changes.push(current));
  for (let at = 0; at < 40; at += 1) {
    vi.advanceTimersByTime(1_000);
    if (fake.last.readyState === 0) fake.last.end(1006);
  }
  expect(changes).toEqual(["unavailable"]);
  while (fake.last.readyState !== 0) vi.advanceTimersByTime(1_000);
  fake.last.connected();
  expect(changes).toEqual(["unavailable", "connected"]);
});

test("an attempt without socket:connected is given up after 10 s", () => {
  const { fake } = client();
  vi.advanceTimersByTime(9_999);
  expect(fake.last.closedWith).toBeUndefined();
  vi.advanceTimersByTime(1);
  expect(fake.sockets[0]!.closedWith).toBeDefined();
  vi.advanceTimersByTime(250);
  expect(fake.sockets).toHaveLength(2);
});

test("connect resolves with the socket_id, and rejects if the server refuses for good", async () => {
  const { fake, socket } = client();
  const first = socket.connect();
  expect(fake.sockets).toHaveLength(1);
  fake.last.connected("s9");
  await expect(first).resolves.toBe("s9");
  await expect(socket.connect()).resolves.toBe("s9");
  socket.disconnect();
  const second = socket.connect();
  fake.last.end(4003, "banned");
  await expect(second).rejects.toMatchObject({ code: "closed", closeCode: 4003, message: "banned" });
});

test("everything is asked for again, once, and what an old connection still says is not heard", async () => {
  const { fake, socket } = client();
  const channels = ["a", "b", "c"].map((name) => socket.subscribe(name));
  const old = fake.last;
  old.connected();
  for (const name of ["a", "b"]) old.say("socket:subscribed", { channel: name });
  void channels[1]!.unsubscribe();
  const message = vi.fn();
  channels[0]!.bind("x", message);
  old.end(1012);
  expect(channels[0]!.state).toBe("subscribing");
  vi.advanceTimersByTime(250);
  fake.last.connected("s2");
  expect(fake.last.names("socket:subscribe")).toEqual(["a", "c"]);
  old.say("socket:subscribed", { channel: "a" });
  old.say("x", { channel: "a" });
  old.end(4000);
  expect([channels[0]!.state, socket.state, message.mock.calls.length]).toEqual(["subscribing", "connected", 0]);
  fake.last.say("socket:subscribed", { channel: "a" });
  await channels[0]!.subscribed;
});

test("disconnect rejects what is awaited; connect restores the same channels", async () => {
  const { fake, socket } = client();
  const channel = socket.subscribe("a");
  socket.disconnect();
  await expect(channel.subscribed).rejects.toMatchObject({ code: "disconnected" });
  void socket.connect();
  const subscribed = channel.subscribed;
  fake.last.connected();
  fake.last.say("socket:subscribed", { channel: "a" });
  await subscribed;
});

describe("without a WebSocket", () => {
  function without(options: Options = {}) {
    vi.stubGlobal("WebSocket", undefined);
    return new Corecast("ws://fake", options);
  }

  test("the constructor does not throw; the state, the channels and connect tell the cause", async () => {
    const socket = without();
    const error = { code: "no_websocket", message: expect.stringContaining("options.WebSocket") };
    expect([socket.state, socket.lastError]).toEqual(["failed", expect.objectContaining(error)]);
    await expect(socket.subscribe("a").subscribed).rejects.toMatchObject(error);
    await expect(socket.connect()).rejects.toMatchObject(error);
    socket.disconnect();
  });

  test("connect works once there is one, with the channels of before", async () => {
    const socket = without();
    const channel = socket.subscribe("a");
    const fake = new Fake();
    vi.stubGlobal("WebSocket", fake.WebSocket);
    void socket.connect();
    const { subscribed } = channel;
    fake.last.connected();
    fake.last.say("socket:subscribed", { channel: "a" });
    await subscribed;
  });

  test("with autoConnect: false nothing happens before connect", async () => {
    const socket = without({ autoConnect: false });
    expect([socket.state, socket.lastError]).toEqual(["initialized", undefined]);
    const { subscribed } = socket.subscribe("a");
    await expect(socket.connect()).rejects.toMatchObject({ code: "no_websocket" });
    await expect(subscribed).rejects.toMatchObject({ code: "no_websocket" });
  });
});

test.each(["", "fake", "//fake", "/ws", "http://fake", "https://fake", "file:///ws", "ws://", "ws://a:99999", "ws://a/#b", "wsx://a", undefined])(
  "%o is not a WebSocket URL",
  (url: any) => {
    const fake = new Fake();
    expect(() => new Corecast(url, { WebSocket: fake.WebSocket, autoConnect: false })).toThrow(new RegExp(`not a WebSocket URL.*: ${url}$`));
  },
);

test.each(["ws://fake", "wss://fake:1/a?b=c", "WS://fake", new URL("wss://fake/")])("%s is a WebSocket URL", (url) => {
  const fake = new Fake();
  const socket = new Corecast(url, { WebSocket: fake.WebSocket });
  expect([socket.url, fake.last.url]).toEqual([String(url), String(url)]);
  socket.disconnect();
});

test("a handler of a channel that fails with the connection may disconnect", () => {
  const { fake, socket } = client();
  socket.subscribe("a").bind("socket:subscribe.error", () => socket.disconnect());
  fake.last.connected();
  fake.last.end(1009);
  expect([socket.state, waited(fake), vi.getTimerCount()]).toEqual(["disconnected", undefined, 0]);
});

test("a handler of a channel that fails with the connection may disconnect and connect: that holds", async () => {
  const { fake, socket } = client();
  const again: Promise<string>[] = [];
  const channel = socket.subscribe("a").bind("socket:subscribe.error", () => {
    socket.disconnect();
    again.push(socket.connect());
  });
  fake.last.connected();
  fake.last.end(4001);
  expect([socket.state, fake.sockets.length]).toEqual(["connecting", 2]);
  fake.last.connected("s2");
  expect(await again[0]).toBe("s2");
  const other = socket.subscribe("b");
  fake.last.say("socket:subscribed", { channel: "b" });
  await other.subscribed;
  expect([socket.state, channel.state]).toEqual(["connected", "failed"]);
});

test("a second socket:connected changes nothing", () => {
  const { fake, socket } = client();
  fake.last.connected("s1", { interval: 10, timeout: 5 });
  fake.last.connected("s2", { interval: 1, timeout: 1 });
  vi.advanceTimersByTime(9_999);
  expect([socket.socketId, fake.last.sent]).toEqual(["s1", []]);
  socket.disconnect();
  expect(vi.getTimerCount()).toBe(0);
});

test("a subscribe after the server refused for good is rejected at once, and connect takes it along", async () => {
  const { fake, socket } = closed(4000, "go away");
  const channel = socket.subscribe("a");
  await expect(channel.subscribed).rejects.toMatchObject({ code: "closed", closeCode: 4000 });
  void socket.connect();
  const { subscribed } = channel;
  fake.last.connected();
  fake.last.say("socket:subscribed", { channel: "a" });
  await subscribed;
});

test("a subscribe after disconnect waits for connect, also if the server had refused for good", async () => {
  const { fake, socket } = closed(4000, "go away");
  socket.disconnect();
  const { subscribed } = socket.subscribe("a");
  void socket.connect();
  fake.last.connected();
  fake.last.say("socket:subscribed", { channel: "a" });
  await subscribed;
});

describe("lastError, and the event closed", () => {
  function observed() {
    const { fake, socket } = client();
    const seen: CorecastError[] = [];
    socket.on("closed", (error) => {
      expect(error).toBe(socket.lastError);
      seen.push(error);
    });
    return { fake, socket, seen };
  }

  test.each([
    ["a browser", undefined, "ws://fake: closed with 1006", undefined],
    ["ws, refused by TCP", { message: "connect ECONNREFUSED 127.0.0.1:9" }, "ws://fake: connect ECONNREFUSED 127.0.0.1:9", undefined],
    ["ws, both addresses of localhost", { message: "", error: { code: "ECONNREFUSED" } }, "ws://fake: ECONNREFUSED", undefined],
    ["ws, refused by HTTP", { message: "Unexpected server response: 403" }, "ws://fake: Unexpected server response: 403", 403],
  ])("an attempt that fails: %s", (_, event, message, status) => {
    const { fake, socket, seen } = observed();
    expect(socket.lastError).toBeUndefined();
    fake.last.readyState = 3;
    fake.last.onerror!(event);
    fake.last.end(1006);
    expect(seen).toEqual([expect.objectContaining({ name: "CorecastError", code: "connect_failed", message, status })]);
    expect(socket.state).toBe("connecting");
    vi.advanceTimersByTime(250);
    fake.last.connected();
    expect(socket.lastError).toBe(seen[0]); // it stays
  });

  test("an attempt that fails in Node 22: an error without a close", () => {
    const { fake, socket, seen } = observed();
    fake.last.onerror!({ message: "non-101 status code" });
    expect(seen).toEqual([expect.objectContaining({ code: "connect_failed", message: "ws://fake: non-101 status code" })]);
    expect(socket.state).toBe("connecting");
    vi.advanceTimersByTime(250);
    expect(fake.sockets).toHaveLength(2);
  });

  test.each<[string, (fake: Fake) => void, object]>([
    ["lost", (fake) => fake.last.end(1006), { code: "closed", closeCode: 1006 }],
    ["a restart", (fake) => fake.last.end(1012, "restarting"), { code: "closed", closeCode: 1012, message: "restarting" }],
    ["refused for good", (fake) => fake.last.end(4000, "go away"), { code: "closed", closeCode: 4000, message: "go away" }],
    ["no pong", () => vi.advanceTimersByTime(150_000), { code: "closed", closeCode: 4201, message: "no pong in time" }],
  ])("a connection that ends: %s", (_, end, error) => {
    const { fake, seen } = observed();
    fake.last.connected();
    end(fake);
    expect(seen).toEqual([expect.objectContaining(error)]);
  });

  test("no socket:connected in time", () => {
    const { seen } = observed();
    vi.advanceTimersByTime(10_000);
    expect(seen).toEqual([expect.objectContaining({ code: "connect_failed", message: "ws://fake: no socket:connected within 10000 ms" })]);
  });

  test("disconnect is not an error", () => {
    const { fake, socket, seen } = observed();
    fake.last.connected();
    socket.disconnect();
    expect([seen, socket.lastError]).toEqual([[], undefined]);
  });

  test("a WebSocket that cannot be constructed", async () => {
    const socket = new Corecast("ws://fake", {
      autoConnect: false,
      WebSocket: class {
        constructor() {
          throw new DOMException("insecure", "SecurityError");
        }
      } as any,
    });
    const seen: string[] = [];
    socket.on("closed", ({ code }) => seen.push(code));
    await expect(socket.connect()).rejects.toMatchObject({ code: "connect_failed", message: expect.stringContaining("insecure") });
    expect([seen, socket.state]).toEqual([["connect_failed"], "failed"]);
  });
});

describe("in a browser", () => {
  function browser() {
    const page = new EventTarget();
    const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
    vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
    vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
    vi.stubGlobal("document", document);
    return {
      ...client(),
      online: () => page.dispatchEvent(new Event("online")),
      offline: () => page.dispatchEvent(new Event("offline")),
      look: () => document.dispatchEvent(new Event("visibilitychange")),
    };
  }

  test("a dead connection is replaced after 5 s, however often the page looks meanwhile", () => {
    const { fake, socket, offline, online, look } = browser();
    fake.last.connected();
    for (const event of [look, offline, online, look, online]) {
      expect(socket.state).toBe("connected");
      event();
      vi.advanceTimersByTime(1_000);
    }
    expect(socket.state).toBe("connecting");
  });

  test("a probe does not extend the deadline of a ping that was sent before it", () => {
    const { fake, socket, look } = browser();
    fake.last.connected("s1", { interval: 10, timeout: 8 });
    vi.advanceTimersByTime(16_000);
    look();
    vi.advanceTimersByTime(1_999);
    expect(socket.state).toBe("connected");
    vi.advanceTimersByTime(1);
    expect(socket.state).toBe("connecting");
  });

  test.each(["online", "look"] as const)("%s: reconnects at once", (event) => {
    const { fake, ...page } = browser();
    fake.last.end(1006);
    page[event]();
    expect(fake.sockets).toHaveLength(2);
    page[event]();
    expect(fake.sockets).toHaveLength(2);
  });

  test("online: but not before the server allows it", () => {
    const { fake, online } = browser();
    fake.last.connected();
    fake.last.end(4100);
    online();
    expect(fake.sockets).toHaveLength(1);
    vi.advanceTimersByTime(1_000);
    online();
    expect(fake.sockets).toHaveLength(2);
  });

  test("offline and online: a connection that still answers stays, one that does not is replaced after 5 s", () => {
    const { fake, socket, offline, online } = browser();
    fake.last.connected();
    offline();
    fake.last.say("socket:pong", { data: { reply: 1 } });
    vi.advanceTimersByTime(5_000);
    expect(socket.state).toBe("connected");
    online();
    vi.advanceTimersByTime(5_000);
    expect(socket.state).toBe("connecting");
  });

  test("offline without a connection: unavailable at once", () => {
    const { socket, offline } = browser();
    offline();
    expect(socket.state).toBe("unavailable");
  });

  test("disconnect stops listening", () => {
    const { fake, socket, online } = browser();
    socket.disconnect();
    online();
    expect(fake.sockets).toHaveLength(1);
  });
});

/** setTimeout fires at once if its delay is longer than 2^31 - 1 ms. */
test("times may be endless", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0.999);
  const fake = new Fake();
  const socket = fake.client({
    auth: () => new Promise(() => {}),
    authTimeout: Infinity,
    connectTimeout: Infinity,
    unavailableAfter: Infinity,
    backOff: { min: 2 ** 32, max: Infinity },
  });
  vi.advanceTimersByTime(3_600_000);
  expect([socket.state, fake.sockets.length]).toEqual(["connecting", 1]);
  fake.last.connected("s1", { interval: 2 ** 32, timeout: 2 ** 32 });
  const channel = socket.subscribe("private-a");
  const retried = vi.fn();
  channel.bind("socket:subscribe.error", retried);
  await vi.advanceTimersByTimeAsync(3_600_000);
  expect([socket.state, channel.state, retried.mock.calls.length]).toEqual(["connected", "subscribing", 0]);
  fake.last.end(1006);
  vi.advanceTimersByTime(3_600_000);
  expect([socket.state, fake.sockets.length]).toEqual(["connecting", 1]);
  socket.disconnect();
});
