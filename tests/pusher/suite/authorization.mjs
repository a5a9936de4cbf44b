// Private channels of pusher-js: every way to authorize them, and refusals.

import { equal, errorsOf, keptError, matches, once, Record, subscribed } from "./check.mjs";

/** Publishes once, which must arrive. */
async function receives(stage, record) {
  await stage.trigger(record.channel.name, "paid", { id: 1 });
  await record.expect("paid", { id: 1 });
}

async function refused(stage, client, name, { status, type = "AuthError", error, code = null }) {
  const errors = errorsOf(client);
  const record = new Record(client.subscribe(name));
  const told = await record.next("pusher:subscription_error");
  equal([told.type, told.status], [type, status], told.error);
  matches(told.error, error);
  await keptError(errors, code, error);
  client.send_event("pusher:ping", {});
  await once(client, "pusher:pong");
  equal(client.connection.state, "connected");
}

export const authorization = {
  "by an endpoint, with fields and headers": async (stage) => {
    const client = await stage.connected({
      channelAuthorization: {
        endpoint: `${stage.backend}/auth`,
        transport: "ajax",
        params: { a: 1 },
        headers: { "X-Token": "open-sesame" },
      },
    });
    const record = await subscribed(client, stage.name("private-token-x"));
    equal(record.data, {});
    await receives(stage, record);
  },

  "by an endpoint, with fields and headers made for each request": async (stage) => {
    let asked = 0;
    const client = await stage.connected({
      channelAuthorization: {
        endpoint: `${stage.backend}/auth`,
        transport: "ajax",
        paramsProvider: () => ({ nth: (asked += 1) }),
        headersProvider: () => ({ "X-Token": asked > 0 ? "open-sesame" : "too early" }),
      },
    });
    await receives(stage, await subscribed(client, stage.name("private-token-x")));
    await receives(stage, await subscribed(client, stage.name("private-token-y")));
    equal(asked, 2);
  },

  "by the older options: authEndpoint, auth, authTransport": async (stage) => {
    const client = await stage.connected({
      ...older(stage, { authTransport: "ajax", auth: { params: { a: 1 }, headers: { "X-Token": "open-sesame" } } }),
    });
    await receives(stage, await subscribed(client, stage.name("private-token-x")));
  },

  "by a function, the newer and the older way": async (stage) => {
    const newer = await stage.connected({
      channelAuthorization: {
        customHandler: async ({ socketId, channelName }, done) => done(null, { auth: await stage.do("signChannel", socketId, channelName) }),
      },
    });
    await receives(stage, await subscribed(newer, stage.name("private-newer")));
    const authorizer = (channel, options) => ({
      authorize: async (socketId, done) => {
        equal(options.authEndpoint, `${stage.backend}/auth`);
        done(null, { auth: await stage.do("signChannel", socketId, channel.name) });
      },
    });
    const former = await stage.connected(older(stage, { authorizer }));
    await receives(stage, await subscribed(former, stage.name("private-older")));
  },

  "by any live key pair": async (stage) => {
    const rotated = await stage.connected({ fields: { rotated: 1 } });
    await receives(stage, await subscribed(rotated, stage.name("private-rotated")));
    const second = await stage.connected({ key: "app-two" });
    await receives(stage, await subscribed(second, stage.name("private-first")));
  },

  "signatures over channel_data, and in upper case": async (stage) => {
    const name = stage.name("private-data");
    const handler = (channel_data, change) => async ({ socketId, channelName }, done) => {
      const auth = await stage.do("signChannel", socketId, channelName, channel_data);
      done(null, { auth: change(auth), channel_data });
    };
    const upper = (auth) => auth.replace(/:.*/, (hex) => hex.toUpperCase());
    for (const data of ["", "any text", '{"user_id":"1"}']) {
      const client = await stage.connected({ channelAuthorization: { customHandler: handler(data, upper) } });
      await subscribed(client, name);
    }
    const client = await stage.connected({
      channelAuthorization: {
        customHandler: async ({ socketId, channelName }, done) => done(null, { auth: await stage.do("signChannel", socketId, channelName), channel_data: "unsigned" }),
      },
    });
    await refused(stage, client, name, { status: 401, error: /^Invalid signature: Expected HMAC SHA256 hex digest of [\d.]+:private-data-\S+:unsigned, but got [0-9a-f]{64}$/ });
  },

  "the backend refuses: pusher-js tells its user, and asks no server": async (stage) => {
    const client = await stage.connected();
    const record = new Record(client.subscribe(stage.name("private-refused-x")));
    const { type, status } = await record.next("pusher:subscription_error");
    equal([type, status], ["AuthError", 403]);
  },

  "wrong signatures are refused, and a reconnect asks again": async (stage) => {
    const fields = { forged: 1 };
    const client = await stage.connected({ fields });
    const name = stage.name("private-forged");
    await refused(stage, client, name, { status: 401, error: /^Invalid signature: Expected HMAC SHA256 hex digest of [\d.]+:private-forged-\S+, but got [0-9a-f]{64}$/ });
    delete fields.forged;
    client.disconnect();
    client.connect();
    const record = new Record(client.channel(name));
    await record.next("pusher:subscription_succeeded");
    await receives(stage, Object.assign(record, { channel: client.channel(name) }));
  },

  "unknown keys, and what is not a signature": async (stage) => {
    const cases = [
      ["nope:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", /^Invalid key in subscription auth data: 'nope'$/],
      ["app-one:", /./],
      ["app-one", /./],
      ["app-one:xyz", /./],
      ["", /./],
      [":", /./],
      [null, /./],
      [undefined, /./],
    ];
    for (const [auth, error] of cases) {
      const client = await stage.connected({ channelAuthorization: { customHandler: (_, done) => done(null, { auth }) } });
      await refused(stage, client, stage.name("private-unsigned"), { status: 401, error });
    }
  },

  "channels of a user are closed to other users": async (stage) => {
    const client = await stage.connected();
    const messages = [];
    client.connection.bind("message", (message) => messages.push(message));
    client.send_event("pusher:subscribe", { channel: "#server-to-user-7", auth: "" });
    await once(client, "pusher:error");
    const [refusal] = messages;
    equal([refusal.event, refusal.channel, refusal.data.type, refusal.data.status], ["pusher:subscription_error", "#server-to-user-7", "AuthError", 401]);
  },
};

function older(stage, options) {
  return { channelAuthorization: undefined, authEndpoint: `${stage.backend}/auth`, ...options };
}

/** What only pages can do. */
export const jsonp = {
  "a channel by JSONP": async (stage) => {
    const client = await stage.connected({ channelAuthorization: { endpoint: `${stage.backend}/auth`, transport: "jsonp", params: {} } });
    await receives(stage, await subscribed(client, stage.name("private-jsonp")));
  },
};
