import { expect, expectTypeOf, test, vi } from "vitest";
import { type Channel, Corecast, CorecastError } from "../../src/index.js";
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

test("references to one channel share one subscription", async () => {
  const { socket, server } = connected();
  const [first, second] = [socket.subscribe("a"), socket.subscribe("a")];
  expect(first).not.toBe(second);
  server.say("socket:subscribed", { channel: "a" });
  await Promise.all([first.subscribed, second.subscribed]);
  expect(server.names("socket:subscribe")).toEqual(["a"]);
  expect(socket.channels()).toEqual([first]);
  expect(socket.channel("a")).toBe(first);
});

test("each reference has its own handlers; only the last release ends the subscription, and releasing twice counts once", async () => {
  const { socket, server } = connected();
  const [first, second, third] = [socket.subscribe("a"), socket.subscribe("a"), socket.subscribe("a")];
  const seen: string[] = [];
  first.bind("x", () => seen.push("first"));
  second.bind("x", () => seen.push("second"));
  server.say("socket:subscribed", { channel: "a" });
  server.say("x", { channel: "a" });
  await first.unsubscribe();
  await first.unsubscribe();
  await third.unsubscribe();
  server.say("x", { channel: "a" });
  expect(seen).toEqual(["first", "second", "second"]);
  expect([first.state, second.state, server.names("socket:unsubscribe")]).toEqual(["unsubscribed", "subscribed", []]);
  const left = second.unsubscribe();
  server.say("x", { channel: "a" });
  expect([seen.length, server.names("socket:unsubscribe")]).toEqual([3, ["a"]]);
  server.say("socket:unsubscribed", { channel: "a" });
  await left;
  expect(socket.channel("a")).toBeUndefined();
});

test("socket.unsubscribe releases all references", async () => {
  const { socket, server } = connected();
  const channels = [socket.subscribe("a"), socket.subscribe("a")];
  server.say("socket:subscribed", { channel: "a" });
  const left = socket.unsubscribe("a");
  expect(channels.map(({ state }) => state)).toEqual(["unsubscribed", "unsubscribed"]);
  expect(server.names("socket:unsubscribe")).toEqual(["a"]);
  server.say("socket:unsubscribed", { channel: "a" });
  await left;
});

test("a reference to a live channel is told that it is live, once its handlers are bound", async () => {
  const { socket, server } = connected();
  socket.subscribe("a");
  server.say("socket:subscribed", { channel: "a" });
  const late = socket.subscribe("a");
  const live = vi.fn();
  late.bind("socket:subscribed", live);
  expect([late.state, live.mock.calls.length]).toEqual(["subscribing", 0]);
  await late.subscribed;
  expect([late.state, live.mock.calls.length]).toEqual(["subscribed", 1]);
  expect(server.names("socket:subscribe")).toEqual(["a"]);
});

test("a reference that is released at once is not told anything", async () => {
  const { socket, server } = connected();
  socket.subscribe("a");
  server.say("socket:subscribed", { channel: "a" });
  const brief = socket.subscribe("a");
  const live = vi.fn();
  brief.bind("socket:subscribed", live);
  await brief.unsubscribe();
  await Promise.resolve();
  expect([brief.state, live.mock.calls.length, server.names("socket:unsubscribe")]).toEqual(["unsubscribed", 0, []]);
  await expect(brief.subscribed).rejects.toMatchObject({ code: "unsubscribed" });
});

test.each([undefined, null, 7, {}, ["a"], Symbol("a")])("the name of a channel must be a string, not %o", (name: any) => {
  const { socket, server } = connected();
  for (const method of ["subscribe", "unsubscribe", "channel"] as const) {
    expect(() => (socket as any)[method](name), method).toThrow(TypeError);
  }
  expect([server.sent, socket.channels()]).toEqual([[], []]);
});

test.each([undefined, null, 7, {}, ["a"], { endpoint: 7 }])("auth must name an endpoint, not %o", (auth: any) => {
  const { socket, server } = connected();
  expect(() => socket.signIn(auth)).toThrow(TypeError);
  if (auth) expect(() => new Corecast("ws://fake", { auth, autoConnect: false })).toThrow(TypeError);
  expect(server.sent).toEqual([]);
});

test.each([undefined, null, "x", {}])("a handler must be a function, not %o", (handler: any) => {
  const { socket } = connected();
  const channel = socket.subscribe("a");
  for (const method of ["bind", "on", "once"] as const) expect(() => channel[method]("x", handler), method).toThrow(TypeError);
  expect(() => channel.bindAll(handler)).toThrow(TypeError);
  expect(() => socket.bindGlobal(handler)).toThrow(TypeError);
});

