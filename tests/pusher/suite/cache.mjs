// Cache channels of pusher-js: the last event, or a miss, follows the success.

import { equal, ok, subscribed } from "./check.mjs";

export const cache = {
  "a miss while it is empty, then the last event": async (stage) => {
    for (const prefix of ["cache", "private-cache"]) {
      const name = stage.name(prefix);
      const first = await subscribed(await stage.connected(), name);
      await first.expect("pusher:cache_miss", {});
      await stage.trigger(name, "price", { eur: 1 });
      await first.expect("price", { eur: 1 });
      await stage.trigger(name, "price", { eur: 2 });
      await first.expect("price", { eur: 2 });
      const second = await subscribed(await stage.connected(), name);
      await second.expect("price", { eur: 2 });
      await stage.admin("publish", { channel: name, event: "closed", data: "today" });
      for (const record of [first, second]) await record.expect("closed", "today");
      const third = await subscribed(await stage.connected(), name);
      await third.expect("closed", "today");
      await stage.trigger(name, "end", {});
      for (const record of [first, second, third]) await record.expect("end", {});
    }
  },

  "it outlives its subscribers, and needs none": async (stage) => {
    const name = stage.name("cache-alone");
    await stage.trigger(name, "price", "text");
    const client = await stage.connected();
    const record = await subscribed(client, name);
    await record.expect("price", "text");
    client.unsubscribe(name);
    const again = await subscribed(client, name);
    await again.expect("price", "text");
  },

  "what was not sent to one connection is remembered": async (stage) => {
    const name = stage.name("cache-excluded");
    const client = await stage.connected();
    const record = await subscribed(client, name);
    await record.next("pusher:cache_miss");
    await stage.trigger(name, "price", 1, { socket_id: client.connection.socket_id });
    const other = await subscribed(await stage.connected(), name);
    await other.expect("price", 1);
    await stage.trigger(name, "end", {});
    await record.expect("end", {});
  },

  "with presence: the members, then the event; client events are not remembered": async (stage) => {
    const name = stage.name("presence-cache");
    const one = await subscribed(await stage.member("u1"), name);
    await one.expect("pusher:cache_miss", {});
    await stage.trigger(name, "price", 1);
    await one.expect("price", 1);
    const two = await subscribed(await stage.member("u2"), name);
    equal(two.channel.members.count, 2);
    await two.expect("price", 1);
    await one.next("pusher:member_added");
    one.channel.trigger("client-x", {});
    await two.expect("client-x", {});
    const three = await subscribed(await stage.member("u3"), name);
    await three.expect("price", 1);
  },

  "encrypted": async (stage) => {
    const name = stage.name("private-encrypted-cache");
    const first = await subscribed(await stage.connected(), name);
    await first.expect("pusher:cache_miss", {});
    await stage.trigger(name, "price", { eur: 3 });
    await first.expect("price", { eur: 3 });
    const second = await subscribed(await stage.connected(), name);
    await second.expect("price", { eur: 3 });
  },

  "after a reconnect": async (stage) => {
    const name = stage.name("cache-back");
    const client = await stage.connected();
    const record = await subscribed(client, name);
    await record.next("pusher:cache_miss");
    client.disconnect();
    await stage.trigger(name, "price", 7);
    client.connect();
    await record.next("pusher:subscription_succeeded");
    await record.expect("price", 7);
  },
};

const JOINING = 100;
const PUBLISHED_AT_ONCE = 6;

/** Too much for a page beside others. */
export const cacheUnderLoad = {
  "a hundred join while events are published": async (stage) => {
    const name = stage.name("cache-flat-out");
    const last = JOINING * PUBLISHED_AT_ONCE;
    await stage.do("publishNumbers", name, 0, 1);
    const joining = [];
    const join = async () => subscribed(await stage.connected(), name);
    for (let n = 1; n <= last; n += PUBLISHED_AT_ONCE) {
      joining.push(join());
      await stage.do("publishNumbers", name, n, n + PUBLISHED_AT_ONCE);
    }
    const greetings = new Set();
    for (const record of await Promise.all(joining)) {
      let n = await record.next("n");
      greetings.add(n);
      while (n < last) await record.expect("n", (n += 1));
      record.empty();
    }
    ok(greetings.size > 1, "all joined before anything was published, or after everything");
  },
};
