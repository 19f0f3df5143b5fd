"use strict";
(() => {
  const history = JSON.parse(document.getElementById("history").textContent);
  const choice = document.getElementById("skill");
  const rows = [...document.querySelectorAll("tbody tr")];
  const partial = new Set(history.partial);
  const counts = new Intl.NumberFormat("en");
  const PRINTED = 660; // pixels: what fits on A4 and on Letter

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const label = (day) => {
    const name = new Date(day).toLocaleDateString("en", { month: "short", day: "numeric", timeZone: "UTC" });
    return partial.has(day) ? name + "*" : name;
  };

  class DayChart {
    constructor(id, names) {
      this.element = document.getElementById(id);
      this.figure = this.element.closest("figure");
      this.names = names;
      this.plot = null;
      new ResizeObserver(() => this.resize()).observe(this.element);
    }

    // The values of each series by day, as they are drawn; what is read of a day by name; the drawing.
    show(values, read, series, drawn, whole) {
      this.shown = [values, read, series, drawn, whole];
      this.draw();
    }

    width() {
      return "print" in document.documentElement.dataset ? PRINTED : this.element.clientWidth;
    }

    resize() {
      if (this.plot && this.width() && this.width() !== this.plot.width) this.plot.setSize({ width: this.width(), height: this.plot.height });
    }

    draw() {
      const [values, read, series, drawn, whole] = this.shown;
      const days = history.days;
      const axis = {
        stroke: colour("soft"),
        grid: { stroke: colour("line"), width: 1 },
        ticks: { stroke: colour("line"), width: 1 },
        font: "12px system-ui, sans-serif",
      };
      const written = (value) => (whole && !Number.isInteger(value) ? "" : counts.format(value));
      this.plot?.destroy();
      this.plot = new uPlot(
        {
          width: this.width(),
          height: this.element.clientHeight,
          legend: { show: false },
          cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
          scales: {
            x: { time: false, range: [-0.5, days.length - 0.5] },
            y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(whole ? 1 : 0.1, high ?? 1) * 1.06] },
          },
          axes: [
            {
              ...axis,
              size: 30,
              grid: { show: false },
              splits: (plot) => {
                const room = Math.max(1, Math.floor(plot.width / 72));
                const step = Math.ceil(days.length / room);
                return days.map((_, at) => at).filter((at) => (days.length - 1 - at) % step === 0);
              },
              values: (_, splits) => splits.map((at) => label(days[at])),
            },
            {
              ...axis,
              space: 36,
              size: (_, labels) => 20 + 7 * Math.max(3, ...(labels ?? []).map((each) => each.length)),
              values: (_, splits) => splits.map(written),
            },
          ],
          series: [{}, ...series],
          hooks: { draw: [drawn], setCursor: [(plot) => this.read(plot.cursor.idx, read)] },
        },
        [days.map((_, at) => at), ...values],
        this.element,
      );
    }

    // Say what is under the pointer.
    read(at, read) {
      const day = history.days[at];
      this.figure.querySelector(".at").textContent = day === undefined ? "" : label(day);
      for (const name of this.names) {
        const value = day === undefined ? null : read(day)?.[name];
        this.figure.querySelector(`[data-of="${name}"] b`).textContent = value ?? "";
      }
    }
  }

  const resolved = new DayChart("resolved", ["agent", "consumer", "system"]);
  const handling = new DayChart("handling", ["average"]);
  const WIDTH = { share: 0.75, most: 48 };

  function showResolved(told) {
    const sides = ["agent", "consumer", "system"];
    const up = (count) => (day) => {
      const of = told.get(day);
      return of ? sides.slice(0, count).reduce((sum, side) => sum + (of[side] ?? 0), 0) : null;
    };
    const bars = sides.map((side) => ({
      fill: colour(side),
      width: 0,
      points: { show: false },
      paths: uPlot.paths.bars({ size: [WIDTH.share, WIDTH.most] }),
    }));
    const whole = history.days.map(up(3));
    const values = [whole, history.days.map(up(2)), history.days.map(up(1))]; // drawn over each other
    const said = (day) => {
      const of = told.get(day);
      return of && Object.fromEntries(sides.map((side) => [side, of[side] === null ? "" : counts.format(of[side])]));
    };
    resolved.show(values, said, bars.reverse(), (plot) => hatch(plot, whole), true);
  }

  // Lines over the days that were not collected whole.
  function hatch(plot, whole) {
    const { ctx } = plot;
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const pen = tile.getContext("2d");
    pen.strokeStyle = colour("card");
    pen.lineWidth = 2;
    for (const shift of [-8, 0, 8]) {
      pen.moveTo(shift, 8);
      pen.lineTo(shift + 8, 0);
    }
    pen.stroke();
    const across = plot.valToPos(1, "x", true) - plot.valToPos(0, "x", true);
    const width = Math.min(across * WIDTH.share, WIDTH.most * devicePixelRatio);
    ctx.save();
    ctx.fillStyle = ctx.createPattern(tile, "repeat");
    history.days.forEach((day, at) => {
      if (!partial.has(day) || whole[at] === null) return;
      const top = plot.valToPos(whole[at], "y", true);
      ctx.fillRect(plot.valToPos(at, "x", true) - width / 2, top, width, plot.valToPos(0, "y", true) - top);
    });
    ctx.restore();
  }

  function showHandling(told) {
    const seconds = history.days.map((day) => told.get(day)?.average ?? null).map((each) => (each === null ? null : each / 1000));
    const most = Math.max(...seconds);
    const [unit, size] = most < 120 ? ["seconds", 1] : most < 7200 ? ["minutes", 60] : ["hours", 3600];
    document.getElementById("unit").textContent = unit;
    const values = seconds.map((each) => (each === null ? null : each / size));
    const line = { stroke: colour("average"), width: 2, points: { show: false } };
    const said = (day) => told.has(day) && { average: told.get(day).written };
    handling.show([values], said, [line], (plot) => dots(plot, values), false);
  }

  // A dot for each day, open if the day was not collected whole.
  function dots(plot, values) {
    const { ctx } = plot;
    ctx.save();
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.strokeStyle = colour("average");
    values.forEach((value, at) => {
      if (value === null) return;
      ctx.fillStyle = colour(partial.has(history.days[at]) ? "card" : "average");
      ctx.beginPath();
      ctx.arc(plot.valToPos(at, "x", true), plot.valToPos(value, "y", true), (values.length > 45 ? 2 : 4) * devicePixelRatio, 0, 2 * Math.PI);
      ctx.fill();
      ctx.stroke();
    });
    ctx.restore();
  }

  function show() {
    const skill = history.skills[choice.value];
    for (const [name, text] of Object.entries(skill.sums)) document.getElementById(name).textContent = text;
    for (const row of rows) row.hidden = row.dataset.skill !== choice.value;
    const name = choice.selectedOptions[0].textContent;
    const whose = name === "all" ? `, all ${history.by}s` : `, ${history.by} ${name}`;
    for (const of of document.querySelectorAll(".of")) of.textContent = history.skills.length === 1 ? "" : whose;
    const told = new Map(skill.days.map((each) => [each.day, each]));
    showResolved(told);
    showHandling(told);
  }

  document.getElementById("drawn").hidden = false;
  choice.parentElement.hidden = history.skills.length === 1;
  choice.addEventListener("change", show);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  // Paper is white and has a width of its own.
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "";
    show();
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    show();
  });
  show();
})();
