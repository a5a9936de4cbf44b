import { expect, expectTypeOf, test, vi } from "vitest";
import { type Channel, CorecastError } from "../../src/index.js";
import { Fake } from "./fake.js";

function connected() {
  const fake = new Fake();
  const socket = fake.client();
  fake.last.connected();
  return { fake, socket, server: fake.last };
}

test("subscribed resolves with the server's reply, and messages reach the handlers of their event", async () => {
  const { socket, server } = connected();
  const channel = socket.subscribe<{ "order.paid": { id: number } }>("user:13");
  const seen: unknown[] = [];
  channel.bind("order.paid", (data, message) => seen.push(data.id, message));
  channel.on("socket:subscribed", () => seen.push("live"));
  expect(server.sent).toEqual([{ event: "socket:subscribe", data: { channel: "user:13" } }]);
  server.say("socket:subscribed", { channel: "user:13" });
  await channel.subscribed;
  server.say("order.paid", { channel: "user:13", data: { id: 42 } });
  server.say("order.gone", { channel: "user:13" });
  server.say("order.paid", { channel: "user:14", data: { id: 43 } });
  expect(seen).toEqual(["live", 42, { event: "order.paid", channel: "user:13", data: { id: 42 } }]);
});

test("events are typed", () => {
  const { socket } = connected();
  const channel = socket.subscribe<{ "order.paid": { id: number } }>("user:13");
  channel.bind("order.paid", (data) => expectTypeOf(data).toEqualTypeOf<{ id: number }>());
  channel.bind("socket:subscribe.error", (error) => expectTypeOf(error).toEqualTypeOf<CorecastError>());
  // @ts-expect-error no such event
  channel.bind("order.lost", () => {});
  socket.subscribe("any").bind("whatever", (data) => expectTypeOf(data).toBeAny());
  socket.on("state_change", ({ current }) => expectTypeOf(current).toExtend<string>());
  expectTypeOf(channel).toExtend<Channel<{ "order.paid": { id: number } }>>();
});

test("subscribing again gives the same channel and sends nothing", () => {
  const { socket, server } = connected();
  expect(socket.subscribe("a")).toBe(socket.subscribe("a"));
  server.say("socket:subscribed", { channel: "a" });
  socket.subscribe("a");
  expect(server.names("socket:subscribe")).toEqual(["a"]);
  expect(socket.channels().map((channel) => channel.name)).toEqual(["a"]);
});

test("unbind removes one handler, one event, or everything; bindAll hears everything", () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  const [one, two, all] = [vi.fn(), vi.fn(), vi.fn()];
  channel.bind("x", one).bind("x", two).bindAll(all);
  server.say("socket:subscribed", { channel: "a" });
  server.say("x", { channel: "a", data: 1 });
  channel.unbind("x", one);
  server.say("x", { channel: "a", data: 2 });
  channel.unbind("x");
  server.say("x", { channel: "a", data: 3 });
  channel.unbind();
  server.say("x", { channel: "a", data: 4 });
  expect(one.mock.calls.map(([data]) => data)).toEqual([1]);
  expect(two.mock.calls.map(([data]) => data)).toEqual([1, 2]);
  expect(all.mock.calls.map(([event, data]) => [event, data])).toEqual([
    ["socket:subscribed", undefined],
    ["x", 1],
    ["x", 2],
    ["x", 3],
  ]);
});

test("a handler that throws keeps neither the others nor the connection from working", () => {
  vi.useFakeTimers();
  const { socket, server } = connected();
  const after = vi.fn();
  socket.subscribe("a").bind("x", () => {
    throw new Error("of the application");
  });
  socket.subscribe("a").bind("x", after);
  server.say("socket:subscribed", { channel: "a" });
  server.say("x", { channel: "a" });
  expect(after).toHaveBeenCalledTimes(1);
  expect(() => vi.runOnlyPendingTimers()).toThrow("of the application"); // uncaught, where tools see it
  vi.useRealTimers();
});

test("a refusal rejects with the server's code, and subscribing again tries again", async () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("presence-x");
  const told = vi.fn();
  channel.bind("socket:subscribe.error", told);
  server.say("socket:subscribe.error", { channel: "presence-x", data: { error: "no", code: "invalid_channel" } });
  await expect(channel.subscribed).rejects.toMatchObject({ name: "CorecastError", code: "invalid_channel", message: "no" });
  expect(channel.state).toBe("failed");
  expect(told).toHaveBeenCalledTimes(1);
  expect(socket.subscribe("presence-x")).toBe(channel);
  server.say("socket:subscribed", { channel: "presence-x" });
  await channel.subscribed;
});

test("rate_limited is tried again", async () => {
  vi.useFakeTimers();
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  server.say("socket:subscribe.error", { channel: "a", data: { error: "slow down", code: "rate_limited" } });
  expect(channel.state).toBe("subscribing");
  vi.advanceTimersByTime(1_000);
  expect(server.names("socket:subscribe")).toEqual(["a", "a"]);
  server.say("socket:subscribed", { channel: "a" });
  await channel.subscribed;
  vi.useRealTimers();
});

test("replies pair by channel, whatever else is in flight", async () => {
  const { socket, server } = connected();
  const [a, b, c] = ["a", "b", "c"].map((name) => socket.subscribe(name));
  server.say("socket:subscribed", { channel: "a" });
  server.say("socket:subscribe.error", { channel: "b", data: { error: "no", code: "too_many_subscriptions" } });
  server.say("socket:subscribed", { channel: "c" });
  await Promise.all([a!.subscribed, c!.subscribed]);
  await expect(b!.subscribed).rejects.toMatchObject({ code: "too_many_subscriptions" });
});

