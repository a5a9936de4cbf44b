// What pusher-js does when the server closes its connection: it comes back at once, later, or not at all.

import { createServer } from "node:net";
import { after, describe } from "node:test";
import { balance } from "./proxy.mjs";
import { scene } from "./scene.mjs";
import { end, serve } from "./server.mjs";
import { equal, errorsOf, ok, once, sleep, statesOf, subscribed } from "./suite/check.mjs";

/** Long enough for a machine that is held up to authorize in time. */
const AUTHORIZE_S = 8;

after(end);

/** Closes a client's connection as an operator does. */
function close(stage, client, members) {
  return stage.admin("disconnect", { socket_id: client.connection.socket_id, ...members });
}

/** Resolves when the client is connected again, with how long that took. */
async function back(client) {
  const since = Date.now();
  await once(client.connection, "connected");
  return Date.now() - since;
}

describe("closing", { concurrency: 8 }, () => {
  scene("the limit of connections: a client comes back until there is room", { options: ["--max-connections", "1"] }, async (stage) => {
    const first = await stage.connected();
    const second = stage.pusher();
    const [errors, states] = [errorsOf(second), statesOf(second)];
    for (let times = 0; times < 2; times += 1) equal((await errors.take()).error.data, { code: 4100, message: "Over capacity" });
    first.disconnect();
    await once(second.connection, "connected");
    ok(!states.includes("unavailable") && !states.includes("disconnected"), String(states));
  });

  scene("4200: fifty channels of all kinds are back", {}, async (stage) => {
    const client = await stage.member("u1", { name: "One" });
    const witness = await stage.member("u2");
    const prefixes = ["orders", "private-orders", "presence-orders", "private-encrypted-orders", "cache-orders"];
    const names = Array.from({ length: 50 }, (_, n) => `${stage.name(prefixes[n % 5])}-${n}`);
    const records = await Promise.all(names.map((name) => subscribed(client, name)));
    await Promise.all(names.filter((name) => name.startsWith("presence-")).map((name) => subscribed(witness, name)));
    const errors = errorsOf(client);
    const all = Promise.all(records.map(({ channel }) => once(channel, "pusher:subscription_succeeded")));
    await close(stage, client, { code: 4200 });
    await all;
    equal((await errors.take()).data.code, 4200);
    for (const { channel } of records) {
      const paid = once(channel, "paid");
      await stage.trigger(channel.name, "paid", channel.name);
      equal(await paid, channel.name);
      if (channel.members) equal([channel.members.count, channel.members.me.info], [2, { name: "One" }]);
    }
  });

  scene("codes that pusher-js comes back after", {}, async (stage) => {
    for (const [code, least] of [[4100, 1000], [4150, 1000], [4200, 0], [4299, 0]]) {
      const client = await stage.connected();
      const first = client.connection.socket_id;
      const returned = back(client);
      await close(stage, client, { code, reason: "for the test" });
      ok((await returned) >= least - 50, `${code}: back before ${least} ms`);
      ok(client.connection.socket_id !== first, "the same socket ID");
    }
  });

  scene("codes that end a client, 4000 among them, which would bring it to TLS", {}, async (stage) => {
    for (const [code, sent] of [[undefined, 4009], [4000, 4009], [4001, 4001], [4009, 4009], [4099, 4099], [4300, 4300], [4999, 4999]]) {
      const { client, attempts, stop } = await watched(stage);
      const errors = errorsOf(client);
      const disconnected = once(client.connection, "disconnected");
      await close(stage, client, code === undefined ? {} : { code, reason: "for the test" });
      await disconnected;
      equal((await errors.take()).data.code, sent);
      await sleep(300);
      equal([client.connection.state, attempts()], ["disconnected", 0], `${code}`);
      stop();
    }
  });

  scene("a message that is too long: the client is back after a second", {}, async (stage) => {
    const client = await stage.connected();
    const record = await subscribed(client, stage.name("private-orders"));
    const returned = back(client);
    record.channel.trigger("client-x", "x".repeat(65_536));
    ok((await returned) >= 950, "back before a second");
    await record.next("pusher:subscription_succeeded");
  });

  scene("a drain: all clients move to another server, one after the other", {}, async (stage, server) => {
    const other = await serve();
    const balancer = await balance(server);
    stage.port = balancer.port;
    const clients = await Promise.all(Array.from({ length: 100 }, () => stage.connected()));
    const states = clients.map(statesOf);
    const channels = await Promise.all(clients.map((client) => subscribed(client, stage.name("orders"))));
    balancer.to(other);
    const begun = Date.now();
    const times = Promise.all(channels.map(({ channel }) => once(channel, "pusher:subscription_succeeded").then(() => Date.now() - begun)));
    await server.ask({ command: "drain", over_ms: 5000 });
    const sorted = (await times).sort((one, other) => one - other);
    // Whatever holds the machine up makes these times longer, never shorter.
    ok(sorted.at(-1) > 3500, `the last is back after ${sorted.at(-1)} ms`);
    for (const [nth, least] of [[50, 1000], [75, 2000], [90, 2800]]) ok(sorted[nth] > least, `number ${nth} is back after ${sorted[nth]} ms`);
    for (const seen of states) equal(seen, ["connecting", "connected"]);
    equal((await other.ask({ command: "channel", channel: stage.name("orders") })).subscribers, 100);
    balancer.close();
    await other.stop("SIGKILL");
  });

  scene("a connection that authorizes nothing in time is closed for good", { options: ["--pusher-authorize-within", `${AUTHORIZE_S}`] }, async (stage) => {
    const secret = await stage.connected();
    await subscribed(secret, stage.name("private-orders"));
    const user = await stage.signedIn({ id: "ada" });
    const idle = stage.pusher();
    const open = stage.pusher();
    open.subscribe(stage.name("orders"));
    const ends = [idle, open].map(async (client) => {
      const errors = errorsOf(client);
      await once(client.connection, "disconnected");
      return (await errors.take()).data;
    });
    for (const end of ends) equal(await end, { code: 4009, message: "Connection not authorized within timeout" });
    await sleep(500);
    equal([secret.connection.state, user.connection.state], ["connected", "connected"]);
  });
});

/** A connected client, and how often something has connected to its port for TLS. */
async function watched(stage) {
  let counted = 0;
  const listener = createServer((socket) => {
    counted += 1;
    socket.destroy();
  });
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const client = await stage.connected({ wssPort: listener.address().port });
  counted = 0;
  return { client, attempts: () => counted, stop: () => listener.close() };
}
