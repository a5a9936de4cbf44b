// pusher (https://github.com/pusher/pusher-http-node), unmodified: it validates the server's webhooks.

import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import Pusher from "pusher";
import WebSocket from "ws";
import { Mailbox } from "./scenario.mjs";

const [key, secret] = process.env.CORECAST_TEST_KEY.split(":");
const pusher = new Pusher({ appId: "1", key, secret });
const other = new Pusher({ appId: "1", key, secret: "other" });

const [channel, room, cached] = ["node-hooks", "presence-node-hooks", "cache-node-hooks"];
const hooks = { [channel]: new Mailbox(), [room]: new Mailbox(), [cached]: new Mailbox() };
const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const rawBody = Buffer.concat(chunks).toString();
  const webhook = pusher.webhook({ headers: request.headers, rawBody });
  assert.ok(webhook.isValid(), rawBody);
  assert.ok(Math.abs(Date.now() - webhook.getTime()) < 60_000, rawBody);
  assert.ok(!other.webhook({ headers: request.headers, rawBody }).isValid());
  assert.ok(!pusher.webhook({ headers: request.headers, rawBody: `${rawBody} ` }).isValid());
  for (const event of webhook.getEvents()) {
    // Libraries of other languages fail where these are not strings.
    for (const member of ["data", "user_id", "socket_id"]) assert.ok(["string", "undefined"].includes(typeof event[member]));
    assert.equal(typeof event.channel, "string");
    // Channels of other tests are reported too.
    hooks[event.channel]?.put(event);
  }
  response.writeHead(204).end();
});
server.listen(0, "127.0.0.1");
await once(server, "listening");

// Changes the webhooks in the server's configuration.
async function configure(urls) {
  const events = "channel_occupied,channel_vacated,member_added,member_removed,client_event,cache_miss,connected";
  const rule = `[[channel]]\nmatch = "${room}"\nclient-events = "members"\n`;
  const text = `webhook = ${JSON.stringify(urls)}\nwebhook-events = "${events}"\n${rule}`;
  await writeFile(process.env.CORECAST_TEST_CONFIG, urls.length > 0 ? text : "");
  const admin = connect(process.env.CORECAST_ADMIN_SOCKET);
  admin.write('{"id":1,"command":"reload"}\n');
  const [line] = await once(createInterface(admin), "line");
  assert.ok(JSON.parse(line).ok, line);
  admin.destroy();
}

await configure([`http://127.0.0.1:${server.address().port}/hooks`]);
const socket = new WebSocket(process.env.CORECAST_URL);
const box = new Mailbox();
socket.on("message", (data) => box.put(JSON.parse(data.toString())));
const { socket_id } = (await box.take()).data;
const bits = BigInt(`0x${socket_id.replaceAll("-", "")}`);
const dotted = `${bits >> 64n}.${bits & 0xffffffffffffffffn}`;
const send = (event, rest) => socket.send(JSON.stringify({ event, ...rest }));
send("socket:subscribe", { data: { channel } });
assert.deepEqual(await hooks[channel].take(), { name: "channel_occupied", channel });
send("socket:unsubscribe", { data: { channel } });
assert.deepEqual(await hooks[channel].take(), { name: "channel_vacated", channel });

send("socket:subscribe", { data: { channel: room, ...pusher.authorizeChannel(dotted, room, { user_id: "12" }) } });
const ofRoom = (name, rest) => ({ name, channel: room, ...rest });
assert.deepEqual(await hooks[room].take(), ofRoom("channel_occupied"));
assert.deepEqual(await hooks[room].take(), ofRoom("member_added", { user_id: "12" }));
send("client-typing", { channel: room, data: { n: 1 } });
const said = { event: "client-typing", data: '{"n":1}', socket_id: dotted, user_id: "12" };
assert.deepEqual(await hooks[room].take(), ofRoom("client_event", said));
send("socket:subscribe", { data: { channel: cached } });
assert.deepEqual(await hooks[cached].take(), { name: "channel_occupied", channel: cached });
assert.deepEqual(await hooks[cached].take(), { name: "cache_miss", channel: cached });
send("socket:unsubscribe", { data: { channel: room } });
assert.deepEqual(await hooks[room].take(), ofRoom("member_removed", { user_id: "12" }));
assert.deepEqual(await hooks[room].take(), ofRoom("channel_vacated"));
await configure([]);
socket.close();
server.close();
server.closeAllConnections();
console.log("webhooks of pusher (Node): passed");
