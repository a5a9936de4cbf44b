// The console in headless Chromium, with a real server and real clients.

import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { ask, directory, end, link, publisher, serve, subscribe, until } from "./server.mjs";

const { CHROMIUM_BIN: browserPath, SCREENSHOTS: pictures } = process.env;
const ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const KEY = "console-tests-access-key";
let [browser, server] = [];

before(async () => {
  browser = await chromium.launch({ executablePath: browserPath, args: ARGUMENTS });
  server = await serve("main", "--key", "app:only-for-these-tests", "--shards", "2");
});
after(async () => {
  await browser?.close();
  end();
});

/** Opens the console by an address, or by a link, and collects the browser's errors on its page. */
async function open(to, { view = "", address, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const errors = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(address ?? (await link(to)));
  if (view !== "") await page.goto(`${to.console}${view}`);
  return { page, errors, close: () => context.close() };
}

const live = (page) => page.waitForSelector("#status[data-state=live]");
/** The link that was opened last in a tab has done its work. */
const entered = (page) => page.waitForFunction(() => location.hash === "" && document.querySelector("#status")?.dataset.state === "live");

test("it loads in light and dark without errors, and switches", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const { page, errors, close } = await open(server, { colorScheme });
    await live(page);
    const colour = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const brightness = async () => (await colour()).match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
    assert.equal((await brightness()) > 382, colorScheme === "light");
    await page.click("#theme");
    assert.ok((await brightness()) > 382, "light, whatever the system prefers");
    await page.click("#theme");
    assert.ok((await brightness()) < 382, "dark, whatever the system prefers");
    await page.reload();
    await live(page);
    assert.ok((await brightness()) < 382, "the choice is kept");
    assert.deepEqual(errors, []);
    await close();
  }
});

test("charts move while a publisher runs", async () => {
  const subscriber = await subscribe(server, "charts");
  const { page, errors, close } = await open(server);
  const running = publisher(server, ["charts"], () => 500);
  await page.waitForFunction(() => document.querySelectorAll(".chart").length === 9);
  const value = (title) => page.locator(".chart", { hasText: title }).locator(".legend b").first();
  await until("deliveries in the legend", async () => /\d/.test(await value("Deliveries/s").textContent()) && (await value("Deliveries/s").textContent()) !== "0");
  await until("a latency in the legend", async () => /s$/.test(await value("Publish → written").textContent()));
  const path = () => page.locator(".chart", { hasText: "Deliveries/s" }).locator("path.line").getAttribute("d");
  const one = await path();
  await until("the line moves", async () => (await path()) !== one && (await path()).includes("L"));
  assert.equal(await page.locator("#shards tbody tr").count(), 2);
  const busiest = page.locator("#busiest-channels tbody tr", { hasText: "charts" }).locator("td").last();
  await until("its rate among the busiest", async () => (await busiest.count()) > 0 && /[1-9]/.test(await busiest.textContent()));
  // Another window by keyboard, and a value in the chart by pointer.
  await page.locator("#window button").first().focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#window button").first().getAttribute("aria-pressed"), "true");
  const plot = page.locator(".plot").first();
  const box = await plot.boundingBox();
  await page.mouse.move(box.x + box.width - 12, box.y + 40);
  await page.waitForSelector(".tip:not([hidden]) b");
  running.stop();
  subscriber.kill();
  assert.deepEqual(errors, []);
  await close();
});

test("search finds a channel by its prefix or by any part of its name", async () => {
  const names = Array.from({ length: 60 }, (_, n) => `room:${String(n).padStart(2, "0")}`);
  const subscriber = await subscribe(server, ...names, "needle/<b>:in;hay".replace(/[<>]/g, "@"));
  await until("all of them", async () => (await ask(server, "channel", names[59])).subscribers > 0);
  const { page, errors, close } = await open(server, { view: "#channels" });
  await page.waitForFunction(() => document.querySelectorAll("#channels-rows tr:not(.details)").length === 50);
  await page.click("#channels-more");
  await page.waitForFunction(() => document.querySelectorAll("#channels-rows tr:not(.details)").length >= 61);
  const found = async (text, how) => {
    await page.selectOption("#channels-search select", how);
    await page.fill("#channels-search input", text);
    await page.keyboard.press("Enter");
    await page.waitForSelector("#channels-rows:not([aria-busy])", { state: "attached" });
    return page.locator("#channels-rows code").allTextContents();
  };
  assert.deepEqual(await found("IN;ha", "contains"), ["needle/@b@:in;hay"]);
  assert.deepEqual((await found("room:1", "prefix")).sort(), names.filter((name) => name.startsWith("room:1")));
  assert.deepEqual(await found("room:07", "prefix"), ["room:07"]);
  await page.click("#channels-rows button[aria-expanded]");
  await page.waitForSelector("#channels-rows .details li");
  assert.match(await page.textContent("#channels-rows .details li code"), /^[0-9a-f]{8}-/);
  assert.deepEqual(await found("oom:1", "prefix"), []);
  assert.match(await page.textContent("#channels-empty"), /No channel/);
  subscriber.kill();
  assert.deepEqual(errors, []);
  await close();
});

