// A load balancer between clients and servers, which tests direct: it waits for a server that is away, as a socket that a service
// manager keeps open does, and it can stop passing anything on.

import { once } from "node:events";
import { connect, createServer } from "node:net";

const AGAIN_MS = 20;

/** Starts a balancer that sends new connections to this server, until `to` says otherwise. */
export async function balance(first) {
  let server = first;
  let closed = false;
  const pairs = new Set();
  const open = (client) => {
    if (closed) return;
    const upstream = connect(server.port, "127.0.0.1");
    upstream.once("connect", () => join(client, upstream, pairs)).once("error", () => upstream.connecting || setTimeout(open, AGAIN_MS, client));
  };
  const listener = createServer((client) => {
    client.on("error", () => {});
    open(client);
  });
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
      closed = true;
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
