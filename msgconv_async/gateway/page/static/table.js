// The table of all accounts: searched, sorted by any column, the worst first.

import { drawHours, hoursElement } from "./chart.js";
import { ago, change, clock, count, limit, written } from "./format.js";
import { accounts } from "./state.js";

const collator = new Intl.Collator("en", { numeric: true });
const last = (place) => (account) => account.summary?.last[place] ?? null;
const shownLast = (place) => (account) => count(last(place)(account));

const ofSummary = (show) => (account) => (account.summary ? show(account.summary, account) : "");
const changed = (summary) => change(summary.compared, summary.common) || "-";
const averaged = ({ last: [total, , , , time] }) => written(total, time);

// name; unit, in the head; what to sort by; what to show.
const COLUMNS = [
  { id: "account", name: "Account", key: (account) => account.id, up: true },
  { id: "state", name: "State", worst: true, key: (account) => account.badness, show: stateText },
  { id: "total", name: "Resolved", unit: "in 5 min", key: last(0), show: shownLast(0) },
  { id: "agent", name: "By agent", unit: "in 5 min", key: last(1), show: shownLast(1) },
  { id: "consumer", name: "By consumer", unit: "in 5 min", key: last(2), show: shownLast(2) },
  { id: "system", name: "By system", unit: "in 5 min", key: last(3), show: shownLast(3) },
  { id: "average", name: "Average", unit: "handling time", key: (account) => account.average, show: ofSummary(averaged) },
  {
    id: "until",
    name: "Until",
    unit: "UTC, and age",
    key: (account) => account.age,
    show: ofSummary((summary, account) => `${clock(summary.end)}, ${ago(account.age)}`),
  },
  { id: "today", name: "Today", unit: "resolved", key: ofToday, show: (account) => count(ofToday(account)) },
  { id: "change", name: "Change", unit: "on day before", key: (account) => account.change, show: ofSummary(changed) },
  { id: "hours", name: "Curve", unit: "today and day before", key: ofToday },
  {
    id: "limit",
    name: "Limit",
    unit: "requests, as believed",
    key: (account) => account.limit,
    show: (account) => limit(account.pace),
  },
  {
    id: "queue",
    name: "Queue",
    unit: "requests",
    key: (account) => account.pace.waiting,
    show: (account) => count(account.pace.waiting),
  },
  {
    id: "refused",
    name: "429s",
    unit: "requests refused",
    key: (account) => account.pace.refused,
    show: (account) => count(account.pace.refused),
  },
];

function ofToday(account) {
  return account.today;
}

function stateText(account) {
  return account.state === "ok" && account.gap ? "ok, with a gap" : account.state;
}

function compare(one, other) {
  if (Array.isArray(one)) {
    const place = one.findIndex((value, index) => value !== other[index]);
    return place < 0 ? 0 : one[place] - other[place];
  }
  return typeof one === "string" ? collator.compare(one, other) : one - other;
}

export class Table {
  constructor() {
    this.head = document.querySelector("#table thead tr");
    this.body = document.querySelector("#table tbody");
    this.search = document.getElementById("search");
    this.choice = document.getElementById("sort");
    this.shown = document.getElementById("shown");
    this.rows = new Map();
    this.column = COLUMNS.find((column) => column.worst);
    this.up = false;
    for (const column of COLUMNS) this.addColumn(column);
    this.choice.value = this.column.id;
    this.choice.addEventListener("change", () => this.sortBy(COLUMNS.find((column) => column.id === this.choice.value)));
    this.search.addEventListener("input", () => this.arrange());
    document.getElementById("tools").addEventListener("submit", (event) => event.preventDefault());
    this.mark();
  }

  addColumn(column) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.className = column.id;
    const button = document.createElement("button");
    button.append(column.name);
    if (column.unit) {
      const unit = document.createElement("small");
      unit.textContent = column.unit;
      button.append(" ", unit);
    }
    button.addEventListener("click", () => this.sortBy(column));
    cell.append(button);
    this.head.append(cell);
    column.cell = cell;
    this.choice.append(new Option(column.worst ? "State, worst first" : [column.name, column.unit].filter(Boolean).join(", "), column.id));
  }

  sortBy(column) {
    this.up = column === this.column ? !this.up : Boolean(column.up);
    this.column = column;
    this.choice.value = column.id;
    this.mark();
    this.arrange();
  }

  mark() {
    for (const column of COLUMNS) {
      if (column === this.column) column.cell.setAttribute("aria-sort", this.up ? "ascending" : "descending");
      else column.cell.removeAttribute("aria-sort");
    }
  }

  update() {
    for (const account of accounts.values()) this.fill(this.rows.get(account.id) ?? this.addRow(account), account);
    this.arrange();
  }

  addRow(account) {
    const element = document.createElement("tr");
    const cells = {};
    for (const column of COLUMNS) {
      const cell = document.createElement(column.id === "account" ? "th" : "td");
      cell.className = column.id;
      cells[column.id] = cell;
      element.append(cell);
    }
    const link = document.createElement("a");
    link.href = `#${encodeURIComponent(account.id)}`;
    link.textContent = account.id;
    const name = document.createElement("small");
    name.textContent = account.name;
    cells.account.scope = "row";
    cells.account.append(link, name);
    const hours = hoursElement();
    cells.hours.append(hours);
    const row = { element, cells, hours, drawn: null };
    element.dataset.account = account.id;
    this.rows.set(account.id, row);
    return row;
  }

  fill(row, account) {
    for (const column of COLUMNS) {
      if (!column.show) continue;
      const text = column.show(account);
      if (row.cells[column.id].textContent !== text) row.cells[column.id].textContent = text;
    }
    row.element.dataset.state = account.state;
    row.element.dataset.old = account.summary && !account.isFresh ? "yes" : "";
    row.cells.state.title = account.failure || account.gap;
    if (account.summary && row.drawn !== account.summary) {
      drawHours(row.hours, account.summary.hours);
      row.drawn = account.summary;
    }
  }

  arrange() {
    const wanted = this.search.value.trim().toLowerCase();
    const found = [...accounts.values()].filter(
      (account) => !wanted || [account.id, account.name, stateText(account)].some((text) => text.toLowerCase().includes(wanted)),
    );
    const keys = new Map(found.map((account) => [account, this.column.key(account)]));
    found.sort((one, other) => {
      const [left, right] = [keys.get(one), keys.get(other)];
      // What is not known comes last, whichever way it is sorted.
      if (left === null || right === null) return (left === null) - (right === null) || compare(one.id, other.id);
      return compare(left, right) * (this.up ? 1 : -1) || compare(one.id, other.id);
    });
    const focused = document.activeElement;
    const elements = found.map((account) => this.rows.get(account.id).element);
    const same = elements.length === this.body.children.length && elements.every((element, place) => element === this.body.children[place]);
    if (!same) {
      this.body.replaceChildren(...elements);
      if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    }
    const text = wanted ? `${count(found.length)} of ${count(accounts.size)} accounts` : "";
    if (this.shown.textContent !== text) this.shown.textContent = text;
  }
}
