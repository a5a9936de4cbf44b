// Runs the suite in a page, and in a worker beside it. The settings are in the URL's fragment: `{ page, worker, secure }`, each
// for the server that the page, the worker, and the page again are to use. Reports `[{ where, group, name, error }]`.

import Echo from "/node_modules/laravel-echo/dist/echo.js";
import { groups } from "./suite/index.mjs";
import { playAll } from "./suite/play.mjs";
import { plainBuild } from "./suite/plain_build.mjs";

const { Pusher } = window;
const settings = JSON.parse(decodeURIComponent(location.hash.slice(1)));

async function inPage() {
  const setting = { Pusher, Echo, runtime: "page", ...settings.page };
  return playAll({ ...groups("page"), "the build without encryption": plainBuild }, setting);
}

/** What depends on TLS. */
async function securely() {
  const { connection, authorization } = groups("page");
  return playAll({ connection, authorization }, { Pusher, Echo, runtime: "page", ...settings.secure });
}

function inWorker() {
  const worker = new Worker("/worker.mjs", { type: "module" });
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = ({ message }) => reject(new Error(message));
    worker.postMessage(settings.worker);
  });
}

async function run() {
  const parts = { page: inPage(), "page over TLS": securely(), worker: inWorker() };
  const results = [];
  for (const [where, part] of Object.entries(parts)) {
    const done = await part.catch((error) => [{ group: "all", name: "run", error: String(error?.stack ?? error) }]);
    for (const result of done) results.push({ where, ...result });
  }
  await fetch("/do/report", { method: "POST", body: JSON.stringify([results]) });
}

await run();
