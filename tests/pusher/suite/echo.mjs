// Laravel Echo, with the broadcasters "pusher" and "reverb": every method of its channels.

import { equal, keptError, Mailbox, matches, ok, once, errorsOf, timeout, until } from "./check.mjs";

/** The name that Laravel gives to an event of the class App\Events\NAME. */
const laravel = (name) => `App\\Events\\${name}`;
const NOTIFICATION = "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated";

/** A channel of Echo, and a promise of its subscription. */
function joined(channel) {
  return timeout("subscribed", new Promise((resolve, reject) => channel.subscribed(resolve).error(reject)));
}

/** What a method of a channel calls back with first. */
function heard(register) {
  const box = new Mailbox();
  register((data) => box.put(data));
  return box;
}

/** An Echo that joins presence channels as this user. */
function member(stage, broadcaster, id, info) {
  return stage.echo(broadcaster, { fields: { user_id: id, ...(info === undefined ? {} : { user_info: JSON.stringify(info) }) } });
}

function tests(broadcaster) {
  return {
    "states, and the socket ID": async (stage) => {
      const echo = stage.echo(broadcaster);
      const states = [];
      const stop = echo.connector.onConnectionChange((state) => states.push(state));
      await joined(echo.channel(stage.name("x")));
      equal([echo.connectionStatus(), states.at(-1)], ["connected", "connected"]);
      matches(echo.socketId(), /^\d+\.\d+$/);
      echo.disconnect();
      equal([echo.connectionStatus(), states.at(-1)], ["disconnected", "disconnected"]);
      stop();
      echo.connect();
      await until("connected", () => echo.connectionStatus() === "connected");
      equal(states.at(-1), "disconnected");
      echo.connector.disconnect();
    },

    "listen, listenToAll and stopListening": async (stage) => {
      const echo = stage.echo(broadcaster);
      const name = stage.name("orders");
      const channel = echo.channel(name);
      await joined(channel);
      ok(echo.channel(name) === channel, "another object for the same channel");
      const [paid, full, dotted, everything] = [new Mailbox(), new Mailbox(), new Mailbox(), new Mailbox()];
      const [onPaid, onAll] = [(data) => paid.put(data), (event, data) => everything.put([event, data])];
      channel.listen("Paid", onPaid).listen(".order.paid", (data) => full.put(data));
      echo.listen(name, "Orders.Paid", (data) => dotted.put(data));
      channel.listenToAll(onAll);
      await stage.trigger(name, laravel("Paid"), { id: 1 });
      equal(await paid.take(), { id: 1 });
      equal(await everything.take(), ["Paid", { id: 1 }]);
      await stage.trigger(name, "order.paid", { id: 2 });
      equal(await full.take(), { id: 2 });
      equal(await everything.take(), [".order.paid", { id: 2 }]);
      await stage.trigger(name, laravel("Orders\\Paid"), { id: 3 });
      equal(await dotted.take(), { id: 3 });
      channel.stopListening("Paid", onPaid).stopListening(".order.paid");
      // With the function as argument, Echo 2.5 stops nothing.
      channel.stopListeningToAll();
      channel.listen("End", (data) => paid.put(data));
      await stage.trigger(name, laravel("Paid"), { id: 4 });
      await stage.trigger(name, "order.paid", { id: 5 });
      await stage.trigger(name, laravel("End"), { id: 6 });
      equal(await paid.take(), { id: 6 });
      equal([full.arrived, everything.arrived], [[], [["Orders\\Paid", { id: 3 }]]]);
    },

    "toOthers, by the socket ID": async (stage) => {
      const [one, two] = [stage.echo(broadcaster), stage.echo(broadcaster)];
      const name = stage.name("others");
      const boxes = [];
      for (const echo of [one, two]) {
        const channel = echo.channel(name);
        await joined(channel);
        boxes.push(heard((call) => channel.listen("Paid", call)));
      }
      await stage.trigger(name, laravel("Paid"), 1, { socket_id: one.socketId() });
      await stage.trigger(name, laravel("Paid"), 2);
      equal(await boxes[0].take(), 2);
      equal([await boxes[1].take(), await boxes[1].take()], [1, 2]);
    },

    "private channels: whisper and listenForWhisper": async (stage) => {
      const name = stage.name("room");
      const [one, two] = [stage.echo(broadcaster).private(name), stage.echo(broadcaster).private(name)];
      await Promise.all([one, two].map(joined));
      equal(one.name, `private-${name}`);
      const boxes = [one, two].map((channel) => heard((call) => channel.listenForWhisper("typing", call)));
      one.whisper("typing", { name: "One" });
      equal(await boxes[1].take(), { name: "One" });
      const other = heard((call) => two.listenForWhisper("end", call));
      two.stopListeningForWhisper("typing");
      one.whisper("typing", { name: "again" }).whisper("end", {});
      equal(await other.take(), {});
      equal([boxes[0].arrived, boxes[1].arrived], [[], []]);
    },

    "notifications of a private channel": async (stage) => {
      const name = stage.name("App.Models.User.1");
      const channel = stage.echo(broadcaster).private(name);
      await joined(channel);
      const box = new Mailbox();
      const call = (data) => box.put(data);
      channel.notification(call);
      await stage.trigger(`private-${name}`, NOTIFICATION, { type: "Paid", id: "1" });
      equal(await box.take(), { type: "Paid", id: "1" });
      channel.stopListeningForNotification(call);
      const end = heard((call) => channel.listen(".end", call));
      await stage.trigger(`private-${name}`, NOTIFICATION, {});
      await stage.trigger(`private-${name}`, "end", 1);
      await end.take();
      equal(box.arrived, []);
    },

    "presence channels: here, joining, leaving and whisper": async (stage) => {
      const name = stage.name("room");
      const one = member(stage, broadcaster, "u1", { name: "One" });
      const channel = one.join(name);
      const [here, joining, leaving] = ["here", "joining", "leaving"].map((method) => heard((call) => channel[method](call)));
      equal(await here.take(), [{ name: "One" }]);
      const two = member(stage, broadcaster, "u2", { name: "Two" });
      const second = two.join(name);
      const secondHere = heard((call) => second.here(call));
      equal(await secondHere.take(), [{ name: "One" }, { name: "Two" }]);
      equal(await joining.take(), { name: "Two" });
      const whispers = new Mailbox();
      channel.listenForWhisper("typing", (...args) => whispers.put(args));
      second.whisper("typing", { a: 1 });
      equal(await whispers.take(), [{ a: 1 }, { user_id: "u2" }]);
      // Laravel says `true` of users without more to tell.
      const third = member(stage, broadcaster, "u3", true).join(name);
      equal((await heard((call) => third.here(call)).take()).length, 3);
      equal(await joining.take(), true);
      two.leave(name);
      equal(await leaving.take(), { name: "Two" });
    },

    "encrypted channels": async (stage) => {
      const name = stage.name("x");
      const channel = stage.echo(broadcaster).encryptedPrivate(name);
      await joined(channel);
      const box = heard((call) => channel.listen("Paid", call));
      await stage.trigger(`private-encrypted-${name}`, laravel("Paid"), { secret: "ü" });
      equal(await box.take(), { secret: "ü" });
    },

    "error tells refusals by the server and by the backend": async (stage) => {
      const forged = stage.echo(broadcaster, { fields: { forged: 1 } });
      const errors = errorsOf(forged.connector.pusher);
      const refusal = await heard((call) => forged.private(stage.name("x")).error(call)).take();
      equal([refusal.type, refusal.status], ["AuthError", 401]);
      await keptError(errors, null, /^Invalid signature/);
      const refused = await heard((call) => stage.echo(broadcaster).private(stage.name("a-refused-b")).error(call)).take();
      equal([refused.type, refused.status], ["AuthError", 403]);
    },

    "leave, leaveChannel and leaveAllChannels": async (stage) => {
      const echo = member(stage, broadcaster, "u1");
      const name = stage.name("x");
      const all = [name, `private-${name}`, `private-encrypted-${name}`, `presence-${name}`];
      const join = () => Promise.all([echo.channel(name), echo.private(name), echo.encryptedPrivate(name), echo.join(name)].map(joined));
      const subscribers = async () => Promise.all(all.map(async (channel) => (await stage.admin("channel", { channel })).subscribers));
      const become = (expected) => until(`subscribers ${expected}`, async () => String(await subscribers()) === String(expected));
      await join();
      await become([1, 1, 1, 1]);
      echo.leaveChannel(`private-${name}`);
      await become([1, 0, 1, 1]);
      echo.leave(name);
      await become([0, 0, 0, 0]);
      await join();
      echo.leaveAllChannels();
      await become([0, 0, 0, 0]);
      equal(echo.connector.channels, {});
    },

    "signing in": async (stage) => {
      const id = stage.name("ada");
      const client = stage.pusher({ user: { id } });
      const echo = stage.echo(broadcaster, { client });
      echo.connector.signin();
      await timeout("signing in", client.user.signinDonePromise);
      equal(client.user.user_data, { id });
      const told = once(client.user, "told");
      await stage.do("toUser", id, "told", 1);
      equal(await told, 1);
    },
  };
}

export const echoPusher = tests("pusher");
export const echoReverb = tests("reverb");
