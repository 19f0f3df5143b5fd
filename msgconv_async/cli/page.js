"use strict";
(() => {
  const history = JSON.parse(document.getElementById("history").textContent);
  const choice = document.getElementById("skill");
  const rows = [...document.querySelectorAll("tbody tr")];
  const partial = new Set(history.partial);
  const label = (day) => {
    const name = new Date(day).toLocaleDateString("en", { month: "short", day: "numeric", timeZone: "UTC" });
    return partial.has(day) ? name + "*" : name;
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  function ticks() {
    const room = Math.max(1, Math.floor(document.getElementById("resolved").clientWidth / 72));
    const step = Math.ceil(history.days.length / room);
    const shown = history.days.filter((_, at, all) => (all.length - 1 - at) % step === 0);
    return { tickmode: "array", tickvals: shown, ticktext: shown.map(label), tickangle: 0 };
  }

  function layout(vertical) {
    const axis = { fixedrange: true, gridcolor: colour("line"), linecolor: colour("line"), zeroline: false };
    return {
      autosize: true,
      margin: { l: 56, r: 28, t: 8, b: 32 },
      paper_bgcolor: "transparent",
      plot_bgcolor: "transparent",
      font: { family: "system-ui, sans-serif", size: 13, color: colour("ink") },
      hovermode: "x unified",
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
      showlegend: false,
      dragmode: false,
      bargap: 0.25,
      xaxis: { ...axis, ...ticks(), showgrid: false, type: "category", categoryorder: "array", categoryarray: history.days, range: [-0.5, history.days.length - 0.5] },
      yaxis: { ...axis, rangemode: "tozero", ...vertical },
    };
  }

  function draw() {
    const skill = history.skills[choice.value];
    for (const [name, text] of Object.entries(skill.sums)) document.getElementById(name).textContent = text;
    for (const row of rows) row.hidden = row.dataset.skill !== choice.value;
    const told = new Map(skill.days.map((each) => [each.day, each]));
    const days = history.days;
    const of = (key) => days.map((day) => told.get(day)?.[key] ?? null);
    const bars = [["agent", "by agents"], ["consumer", "by consumers"], ["system", "by the system"]].map(([key, name]) => ({
      type: "bar",
      name,
      x: days,
      y: of(key),
      marker: {
        color: colour(key),
        pattern: { shape: days.map((day) => (partial.has(day) ? "/" : "")), fgcolor: colour("card"), fillmode: "overlay", fgopacity: 0.6, size: 7 },
      },
      hovertemplate: "%{y:,}",
    }));
    const seconds = of("average").map((each) => (each === null ? null : each / 1000));
    const most = Math.max(...seconds);
    const [unit, size] = most < 120 ? ["seconds", 1] : most < 7200 ? ["minutes", 60] : ["hours", 3600];
    document.getElementById("unit").textContent = unit;
    const line = {
      type: "scatter",
      mode: "lines+markers",
      x: days,
      y: seconds.map((each) => (each === null ? null : each / size)),
      text: of("written"),
      line: { color: colour("average"), width: 2 },
      marker: { size: days.length > 45 ? 5 : 9, color: days.map((day) => colour(partial.has(day) ? "card" : "average")), line: { width: 2, color: colour("average") } },
      hovertemplate: "%{text}<extra></extra>",
    };
    const settings = { responsive: true, displayModeBar: false };
    Plotly.react("resolved", bars, { ...layout({ tickformat: ",~d" }), barmode: "stack" }, settings);
    Plotly.react("handling", [line], layout({}), settings);
  }

  document.getElementById("drawn").hidden = false;
  choice.parentElement.hidden = history.skills.length === 1;
  choice.addEventListener("change", draw);
  addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
