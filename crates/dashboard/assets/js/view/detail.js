// One backend, alone on the page: why it is as it is, since when and what comes next; its last checks; what is under
// way at it and whether it may be stopped; its pool; and what happened to it.

import { el, setAttribute, setText } from '../dom.js';
import { sentence, span } from '../format.js';
import { OVERVIEW } from '../place.js';
import { poolFacts, stateFacts, trafficFacts } from '../story.js';
import { BACKEND_STATES, POOL_STATES, lookUp } from '../words.js';
import { controlCell } from './backend.js';
import { events } from './events.js';
import { factList } from './facts.js';
import { badge, icon } from './icons.js';
import { results } from './results.js';
import { underway } from './underway.js';

/** `onAsk(pool, backend, state)` is called by the buttons. */
export function detail(root, { onAsk }) {
  const missing = missingPart();
  const head = headPart(onAsk);
  const why = whyPart();
  const panel = (name) => el('section', { class: `panel ${name}-panel`, 'aria-labelledby': `${name}-title` });
  const [flight, checks, around, happened] = ['underway', 'results', 'around', 'history'].map(panel);
  const views = { flight: underway(flight), checks: results(checks), around: aroundPart(around) };
  const list = events(happened, {
    title: 'What happened to it',
    id: 'history-title',
    level: 'h3',
    empty: 'Nothing in the list of events: it is short, and older events have left it.',
    subject: false,
  });
  const body = el('div', { class: 'detail-body' }, head.node, why.node, flight, checks, happened, around);
  root.append(el('nav', { class: 'crumbs', 'aria-label': 'Where you are' }, el('a', { href: OVERVIEW }, icon('back'), 'All backends')),
    missing.node, body);

  return {
    /** The focus comes here when somebody asks for this view. */
    focus: () => (body.hidden ? missing : head).heading.focus({ preventScroll: true }),
    /** `view` is `{status, place, found, checks, live, now}`; `found` is `{pool, backend}` or `null`. */
    update({ status, place, found, checks, live, now }) {
      missing.node.hidden = found !== null;
      body.hidden = found === null;
      if (found === null) {
        missing.update(place, status);
        return;
      }
      const { pool, backend } = found;
      head.update(pool, backend, now);
      why.update(pool, backend, checks, now);
      views.flight.update(backend, live, now);
      views.checks.update(checks, now);
      views.around.update(status, pool);
      list.update(eventsOf(status, place), now);
    },
  };
}

/** Its own, and those of its pool as a whole. */
function eventsOf(status, { pool, backend }) {
  return status.events.filter((event) => event.pool === pool && (event.backend === backend || !event.backend));
}

function missingPart() {
  const heading = el('h2', { tabindex: '-1' }, 'No such backend');
  const words = el('p');
  return {
    node: el('div', { class: 'panel missing' }, heading, words),
    heading,
    update(place, status) {
      const pool = status.pools.find(({ name }) => name === place.pool);
      const there = pool ? `pool ${place.pool} has ${pool.backends.map(({ name }) => name).join(', ') || 'no backend'}`
        : `there is ${status.pools.map(({ name }) => `pool ${name}`).join(', ') || 'no pool'}`;
      setText(words, `The load balancer knows no backend ${place.backend} in pool ${place.pool}: ${there}.`);
    },
  };
}

function headPart(onAsk) {
  const heading = el('h2', { id: 'detail-title', tabindex: '-1' });
  const state = badge('large');
  const since = el('span', { class: 'since' });
  const address = el('p', { class: 'sub' });
  const control = controlCell(onAsk);
  const node = el('header', { class: 'detail-head' },
    el('div', { class: 'detail-name' }, el('div', { class: 'line' }, heading, state.node, since), address),
    el('div', { class: 'c-control' }, ...control.nodes));
  return {
    node,
    heading,
    update(pool, backend, now) {
      setText(heading, backend.name);
      state.show(lookUp(BACKEND_STATES, backend.state));
      setText(since, `for ${span(now - backend.since_unix_ms)}`);
      const resolved = backend.resolved === backend.address ? '' : ` (${backend.resolved ?? 'not resolved'})`;
      setText(address, `${backend.address}${resolved} · pool ${pool.name} · ${pool.policy.replaceAll('_', ' ')}`);
      control.update(backend, { pool });
    },
  };
}

function whyPart() {
  const words = el('p', { class: 'explanation' });
  const reasons = factList('Why, since when, and what comes next');
  const traffic = factList('What it does for clients');
  const node = el('section', { class: 'panel why', 'aria-labelledby': 'why-title' },
    el('h3', { id: 'why-title' }, 'Why'), words, reasons.node, traffic.node);
  return {
    node,
    update(pool, backend, news, now) {
      setAttribute(node, 'data-state', backend.state);
      // The load balancer's own words; until they are read, the reason that everybody sees.
      setText(words, `${sentence(news?.checks?.explanation ?? backend.reason)}.`);
      reasons.update(stateFacts(pool, backend, news?.checks ?? null, now));
      traffic.update(trafficFacts(backend));
    },
  };
}

function aroundPart(root) {
  const name = el('span');
  const state = badge();
  const facts = factList('Its pool and the load balancer');
  root.append(el('div', { class: 'line' }, el('h3', { id: 'around-title' }, 'Pool ', name), state.node), facts.node);
  return {
    update(status, pool) {
      setText(name, pool.name);
      state.show(lookUp(POOL_STATES, pool.state));
      facts.update(poolFacts(status, pool));
    },
  };
}
