// ws (https://github.com/websockets/ws) through the scenario.

import { once } from "node:events";
import WebSocket from "ws";
import { Mailbox, run } from "./scenario.mjs";

await run({
  name: "ws",
  async connect(url) {
    const socket = new WebSocket(url, { perMessageDeflate: true });
    const box = new Mailbox();
    socket.on("message", (data, isBinary) => box.put(isBinary ? new Uint8Array(data) : data.toString()));
    socket.on("close", (code, reason) => box.put({ code, reason: reason.toString() }));
    await once(socket, "open");
    return {
      compressed: socket.extensions !== "",
      send: (message) => socket.send(message),
      receive: () => box.take(),
      async ping(payload) {
        const pong = once(socket, "pong");
        socket.ping(payload);
        if ((await pong)[0].toString() !== payload) throw new Error("another pong");
      },
      close(code, reason) {
        socket.close(code, reason);
        return box.take();
      },
    };
  },
});
