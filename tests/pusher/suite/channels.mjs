// Public channels of pusher-js: subscribing, bindings, what is published, order.

import { equal, errorsOf, keptError, matches, ok, once, Record, subscribed, until } from "./check.mjs";

/** Texts that the REST interface takes as data, and what pusher-js hands to its user. */
const TEXTS = [
  ['{"a":1}', { a: 1 }],
  ['{\n  "a": [1, {}],\n  "b": null\n}', { a: [1, {}], b: null }],
  ["hello", "hello"],
  ['"hello"', "hello"],
  ["17", 17],
  ["true", true],
  ["null", null],
  ["[]", []],
  ["", ""],
  [" ", " "],
  ["{not JSON", "{not JSON"],
  ['say "hi"\\ \t\n\u0001 ü 日本 🙂', 'say "hi"\\ \t\n\u0001 ü 日本 🙂'],
  ['"\\u00fc \\ud83d\\ude42"', "ü 🙂"],
];

/** Values that the admin socket takes as data, and arrive as they are. */
const VALUES = [{ a: 1 }, { deep: [{ text: 'a "b" \\ \n' }] }, [1, "two", null], "x", '"quoted"', "17", "", 17, -0.5, true, false, null];

export const channels = {
  "subscribe, receive, unsubscribe, and again": async (stage) => {
    const [client, witness] = [await stage.connected(), await stage.connected()];
    const name = stage.name("orders");
    const seen = await subscribed(witness, name);
    const record = await subscribed(client, name);
    equal(record.data, {});
    equal([record.channel.subscribed, record.channel.subscriptionPending], [true, false]);
    ok(client.subscribe(name) === record.channel, "another object for the same channel");
    ok(client.channel(name) === record.channel, "channel(name) is another object");
    equal(client.allChannels().map((channel) => channel.name), [name]);
    await stage.trigger(name, "paid", { id: 1 });
    await record.expect("paid", { id: 1 });

    client.unsubscribe(name);
    equal([record.channel.subscribed, client.channel(name), client.allChannels()], [false, undefined, []]);
    await until("one is subscribed", async () => (await stage.admin("channel", { channel: name })).subscribers === 1);
    await stage.trigger(name, "missed", {});
    await seen.expect("paid", { id: 1 });
    await seen.expect("missed", {});

    const again = await subscribed(client, name);
    ok(again.channel !== record.channel, "the channel of the first subscription");
    await stage.trigger(name, "paid", { id: 2 });
    await again.expect("paid", { id: 2 });
    record.empty();
  },

  "a hundred times subscribed and unsubscribed": async (stage) => {
    const client = await stage.connected();
    const name = stage.name("flapping");
    const errors = errorsOf(client);
    for (let times = 0; times < 100; times += 1) {
      await once(client.subscribe(name), "pusher:subscription_succeeded");
      client.unsubscribe(name);
    }
    // Without waiting, too: pusher-js then waits for the first answer.
    for (let times = 0; times < 100; times += 1) {
      client.subscribe(name);
      client.unsubscribe(name);
    }
    const record = await subscribed(client, name);
    equal((await stage.admin("channel", { channel: name })).subscribers, 1);
    for (let n = 0; n < 3; n += 1) await stage.trigger(name, "once", n);
    for (let n = 0; n < 3; n += 1) await record.expect("once", n);
    record.empty();
    equal(errors.arrived, []);
  },

  "subscribing twice is told, and changes nothing": async (stage) => {
    const client = await stage.connected();
    const errors = errorsOf(client);
    const name = stage.name("twice");
    const record = await subscribed(client, name);
    client.send_event("pusher:subscribe", { channel: name, auth: "" });
    await keptError(errors, null, new RegExp(`^Existing subscription to channel ${name}$`));
    await stage.trigger(name, "paid", 1);
    await record.expect("paid", 1);
    record.empty();
  },

  "bind, unbind, bind_global and their contexts": async (stage) => {
    const client = await stage.connected();
    const name = stage.name("bound");
    const { channel } = await subscribed(client, name);
    const calls = [];
    const call = (label) =>
      function (...args) {
        calls.push([label, this?.label, ...args]);
      };
    const [plain, other, global] = [call("plain"), call("other"), call("global")];
    const context = { label: "context" };
    channel.bind("one", plain).bind("one", other, context).bind("two", other, context);
    channel.bind_global(global);
    client.bind("one", call("client"));
    client.bind_global(call("everything"));
    const mark = async (event, data) => {
      const heard = once(channel, "mark");
      await stage.trigger(name, event, data);
      await stage.trigger(name, "mark", data);
      await heard;
      return calls.splice(0).filter((made) => !made.includes("mark"));
    };
    const all = await mark("one", 1);
    equal(all.map(([label]) => label).sort(), ["client", "everything", "global", "other", "plain"]);
    equal(all.find(([label]) => label === "plain").slice(2), [1, {}]);
    equal(all.find(([label]) => label === "other").slice(1), ["context", 1, {}]);
    equal(all.find(([label]) => label === "global").slice(2), ["one", 1]);
    equal(all.find(([label]) => label === "everything").slice(2), ["one", 1]);

    channel.unbind("one", plain);
    client.unbind("one");
    client.unbind_global();
    equal((await mark("one", 2)).map(([label]) => label), ["global", "other"]);
    channel.unbind(null, null, context);
    equal((await mark("two", 3)).map(([label]) => label), ["global"]);
    channel.unbind_global(global);
    channel.bind("one", plain).bind("two", plain);
    channel.unbind("one");
    equal((await mark("one", 4)).length, 0);
    channel.unbind_all();
    equal((await mark("two", 5)).length, 0);
  },

  "texts that the REST interface takes": async (stage) => {
    const client = await stage.connected();
    const record = await subscribed(client, stage.name("texts"));
    for (const [text, value] of TEXTS) {
      await stage.trigger(record.channel.name, "text", text);
      await record.expect("text", value);
    }
    const batch = TEXTS.slice(0, 10).map(([data]) => ({ channel: record.channel.name, name: "batch", data }));
    await stage.do("batch", batch);
    for (const [, value] of TEXTS.slice(0, 10)) await record.expect("batch", value);
  },

  "values that the admin socket takes": async (stage) => {
    const client = await stage.connected();
    const record = await subscribed(client, stage.name("values"));
    const { name } = record.channel;
    for (const data of VALUES) {
      await stage.admin("publish", { channel: name, event: "value", data });
      await record.expect("value", data);
    }
    await stage.admin("publish", { channel: name, event: "nothing" });
    await record.expect("nothing", null);
  },

  "long data arrives whole": async (stage) => {
    const client = await stage.connected();
    const record = await subscribed(client, stage.name("long"));
    const text = '"\\ü🙂'.repeat(20_000);
    await stage.admin("publish", { channel: record.channel.name, event: "long", data: text });
    await record.expect("long", text);
    await stage.trigger(record.channel.name, "long", { text: text.slice(0, 50_000) });
    await record.expect("long", { text: text.slice(0, 50_000) });
  },

  "names of events": async (stage) => {
    const client = await stage.connected();
    const record = await subscribed(client, stage.name("names"));
    const names = ["App\\Events\\Paid", "order.paid", 'a "quoted" one', "日本 🙂", "socket", "pusher", "pusher-x", "x".repeat(200)];
    for (const name of names) {
      await stage.trigger(record.channel.name, name, name);
      await record.expect(name, name);
    }
  },

  "several channels, and all but one connection": async (stage) => {
    const [one, two] = [await stage.connected(), await stage.connected()];
    const names = [stage.name("a"), stage.name("b"), stage.name("c")];
    const ones = await Promise.all(names.map((name) => subscribed(one, name)));
    const twos = await Promise.all(names.map((name) => subscribed(two, name)));
    await stage.trigger(names, "all", 1);
    await stage.trigger(names.slice(0, 2), "others", 2, { socket_id: one.connection.socket_id });
    await stage.do("batch", [
      { channel: names[0], name: "batch", data: 3 },
      { channel: names[0], name: "batch", data: 4, socket_id: two.connection.socket_id },
    ]);
    await stage.trigger(names, "end", 5);
    for (const [records, expected] of [
      [ones, [["all", 1], ["batch", 3], ["batch", 4], ["end", 5]]],
      [twos, [["all", 1], ["others", 2], ["batch", 3], ["end", 5]]],
    ]) {
      for (const [event, data] of expected) await records[0].expect(event, data);
    }
    for (const [event, data] of [["all", 1], ["end", 5]]) await ones[1].expect(event, data);
    for (const [event, data] of [["all", 1], ["others", 2], ["end", 5]]) await twos[1].expect(event, data);
    for (const record of [ones[2], twos[2]]) for (const [event, data] of [["all", 1], ["end", 5]]) await record.expect(event, data);
  },

  "one order for all subscribers": async (stage) => {
    const clients = await Promise.all(Array.from({ length: 4 }, () => stage.connected()));
    const name = stage.name("ordered");
    const records = await Promise.all(clients.map((client) => subscribed(client, name)));
    const publish = async (publisher) => {
      for (let n = 0; n < 25; n += 1) {
        if (n % 2 === 0) await stage.trigger(name, "tick", `${publisher}:${n}`);
        else await stage.admin("publish", { channel: name, event: "tick", data: `${publisher}:${n}` });
      }
    };
    await Promise.all(["p", "q", "r"].map(publish));
    const seen = [];
    for (const record of records) {
      const order = [];
      while (order.length < 75) order.push(await record.next("tick"));
      seen.push(order);
      record.empty();
    }
    for (const order of seen) equal(order, seen[0]);
    for (const publisher of ["p", "q", "r"]) {
      equal(seen[0].filter((tick) => tick.startsWith(publisher)), Array.from({ length: 25 }, (_, n) => `${publisher}:${n}`));
    }
  },

  "names that are not legal are refused, and the connection stays": async (stage) => {
    const client = await stage.connected();
    const errors = errorsOf(client);
    for (const name of ["a b", "ü", "a!", "x".repeat(201)]) {
      const record = new Record(client.subscribe(name));
      const { type, status, error } = await record.next("pusher:subscription_error");
      equal([type, status], ["InvalidChannel", 400], name);
      ok(typeof error === "string" && error.length > 0, "no text");
      await keptError(errors, null, /./);
    }
    const record = await subscribed(client, "x".repeat(180) + stage.label);
    equal(record.channel.subscribed, true);
  },

  "prefixes count at the start, and whole": async (stage) => {
    const client = await stage.connected();
    const errors = errorsOf(client);
    for (const prefix of ["my-private-x", "privateer", "presences", "cached", "my-cache-x", "Private-x", "a:b/c", "a_-=@,.;"]) {
      const record = await subscribed(client, `${prefix}${stage.label}`);
      await stage.admin("publish", { channel: record.channel.name, event: "end", data: 1 });
      await record.expect("end", 1);
    }
    equal(errors.arrived, []);
  },

  "reserved names are refused to publishers": async (stage) => {
    const client = await stage.connected();
    const record = await subscribed(client, stage.name("reserved"));
    const { name } = record.channel;
    for (const event of ["pusher:x", "pusher_internal:member_added", "socket:ping"]) {
      const refusal = await stage.trigger(name, event, {}).then(
        () => "published",
        (error) => error.message,
      );
      matches(refusal, /400/);
      const admin = await stage.admin("publish", { channel: name, event }).then(
        () => "published",
        (error) => error.message,
      );
      matches(admin, /reserved_event/);
    }
    await stage.trigger(name, "end", 1);
    await record.expect("end", 1);
  },
};