test("the details of a channel say which rule holds, and what it adds", async () => {
  const file = join(directory, "rules.toml");
  writeFileSync(file, '[[channel]]\nmatch = "prices:*"\nhistory = 7\non-subscribe = "last"\n');
  const ruled = await serve("ruled", "--shards", "2", "--config", file);
  const subscriber = await subscribe(ruled, "prices:eur", "plain");
  let placed;
  for (let n = 0; n < 9; n += 1) placed = await ask(ruled, "publish", "prices:eur", "tick", String(n));
  const { epoch, offset } = placed;
  const { page, errors, close } = await open(ruled, { view: "#channels" });
  const facts = async (channel) => {
    await page.getByRole("button", { name: `Details of ${channel}` }).click();
    const row = page.locator("#channels-rows tr.details:not([hidden]) .facts");
    await row.waitFor();
    const text = await row.innerText();
    await page.getByRole("button", { name: `Details of ${channel}` }).click();
    return text;
  };
  const prices = await facts("prices:eur");
  for (const fact of ["1, for prices:*", "history = 7", "on-subscribe = last", "7 messages, ", `position ${offset} of epoch ${epoch}`, "127.0.0.1"]) assert.ok(prices.includes(fact), `${fact}: ${prices}`);
  assert.match(await facts("plain"), /none fits[^]*delivery only/);
  assert.deepEqual(errors, []);
  subscriber.kill();
  await close();
});

test("the details of a presence channel list its members, the debug panel among them", async () => {
  const { page, errors, close } = await open(server, { view: "#debug" });
  await page.click("#debug-connect [type=submit]");
  await page.waitForFunction(() => document.querySelector("#debug-state").textContent.startsWith("connected as"));
  await page.fill("#debug-subscribe [name=channel]", "presence-room");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#debug-channels li[data-state=subscribed]");
  const frame = page.locator("#log li[data-kind=in] code", { hasText: '"socket:subscribed"' });
  assert.match(await frame.textContent(), /"presence":\{"count":1,"members":\[\{"user_id":"console"\}\]\}/);
  await page.goto(`${server.console}#channels`);
  await page.getByRole("button", { name: "Details of presence-room" }).click();
  const facts = page.locator("#channels-rows tr.details:not([hidden]) .facts");
  await facts.waitFor();
  assert.match(await facts.innerText(), /Members\s+1\s+console/);
  assert.deepEqual(errors, []);
  await close();
});

test("disconnect asks first, and closes a real client", async () => {
  const own = await serve("ending", "--shards", "2");
  const subscriber = await subscribe(own, "to-be-closed");
  const { page, errors, close } = await open(own, { view: "#connections" });
  const row = page.locator("#connections-rows tr:not(.details)").first();
  await row.getByRole("button", { name: /Details/ }).click();
  await page.waitForSelector("#connections-rows .details code");
  assert.equal(await page.textContent("#connections-rows .details code"), "to-be-closed");
  const ended = once(subscriber, "exit");
  await row.getByRole("button", { name: /Disconnect/ }).click();
  await page.waitForSelector("#ending[open]");
  await page.keyboard.press("Escape");
  await page.waitForSelector("#ending:not([open])", { state: "attached" });
  assert.equal((await ask(own, "channel", "to-be-closed")).subscribers, 1, "nothing happens before the confirmation");
  await row.getByRole("button", { name: /Disconnect/ }).click();
  await page.locator("#ending").getByRole("button", { name: "Disconnect" }).click();
  await ended;
  await page.waitForSelector("#connections-rows tr.gone");
  assert.equal((await ask(own, "channel", "to-be-closed")).subscribers, 0);
  assert.deepEqual(errors, []);
  await close();
});

