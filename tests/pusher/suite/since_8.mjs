// What pusher-js has since version 8.

import { equal, Record, subscribed } from "./check.mjs";

export const since8 = {
  "switchCluster connects with another key, and brings all channels back": async (stage) => {
    const client = await stage.connected();
    const record = await subscribed(client, stage.name("switched"));
    client.switchCluster({ appKey: "app-two", cluster: "" });
    await record.next("pusher:subscription_succeeded");
    equal(client.connection.state, "connected");
    await stage.trigger(record.channel.name, "paid", 1);
    await record.expect("paid", 1);
  },

  "the backend refuses to sign in: pusher-js tells its user": async (stage) => {
    const client = await stage.connected({ userAuthentication: { endpoint: `${stage.backend}/user`, transport: "ajax" } });
    const record = new Record(client.user);
    client.signin();
    const { type, status } = await record.next("pusher:signin_error");
    equal([type, status], ["AuthError", 403]);
  },
};
