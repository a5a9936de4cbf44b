// pusher-js in Node waits 30 s for the answer to a close frame, even where the connection has ended. That must not keep the
// tests' process alive.

const LONG_MS = 30_000;
const { setTimeout } = globalThis;

globalThis.setTimeout = (callback, delay, ...args) => {
  const timer = setTimeout(callback, delay, ...args);
  return delay >= LONG_MS ? timer.unref() : timer;
};
