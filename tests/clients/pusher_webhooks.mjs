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

const channel = "node-hooks";
const hooks = new Mailbox();
const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const rawBody = Buffer.concat(chunks).toString();
  const webhook = pusher.webhook({ headers: request.headers, rawBody });
  assert.ok(webhook.isValid(), rawBody);
  assert.ok(Math.abs(Date.now() - webhook.getTime()) < 60_000, rawBody);
  assert.ok(!other.webhook({ headers: request.headers, rawBody }).isValid());
  assert.ok(!pusher.webhook({ headers: request.headers, rawBody: `${rawBody} ` }).isValid());
  // Channels of other tests are reported too.
  for (const event of webhook.getEvents()) if (event.channel === channel) hooks.put(event);
  response.writeHead(204).end();
});
server.listen(0, "127.0.0.1");
await once(server, "listening");

// Changes the webhooks in the server's configuration.
async function configure(urls) {
  await writeFile(process.env.CORECAST_TEST_CONFIG, `webhook = ${JSON.stringify(urls)}\n`);
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
await box.take();
socket.send(JSON.stringify({ event: "socket:subscribe", data: { channel } }));
assert.deepEqual(await hooks.take(), { name: "channel_occupied", channel });
socket.send(JSON.stringify({ event: "socket:unsubscribe", data: { channel } }));
assert.deepEqual(await hooks.take(), { name: "channel_vacated", channel });
await configure([]);
socket.close();
server.close();
server.closeAllConnections();
console.log("webhooks of pusher (Node): passed");
