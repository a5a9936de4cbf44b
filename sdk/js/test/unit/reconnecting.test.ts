import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
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

  test.each([4200, 4201, 4202, 4299])("%i: at once, and with back-off where it happens again", (code) => {
    const { fake } = closed(code);
    expect(waited(fake)).toBeLessThanOrEqual(10);
    fake.last.connected();
    fake.last.end(code);
    expect(waited(fake)).toBe(500);
  });

  test.each([1002, 1003, 1007, 1009])("%i: without the requests that it answers; a second time, not at all", async (code) => {
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

  test("the reason's retry after N ms is waited for, and back-off comes on top", () => {
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

  test("whoever is told different waits comes back at different times", () => {
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

test("back-off is reset only by a connection that has lived", () => {
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

test("a server that says nothing is given up on after 10 s", () => {
  const { fake } = client();
  vi.advanceTimersByTime(9_999);
  expect(fake.last.closedWith).toBeUndefined();
  vi.advanceTimersByTime(1);
  expect(fake.sockets[0]!.closedWith).toBeDefined();
  vi.advanceTimersByTime(250);
  expect(fake.sockets).toHaveLength(2);
});

test("connect resolves with the socket_id, and rejects where the server refuses for good", async () => {
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

test("disconnect tells who waits; connect goes on with the same channels", async () => {
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

test("without a WebSocket the constructor says what to do", () => {
  vi.stubGlobal("WebSocket", undefined);
  const fake = new Fake();
  // @ts-expect-error as in Node 20
  expect(() => fake.client({ WebSocket: undefined })).toThrow("options.WebSocket");
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

  test("offline: unavailable at once, where there is no connection", () => {
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
