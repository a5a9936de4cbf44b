/** Signing in, and what is published to the user. */
import { afterEach, beforeEach, expect, expectTypeOf, onTestFinished, test, vi } from "vitest";
import { type Channel, CorecastError, type Options, type UserAuth } from "../../src/index.js";
import { Fake } from "./fake.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function connected(options: Options = {}) {
  const fake = new Fake();
  const socket = fake.client({ auth: ({ channel }) => ({ auth: `k:${channel}` }), ...options });
  onTestFinished(() => socket.disconnect());
  fake.last.connected("s1");
  return { fake, socket };
}

/** The request that signs in, and answers it. */
async function signedIn(fake: Fake, user_id = "12") {
  await vi.waitFor(() => expect(fake.last.sent.at(-1)?.event).toBe("socket:signin"));
  fake.last.say("socket:signed_in", { data: { user_id } });
}

const user_data = '{"id":"12"}';
const sign: UserAuth = ({ socketId }) => ({ auth: `k:${socketId}`, user_data });

test("signs in, and hears what is published to the user", async () => {
  const { fake, socket } = connected();
  const user = socket.signIn<{ paid: number }>(sign);
  const seen: unknown[] = [];
  user.bind("paid", (data, message) => seen.push(data, message));
  socket.bindGlobal((event, data) => seen.push(event, data));
  expect([user.state, user.name, socket.userId]).toEqual(["subscribing", "#user", undefined]);
  await signedIn(fake);
  await user.subscribed;
  expect(fake.last.sent).toEqual([{ event: "socket:signin", data: { auth: "k:s1", user_data } }]);
  expect([user.state, socket.userId]).toEqual(["subscribed", "12"]);
  fake.last.say("paid", { data: 42 });
  expect(seen).toEqual([42, { event: "paid", data: 42 }, "paid", 42]);
  expectTypeOf(user).toExtend<Channel<{ paid: number }>>();
});

test("what is published to the user reaches no connection before its sign-in", () => {
  const { fake, socket } = connected();
  const heard = vi.fn();
  socket.bindGlobal(heard);
  fake.last.say("paid", { data: 1 });
  socket.signIn(sign).bind("paid", heard);
  fake.last.say("paid", { data: 2 });
  expect(heard).not.toHaveBeenCalled();
});

test("signs in again on each connection, with a new signature, and loads each time: nothing is replayed", async () => {
  const { fake, socket } = connected();
  const user = socket.signIn(sign);
  const load = vi.fn();
  user.bind("socket:load", load);
  await signedIn(fake);
  fake.last.end(4200);
  expect([user.state, socket.userId]).toEqual(["subscribing", undefined]);
  vi.advanceTimersByTime(20_000);
  fake.last.connected("s2");
  await signedIn(fake);
  expect(fake.last.sent).toEqual([{ event: "socket:signin", data: { auth: "k:s2", user_data } }]);
  expect(load).toHaveBeenCalledTimes(2);
});

test("by an endpoint: the form has the socket_id alone, also where channels are signed in batches", async () => {
  const { fake, socket } = connected();
  const forms: string[] = [];
  vi.stubGlobal("fetch", async (url: string, { body, headers, credentials }: any) => {
    forms.push(`${url} ${body} ${JSON.stringify([headers, credentials])}`);
    return new Response(JSON.stringify({ auth: "k:s", user_data, more: 1 }));
  });
  socket.signIn({ endpoint: "/user", params: { tenant: "7" }, headers: { a: "b" }, credentials: "include", batch: true });
  await signedIn(fake);
  expect(forms).toEqual(['/user tenant=7&socket_id=s1 [{"a":"b"},"include"]']);
  expect(fake.last.sent).toEqual([{ event: "socket:signin", data: { auth: "k:s", user_data } }]);
});

test.each([
  ["no user_data", { auth: "k:s" }, "no signature: the auth function, for the user"],
  ["a user_data that is not text", { auth: "k:s", user_data: { id: "12" } }, "no signature: the auth function, for the user"],
  ["no auth", { user_data }, "no signature: the auth function, for the user"],
  ["nothing", undefined, "no signature: the auth function, for the user"],
  ["an error", { error: "not you" }, "not you"],
])("an answer with %s refuses for good", async (_, answer, message) => {
  const { fake, socket } = connected();
  const user = socket.signIn((() => answer) as UserAuth);
  await expect(user.subscribed).rejects.toMatchObject({ code: "auth_refused", message });
  expect([user.state, fake.last.sent]).toEqual(["failed", []]);
});