test("the debug panel signs for a private channel, publishes, and shows the frame", async () => {
  const { page, errors, close } = await open(server, { view: "#debug" });
  await page.waitForFunction(() => document.querySelector("#debug-connect [name=url]").value.startsWith("ws://127.0.0.1:"));
  await page.click("#debug-connect [type=submit]");
  await page.waitForFunction(() => document.querySelector("#debug-state").textContent.startsWith("connected as"));
  await page.fill("#debug-subscribe [name=channel]", "private-orders");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#debug-channels li[data-state=subscribed]");
  assert.equal((await ask(server, "channel", "private-orders")).subscribers, 1);
  const first = await page.textContent("#debug-state");
  await page.getByRole("button", { name: "Reconnect" }).click();
  await page.waitForFunction((first) => /^connected as/.test(document.querySelector("#debug-state").textContent) && document.querySelector("#debug-state").textContent !== first, first);
  await page.waitForSelector("#debug-channels li[data-state=subscribed]");
  await until("one subscription, that of the new connection", async () => (await ask(server, "channel", "private-orders")).subscribers === 1);
  const hostile = '{"n": 12345678901234567890, "html": "<img src=x onerror=alert(1)>"}';
  await page.fill("#debug-publish textarea", hostile);
  await page.click("#debug-publish [type=submit]");
  await page.waitForFunction(() => document.querySelector("#debug-published").textContent === "to 1 subscriber");
  const frame = page.locator("#log li[data-kind=in] code").last();
  await until("the frame", async () => (await frame.textContent()).includes('"event":"test"'));
  assert.equal(await frame.textContent(), `{"event":"test","channel":"private-orders","data":${hostile}}`);
  assert.equal(await page.locator("#log img").count(), 0, "text is not interpreted as HTML");

  await page.fill("#debug-publish textarea", "{no");
  await page.click("#debug-publish [type=submit]");
  await page.waitForFunction(() => document.querySelector("#debug-published").textContent.includes("not valid JSON"));

  // While the log is paused, frames wait. The oldest are dropped beyond a limit, which the page shows.
  await page.click("#log-pause");
  const shown = await page.locator("#log li").count();
  const running = publisher(server, ["private-orders"], () => 2_000);
  await page.waitForFunction(() => /older frames dropped/.test(document.querySelector("#log-count").textContent));
  assert.equal(await page.locator("#log li").count(), shown);
  running.stop();
  await page.click("#log-pause");
  await page.waitForFunction(() => document.querySelectorAll("#log li").length === 500);
  await page.click("#log-clear");
  await page.getByRole("button", { name: "Unsubscribe from private-orders" }).click();
  await page.waitForFunction(() => document.querySelectorAll("#debug-channels li").length === 0);
  await page.click("#debug-close");
  await page.waitForFunction(() => document.querySelector("#debug-state").textContent === "not connected");
  assert.deepEqual(errors, []);
  await close();
});

test("the debug panel sends heartbeats as the protocol defines them", async () => {
  const own = await serve("heart", "--shards", "1", "--heart-interval", "1", "--server-ping", "off");
  const { page, errors, close } = await open(own, { view: "#debug" });
  await page.waitForFunction(() => document.querySelector("#debug-connect [name=url]").value.startsWith("ws://127.0.0.1:"));
  await page.click("#debug-connect [type=submit]");
  const answers = page.locator("#log li[data-kind=in].heartbeat code");
  await until("two answers", async () => (await answers.count()) >= 2);
  assert.deepEqual((await answers.allTextContents()).slice(0, 2), [1, 2].map((reply) => JSON.stringify({ event: "socket:pong", data: { reply } })));
  assert.deepEqual(errors, []);
  await close();
});

test("an unknown view in the address opens the overview", async () => {
  for (const view of ["#nothing", "#__proto__", "#toString"]) {
    const { page, errors, close } = await open(server, { view });
    await live(page);
    assert.ok(await page.isVisible("#overview"), view);
    assert.deepEqual(errors, []);
    await close();
  }
});

test("a link opens the console once, and its token leaves no trace", async () => {
  const address = await link(server);
  const { page, errors, close } = await open(server, { address });
  await live(page);
  assert.equal(page.url(), server.console);
  assert.equal(await page.evaluate(() => history.length), 2, "about:blank, and the page");
  assert.ok(!(await page.content()).includes(address.split("=")[1]));
  await page.reload();
  await live(page);
  // The link again, in this tab: the session goes on.
  await page.goto(address);
  await entered(page);
  assert.equal(page.url(), server.console);
  assert.deepEqual(errors.filter((text) => !/401/.test(text)), []);

  const other = await open(server, { address });
  await other.page.waitForSelector("#login[open]");
  assert.match(await other.page.textContent("#login .wrong"), /corecast console/);
  await other.page.fill("#login input", "not a key");
  await other.page.keyboard.press("Enter");
  await other.page.waitForSelector("#login[open]");
  await other.page.fill("#login input", await link(server));
  await other.page.keyboard.press("Enter");
  await live(other.page);
  await other.close();
  await close();
});