test("replies without a channel, as in the founding document, pair in order", async () => {
  const { socket, server } = connected();
  const [a, b] = ["a", "b"].map((name) => socket.subscribe(name));
  server.say("socket:subscribed");
  const left = a!.unsubscribe();
  server.say("socket:subscribe.error", { data: { error: "no" } });
  server.say("socket:unsubscribed");
  await left;
  await expect(b!.subscribed).rejects.toMatchObject({ message: "no" });
});

test("nothing of a channel that was left reaches its handlers, nor those of its successor before its own reply", async () => {
  const { socket, server } = connected();
  const first = socket.subscribe("a");
  const [old, fresh] = [vi.fn(), vi.fn()];
  first.bind("x", old);
  server.say("socket:subscribed", { channel: "a" });
  const left = first.unsubscribe();
  server.say("x", { channel: "a", data: "on its way" });
  const second = socket.subscribe("a").bind("x", fresh);
  expect(second).not.toBe(first);
  server.say("x", { channel: "a", data: "still on its way" });
  expect(server.names("socket:subscribe")).toEqual(["a"]); // waits for the reply to unsubscribe
  server.say("socket:unsubscribed", { channel: "a" });
  await left;
  server.say("socket:subscribed", { channel: "a" });
  server.say("x", { channel: "a", data: "new" });
  expect(old).not.toHaveBeenCalled();
  expect(fresh.mock.calls.map(([data]) => data)).toEqual(["new"]);
});

test("a handler that leaves the channel is the last one called", () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  const next = vi.fn();
  channel.bind("x", () => void channel.unsubscribe()).bind("x", next);
  server.say("socket:subscribed", { channel: "a" });
  server.say("x", { channel: "a" });
  expect(next).not.toHaveBeenCalled();
});

test("leaving and coming back while the subscribe is in flight costs no request", async () => {
  const { socket, server } = connected();
  const first = socket.subscribe("a");
  void first.unsubscribe();
  const second = socket.subscribe("a");
  await expect(first.subscribed).rejects.toMatchObject({ code: "unsubscribed" });
  server.say("socket:subscribed", { channel: "a" });
  await second.subscribed;
  expect(server.sent).toHaveLength(1);
});

test("leaving before the reply unsubscribes after it", async () => {
  const { socket, server } = connected();
  const left = socket.subscribe("a").unsubscribe();
  expect(server.sent).toHaveLength(1);
  server.say("socket:subscribed", { channel: "a" });
  expect(server.names("socket:unsubscribe")).toEqual(["a"]);
  server.say("socket:unsubscribed", { channel: "a" });
  await left;
  expect(socket.channel("a")).toBeUndefined();
});

test("the server ends a subscription: told, silent, and not asked for until the application does", async () => {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("a");
  const [ended, message] = [vi.fn(), vi.fn()];
  channel.bind("socket:unsubscribed", ended).bind("x", message);
  server.say("socket:subscribed", { channel: "a" });
  server.say("socket:unsubscribed", { channel: "a" });
  server.say("x", { channel: "a" });
  expect([ended.mock.calls.length, message.mock.calls.length, channel.state]).toEqual([1, 0, "unsubscribed"]);
  socket.disconnect();
  void socket.connect();
  fake.last.connected();
  expect(fake.last.sent).toEqual([]);
  expect(socket.subscribe("a")).toBe(channel);
  fake.last.say("socket:subscribed", { channel: "a" });
  await channel.subscribed;
});

test("the server ends a subscription while the client leaves and comes back: the late refusal is nobody's", async () => {
  const { socket, server } = connected();
  const first = socket.subscribe("a");
  server.say("socket:subscribed", { channel: "a" });
  void first.unsubscribe();
  const second = socket.subscribe("a");
  server.say("socket:unsubscribed", { channel: "a" }); // of the server's own accord
  server.say("socket:unsubscribe.error", { channel: "a", data: { error: "…", code: "not_subscribed" } });
  expect(server.names("socket:subscribe")).toEqual(["a", "a"]);
  server.say("socket:subscribed", { channel: "a" });
  await second.subscribed;
});

test("an unsubscribe that the server will not take now leaves the channel live for whoever comes back", async () => {
  vi.useFakeTimers();
  const { socket, server } = connected();
  const first = socket.subscribe("a");
  server.say("socket:subscribed", { channel: "a" });
  void first.unsubscribe();
  server.say("socket:unsubscribe.error", { channel: "a", data: { error: "slow down", code: "rate_limited" } });
  const second = socket.subscribe("a");
  await second.subscribed;
  vi.advanceTimersByTime(30_000);
  expect(server.sent.filter(({ event }) => event !== "socket:ping")).toHaveLength(2);
  vi.useRealTimers();
});

test("socket:error and what is no message are reported, and change nothing", () => {
  const { socket, server } = connected();
  const errors: string[] = [];
  socket.on("error", ({ code }) => errors.push(code));
  server.say("socket:error", { data: { error: "unknown event", code: "unknown_event" } });
  for (const data of ["{", "null", "[]", '"x"', new ArrayBuffer(1)]) server.onmessage!({ data });
  server.say("socket:of.tomorrow");
  expect(errors).toEqual(["unknown_event", ...Array(5).fill("malformed_message")]);
  expect(socket.state).toBe("connected");
});

test("a request that was in flight when the connection ended pairs with no reply of the next one", async () => {
  const { fake, socket } = connected();
  void socket.subscribe("a").unsubscribe();
  socket.disconnect();
  void socket.connect();
  const b = socket.subscribe("b");
  fake.last.connected();
  fake.last.say("socket:subscribed");
  await b.subscribed;
});
