// Options and rules of the server, as pusher-js sees them.

import { after, describe } from "node:test";
import { balance } from "./proxy.mjs";
import { rules, scene } from "./scene.mjs";
import { end } from "./server.mjs";
import { equal, errorsOf, keptError, ok, once, Record, sleep, subscribed, until } from "./suite/check.mjs";

after(end);

async function limitReached(client, name) {
  const errors = errorsOf(client);
  const { type, status } = await new Record(client.subscribe(name)).next("pusher:subscription_error");
  equal([type, status], ["LimitReached", 403]);
  await keptError(errors, null, /./);
}

/** Publishes once, which must be next. */
async function marked(stage, record) {
  await stage.trigger(record.channel.name, "mark", 1);
  await record.expect("mark", 1);
}

describe("options", { concurrency: 8 }, () => {
  scene("a presence channel that is full refuses users, and not connections", { options: ["--presence-members", "2"] }, async (stage) => {
    const name = stage.name("presence-full");
    const first = await subscribed(await stage.member("u1"), name);
    const second = await subscribed(await stage.member("u2"), name);
    await limitReached(await stage.member("u3"), name);
    await subscribed(await stage.member("u1"), name);
    second.channel.pusher.unsubscribe(name);
    await first.next("pusher:member_added");
    await first.next("pusher:member_removed");
    await subscribed(await stage.member("u3"), name);
  });

  scene("a connection may have so many subscriptions", { options: ["--max-subscriptions", "2"] }, async (stage) => {
    const client = await stage.connected();
    for (const name of ["a", "b"]) await subscribed(client, stage.name(name));
    await limitReached(client, stage.name("c"));
    client.unsubscribe(stage.name("a"));
    await subscribed(client, stage.name("d"));
  });

  scene("only paths below a configured one are served", { options: ["--path", "/ws", "--path", "/other"] }, async (stage) => {
    for (const wsPath of ["/ws", "/other"]) await stage.connected({ wsPath });
    const client = stage.pusher({ wsPath: "/nowhere" });
    await sleep(500);
    equal(client.connection.state, "connecting");
  });

  const rate = { options: ["--max-messages-per-second", "20"] };
  scene("messages beyond the rate are refused, and far beyond it end the connection", rate, async (stage) => {
    const [client, flooding] = [await stage.connected(), await stage.connected()];
    const [errors, ends] = [errorsOf(client), errorsOf(flooding)];
    const ping = (to, times) => Array.from({ length: times }, () => to.send_event("pusher:ping", {}));
    const { socket_id } = client.connection;
    // 200 may come at once, and as many again before the end. A stall of some seconds allows fewer than a hundred more.
    ping(client, 300);
    await keptError(errors, null, /rate limit/);
    const returned = once(flooding.connection, "connected");
    ping(flooding, 1000);
    await keptError(ends, null, /rate limit/);
    await returned;
    await until("the end", () => ends.arrived.some(({ data }) => data?.code === 4100));
    const answered = once(client, "pusher:pong");
    const again = setInterval(() => ping(client, 1), 500);
    await answered.finally(() => clearInterval(again));
    equal(client.connection.socket_id, socket_id);
  });

  const often = ["--max-subscribes-per-second", "4", "--max-subscriptions", "4"];
  scene("subscribing too often is slow, and refused never", { options: often }, async (stage) => {
    const client = await stage.connected();
    const errors = errorsOf(client);
    const begun = Date.now();
    // 40 may come at once.
    for (let times = 0; times < 23; times += 1) {
      await once(client.subscribe(stage.name("x")), "pusher:subscription_succeeded");
      client.unsubscribe(stage.name("x"));
    }
    await marked(stage, await subscribed(client, stage.name("x")));
    ok(Date.now() - begun > 1000, `47 requests within ${Date.now() - begun} ms`);
    equal(errors.arrived, []);
  });

  const cached = [{ match: "cache-short-*", "history-ttl": 1 }, { match: "cache-off-*", history: 0 }];
  scene("a cached event ends, and a rule takes the cache away", { options: rules(...cached) }, async (stage) => {
    const short = stage.name("cache-short");
    await stage.trigger(short, "price", 1);
    await until("the event is too old", async () => (await stage.admin("history", { channel: short })).messages.length === 0);
    const record = await subscribed(await stage.connected(), short);
    await record.expect("pusher:cache_miss", {});
    const off = stage.name("cache-off");
    await stage.trigger(off, "price", 1);
    await marked(stage, await subscribed(await stage.connected(), off));
  });

  scene("client events are off, and a rule allows them", { options: ["--pusher-client-events", "off", ...rules({ match: "private-talk-*", "client-events": "members" })] }, async (stage) => {
    const [one, two] = [await stage.connected(), await stage.connected()];
    for (const [prefix, allowed] of [["private-talk", true], ["private-quiet", false]]) {
      const [sender, receiver] = [await subscribed(one, stage.name(prefix)), await subscribed(two, stage.name(prefix))];
      const errors = errorsOf(one);
      sender.channel.trigger("client-x", 1);
      if (allowed) await receiver.expect("client-x", 1);
      else await keptError(errors, null, /./);
      await marked(stage, receiver);
    }
  });

  scene("client events are on, and a rule forbids them", { options: rules({ match: "private-quiet-*", "client-events": "off" }) }, async (stage) => {
    const client = await stage.connected();
    const errors = errorsOf(client);
    const { channel } = await subscribed(client, stage.name("private-quiet"));
    channel.trigger("client-x", 1);
    await keptError(errors, null, /./);
  });

  scene("watchlists are off", { options: ["--pusher-watchlist", "off"] }, async (stage) => {
    const ada = stage.name("ada");
    const watcher = await stage.signedIn({ id: stage.name("bob"), watchlist: [ada] });
    const [told, mine] = [new Record(watcher.user.watchlist), new Record(watcher.user)];
    await stage.signedIn({ id: ada });
    await stage.do("toUser", stage.name("bob"), "end", 1);
    await mine.expect("end", 1);
    told.empty();
  });

  scene("a user that returns within the grace has not left", { grace: 60 }, async (stage) => {
    const name = stage.name("presence-room");
    const watcher = await subscribed(await stage.member("u1"), name);
    const client = await stage.member("u2");
    const record = await subscribed(client, name);
    await watcher.next("pusher:member_added");
    client.disconnect();
    client.connect();
    await record.next("pusher:subscription_succeeded");
    equal(record.channel.members.count, 2);
    await marked(stage, watcher);
  });

  scene("a user that does not return has left after the grace", { grace: 1 }, async (stage) => {
    const name = stage.name("presence-room");
    const watcher = await subscribed(await stage.member("u1"), name);
    await subscribed(await stage.member("u2"), name);
    await watcher.next("pusher:member_added");
    const left = Date.now();
    stage.clients.at(-1).disconnect();
    await watcher.next("pusher:member_removed");
    ok(Date.now() - left >= 950, `after ${Date.now() - left} ms`);
  });

  scene("dead connections are found, and quiet ones stay", { options: ["--heart-interval", "1", "--heart-timeout", "8"] }, async (stage, server) => {
    const name = stage.name("presence-room");
    const watcher = await subscribed(await stage.member("u1"), name);
    const socket = stage.clients[0].connection.socket_id;
    const balancer = await balance(server);
    const dead = await stage.member("u2", undefined, { wsPort: balancer.port });
    await subscribed(dead, name);
    await watcher.expect("pusher:member_added", { id: "u2", info: {} });
    // Clients may stall for less than the timeout. The quiet one has been there for longer when the dead one is found.
    balancer.freeze();
    await watcher.next("pusher:member_removed");
    equal([stage.clients[0].connection.state, stage.clients[0].connection.socket_id], ["connected", socket]);
    balancer.close();
  });

  const counting = { options: ["--pusher-subscription-count", "on"] };
  scene("subscribers are counted, but those of presence channels", counting, async (stage) => {
    const name = stage.name("orders");
    const one = await subscribed(await stage.connected(), name);
    await one.expect("pusher:subscription_count", { subscription_count: 1 });
    const two = await subscribed(await stage.connected(), name);
    for (const record of [one, two]) await record.expect("pusher:subscription_count", { subscription_count: 2 });
    const three = await subscribed(await stage.connected(), name);
    for (const record of [one, two, three]) await record.expect("pusher:subscription_count", { subscription_count: 3 });
    equal(one.channel.subscriptionCount, 3);
    two.channel.pusher.unsubscribe(name);
    for (const record of [one, three]) await record.expect("pusher:subscription_count", { subscription_count: 2 });
    const presence = await subscribed(await stage.member("u1"), stage.name("presence-room"));
    await marked(stage, presence);
    const cache = stage.name("cache-orders");
    await stage.trigger(cache, "price", 1);
    const cached = await subscribed(await stage.connected(), cache);
    await cached.expect("price", 1);
    await cached.expect("pusher:subscription_count", { subscription_count: 1 });
  });

  scene("beyond a hundred subscribers they are counted every five seconds", counting, async (stage) => {
    const name = stage.name("crowd");
    const counts = [];
    const watcher = await stage.connected();
    watcher.subscribe(name).bind("pusher:subscription_count", ({ subscription_count }) => counts.push(subscription_count));
    const begun = Date.now();
    await Promise.all(Array.from({ length: 110 }, async () => subscribed(await stage.connected(), name)));
    await until("the last count", () => counts.at(-1) === 111);
    const often = counts.filter((count) => count > 100).length;
    ok(often <= (Date.now() - begun) / 5000 + 1, `${often} counts within ${Date.now() - begun} ms`);
  });
});
