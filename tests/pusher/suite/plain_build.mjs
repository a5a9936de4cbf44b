// The build of pusher-js for browsers that decrypts nothing.

import { equal, once, subscribed } from "./check.mjs";

let build;

/** Loads the build, which names itself as the other one does. */
async function plainPusher() {
  build ??= (async () => {
    const other = window.Pusher;
    const script = await fetch("/node_modules/pusher-js/dist/web/pusher.min.js");
    (0, eval)(await script.text());
    const { Pusher } = window;
    window.Pusher = other;
    return Pusher;
  })();
  return build;
}

export const plainBuild = {
  "subscribes to all channels but encrypted ones": async (stage) => {
    stage.Pusher = await plainPusher();
    const client = await stage.member("u1");
    for (const prefix of ["orders", "private-orders", "presence-orders", "cache-orders"]) {
      const { channel } = await subscribed(client, stage.name(prefix));
      const paid = once(channel, "paid");
      await stage.trigger(channel.name, "paid", 1);
      equal(await paid, 1);
    }
    let thrown;
    try {
      client.subscribe(stage.name("private-encrypted-orders"));
    } catch (error) {
      thrown = error;
    }
    equal(/no nacl implementation/.test(thrown?.message), true, thrown?.message);
  },
};
