// The console in Firefox and in WebKit: what a page needs from a browser, from the link to the WebSocket.
// node --test browsers.mjs, with the names of the browsers in BROWSERS.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import * as drivers from "./drivers.mjs";
import { ask, end, link, publisher, serve, subscribe, until } from "./server.mjs";

let server;
before(async () => {
  server = await serve("browsers", "--key", "app:only-for-these-tests", "--shards", "2");
});
after(end);

for (const name of process.env.BROWSERS.split(" ")) {
  describe(name, () => {
    let browser;
    before(async () => {
      browser = await drivers[name]();
    });
    after(() => browser?.close());

    /** Runs a test in a new page. WebKit has one at a time. */
    const visit = (what, run) =>
      test(what, { timeout: 120_000 }, async () => {
        const page = await browser.page();
        await run(page).finally(page.close);
      });

    visit("a link opens the console, and the charts move", async (page) => {
      const address = await link(server);
      const subscriber = await subscribe(server, "prices", "user:13");
      const running = publisher(server, ["prices"], () => 200);
      await page.goto(address);
      await until("live", () => page.run(isLive));
      assert.equal(await page.run(() => location.href), server.console);
      const drawn = () => page.run(() => document.querySelector("#charts path")?.getAttribute("d") ?? "");
      await until("a chart", async () => (await drawn()).length > 20);
      const before = await drawn();
      await until("another point", async () => (await drawn()) !== before);
      await until("the busiest channel", () => page.run(() => document.querySelector("#busiest-channels tbody code")?.textContent === "prices"));
      await page.goto(`${server.console}#channels`);
      await until("the channels", () => page.run(() => [...document.querySelectorAll("#channels-rows code")].some((code) => code.textContent === "user:13")));
      running.stop();
      subscriber.kill();

      // The token is kept for the tab.
      await page.goto(`${server.console}?again`);
      await until("live again", () => page.run(isLive));
    });

    visit("a used link does not open it, and another one can be typed", async (page) => {
      const address = await link(server);
      const headers = { authorization: `Bearer ${address.split("#token=")[1]}` };
      assert.equal((await fetch(`${server.console}/api/token`, { method: "POST", headers })).status, 200);
      await page.goto(address);
      await until("the page asks", () => page.run(() => document.querySelector("#login").open && document.querySelector("#login .wrong").textContent !== ""));
      await page.run(enter, await link(server));
      await until("live", () => page.run(isLive));
    });

    visit("the debug panel signs, subscribes, publishes and shows the frame", async (page) => {
      await page.goto(await link(server));
      await until("live", () => page.run(isLive));
      await page.goto(`${server.console}#debug`);
      await until("a URL", () => page.run(() => document.querySelector("#debug-connect [name=url]").value.startsWith("ws://")));
      await page.run(() => document.querySelector("#debug-connect [type=submit]").click());
      await until("connected", () => page.run(() => document.querySelector("#debug-state").textContent.startsWith("connected as")));
      const channel = `private-${name}`;
      await page.run((channel) => {
        const form = document.querySelector("#debug-subscribe");
        form.elements.channel.value = channel;
        form.requestSubmit();
      }, channel);
      await until("subscribed", () => page.run(() => document.querySelector("#debug-channels li[data-state=subscribed]") !== null));
      assert.equal((await ask(server, "channel", channel)).subscribers, 1);
      await page.run(() => document.querySelector("#debug-publish").requestSubmit());
      const frame = `{"event":"test","channel":"${channel}","data":{"hello": "world"}}`;
      await until("the frame", () => page.run((frame) => [...document.querySelectorAll("#log li[data-kind=in] code")].some((code) => code.textContent === frame), frame));
    });

    visit("a read-only link offers no action", async (page) => {
      const subscriber = await subscribe(server, "looked-at");
      await page.goto(await link(server, "--read-only"));
      await until("read-only", () => page.run(() => document.querySelector("#rights").checkVisibility()));
      await page.goto(`${server.console}#connections`);
      await until("a connection", () => page.run(() => document.querySelector("#connections-rows tr") !== null));
      const offered = () => [...document.querySelectorAll("#connections-rows button")].filter((button) => button.checkVisibility()).map((button) => button.textContent);
      assert.deepEqual(new Set(await page.run(offered)), new Set(["Details"]));
      await page.goto(`${server.console}#debug`);
      assert.equal(await page.run(() => document.querySelector("#debug-publish").checkVisibility()), false);
      subscriber.kill();
    });
  });
}

function isLive() {
  return document.querySelector("#status")?.dataset.state === "live";
}

function enter(text) {
  const form = document.querySelector("#login form");
  form.elements.key.value = text;
  form.requestSubmit();
}
