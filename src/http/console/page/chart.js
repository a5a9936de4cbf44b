// A line chart over time, as SVG that is drawn again each second. The legend shows the newest values as text.

import { h, svg } from "./dom.js";
import { bytes, ticks } from "./numbers.js";

const HEIGHT = 150;
const [TOP, RIGHT, BOTTOM, LEFT] = [8, 8, 20, 8];

export class Chart {
  /** `series`: [{ name, of: sample → number or null }]; `format`: a value as text; `max`: a fixed upper end of the axis. */
  constructor({ title, hint, series, format, max }) {
    Object.assign(this, { title, series, format, max });
    this.values = series.map((_, n) => h("b", { class: `ink-${n % 8}` }, "–"));
    const legend = series.map(({ name }, n) => h("span", {}, h("i", { class: `dot-${n % 8}` }), name && `${name} `, this.values[n]));
    this.plot = svg("svg", { role: "img", "aria-label": title, class: "plot", height: HEIGHT });
    this.tip = h("div", { class: "tip", hidden: true });
    const frame = h("div", { class: "frame" }, this.plot, this.tip);
    this.element = h("figure", { class: "card chart", title: hint }, h("figcaption", {}, h("h2", {}, title), h("div", { class: "legend" }, ...legend)), frame);
    this.plot.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.plot.addEventListener("pointerleave", () => this.point(null));
  }

  /** Draws the last seconds of these samples. */
  draw(history, seconds, now) {
    Object.assign(this, { history, seconds, now });
    const latest = history[history.length - 1];
    this.series.forEach(({ of }, n) => {
      this.values[n].textContent = latest ? this.format(of(latest)) : "–";
    });
    const width = this.plot.clientWidth;
    if (width === 0) return;
    this.width = width;
    this.shown = history.filter(({ time }) => time >= now - seconds * 1000);
    const highest = Math.max(0, ...this.shown.flatMap((sample) => this.series.map(({ of }) => of(sample) ?? 0)));
    const axis = ticks(this.max ?? highest, 3, this.format === bytes);
    this.top = axis[axis.length - 1];
    const grid = axis.map((value, n) => {
      const y = this.y(value);
      return svg("line", { x1: LEFT, x2: width - RIGHT, y1: y, y2: y, class: n === 0 ? "base" : "grid" });
    });
    const labels = axis.slice(1).map((value) => svg("text", { x: LEFT, y: this.y(value) + 11, class: "tick" }, this.format(value)));
    const times = [0, 0.5, 1].map((part) => {
      const ago = seconds * part;
      const text = ago === 0 ? "now" : ago >= 60 ? `−${ago / 60}\u202fmin` : `−${ago}\u202fs`;
      const anchor = part === 0 ? "end" : part === 1 ? "start" : "middle";
      return svg("text", { x: this.x(now - ago * 1000), y: HEIGHT - 5, class: "tick", "text-anchor": anchor }, text);
    });
    const lines = this.series.map(({ of }, n) => svg("path", { d: this.path(of), class: `line line-${n % 8}` }));
    const area = this.series.length === 1 ? [svg("path", { d: this.area(this.series[0].of), class: "area" })] : [];
    this.cursor = svg("g", { class: "cursor" });
    this.plot.replaceChildren(...grid, ...area, ...lines, ...labels, ...times, this.cursor);
    const said = this.series.map(({ name, of }) => `${name} ${latest ? this.format(of(latest)) : "unknown"}`).join(", ");
    this.plot.setAttribute("aria-label", `${this.title}: ${said}`);
    this.point(this.pointed ?? null);
  }

  x(time) {
    return LEFT + (1 - (this.now - time) / (this.seconds * 1000)) * (this.width - LEFT - RIGHT);
  }

  y(value) {
    return HEIGHT - BOTTOM - (value / this.top) * (HEIGHT - BOTTOM - TOP);
  }

  /** Runs of points. A line ends at an unknown value and at a gap in time. */
  runs(of) {
    const runs = [[]];
    let before = null;
    for (const sample of this.shown) {
      const value = of(sample);
      if (before !== null && sample.time - before > 10_000) runs.push([]);
      if (value === null || value === undefined) runs.push([]);
      else runs[runs.length - 1].push([this.x(sample.time), this.y(value)]);
      before = sample.time;
    }
    return runs.filter((run) => run.length > 0);
  }

  path(of) {
    // A single point is drawn as a dot: a line of zero length with round ends.
    return this.runs(of).map((run) => `M${(run.length === 1 ? [run[0], run[0]] : run).map(at).join("L")}`).join("");
  }

  area(of) {
    const base = HEIGHT - BOTTOM;
    return this.runs(of).map((run) => `M${at([run[0][0], base])}L${run.map(at).join("L")}L${at([run[run.length - 1][0], base])}Z`).join("");
  }

  /** Shows the values at this place; `null`: hides them. */
  point(x) {
    this.pointed = x;
    const nearest = x === null || !this.shown ? null : closest(this.shown, (sample) => Math.abs(this.x(sample.time) - x));
    this.tip.hidden = nearest === null;
    this.cursor?.replaceChildren();
    if (nearest === null) return;
    const place = this.x(nearest.time);
    const dots = this.series.flatMap(({ of }, n) => {
      const value = of(nearest);
      return value === null || value === undefined ? [] : [svg("circle", { cx: place, cy: this.y(value), r: 3.5, class: `dot-${n % 8}` })];
    });
    this.cursor.replaceChildren(svg("line", { x1: place, x2: place, y1: TOP, y2: HEIGHT - BOTTOM }), ...dots);
    const rows = this.series.map(({ name, of }, n) => h("div", {}, h("i", { class: `dot-${n % 8}` }), `${name ?? ""} `, h("b", {}, this.format(of(nearest)))));
    this.tip.replaceChildren(h("time", {}, new Date(nearest.time).toLocaleTimeString()), ...rows);
    const isRight = place > this.width / 2;
    this.tip.style.left = isRight ? "" : `${place + 12}px`;
    this.tip.style.right = isRight ? `${this.width - place + 12}px` : "";
  }
}

const at = ([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`;

function closest(samples, distance) {
  let found = null;
  for (const sample of samples) if (found === null || distance(sample) < distance(found)) found = sample;
  return found;
}
