// pusher (https://github.com/pusher/pusher-http-node), unmodified: every method except `webhook`, which pusher_webhooks.mjs tests.

import assert from "node:assert/strict";
import { once } from "node:events";
import Pusher from "pusher";
import WebSocket from "ws";
import { forged, Mailbox } from "./scenario.mjs";

const [key, secret] = process.env.CORECAST_TEST_KEY.split(":");
const [host, port] = process.env.CORECAST_HTTP.split(":");
const encryptionMasterKeyBase64 = Buffer.alloc(32, 7).toString("base64");
const pusher = new Pusher({ appId: "1", key, secret, host, port, useTLS: false, encryptionMasterKeyBase64 });

// A client of the native protocol, with its socket_id in the spelling that the library requires.
async function client() {
  const socket = new WebSocket(process.env.CORECAST_URL);
  const box = new Mailbox();
  socket.on("message", (data) => box.put(JSON.parse(data.toString())));
  await once(socket, "open");
  const { socket_id } = (await box.take()).data;
  const bits = BigInt(`0x${socket_id.replaceAll("-", "")}`);
  const dotted = `${bits >> 64n}.${bits & 0xffffffffffffffffn}`;
  const request = async (event, data) => {
    socket.send(JSON.stringify({ event, data }));
    return box.take();
  };
  const closed = once(socket, "close").then(([code]) => code);
  return { box, dotted, request, closed, close: () => socket.close() };
}

const [first, second] = [await client(), await client()];
for (const each of [first, second]) {
  assert.equal((await each.request("socket:subscribe", { channel: "node-orders" })).event, "socket:subscribed");
}

// Private channels, signed by both helpers of the library.
const channel = "private-node";
const { auth } = pusher.authorizeChannel(first.dotted, channel);
assert.equal((await first.request("socket:subscribe", { channel, auth })).event, "socket:subscribed");
const older = pusher.authenticate(second.dotted, channel);
assert.equal((await second.request("socket:subscribe", { channel, auth: older.auth })).event, "socket:subscribed");

for (const [socketId, name] of forged(channel)) assert.throws(() => pusher.authorizeChannel(socketId, name), /Invalid/);

// Objects arrive as objects, strings as strings.
assert.equal((await pusher.trigger("node-orders", "paid", { id: 42 })).status, 200);
await pusher.trigger(["node-orders", channel], "said", "hello");
for (const each of [first, second]) {
  assert.deepEqual(await each.box.take(), { event: "paid", channel: "node-orders", data: { id: 42 } });
  const said = [await each.box.take(), await each.box.take()].sort((one, other) => (one.channel < other.channel ? -1 : 1));
  assert.deepEqual(said, [
    { event: "said", channel: "node-orders", data: "hello" },
    { event: "said", channel, data: "hello" },
  ]);
}

// To all but one.
await pusher.trigger("node-orders", "typing", {}, { socket_id: first.dotted });
await pusher.triggerBatch([
  { channel: "node-orders", name: "one", data: { n: 1 } },
  { channel: "node-orders", name: "two", data: { n: 2 } },
]);
assert.equal((await second.box.take()).event, "typing");
for (const each of [first, second]) {
  assert.deepEqual([(await each.box.take()).event, (await each.box.take()).event], ["one", "two"]);
}

const get = async (path, params) => (await pusher.get({ path, params })).json();
assert.deepEqual(await get("/channels", { filter_by_prefix: "node-" }), { channels: { "node-orders": {} } });
assert.deepEqual(await get("/channels/node-orders", { info: "subscription_count" }), {
  occupied: true,
  subscription_count: 2,
});

