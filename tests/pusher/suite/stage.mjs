// What a test gets: clients of a server, an application's backend, and names that no other test uses. Runs in Node, in pages
// and in workers.

import { equal, once, timeout } from "./check.mjs";

const KEY = "app-one";
let named = 0;

/**
 * The clients of one test. The setting: `Pusher` and `Echo`, the classes; `backend`, a URL; `host`, `port` and `tls` of the
 * server; `runtime`: "node", "page" or "worker".
 */
export class Stage {
  constructor(setting) {
    Object.assign(this, setting);
    this.clients = [];
    // Random, since several programs test one server.
    this.label = `${(named += 1)}-${Math.random().toString(36).slice(2, 8)}`;
  }

  /** A channel's name, or a user's, of this test alone. */
  name(prefix) {
    return `${prefix}-${this.label}`;
  }

  /** A Pusher client, which begins to connect. `fields` are sent to the backend with each channel to authorize. */
  pusher({ key = KEY, fields = {}, user, ...options } = {}) {
    const all = { ...this.options(), channelAuthorization: this.authorization(fields), ...this.userOptions(user), ...options };
    // To pusher-js an option that is undefined is there.
    const client = new this.Pusher(key, Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)));
    this.clients.push(client);
    return client;
  }

  /** A Pusher client that is connected. */
  async connected(options) {
    const client = this.pusher(options);
    await once(client.connection, "connected");
    return client;
  }

  /** A connected client that joins presence channels as this user. */
  async member(id, info, options) {
    const fields = info === undefined ? { user_id: id } : { user_id: id, user_info: JSON.stringify(info) };
    return this.connected({ fields, ...options });
  }

  /** A connected client that is signed in as this user. */
  async signedIn(user) {
    const client = await this.connected({ user });
    client.signin();
    await timeout("signing in", client.user.signinDonePromise);
    equal(client.user.user_data, user);
    return client;
  }

  /** An Echo client, as applications of Laravel configure it. */
  echo(broadcaster, options = {}) {
    const { port, backend } = this;
    const { fields = {}, ...others } = options;
    const query = new URLSearchParams(fields);
    const client = new this.Echo({
      broadcaster,
      key: KEY,
      Pusher: this.Pusher,
      ...(broadcaster === "pusher" ? { cluster: "" } : {}),
      wsHost: this.host,
      wsPort: port,
      wssPort: port,
      forceTLS: this.tls,
      enabledTransports: ["ws", "wss"],
      authEndpoint: `${backend}/auth`,
      auth: { headers: {}, params: Object.fromEntries(query) },
      ...others,
    });
    this.clients.push(client);
    return client;
  }

  /** Where the server is. */
  options() {
    const { host, port, tls } = this;
    return { cluster: "", wsHost: host, wsPort: port, wssPort: port, forceTLS: tls, enabledTransports: ["ws", "wss"] };
  }

  authorization(fields) {
    return { endpoint: `${this.backend}/auth`, transport: "ajax", params: fields };
  }

  userOptions(user) {
    return user ? { userAuthentication: { endpoint: `${this.backend}/user`, transport: "ajax", params: { user: JSON.stringify(user) } } } : {};
  }

  /** Publishes with the pusher library of the backend. */
  trigger(channels, event, data, params) {
    return this.do("trigger", channels, event, data, params);
  }

  /** Sends a command to the admin socket. */
  admin(command, members) {
    return this.do("admin", { command, ...members });
  }

  /** One of the backend's actions. */
  async do(action, ...args) {
    const response = await fetch(`${this.backend}/do/${action}`, { method: "POST", body: JSON.stringify(args) });
    if (!response.ok) throw new Error(await response.text());
    return response.json();
  }

  end() {
    for (const client of this.clients) client.disconnect();
  }
}
