// Bun's built-in pub/sub.
//   bun server.js PORT direct    publishes in its handler, as its documentation does
//   bun server.js PORT deferred  publishes at the end of the loop's turn, its best configuration: the engine then sends
//                                everything that was published in the turn together
const [port, mode] = [Number(process.argv[2]), process.argv[3] ?? "direct"];

let pending = [];

function publish(channel, text) {
  if (mode === "direct") {
    server.publish(channel, text);
    return;
  }
  if (pending.length === 0) setImmediate(publishPending);
  pending.push([channel, text]);
}

function publishPending() {
  const batch = pending;
  pending = [];
  for (const [channel, text] of batch) server.publish(channel, text);
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port,
  fetch(request, server) {
    if (server.upgrade(request)) return;
    return new Response("WebSocket only", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    // Keep all messages for a slow subscriber, as the other peers do; dropping them would be an unfair advantage.
    backpressureLimit: 256 * 1024 * 1024,
    closeOnBackpressureLimit: false,
    message(ws, text) {
      const message = JSON.parse(text);
      switch (message.event) {
        case "socket:ping":
          ws.send(`{"event":"socket:pong","data":{"reply":${message.data.id}}}`);
          break;
        case "publish":
          publish(message.channel, JSON.stringify({ event: "m", channel: message.channel, data: message.data }));
          break;
        case "socket:subscribe":
          ws.subscribe(message.data.channel);
          ws.send(JSON.stringify({ event: "socket:subscribed", channel: message.data.channel }));
          break;
        case "socket:unsubscribe":
          ws.unsubscribe(message.data.channel);
          ws.send(JSON.stringify({ event: "socket:unsubscribed", channel: message.data.channel }));
          break;
      }
    },
  },
});
console.error(`listening on 127.0.0.1:${server.port}`);
