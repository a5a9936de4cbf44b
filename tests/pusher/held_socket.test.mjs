// Servers that come and go behind a listening socket that stays open: no client meets a refused connection.

import { after, describe } from "node:test";
import { scene } from "./scene.mjs";
import { end, hold, serve } from "./server.mjs";
import { equal, errorsOf, ok, once, sleep, statesOf, subscribed } from "./suite/check.mjs";

/** What pusher-js waits after a refused connection. */
const REFUSED_MS = 15_000;
/** How long no server runs. */
const AWAY_MS = 3000;
/** What a client goes through that is back at its first attempt. */
const BACK = ["connecting", "connected"];

after(end);

/** Resolves when all clients are connected again, with how long that took the last one. */
async function allBack(clients) {
  const since = Date.now();
  await Promise.all(clients.map((client) => once(client.connection, "connected")));
  return Date.now() - since;
}

describe("a held socket", { skip: !process.env.PYTHON && "needs Python", concurrency: 4 }, () => {
  scene("a restart: clients are back after a second, and others connect meanwhile", {}, async (stage) => {
    const socket = await hold();
    stage.port = socket.port;
    const server = await serve({ held: socket });
    const clients = await Promise.all(Array.from({ length: 20 }, () => stage.connected()));
    const [states, errors] = [clients.map(statesOf), clients.map(errorsOf)];
    const returned = allBack(clients);
    const stopped = server.stop();
    // Before the stop, during it, and while no server runs.
    const others = [];
    for (let nth = 0; nth < 20; nth += 1) {
      others.push(stage.connected());
      await sleep(5);
    }
    await stopped;
    const next = await serve({ held: socket });
    const took = await returned;
    console.log(`# back after ${took} ms`);
    ok(took < REFUSED_MS, `back after ${took} ms`);
    await Promise.all(others);
    for (const seen of states) equal(seen, BACK);
    for (const box of errors) equal(box.arrived, []);
    await next.stop("SIGKILL");
  });

  scene("a crash, and no server for a while: clients wait", {}, async (stage) => {
    const socket = await hold();
    stage.port = socket.port;
    const server = await serve({ held: socket });
    const clients = await Promise.all(Array.from({ length: 20 }, () => stage.connected()));
    const states = clients.map(statesOf);
    const returned = allBack(clients);
    await server.stop("SIGKILL");
    await sleep(AWAY_MS);
    const next = await serve({ held: socket });
    const took = await returned;
    console.log(`# back after ${took} ms`);
    ok(took < REFUSED_MS, `back after ${took} ms`);
    for (const seen of states) equal(seen, BACK);
    await next.stop("SIGKILL");
  });

  scene("a drain: all clients move to another server on the same socket, one after the other", {}, async (stage) => {
    const socket = await hold();
    stage.port = socket.port;
    const server = await serve({ held: socket });
    const clients = await Promise.all(Array.from({ length: 100 }, () => stage.connected()));
    const states = clients.map(statesOf);
    const channels = await Promise.all(clients.map((client) => subscribed(client, stage.name("orders"))));
    const other = await serve({ held: socket });
    const begun = Date.now();
    const back = channels.map(({ channel }) => once(channel, "pusher:subscription_succeeded").then(() => Date.now() - begun));
    await server.ask({ command: "drain", over_ms: 5000 });
    const times = (await Promise.all(back)).sort((one, other) => one - other);
    console.log(`# back after ${times[0]} to ${times.at(-1)} ms`);
    // Whatever holds the machine up makes these times longer, never shorter.
    for (const [nth, least] of [[50, 1000], [75, 2000], [99, 3500]]) ok(times[nth] > least, `number ${nth} is back after ${times[nth]} ms`);
    for (const seen of states) equal(seen, BACK);
    equal((await other.ask({ command: "channel", channel: stage.name("orders") })).subscribers, 100);
    await other.stop("SIGKILL");
  });
});
