// Connecting, states, errors and heartbeats of pusher-js.

import { equal, errorsOf, keptError, matches, ok, once, Record, subscribed, until } from "./check.mjs";

export const connection = {
  "states lead to connected, with a socket ID of digits and a dot": async (stage) => {
    const client = stage.pusher();
    const states = [];
    client.connection.bind("state_change", ({ previous, current }) => states.push([previous, current]));
    const { socket_id } = await once(client.connection, "connected");
    equal(states.at(-1), ["connecting", "connected"]);
    equal(client.connection.state, "connected");
    matches(socket_id, /^\d+\.\d+$/);
    equal(client.connection.socket_id, socket_id);
    const other = await stage.connected();
    ok(other.connection.socket_id !== socket_id, "two connections have one socket ID");
  },

  "the activity timeout is the server's": async (stage) => {
    const client = await stage.connected({ activityTimeout: 3_600_000 });
    equal(client.connection.activityTimeout, 120_000);
  },

  "pings are answered, and a quiet connection stays": async (stage) => {
    const client = stage.pusher({ activityTimeout: 300, pongTimeout: 15_000 });
    const { socket_id } = await once(client.connection, "connected");
    for (let pongs = 0; pongs < 3; pongs += 1) await once(client, "pusher:pong");
    equal([client.connection.state, client.connection.socket_id], ["connected", socket_id]);
    ok(client.send_event("pusher:ping", {}), "not sent");
    equal(await once(client, "pusher:pong"), {});
  },

  "disconnect ends the connection, connect brings all channels back": async (stage) => {
    const client = await stage.connected();
    const first = client.connection.socket_id;
    const name = stage.name("back");
    const record = await subscribed(client, name);
    client.disconnect();
    equal(client.connection.state, "disconnected");
    equal(record.channel.subscribed, false);
    await until("the channel has no subscribers", async () => (await stage.admin("channel", { channel: name })).subscribers === 0);
    client.connect();
    await record.next("pusher:subscription_succeeded");
    ok(client.connection.socket_id !== first, "the socket ID is the earlier one's");
    await stage.trigger(name, "paid", { id: 1 });
    await record.expect("paid", { id: 1 });
  },

  "an unknown key is refused for good": async (stage) => {
    const client = stage.pusher({ key: "nope" });
    const errors = errorsOf(client);
    await once(client.connection, "disconnected");
    const { error } = await errors.take("an error");
    equal(error, { type: "PusherError", data: { code: 4001, message: "App key nope does not exist" } });
    equal(client.connection.state, "disconnected");
  },

  "another path is refused for good": async (stage) => {
    const client = stage.pusher({ key: "app-one/further" });
    const errors = errorsOf(client);
    await once(client.connection, "disconnected");
    equal((await errors.take()).error.data, { code: 4005, message: "Path not found" });
  },

  "the key may be escaped, and a prefix precede the path": async (stage) => {
    await stage.connected({ key: "app%2Done" });
    await stage.connected({ wsPath: "/some/prefix" });
  },

  "errors keep the connection": async (stage) => {
    const client = await stage.connected();
    const errors = errorsOf(client);
    client.send_event("foo", {});
    await keptError(errors, null, /'foo'/);
    client.send_event("pusher:unknown", {});
    await keptError(errors, null, /'pusher:unknown'/);
    client.send_event("pusher:subscribe", { channel: 17 });
    await keptError(errors, null, /./);
    client.send_event("pusher:subscribe");
    await keptError(errors, null, /./);
    client.connection.send("{");
    await keptError(errors, null, /./);
    client.connection.send("[]");
    await keptError(errors, null, /./);
    client.send_event("pusher:unsubscribe", { channel: stage.name("never-subscribed") });
    client.send_event("pusher:ping", "");
    await once(client, "pusher:pong");
    equal([client.connection.state, errors.arrived], ["connected", []]);
  },

  "data of requests may be a string": async (stage) => {
    const client = await stage.connected();
    const record = new Record(client);
    const name = stage.name("string");
    const messages = [];
    client.connection.bind("message", (message) => messages.push(message));
    client.send_event("pusher:subscribe", JSON.stringify({ channel: name }));
    await until("an answer", () => messages.length > 0);
    equal(messages, [{ event: "pusher_internal:subscription_succeeded", channel: name, data: {} }]);
    await stage.trigger(name, "paid", 1);
    await record.expect("paid", 1);
  },
};
