// Client events of pusher-js: who gets them, and which are refused.

import { equal, errorsOf, keptError, once, subscribed } from "./check.mjs";

/** What `trigger` takes, and what others get. */
const DATA = [{ a: 1 }, { text: '"\\ü🙂' }, [1, 2], "typing", '{"a":1}', 17, true, null];

/** At once, and far more than the ten that are allowed. */
const SENT = 100;

async function pair(stage, name) {
  const [one, two] = [await stage.connected(), await stage.connected()];
  return [await subscribed(one, name), await subscribed(two, name)];
}

export const clientEvents = {
  "all others of a private channel get them, in order": async (stage) => {
    const name = stage.name("private-room");
    const [one, two] = await pair(stage, name);
    const third = await subscribed(await stage.connected(), name);
    for (const data of DATA) one.channel.trigger("client-typing", data);
    one.channel.trigger("client-nothing");
    for (const record of [two, third]) {
      for (const data of DATA) await record.expect("client-typing", data === '{"a":1}' ? { a: 1 } : data);
      await record.expect("client-nothing", null);
    }
    await stage.trigger(name, "end", {});
    for (const record of [one, two, third]) await record.expect("end", {});
  },

  "on private channels they name no user, on presence channels the sender": async (stage) => {
    const name = stage.name("presence-room");
    const [one, two] = [await stage.member("u1", { name: "One" }), await stage.member("u2")];
    const [sender, receiver] = [await subscribed(one, name), two.subscribe(name)];
    await once(receiver, "pusher:subscription_succeeded");
    const heard = new Promise((resolve) => receiver.bind("client-hi", (...args) => resolve(args)));
    await sender.next("pusher:member_added");
    one.send_event("client-hi", { text: "hi", user_id: "u2" }, name);
    equal(await heard, [{ text: "hi", user_id: "u2" }, { user_id: "u1" }]);
    one.connection.send(JSON.stringify({ event: "client-hi", channel: name, data: {}, user_id: "u2" }));
    equal((await new Promise((resolve) => receiver.bind("client-hi", (...args) => resolve(args))))[1], { user_id: "u1" });

    const [first, second] = await pair(stage, stage.name("private-room"));
    const anonymous = new Promise((resolve) => second.channel.bind("client-hi", (...args) => resolve(args)));
    first.channel.trigger("client-hi", {});
    equal(await anonymous, [{}, {}]);
  },

  "another connection of the sender's user gets them": async (stage) => {
    const name = stage.name("presence-tabs");
    const [one, two] = [await stage.member("u1"), await stage.member("u1")];
    const [sender, receiver] = [await subscribed(one, name), await subscribed(two, name)];
    sender.channel.trigger("client-hi", 1);
    await receiver.expect("client-hi", 1);
  },

  "refused where they are not allowed, and the connection stays": async (stage) => {
    const client = await stage.connected();
    const errors = errorsOf(client);
    const names = { public: stage.name("public"), other: stage.name("private-other"), encrypted: stage.name("private-encrypted-x") };
    const witnesses = [];
    for (const name of Object.values(names)) witnesses.push(await subscribed(await stage.connected(), name));
    await subscribed(client, names.public);
    await subscribed(client, names.encrypted);
    client.channel(names.public).trigger("client-x", {});
    await keptError(errors, null, /./);
    client.send_event("client-x", {}, names.other);
    await keptError(errors, null, new RegExp(`^Cannot broadcast client event \\(connection not subscribed to channel ${names.other}\\)$`));
    client.send_event("client-x", {}, names.encrypted);
    await keptError(errors, null, /./);
    client.send_event("client-x", {});
    await keptError(errors, null, /./);
    for (const witness of witnesses) {
      await stage.trigger(witness.channel.name, "end", {});
      await witness.expect("end", {});
    }
  },

  "refused where they are too long": async (stage) => {
    const name = stage.name("private-room");
    const [one, two] = await pair(stage, name);
    const errors = errorsOf(one.channel.pusher);
    one.channel.trigger(`client-${"x".repeat(194)}`, 1);
    await keptError(errors, null, /./);
    one.channel.trigger("client-x", "x".repeat(10 * 1024 + 1));
    await keptError(errors, null, /./);
    one.channel.trigger(`client-${"x".repeat(193)}`, 2);
    await two.expect(`client-${"x".repeat(193)}`, 2);
    one.channel.trigger("client-x", "x".repeat(10 * 1024 - 2));
    await two.expect("client-x", "x".repeat(10 * 1024 - 2));
  },

  "more than ten at once are refused with 4301": async (stage) => {
    const name = stage.name("private-flood");
    const [one, two] = await pair(stage, name);
    const errors = errorsOf(one.channel.pusher);
    const told = once(one.channel, "pusher:error");
    for (let n = 0; n < SENT; n += 1) one.channel.trigger("client-n", n);
    const { type, data } = await errors.take("an error");
    equal([type, data.code, data.message], ["PusherError", 4301, "Client event rejected due to rate limit"]);
    equal((await told).code, 4301);
    await stage.trigger(name, "end", {});
    let delivered = 0;
    for (;;) {
      const [event, n] = await two.box.take();
      if (event === "end") break;
      equal([event, n >= delivered], ["client-n", true]);
      delivered += 1;
    }
    equal([delivered >= 10, delivered < SENT, one.channel.pusher.connection.state], [true, true, "connected"]);
  },
};
