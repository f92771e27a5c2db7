// The page's own stream from its dashboard: opened, watched for silence, opened again.
//
// `EventSource` reconnects by itself, but neither notices a connection that died silently (a laptop that slept) nor
// says when it will try again; so each one is used once.

/** Three times the server's heartbeat (`HEARTBEAT` in `stream.rs`): one may be late, two may not be missing. */
const SILENCE_MS = 3600;
const OPEN_TIMEOUT_MS = 5000;
const RETRY_MS = [500, 1000, 2000, 3000];
const EVENTS = ['balancer', 'snapshot', 'delta', 'heartbeat'];

/**
 * Follows `url` until the page goes away.
 *
 * `onEvent(name, payload)` is called for every event, `onLink({open, since, retryAt})` when the connection comes or
 * goes, times in ms of `Date.now()`.
 */
export function follow(url, { onEvent, onLink }) {
  let source = null;
  let timer = null;
  let failures = 0;
  let since = Date.now();

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  function lose() {
    close();
    const pause = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)];
    if (failures === 0) since = Date.now();
    failures += 1;
    timer = setTimeout(connect, pause);
    onLink({ open: false, since, retryAt: Date.now() + pause });
  }

  function watch(limitMs) {
    clearTimeout(timer);
    timer = setTimeout(lose, limitMs);
  }

  function connect() {
    close();
    source = new EventSource(url);
    watch(OPEN_TIMEOUT_MS);
    source.onerror = lose;
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => {
        watch(SILENCE_MS);
        if (failures !== 0 || name === 'balancer') {
          failures = 0;
          onLink({ open: true, since: Date.now(), retryAt: null });
        }
        onEvent(name, JSON.parse(event.data));
      });
    }
  }

  // A browser has six connections per host for all its tabs: a tab that nobody sees gives its one back, and is
  // brought up to date by the first event when it is looked at again.
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) close();
    else connect();
  });
  // Back from the history cache, or from a network that was gone.
  window.addEventListener('pageshow', (event) => event.persisted && connect());
  window.addEventListener('online', connect);

  if (!document.hidden) connect();
  return { reconnect: connect };
}
