// The overview: tiles, charts, shards, and how connections ended.

import { Chart } from "./chart.js";
import { byId, h } from "./dom.js";
import { age, bytes, micros, percent, sample, short, whole, words } from "./numbers.js";

/** Most samples that are kept: the longest chart, one sample per second. */
const HISTORY_MAX = 900;
/** Most lines of a chart: with more shards, the busiest ones and the mean. */
const SHARD_LINES_MAX = 8;

const history = [];
let [first, latest] = [null, null];
let seconds = 300;
let charts = [];
let hasShards = false;

const TILES = [
  ["Connections", ({ stats }) => whole(stats.connections)],
  ["Subscriptions", ({ stats }) => whole(stats.subscriptions)],
  ["Channels", ({ stats }) => whole(stats.channels)],
  ["Deliveries/s", (_, now) => short(now?.deliveries)],
  ["Publishes/s", (_, now) => short(now?.publishes)],
  ["Until written, p99", () => micros(lastKnown("writtenP99"))],
  ["Memory", ({ process }) => bytes(process.resident_bytes)],
  ["CPU", (_, now) => percent(now?.cpu)],
];
const tiles = TILES.map(([name]) => ({ value: h("b", {}, "–"), name }));

export function start() {
  byId("tiles").replaceChildren(...tiles.map(({ name, value }) => h("div", { class: "card tile" }, h("span", {}, name), value)));
  charts = lines();
  byId("charts").replaceChildren(...charts.map(({ element }) => element));
  const buttons = [...byId("window").querySelectorAll("button")];
  const choose = (chosen) => {
    seconds = Number(chosen.dataset.seconds);
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === chosen)));
    draw();
  };
  buttons.forEach((button) => button.addEventListener("click", () => choose(button)));
  choose(buttons[1]);
  addEventListener("resize", draw);
}

/** Takes an answer of `stats`. */
export function take(answer) {
  // A repeated snapshot holds nothing new. An earlier clock means another process, whose history starts here.
  if (latest && answer.at_ms === latest.at_ms) return;
  if (latest && (answer.at_ms < latest.at_ms || answer.process.start_time_s > latest.process.start_time_s + 1)) first = latest = null;
  if (latest) {
    // Earlier samples keep only the values of charts: there can be 256 shards.
    const before = history[history.length - 1];
    if (before) before.shards = before.shards.map(({ busy }) => ({ busy }));
    history.push(sample(latest, answer, Date.now()));
  }
  if (history.length > HISTORY_MAX) history.shift();
  if (!hasShards && answer.shards.length > 0) addShards(answer.shards.length);
  first ??= answer;
  latest = answer;
  draw();
}

/** Draws the current values, if the overview is visible. */
export function draw() {
  if (byId("overview").hidden) return;
  const now = Date.now();
  charts.forEach((chart) => chart.draw(history, seconds, now));
  if (!latest) return;
  const newest = history[history.length - 1];
  TILES.forEach(([, text], n) => {
    tiles[n].value.textContent = text(latest, newest);
  });
  shards(newest);
  endings();
}

function lines() {
  const chart = (title, hint, format, series, max) =>
    new Chart({ title, hint, format, max, series: series.map(([name, of]) => ({ name, of })) });
  return [
    chart("Connections", "Open client connections", short, [
      ["all", (at) => at.connections],
      ["of Pusher's clients", (at) => at.ofPusher],
    ]),
    chart("Deliveries/s", "Messages times their subscribers", short, [["", (at) => at.deliveries]]),
    chart("Messages in/s", "Messages from clients, and published messages", short, [
      ["clients", (at) => at.messagesIn],
      ["published", (at) => at.publishes],
      ["client events", (at) => at.clientEvents],
    ]),
    chart("Publish → written", "Age of the oldest message of a turn when all of its messages were offered to the kernel", micros, [
      ["p50", (at) => at.writtenP50],
      ["p99", (at) => at.writtenP99],
    ]),
    chart("Bytes/s", "Read from and written to clients, without the overhead of TLS", bytes, [
      ["in", (at) => at.bytesIn],
      ["out", (at) => at.bytesOut],
    ]),
    chart("Members and users", "Members of presence channels, and users that are signed in", short, [
      ["members", (at) => at.members],
      ["users", (at) => at.users],
    ]),
    chart("Kept messages", "Heap bytes of the messages and positions that channels keep", bytes, [["", (at) => at.kept]]),
    chart("Recoveries/s", "Clients that came back with a position, and messages that slow readers or histories lost", short, [
      ["recovered", (at) => at.recovered],
      ["not recovered", (at) => at.notRecovered],
      ["conflated", (at) => at.conflated],
      ["evicted", (at) => at.evicted],
    ]),
  ];
}

