// Computes rates, quantiles and texts from the server's numbers. Pure.

/** Buckets of a histogram of `stats`, by their upper bounds in µs; the last one has no bound. */
export function buckets(stats, name) {
  const found = [];
  for (const [key, count] of Object.entries(stats)) {
    if (key.startsWith(`${name}_us_to_`)) found.push([Number(key.slice(name.length + 7)), count]);
  }
  found.sort(([one], [other]) => one - other);
  found.push([Infinity, stats[`${name}_us_above`] ?? 0]);
  return found;
}

/** The quantile in µs of the values between two `stats`; `null`: there are none. Values within a bucket count as evenly spread. */
export function quantile(before, after, name, q) {
  const earlier = buckets(before, name);
  const counts = buckets(after, name).map(([bound, count], n) => [bound, count - (earlier[n]?.[1] ?? 0)]);
  const total = counts.reduce((sum, [, count]) => sum + count, 0);
  if (total <= 0) return null;
  let [left, low] = [q * total, 0];
  for (const [bound, count] of counts) {
    if (left <= count && count > 0) return bound === Infinity ? low : low + (bound - low) * (left / count);
    left -= count;
    if (bound !== Infinity) low = bound;
  }
  return low;
}

/** The values that are shown for the time between two answers of `stats`; `null` for unknown values. */
export function sample(before, after, time) {
  const seconds = (after.at_ms - before.at_ms) / 1000;
  const rate = (name) => Math.max(0, (after.stats[name] - before.stats[name]) / seconds);
  const shards = after.shards.map((now, n) => {
    const then = before.shards[n] ?? now;
    const of = (name) => Math.max(0, (now[name] - then[name]) / seconds);
    const turns = now.turns - then.turns;
    return {
      ...now,
      deliveries_s: of("deliveries"),
      messages_s: of("messages_in"),
      busy: Math.min(1, of("turn_us_sum") / 1e6),
      turn_us: turns > 0 ? (now.turn_us_sum - then.turn_us_sum) / turns : null,
    };
  });
  return {
    time,
    connections: after.stats.connections,
    ofPusher: after.stats.connections_pusher,
    members: after.stats.presence_members,
    users: after.stats.users,
    kept: after.stats.history_bytes,
    evicted: rate("histories_evicted"),
    recovered: rate("recoveries"),
    notRecovered: rate("recoveries_failed"),
    conflated: rate("messages_conflated"),
    clientEvents: rate("client_events"),
    deliveries: rate("deliveries"),
    publishes: rate("publishes"),
    messagesIn: rate("messages_in"),
    bytesIn: rate("bytes_in"),
    bytesOut: rate("bytes_out"),
    writtenP50: quantile(before.stats, after.stats, "written", 0.5),
    writtenP99: quantile(before.stats, after.stats, "written", 0.99),
    cpu: Math.max(0, (after.process.cpu_s - before.process.cpu_s) / seconds),
    shards,
  };
}

/** Messages per second of each channel of `after`, from two answers of `busiest`; `null`: the channel was not among those
 * `before`, or its count has restarted. */
export function messageRates(before, after) {
  const then = new Map(before?.channels.map(({ channel, messages }) => [channel, messages]));
  return after.channels.map(({ channel, messages }) => {
    const more = messages - (then.get(channel) ?? Infinity);
    return more >= 0 ? more / ((after.at_ms - before.at_ms) / 1000) : null;
  });
}

/** Values of an axis from 0: about `count` of them, 1, 2 or 5 times a power of ten apart, the last one at least `max`; for
 * bytes, multiples of KiB, MiB or GiB. */
export function ticks(max, count = 4, isBytes = false) {
  if (!(max > 0)) return [0, 1];
  if (isBytes && max >= 1024) {
    const unit = 1024 ** Math.min(3, Math.floor(Math.log2(max) / 10));
    return ticks(max / unit, count).map((value) => value * unit);
  }
  const rough = max / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  for (let n = 0; found.length === 0 || found[found.length - 1] < max; n += 1) found.push(n * step);
  return found;
}

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 1 234 567: all digits. */
export const whole = (value) => (value === null || value === undefined ? "–" : plain.format(value).replaceAll(",", "\u202f"));

/** 1.23 M: three significant digits. */
export function short(value) {
  if (value === null || value === undefined) return "–";
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size * 0.9995) return `${digits(value / size)}\u202f${unit}`;
  }
  return digits(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (value >= size * 0.9995) return `${digits(value / size)}\u202f${unit}`;
  }
  return `${Math.round(value)}\u202fB`;
}

/** A duration given in µs. */
export function micros(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 999_500) return `${digits(value / 1e6)}\u202fs`;
  if (value >= 999.5) return `${digits(value / 1e3)}\u202fms`;
  return `${digits(value)}\u202fµs`;
}

export const percent = (value) => (value === null || value === undefined ? "–" : `${digits(value * 100)}\u202f%`);

/** An age in its two largest units. */
export function age(seconds) {
  const parts = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];
  const first = Math.max(0, parts.findIndex(([, size]) => seconds >= size));
  if (seconds < 1) return "0\u202fs";
  let left = Math.floor(seconds);
  const texts = [];
  for (const [unit, size] of parts.slice(first, first + 2)) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count > 0) texts.push(`${count}\u202f${unit}`);
  }
  return texts.join(" ");
}

/** `client_gone` in words. */
export const words = (label) => label.replaceAll("_", " ");

function digits(value) {
  if (value === 0) return "0";
  if (value >= 99.95) return plain.format(value);
  if (value >= 9.995) return String(Number(value.toFixed(1)));
  if (value >= 0.005) return String(Number(value.toFixed(2)));
  return "<0.01";
}
