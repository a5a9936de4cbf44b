/** Members of a channel, and client events. */
import { expect, expectTypeOf, onTestFinished, test, vi } from "vitest";
import type { Channel, Member, Presence } from "../../src/index.js";
import { Fake } from "./fake.js";

function connected() {
  const fake = new Fake();
  const socket = fake.client({ auth: ({ channel }) => ({ auth: `k:${channel}`, channel_data: '{"user_id":"1"}' }) });
  onTestFinished(() => socket.disconnect());
  fake.last.connected("s1");
  return { fake, socket, server: fake.last };
}

const [ann, bob, cy] = ["Ann", "Bob", "Cy"].map((name, n) => ({ user_id: `${n + 1}`, user_info: { name } })) as [
  Member, Member, Member,
];
const snapshot = (...members: Member[]) => ({ channel: "presence-x", data: { presence: { count: members.length, members } } });

async function subscribed(first = snapshot(ann, bob)) {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("presence-x");
  const told: unknown[] = [];
  channel.bindAll((event, data) => event !== "socket:load" && told.push([event.slice(7), data]));
  await vi.waitFor(() => expect(server.names("socket:subscribe")).toHaveLength(1));
  server.say("socket:subscribed", first);
  return { fake, socket, server, channel, told };
}

test("presence channels are signed, with channel_data", async () => {
  const { server } = await subscribed();
  expect(server.sent).toEqual([
    { event: "socket:subscribe", data: { channel: "presence-x", auth: "k:presence-x", channel_data: '{"user_id":"1"}' } },
  ]);
});

test("members are known with the subscription, in order of joining, and each change is told", async () => {
  const { server, channel, told } = await subscribed();
  expect([channel.members, channel.count]).toEqual([[ann, bob], 2]);
  const before = channel.members;
  server.say("socket:member_added", { channel: "presence-x", data: cy });
  expect([channel.members, channel.count, before]).toEqual([[ann, bob, cy], 3, [ann, bob]]);
  server.say("socket:member_removed", { channel: "presence-x", data: { user_id: "1" } });
  expect([channel.members, channel.count]).toEqual([[bob, cy], 2]);
  expect(told).toEqual([
    ["subscribed", { recovered: false }],
    ["presence", { count: 2, members: [ann, bob] }],
    ["member_added", cy],
    ["presence", { count: 3, members: [ann, bob, cy] }],
    ["member_removed", ann], // with what was known
    ["presence", { count: 2, members: [bob, cy] }],
  ]);
  expect(channel.members).toBe(channel.members); // the same array until something changes
});

test("a member that is added twice is there once; one that is not there can be removed", async () => {
  const { server, channel, told } = await subscribed();
  told.length = 0;
  server.say("socket:member_added", { channel: "presence-x", data: { user_id: "1", user_info: { name: "Anna" } } });
  server.say("socket:member_removed", { channel: "presence-x", data: { user_id: "9" } });
  expect(channel.members).toEqual([bob, { user_id: "1", user_info: { name: "Anna" } }]);
  expect(told.filter(([event]: any) => event !== "presence")).toEqual([
    ["member_added", { user_id: "1", user_info: { name: "Anna" } }],
    ["member_removed", { user_id: "9" }],
  ]);
});

test("a reconnect brings the members anew, and keeps the last known ones until then", async () => {
  const { fake, channel, told } = await subscribed();
  fake.last.end(4200);
  await vi.waitFor(() => expect(fake.sockets).toHaveLength(2));
  fake.last.connected("s2");
  expect([channel.state, channel.members]).toEqual(["subscribing", [ann, bob]]);
  await vi.waitFor(() => expect(fake.last.names("socket:subscribe")).toHaveLength(1));
  fake.last.say("socket:subscribed", snapshot(bob, cy));
  expect([channel.members, told.at(-1)]).toEqual([[bob, cy], ["presence", { count: 2, members: [bob, cy] }]]);
});

test("only a number, where the server tells no names", async () => {
  const { server, channel, told } = await subscribed({ channel: "presence-x", data: { presence: { count: 7 } } } as any);
  server.say("socket:presence", { channel: "presence-x", data: { count: 9 } });
  expect([channel.count, channel.members]).toEqual([9, []]);
  expect(told).toEqual([
    ["subscribed", { recovered: false }],
    ["presence", { count: 7, members: [] }],
    ["presence", { count: 9, members: [] }],
  ]);
});

test("a channel without presence has no members and no number", async () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  const told = vi.fn();
  channel.bind("socket:presence", told);
  server.say("socket:subscribed", { channel: "a" });
  expect([channel.members, channel.count, told.mock.calls]).toEqual([[], undefined, []]);
  expect(channel.members).toBe(channel.members);
});

test("a further reference has the same members, and is told them", async () => {
  const { socket, server, channel } = await subscribed();
  const late = socket.subscribe("presence-x");
  const told = vi.fn();
  late.bind("socket:presence", told);
  await late.subscribed;
  server.say("socket:member_added", { channel: "presence-x", data: cy });
  expect(late.members).toBe(channel.members);
  expect(told.mock.calls.map(([data]) => data.count)).toEqual([2, 3]);
});

test("members stay right while an unsubscribe is on its way and then refused", async () => {
  const { socket, server, channel } = await subscribed();
  void channel.unsubscribe();
  server.say("socket:member_removed", { channel: "presence-x", data: { user_id: "2" } });
  const second = socket.subscribe("presence-x");
  server.say("socket:unsubscribe.error", { channel: "presence-x", data: { error: "…", code: "rate_limited" } });
  await second.subscribed;
  expect([second.members, second.count]).toEqual([[ann], 1]);
});