function addShards(count) {
  const busy = (at) => at.shards.map((shard) => shard.busy);
  const series =
    count <= SHARD_LINES_MAX
      ? Array.from({ length: count }, (_, n) => ({ name: `${n}`, of: (at) => at.shards[n]?.busy ?? null }))
      : [
          { name: "busiest", of: (at) => Math.max(...busy(at)) },
          { name: "mean", of: (at) => busy(at).reduce((sum, one) => sum + one, 0) / at.shards.length },
        ];
  const chart = new Chart({ title: "Shards busy", hint: "Share of the time that a shard spends in turns", format: percent, max: 1, series });
  charts.push(chart);
  byId("charts").append(chart.element);
  hasShards = true;
}

function shards(now) {
  const head = ["Shard", "Connections", "Subscriptions", "Deliveries/s", "Busy", "Mean turn", "Waiting"];
  const row = (shard, n) => {
    const meter = h("meter", { min: 0, max: 1, high: 0.8, value: shard.busy.toFixed(3), "aria-label": `shard ${n} busy` });
    const cells = [whole(shard.connections), whole(shard.subscriptions), short(shard.deliveries_s), null, micros(shard.turn_us), bytes(shard.outbox_bytes)];
    return h("tr", {}, h("th", { scope: "row" }, String(n)), ...cells.map((text) => (text === null ? h("td", { class: "number" }, meter, percent(shard.busy)) : h("td", { class: "number" }, text))));
  };
  const known = now?.shards ?? [];
  byId("shards").replaceChildren(
    h("thead", {}, h("tr", {}, ...head.map((text, n) => h("th", { class: n > 0 && "number" }, text)))),
    h("tbody", {}, ...known.map(row)),
  );
}

function endings() {
  const rows = Object.entries(latest.stats)
    .filter(([name, count]) => (name.startsWith("closes_") || name.startsWith("upgrades_refused_")) && count > 0)
    .map(([name, count]) => {
      const [kind, label] = name.startsWith("closes_") ? ["closed", name.slice(7)] : ["refused", name.slice(17)];
      return { kind, label, count, lately: count - (first.stats[name] ?? 0) };
    })
    .sort((one, other) => other.lately - one.lately || other.count - one.count);
  const row = ({ kind, label, count, lately }) =>
    h("tr", {}, h("th", { scope: "row" }, h("span", { class: `tag ${kind}` }, kind), ` ${words(label)}`), h("td", { class: "number" }, lately > 0 ? `+${whole(lately)}` : "–"), h("td", { class: "number" }, whole(count)));
  const head = h("thead", {}, h("tr", {}, h("th", {}, "Reason"), h("th", { class: "number" }, "Since opened"), h("th", { class: "number" }, "Total")));
  const empty = h("tr", {}, h("td", { colspan: 3, class: "empty" }, "None yet: no connection has ended or was refused."));
  byId("endings").replaceChildren(head, h("tbody", {}, ...(rows.length > 0 ? rows.map(row) : [empty])));
  const { start_time_s } = latest.process;
  const [version, count] = [byId("server").dataset.version, latest.shards.length];
  byId("server").textContent = `${version ?? ""} · ${count} shard${count === 1 ? "" : "s"} · up ${age(Date.now() / 1000 - start_time_s)}`;
}

/** The newest known value of the last ten seconds. */
function lastKnown(name) {
  const known = history.filter((at) => at[name] !== null && at.time > Date.now() - 10_000);
  return known[known.length - 1]?.[name] ?? null;
}
