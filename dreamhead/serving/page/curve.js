// Draw how far the lips open, over how loud the speech is, with a cursor that can be moved.

import { clock } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 240;
const LEFT = 44;
const RIGHT = 10;
const LIPS = { top: 22, bottom: 148 };
const LEVEL = { top: 176, bottom: 212 };
const QUIETEST_DB = -60;
/** Pixels that a second gets at least: a longer video is shown page by page. */
const PIXELS_A_SECOND = 60;
const LABEL_PX = 56;

export class CurvePlot {
  /** `onSeek` is called with a frame. */
  constructor(figure, onSeek) {
    this.figure = figure;
    this.plot = figure.querySelector("#curve-plot");
    this.now = figure.querySelector("#curve-now");
    this.summary = figure.querySelector("#curve-summary");
    this.onSeek = onSeek;
    this.data = null;
    this.frame = 0;
    this.plot.addEventListener("pointerdown", (event) => this.#take(event));
    this.plot.addEventListener("pointermove", (event) => event.buttons && this.#take(event));
    new ResizeObserver(() => this.#draw()).observe(this.plot);
  }

  show(data) {
    this.data = data;
    this.figure.hidden = !data;
    if (!data) return;
    this.plot.setAttribute("aria-valuemin", 0);
    this.plot.setAttribute("aria-valuemax", data.times_s.length - 1);
    this.summary.textContent = summaryOf(data);
    this.moveTo(0);
    this.#draw();
  }

  moveTo(frame) {
    if (!this.data) return;
    this.frame = frame;
    const text = this.#sayAt(frame);
    this.now.textContent = text;
    this.plot.setAttribute("aria-valuenow", frame);
    this.plot.setAttribute("aria-valuetext", text);
    if (this.page && !(frame >= this.page.first && frame < this.page.last)) this.#draw();
    else this.#placeCursor();
  }

  #sayAt(frame) {
    const { times_s, new: ours, source, found, level_db } = this.data;
    const measured = found[frame] === null ? "" : `, measured ${percent(found[frame])}`;
    const level = level_db[frame] <= QUIETEST_DB ? "silent" : `${level_db[frame].toFixed(0)} dB`.replace("-", "−");
    const lips = `new lips ${percent(ours[frame])}${measured}, source ${percent(source[frame])}`;
    return `At ${clock(times_s[frame], 2)}: ${lips}, speech ${level}`;
  }

  #take(event) {
    if (!this.page || event.button > 0) return;
    const at = event.clientX - this.plot.getBoundingClientRect().left;
    const share = Math.min(1, Math.max(0, (at - LEFT) / (this.width - LEFT - RIGHT)));
    const time = this.page.start + share * this.page.length;
    let frame = this.page.first;
    while (frame + 1 < this.page.last && this.data.times_s[frame + 1] <= time) frame += 1;
    this.onSeek(frame);
  }

  /** The stretch around the cursor that fits, in equal pages from the start, so that the picture stands still. */
  #choosePage() {
    const { times_s, duration_s } = this.data;
    const pages = Math.max(1, Math.ceil((duration_s * PIXELS_A_SECOND) / (this.width - LEFT - RIGHT)));
    const length = duration_s / pages;
    const start = length * Math.min(pages - 1, Math.floor(times_s[this.frame] / length + 1e-6));
    const first = Math.max(0, times_s.findIndex((time) => time >= start - 1e-6));
    const next = times_s.findIndex((time) => time >= start + length - 1e-6);
    return { start, length, first, last: next < 0 ? times_s.length : next };
  }

  #draw() {
    this.width = this.plot.clientWidth;
    if (!this.data || !this.width) return;
    this.page = this.#choosePage();
    this.plot.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.top = topOf(this.data);
    this.plot.replaceChildren(...this.#axes(), this.#level(), ...this.#lips());
    this.cursor = make("line", { class: "cursor", y1: LIPS.top, y2: LEVEL.bottom });
    this.plot.append(this.cursor);
    this.#placeCursor();
  }

