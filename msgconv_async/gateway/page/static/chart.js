// Charts: today over the same hours of the day before. uPlot draws the large ones.

import { clock, count } from "./format.js";

const BUCKET = 300;
const DAY = 86400;
const SVG = "http://www.w3.org/2000/svg";
const dark = matchMedia("(prefers-color-scheme: dark)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function keyElement() {
  const key = document.createElement("p");
  key.className = "key";
  key.setAttribute("aria-hidden", "true");
  for (const name of ["today", "before"]) {
    const entry = document.createElement("span");
    const swatch = document.createElement("i");
    swatch.className = name;
    entry.append(swatch, name === "today" ? "today" : "day before");
    key.append(entry);
  }
  return key;
}

export class DayChart {
  constructor(element) {
    this.element = element;
    this.key = keyElement();
    element.before(this.key);
    this.plot = null;
    this.day = 0;
    this.data = [[], [], []];
    new ResizeObserver(() => this.resize()).observe(element);
    dark.addEventListener("change", () => this.draw());
  }

  show(day, today, before) {
    const first = day * DAY;
    const times = Array.from({ length: DAY / BUCKET }, (_, place) => first + place * BUCKET);
    const filled = (curve) => times.map((_, place) => curve[place] ?? null);
    this.data = [times, filled(before), filled(today)];
    if (this.plot && day === this.day) {
      this.plot.setData(this.data);
    } else {
      this.day = day;
      this.draw();
    }
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (this.plot && width) this.plot.setSize({ width, height });
    else if (width && this.data[0].length) this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.element;
    this.plot?.destroy();
    this.plot = null;
    if (!width || !this.data[0].length) return; // it is hidden
    const axis = {
      stroke: colour("soft"),
      grid: { stroke: colour("line"), width: 1 },
      ticks: { stroke: colour("line"), width: 1 },
      font: "12px system-ui, sans-serif",
    };
    const first = this.day * DAY;
    const whole = (_, splits) => splits.map((split) => (Number.isInteger(split) ? count(split) : ""));
    const time = (_, splits) => splits.map((split) => (split === first + DAY ? "24:00" : clock(split)));
    this.plot = new uPlot(
      {
        width,
        height,
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, points: { size: 7 } },
        scales: {
          x: { range: [first, first + DAY] },
          y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(1, high ?? 1) * 1.08] },
        },
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1e3), "Etc/UTC"),
        axes: [
          { ...axis, space: 56, values: time },
          { ...axis, size: (_, labels) => 20 + 7 * Math.max(3, ...(labels ?? []).map((label) => label.length)), space: 36, values: whole },
        ],
        series: [
          {},
          { stroke: colour("before"), width: 1.5, dash: [5, 4], points: { show: false } },
          { stroke: colour("today"), fill: colour("fill"), width: 2, points: { show: false } },
        ],
        hooks: { setCursor: [(plot) => this.read(plot.cursor.idx)] },
      },
      this.data,
      this.element,
    );
  }

  // Say what is under the pointer.
  read(place) {
    const [times, before, today] = this.data;
    const said = (value) => (value === null || value === undefined ? "" : ` ${count(value)}`);
    const [key, then] = this.key.children;
    const at = place === null || place === undefined ? null : place;
    key.lastChild.data = at === null ? "today" : `today, ${clock(times[at])}:${said(today[at])}`;
    then.lastChild.data = at === null ? "day before" : `day before:${said(before[at])}`;
  }
}

// A small curve of hours for a row of the table; what it says stands in the row as numbers, too.
export function drawHours(svg, [today, before]) {
  const most = Math.max(1, ...today, ...before);
  const path = (curve) => {
    let drawn = "";
    let pen = false;
    curve.forEach((value, hour) => {
      if (value !== null) drawn += `${pen ? "L" : "M"}${(hour * 96) / 23},${(23 - (value / most) * 22).toFixed(1)}`;
      pen = value !== null;
    });
    return drawn;
  };
  svg.children[0].setAttribute("d", path(before));
  svg.children[1].setAttribute("d", path(today));
}

export function hoursElement() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 96 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "spark");
  for (const name of ["before", "today"]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    svg.append(path);
  }
  return svg;
}
