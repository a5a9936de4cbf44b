/**
 * A hidden page in Chromium, whose timers fire once a minute, keeps its connection although the server wants a ping every 10 s:
 * node hidden.mjs. Needs Xvfb, because a headless browser has no hidden pages, and CORECAST_BIN. Takes some minutes.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const directory = mkdtempSync(join(tmpdir(), "corecast-hidden-"));
const children = [];
function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"], detached: true, ...options });
  children.push(child);
  return child;
}
let receive;
const report = new Promise((resolve) => (receive = resolve));
/** Reports once the timer of the page has fired a minute late twice. */
const script = (url) => `
  const states = [];
  const socket = new Corecast("${url}");
  socket.on("state_change", ({ current }) => states.push(current));
  let last = performance.now();
  let late = 0;
  setInterval(() => {
    const now = performance.now();
    late += now - last > 50_000;
    last = now;
    if (late >= 2) fetch("/report", { method: "POST", body: JSON.stringify({ page: document.visibilityState, states }) });
  }, 1000);`;

try {
  const server = start(process.env.CORECAST_BIN, [
    ...["serve", "--listen", "127.0.0.1:0", "--http", "off", "--admin-socket", join(directory, "admin"), "--shards", "1"],
    ...["--pin", "none", "--heart-interval", "10", "--heart-timeout", "5", "--server-ping", "off"],
  ]);
  const url = await new Promise((resolve) => {
    let log = "";
    server.stderr.on("data", (text) => {
      const address = /listening on (\S+) /.exec((log += text))?.[1];
      if (address) resolve(`ws://${address}`);
    });
  });

  const http = createServer(async (request, response) => {
    if (request.method === "POST") {
      let body = "";
      for await (const text of request) body += text;
      receive(JSON.parse(body));
      return response.end();
    }
    if (request.url === "/corecast.min.js") return response.end(readFileSync(join(import.meta.dirname, "../../dist/corecast.min.js")));
    const page = `<script src="/corecast.min.js"></script><script>${script(url)}</script>`;
    response.setHeader("content-type", "text/html").end(`<!doctype html><link rel="icon" href="data:,">${request.url === "/" ? page : ""}`);
  }).listen(0, "127.0.0.1");
  await once(http, "listening");
  const origin = `http://127.0.0.1:${http.address().port}`;

  const display = start("Xvfb", ["-displayfd", "3"], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  const [number] = await once(display.stdio[3], "data");
  // The first page is in front. The second one is hidden, and is throttled after 5 s instead of 5 min.
  const options = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"];
  const feature = "--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/5";
  start(process.env.CHROMIUM_BIN ?? "chromium", [...options, feature, `--user-data-dir=${directory}/profile`, `${origin}/front`, `${origin}/`], {
    env: { ...process.env, DISPLAY: `:${String(number).trim()}` },
    stdio: "ignore",
  });
  const timeout = setTimeout(() => receive({ page: "not throttled within ten minutes" }), 600_000);
  const { page, states } = await report;
  clearTimeout(timeout);
  const passed = page === "hidden" && states.join() === "connected";
  console.log(passed ? "ok  " : "FAIL", `a hidden page in Chromium stays connected: ${page}, states: ${states}`);
  process.exitCode = passed ? 0 : 1;
  http.close().closeAllConnections();
} finally {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    process.kill(-child.pid, "SIGKILL");
    await once(child, "exit");
  }
  rmSync(directory, { recursive: true, force: true, maxRetries: 10 });
}
