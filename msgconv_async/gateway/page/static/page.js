// The page: what is heard goes into the state, and from there to what is seen.

import { AccountView, compared, set } from "./account.js";
import { DayChart } from "./chart.js";
import { ago, clock, count, counted, day, written } from "./format.js";
import { accounts, forgetOthers, now, take } from "./state.js";
import { connect } from "./stream.js";
import { Table } from "./table.js";

const REDRAW_ALL = 2500; // milliseconds from a change to the reading of all accounts' day: the gateway adds up every 2 s
const REDRAW_SOON = 500; // as long as there is nothing to draw
const SHOW = 200; // milliseconds in which what is heard is gathered: hundreds of rows take their time
const NOTES = 3;
const title = document.title;

const overview = document.getElementById("overview");
const connection = document.getElementById("connection");
const table = new Table();
const view = new AccountView();
const allChart = new DayChart(document.getElementById("all-plot"));

let heardAt = null;
let isLost = false;
let hasDrawn = false;
const planned = { show: 0, all: 0 };

function named(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // no account has such an id
  }
}

function route() {
  const id = named(location.hash.slice(1));
  overview.hidden = Boolean(id);
  view.element.hidden = !id;
  document.title = id ? `Account ${id}: ${title}` : title;
  if (id) {
    view.open(id);
    scrollTo(0, 0);
    document.getElementById("account-name").focus({ preventScroll: true });
  } else {
    const left = view.id;
    view.close();
    if (left) table.rows.get(left)?.cells.account.firstElementChild.focus();
    drawAll();
  }
}

function heard(kind, message) {
  if (kind === "all") forgetOthers(message.rows);
  const changed = take(message);
  heardAt = now();
  if (isLost || kind === "all") {
    isLost = false;
    set(connection, "Connected");
    connection.dataset.state = "connected";
    document.body.dataset.lost = "";
    if (view.id) view.ask();
  } else if (view.id && changed.has(view.id)) view.ask();
  if (changed.size) planAll();
  planned.show ||= setTimeout(show, SHOW);
}

function lost() {
  isLost = true;
  document.body.dataset.lost = "yes";
  connection.dataset.state = "lost";
  tell();
}

// Said once aloud, and kept up to date to the eye: a screen reader is not to hear it every second.
function tell() {
  if (!isLost) return;
  const said =
    heardAt === null
      ? "No connection to the gateway."
      : `Connection lost. What is shown is of ${clock(heardAt, true)} UTC, and grows old.`;
  set(connection, `${said} Trying again.`);
}

function show() {
  clearTimeout(planned.show);
  planned.show = 0;
  if (view.id) view.fill();
  table.update();
  const all = [...accounts.values()];
  const fresh = all.filter((account) => account.isFresh); // older figures are not of the last five minutes
  const sum = (figure) => all.reduce((total, account) => total + (figure(account) ?? 0), 0);
  const last = (place) => sum((account) => (account.isFresh ? account.summary.last[place] : 0));
  // An account that sends no handling time must not make the average of the others smaller.
  const timed = fresh.filter((account) => account.summary.last[4] !== null);
  const ofTimed = (place) => timed.reduce((total, account) => total + account.summary.last[place], 0);
  const states = ["failing", "stale", "waiting"]
    .map((state) => [all.filter((account) => account.state === state).length, state])
    .filter(([number]) => number);
  const by = `${count(last(1))} by agent, ${count(last(2))} by consumer, ${count(last(3))} by system`;
  const text = {
    accounts: count(all.length),
    states: states.map(([number, state]) => `${count(number)} ${state}`).join(", ") || "all well",
    total: fresh.length ? count(last(0)) : "-",
    resolvers: fresh.length ? `conversations${fresh.length < all.length ? ` of ${counted(fresh.length, "account", "accounts")}` : ""}: ${by}` : "conversations",
    average: timed.length ? written(ofTimed(0), ofTimed(4)) : "-",
    queue: count(sum((account) => account.pace.waiting)),
    flight: `requests; ${count(sum((account) => account.pace.flight))} in flight`,
    refused: count(sum((account) => account.pace.refused)),
    sent: `of ${counted(sum((account) => account.pace.sent), "request", "requests")} sent`,
  };
  for (const [id, shown] of Object.entries(text)) set(document.getElementById(id), shown);
  showNotes(all.filter((account) => account.failure));
}

function showNotes(failing) {
  const notes = document.getElementById("notes");
  const said = failing.slice(0, NOTES).map((account) => `${clock(account.failedAt, true)} UTC: ${account.failure}`);
  if (failing.length > NOTES) said.push(`And ${counted(failing.length - NOTES, "other account fails", "other accounts fail")}.`);
  if (said.join("\n") === notes.dataset.said) return;
  notes.dataset.said = said.join("\n");
  notes.replaceChildren(
    ...said.map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }),
  );
}

function planAll() {
  if (planned.all || view.id) return;
  planned.all = setTimeout(drawAll, hasDrawn ? REDRAW_ALL : REDRAW_SOON);
}

function together(number) {
  const known = accounts.size || number;
  return number === known ? `All accounts together, ${count(number)}` : `${count(number)} of ${count(known)} accounts together`;
}

async function drawAll() {
  clearTimeout(planned.all);
  planned.all = 0;
  try {
    const response = await fetch("live/all", { cache: "no-store" });
    if (!response.ok) return;
    const all = await response.json();
    hasDrawn = all.accounts > 0;
    if (!hasDrawn) return set(document.getElementById("all-caption"), "All accounts: nothing was seen yet.");
    allChart.show(all.day, all.today, all.before);
    const fresh = [...accounts.values()].filter((account) => account.isFresh);
    const sum = (place) => fresh.reduce((total, account) => total + account.summary.compared[place], 0);
    const common = Math.max(0, ...fresh.map((account) => account.summary.common));
    const said = compared({ common, compared: [sum(0), sum(1)] });
    const shown = `${together(all.accounts)}: resolved in each five minutes of ${day(all.day)}, UTC. ${said}`;
    set(document.getElementById("all-caption"), shown);
  } catch {
    // the connection is lost: the stream says so
  }
}

addEventListener("hashchange", route);
setInterval(show, 5e3); // ages grow, whether anything is heard or not
connect({ heard, lost });
route();
