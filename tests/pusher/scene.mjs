// A server with options of its own, a backend, and clients, for one test.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import Echo from "laravel-echo";
import Pusher from "pusher-js";
import { backend } from "./backend.mjs";
import { directory, serve } from "./server.mjs";
import "./timers.mjs";
import { play } from "./suite/play.mjs";

let written = 0;

/** Defines a test: `run(stage, server)` gets a server with these options, and clients that connect to it. */
export function scene(name, options, run) {
  test(name, async () => {
    const server = await serve(options);
    const backing = await backend(server);
    const { host, port, tls } = server;
    try {
      await play((stage) => run(stage, server), { Pusher, Echo, runtime: "node", backend: backing.url, host, port, tls });
    } finally {
      backing.close();
      await server.stop("SIGKILL");
    }
  });
}

/** Options of a server with these rules for channels. */
export function rules(...tables) {
  const path = join(directory, `${(written += 1)}.toml`);
  const lines = (table) => Object.entries(table).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  writeFileSync(path, tables.flatMap((table) => ["[[channel]]", ...lines(table), ""]).join("\n"));
  return ["--config", path];
}
