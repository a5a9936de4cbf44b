// pusher (https://github.com/pusher/pusher-http-node), unmodified: publishes, lists, signs.

import assert from "node:assert/strict";
import { once } from "node:events";
import Pusher from "pusher";
import WebSocket from "ws";
import { forged, Mailbox } from "./scenario.mjs";

const [key, secret] = process.env.CORECAST_TEST_KEY.split(":");
const [host, port] = process.env.CORECAST_HTTP.split(":");
const pusher = new Pusher({ appId: "1", key, secret, host, port, useTLS: false });

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
  return { box, dotted, request, close: () => socket.close() };
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

const refused = (promise, status) => assert.rejects(promise, (error) => error.status === status);
await refused(pusher.trigger("node-orders", "socket:ping", {}), 400);
await refused(new Pusher({ appId: "1", key, secret: "other", host, port, useTLS: false }).trigger("a", "e", {}), 401);
await refused(new Pusher({ appId: "2", key, secret, host, port, useTLS: false }).trigger("a", "e", {}), 404);
first.close();
second.close();
console.log("pusher (Node): passed");