test("once calls its handler for one event, also if the event is emitted again meanwhile, and unbind removes it", () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  const [once, removed] = [vi.fn(), vi.fn()];
  channel.bind("x", (n) => n === 1 && server.say("x", { channel: "a", data: 2 }));
  channel.once("x", once).once("x", removed).unbind("x", removed);
  server.say("socket:subscribed", { channel: "a" });
  server.say("x", { channel: "a", data: 1 });
  server.say("x", { channel: "a", data: 3 });
  expect(once.mock.calls.map(([data]) => data)).toEqual([2]);
  expect(removed).not.toHaveBeenCalled();
});

test("bindGlobal hears each message of every channel once, and nothing else", () => {
  const { socket, server } = connected();
  const [heard, removed] = [vi.fn(), vi.fn()];
  socket.bindGlobal(heard).bindGlobal(removed).unbindGlobal(removed);
  for (const name of ["a", "a", "b"]) socket.subscribe(name);
  for (const channel of ["a", "b"]) {
    server.say("socket:subscribed", { channel });
    server.say("x", { channel, data: 1 });
  }
  server.say("x", { channel: "c", data: 1 }); // not subscribed
  const message = (channel: string) => ["x", 1, { event: "x", channel, data: 1 }];
  expect(heard.mock.calls).toEqual([message("a"), message("b")]);
  expect(removed).not.toHaveBeenCalled();
});

test("parse replaces JSON.parse for published messages, and for nothing else", () => {
  const fake = new Fake();
  const exact = (text: string) => ({ ...JSON.parse(text.replace(/:(\d{16,})/g, ':"$1"')), text });
  const socket = fake.client({ parse: exact });
  fake.last.connected("s1", { interval: 1_000_000_000_000_000, timeout: 1 });
  const channel = socket.subscribe("a");
  const seen: unknown[] = [];
  channel.bind("x", (data, message: any) => seen.push(data.id, message.text));
  fake.last.say("socket:subscribed", { channel: "a" });
  const text = '{"event":"x","channel":"a","data":{"id":9007199254740993}}';
  fake.last.onmessage!({ data: text });
  expect(seen).toEqual(["9007199254740993", text]);
  const errors: string[] = [];
  socket.on("error", ({ code }) => errors.push(code));
  socket.disconnect();
  const broken = new Fake();
  let thrown: unknown = new Error("of the application");
  const other = broken.client({
    parse: () => {
      if (thrown) throw thrown;
      return null;
    },
  });
  other.on("error", ({ code }) => errors.push(code));
  broken.last.connected();
  broken.last.say("x", { channel: "a" });
  thrown = undefined;
  broken.last.say("x", { channel: "a" });
  expect([errors, other.state]).toEqual([["malformed_message", "malformed_message"], "connected"]);
  other.disconnect();
});

test("debug logs messages, states and waits, and can be switched", () => {
  const lines: string[] = [];
  const fake = new Fake();
  const socket = fake.client({ debug: (line) => lines.push(line) });
  fake.last.connected();
  socket.subscribe("a");
  fake.last.end(1012);
  expect(lines).toEqual([
    "initialized → connecting",
    '← {"event":"socket:connected","data":{"socket_id":"s1"}}',
    "connecting → connected",
    '→ {"event":"socket:subscribe","data":{"channel":"a"}}',
    expect.stringMatching(/^closed with 1012; retries in \d+ ms$/),
    "connected → connecting",
  ]);
  socket.debug = false;
  socket.disconnect();
  expect(lines).toHaveLength(6);
  const log = vi.spyOn(console, "debug").mockReturnValue();
  socket.debug = true;
  void socket.connect();
  expect(log.mock.calls).toEqual([["corecast", "disconnected → connecting"]]);
  log.mockRestore();
  socket.disconnect();
});

test("socketIdDecimal is the second spelling of socketId", () => {
  const { fake } = connected();
  const socket = fake.client();
  expect(socket.socketIdDecimal).toBeUndefined();
  fake.last.connected("1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6");
  expect(socket.socketIdDecimal).toBe(`${0x1ba1b6cb012748f8n}.${0xb5a59fd79a7c68a6n}`);
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
    ["socket:subscribed", { recovered: false }],
    ["socket:load", undefined],
    ["x", 1],
    ["x", 2],
    ["x", 3],
  ]);
});

test("an exception in a handler stops neither the other handlers nor the connection", () => {
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
  const again = socket.subscribe("presence-x");
  server.say("socket:subscribed", { channel: "presence-x" });
  await Promise.all([channel.subscribed, again.subscribed]);
});