test("presence events of a channel that is not subscribed are nothing", () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  server.say("socket:member_added", { channel: "a", data: ann });
  server.say("socket:member_added", { channel: "b", data: ann });
  expect([channel.members, socket.state]).toEqual([[], "connected"]);
});

test("a full channel is tried again; refused data is final", async () => {
  const { server, channel } = await (async () => {
    const { socket, server } = connected();
    const channel = socket.subscribe("presence-x");
    await vi.waitFor(() => expect(server.names("socket:subscribe")).toHaveLength(1));
    return { server, channel };
  })();
  server.say("socket:subscribe.error", { channel: "presence-x", data: { error: "…", code: "presence_full" } });
  expect(channel.state).toBe("subscribing");
  await vi.waitFor(() => expect(server.names("socket:subscribe")).toHaveLength(2), 5_000);
  server.say("socket:subscribe.error", { channel: "presence-x", data: { error: "…", code: "invalid_data" } });
  await expect(channel.subscribed).rejects.toMatchObject({ code: "invalid_data" });
});

test("trigger sends a client event while the channel is live, and says whether it did", () => {
  const { fake, socket, server } = connected();
  const channel = socket.subscribe("a");
  expect(channel.trigger("client-typing", { on: true })).toBe(false);
  server.say("socket:subscribed", { channel: "a" });
  expect([channel.trigger("client-typing", { on: true }), channel.trigger("client-nothing")]).toEqual([true, true]);
  expect(server.sent.slice(1)).toEqual([
    { event: "client-typing", channel: "a", data: { on: true } },
    { event: "client-nothing", channel: "a" },
  ]);
  server.readyState = 2;
  expect(channel.trigger("client-typing")).toBe(false);
  server.end(1006);
  expect(channel.trigger("client-typing")).toBe(false);
  expect(fake.last.sent).toHaveLength(3);
});

test("a client event with half of a surrogate pair in its name throws, and is not sent", () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  server.say("socket:subscribed", { channel: "a" });
  const sent = server.sent.length;
  // The server's answer names no channel: a subscribe in flight would fail with it.
  expect(() => channel.trigger("client-" + "😀".slice(0, 1) as "client-", 1)).toThrow(URIError);
  expect(channel.trigger("client-😀 é" as "client-")).toBe(true);
  expect(server.sent.slice(sent)).toEqual([{ event: "client-😀 é", channel: "a" }]);
});

test("a released reference triggers nothing", () => {
  const { socket, server } = connected();
  const [first] = [socket.subscribe("a"), socket.subscribe("a")];
  server.say("socket:subscribed", { channel: "a" });
  void first!.unsubscribe();
  expect([first!.trigger("client-x"), server.sent.length]).toEqual([false, 1]);
});

test.each(["typing", "", "socket:ping", undefined, 7, {}, Symbol("client-x")])("the name of a client event must start with client-, not %o", (name: any) => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  server.say("socket:subscribed", { channel: "a" });
  expect(() => channel.trigger(name)).toThrow(TypeError);
  expect(server.sent).toHaveLength(1);
});

test("a client event of another member arrives with its user_id", () => {
  const { socket, server } = connected();
  const seen: unknown[] = [];
  socket.subscribe("a").bind("client-typing", (data, { user_id }) => seen.push(data, user_id));
  server.say("socket:subscribed", { channel: "a", data: { epoch: "e", offset: 5 } });
  server.say("client-typing", { channel: "a", data: 1, user_id: "2" });
  server.say("client-typing", { channel: "a", data: 2 });
  expect(seen).toEqual([1, "2", 2, undefined]);
});

test.each(["client_event_refused", "rate_limited", "unavailable"])("a client event that is refused is told to the channel: %s", (code) => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  const other = socket.subscribe("b"); // its request is in flight, and is not meant
  const [told, errors] = [vi.fn(), vi.fn()];
  channel.bind("socket:error", told);
  socket.on("error", errors);
  server.say("socket:subscribed", { channel: "a" });
  server.say("socket:error", { channel: "a", data: { error: "no", code } });
  expect(told.mock.calls.map(([error]) => [error.code, error.message])).toEqual([[code, "no"]]);
  expect([channel.state, other.state, errors.mock.calls]).toEqual(["subscribed", "subscribing", []]);
  server.say("socket:error", { channel: "c", data: { error: "no", code } });
  expect(errors).toHaveBeenCalledTimes(1);
});

test("members and client events are typed", () => {
  const { socket } = connected();
  const channel = socket.subscribe<{ "client-typing": boolean; said: string }, { name: string }>("presence-x");
  expectTypeOf(channel.members).toEqualTypeOf<readonly Member<{ name: string }>[]>();
  channel.bind("socket:presence", (presence) => expectTypeOf(presence).toEqualTypeOf<Presence<{ name: string }>>());
  channel.bind("socket:member_added", ({ user_info }) => expectTypeOf(user_info).toEqualTypeOf<{ name: string } | undefined>());
  channel.trigger("client-typing", true);
  // @ts-expect-error wrong data
  channel.trigger("client-typing", 1);
  // @ts-expect-error not a client event
  expect(() => channel.trigger("said", "x")).toThrow(TypeError);
  (socket.subscribe("any") satisfies Channel).trigger("client-any", 1);
});
