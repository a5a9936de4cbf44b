import { spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CorecastBackend } from "../../src/server.js";
import { binary, FORGED, freePort, KEY, Network, Server } from "../corecast.js";

/** The global of the browser file. */
declare const Corecast: typeof import("../../src/index.js").Corecast;
/** Of the example's page. */
declare const orders: import("../../src/index.js").Channel;
declare const state: { last: number };

const CHROMIUM = process.env.CHROMIUM_BIN ?? "/usr/bin/chromium";
const ARGUMENTS = [
  ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
];
const file = (path: string) => fileURLToPath(new URL(path, import.meta.url));
let server: Server;
let backend: CorecastBackend;
let http: HttpServer;
let browser: Browser;
let reported: (body: string) => void = () => {};

beforeAll(async () => {
  server = await Server.start("--outbox-limit", "64MiB");
  backend = new CorecastBackend({ key: KEY, adminSocket: server.adminSocket, timeout: 30_000, queueMax: 100_000 });
  http = createServer(async (request, response) => {
    if (request.method === "POST") {
      let body = "";
      for await (const text of request) body += text;
      if (request.url === "/report") return response.end(void reported(body));
      const answer = await backend.authorize(new URLSearchParams(body), (channel) => channel !== "private-not-yours");
      return response.writeHead(answer.status, { "content-type": "application/json" }).end(answer.body);
    }
    const name = request.url!.slice(1).split("?")[0]!;
    response
      .writeHead(200, { "content-type": name.endsWith(".js") ? "text/javascript" : "text/html" })
      .end(readFileSync(file(name === "corecast.min.js" ? "../../dist/corecast.min.js" : name || "page.html")));
  });
  http.listen(await freePort(), "127.0.0.1");
  await once(http, "listening");
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGUMENTS });
});
afterAll(async () => {
  await browser?.close();
  http?.close();
  await backend?.close();
  await server?.dispose();
});

const origin = () => `http://127.0.0.1:${(http.address() as AddressInfo).port}`;

/** A page with a connected client in `window.socket`, and the errors on its console. */
async function open(backOff = { min: 50, max: 500 }): Promise<{ page: Page; errors: string[] }> {
  const page = await browser.newPage();
  const errors: string[] = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(origin());
  const made = { url: server.url, backOff };
  await page.evaluate(async ({ url, backOff }) => {
    const socket = new Corecast(url, { auth: { endpoint: "/auth", batch: true }, backOff });
    Object.assign(window, { socket, seen: [] });
    await socket.connect();
  }, made);
  return { page, errors };
}

/** Subscribes the page to a channel. `window.seen` collects the numbers that arrive. */
function listen(page: Page, name: string) {
  return page.evaluate((name) => {
    const { socket, seen } = window as any as { socket: InstanceType<typeof Corecast>; seen: number[] };
    return socket.subscribe<{ n: number }>(name).bind("n", (n) => void seen.push(n)).subscribed;
  }, name);
}

const seen = (page: Page, count: number) =>
  page
    .waitForFunction((count) => (window as any).seen.length >= count, count, { timeout: 30_000 })
    .then(() => page.evaluate(() => (window as any).seen as number[]));

test("1 000 messages arrive in order", async () => {
  const { page, errors } = await open();
  await listen(page, "numbers");
  await Promise.all(Array.from({ length: 1_000 }, (_, n) => backend.publish("numbers", "n", n)));
  expect(await seen(page, 1_000)).toEqual(Array.from({ length: 1_000 }, (_, n) => n));
  expect(errors).toEqual([]);
  await page.close();
});

test("a private channel that the backend signs, and one that it refuses", async () => {
  const { page, errors } = await open();
  await listen(page, "private-mine");
  await backend.publish("private-mine", "n", 7);
  expect(await seen(page, 1)).toEqual([7]);
  const refused = page.evaluate(() => (window as any).socket.subscribe("private-not-yours").subscribed.catch((e: any) => e.code));
  expect(await refused).toBe("auth_refused");
  expect(errors).toEqual([]);
  await page.close();
});

