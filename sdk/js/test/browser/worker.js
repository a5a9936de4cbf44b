// A worker of the classic kind, as a page without a bundler starts it. It is told the address, and says what it hears.
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
