// Firefox and WebKit for the tests of the console and of Pusher clients, by the standard protocols of their own drivers. A browser opens pages;
// a page goes to an address, and runs a function in the page, whose result comes back as JSON.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import WebSocket from "ws";

const TIMEOUT_MS = 60_000;

/** Firefox by WebDriver BiDi. */
export async function firefox() {
  const profile = mkdtempSync(join(tmpdir(), "corecast-firefox-"));
  const child = spawn(process.env.FIREFOX_BIN, ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"], { stdio: ["ignore", "ignore", "pipe"] });
  const [, url] = await said(child, child.stderr, /BiDi listening on (ws:\S+)/);
  const socket = new WebSocket(`${url}/session`);
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const calls = new Map();
  let counted = 0;
  socket.on("message", (text) => {
    const message = JSON.parse(text);
    calls.get(message.id)?.(message);
  });
  const call = async (method, params) => {
    const id = (counted += 1);
    socket.send(JSON.stringify({ id, method, params }));
    const answer = await within(method, new Promise((resolve) => calls.set(id, resolve)));
    calls.delete(id);
    if (answer.type !== "success") throw new Error(`${method}: ${answer.message}`);
    return answer.result;
  };
  await call("session.new", { capabilities: { alwaysMatch: { acceptInsecureCerts: true } } });
  const page = async () => {
    const { context } = await call("browsingContext.create", { type: "tab" });
    return {
      goto: (url) => call("browsingContext.navigate", { context, url, wait: "complete" }),
      run: async (f, ...args) => {
        const expression = expressionOf(f, args);
        const { result, exceptionDetails } = await call("script.evaluate", { expression, target: { context }, awaitPromise: true });
        if (exceptionDetails) throw new Error(exceptionDetails.text);
        return valueOf(result.value);
      },
      close: () => call("browsingContext.close", { context }),
    };
  };
  const close = async () => {
    socket.close();
    await end(child);
    rmSync(profile, { recursive: true, force: true });
  };
  return { page, close };
}

/** WebKitGTK by WebDriver, on a display of its own. */
export async function webkit() {
  const display = spawn("Xvfb", ["-displayfd", "3", "-screen", "0", "1360x900x24", "-nolisten", "tcp"], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  const [number] = await said(display, display.stdio[3], /^\d+\n/);
  const port = await freePort();
  const driver = spawn("WebKitWebDriver", [`--port=${port}`], { stdio: "ignore", env: { ...process.env, DISPLAY: `:${number.trim()}` } });
  const call = async (method, path, body) => {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, body: body && JSON.stringify(body), signal });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`${path}: ${value.message}`);
    return value;
  };
  for (const start = Date.now(); ; await new Promise((resolve) => setTimeout(resolve, 50))) {
    try {
      await call("GET", "/status");
      break;
    } catch (error) {
      if (Date.now() - start > TIMEOUT_MS) throw error;
    }
  }
  const options = { binary: process.env.WEBKIT_BIN, args: ["--automation"] };
  const page = async () => {
    const { sessionId } = await call("POST", "/session", { capabilities: { alwaysMatch: { acceptInsecureCerts: true, "webkitgtk:browserOptions": options } } });
    const session = `/session/${sessionId}`;
    return {
      goto: (url) => call("POST", `${session}/url`, { url }),
      run: async (f, ...args) => valueOf(await call("POST", `${session}/execute/sync`, { script: `return ${expressionOf(f, args)}`, args: [] })),
      close: () => call("DELETE", session),
    };
  };
  const close = async () => {
    await end(driver);
    await end(display);
  };
  return { page, close };
}

/** The driver cannot choose its port itself. Below the ports that the system gives to connections, so that none takes it meanwhile. */
async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    const server = createServer();
    const isFree = await new Promise((resolve) => server.once("error", () => resolve(false)).listen(port, "127.0.0.1", () => resolve(true)));
    if (!isFree) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

/** A call of the function in the page. */
function expressionOf(f, args) {
  return `(async () => JSON.stringify((await (${f})(...${JSON.stringify(args)})) ?? null))()`;
}

function valueOf(json) {
  return JSON.parse(json);
}

/** What a process says, as soon as it matches. */
async function said(child, stream, pattern) {
  stream.setEncoding("utf8");
  let text = "";
  const heard = new Promise((resolve, reject) => {
    child.once("error", reject).once("exit", () => reject(new Error(`${child.spawnfile} ended: ${text}`)));
    stream.on("data", (more) => {
      text += more;
      const found = pattern.exec(text);
      if (found) resolve(found);
    });
  });
  return within(child.spawnfile, heard);
}

async function within(what, promise) {
  let timer = 0;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`${what}: not within ${TIMEOUT_MS} ms`)), TIMEOUT_MS)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill();
  await ended;
}