test("without a token the page asks for a link, and sends nothing", async () => {
  const { page, errors, close } = await open(server, { address: server.console });
  await page.waitForSelector("#login[open]");
  await page.keyboard.press("Escape");
  assert.ok(await page.isVisible("#login"));
  // A link that is opened in the same tab.
  await page.goto(await link(server));
  await entered(page);
  assert.ok(!(await page.isVisible("#login")));
  assert.deepEqual(errors, []);
  await close();
});

test("a read-only link shows everything and offers no action", async () => {
  const subscriber = await subscribe(server, "looked-at");
  const { page, errors, close } = await open(server, { address: await link(server, "--read-only") });
  await live(page);
  await page.waitForSelector("#rights:not([hidden])");
  await page.goto(`${server.console}#connections`);
  await page.getByRole("button", { name: /Details/ }).first().click();
  await page.waitForSelector("#connections-rows .details code");
  assert.equal(await page.getByRole("button", { name: /Disconnect/ }).count(), 0);
  await page.goto(`${server.console}#debug`);
  assert.ok(!(await page.isVisible("#debug-publish")) && !(await page.isVisible("#debug-subscribe [name=sign]")));
  await page.click("#debug-connect [type=submit]");
  await page.waitForSelector("#debug-subscribe [type=submit]:not([disabled])");
  await page.fill("#debug-subscribe [name=channel]", "private-orders");
  await page.keyboard.press("Enter");
  await until("the server's refusal", async () => /auth_required/.test(await page.locator("#log li[data-kind=in] code").last().textContent()));
  const refused = await page.evaluate(async () => {
    const headers = { authorization: `Bearer ${sessionStorage.getItem("corecast-console-token")}`, "content-type": "application/json" };
    const body = JSON.stringify({ channel: "looked-at", event: "e" });
    const response = await fetch("console/api/publish", { method: "POST", headers, body });
    return [response.status, (await response.json()).code];
  });
  assert.deepEqual(refused, [403, "read_only"]);
  assert.deepEqual(errors.filter((text) => !/403/.test(text)), []);
  // With another link the same tab may act.
  await page.goto(await link(server));
  await entered(page);
  assert.ok(!(await page.isVisible("#rights")));
  await page.goto(`${server.console}#debug`);
  await page.waitForSelector("#debug-publish");
  subscriber.kill();
  await close();
});

test("a restart of the server ends the session: the page asks for another link", async () => {
  const first = await serve("restarting", "--shards", "1");
  const { page, close } = await open(first);
  await live(page);
  const ended = once(first.child, "exit");
  first.child.kill();
  await ended;
  await page.waitForSelector("#status[data-state=lost]");
  const second = await serve("restarting", "--shards", "1", "--http", first.http);
  await page.waitForSelector("#login[open]");
  await page.fill("#login input", await link(second));
  await page.keyboard.press("Enter");
  await live(page);
  await close();
});

test("a server with a key: the page asks for it, and keeps it for the tab", async () => {
  const file = join(directory, "console-key");
  writeFileSync(file, `# for tests\n${KEY}\n`);
  const keyed = await serve("keyed", "--console-key-file", file, "--shards", "1", "--allow-origin", "https://app.example.com");
  const { page, errors, close } = await open(keyed, { address: `${keyed.console}#debug` });
  await page.waitForSelector("#login[open]");
  await page.fill("#login input", "not-the-right-key-é");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#login .wrong").textContent !== "");
  await page.fill("#login input", KEY);
  await page.keyboard.press("Enter");
  await live(page);
  await page.reload();
  await live(page);
  // The server's --allow-origin does not list this page. The page says so before and after an attempt to connect.
  await page.waitForSelector("#debug-notice:not([hidden])");
  assert.match(await page.textContent("#debug-notice"), /--allow-origin http:\/\/127\.0\.0\.1/);
  await page.click("#debug-connect [type=submit]");
  await page.waitForSelector("#log li[data-kind=error]");
  assert.match(await page.textContent("#log li[data-kind=error]"), /--allow-origin/);
  // The browser reports the refused requests and the refused connection; the page adds no errors.
  assert.deepEqual(errors.filter((text) => !/401|403/.test(text)), []);
  keyed.child.kill();
  await page.waitForSelector("#status[data-state=lost]");
  await close();
});

