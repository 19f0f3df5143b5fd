// Numbers, times and units, as a reader has them. Times are UTC.

const counts = new Intl.NumberFormat("en");
const rates = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const two = (number) => String(number).padStart(2, "0");

export const NOTHING = "";

export function count(value) {
  return value === null || value === undefined ? NOTHING : counts.format(value);
}

export function counted(value, one, many) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

// As the commands write it: 8.4s, 12m 05s, 1h 02m.
export function duration(milliseconds) {
  if (milliseconds === null) return NOTHING;
  const seconds = milliseconds / 1000;
  if (Math.abs(seconds) < 59.95) return `${seconds.toFixed(1)}s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}m ${two(whole % 60)}s` : `${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`;
}

// The average of what was added up; null where there is none.
export function average(total, time) {
  return total && time !== null ? time / total : null;
}

export function written(total, time) {
  return total === 0 ? "-" : duration(average(total, time));
}

export function clock(seconds, precise = false) {
  const at = new Date(seconds * 1000);
  const time = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  return precise ? `${time}:${two(at.getUTCSeconds())}` : time;
}

export function day(number) {
  return new Date(number * 86400e3).toISOString().slice(0, 10);
}

export function ago(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${two(Math.floor((seconds % 3600) / 60))} min`;
}

export function limit(pace) {
  if (pace.by === "rate") return `${rates.format(pace.rate)} a second`;
  if (pace.by === "concurrency") return `${count(pace.concurrency)} at once`;
  return "not met yet";
}

// Fewer five-minute buckets than an hour has are chance, and no change.
export const ENOUGH = 12;

export function change([now, before], common) {
  if (common < ENOUGH || !before) return NOTHING;
  const percent = Math.round((now / before - 1) * 100);
  return `${percent > 0 ? "+" : percent < 0 ? "−" : "±"}${Math.abs(percent)} %`;
}

export function skillName(id, names = {}) {
  return id === "-1" && !names[id] ? "-1 (unassigned)" : named(id, names);
}

export function named(id, names = {}) {
  return names[id] ? `${id} ${names[id]}` : id;
}
