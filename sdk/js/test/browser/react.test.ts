/** The README's React example: in Chromium, in StrictMode, against a server; and rendered on a server. */
import { once } from "node:events";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type BuildOptions } from "esbuild";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CorecastBackend } from "../../src/server.js";
import { freePort, Server } from "../corecast.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
let directory: string;
let server: Server;
let backend: CorecastBackend;
let http: HttpServer;
let browser: Browser;
let script = "";

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "corecast-js-"));
  symlinkSync(join(root, "node_modules"), join(directory, "node_modules"));
  server = await Server.start();
  backend = new CorecastBackend({ adminSocket: server.adminSocket });
  const [, example] = /^```jsx\n([^]*?)^```$/m.exec(readFileSync(join(root, "README.md"), "utf8"))!;
  writeFileSync(join(directory, "example.jsx"), example!.replace("ws://127.0.0.1:9000", server.url));
  http = createServer((request, response) => {
    const html = '<!doctype html><link rel="icon" href="data:,"><div id="root"></div><script src="/script.js"></script>';
    const [type, body] = request.url === "/script.js" ? ["text/javascript", script] : ["text/html", html];
    response.writeHead(200, { "content-type": type }).end(body);
  });
  http.listen(await freePort(), "127.0.0.1");
  await once(http, "listening");
  const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM_BIN ?? "/usr/bin/chromium", args });
});
afterAll(async () => {
  await browser?.close();
  http?.close();
  await backend?.close();
  await server?.dispose();
  rmSync(directory, { recursive: true, force: true });
});

async function bundle(source: string, options: BuildOptions) {
  writeFileSync(join(directory, "entry.jsx"), source);
  const { outputFiles } = await build({
    entryPoints: [join(directory, "entry.jsx")],
    bundle: true,
    write: false,
    jsx: "automatic",
    // Development builds: only these run effects twice.
    define: { "process.env.NODE_ENV": '"development"' },
    alias: { "corecast-client": join(root, "dist/index.js") },
    ...options,
  });
  return outputFiles![0]!.text;
}

const subscribers = async () => (await backend.request("channel", { channel: "orders" })).subscribers;

test("components that share a channel in StrictMode: one subscription, each message once", async () => {
  script = await bundle(
    `import { StrictMode, useState } from "react";
     import { createRoot } from "react-dom/client";
     import { App, Orders, socket } from "./example.jsx";
     Object.assign(window, { sent: [] });
     socket.debug = (line) => line.includes('"socket:subscribe"') && sent.push(line);
     function Page() {
       const [shown, setShown] = useState(2);
       window.show = setShown;
       return <App>{Array.from({ length: shown }, (_, n) => <Orders key={n} />)}</App>;
     }
     const react = createRoot(document.getElementById("root"));
     window.unmount = () => react.unmount();
     react.render(<StrictMode><Page /></StrictMode>);`,
    { platform: "browser" },
  );
  const page = await browser.newPage();
  const errors: string[] = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(`http://127.0.0.1:${(http.address() as AddressInfo).port}/`);
  const paragraphs = () => page.$$eval("p", (found) => found.map((paragraph) => paragraph.textContent));
  await expect.poll(() => page.textContent("h1"), { timeout: 20_000 }).toBe("connected");
  await expect.poll(subscribers, { timeout: 20_000 }).toBe(1);

  await backend.publish("orders", "order.placed", { id: 1 });
  await expect.poll(paragraphs).toEqual(["1", "1"]);
  await page.evaluate(() => (window as any).show(1));
  await backend.publish("orders", "order.placed", { id: 2 });
  await expect.poll(paragraphs).toEqual(["1 2"]);
  expect(await subscribers()).toBe(1);
  await page.evaluate(() => (window as any).show(0));
  await expect.poll(subscribers).toBe(0);
  await page.evaluate(() => (window as any).show(1));
  await expect.poll(subscribers).toBe(1);
  expect(await page.evaluate(() => (window as any).sent.length)).toBe(2);
  await page.evaluate(() => (window as any).unmount());
  await expect.poll(async () => ((await backend.request("connections")).connections as unknown[]).length).toBe(0);
  // React connects, disconnects and connects: the browser itself reports the connection that was closed while it was opened.
  expect(errors.filter((text) => !text.includes("closed before the connection is established"))).toEqual([]);
  await page.close();
});

test("rendered on a server, with and without a WebSocket", async () => {
  const source = await bundle(
    `import { renderToString } from "react-dom/server";
     import { App, Orders } from "./example.jsx";
     console.log(renderToString(<App><Orders /></App>));`,
    { platform: "node", format: "cjs" },
  );
  for (const without of ["", "delete globalThis.WebSocket;\n", "globalThis.WebSocket = class { constructor() { throw Error(); } };\n"]) {
    writeFileSync(join(directory, "render.cjs"), without + source);
    const html = String(execFileSync(process.execPath, [join(directory, "render.cjs")], { cwd: directory }));
    expect(html.trim()).toBe("<h1>initialized</h1><p></p>");
  }
});