// Channels of all kinds, an encrypted one in a batch, and attributes.
const [room, sealed, cached] = ["presence-node", "private-encrypted-node", "cache-node"];
const member = (each, user_id) => {
  const auth = pusher.authorizeChannel(each.dotted, room, { user_id, user_info: { name: "A" } });
  return each.request("socket:subscribe", { channel: room, ...auth });
};
assert.equal((await member(first, "11")).data.presence.count, 1);
assert.equal((await member(second, "12")).data.presence.count, 2);
assert.equal((await first.box.take()).event, "socket:member_added");
const { shared_secret, ...sealing } = pusher.authorizeChannel(first.dotted, sealed);
assert.ok(shared_secret);
assert.equal((await first.request("socket:subscribe", { channel: sealed, ...sealing })).event, "socket:subscribed");
const info = "user_count,subscription_count";
const published = await pusher.trigger([room, cached], "both", { n: 3 }, { info });
assert.deepEqual(await published.json(), {
  channels: { [cached]: { subscription_count: 0 }, [room]: { user_count: 2, subscription_count: 2 } },
});
for (const each of [first, second]) assert.deepEqual((await each.box.take()).data, { n: 3 });
const batch = await pusher.triggerBatch([
  { channel: sealed, name: "secret", data: "s" },
  { channel: room, name: "counted", data: "1", info: "user_count" },
]);
assert.deepEqual(await batch.json(), { batch: [{}, { user_count: 2 }] });
// Channels have no order among them.
const both = [await first.box.take(), await first.box.take()].sort((one, other) => (one.event < other.event ? -1 : 1));
assert.deepEqual(both.map(({ event }) => event), ["counted", "secret"]);
assert.deepEqual(Object.keys(both[1].data).sort(), ["ciphertext", "nonce"]);
assert.equal((await second.box.take()).event, "counted");
await pusher.trigger(sealed, "secret", { n: 4 });
assert.equal((await first.box.take()).event, "secret");

assert.deepEqual(await get("/channels", { filter_by_prefix: "presence-node", info: "user_count" }), {
  channels: { [room]: { user_count: 2 } },
});
assert.deepEqual(await get("/channels", { filter_by_prefix: "node-none" }), { channels: {} });
assert.deepEqual(await get(`/channels/${room}`, { info }), { occupied: true, user_count: 2, subscription_count: 2 });
assert.deepEqual(await get(`/channels/${room}/users`), { users: [{ id: "11" }, { id: "12" }] });
const { occupied, cache } = await get(`/channels/${cached}`, { info: "cache" });
assert.deepEqual([occupied, cache.data], [false, '{"n":3}']);
assert.ok(cache.ttl > 1700 && cache.ttl <= 1800);

// Users, whose ids are any text.
for (const id of ["auth0|a b", "a/b", "user@example.com"]) {
  const [one, other] = [await client(), await client()];
  const signed = pusher.authenticateUser(one.dotted, { id });
  assert.deepEqual(await one.request("socket:signin", signed), { event: "socket:signed_in", data: { user_id: id } });
  assert.deepEqual(await (await pusher.sendToUser(id, "note", { n: 5 })).json(), {});
  assert.deepEqual(await one.box.take(), { event: "note", data: { n: 5 } });
  assert.deepEqual(await (await pusher.terminateUserConnections(id)).json(), {});
  assert.equal(await one.closed, 4000);
  other.close();
}
assert.equal((await pusher.terminateUserConnections("absent")).status, 200);
const query = pusher.createSignedQueryString({ method: "GET", path: "/apps/1/channels" });
assert.equal((await fetch(`http://${host}:${port}/apps/1/channels?${query}`)).status, 200);
const event = { name: "posted", channel: "node-orders", data: "{}" };
assert.equal((await pusher.post({ path: "/events", body: event })).status, 200);
for (const each of [first, second]) assert.equal((await each.box.take()).event, "posted");

const refused = (promise, status) => assert.rejects(promise, (error) => error.status === status);
for (const name of ["socket:ping", "pusher:ping", "pusher_internal:x"]) {
  await refused(pusher.trigger("node-orders", name, {}), 400);
}
await refused(pusher.trigger("node-orders", "e", {}, { info: "colour" }), 400);
await refused(pusher.get({ path: "/channels/node-orders/users" }), 400);
await refused(pusher.get({ path: "/channels", params: { info: "user_count" } }), 400);
await refused(new Pusher({ appId: "1", key, secret: "other", host, port, useTLS: false }).trigger("a", "e", {}), 401);
await refused(new Pusher({ appId: "2", key, secret, host, port, useTLS: false }).trigger("a", "e", {}), 404);
first.close();
second.close();
console.log("pusher (Node): passed");
