/** Members on a real server. */
import { expect, test } from "vitest";
import { type CorecastError } from "../../src/index.js";
import { backend, client, cut, ids, PATIENCE, record, serve } from "./site.js";

const RULES = `
[[channel]]
match = "presence-room.*"
history = 100

[[channel]]
match = "counted:*"
presence = "count"
`;

serve(RULES, "--presence-members", "3", "--presence-grace", "1");

test("members see each other come and go, in order of joining", async () => {
  const [ann, bob] = ["ann", "bob"].map((user) => client(user).subscribe("presence-room.a"));
  const told: unknown[] = [];
  for (const event of ["socket:member_added", "socket:member_removed"] as const) ann!.bind(event, (member) => told.push([event, member]));
  await ann!.subscribed;
  await bob!.subscribed;
  await expect.poll(() => ids(ann!), PATIENCE).toEqual(["ann", "bob"]);
  expect([ids(bob!), bob!.count, bob!.members[0]]).toEqual([["ann", "bob"], 2, { user_id: "ann", user_info: { name: "name of ann" } }]);
  expect(await backend.members("presence-room.a")).toEqual({
    count: 2,
    members: ["ann", "bob"].map((user_id) => ({ user_id, user_info: { name: `name of ${user_id}` }, connections: 1 })),
  });
  await bob!.unsubscribe();
  await expect.poll(() => ids(ann!), PATIENCE).toEqual(["ann"]);
  const member = { user_id: "bob", user_info: { name: "name of bob" } };
  expect(told).toEqual([["socket:member_added", member], ["socket:member_removed", member]]);
});

test("a user with two connections is one member", async () => {
  const ann = client("ann").subscribe("presence-room.b");
  await ann.subscribed;
  const told: string[] = [];
  ann.bindAll((event) => event.startsWith("socket:member") && told.push(event));
  const [first, second] = [client("bob").subscribe("presence-room.b"), client("bob").subscribe("presence-room.b")];
  await Promise.all([first.subscribed, second.subscribed]);
  await expect.poll(() => ids(ann), PATIENCE).toEqual(["ann", "bob"]);
  await first.unsubscribe();
  const { members } = await backend.members("presence-room.b");
  expect(members.map(({ user_id, connections }) => [user_id, connections])).toEqual([["ann", 1], ["bob", 1]]);
  await second.unsubscribe();
  await expect.poll(() => ids(ann), PATIENCE).toEqual(["ann"]);
  expect(told).toEqual(["socket:member_added", "socket:member_removed"]);
});

test("after a cut the members are those of now, and what was missed is recovered", async () => {
  const [ann, bob] = ["ann", "bob"].map((user) => client(user).subscribe("presence-room.c"));
  const seen = record(ann!);
  await Promise.all([ann!.subscribed, bob!.subscribed]);
  await cut([ann!, bob!], () => backend.publish("presence-room.c", "n", 1));
  await expect.poll(() => seen, PATIENCE).toEqual(["load", 1]);
  expect([ids(ann!).sort(), ids(bob!).sort()]).toEqual(Array(2).fill(["ann", "bob"]));
});

test("a full channel is joined as soon as a member has left", async () => {
  const members = ["1", "2", "3"].map((user) => client(user).subscribe("presence-room.d"));
  await Promise.all(members.map(({ subscribed }) => subscribed));
  const fourth = client("4").subscribe("presence-room.d");
  const refused = new Promise<CorecastError>((resolve) => fourth.once("socket:subscribe.error", resolve));
  expect((await refused).code).toBe("presence_full");
  await members[1]!.unsubscribe();
  await fourth.subscribed;
  expect(ids(fourth).sort()).toEqual(["1", "3", "4"]);
});

test.each([
  ["no channel_data", undefined],
  ["no JSON", "{"],
  ["no user_id", "{}"],
  ["an empty user_id", '{"user_id":""}'],
])("a member that is not one is refused for good: %s", async (_, channel_data) => {
  const socket = client("", { auth: ({ socketId, channel }) => backend.sign(socketId, channel, channel_data) });
  await expect(socket.subscribe("presence-room.e").subscribed).rejects.toMatchObject({ code: "invalid_data" });
  expect(socket.state).toBe("connected");
});

test("where only the number is told", async () => {
  const first = client("ann").subscribe("counted:a");
  await first.subscribed;
  expect([first.count, first.members]).toEqual([1, []]);
  const second = client("bob").subscribe("counted:a");
  await second.subscribed;
  await expect.poll(() => [first.count, second.count], PATIENCE).toEqual([2, 2]);
  await second.unsubscribe();
  await expect.poll(() => first.count, PATIENCE).toBe(1);
});
