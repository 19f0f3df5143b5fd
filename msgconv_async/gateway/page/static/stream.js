// The stream of events: kept open, and opened again when it is lost.

const SILENCE = 20e3; // milliseconds: the gateway says something every 15 seconds
const PATIENCE = 10e3;
const WAITS = [1e3, 2e3, 4e3, 8e3, 15e3];

export function connect({ heard, lost }) {
  let source = null;
  let failed = 0;
  let silence = 0;
  let retry = 0;
  let asking = false;

  function open() {
    clearTimeout(retry);
    source?.close();
    source = new EventSource("live/events");
    for (const kind of ["all", "rows", "pace", "beat"]) {
      source.addEventListener(kind, (event) => {
        failed = 0;
        watch();
        heard(kind, JSON.parse(event.data));
      });
    }
    source.onerror = again;
    watch();
  }

  function watch() {
    clearTimeout(silence);
    silence = setTimeout(again, SILENCE);
  }

  function again() {
    source.close();
    clearTimeout(silence);
    const wait = WAITS[Math.min(failed, WAITS.length - 1)];
    failed += 1;
    lost();
    clearTimeout(retry);
    retry = setTimeout(ask, wait);
  }

  // An event source does not tell why it failed: a login that is over leads to the form, and a
  // gateway of another version to its own page.
  async function ask() {
    if (asking) return undefined;
    asking = true;
    try {
      const signal = AbortSignal.timeout(PATIENCE);
      const response = await fetch("live/all", { cache: "no-store", signal });
      const isOther = response.headers.get("Msgconv-Page") !== document.body.dataset.version;
      if (response.status === 403 || (response.ok && isOther)) return location.reload();
      if (response.ok) return open();
    } catch {
      // not there yet
    } finally {
      asking = false;
    }
    return again();
  }

  addEventListener("online", () => failed && ask());
  open();
}
