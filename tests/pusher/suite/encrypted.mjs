// Encrypted channels of pusher-js: the server passes on what it cannot read.

import { equal, Record, subscribed } from "./check.mjs";

export const encrypted = {
  "objects, texts and numbers, decrypted": async (stage) => {
    const client = await stage.connected();
    const messages = [];
    client.connection.bind("message", (message) => messages.push(message));
    const record = await subscribed(client, stage.name("private-encrypted-x"));
    const { name } = record.channel;
    for (const data of [{ secret: "ü 🙂", deep: { a: [1] } }, "text", 17, [1]]) {
      await stage.trigger(name, "told", data);
      await record.expect("told", data);
      const { event, channel, data: sent } = messages.at(-1);
      equal([event, channel, Object.keys(sent).sort()], ["told", name, ["ciphertext", "nonce"]]);
    }
    await stage.do("batch", [{ channel: name, name: "batch", data: { n: 1 } }]);
    await record.expect("batch", { n: 1 });
  },

  "with a secret that has changed, pusher-js asks again": async (stage) => {
    let asked = 0;
    const wrong = btoa("x".repeat(32));
    const customHandler = async ({ socketId, channelName }, done) => {
      const fields = new URLSearchParams({ socket_id: socketId, channel_name: channelName });
      const answer = await (await fetch(`${stage.backend}/auth`, { method: "POST", body: fields })).json();
      done(null, (asked += 1) === 1 ? { ...answer, shared_secret: wrong } : answer);
    };
    const client = await stage.connected({ channelAuthorization: { customHandler } });
    const record = await subscribed(client, stage.name("private-encrypted-rotated"));
    await stage.trigger(record.channel.name, "told", 1);
    await record.expect("told", 1);
    equal(asked, 2);
  },

  "pusher-js sends no client events here, and asks for a secret": async (stage) => {
    const client = await stage.connected();
    const record = await subscribed(client, stage.name("private-encrypted-x"));
    let thrown;
    try {
      record.channel.trigger("client-x", {});
    } catch (error) {
      thrown = error;
    }
    equal(String(thrown?.message), "Client events are not currently supported for encrypted channels");
    const customHandler = async ({ socketId, channelName }, done) => done(null, { auth: await stage.do("signChannel", socketId, channelName) });
    const without = await stage.connected({ channelAuthorization: { customHandler } });
    const told = await new Record(without.subscribe(stage.name("private-encrypted-y"))).next("pusher:subscription_error");
    equal(told.type, "AuthError");
  },
};