test("after a restart of the server the page reconnects, with every channel", async () => {
  const { page, errors } = await open();
  await listen(page, "a");
  await listen(page, "private-b");
  await page.evaluate(() => {
    const { socket } = window as any;
    (window as any).lost = new Promise((resolve) => socket.on("connecting", resolve));
  });
  await server.stop();
  await page.evaluate(() => (window as any).lost);
  await server.start();
  await page.waitForFunction(() => (window as any).socket.channels().every((channel: any) => channel.state === "subscribed"));
  await backend.publish(["a", "private-b"], "n", 1);
  expect(await seen(page, 2)).toEqual([1, 1]);
  // The browser logs attempts without an answer; the client logs nothing.
  expect(errors.filter((text) => !text.includes("ERR_CONNECTION_REFUSED"))).toEqual([]);
  await page.close();
});

test("in a worker: public and private, until it is terminated", async () => {
  const { page, errors } = await open();
  await page.evaluate((url) => {
    const worker = new Worker("/worker.js");
    const said: string[] = [];
    worker.onmessage = ({ data }) => void said.push(data);
    worker.onerror = ({ message }) => void said.push(message);
    worker.postMessage(url);
    Object.assign(window, { worker, said });
  }, server.url);
  const said = async (count: number) => {
    await page.waitForFunction((count) => (window as any).said.length >= count, count);
    return page.evaluate(() => (window as any).said as string[]);
  };
  expect(await said(1)).toEqual(["subscribed"]);
  expect(await backend.publish("worker", "n", 1)).toBe(1);
  expect(await backend.publish("private-worker", "n", 2)).toBe(1);
  expect(await said(3)).toEqual(["subscribed", "worker 1", "private-worker 2"]);
  await page.evaluate(() => (window as any).worker.terminate());
  await expect.poll(() => backend.publish("worker", "n", 3), { timeout: 10_000 }).toBe(0);
  expect(errors).toEqual([]);
  await page.close();
});

test("offline: the silence is noticed; online: reconnects at once", async () => {
  // The waits are longer than the test: only the browser's event can end them.
  const { page, errors } = await open({ min: 3_600_000, max: 3_600_000 });
  await listen(page, "a");
  await page.evaluate(() => {
    window.WebSocket = class extends WebSocket {
      constructor(url: string | URL) {
        super(url);
        this.addEventListener("close", () => Object.assign(window, { refused: true }));
      }
    };
  });
  await page.context().setOffline(true);
  // Chromium holds the frames back: the ping that answers `offline` has no pong within 5 s. The attempt at once then fails too.
  await page.waitForFunction(() => (window as any).refused);
  expect(await page.evaluate(() => (window as any).socket.state)).not.toBe("connected");
  await page.context().setOffline(false);
  await page.waitForFunction(() => (window as any).socket.channel("a").state === "subscribed");
  await backend.publish("a", "n", 1);
  await backend.publish("a", "n", 2);
  expect(await seen(page, 2)).toEqual([1, 2]); // and not twice, through the abandoned connection
  expect(errors.filter((text) => !text.includes("ERR_INTERNET_DISCONNECTED"))).toEqual([]);
  await page.close();
});

