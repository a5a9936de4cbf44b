/** Channels with history: positions, recovery, gaps, and the one event on which an application loads its state. */
import { afterEach, beforeEach, expect, expectTypeOf, onTestFinished, test, vi } from "vitest";
import type { Channel, Position } from "../../src/index.js";
import { Fake, type FakeSocket } from "./fake.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function connected() {
  const fake = new Fake();
  const socket = fake.client();
  onTestFinished(() => socket.disconnect());
  fake.last.connected("s1");
  return { fake, socket, server: fake.last };
}

/** What a channel is told: `load`, or the data of each message `n`. */
function record(channel: Channel): unknown[] {
  const seen: unknown[] = [];
  channel.bind("socket:load", () => seen.push("load")).bind("n", (n) => seen.push(n));
  return seen;
}

/** The connection ends, and the next one is up. */
function reconnect(fake: Fake, id: string): FakeSocket {
  fake.last.end(4200);
  vi.advanceTimersByTime(20_000);
  fake.last.connected(id);
  return fake.last;
}

const at = (epoch: string, offset: number, members: object = {}) => ({ channel: "a", data: { epoch, offset, ...members } });
const message = (n: number) => ["n", { channel: "a", data: n, offset: n }] as const;
const since = (server: FakeSocket) => server.sent.filter(({ event }) => event === "socket:subscribe").map(({ data }) => data.since);

test("the position follows the messages, and a reconnect asks for what follows it, with the id of the earlier connection", () => {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("a");
  const seen = record(channel);
  expect(channel.position).toBeUndefined();
  server.say("socket:subscribed", at("e", 5));
  expect(channel.position).toEqual({ epoch: "e", offset: 5, socket_id: "s1" });
  server.say(...message(7));
  server.say("n", { channel: "a", data: "of a client" }); // no offset
  server.say(...message(9));
  expect(channel.position).toEqual({ epoch: "e", offset: 9, socket_id: "s1" });
  expect(since(server)).toEqual([undefined]);
  const next = reconnect(fake, "s2");
  expect(since(next)).toEqual([{ epoch: "e", offset: 9, socket_id: "s1" }]);
  next.say("socket:subscribed", at("e", 11, { recovered: true }));
  expect(channel.position).toEqual({ epoch: "e", offset: 9, socket_id: "s1" });
  for (const n of [10, 11, 14]) next.say(...message(n));
  expect(seen).toEqual(["load", 7, "of a client", 9, 10, 11, 14]);
  expect(since(reconnect(fake, "s3"))).toEqual([{ epoch: "e", offset: 14, socket_id: "s2" }]);
});

test("the id of the earlier connection is sent until all that was missed has arrived", () => {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("a");
  const seen = record(channel);
  server.say("socket:subscribed", at("e", 5));
  const second = reconnect(fake, "s2");
  second.say("socket:subscribed", at("e", 8, { recovered: true }));
  second.say(...message(6)); // and the connection ends before 7
  const third = reconnect(fake, "s3");
  expect(since(third)).toEqual([{ epoch: "e", offset: 6, socket_id: "s1" }]);
  third.say("socket:subscribed", at("e", 8, { recovered: true }));
  third.say(...message(7)); // 8 was published with `exclude` of s1
  expect(channel.position).toEqual({ epoch: "e", offset: 7, socket_id: "s1" });
  third.say("socket:ping");
  expect(channel.position).toEqual({ epoch: "e", offset: 8, socket_id: "s3" });
  third.say(...message(9));
  expect(channel.position).toEqual({ epoch: "e", offset: 9, socket_id: "s3" });
  expect(seen).toEqual(["load", 6, 7, 9]);
});

test("a message at or below the position is dropped, also for bindGlobal; a message without an offset is not", () => {
  const { socket, server } = connected();
  const seen = record(socket.subscribe("a"));
  const heard: unknown[] = [];
  socket.bindGlobal((_, data) => heard.push(data));
  server.say("socket:subscribed", at("e", 5));
  for (const n of [4, 5, 6, 6, 3, 8]) server.say(...message(n));
  server.say("n", { channel: "a", data: "plain" });
  expect(seen).toEqual(["load", 6, 8, "plain"]);
  expect(heard).toEqual([6, 8, "plain"]);
});

test("the position moves on after the handlers, of the channel and of bindGlobal, also if one of them throws", () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  const seen: unknown[] = [];
  channel.bind("n", () => void seen.push(channel.position?.offset));
  channel.bind("n", () => {
    throw new Error("of the application");
  });
  socket.bindGlobal(() => seen.push(channel.position?.offset));
  server.say("socket:subscribed", at("e", 5));
  server.say(...message(6));
  expect([seen, channel.position?.offset]).toEqual([[5, 5], 6]);
  expect(() => vi.runOnlyPendingTimers()).toThrow("of the application");
});