test("a backend that does not answer is asked again", async () => {
  const { fake, socket } = connected({ authTimeout: 1_000 });
  let asked = 0;
  const user = socket.signIn((request) => ((asked += 1) < 3 ? new Promise(() => {}) : sign(request)) as any);
  const errors: string[] = [];
  user.bind("socket:subscribe.error", ({ code, message }) => errors.push(`${code}: ${message}`));
  for (let n = 0; n < 8; n += 1) await vi.advanceTimersByTimeAsync(1_000);
  await signedIn(fake);
  expect(errors).toEqual(Array(2).fill("auth_unavailable: the auth function: no signature for #user within 1000 ms"));
});

test.each(["rate_limited", "unavailable"])("%s is retried with back-off", async (code) => {
  const { fake, socket } = connected();
  const user = socket.signIn(sign);
  await vi.waitFor(() => expect(fake.last.sent).toHaveLength(1));
  fake.last.say("socket:signin.error", { data: { error: "later", code } });
  expect(user.state).toBe("subscribing");
  await vi.advanceTimersByTimeAsync(1_000);
  expect(fake.last.sent).toHaveLength(2);
  await signedIn(fake);
  await user.subscribed;
});

test.each(["auth_required", "invalid_data", "already_signed_in", "auth_invalid"])("%s is final, after a new signature at most", async (code) => {
  const { fake, socket } = connected();
  const user = socket.signIn(sign);
  const refusals = code === "auth_invalid" ? 2 : 1;
  for (let n = 1; n <= refusals; n += 1) {
    await vi.waitFor(() => expect(fake.last.sent).toHaveLength(n));
    fake.last.say("socket:signin.error", { data: { error: "no", code } });
  }
  await expect(user.subscribed).rejects.toMatchObject({ code, message: "no" });
  await vi.advanceTimersByTimeAsync(100_000);
  expect([user.state, socket.state, fake.last.names("socket:signin").length]).toEqual(["failed", "connected", refusals]);
});

test("a server that does not know signing in: final, and the connection stays", async () => {
  const { fake, socket } = connected();
  const user = socket.signIn(sign);
  await vi.waitFor(() => expect(fake.last.sent).toHaveLength(1));
  fake.last.say("socket:error", { data: { error: "…", code: "unknown_event" } });
  await expect(user.subscribed).rejects.toMatchObject({ code: "unknown_event" });
  expect(socket.state).toBe("connected");
});

test("presence channels wait for the user; others do not", async () => {
  const { fake, socket } = connected();
  const user = socket.signIn(sign);
  const channels = ["presence-x", "private-y", "z"].map((name) => socket.subscribe(name));
  await vi.advanceTimersByTimeAsync(1_000);
  expect(fake.last.names("socket:subscribe")).toEqual(["z", "private-y"]);
  expect(fake.last.sent.map(({ event }) => event)).toContain("socket:signin");
  fake.last.say("socket:signed_in", { data: { user_id: "12" } });
  await vi.waitFor(() => expect(fake.last.names("socket:subscribe")).toEqual(["z", "private-y", "presence-x"]));
  expect(fake.last.sent.at(-1)?.data).toEqual({ channel: "presence-x", auth: "k:presence-x" }); // no channel_data
  // And again after a reconnect.
  fake.last.end(4200);
  await vi.advanceTimersByTimeAsync(20_000);
  fake.last.connected("s2");
  await vi.advanceTimersByTimeAsync(1_000);
  expect(fake.last.sent).toHaveLength(3);
  expect(fake.last.names("socket:subscribe")).not.toContain("presence-x");
  fake.last.say("socket:signed_in", { data: { user_id: "12" } });
  await vi.waitFor(() => expect(fake.last.names("socket:subscribe")).toContain("presence-x"));
  expect([user.state, channels.map(({ state }) => state)]).toEqual(["subscribed", Array(3).fill("subscribing")]);
});

test("a presence channel that is subscribed while the sign-in is on its way waits for it", async () => {
  const { fake, socket } = connected();
  socket.signIn(sign);
  await vi.waitFor(() => expect(fake.last.sent).toHaveLength(1));
  socket.subscribe("presence-x");
  await vi.advanceTimersByTimeAsync(1_000);
  expect(fake.last.sent).toHaveLength(1);
  fake.last.say("socket:signed_in", { data: { user_id: "12" } });
  await vi.waitFor(() => expect(fake.last.names("socket:subscribe")).toEqual(["presence-x"]));
});

