// Node with `ws`: a set of sockets per channel, and a `send` to each, as in the broadcast of its documentation.
import { WebSocketServer } from "ws";

const channels = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: false });

server.on("connection", (socket) => {
  const subscribed = new Set();
  socket.on("message", (text) => {
    const message = JSON.parse(text);
    switch (message.event) {
      case "socket:ping":
        socket.send(`{"event":"socket:pong","data":{"reply":${message.data.id}}}`);
        break;
      case "publish": {
        const body = JSON.stringify({ event: "m", channel: message.channel, data: message.data });
        for (const subscriber of channels.get(message.channel) ?? []) subscriber.send(body);
        break;
      }
      case "socket:subscribe": {
        const { channel } = message.data;
        if (!channels.has(channel)) channels.set(channel, new Set());
        channels.get(channel).add(socket);
        subscribed.add(channel);
        socket.send(JSON.stringify({ event: "socket:subscribed", channel }));
        break;
      }
      case "socket:unsubscribe": {
        const { channel } = message.data;
        channels.get(channel)?.delete(socket);
        subscribed.delete(channel);
        socket.send(JSON.stringify({ event: "socket:unsubscribed", channel }));
        break;
      }
    }
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    for (const channel of subscribed) channels.get(channel)?.delete(socket);
  });
});
server.on("listening", () => console.error(`listening on 127.0.0.1:${process.argv[2]}`));
