// A live board: starts a corecast server, serves the page and its state, signs for its channels, and publishes orders.
//   npm run example            then open the URL that it prints
// CORECAST_BIN: path of the server's binary; PORT: port of the page; CORECAST_PORT: port of the WebSocket server;
// CORECAST_URL: what the page connects to; ORDERS_PER_SECOND: a constant rate instead of a changing one.
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const file = (path) => fileURLToPath(new URL(path, import.meta.url));
if (!existsSync(file("../dist/server.js"))) execFileSync(process.execPath, [file("../scripts/build.mjs")], { stdio: "inherit" });
const { CorecastBackend } = await import("../dist/server.js");

const port = Number(process.env.PORT ?? 9480);
const corecastPort = Number(process.env.CORECAST_PORT ?? 9481);
const corecastUrl = process.env.CORECAST_URL ?? `ws://127.0.0.1:${corecastPort}`;
const key = `board:${randomBytes(16).toString("hex")}`;
const directory = mkdtempSync(join(tmpdir(), "corecast-example-"));
const adminSocket = join(directory, "admin");
const keyFile = join(directory, "key");
writeFileSync(keyFile, key + "\n", { mode: 0o600 });

// A page that comes back within five minutes gets the orders that it missed, and each page starts with the newest total.
const config = join(directory, "corecast.toml");
writeFileSync(
  config,
  `
[[channel]]
match = "orders"
history = 5000
history-bytes = "1MiB"

[[channel]]
match = "private-till"
history = 1
on-subscribe = "last"
`,
);

const binary = [process.env.CORECAST_BIN, file("../../../target/release/corecast"), file("../../../target/debug/corecast")].find(
  (path) => path && existsSync(path),
);
if (!binary) throw new Error("no corecast binary: run cargo build --release, or set CORECAST_BIN to its path");
const corecast = spawn(
  binary,
  [
    ...["serve", "--config", config, "--listen", `127.0.0.1:${corecastPort}`],
    ...["--admin-socket", adminSocket, "--key-file", keyFile, "--log", "warn"],
  ],
  { stdio: ["ignore", "ignore", "inherit"] },
);
const backend = new CorecastBackend({ key, adminSocket });

const pages = {
  "/": ["text/html; charset=utf-8", file("index.html")],
  "/corecast.min.js": ["text/javascript", file("../dist/corecast.min.js")],
};
const http = createServer(async (request, response) => {
  const json = (status, body) => response.writeHead(status, { "content-type": "application/json" }).end(body);
  // A real backend has accounts. Here each browser is a guest with a name.
  const guest = /(?:^|; )guest=((?:[A-Za-z0-9]|%20)+)/.exec(request.headers.cookie)?.[1];
  const name = decodeURIComponent(guest ?? "");
  if (request.method === "POST" && request.url === "/auth") {
    let body = "";
    for await (const text of request) body += text;
    // authorize checks the socket_id and the name of the channel: unchecked, they could make the signature that of another text.
    // A guest is a member of the board, and every page may see the till.
    const member = guest ? { user_id: guest, user_info: { name } } : false;
    const answer = await backend.authorize(new URLSearchParams(body), (channel) =>
      channel === "presence-board" ? member : channel === "private-till",
    );
    return json(answer.status, answer.body);
  }
  if (request.url === "/orders") {
    // The position of the channel is read before the state: what is published from now on follows the position.
    const { offset } = await backend.history("orders", { limit: 0 });
    return json(200, JSON.stringify({ offset, count, last: number }));
  }
  const [type, path] = pages[request.url.split("?")[0]] ?? [];
  if (!path) return response.writeHead(404).end();
  const cookie = guest ?? encodeURIComponent(`${pick(ADJECTIVES)} ${pick(ANIMALS)} ${randomBytes(1)[0]}`);
  response
    .writeHead(200, { "content-type": type, "set-cookie": `guest=${cookie}; SameSite=Strict; HttpOnly` })
    .end(readFileSync(path, "utf8").replace("CORECAST_URL", corecastUrl));
});
http.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}`));

const DISHES = ["Ramen", "Pho", "Bibimbap", "Dan dan noodles", "Okonomiyaki", "Laksa", "Mapo tofu", "Banh mi"];
const TABLES = 24;
const ADJECTIVES = ["Quiet", "Brave", "Hungry", "Gentle", "Swift", "Curious", "Sleepy", "Merry"];
const ANIMALS = ["Heron", "Otter", "Lynx", "Badger", "Magpie", "Hare", "Marten", "Newt"];
const pick = (list) => list[Math.floor(Math.random() * list.length)];
let number = 1000;
let count = 0;
let till = 0;
function order() {
  const price = Math.round(800 + Math.random() * 1200);
  const id = ++number;
  count += 1;
  const dish = pick(DISHES);
  till += price;
  const failed = ({ code }) => console.error(`not published: ${code}`);
  const at = Date.now();
  backend.publish("orders", "order.placed", { id, dish, table: 1 + Math.floor(Math.random() * TABLES), at }).catch(failed);
  if (Math.random() < 0.4) backend.publish("orders", "order.served", { id: id - 5, dish: pick(DISHES) }).catch(failed);
  backend.publish("private-till", "till.changed", { total: till, last: price }).catch(failed);
  const busy = 1 + Math.sin(Date.now() / 7_000);
  timer = setTimeout(order, rate ? 1_000 / rate : 40 + Math.random() * 260 * (2.2 - busy));
}
const rate = Number(process.env.ORDERS_PER_SECOND ?? 0);
let timer = setTimeout(order, 300);

function stop() {
  clearTimeout(timer);
  corecast.kill();
  rmSync(directory, { recursive: true, force: true });
  process.exit();
}
process.on("SIGINT", stop).on("SIGTERM", stop);
corecast.on("exit", () => console.error("corecast has ended"));