  #placeCursor() {
    if (!this.page || !this.cursor) return;
    const x = this.#x(this.data.times_s[this.frame]);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
  }

  #x(time) {
    return round(LEFT + ((this.width - LEFT - RIGHT) * (time - this.page.start)) / this.page.length);
  }

  #y(opening) {
    return round(LIPS.bottom - ((LIPS.bottom - LIPS.top) * opening) / this.top);
  }

  #axes() {
    const right = this.width - RIGHT;
    const parts = [
      text(0, 12, "Lip opening, % of the distance between the eyes"),
      text(0, LEVEL.top - 8, `Speech, dB of full scale`),
    ];
    for (const value of [0, this.top / 2, this.top]) {
      const y = this.#y(value);
      parts.push(make("line", { class: "grid", x1: LEFT, x2: right, y1: y, y2: y }));
      parts.push(text(LEFT - 6, y + 4, String(Number((100 * value).toFixed(1))), "end"));
    }
    parts.push(text(LEFT - 6, LEVEL.top + 9, "0", "end"), text(LEFT - 6, LEVEL.bottom, `−${-QUIETEST_DB}`, "end"));
    parts.push(make("line", { class: "grid", x1: LEFT, x2: right, y1: LEVEL.bottom, y2: LEVEL.bottom }));
    const step = [0.2, 0.5, 1, 2, 5].find((size) => (size / this.page.length) * (right - LEFT) >= LABEL_PX) ?? 10;
    for (let number = Math.ceil(this.page.start / step - 1e-6); number * step < this.page.start + this.page.length; number++) {
      const x = this.#x(number * step);
      // The unit stands at the right end, where no number may be.
      if (x < right - LABEL_PX / 2) parts.push(text(x, HEIGHT - 12, clock(number * step, step < 1 ? 1 : 0), "middle"));
    }
    parts.push(text(right, HEIGHT - 12, "min:s", "end"));
    return parts;
  }

  #level() {
    const { first, last } = this.page;
    const { times_s, level_db } = this.data;
    const height = (level) => {
      const share = 1 - Math.min(1, Math.max(0, level / QUIETEST_DB));
      return round(LEVEL.bottom - (LEVEL.bottom - LEVEL.top) * share);
    };
    const points = [];
    for (let frame = first; frame < last; frame++) points.push(`${this.#x(times_s[frame])},${height(level_db[frame])}`);
    const floor = LEVEL.bottom;
    const edges = [`${this.#x(times_s[first])},${floor}`, ...points, `${this.#x(times_s[last - 1])},${floor}`];
    return make("polygon", { class: "level", points: edges.join(" ") });
  }

  #lips() {
    const { first, last } = this.page;
    const { times_s, new: ours, source, found } = this.data;
    const parts = [
      make("path", { class: "source", d: this.#path(source) }),
      make("path", { class: "new", d: this.#path(ours) }),
    ];
    for (let frame = first; frame < last; frame++) {
      if (found[frame] === null) continue;
      parts.push(make("circle", { class: "found", cx: this.#x(times_s[frame]), cy: this.#y(found[frame]), r: 2 }));
    }
    return parts;
  }

  #path(values) {
    let path = "";
    let isDrawing = false;
    for (let frame = this.page.first; frame < this.page.last; frame++) {
      const value = values[frame];
      if (value !== null) path += `${isDrawing ? "L" : "M"}${this.#x(this.data.times_s[frame])} ${this.#y(value)}`;
      isDrawing = value !== null;
    }
    return path;
  }
}

function make(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function text(x, y, content, anchor = "start") {
  const element = make("text", { x, y, "text-anchor": anchor });
  element.textContent = content;
  return element;
}

const round = (value) => Math.round(10 * value) / 10;
const percent = (value) => (value === null ? "not seen" : `${(100 * value).toFixed(0)} %`);

/** A round number that no curve passes. */
function topOf(data) {
  const most = [...data.new, ...data.source, ...data.found].reduce((top, value) => Math.max(top, value ?? 0), 0);
  return [0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1].find((top) => top >= most) ?? Math.ceil(most);
}

/** What the curves show, in two sentences. */
function summaryOf({ times_s, new: ours, source, level_db }) {
  const tell = (name, values) => {
    const known = values.flatMap((value, frame) => (value === null ? [] : [{ value, frame }]));
    if (!known.length) return `${name} are never seen`;
    const mean = known.reduce((sum, { value }) => sum + value, 0) / known.length;
    const widest = known.reduce((best, one) => (one.value > best.value ? one : best));
    return `${name} open by ${percent(mean)} of the distance between the eyes in the mean, by ${percent(widest.value)} at ${clock(times_s[widest.frame])}`;
  };
  const follows = correlation(ours, level_db.map((level) => Math.max(level, QUIETEST_DB)));
  const end = follows === null ? "" : ` The new lips’ correlation with the speech’s level is ${follows.toFixed(2).replace("-", "−")}.`;
  return `${tell("New lips", ours)}; ${tell("the source’s", source)}.${end}`;
}

/** Pearson's; null where one of the two never changes. */
function correlation(first, second) {
  const pairs = first.flatMap((value, index) => (value === null ? [] : [[value, second[index]]]));
  const mean = (side) => pairs.reduce((sum, pair) => sum + pair[side], 0) / pairs.length;
  const means = [mean(0), mean(1)];
  const sum = (one, other) => pairs.reduce((all, pair) => all + (pair[one] - means[one]) * (pair[other] - means[other]), 0);
  const spread = Math.sqrt(sum(0, 0) * sum(1, 1));
  return spread > 0 ? sum(0, 1) / spread : null;
}