test("a proxy on this machine gives no rights, and the key works through it", async () => {
  const file = join(directory, "proxied-key");
  writeFileSync(file, `${KEY}\n`);
  const keyed = await serve("proxied", "--console-key-file", file, "--shards", "1");
  // As nginx's proxy_pass without further lines: `Host` names the upstream.
  const [hostname, port] = keyed.http.split(":");
  const proxy = createServer((incoming, outgoing) => {
    const headers = { ...incoming.headers, host: keyed.http, "x-forwarded-for": "127.0.0.1" };
    const upstream = request({ hostname, port, path: incoming.url, method: incoming.method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.pipe(outgoing);
    });
    upstream.on("error", () => outgoing.destroy());
    incoming.pipe(upstream);
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const address = `http://127.0.0.1:${proxy.address().port}/console`;
  assert.equal((await fetch(`${address}/api/stats`)).status, 401);
  const { page, errors, close } = await open(keyed, { address });
  await page.waitForSelector("#login[open]");
  await page.fill("#login input", KEY);
  await page.keyboard.press("Enter");
  await live(page);
  await page.goto(`${address}#debug`);
  await page.fill("#debug-publish [name=channel]", "proxied");
  await page.click("#debug-publish [type=submit]");
  await page.waitForFunction(() => document.querySelector("#debug-published").textContent === "to 0 subscribers");
  assert.deepEqual(errors, []);
  await close();
  proxy.closeAllConnections();
  proxy.close();
});

test("375 px wide, no view scrolls sideways", async () => {
  const subscriber = await subscribe(server, "phone", `long-${"x".repeat(190)}`);
  for (const view of ["overview", "channels", "connections", "debug"]) {
    const { page, errors, close } = await open(server, { view: `#${view}`, viewport: { width: 375, height: 740 } });
    await live(page);
    if (view === "overview") await page.waitForSelector("#busiest-channels tbody tr");
    else if (view !== "debug") await page.waitForSelector(`#${view}-rows tr`);
    if (view === "debug") {
      await page.click("#debug-connect [type=submit]");
      await page.waitForSelector("#log li[data-kind=in]");
    }
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 375, `${view}: ${width}`);
    assert.deepEqual(errors, []);
    await close();
  }
  subscriber.kill();
});

// Not a test: the pictures of the documentation.
test("pictures", { skip: !pictures, timeout: 400_000 }, async () => {
  const busy = await serve("pictures", "--key", "app:only-for-these-tests", "--shards", "2");
  const clients = [];
  for (let n = 0; n < 24; n += 1) clients.push(await subscribe(busy, `orders:eu-${n}`, `user:${n}`, "prices", "private-till"));
  const wave = () => 400 + 250 * Math.sin(Date.now() / 4_000) + 120 * Math.random();
  const running = publisher(busy, ["prices", "prices", "orders:eu-3", "user:7", "private-till"], wave);
  const shots = [];
  for (const colorScheme of ["light", "dark"]) shots.push([colorScheme, await open(busy, { colorScheme, viewport: { width: 1360, height: 850 } })]);
  shots.push(["phone", await open(busy, { colorScheme: "dark", viewport: { width: 375, height: 740 }, deviceScaleFactor: 2 })]);
  for (const [, { page }] of shots) await page.click("#window button:first-child");
  // A minute of history for the picture, in which clients connect and disconnect.
  for (let second = 0; second < 65; second += 1) {
    const count = 20 + Math.round(6 * Math.sin(second / 7));
    while (clients.length > count) clients.shift().kill();
    if (clients.length < count) clients.push(await subscribe(busy, `user:${100 + second}`, "prices"));
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
  for (const [name, { page }] of shots) {
    await page.bringToFront();
    await page.screenshot({ path: join(pictures, `overview-${name}.png`) });
    for (const view of ["channels", "connections", "debug"]) {
      await page.goto(`${busy.console}#${view}`);
      if (view === "debug") {
        await page.evaluate(() => scrollTo(0, 0));
        await page.fill("#debug-subscribe [name=channel]", "private-till");
        await page.click("#debug-connect [type=submit]");
        await page.waitForSelector("#debug-subscribe [type=submit]:not([disabled])");
        await page.click("#debug-subscribe [type=submit]");
        await page.waitForFunction(() => document.querySelectorAll("#log li").length > 30);
      } else await page.waitForSelector(`#${view}-rows tr`);
      await page.screenshot({ path: join(pictures, `${view}-${name}.png`) });
    }
  }
  running.stop();
});
