// A load balancer between clients and servers, which tests direct.

import { once } from "node:events";
import { connect, createServer } from "node:net";

/** Starts a balancer that sends new connections to this server, until `to` says otherwise. */
export async function balance(first) {
  let server = first;
  const pairs = new Set();
  const listener = createServer((client) => join(client, connect(server.port, "127.0.0.1"), pairs));
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  return {
    port: listener.address().port,
    to: (other) => (server = other),
    /** From now on connections pass nothing on, and do not end. */
    freeze: () => {
      for (const { client, upstream } of pairs) for (const socket of [client, upstream]) socket.unpipe().pause();
    },
    close: () => {
      listener.close();
      for (const { client, upstream } of pairs) for (const socket of [client, upstream]) socket.destroy();
    },
  };
}

function join(client, upstream, pairs) {
  const pair = { client, upstream };
  pairs.add(pair);
  client.pipe(upstream).pipe(client);
  for (const [one, other] of [[client, upstream], [upstream, client]]) one.on("error", () => {}).on("close", () => (other.destroy(), pairs.delete(pair)));
}
