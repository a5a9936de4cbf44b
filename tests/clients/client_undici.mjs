// undici (https://undici.nodejs.org), the browser's WebSocket in Node, through the scenario. Browsers have no pings.

import { once } from "node:events";
import { WebSocket } from "undici";
import { Mailbox, run } from "./scenario.mjs";

await run({
  name: "undici",
  async connect(url) {
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    const box = new Mailbox();
    socket.addEventListener("message", ({ data }) => box.put(typeof data === "string" ? data : new Uint8Array(data)));
    socket.addEventListener("close", ({ code, reason }) => box.put({ code, reason }));
    await once(socket, "open");
    return {
      compressed: socket.extensions !== "",
      send: (message) => socket.send(message),
      receive: () => box.take(),
      close(code, reason) {
        socket.close(code, reason);
        return box.take();
      },
    };
  },
});