test("a promise that a handler returns is not awaited", () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a").bind("n", () => new Promise(() => {}));
  server.say("socket:subscribed", at("e", 5));
  server.say(...message(6));
  expect(channel.position?.offset).toBe(6);
});

test("a message whose handler disconnects has been handled", () => {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("a").bind("n", () => socket.disconnect());
  server.say("socket:subscribed", at("e", 5));
  server.say(...message(6));
  void socket.connect();
  fake.last.connected("s2");
  expect([channel.position?.offset, since(fake.last)]).toEqual([6, [{ epoch: "e", offset: 6, socket_id: "s1" }]]);
});

test("a handler that handles a later message leaves the later position", () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a").bind("n", (n) => n === 6 && server.say(...message(7)));
  server.say("socket:subscribed", at("e", 5));
  server.say(...message(6));
  expect(channel.position?.offset).toBe(7);
});

test("position is a copy", () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  server.say("socket:subscribed", at("e", 5));
  channel.position!.offset = 1_000;
  expectTypeOf(channel.position).toEqualTypeOf<Position | undefined>();
  expect(channel.position?.offset).toBe(5);
});

test.each([
  ["not recovered", at("e", 50, { recovered: false }), { epoch: "e", offset: 50, socket_id: "s2" }],
  ["not recovered, to a smaller offset", at("e", 3, { recovered: false }), { epoch: "e", offset: 3, socket_id: "s2" }],
  ["another epoch", at("f", 2, { recovered: false }), { epoch: "f", offset: 2, socket_id: "s2" }],
  ["another epoch, whatever the server says", at("f", 2, { recovered: true }), { epoch: "f", offset: 2, socket_id: "s2" }],
  ["no history any more", { channel: "a", data: { recovered: false } }, undefined],
  ["no data", { channel: "a" }, undefined],
] as const)("%s: the position is that of the reply, and the application is told to load", (_, reply, position) => {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("a");
  const seen = record(channel);
  server.say("socket:subscribed", at("e", 5));
  server.say(...message(6));
  const next = reconnect(fake, "s2");
  next.say("socket:subscribed", reply);
  expect([seen, channel.position]).toEqual([["load", 6, "load"], position]);
  const first = (position?.offset ?? 0) + 1;
  next.say(...message(first));
  expect(seen.at(-1)).toBe(first);
  expect(since(reconnect(fake, "s3"))).toEqual([position && { ...position, offset: first }]);
});

test("without history each subscription loads, and says that nothing was recovered", () => {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("a");
  const told: unknown[] = [];
  channel.bindAll((event, data) => told.push([event, data]));
  server.say("socket:subscribed", { channel: "a" });
  reconnect(fake, "s2").say("socket:subscribed", { channel: "a" });
  expect(told).toEqual(Array(2).fill([["socket:subscribed", { recovered: false }], ["socket:load", undefined]]).flat());
  expect(channel.position).toBeUndefined();
});

test("recovered: the application is told, and does not load", () => {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("a");
  const told: unknown[] = [];
  server.say("socket:subscribed", at("e", 5));
  channel.bindAll((event, data) => told.push([event, data]));
  reconnect(fake, "s2").say("socket:subscribed", at("e", 5, { recovered: true }));
  expect(told).toEqual([["socket:subscribed", { recovered: true }]]);
});

test("the greeting follows the first subscription, and again where it was not received", () => {
  const { fake, socket, server } = connected();
  const seen = record(socket.subscribe("a"));
  server.say("socket:subscribed", at("e", 4)); // one less than that of the greeting
  const next = reconnect(fake, "s2");
  expect(since(next)).toEqual([{ epoch: "e", offset: 4, socket_id: "s1" }]);
  next.say("socket:subscribed", at("e", 5, { recovered: true }));
  next.say(...message(5));
  expect(seen).toEqual(["load", 5]);
});

test("a retried subscribe is sent with the position, too; unavailable is retried, malformed_since is final", async () => {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("a");
  server.say("socket:subscribed", at("e", 5));
  const next = reconnect(fake, "s2");
  next.say("socket:subscribe.error", { channel: "a", data: { error: "…", code: "unavailable" } });
  vi.advanceTimersByTime(1_000);
  expect(since(next)).toEqual(Array(2).fill({ epoch: "e", offset: 5, socket_id: "s1" }));
  next.say("socket:subscribe.error", { channel: "a", data: { error: "…", code: "malformed_since" } });
  await expect(channel.subscribed).rejects.toMatchObject({ code: "malformed_since" });
});

