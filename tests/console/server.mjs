// Servers and clients for the tests of the console: processes of the binary under test.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const { CORECAST_BIN: binary } = process.env;
export const directory = mkdtempSync(join(tmpdir(), "corecast-console-"));
const children = new Set();

/** Ends all processes. */
export function end() {
  for (const child of children) child.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
}

/** Starts the server's binary; the process ends with the tests. */
export function run(args, options) {
  const child = spawn(binary, args, { env: {}, ...options });
  children.add(child);
  child.once("exit", () => children.delete(child));
  return child;
}

/** Starts a server, and returns when it listens. */
export async function serve(name, ...options) {
  const admin = join(directory, `${name}.sock`);
  const http = options.includes("--http") ? [] : ["--http", "127.0.0.1:0"];
  const listening = ["serve", "--listen", "127.0.0.1:0", ...http, "--admin-socket", admin, "--pin", "none", "--log", "warn"];
  const child = run([...listening, ...options], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.setEncoding("utf8");
  for await (const text of child.stderr) {
    said += text;
    if (/http [0-9.:]+\)/.test(said)) break;
  }
  const [, address] = /listening on ([0-9.:]+)/.exec(said) ?? [];
  const [, served] = /http ([0-9.:]+)\)/.exec(said) ?? [];
  assert.ok(address && served, said);
  child.stderr.resume();
  return { child, admin, url: `ws://${address}`, http: served, console: `http://${served}/console` };
}

/** Starts a client, and returns when it is subscribed. */
export async function subscribe(to, ...channels) {
  const child = run(["subscribe", ...channels, "--url", to.url, "--key", "app:only-for-these-tests"], { stdio: ["ignore", "ignore", "ignore"] });
  await until(`a subscriber of ${channels[0]}`, async () => (await ask(to, "channel", channels[0])).subscribers > 0);
  return child;
}

export async function ask(to, ...command) {
  const child = run([...command, "--json", "--admin-socket", to.admin], { stdio: ["ignore", "pipe", "ignore"] });
  let said = "";
  for await (const text of child.stdout) said += text;
  return JSON.parse(said.trim().split("\n")[0]);
}

export async function until(what, done) {
  for (const start = Date.now(); Date.now() - start < 30_000; ) {
    if (await done()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`not within 30 s: ${what}`);
}

/** Publishes until it is stopped. */
export function publisher(to, channels, perSecond) {
  const child = run(["publish", "--stdin", "--admin-socket", to.admin], { stdio: ["pipe", "ignore", "ignore"] });
  let n = 0;
  const step = () => {
    for (let due = perSecond() / 50; due > 0; due -= 1, n += 1) {
      child.stdin.write(`${JSON.stringify({ channel: channels[n % channels.length], event: "tick", data: { n } })}\n`);
    }
  };
  const timer = setInterval(step, 20);
  child.stdin.on("error", () => clearInterval(timer));
  return { stop: () => (clearInterval(timer), child.kill()) };
}

/** A link that opens the console of a server, once. */
export async function link(to, ...options) {
  const { url, token } = await ask(to, "console", ...options);
  return `${url}#token=${token}`;
}