test.each(["rate_limited", "too_many_subscriptions", "presence_full", "unavailable"])("%s is retried with back-off", async (code) => {
  vi.useFakeTimers();
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  const told = vi.fn();
  channel.bind("socket:subscribe.error", told);
  for (let n = 1; n <= 4; n += 1) {
    server.say("socket:subscribe.error", { channel: "a", data: { error: "later", code } });
    expect([channel.state, server.names("socket:subscribe").length]).toEqual(["subscribing", n]);
    vi.advanceTimersByTime(500 + 500 * 2 ** n);
    expect(server.names("socket:subscribe")).toHaveLength(n + 1);
  }
  server.say("socket:subscribed", { channel: "a" });
  await channel.subscribed;
  expect(told.mock.calls.map(([error]) => error.code)).toEqual(Array(4).fill(code));
  vi.useRealTimers();
});

test.each(["invalid_channel", "malformed_message", "malformed_since", "auth_required", "invalid_data", "auth_invalid", "of_tomorrow"])(
  "%s is final",
  async (code) => {
    vi.useFakeTimers();
    const { socket, server } = connected();
    const channel = socket.subscribe("a");
    const refused = { channel: "a", data: { error: "no", code } };
    server.say("socket:subscribe.error", refused);
    if (code === "auth_invalid") server.say("socket:subscribe.error", refused); // signed again once: see auth.test.ts
    await expect(channel.subscribed).rejects.toMatchObject({ code });
    vi.advanceTimersByTime(100_000);
    expect(server.names("socket:subscribe")).toHaveLength(code === "auth_invalid" ? 2 : 1);
    vi.useRealTimers();
  },
);

test("a channel that was refused because there were too many is requested as soon as another one is left", async () => {
  const { socket, server } = connected();
  const [a, b, c] = ["a", "b", "c"].map((name) => socket.subscribe(name));
  server.say("socket:subscribed", { channel: "a" });
  for (const channel of ["b", "c"]) {
    server.say("socket:subscribe.error", { channel, data: { error: "no", code: "too_many_subscriptions" } });
  }
  void a!.unsubscribe();
  server.say("socket:unsubscribed", { channel: "a" });
  expect(server.names("socket:subscribe")).toEqual(["a", "b", "c", "b"]);
  server.say("socket:subscribed", { channel: "b" });
  await b!.subscribed;
  expect(c!.state).toBe("subscribing");
  socket.disconnect();
});

test("socket:error answers the oldest request: that channel fails, and the others do not", async () => {
  const { socket, server } = connected();
  const [bad, good] = ["\ud83d", "b"].map((name) => socket.subscribe(name)); // one half of an emoji
  const errors = vi.fn();
  socket.on("error", errors);
  server.say("socket:error", { data: { error: "no", code: "malformed_message" } });
  server.say("socket:subscribed", { channel: "b" });
  await expect(bad!.subscribed).rejects.toMatchObject({ code: "malformed_message" });
  await good!.subscribed;
  expect(errors).not.toHaveBeenCalled();
});

test("socket:error that answers a ping fails no channel, and counts as the pong", async () => {
  vi.useFakeTimers();
  const { socket, server } = connected();
  vi.advanceTimersByTime(120_000);
  const channel = socket.subscribe("a");
  server.say("socket:error", { data: { error: "slow down", code: "rate_limited" } });
  server.say("socket:subscribed", { channel: "a" });
  await channel.subscribed;
  vi.advanceTimersByTime(60_000);
  expect([socket.state, server.names("socket:ping").length]).toEqual(["connected", 1]);
  vi.useRealTimers();
});

test("socket:error with a channel answers no request", () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  server.say("socket:error", { channel: "a", data: { error: "no", code: "client_event_refused" } });
  expect(channel.state).toBe("subscribing");
});

