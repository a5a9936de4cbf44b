/** What the tests of a file share: a server with rules, a network that can be cut, a backend, and clients. */
import { afterAll, afterEach, beforeAll } from "vitest";
import { WebSocket } from "ws";
import { type Channel, Corecast, type Options } from "../../src/index.js";
import { CorecastBackend } from "../../src/server.js";
import { KEY, Network, Server } from "../corecast.js";

/** The machine may be shared. */
export const PATIENCE = { timeout: 20_000 };

export let server: Server;
let network: Network;
export let backend: CorecastBackend;
const sockets: Corecast[] = [];

/** Starts the server before the tests of a file, with these rules and options, and ends it after them. */
export function serve(rules: string, ...options: string[]): void {
  beforeAll(async () => {
    server = await Server.withRules(rules, ...options);
    network = await Network.to(server.port);
    backend = new CorecastBackend({ key: KEY, adminSocket: server.adminSocket });
  });
  afterEach(() => {
    for (const socket of sockets.splice(0)) socket.disconnect();
  });
  afterAll(async () => {
    await network?.dispose();
    await backend?.close();
    await server?.dispose();
  });
}

/** A client whose backend signs for this user; with `null` without channel_data. */
export function client(user: string | null = null, options: Options = {}): Corecast {
  const auth: Options["auth"] = ({ socketId, channel }) =>
    channel.startsWith("presence-") && user !== null
      ? backend.signPresence(socketId, channel, { user_id: user, user_info: { name: `name of ${user}` } })
      : backend.sign(socketId, channel);
  return track(new Corecast(network.url, { WebSocket, backOff: { min: 20, max: 100 }, auth, ...options }));
}

/** Disconnects a client after the test. */
export function track(socket: Corecast): Corecast {
  sockets.push(socket);
  return socket;
}

export const ids = (channel: Channel) => channel.members.map(({ user_id }) => user_id);

/** The next time that the channel is live. */
const again = (channel: Channel) => new Promise((resolve) => channel.once("socket:subscribed", resolve));

/** The network is cut, and mended after `meanwhile`. Ends when the channels are live again. */
export async function cut(channels: Channel[], meanwhile: () => PromiseLike<unknown> = async () => {}): Promise<void> {
  network.cut();
  await meanwhile();
  const back = Promise.all(channels.map(again));
  network.mend();
  await back;
}

/** What a channel is told: `load`, or the data of each message `n`. */
export function record(channel: Channel): unknown[] {
  const seen: unknown[] = [];
  channel.bind("socket:load", () => seen.push("load")).bind("n", (n) => seen.push(n));
  return seen;
}
