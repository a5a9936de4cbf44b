// The suite in a browser: one page, which reports its results.

import { spawn } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { backend } from "./backend.mjs";
import * as drivers from "./drivers.mjs";
import { end, serve } from "./server.mjs";
import { timeout } from "./suite/check.mjs";

const LIMIT_MS = 120_000;
const QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const openers = { chromium, firefox: driven("firefox"), webkit: driven("webkit") };

/** Defines the tests in this browser. */
export function browser(name) {
  let backings;
  let url;
  let reported;
  before(async () => {
    let report;
    reported = new Promise((resolve) => (report = resolve));
    const servers = [await serve(), await serve({ tls: true })];
    backings = await Promise.all(servers.map((server) => backend(server, (results) => (report(results), {}))));
    const [plain, secure] = servers.map(({ host, port, tls }, n) => ({ host, port, tls, backend: backings[n].url }));
    url = `${plain.backend}/page.html#${encodeURIComponent(JSON.stringify({ page: plain, worker: secure, secure }))}`;
  });
  after(() => {
    for (const { close } of backings) close();
    end();
  });
  test(name, { timeout: LIMIT_MS }, async (t) => {
    const close = await openers[name](url);
    const results = await timeout(`a report of ${name}`, reported, LIMIT_MS).finally(close);
    for (const { where, group, name, error } of results) {
      await t.test(`${where}: ${group}: ${name}`, () => {
        if (error !== null) throw new Error(error);
      });
    }
  });
}

/** Opens a page in Chromium, and returns what closes it. */
async function chromium(url) {
  const profile = mkdtempSync(join(tmpdir(), "corecast-chromium-"));
  const sandbox = process.getuid() === 0 ? ["--no-sandbox"] : [];
  const options = ["--headless", ...sandbox, "--disable-gpu", "--ignore-certificate-errors", ...QUIET, `--user-data-dir=${profile}`];
  const child = spawn(process.env.CHROMIUM_BIN, [...options, url], { stdio: "ignore" });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  // Its helpers may still write to the profile, which run.sh removes.
  return async () => {
    child.kill();
    await ended;
  };
}

/** The same in a browser that a driver of its own opens. */
function driven(name) {
  return async (url) => {
    const { page, close } = await drivers[name]();
    const opened = await page();
    await opened.goto(url);
    return async () => {
      await opened.close();
      await close();
    };
  };
}
