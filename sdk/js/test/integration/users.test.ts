/** Client events and users on a real server. */
import { expect, test } from "vitest";
import { type Channel, type CorecastError } from "../../src/index.js";
import { backend, client, cut, ids, PATIENCE, serve } from "./site.js";

const RULES = `
[[channel]]
match = "presence-room.*"
history = 100
client-events = "members"

[[channel]]
match = "private-room.*"
client-events = "members"
`;

serve(RULES);

test("client events reach the others, with the sender's user_id in a presence channel", async () => {
  for (const [name, sender] of [["presence-room.f", "ann"], ["private-room.f", undefined]] as const) {
    const [ann, bob] = ["ann", "bob"].map((user) => client(user).subscribe(name));
    await Promise.all([ann!.subscribed, bob!.subscribed]);
    const echoed: unknown[] = [];
    ann!.bind("client-typing", (data) => echoed.push(data));
    const heard = new Promise((resolve) => bob!.bind("client-typing", (data, message) => resolve([data, message.user_id, message.offset])));
    expect(ann!.trigger("client-typing", { on: true })).toBe(true);
    expect(await heard).toEqual([{ on: true }, sender, undefined]);
    await backend.publish(name, "n", 1);
    expect(echoed).toEqual([]);
    for (const channel of [ann!, bob!]) await channel.unsubscribe();
  }
});

test("refused client events are told to the channel, and the connection stays", async () => {
  const socket = client("ann");
  const refused = (channel: Channel) => new Promise<CorecastError>((resolve) => channel.once("socket:error", resolve));
  const plain = socket.subscribe("plain");
  await plain.subscribed;
  const first = refused(plain);
  plain.trigger("client-typing");
  expect((await first).code).toBe("client_event_refused");
  const room = socket.subscribe("private-room.g");
  await room.subscribed;
  const large = refused(room);
  room.trigger("client-large", "x".repeat(11_000));
  expect((await large).code).toBe("client_event_refused");
  const fast = refused(room);
  for (let n = 0; n < 200; n += 1) room.trigger("client-fast", n);
  expect((await fast).code).toBe("rate_limited");
  expect([socket.state, room.state]).toEqual(["connected", "subscribed"]);
});

test("a user hears what is published to it, on each of its connections, and again after a cut", async () => {
  const sockets = ["12", "12", "13"].map((id) => ({ id, socket: client() }));
  const users = sockets.map(({ id, socket }) => socket.signIn(({ socketId }) => backend.signUser(socketId, { id })));
  await Promise.all(users.map(({ subscribed }) => subscribed));
  const heard: unknown[][] = users.map(() => []);
  users.forEach((user, n) => user.bind("paid", (data, message) => heard[n]!.push(data, message.channel)));
  expect(await backend.publishToUser("12", "paid", 1)).toBe(2);
  await expect.poll(() => heard, PATIENCE).toEqual([[1, undefined], [1, undefined], []]);
  expect(sockets.map(({ socket }) => socket.userId)).toEqual(["12", "12", "13"]);
  await cut(users);
  expect(await backend.publishToUser(["12", "13"], "paid", 2)).toBe(3);
  await expect.poll(() => heard.map(([first, , second]) => [first, second]), PATIENCE).toEqual([[1, 2], [1, 2], [2, undefined]]);
});

test("a presence channel takes its member from the sign-in, also after a cut", async () => {
  const socket = client();
  const user = socket.signIn(({ socketId }) => backend.signUser(socketId, { id: "12", user_info: { name: "Ann" } }));
  const room = socket.subscribe("presence-room.h");
  await Promise.all([user.subscribed, room.subscribed]);
  expect(room.members).toEqual([{ user_id: "12", user_info: { name: "Ann" } }]);
  await cut([room]);
  expect([ids(room), socket.userId]).toEqual([["12"], "12"]);
});

test.each([
  ["a wrong signature", ({ socketId }: any) => ({ ...backend.signUser(socketId, { id: "12" }), auth: "a:b" }), "auth_invalid"],
  ["no id", ({ socketId }: any) => ({ ...signed(socketId, "{}") }), "invalid_data"],
])("a sign-in that is refused: %s", async (_, auth, code) => {
  const socket = client();
  await expect(socket.signIn(auth).subscribed).rejects.toMatchObject({ code });
  expect(socket.state).toBe("connected");
});

/** Signs any text as the user, as a backend with a mistake would. */
function signed(socketId: string, user_data: string) {
  const { auth } = backend.signUser(socketId, { id: "x", toJSON: () => JSON.parse(user_data) });
  return { auth, user_data };
}

test("another user on the same connection is refused; disconnectUser ends the connections of one", async () => {
  const socket = client();
  const sign = (id: string) => ({ socketId }: { socketId: string }) => backend.signUser(socketId, { id });
  const user = socket.signIn(sign("14"));
  await user.subscribed;
  await user.unsubscribe();
  await expect(socket.signIn(sign("15")).subscribed).rejects.toMatchObject({ code: "already_signed_in" });
  await socket.signIn(sign("14")).subscribed;
  const closed = new Promise<CorecastError>((resolve) => socket.once("closed", resolve));
  expect(await backend.disconnectUser("14", { code: 4001, reason: "banned" })).toBe(1);
  expect(await closed).toMatchObject({ code: "closed", closeCode: 4001, message: "banned" });
  expect([socket.state, await backend.disconnectUser("14")]).toEqual(["failed", 0]);
});
