// Presence channels of pusher-js: members, and who is refused.

import { equal, errorsOf, keptError, matches, once, Record, subscribed, until } from "./check.mjs";

/** The members that a channel shows. */
function shown({ channel }) {
  const all = [];
  channel.members.each((member) => all.push(member));
  return { count: channel.members.count, all: all.sort((one, other) => (one.id < other.id ? -1 : 1)) };
}

/** Subscribes with this channel_data, signed. */
function signing(stage, channel_data) {
  return {
    customHandler: async ({ socketId, channelName }, done) => done(null, { auth: await stage.do("signChannel", socketId, channelName, channel_data), channel_data }),
  };
}

export const presence = {
  "count, me, get and each": async (stage) => {
    const name = stage.name("presence-room");
    const one = await subscribed(await stage.member("u1", { name: "One" }), name);
    const { members } = one.channel;
    equal([members.count, members.myID, members.me, members.get("u2")], [1, "u1", { id: "u1", info: { name: "One" } }, null]);
    const two = await subscribed(await stage.member("u2", { name: "Two", tags: [1, "ü"] }), name);
    await one.expect("pusher:member_added", { id: "u2", info: { name: "Two", tags: [1, "ü"] } });
    const both = { count: 2, all: [{ id: "u1", info: { name: "One" } }, { id: "u2", info: { name: "Two", tags: [1, "ü"] } }] };
    equal([shown(one), shown(two)], [both, both]);
    equal(two.channel.members.me, { id: "u2", info: { name: "Two", tags: [1, "ü"] } });

    two.channel.pusher.unsubscribe(name);
    await one.expect("pusher:member_removed", { id: "u2", info: { name: "Two", tags: [1, "ü"] } });
    equal(shown(one), { count: 1, all: [both.all[0]] });
    const again = await subscribed(two.channel.pusher, name);
    await one.expect("pusher:member_added", { id: "u2", info: { name: "Two", tags: [1, "ü"] } });
    again.channel.pusher.disconnect();
    await one.next("pusher:member_removed");
    // A connection is not told of its own user's arrival and departure.
    two.empty();
    again.empty();
  },

  "members come in the order of joining, before anything else": async (stage) => {
    const name = stage.name("presence-order");
    const messages = [];
    const last = await stage.member("m9");
    last.connection.bind("message", (message) => message.channel === name && messages.push(message));
    for (const id of ["m3", "m1", "m2"]) await subscribed(await stage.member(id), name);
    await subscribed(last, name);
    const { data } = messages[0];
    equal(data.presence, { count: 4, ids: ["m3", "m1", "m2", "m9"], hash: { m3: {}, m1: {}, m2: {}, m9: {} } });
    await stage.trigger(name, "end", {});
    await until("the end", () => messages.length > 1);
    equal(messages.slice(1).map(({ event }) => event), ["end"]);
  },

  "a user with two connections is one member": async (stage) => {
    const name = stage.name("presence-tabs");
    const watcher = await subscribed(await stage.member("a"), name);
    const mark = async (label) => {
      await stage.trigger(name, "mark", label);
      await watcher.expect("mark", label);
    };
    const first = await subscribed(await stage.member("b", { tab: 1 }), name);
    await watcher.expect("pusher:member_added", { id: "b", info: { tab: 1 } });
    const second = await subscribed(await stage.member("b", { tab: 2 }), name);
    equal([shown(second).count, second.channel.members.get("b").info], [2, { tab: 1 }]);
    await mark("after the second");
    first.channel.pusher.disconnect();
    await until("two are subscribed", async () => (await stage.admin("channel", { channel: name })).subscribers === 2);
    await mark("after the first has left");
    equal(shown(watcher).count, 2);
    second.channel.pusher.unsubscribe(name);
    await watcher.expect("pusher:member_removed", { id: "b", info: { tab: 1 } });
    equal(shown(watcher).count, 1);
  },

  "user_info of every kind": async (stage) => {
    const name = stage.name("presence-infos");
    const watcher = await subscribed(await stage.member("watcher"), name);
    const infos = { none: undefined, true: true, text: "x", number: 1, list: [1], empty: {}, object: { a: { b: [] } } };
    for (const [id, info] of Object.entries(infos)) {
      const member = await subscribed(await stage.member(id, info), name);
      equal(member.channel.members.me, { id, info: info ?? {} });
      await watcher.expect("pusher:member_added", { id, info: info ?? {} });
    }
    const latest = await subscribed(await stage.member("latest"), name);
    for (const [id, info] of Object.entries(infos)) equal(latest.channel.members.get(id), { id, info: info ?? {} });
  },

  "a number and its text are one user": async (stage) => {
    const name = stage.name("presence-numbers");
    const watcher = await subscribed(await stage.member("w"), name);
    const number = await subscribed(await stage.connected({ channelAuthorization: signing(stage, '{"user_id":10}') }), name);
    await watcher.expect("pusher:member_added", { id: "10", info: {} });
    equal(number.channel.members.me.info, {});
    const text = await subscribed(await stage.member("10"), name);
    equal([shown(text).count, shown(text).all.map(({ id }) => id)], [2, ["10", "w"]]);
    const long = "12345678901234567890123";
    await subscribed(await stage.connected({ channelAuthorization: signing(stage, `{"user_id":${long}}`) }), name);
    await watcher.expect("pusher:member_added", { id: long, info: {} });
  },

  "channel_data that names no user is refused": async (stage) => {
    const bad = ["{}", '{"user_id":""}', '{"user_id":null}', '{"user_id":true}', '{"user_id":{}}', '{"user_id":["1"]}', "5", '"u1"', "[]", "{x", ""];
    const name = stage.name("presence-bad");
    const client = await stage.connected();
    const errors = errorsOf(client);
    const messages = [];
    client.connection.bind("message", (message) => message.event === "pusher:subscription_error" && messages.push(message));
    for (const channel_data of bad) {
      const auth = await stage.do("signChannel", client.connection.socket_id, name, channel_data);
      client.send_event("pusher:subscribe", { channel: name, auth, channel_data });
      await keptError(errors, null, /./);
      const { channel, data } = messages.pop();
      equal([channel, data.type, data.status], [name, "InvalidData", 400], channel_data);
    }
    const auth = await stage.do("signChannel", client.connection.socket_id, name);
    client.send_event("pusher:subscribe", { channel: name, auth });
    await keptError(errors, null, new RegExp(`^${name} is a presence channel and subscription must include channel_data$`));
    equal(messages.pop().data.status, 401);
    equal((await stage.do("get", `/channels/${name}`, {})).occupied, false);
  },

  "members that are too long are refused": async (stage) => {
    const name = stage.name("presence-long");
    for (const [data, expected] of [
      [{ user_id: "x".repeat(129) }, ["InvalidData", 400]],
      [{ user_id: "u1", user_info: "x".repeat(1024) }, ["LimitReached", 403]],
    ]) {
      const client = await stage.connected({ channelAuthorization: signing(stage, JSON.stringify(data)) });
      const errors = errorsOf(client);
      const record = new Record(client.subscribe(name));
      const { type, status } = await record.next("pusher:subscription_error");
      equal([type, status], expected);
      await keptError(errors, null, /./);
    }
    await subscribed(await stage.member("x".repeat(128), "x".repeat(1022)), name);
  },

  "a connection that is signed in joins as its user": async (stage) => {
    const name = stage.name("presence-signed-in");
    const id = stage.name("user");
    const client = await stage.signedIn({ id, user_info: { name: "Ada" } });
    const member = await subscribed(client, name);
    equal(member.channel.members.me, { id, info: { name: "Ada" } });
    const other = await subscribed(await stage.member("other"), name);
    equal(other.channel.members.get(id), { id, info: { name: "Ada" } });
    await member.next("pusher:member_added");
    const heard = new Promise((resolve) => other.channel.bind("client-hi", (...args) => resolve(args)));
    member.channel.trigger("client-hi", 1);
    equal(await heard, [1, { user_id: id }]);
  },

  "a wrong signature is refused before the data is looked at": async (stage) => {
    const client = await stage.connected({ fields: { user_id: "u1", forged: 1 } });
    const record = new Record(client.subscribe(stage.name("presence-forged")));
    const { type, status, error } = await record.next("pusher:subscription_error");
    equal([type, status], ["AuthError", 401]);
    matches(error, /^Invalid signature: /);
  },

  "a member that an operator unsubscribes has left, and is told nothing": async (stage) => {
    const name = stage.name("presence-removed");
    const [one, two] = [await subscribed(await stage.member("u1"), name), await subscribed(await stage.member("u2"), name)];
    await one.next("pusher:member_added");
    await stage.admin("unsubscribe", { socket_id: two.channel.pusher.connection.socket_id, channel: name });
    await one.expect("pusher:member_removed", { id: "u2", info: {} });
    await stage.trigger(name, "end", {});
    await one.expect("end", {});
    const witness = await subscribed(two.channel.pusher, stage.name("orders"));
    await stage.trigger(witness.channel.name, "end", {});
    await witness.expect("end", {});
    two.empty();
  },

  "after a reconnect the members are those that are there": async (stage) => {
    const name = stage.name("presence-back");
    const [one, two] = [await stage.member("u1"), await stage.member("u2")];
    const record = await subscribed(one, name);
    await subscribed(two, name);
    await record.next("pusher:member_added");
    one.disconnect();
    equal(record.channel.members.count, 0);
    two.unsubscribe(name);
    await subscribed(await stage.member("u3"), name);
    one.connect();
    await once(record.channel, "pusher:subscription_succeeded");
    equal(shown(record).all.map(({ id }) => id), ["u1", "u3"]);
  },
};
