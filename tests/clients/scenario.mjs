// The test of every Node client: the echo path, then publish/subscribe. Each client has an adapter:
//   name, connect(url) → { compressed, send(textOrBytes), receive() → string | Uint8Array | { code, reason },
//                          ping(payload) where the client can, close(code, reason) → { code } }

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import net from "node:net";
import readline from "node:readline";

const { CORECAST_URL: URL, CORECAST_BIG_URL: BIG_URL, CORECAST_ADMIN_SOCKET: ADMIN_SOCKET } = process.env;
const [KEY, SECRET] = process.env.CORECAST_TEST_KEY.split(":");
const ECHO = "/echo";
const MESSAGE_BYTES_MAX = 64 * 1024;
const BIG_BYTES_MAX = 16 * 1024 * 1024;
const TIMEOUT_MS = 60_000;

/** A queue of messages that have arrived, or of calls of `take` that wait for one. */
export class Mailbox {
  #messages = [];
  #takers = [];

  put(message) {
    const taker = this.#takers.shift();
    if (taker) taker(message);
    else this.#messages.push(message);
  }

  take() {
    if (this.#messages.length > 0) return Promise.resolve(this.#messages.shift());
    return new Promise((resolve) => this.#takers.push(resolve));
  }
}

/** The admin socket: one JSON object a line in each direction. */
class Admin {
  #replies = new Mailbox();
  #socket = net.connect(ADMIN_SOCKET);

  constructor() {
    readline.createInterface({ input: this.#socket }).on("line", (line) => this.#replies.put(JSON.parse(line)));
  }

  async ask(...requests) {
    this.#socket.write(requests.map((request) => JSON.stringify(request) + "\n").join(""));
    const replies = [];
    for (const _ of requests) replies.push(await this.#replies.take());
    assert(replies.every((reply) => reply.ok), JSON.stringify(replies.find((reply) => !reply.ok)));
    return replies;
  }

  end() {
    this.#socket.end();
  }
}

const publish = (channel, data) => ({ command: "publish", channel, event: "count", data });

async function echo(client) {
  let connection = await client.connect(URL + ECHO);
  assert.equal(connection.compressed, false);
  const texts = ["", '{"event":"socket:ping","data":{"id":1}}', "语言 🦀"];
  for (const text of [...texts, ...[125, 126, MESSAGE_BYTES_MAX].map((length) => "*".repeat(length))]) {
    connection.send(text);
    assert.equal(await connection.receive(), text);
  }
  for (const length of [0, 1, 126, 65_535, MESSAGE_BYTES_MAX]) {
    connection.send(new Uint8Array(length).fill(0xfe));
    assert.deepEqual(await connection.receive(), new Uint8Array(length).fill(0xfe));
  }
  await connection.ping?.("are you there");
  for (let number = 0; number < 1000; number++) connection.send(`pipelined ${number}`);
  for (let number = 0; number < 1000; number++) assert.equal(await connection.receive(), `pipelined ${number}`);
  assert.equal((await connection.close(4321, "enough")).code, 4321);

  connection = await client.connect(URL + ECHO);
  connection.send("*".repeat(MESSAGE_BYTES_MAX + 1));
  assert.equal((await connection.receive()).code, 1009);

  connection = await client.connect(BIG_URL + ECHO);
  connection.send(new Uint8Array(BIG_BYTES_MAX).fill(7));
  const back = await connection.receive();
  assert.equal(back.length, BIG_BYTES_MAX);
  assert(back.every((byte) => byte === 7));
  assert.equal((await connection.close(1000, "")).code, 1000);
}

const SOCKET_ID = /^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{1,20}\.[0-9]{1,20})$/;

/** Signs as a backend does for a user who may join `mine` only. */
export function sign(socketId, channel, mine) {
  // An unchecked socketId or channel could make this the signature of another channel, or of an HTTP request.
  if (!SOCKET_ID.test(socketId) || !/^private-[A-Za-z0-9_=@,.;/-]{0,192}$/.test(channel) || channel !== mine) {
    throw new Error("refused");
  }
  return `${KEY}:${createHmac("sha256", SECRET).update(`${socketId}:${channel}`).digest("hex")}`;
}

/** Pairs of a socket_id and a channel that must not be signed for a user who may join `mine` only. */
export const forged = (mine) => [
  ["1234.1234:private-victim", mine],
  [`POST\n/apps/1/events\nauth_key=${KEY}&auth_timestamp=1&auth_version=1.0&body_md5=0&z=`, mine],
  ["1234.1234\n", mine],
  ["1234.1234", `${mine}:private-victim`],
];

async function channels(client) {
  const [open, closed] = [`news:${client.name}`, `private-news-${client.name}`];
  const connection = await client.connect(`${URL}/anything`);
  const ask = (event, data) => connection.send(JSON.stringify({ event, data }));
  const heard = async () => JSON.parse(await connection.receive());
  const fails = async (event, code, channel) => {
    const reply = await heard();
    assert.deepEqual([reply.event, reply.channel, reply.data.code], [event, channel, code]);
    return reply.data.error;
  };
  const fence = async () => {
    ask("socket:ping", { id: "fence" });
    assert.deepEqual(await heard(), { event: "socket:pong", data: { reply: "fence" } });
  };

  const connected = await heard();
  assert.equal(connected.event, "socket:connected");
  assert.deepEqual(connected.data.heart, { interval: 30, timeout: 25 });

  ask("socket:subscribe", { channel: open });
  assert.deepEqual(await heard(), { event: "socket:subscribed", channel: open });
  ask("socket:subscribe", { channel: closed });
  await fails("socket:subscribe.error", "auth_required", closed);
  ask("socket:subscribe", { channel: closed, auth: `${KEY}:${"0".repeat(64)}` });
  await fails("socket:subscribe.error", "auth_invalid", closed);
  for (const [socketId, channel] of forged(closed)) assert.throws(() => sign(socketId, channel, closed), /^Error: refused$/);
  ask("socket:subscribe", { channel: closed, auth: sign(connected.data.socket_id, closed, closed) });
  assert.deepEqual(await heard(), { event: "socket:subscribed", channel: closed });

  const admin = new Admin();
  const numbers = Array.from({ length: 1000 }, (_, number) => number);
  const replies = await admin.ask(...numbers.map((number) => publish(open, number)));
  assert(replies.every((reply) => reply.subscribers === 1));
  for (const number of numbers) assert.deepEqual(await heard(), { event: "count", channel: open, data: number });
  await admin.ask(publish(closed, { to: "members" }));
  assert.deepEqual(await heard(), { event: "count", channel: closed, data: { to: "members" } });

  ask("socket:unsubscribe", { channel: open });
  assert.deepEqual(await heard(), { event: "socket:unsubscribed", channel: open });
  assert.equal((await admin.ask(publish(open, "unheard")))[0].subscribers, 0);
  admin.end();
  await fence();
  await connection.ping?.("");

  ask("socket:unsubscribe", { channel: open });
  const notSubscribed = await fails("socket:unsubscribe.error", "not_subscribed", open);
  assert.equal(notSubscribed, "the connection is not subscribed to the channel");
  ask("socket:subscribe", { channel: closed });
  const already = await fails("socket:subscribe.error", "already_subscribed", closed);
  assert.equal(already, "the connection is already subscribed to the channel");
  ask("socket:subscribe", { channel: "no spaces" });
  await fails("socket:subscribe.error", "invalid_channel", "no spaces");
  ask("socket:shout", {});
  await fails("socket:error", "unknown_event");
  connection.send("{");
  await fails("socket:error", "malformed_message");
  await fence();
  assert.equal((await connection.close(1000, "done")).code, 1000);
}

async function endings(client) {
  const open = async () => {
    const connection = await client.connect(URL);
    return [connection, JSON.parse(await connection.receive()).data.socket_id];
  };
  let [connection, socketId] = await open();
  connection.send(new Uint8Array(3));
  assert.equal((await connection.receive()).code, 1003);
  [connection] = await open();
  connection.send("*".repeat(MESSAGE_BYTES_MAX + 1));
  assert.equal((await connection.receive()).code, 1009);
  [connection, socketId] = await open();
  const admin = new Admin();
  await admin.ask({ command: "disconnect", socket_id: socketId, code: 4003, reason: "banned" });
  admin.end();
  assert.deepEqual(await connection.receive(), { code: 4003, reason: "banned" });
}

export async function run(client) {
  const timeout = setTimeout(() => {
    console.error(`${client.name}: not within ${TIMEOUT_MS} ms`);
    process.exit(1);
  }, TIMEOUT_MS);
  const parts = [echo, channels, endings];
  for (const part of parts) await part(client);
  clearTimeout(timeout);
  console.log(`${client.name}: ${parts.length} passed, 0 failed`);
}
