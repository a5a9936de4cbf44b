// Runs the suite in a worker, with the build of pusher-js for workers, and answers with its results.

import Echo from "/node_modules/laravel-echo/dist/echo.js";
import { groups } from "./suite/index.mjs";
import { playAll } from "./suite/play.mjs";

self.onmessage = async ({ data }) => {
  const script = await fetch("/node_modules/pusher-js/dist/worker/pusher-with-encryption.worker.min.js");
  // The build is a classic script, which a module cannot import.
  (0, eval)(await script.text());
  self.postMessage(await playAll(groups("worker"), { Pusher: self.Pusher, Echo, runtime: "worker", ...data }));
};