test("10 000 messages a second into one tab: nothing is lost", { timeout: 90_000 }, async () => {
  // Started without the debugging protocol, which would report every frame and so distort the measurement.
  const profile = mkdtempSync(join(tmpdir(), "corecast-js-"));
  const reports = new EventEmitter();
  reported = (body) => reports.emit("report", body);
  const next = async () => (await once(reports, "report", { signal: AbortSignal.timeout(40_000) }))[0] as string;
  const ready = next();
  const child = spawn(CHROMIUM, [...ARGUMENTS, `--user-data-dir=${profile}`, `${origin()}/flood.html?${server.url}`], {
    stdio: "ignore",
    detached: true, // a process group of its own, which is ended as a whole
  });
  try {
    expect(await ready).toBe("subscribed");
    const per = (count: number, ms: number) => Math.round((count / ms) * 1_000);

    const [seconds, rate] = [3, 10_000];
    const total = seconds * rate;
    let done = next();
    const calls: Promise<number>[] = [];
    const started = performance.now();
    // Paced by the clock: publishes what has become due since the start.
    await new Promise<void>((resolve) => {
      const timer = setInterval(() => {
        const due = Math.min(total, Math.floor(((performance.now() - started) / 1_000) * rate));
        while (calls.length < due) calls.push(backend.publish("flood", "n", calls.length));
        if (calls.length === total) resolve(clearInterval(timer));
      }, 5);
    });
    await Promise.all(calls);
    const published = performance.now();
    await backend.publish("flood", "report");
    expect(await done).toBe(`${total} in order`);
    console.log(
      `Chromium: offered ${per(total, published - started)} messages/s for ${seconds} s; ` +
        `the tab had all of them ${Math.round(performance.now() - published)} ms after the last was acknowledged`,
    );

    const burst = 50_000;
    done = next();
    const from = performance.now();
    for (let n = 0; n < burst; n += 1_000) {
      await Promise.all(Array.from({ length: 1_000 }, (_, i) => backend.publish("flood", "n", total + n + i)));
    }
    await backend.publish("flood", "report");
    expect(await done).toBe(`${total + burst} in order`);
    console.log(`Chromium: ${per(burst, performance.now() - from)} messages/s as fast as one publisher goes`);
  } finally {
    process.kill(-child.pid!, "SIGKILL");
    await once(child, "exit");
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
  }
});