test("replies pair by channel, whatever else is in flight", async () => {
  const { socket, server } = connected();
  const [a, b, c] = ["a", "b", "c"].map((name) => socket.subscribe(name));
  server.say("socket:subscribed", { channel: "a" });
  server.say("socket:subscribe.error", { channel: "b", data: { error: "no", code: "invalid_channel" } });
  server.say("socket:subscribed", { channel: "c" });
  await Promise.all([a!.subscribed, c!.subscribed]);
  await expect(b!.subscribed).rejects.toMatchObject({ code: "invalid_channel" });
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

test("after unsubscribe no message reaches the old handlers, nor those of a new reference before its own reply", async () => {
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

test("after a handler has called unsubscribe, no other handler is called", () => {
  const { socket, server } = connected();
  const channel = socket.subscribe("a");
  const next = vi.fn();
  channel.bind("x", () => void channel.unsubscribe()).bind("x", next);
  server.say("socket:subscribed", { channel: "a" });
  server.say("x", { channel: "a" });
  expect(next).not.toHaveBeenCalled();
});

test("unsubscribe and subscribe while the subscribe is in flight cost no request", async () => {
  const { socket, server } = connected();
  const first = socket.subscribe("a");
  void first.unsubscribe();
  const second = socket.subscribe("a");
  await expect(first.subscribed).rejects.toMatchObject({ code: "unsubscribed" });
  server.say("socket:subscribed", { channel: "a" });
  await second.subscribed;
  expect(server.sent).toHaveLength(1);
});

test("unsubscribe before the reply is sent after it", async () => {
  const { socket, server } = connected();
  const left = socket.subscribe("a").unsubscribe();
  expect(server.sent).toHaveLength(1);
  server.say("socket:subscribed", { channel: "a" });
  expect(server.names("socket:unsubscribe")).toEqual(["a"]);
  server.say("socket:unsubscribed", { channel: "a" });
  await left;
  expect(socket.channel("a")).toBeUndefined();
});

test("a subscription that the server ends is reported, and stays ended until the application subscribes", async () => {
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
  const again = socket.subscribe("a");
  fake.last.say("socket:subscribed", { channel: "a" });
  await Promise.all([channel.subscribed, again.subscribed]);
});

test("a subscription that the server ends while the client leaves and returns is requested again", async () => {
  const { socket, server } = connected();
  const first = socket.subscribe("a");
  server.say("socket:subscribed", { channel: "a" });
  void first.unsubscribe();
  const second = socket.subscribe("a");
  server.say("socket:unsubscribed", { channel: "a" }); // without a request
  server.say("socket:unsubscribe.error", { channel: "a", data: { error: "…", code: "not_subscribed" } });
  expect(server.names("socket:subscribe")).toEqual(["a", "a"]);
  server.say("socket:subscribed", { channel: "a" });
  await second.subscribed;
});

test("an unsubscribe that the server refuses leaves the channel live for a new reference", async () => {
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

test("an exception of debug loses no message, no request and no reconnect", () => {
  vi.useFakeTimers();
  const fake = new Fake();
  const socket = fake.client({
    debug: () => {
      throw new Error("of the logger");
    },
  });
  fake.last.connected();
  socket.subscribe("a");
  expect([socket.state, fake.last.names("socket:subscribe")]).toEqual(["connected", ["a"]]);
  fake.last.end(4200);
  let uncaught = 0;
  while (fake.sockets.length === 1) {
    try {
      vi.advanceTimersToNextTimer();
    } catch {
      uncaught += 1; // where tools see it
    }
  }
  expect(uncaught).toBeGreaterThan(0);
  vi.useRealTimers();
});

test("system events without their data are reported, and change nothing", () => {
  const { socket, server } = connected();
  const errors: string[] = [];
  socket.on("error", ({ code }) => errors.push(code));
  const channel = socket.subscribe("a");
  server.say("socket:subscribed", { channel: "a", data: { presence: { count: 1, members: [{ user_id: "1" }] } } });
  for (const event of ["socket:member_added", "socket:member_removed", "socket:presence"]) {
    server.say(event, { channel: "a" });
    server.say(event, { channel: "a", data: null });
  }
  expect(errors).toEqual(Array(6).fill("malformed_message"));
  expect([channel.count, channel.members, socket.state]).toEqual([1, [{ user_id: "1" }], "connected"]);
});

test("socket:error and what is not a message are reported, and change nothing", () => {
  const { socket, server } = connected();
  const errors: string[] = [];
  socket.on("error", ({ code }) => errors.push(code));
  server.say("socket:error", { data: { error: "unknown event", code: "unknown_event" } });
  for (const data of ["{", "null", "[]", '"x"', new ArrayBuffer(1)]) server.onmessage!({ data });
  server.say("socket:of.tomorrow");
  expect(errors).toEqual(["unknown_event", ...Array(5).fill("malformed_message")]);
  expect(socket.state).toBe("connected");
});

test("a request that was in flight when the connection ended pairs with no reply on the next connection", async () => {
  const { fake, socket } = connected();
  void socket.subscribe("a").unsubscribe();
  socket.disconnect();
  void socket.connect();
  const b = socket.subscribe("b");
  fake.last.connected();
  fake.last.say("socket:subscribed");
  await b.subscribed;
});
