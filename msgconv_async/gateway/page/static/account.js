// One account: its figures, its day, its pace, and its skills and agents.

import { DayChart } from "./chart.js";
import { ago, change, clock, count, counted, day, limit, named, skillName, written } from "./format.js";
import { accounts } from "./state.js";

const HEADS = ["Resolved", "By agent", "By consumer", "By system", "Average handling time"];

export class AccountView {
  constructor() {
    this.id = null;
    this.data = null;
    this.asked = 0;
    this.element = document.getElementById("account");
    this.chart = new DayChart(document.getElementById("account-plot"));
    this.period = document.getElementById("period");
    this.skill = document.getElementById("skill");
    for (const choice of [this.period, this.skill]) choice.addEventListener("change", () => this.fillTables());
    document.getElementById("choice").addEventListener("submit", (event) => event.preventDefault());
    for (const [table, first] of [["skills", "Skill"], ["agents", "Agent"]]) {
      document.querySelector(`#${table} thead`).append(row("th", [first, ...HEADS], "col"));
    }
  }

  async open(id) {
    this.id = id;
    this.data = null;
    this.skill.value = "";
    this.fill();
    this.fillTables();
    this.chart.show(0, [], []);
    await this.ask();
  }

  close() {
    this.id = null;
  }

  async ask() {
    const id = this.id;
    const number = (this.asked += 1);
    try {
      const response = await fetch(`live/account/${encodeURIComponent(id)}`, { cache: "no-store" });
      if (!response.ok || number !== this.asked || id !== this.id) return;
      this.data = await response.json();
    } catch {
      return; // the connection is lost: the stream says so, and asks again when it is back
    }
    this.chart.show(this.data.day, this.data.today, this.data.before);
    this.fillTables();
    this.fill();
  }

  fill() {
    const account = accounts.get(this.id);
    set(document.getElementById("account-name"), `Account ${named(this.id, { [this.id]: account?.name })}`);
    const state = document.getElementById("account-state");
    const sums = document.getElementById("account-sums");
    if (!account) {
      state.textContent = accounts.size ? "This account is not served here." : "";
      sums.replaceChildren();
      return;
    }
    const { summary, pace } = account;
    const said = [account.failure && `Failing since ${clock(account.failedAt, true)} UTC: ${account.failure}`, account.gap];
    if (summary) {
      const the = account.isFresh ? "The" : "Stale: the";
      said.push(`${the} last closed five minutes end at ${clock(summary.end)} UTC, ${ago(account.age)} ago.`);
    } else said.push("Nothing was seen yet.");
    set(state, said.filter(Boolean).join(" "));
    this.element.dataset.state = account.state;
    const tiles = [];
    if (summary) {
      const [total, agent, consumer, system, time] = summary.last;
      const resolvers = [agent, consumer, system].map((value) => count(value) || "-").join(" · ");
      const common = summary.common
        ? `in the ${5 * summary.common} minutes seen on both days`
        : "no common hours seen yet";
      tiles.push(
        ["Resolved, last 5 minutes", count(total), "conversations", "total"],
        ["By agent, consumer, system", resolvers, "conversations", "resolvers"],
        ["Average handling time", written(total, time), "of these", "average"],
        ["Resolved today", count(account.today) || "-", `conversations, in ${counted(summary.seen, "bucket", "buckets")} of five minutes`, "today"],
        ["Against the day before", change(summary.compared, summary.common) || "-", common, "change"],
      );
    }
    const allowed = `allowed so far: ${count(pace.concurrency)} at once, ${count(Math.round(pace.rate))} a second`;
    tiles.push(
      ["Limit, believed", limit(pace), pace.by === null ? allowed : "requests", "limit"],
      ["Queue", count(pace.waiting), `requests; ${count(pace.flight)} in flight`, "queue"],
      ["Refused with 429", count(pace.refused), `of ${counted(pace.sent, "request", "requests")} sent`, "refused"],
    );
    fillTiles(sums, tiles);
    this.fillCaption(summary);
  }

  fillCaption(summary) {
    const caption = document.getElementById("account-caption");
    if (!summary || !this.data) return set(caption, "Resolved in each five minutes");
    set(caption, `Resolved in each five minutes of ${day(this.data.day)}, UTC: ${count(summary.today)} so far. ${compared(summary)}`);
  }

  fillTables() {
    const found = this.data?.periods[Number(this.period.value)] ?? { skills: [], within: {}, agents: [] };
    const { skills, agents } = this.data?.names ?? {};
    const skill = (id) => skillName(id, skills);
    fillRows("skills", found.skills, skill);
    const chosen = this.skill.value;
    const known = Object.keys(found.within).sort((one, other) => Number(one) - Number(other));
    if (chosen && !known.includes(chosen)) known.push(chosen);
    this.skill.replaceChildren(new Option("all skills", ""), ...known.map((id) => new Option(skill(id), id)));
    this.skill.value = chosen;
    fillRows("agents", chosen ? (found.within[chosen] ?? []) : found.agents, (id) => named(id, agents));
    set(document.getElementById("agents-caption"), chosen ? `By agent, of skill ${skill(chosen)}` : "By agent");
  }
}

export function compared(summary) {
  if (!summary.common) return "The same hours of the day before were not seen.";
  const [now, before] = summary.compared;
  return `In the ${5 * summary.common} minutes seen on both days: ${count(now)}, and ${count(before)} the day before.`;
}

export function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function fillTiles(list, tiles) {
  while (list.children.length > tiles.length) list.lastElementChild.remove();
  tiles.forEach(([name, value, unit, id], place) => {
    let tile = list.children[place];
    if (!tile) {
      tile = document.createElement("div");
      const small = document.createElement("dd");
      small.className = "unit";
      tile.append(document.createElement("dt"), document.createElement("dd"), small);
      list.append(tile);
    }
    tile.dataset.figure = id;
    [name, value, unit].forEach((text, part) => set(tile.children[part], text));
  });
}

function fillRows(table, rows, named) {
  const body = document.querySelector(`#${table} tbody`);
  if (!rows.length) {
    const line = row("td", ["Nothing was resolved, or nothing was seen yet."]);
    line.firstElementChild.colSpan = HEADS.length + 1;
    return body.replaceChildren(line);
  }
  body.replaceChildren(
    ...rows.map(([id, total, agent, consumer, system, time]) => {
      const line = row("td", [...[total, agent, consumer, system].map(count), written(total, time)]);
      line.prepend(cell("th", named(id), "row"));
      return line;
    }),
  );
}

function row(kind, texts, scope) {
  const element = document.createElement("tr");
  element.append(...texts.map((text) => cell(kind, text, scope)));
  return element;
}

function cell(kind, text, scope) {
  const element = document.createElement(kind);
  element.textContent = text;
  if (scope) element.scope = scope;
  return element;
}

