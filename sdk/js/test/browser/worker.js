// A classic worker, as a page without a bundler starts it. It receives the URL and posts the messages that it receives.
importScripts("/corecast.min.js");
onmessage = ({ data: url }) => {
  const socket = new Corecast(url, { auth: { endpoint: "/auth" } });
  const channels = ["worker", "private-worker"].map((name) =>
    socket.subscribe(name).bind("n", (n) => postMessage(`${name} ${n}`)),
  );
  Promise.all(channels.map(({ subscribed }) => subscribed)).then(
    () => postMessage("subscribed"),
    (error) => postMessage(String(error)),
  );
};