test.each([
  ["the server refuses it", (fake: Fake) => fake.last.say("socket:signin.error", { data: { error: "no", code: "invalid_data" } }), sign],
  ["the backend refuses it", () => {}, () => { throw new CorecastError("no", "no"); }],
] as const)("presence channels do not wait for a sign-in that is over: %s", async (_, refuse, by) => {
  const { fake, socket } = connected();
  socket.signIn(by);
  socket.subscribe("presence-x");
  if (by === sign) await vi.waitFor(() => expect(fake.last.sent).toHaveLength(1));
  refuse(fake);
  await vi.waitFor(() => expect(fake.last.names("socket:subscribe")).toEqual(["presence-x"]));
});

test("presence channels do not wait for a sign-in that the application gave up", async () => {
  const { fake, socket } = connected();
  const user = socket.signIn(() => new Promise(() => {}));
  socket.subscribe("presence-x");
  await vi.advanceTimersByTimeAsync(0);
  expect(fake.last.sent).toEqual([]);
  await user.unsubscribe();
  await vi.waitFor(() => expect(fake.last.names("socket:subscribe")).toEqual(["presence-x"]));
});

test("signing out tells a new reference to a live channel nothing before its handlers are bound", async () => {
  const { fake, socket } = connected();
  const user = socket.signIn(sign);
  socket.subscribe("z");
  fake.last.say("socket:subscribed", { channel: "z" });
  const late = socket.subscribe("z");
  void user.unsubscribe();
  const live = vi.fn();
  late.bind("socket:subscribed", live);
  await late.subscribed;
  expect(live).toHaveBeenCalledTimes(1);
});

test("references share the sign-in; the last release ends it for later connections, and sends nothing", async () => {
  const { fake, socket } = connected();
  const [first, second] = [socket.signIn(sign), socket.signIn(sign)];
  const heard = vi.fn();
  for (const user of [first, second]) user.bind("paid", heard);
  await signedIn(fake);
  await Promise.all([first.subscribed, second.subscribed]);
  expect(fake.last.sent).toHaveLength(1);
  fake.last.say("paid");
  await first.unsubscribe();
  fake.last.say("paid");
  await second.unsubscribe();
  fake.last.say("paid");
  expect([heard.mock.calls.length, fake.last.sent.length, socket.userId]).toEqual([3, 1, "12"]);
  fake.last.end(4200);
  vi.advanceTimersByTime(20_000);
  fake.last.connected("s2");
  await vi.advanceTimersByTimeAsync(10_000);
  expect([fake.last.sent, socket.userId]).toEqual([[], undefined]);
});

test("a release while the request is on its way, and signing in again", async () => {
  const { fake, socket } = connected();
  const first = socket.signIn(sign);
  await vi.waitFor(() => expect(fake.last.sent).toHaveLength(1));
  const left = first.unsubscribe();
  fake.last.say("socket:signed_in", { data: { user_id: "12" } });
  await left;
  const second = socket.signIn(sign);
  await vi.waitFor(() => expect(fake.last.sent).toHaveLength(2));
  fake.last.say("socket:signed_in", { data: { user_id: "12" } });
  await second.subscribed;
});

test("the user is not one of the channels, and has no client events", async () => {
  const { fake, socket } = connected();
  const user = socket.signIn(sign);
  await signedIn(fake);
  const named = socket.subscribe("#user");
  expect([socket.channels(), socket.channel("#user")]).toEqual([[named], named]);
  expect([user.trigger("client-x"), fake.last.names("socket:subscribe")]).toEqual([false, ["#user"]]);
  expect([user.position, user.members, user.count]).toEqual([undefined, [], undefined]);
});

test("the connection ends because of the sign-in: it fails, and is not repeated", async () => {
  const { fake, socket } = connected();
  const user = socket.signIn(sign);
  await vi.waitFor(() => expect(fake.last.sent).toHaveLength(1));
  fake.last.end(1009);
  await expect(user.subscribed).rejects.toMatchObject({ code: "closed", closeCode: 1009 });
  await vi.advanceTimersByTimeAsync(20_000);
  fake.last.connected("s2");
  await vi.advanceTimersByTimeAsync(1_000);
  expect(fake.last.sent).toEqual([]);
});

test("disconnect aborts a pending request to the signing endpoint", async () => {
  const { socket } = connected();
  let aborted = false;
  socket.signIn(({ signal }) => new Promise(() => signal.addEventListener("abort", () => (aborted = true))));
  await vi.advanceTimersByTimeAsync(0);
  socket.disconnect();
  expect(aborted).toBe(true);
});
