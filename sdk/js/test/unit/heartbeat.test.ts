import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Fake } from "./fake.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

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

test("heart of socket:connected wins", () => {
  const { socket, pings } = connected({ interval: 30, timeout: 25 });
  vi.advanceTimersByTime(30_000);
  expect(pings()).toEqual([1]);
  vi.advanceTimersByTime(24_999);
  expect(socket.state).toBe("connected");
  vi.advanceTimersByTime(1);
  expect(socket.state).toBe("connecting");
});

test("a heart that makes no sense leaves the defaults", () => {
  const { pings } = connected({ interval: 0, timeout: "x" });
  vi.advanceTimersByTime(119_999);
  expect(pings()).toEqual([]);
});

test("neither messages nor the pong of an earlier ping stand in for the pong that is due", () => {
  const { socket, server } = connected({ interval: 10, timeout: 5 });
  vi.advanceTimersByTime(10_000);
  server.say("socket:pong", { data: { reply: 1 } });
  vi.advanceTimersByTime(10_000);
  server.say("socket:pong", { data: { reply: 1 } });
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