test("a position of the application: everything after it follows, without a load", () => {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("a", { since: { epoch: "e", offset: 5, history: "is left out" } as Position });
  const seen = record(channel);
  expect(since(server)).toEqual([{ epoch: "e", offset: 5 }]);
  server.say("socket:subscribed", at("e", 7, { recovered: true }));
  for (const n of [6, 7, 8]) server.say(...message(n));
  expect([seen, channel.position]).toEqual([[6, 7, 8], { epoch: "e", offset: 8, socket_id: "s1" }]);
  reconnect(fake, "s2").say("socket:subscribed", at("e", 9, { recovered: false }));
  expect(seen).toEqual([6, 7, 8, "load"]);
});

test("a position of the application that cannot be recovered: a load", () => {
  const { socket, server } = connected();
  const seen = record(socket.subscribe("a", { since: { epoch: "d", offset: 5, socket_id: "s0" } }));
  expect(since(server)).toEqual([{ epoch: "d", offset: 5, socket_id: "s0" }]);
  server.say("socket:subscribed", at("e", 7, { recovered: false }));
  expect(seen).toEqual(["load"]);
});

test.each([null, undefined, {} as Position])("a position of the application that is %o is none", (none) => {
  const { socket, server } = connected();
  const seen = record(socket.subscribe("a", { since: none as Position }));
  expect(server.sent.at(-1)?.data).toEqual({ channel: "a" });
  server.say("socket:subscribed", at("e", 7));
  expect(seen).toEqual(["load"]);
});

test("a further reference loads, whatever its position, and takes nothing from the others", () => {
  const { fake, socket, server } = connected();
  const first = record(socket.subscribe("a"));
  server.say("socket:subscribed", at("e", 5));
  const next = reconnect(fake, "s2");
  const second = record(socket.subscribe("a", { since: { epoch: "e", offset: 1 } }));
  expect(since(next)).toEqual([{ epoch: "e", offset: 5, socket_id: "s1" }]);
  next.say("socket:subscribed", at("e", 6, { recovered: true }));
  next.say(...message(6));
  expect([first, second]).toEqual([["load", 6], ["load", 6]]);
});

test("a reference to a live channel loads once its handlers are bound", async () => {
  const { socket, server } = connected();
  socket.subscribe("a");
  server.say("socket:subscribed", at("e", 5));
  const late = socket.subscribe("a");
  const seen = record(late);
  expect(seen).toEqual([]);
  await late.subscribed;
  expect([seen, late.position?.offset]).toEqual([["load"], 5]);
});

test("the position ends with the last reference: the next one gets no replay", () => {
  const { socket, server } = connected();
  const first = socket.subscribe("a");
  server.say("socket:subscribed", at("e", 5));
  void first.unsubscribe();
  const seen = record(socket.subscribe("a"));
  server.say("socket:unsubscribed", { channel: "a" });
  expect(since(server)).toEqual([undefined, undefined]);
  server.say("socket:subscribed", at("e", 8));
  expect(seen).toEqual(["load"]);
});

test("a replay that was requested for released references reaches no other: those load", () => {
  const { fake, socket, server } = connected();
  const first = socket.subscribe("a");
  server.say("socket:subscribed", at("e", 5));
  const next = reconnect(fake, "s2");
  void first.unsubscribe();
  const fresh = socket.subscribe("a");
  const seen = record(fresh);
  next.say("socket:subscribed", at("e", 7, { recovered: true }));
  for (const n of [6, 7, 8]) next.say(...message(n));
  expect([seen, fresh.position?.offset]).toEqual([["load", 8], 8]);
});

test("a position that the application brings while another one is on its way is not recovered: a load", () => {
  const { fake, socket, server } = connected();
  const first = socket.subscribe("a");
  server.say("socket:subscribed", at("e", 5));
  const next = reconnect(fake, "s2");
  void first.unsubscribe();
  const seen = record(socket.subscribe("a", { since: { epoch: "e", offset: 2 } }));
  next.say("socket:subscribed", at("e", 7, { recovered: true }));
  for (const n of [6, 7, 8]) next.say(...message(n));
  expect(seen).toEqual(["load", 8]);
});

test("a channel that failed goes on from its position when it is subscribed again", () => {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("a");
  const seen = record(channel);
  server.say("socket:subscribed", at("e", 5));
  const next = reconnect(fake, "s2");
  next.say("socket:subscribe.error", { channel: "a", data: { error: "…", code: "auth_required" } });
  expect(channel.state).toBe("failed");
  const again = record(socket.subscribe("a"));
  next.say("socket:subscribed", at("e", 6, { recovered: true }));
  next.say(...message(6));
  expect([seen, again]).toEqual([["load", 6], ["load", 6]]);
});

