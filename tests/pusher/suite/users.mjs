// Users of pusher-js: signing in, events to users, terminated connections, watchlists.

import { equal, errorsOf, keptError, once, Record, subscribed, timeout, until } from "./check.mjs";

/** Signs in with this data, signed without a look at it, and returns what the server answers. */
async function raw(stage, client, user_data, auth) {
  const signed = auth ?? (await stage.do("signUser", client.connection.socket_id, user_data));
  client.send_event("pusher:signin", { auth: signed, user_data });
}

export const users = {
  "signing in, and events to the user": async (stage) => {
    const id = stage.name("ada");
    const [one, two, other] = [await stage.signedIn({ id, user_info: { name: "Ada" } }), await stage.signedIn({ id }), await stage.signedIn({ id: stage.name("eve") })];
    const records = [one, two].map((client) => new Record(client.user));
    const none = new Record(other.user);
    for (const data of [{ a: 1 }, "text", 17]) {
      await stage.do("toUser", id, "told", data);
      for (const record of records) await record.expect("told", data);
    }
    // The connection is in no channel that applications see.
    equal(one.allChannels(), []);
    const { channels } = await stage.do("get", "/channels", {});
    equal(Object.keys(channels).filter((name) => name.startsWith("#")), []);
    await stage.do("toUser", stage.name("eve"), "told", "end");
    await none.expect("told", "end");
  },

  "by a function, and before the connection is there": async (stage) => {
    const id = stage.name("ada");
    const user_data = JSON.stringify({ id });
    const userAuthentication = { customHandler: async ({ socketId }, done) => done(null, { auth: await stage.do("signUser", socketId, user_data), user_data }) };
    const client = stage.pusher({ userAuthentication });
    const record = new Record(client.user);
    client.signin();
    await timeout("signing in", client.user.signinDonePromise);
    equal(client.user.user_data, { id });
    await stage.do("toUser", id, "told", 1);
    await record.expect("told", 1);
  },

  "after a reconnect pusher-js signs in again": async (stage) => {
    const id = stage.name("ada");
    const client = await stage.signedIn({ id });
    const record = new Record(client.user);
    client.disconnect();
    equal(client.user.user_data, null);
    client.connect();
    await until("signed in", () => client.user.user_data !== null);
    await stage.do("toUser", id, "told", 1);
    await record.expect("told", 1);
  },

  "ids of any text": async (stage) => {
    for (const id of ["auth0|7", "ada@example.com", "a b/c?d", "ü 🙂", "x".repeat(128)].map((id) => id.slice(0, 110) + stage.label)) {
      const client = await stage.signedIn({ id });
      const record = new Record(client.user);
      await stage.do("toUser", id, "told", id);
      await record.expect("told", id);
    }
  },

  "the user's channel may be subscribed to by itself, again and again": async (stage) => {
    const id = stage.name("ada");
    const channel = `#server-to-user-${id}`;
    const messages = [];
    const client = await stage.connected({ user: { id } });
    client.connection.bind("message", (message) => message.channel === channel && messages.push(message));
    client.signin();
    await timeout("signing in", client.user.signinDonePromise);
    for (let n = 0; n < 3; n += 1) client.send_event("pusher:subscribe", n === 0 ? { channel } : { channel, auth: "" });
    // With that of pusher-js itself.
    await until("four successes", () => messages.length === 4);
    for (const message of messages) equal(message, { event: "pusher_internal:subscription_succeeded", channel, data: {} });
    await stage.do("toUser", id, "told", 1);
    await until("the event", () => messages.length > 4);
    equal(messages.slice(4), [{ event: "told", channel, data: 1 }]);
  },

  "what is not signed, or names no user, is refused, and the connection stays": async (stage) => {
    const id = stage.name("ada");
    const client = await stage.connected({ user: { id } });
    const errors = errorsOf(client);
    const good = JSON.stringify({ id });
    for (const [data, auth] of [[good, "app-one:00"], [good, "nope:00"], [good, ""], ['{"id":5}'], ['{"id":""}'], ["{}"], ["{x"], ["5"]]) {
      await raw(stage, client, data, auth);
      await keptError(errors, null, /./);
    }
    client.send_event("pusher:signin", {});
    await keptError(errors, null, /./);
    // Then it signs in, twice as one, and not as another.
    client.signin();
    await timeout("signing in", client.user.signinDonePromise);
    const record = new Record(client);
    await raw(stage, client, good);
    await record.expect("pusher:signin_success", { user_data: good });
    await raw(stage, client, JSON.stringify({ id: stage.name("eve") }));
    await keptError(errors, null, /./);
    await stage.do("toUser", id, "told", 1);
    await until("the event", () => record.box.arrived.some(([event]) => event === "told"));
    equal(client.connection.state, "connected");
  },

  "terminated connections are closed for good, those of others stay": async (stage) => {
    const id = stage.name("ada");
    const clients = [await stage.signedIn({ id }), await stage.signedIn({ id })];
    const presence = await subscribed(await stage.member(id), stage.name("presence-room"));
    const other = await stage.signedIn({ id: stage.name("eve") });
    const errors = clients.map(errorsOf);
    const ends = clients.map((client) => once(client.connection, "disconnected"));
    await stage.do("terminate", id);
    await Promise.all(ends);
    for (const box of errors) equal((await box.take()).data.code, 4009);
    // Only those that are signed in as the user.
    await stage.trigger(presence.channel.name, "end", {});
    await presence.expect("end", {});
    equal(other.connection.state, "connected");
    clients[0].connect();
    await until("signed in again", () => clients[0].user.user_data !== null);
    await stage.do("terminate", stage.name("absent"));
  },

  "watchlists: who is online, who comes and goes": async (stage) => {
    const [ada, bob, eve] = ["ada", "bob", "eve"].map((name) => stage.name(name));
    const present = await stage.signedIn({ id: bob });
    const watcher = await stage.connected({ user: { id: ada, watchlist: [bob, eve] } });
    const record = new Record(watcher.user.watchlist);
    watcher.signin();
    await record.expect("online", { name: "online", user_ids: [bob] });
    await record.expect("offline", { name: "offline", user_ids: [eve] });
    const first = await stage.signedIn({ id: eve });
    await record.expect("online", { name: "online", user_ids: [eve] });
    const second = await stage.signedIn({ id: eve });
    first.disconnect();
    present.disconnect();
    await record.expect("offline", { name: "offline", user_ids: [bob] });
    second.disconnect();
    await record.expect("offline", { name: "offline", user_ids: [eve] });
    record.empty();
  },

  "a watchlist of more than a hundred: 4302, and the first hundred": async (stage) => {
    const ids = Array.from({ length: 101 }, (_, n) => stage.name(`w${n}`));
    const watcher = await stage.connected({ user: { id: stage.name("ada"), watchlist: ids } });
    const errors = errorsOf(watcher);
    const record = new Record(watcher.user.watchlist);
    watcher.signin();
    await keptError(errors, 4302, /./);
    await record.expect("offline", { name: "offline", user_ids: ids.slice(0, 100) });
    await stage.signedIn({ id: ids[100] });
    await stage.signedIn({ id: ids[99] });
    await record.expect("online", { name: "online", user_ids: [ids[99]] });
    equal(watcher.user.user_data.id, stage.name("ada"));
  },
};
