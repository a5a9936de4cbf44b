// All tests of the suite in Node, and those of Pysher, against one server.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import Echo from "laravel-echo";
import Pusher from "pusher-js";
import { backend } from "./backend.mjs";
import { end, KEYS, serve } from "./server.mjs";
import "./timers.mjs";
import { groups } from "./suite/index.mjs";
import { play } from "./suite/play.mjs";

/** Defines the tests against a server with these options. `older`: an older version of pusher-js, to test in its place. */
export function matrix(options, older) {
  const setting = { Pusher: older?.Pusher ?? Pusher, Echo, runtime: "node" };
  let backing;
  before(async () => {
    const server = await serve(options);
    backing = await backend(server);
    const { host, port, tls } = server;
    Object.assign(setting, { backend: backing.url, host, port, tls });
  });
  after(() => {
    backing.close();
    end();
  });
  describe("pusher-js and Echo", { concurrency: 8 }, () => {
    for (const [group, tests] of Object.entries(groups("node", older?.version))) {
      describe(group, { concurrency: 8 }, () => {
        for (const [name, run] of Object.entries(tests)) test(name, () => play(run, setting));
      });
    }
  });
  if (older) return;
  test("Pysher", { skip: process.env.PYTHON ? false : "Python is missing" }, () => pysher(setting));
}

/** Runs the tests of Pysher, which print what fails. */
async function pysher({ backend, host, port, tls }) {
  const child = spawn(process.env.PYTHON, [process.env.PYSHER_TESTS], {
    env: { ...process.env, BACKEND: backend, HOST: host, PORT: port, TLS: tls ? "1" : "", KEY: KEYS[0].key, SECRET: KEYS[0].secret },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (said += text));
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(said);
}
