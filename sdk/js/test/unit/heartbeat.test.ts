import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Fake } from "./fake.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

function connected(heart?: object) {
  const fake = new Fake();
  const socket = fake.client();
  fake.last.connected("s1", heart);
  return { fake, socket, server: fake.last, pings: () => fake.sockets[0]!.sent.map(({ data }) => data.id) };
}

test("pings every 120 s", () => {
  const { server, pings } = connected();
  vi.advanceTimersByTime(119_999);
  expect(pings()).toEqual([]);
  for (const id of [1, 2, 3]) {
    vi.advanceTimersByTime(id === 1 ? 1 : 120_000);
    expect(server.sent.at(-1)).toEqual({ event: "socket:ping", data: { id } });
    server.say("socket:pong", { data: { reply: id } });
  }
  expect(pings()).toEqual([1, 2, 3]);
});

test("waits 30 s for the pong, then reconnects at once", () => {
  const { fake, socket, server } = connected();
  vi.advanceTimersByTime(120_000 + 29_999);
  expect([socket.state, server.closedWith]).toEqual(["connected", undefined]);
  vi.advanceTimersByTime(1);
  expect([socket.state, socket.socketId, server.closedWith]).toEqual(["connecting", undefined, 4201]);
  vi.advanceTimersByTime(1);
  expect(fake.sockets).toHaveLength(2);
});

test("heart of socket:connected replaces the defaults", () => {
  const { socket, pings } = connected({ interval: 30, timeout: 25 });
  vi.advanceTimersByTime(30_000);
  expect(pings()).toEqual([1]);
  vi.advanceTimersByTime(24_999);
  expect(socket.state).toBe("connected");
  vi.advanceTimersByTime(1);
  expect(socket.state).toBe("connecting");
});

test("a heart that is not valid leaves the defaults", () => {
  const { pings } = connected({ interval: 0, timeout: "x" });
  vi.advanceTimersByTime(119_999);
  expect(pings()).toEqual([]);
});

test("neither messages nor the pong of an earlier ping count as the pong that is due", () => {
  const { socket, server } = connected({ interval: 10, timeout: 5 });
  vi.advanceTimersByTime(10_000);
  server.say("socket:pong", { data: { reply: 1 } });
  vi.advanceTimersByTime(10_000);
  server.say("socket:pong", { data: { reply: 1 } });
  server.say("socket:pong");
  server.say("socket:pong", { data: {} });
  server.say("x", { channel: "a" });
  vi.advanceTimersByTime(5_000);
  expect(socket.state).toBe("connecting");
});

test("a slow pong does not delay the next ping", () => {
  const { server, pings } = connected({ interval: 10, timeout: 25 });
  vi.advanceTimersByTime(19_000);
  server.say("socket:pong", { data: { reply: 1 } });
  vi.advanceTimersByTime(1_000);
  expect(pings()).toEqual([1, 2]);
});

test("answers the server's ping", () => {
  const { server } = connected();
  server.say("socket:ping");
  expect(server.sent).toEqual([{ event: "socket:pong" }]);
});

test("disconnect leaves no timer behind", () => {
  const { socket, server } = connected();
  socket.disconnect();
  expect([server.closedWith, vi.getTimerCount()]).toEqual([1000, 0]);
});

/** Adds to the clock what the timers do not see: they fire late by as much. */
function sleep() {
  const clock = performance.now.bind(performance);
  let slept = 0;
  vi.spyOn(performance, "now").mockImplementation(() => clock() + slept);
  return (ms: number) => void (slept += ms);
}

test("a deadline that fires late waits for a pong that may have arrived meanwhile", () => {
  const { socket, server } = connected();
  const slept = sleep();
  vi.advanceTimersByTime(120_000);
  slept(3_600_000); // the page was frozen, and the pong waits to be handled
  vi.advanceTimersByTime(30_000);
  expect([socket.state, server.closedWith]).toEqual(["connected", undefined]);
  server.say("socket:pong", { data: { reply: 1 } });
  vi.advanceTimersByTime(29_000); // the next ping was sent at once
  expect([socket.state, server.closedWith]).toEqual(["connected", undefined]);
});

test("after a deadline that fires late, a dead connection is given up within 5 s", () => {
  const { socket, server } = connected();
  const slept = sleep();
  vi.advanceTimersByTime(120_000);
  slept(3_600_000);
  vi.advanceTimersByTime(30_000 + 4_999);
  expect(socket.state).toBe("connected");
  vi.advanceTimersByTime(1);
  expect([socket.state, server.closedWith]).toEqual(["connecting", 4201]);
});

test("socket:connected may be handled after a connect timeout that fires late", () => {
  const fake = new Fake();
  const socket = fake.client();
  const slept = sleep();
  slept(60_000);
  vi.advanceTimersByTime(10_000);
  fake.last.connected();
  vi.advanceTimersByTime(20_000);
  expect([socket.state, fake.sockets.length]).toEqual(["connected", 1]);
});

/**
 * The timers of a hidden page in Chromium: they fire at whole seconds, and from the fifth timer of a chain on, each set by the
 * one before, at whole minutes. A timer that is set while a message is handled starts a new chain.
 */
function hidePage() {
  const { setTimeout: schedule, clearTimeout: cancel } = globalThis;
  let depth = 0;
  const set = (callback: () => void, ms = 0, level = depth) => {
    const due = performance.now() + ms;
    const step = level >= 5 ? 60_000 : 1_000;
    return schedule(
      () => {
        depth = level + 1;
        callback();
        depth = 0;
      },
      Math.ceil(due / step) * step - performance.now(),
    );
  };
  vi.stubGlobal("setTimeout", set);
  vi.stubGlobal("setInterval", (callback: () => void, ms: number) => {
    const handle = { timer: undefined as any };
    const repeat = (level: number) => {
      handle.timer = set(() => (repeat(level + 1), callback()), ms, level);
    };
    repeat(depth);
    return handle;
  });
  vi.stubGlobal("clearInterval", (handle: any) => cancel(handle?.timer));
  return schedule;
}

test.each([
  [30, 25],
  [120, 30],
  [55, 3],
  [20, 60],
  [5, 2],
  [2, 2],
  [3_600, 10],
])("a hidden page keeps a healthy connection: interval %i s, timeout %i s", (interval, timeout) => {
  const unthrottled = hidePage();
  const { fake, socket, server } = connected({ interval, timeout });
  // The server closes a connection that is silent for longer than interval + timeout. It does not ping.
  let pings = 0;
  let heard = 0;
  for (let now = 0; now < Math.max(3_600, interval * 2); now += 0.5) {
    vi.advanceTimersByTime(500);
    const said = server.sent.slice(pings);
    if (said.length > 0) heard = now;
    for (const { data } of said) unthrottled(() => server.say("socket:pong", { data: { reply: data.id } }), 50);
    pings = server.sent.length;
    expect(now - heard, `silent at ${now} s`).toBeLessThanOrEqual(interval + timeout);
  }
  expect([socket.state, fake.sockets.length, server.closedWith]).toEqual(["connected", 1, undefined]);
});