test("an unsubscribe that is refused leaves a channel whose position is unknown: a load", async () => {
  const { fake, socket } = connected();
  const first = socket.subscribe("a");
  fake.last.say("socket:subscribed", at("e", 5));
  const server = reconnect(fake, "s2");
  server.say("socket:subscribed", at("e", 5, { recovered: true }));
  void first.unsubscribe();
  const second = socket.subscribe("a", { since: { epoch: "e", offset: 5 } });
  const seen = record(second);
  server.say(...message(6)); // dropped: the new reference is not live yet
  server.say("socket:unsubscribe.error", { channel: "a", data: { error: "slow down", code: "rate_limited" } });
  await second.subscribed;
  server.say(...message(7));
  expect([seen, second.position]).toEqual([["load", 7], undefined]);
  expect(since(reconnect(fake, "s3"))).toEqual([undefined]);
});

test("large offsets stay exact, also where parse makes them something else", () => {
  const fake = new Fake();
  const socket = fake.client({ parse: (text) => JSON.parse(text, (_, value) => (value > 1e15 ? BigInt(value) : value)) });
  onTestFinished(() => socket.disconnect());
  fake.last.connected("s1");
  const channel = socket.subscribe("a");
  const last = 2 ** 53 - 1;
  fake.last.say("socket:subscribed", at("e", last - 1));
  fake.last.say(...message(last));
  expect(channel.position?.offset).toBe(last);
  expect(since(reconnect(fake, "s2"))).toEqual([{ epoch: "e", offset: last, socket_id: "s1" }]);
});

test("a gap: the position is the server's, and the load follows after a random time of at most 5 s", () => {
  const random = vi.spyOn(Math, "random").mockReturnValue(0.5);
  onTestFinished(() => random.mockRestore());
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  const seen = record(channel);
  server.say("socket:subscribed", at("e", 5));
  server.say("socket:gap", at("e", 3));
  expect(channel.position).toEqual({ epoch: "e", offset: 3, socket_id: "s1" });
  server.say(...message(4));
  vi.advanceTimersByTime(1_000);
  const timers = vi.getTimerCount();
  server.say("socket:gap", at("f", 2)); // one load for both
  expect(vi.getTimerCount()).toBe(timers);
  server.say(...message(3));
  vi.advanceTimersByTime(1_499);
  expect(seen).toEqual(["load", 4, 3]);
  vi.advanceTimersByTime(1);
  expect(seen).toEqual(["load", 4, 3, "load"]);
  vi.advanceTimersByTime(10_000);
  server.say("socket:gap", { channel: "a" }); // no history any more
  expect(channel.position).toBeUndefined();
  random.mockReturnValue(0.999);
  vi.advanceTimersByTime(5_000);
  expect(seen).toEqual(["load", 4, 3, "load", "load"]);
});

test("a gap that the connection does not outlive: the next subscription loads, recovered or not, and once", () => {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("a");
  const told: unknown[] = [];
  server.say("socket:subscribed", at("e", 5));
  channel.bindAll((event, data) => told.push([event, data]));
  server.say("socket:gap", at("e", 3));
  const next = reconnect(fake, "s2");
  expect(told).toEqual([]);
  next.say("socket:subscribed", at("e", 3, { recovered: true }));
  vi.advanceTimersByTime(10_000);
  expect(told).toEqual([["socket:subscribed", { recovered: false }], ["socket:load", undefined]]);
});

test("a gap that disconnect follows keeps no timer", () => {
  const { socket, server } = connected();
  socket.subscribe("a");
  server.say("socket:subscribed", at("e", 5));
  server.say("socket:gap", at("e", 3));
  socket.disconnect();
  expect(vi.getTimerCount()).toBe(0);
});

test("a gap concerns no reference that is subscribed later", () => {
  const { socket, server } = connected();
  const first = socket.subscribe("a");
  server.say("socket:subscribed", at("e", 5));
  server.say("socket:gap", at("e", 3));
  void first.unsubscribe();
  server.say("socket:gap", at("e", 4));
  const second = record(socket.subscribe("a"));
  vi.advanceTimersByTime(10_000);
  expect(second).toEqual([]);
  server.say("socket:unsubscribed", { channel: "a" });
  expect(since(server)).toEqual([undefined, undefined]);
  server.say("socket:subscribed", at("e", 5));
  expect(second).toEqual(["load"]);
});

test("a gap of a channel that is not subscribed, or not any more, is nothing", () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  const seen = record(channel);
  server.say("socket:gap", at("e", 3));
  server.say("socket:gap", at("e", 3, { channel: "b" }));
  server.say("socket:subscribed", at("e", 5));
  server.say("socket:gap", at("e", 3));
  void channel.unsubscribe();
  vi.advanceTimersByTime(10_000);
  expect(seen).toEqual(["load"]);
});
