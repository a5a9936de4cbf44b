// Servers under test: processes of the binary, each with an admin socket and the HTTP publishing interface.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** Key pairs of every server. The second one stands for a rotation of keys; the first one's ID needs escaping in no path. */
export const KEYS = [
  { key: "app-one", secret: "first-for-these-tests-only" },
  { key: "app-two", secret: "second-for-these-tests-only" },
];
const HOST = "127.0.0.1";
const { CORECAST_BIN: binary, HELD_SOCKET: script, PYTHON: python, TLS_CERT: certificate, TLS_KEY: privateKey } = process.env;

/** Files of this run. */
export const directory = mkdtempSync(join(tmpdir(), "corecast-pusher-"));
const children = new Set();
let started = 0;

/** Ends all servers. */
export function end() {
  for (const child of children) child.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
}

/** Holds a listening socket, on `port`, for `serve`. */
export async function hold() {
  const path = join(directory, `${(started += 1)}.held`);
  const child = spawn(python, [script, "hold", path], { env: {}, stdio: ["ignore", "pipe", "inherit"] });
  children.add(child);
  const [port] = await once(child.stdout, "data");
  return { port: Number(port), path };
}

/**
 * Starts a server, and returns when it listens. `grace`: seconds for which a user may return unnoticed. `held`: the socket that
 * it accepts from, in place of one of its own.
 */
export async function serve({ shards = 2, tls = false, grace = 0, held, options = [] } = {}) {
  const admin = join(directory, `${(started += 1)}.sock`);
  const [program, ...before] = held ? [python, script, "run", held.path, binary] : [binary];
  const args = [...usual(shards, grace, admin), ...(tls ? ["--tls-cert", certificate, "--tls-key", privateKey] : []), ...options];
  const child = spawn(program, [...before, ...args], {
    env: {},
    stdio: ["ignore", "ignore", "pipe"],
  });
  children.add(child);
  const ended = new Promise((resolve) => child.once("exit", resolve)).then(() => children.delete(child));
  const said = await listening(child);
  const [, bound] = /listening on [0-9.]+:(\d+)/.exec(said) ?? [];
  const [, http] = /http ([0-9.]+:\d+)\)/.exec(said) ?? [];
  assert.ok(bound && http, said);
  return {
    // A name, for TLS: clients send it.
    host: tls ? "localhost" : HOST,
    port: Number(bound),
    tls,
    http,
    pid: child.pid,
    ask: (...requests) => ask(admin, requests),
    stop: (signal = "SIGTERM") => (child.kill(signal), ended),
  };
}

function usual(shards, grace, admin) {
  const keys = KEYS.flatMap(({ key, secret }) => ["--key", `${key}:${secret}`]);
  const addresses = ["--listen", `${HOST}:0`, "--http", `${HOST}:0`, "--admin-socket", admin];
  return ["serve", ...addresses, ...keys, "--shards", `${shards}`, "--pin", "none", "--presence-grace", `${grace}`, "--log", "warn"];
}

/** What a server says until it listens. Its warnings after that are shown. */
async function listening(child) {
  let said = "";
  child.stderr.setEncoding("utf8");
  return new Promise((resolve, reject) => {
    child.once("error", reject).once("exit", () => reject(new Error(`the server ended: ${said}`)));
    child.stderr.on("data", (text) => {
      if (/http \S+\)/.test(said)) process.stderr.write(text);
      said += text;
      if (/http \S+\)/.test(said)) resolve(said);
    });
  });
}

/** Requests on the admin socket, which must all succeed, and the reply to the last one. */
async function ask(path, requests) {
  const socket = connect(path);
  try {
    return await new Promise((resolve, reject) => {
      socket.once("error", reject).once("close", () => reject(new Error("the admin socket was closed")));
      createInterface(socket).on("line", (line) => {
        const reply = JSON.parse(line);
        if (!reply.ok) reject(new Error(`${JSON.stringify(requests[reply.id])}: ${line}`));
        if (reply.id === requests.length - 1) resolve(reply);
      });
      socket.write(requests.map((request, id) => `${JSON.stringify({ id, ...request })}\n`).join(""));
    });
  } finally {
    socket.destroy();
  }
}
