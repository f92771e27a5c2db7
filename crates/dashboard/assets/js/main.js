// Puts the page together: news come in by the stream, change what is known, and are drawn at most once per frame.

import { changeState } from './actions.js';
import { checkReader } from './checks.js';
import { setAttribute } from './dom.js';
import { applyBackend, applyDelta } from './store.js';
import { follow } from './stream.js';
import { banner, problemOf } from './view/banner.js';
import { charts } from './view/charts.js';
import { confirmation } from './view/confirm.js';
import { detail } from './view/detail.js';
import { events } from './view/events.js';
import { header } from './view/header.js';
import { pools } from './view/pools.js';
import { stage } from './view/stage.js';
import { announcer, toasts } from './view/toasts.js';
import { totals } from './view/totals.js';
import { BACKEND_STATES, lookUp } from './words.js';

const byId = (id) => document.getElementById(id);
const page = document.documentElement;

/** Everything that is known. Times are the browser's; `offsetMs` leads to the load balancer's clock. */
const known = {
  status: null,
  offsetMs: 0,
  receivedAt: null,
  balancer: null,
  link: { open: false, since: Date.now(), retryAt: null },
  paused: false,
  /** The checks of the backend that is looked at, as far as they were read, and of which tick. */
  checks: null,
  checksTick: null,
};

const views = {
  header: header({ identity: byId('identity'), verdict: byId('verdict'), link: byId('link'), pause: byId('pause') },
    { onPause: togglePause }),
  banner: banner(byId('banner')),
  totals: totals(byId('totals')),
  charts: charts(byId('charts')),
  pools: pools(byId('pools'), { onAsk: ask }),
  events: events(byId('events')),
  detail: detail(byId('detail'), { onAsk: ask }),
  toasts: toasts(byId('toasts')),
  announcer: announcer(byId('announcer')),
};
const confirm = confirmation(byId('confirm'), { find, act });
const reader = checkReader(takeChecks);
const onStage = stage(byId('main'), { onMove: move, focusDetail: () => known.status && views.detail.focus() });

const stream = follow('api/stream', {
  onLink(link) {
    known.link = link;
    schedule();
  },
  onEvent(name, payload) {
    if (name === 'balancer') takeBalancer(payload);
    else if (name === 'snapshot') takeStatus(payload);
    else if (name === 'delta') takeDelta(payload);
    schedule();
  },
});

function takeBalancer(balancer) {
  const retryAt = balancer.retry_in_ms === null ? null : Date.now() + balancer.retry_in_ms;
  // The dashboard's clock may differ from this browser's: what counts is how long ago it was.
  const since = Date.now() - (balancer.now_unix_ms - balancer.since_unix_ms);
  known.balancer = { ...balancer, retryAt, since };
}

function takeStatus(status) {
  known.status = status;
  known.offsetMs = status.now_unix_ms - Date.now();
  // A snapshot that the dashboard kept from before the loss is as old as the loss.
  known.receivedAt = known.balancer?.reachable === false ? known.balancer.since : Date.now();
  if (known.balancer?.reachable === false) known.offsetMs = status.now_unix_ms - known.balancer.since;
  views.announcer.update(status);
}

function takeDelta(delta) {
  const next = known.status && applyDelta(known.status, delta);
  if (next) takeStatus(next);
  else stream.reconnect();
}

function takeChecks({ checks, problem }) {
  const first = known.checks === null;
  // What was read before stays to be seen beside what is wrong now.
  known.checks = { checks: checks ?? known.checks?.checks ?? null, problem };
  if (first && known.status) drawPlace();
  schedule();
}

/** Another backend is looked at, or all of them. Shown at once, on a paused page too. */
function move() {
  known.checks = null;
  known.checksTick = null;
  reader.forget();
  if (onStage.place()) reader.want(onStage.place());
  if (known.status) drawPlace();
}

function find(poolName, backendName) {
  const pool = known.status?.pools.find(({ name }) => name === poolName);
  const backend = pool?.backends.find(({ name }) => name === backendName);
  return backend ? { pool, backend } : null;
}

function ask(pool, backend, state) {
  confirm.ask(pool, backend, state);
}

async function act(pool, backend, state) {
  const outcome = await changeState(pool, backend, state);
  if (outcome.ok) {
    known.status = applyBackend(known.status, pool, outcome.backend);
    const { phrase } = lookUp(BACKEND_STATES, outcome.backend.state);
    views.toasts.done(`${backend} ${phrase}`);
    // What one did oneself is shown even on a page that is paused.
    drawPlace();
    schedule();
  }
  return outcome;
}

function togglePause() {
  known.paused = !known.paused;
  views.header.paused(known.paused);
  // From here on what is shown is old news.
  if (known.status) drawPlace();
  schedule();
}

function serverNow() {
  return Date.now() + known.offsetMs;
}

function mode() {
  if (!known.link.open || known.balancer?.reachable === false) return known.status ? 'lost' : 'connecting';
  if (known.paused) return 'paused';
  return known.status ? 'live' : 'connecting';
}

/** What the page suggests to try. Wildcard addresses are no addresses to ask. */
function suggestion(status) {
  const address = status.proxy_address.replace(/^(0\.0\.0\.0|\[::\])(?=:)/, 'localhost');
  return `curl -i http://${address}`;
}

let scheduled = false;
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

function draw() {
  const { status, balancer, link } = known;
  const now = Date.now();
  const current = mode();
  const ageMs = known.receivedAt === null ? null : now - known.receivedAt;
  setAttribute(page, 'data-link', current);
  views.banner.update(problemOf({ link, balancer, status, asOf: known.receivedAt, now }));
  confirm.update();
  if (known.paused && current === 'paused') return;
  views.header.update({ status, url: balancer?.url, mode: current, ageMs, now: serverNow(), subject: subject() });
  if (!status) return;
  drawPlace();
  setAttribute(page, 'data-tick', status.tick);
  setAttribute(page, 'data-ready', 'true');
}

/** All backends, or the one that is looked at. */
function drawPlace() {
  const { status } = known;
  const now = serverNow();
  const live = mode() === 'live';
  const place = onStage.place();
  if (place !== null) {
    readChecks(place);
    views.detail.update({ status, place, found: find(place.pool, place.backend), checks: known.checks, live, now });
    return;
  }
  views.totals.update(status);
  views.pools.update(status, live, now);
  views.charts.update(status, suggestion(status));
  views.events.update(status.events, now);
}

/** Once per tick, and not while nobody answers: what is wrong then is said above. */
function readChecks(place) {
  if (mode() !== 'live' || known.checksTick === known.status.tick || !find(place.pool, place.backend)) return;
  known.checksTick = known.status.tick;
  reader.want(place);
}

/** The one backend that is looked at, in the page's title. */
function subject() {
  const place = onStage.place();
  const found = place && find(place.pool, place.backend);
  return found ? `${found.backend.name} ${lookUp(BACKEND_STATES, found.backend.state).phrase}` : null;
}

// The address is the view's: a link to a place on the page would leave it.
byId('skip').addEventListener('click', (event) => {
  event.preventDefault();
  byId(onStage.place() === null ? 'pools' : 'detail').focus();
});

// Ages and countdowns go on while nothing comes.
setInterval(schedule, 1000);
views.header.paused(false);
schedule();
