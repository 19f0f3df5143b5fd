// What is known of the accounts, and how good or bad that is.

import { ENOUGH, average } from "./format.js";

// Seconds. A bucket is asked for within five minutes after it closed, and the next one closes by then.
const STALE = 660;
const RANKS = { failing: 3, stale: 2, waiting: 1, ok: 0 };

export const accounts = new Map();

// The service's time is the gateway's. It is carried on by the clock that went further: the one
// that nobody sets may stand still while a computer sleeps.
const learnt = { time: 0, steady: 0, set: 0 };
export function learnTime(time) {
  Object.assign(learnt, { time, steady: performance.now(), set: Date.now() });
}
export function now() {
  return learnt.time + Math.max(performance.now() - learnt.steady, Date.now() - learnt.set) / 1000;
}

export class Account {
  constructor(id) {
    this.id = id;
    this.name = "";
    this.summary = null;
    this.failure = "";
    this.failedAt = 0;
    this.gap = "";
    this.pace = { by: null, rate: 0, concurrency: 0, waiting: 0, flight: 0, refused: 0, sent: 0 };
  }

  take(row) {
    this.name = row.name;
    this.summary = row.summary;
    this.failure = row.failure;
    this.failedAt = row.failed_at;
    this.gap = row.gap;
  }

  takePace([by, rate, concurrency, waiting, flight, refused, sent]) {
    this.pace = { by, rate, concurrency, waiting, flight, refused, sent };
  }

  get age() {
    return this.summary ? now() - this.summary.end : null;
  }

  get state() {
    if (this.failure) return "failing";
    if (!this.summary) return "waiting";
    return this.age > STALE ? "stale" : "ok";
  }

  get isFresh() {
    return this.summary !== null && this.age <= STALE;
  }

  // Null when the newest figures are not of today, UTC.
  get today() {
    const isToday = this.summary && Math.floor((this.summary.end - 1) / 86400) === Math.floor(now() / 86400);
    return isToday ? this.summary.today : null;
  }

  get average() {
    return this.summary ? average(this.summary.last[0], this.summary.last[4]) : null;
  }

  get change() {
    const { common, compared } = this.summary ?? { common: 0 };
    return common >= ENOUGH && compared[1] ? compared[0] / compared[1] : null;
  }

  get limit() {
    if (this.pace.by === null) return null;
    return this.pace.by === "rate" ? this.pace.rate : this.pace.concurrency;
  }

  // The worse, the greater, place by place.
  get badness() {
    return [RANKS[this.state], this.pace.waiting, this.pace.refused, this.average ?? -1];
  }
}

// What the gateway serves no longer, after it was started anew.
export function forgetOthers(rows) {
  const served = new Set(rows.map((row) => row.id));
  for (const id of accounts.keys()) if (!served.has(id)) accounts.delete(id);
}

export function take(message) {
  learnTime(message.now);
  const changed = new Set();
  for (const row of message.rows ?? []) {
    if (!accounts.has(row.id)) accounts.set(row.id, new Account(row.id));
    accounts.get(row.id).take(row);
    changed.add(row.id);
  }
  for (const [id, pace] of Object.entries(message.pace ?? {})) accounts.get(id)?.takePace(pace);
  return changed;
}