/** The example's process, and the URL of its page. */
async function example(environment: Record<string, string> = {}): Promise<{ url: string; corecastPort: number; stop: () => Promise<void> }> {
  const port = await freePort();
  const reserve = createServer().listen(port, "127.0.0.1");
  await once(reserve, "listening");
  const corecastPort = await freePort();
  await new Promise((resolve) => reserve.close(resolve));
  const child = spawn(process.execPath, [file("../../example/server.mjs")], {
    env: { ...process.env, CORECAST_BIN: binary(), PORT: String(port), CORECAST_PORT: String(corecastPort), ...environment },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  await Promise.race([once(child.stdout!, "data"), ended.then(() => Promise.reject(new Error("the example has ended")))]);
  return { url: `http://127.0.0.1:${port}`, corecastPort, stop: async () => void (child.kill(), await ended) };
}

test("the example shows both channels and the state of the connection", { timeout: 120_000 }, async () => {
  const { url, stop } = await example();
  try {
    for (const [socket_id, channel] of FORGED) {
      const channel_name = channel.replace("private-foobar", "private-till");
      const forged = { method: "POST", body: new URLSearchParams({ socket_id, channel_name }) };
      expect((await fetch(`${url}/auth`, forged)).status).toBe(403);
    }
    const page = await browser.newPage({ viewport: { width: 1080, height: 720 }, deviceScaleFactor: 1 });
    const errors: string[] = [];
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.goto(url);
    await page.waitForFunction(() => document.querySelectorAll("#events li").length >= 10);
    await page.waitForFunction(() => document.querySelector("#private")!.textContent === "private-till · subscribed");
    await page.waitForFunction(() => document.querySelector("#till")!.textContent!.startsWith("€"));
    await page.waitForFunction(() => Number(document.querySelector("#rate")!.textContent) > 0);
    if (process.env.SCREENSHOT) {
      for (let guest = 0; guest < 3; guest += 1) await (await (await browser.newContext()).newPage()).goto(url);
      await page.waitForTimeout(62_000); // a minute's history, for the picture
      await page.screenshot({ path: file("../../example/screenshot.png") });
      await page.emulateMedia({ colorScheme: "dark" });
      await page.screenshot({ path: file("../../example/screenshot-dark.png") });
    }
    await page.click("#toggle");
    await page.waitForFunction(() => document.querySelector("#state")!.textContent === "disconnected");
    await page.click("#toggle");
    await page.waitForFunction(() => document.querySelector("#private")!.textContent === "private-till · subscribed");
    expect(errors.filter((text) => !text.includes("ERR_CONNECTION_REFUSED"))).toEqual([]);
    await page.close();
  } finally {
    await stop();
  }
});

test("the example shows the guests that are online, once each", { timeout: 120_000 }, async () => {
  const { url, stop } = await example();
  try {
    const contexts = await Promise.all([browser.newContext(), browser.newContext()]);
    const open = async (context: (typeof contexts)[number]) => {
      const page = await context.newPage();
      await page.goto(url);
      return page;
    };
    const [ann, bob] = contexts as [(typeof contexts)[number], (typeof contexts)[number]];
    const first = await open(ann);
    const online = (page: Page, count: number) =>
      page.waitForFunction((count) => document.querySelector("#online")!.textContent === `${count}`, count);
    const names = (page: Page) => page.$$eval("#members li", (items) => items.map(({ textContent }) => textContent));
    await online(first, 1);
    const second = await open(bob);
    const tab = await open(ann);
    for (const page of [first, second, tab]) await online(page, 2);
    expect(new Set(await names(first)).size).toBe(2);
    expect(await names(second)).toEqual(await names(first));
    await bob.close();
    await online(first, 1); // after the grace period of 3 s
    expect(await names(tab)).toEqual(await names(first));
    await ann.close();
  } finally {
    await stop();
  }
});

test("the example misses no order while the network is cut for five seconds under load", { timeout: 120_000 }, async () => {
  const network = await Network.to(0);
  const { url, corecastPort, stop } = await example({ CORECAST_URL: network.url, ORDERS_PER_SECOND: "60" });
  network.port = corecastPort;
  try {
    const page = await browser.newPage();
    const errors: string[] = [];
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.goto(url);
    await page.waitForFunction(() => document.querySelector("#orders")!.textContent === "orders · subscribed");
    // What the page sees from now on: the numbers of the orders, and what happens to the channel.
    await page.evaluate(() => {
      Object.assign(window, { ids: [], told: [] });
      orders.bind("order.placed", ({ id }: { id: number }) => (window as any).ids.push(id));
      orders.bindAll((event: string, data: any) => event.startsWith("socket:") && (window as any).told.push([event, data]));
    });
    const seenOrders = (count: number) =>
      page.waitForFunction((count) => (window as any).ids.length >= count, count, { timeout: 60_000 });
    await seenOrders(100);
    network.cut();
    await new Promise((resolve) => setTimeout(resolve, 5_000));
    const seen = await page.evaluate(() => (window as any).ids.at(-1) as number);
    const { last: placed } = await (await fetch(`${url}/orders`)).json();
    expect(placed - seen, "orders that the page does not know").toBeGreaterThan(100);
    network.mend();
    await page.waitForFunction(() => (window as any).told.some(([event]: any) => event === "socket:subscribed"));
    expect(await page.textContent("#state")).toBe("connected");
    const { length } = await page.evaluate(() => (window as any).ids as number[]);
    await seenOrders(length + 300);
    const { ids, told, count, last } = await page.evaluate(() => {
      const { ids, told } = window as any;
      const count = Number(document.querySelector("#count")!.textContent!.replace(",", ""));
      return { ids, told, count, last: state.last } as { ids: number[]; told: unknown; count: number; last: number };
    });
    expect(told, "recovered, and not loaded again").toEqual([["socket:subscribed", { recovered: true }]]);
    expect(ids, "each order, once, in order").toEqual(ids.map((_, n) => ids[0]! + n));
    expect(count, "what the page shows").toBe(last - 1_000);
    expect(last).toBe(ids.at(-1));
    expect(errors.filter((text) => !text.includes("ERR_CONNECTION_RE"))).toEqual([]); // REFUSED, RESET
    await page.close();
  } finally {
    await stop();
    await network.dispose();
  }
});
