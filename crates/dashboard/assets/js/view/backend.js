// One backend: what it does, in which state it is and why, and the buttons that change that.

import { el, setAttribute, setText } from '../dom.js';
import { ago, count, latency, percent, plural, rate, span, until } from '../format.js';
import { addressOf } from '../place.js';
import { ADMIN_STATES, BACKEND_STATES, errorTone, lookUp, streakInWords } from '../words.js';
import { badge, icon, setIcon } from './icons.js';
import { sparkline } from './sparkline.js';

export function backendRow(columns, onAsk) {
  const cells = [nameCell(), stateCell(), checkCell(), requestsCell(), errorsCell(), latencyCell(), flightCell(), controlCell(onAsk)];
  const node = el('tr', { role: 'row' });
  cells.forEach((cell, at) => {
    const attributes = at === 0 ? { role: 'rowheader', scope: 'row' } : { role: 'cell' };
    node.append(el(at === 0 ? 'th' : 'td', { ...attributes, class: cell.name, 'data-label': columns[at] }, ...cell.nodes));
  });
  return {
    node,
    update(pool, backend, { highest, live, now }) {
      setAttribute(node, 'data-backend', backend.name);
      setAttribute(node, 'data-state', backend.state);
      for (const cell of cells) cell.update(backend, { pool, highest, live, now });
    },
  };
}

function nameCell() {
  const name = el('a', { class: 'name' });
  const address = el('span', { class: 'sub' });
  return {
    name: 'c-name',
    nodes: [name, address],
    update(backend, { pool }) {
      setText(name, backend.name);
      setAttribute(name, 'href', addressOf(pool.name, backend.name));
      setAttribute(name, 'title', `${backend.name}: why, its last checks, and what is under way`);
      const weight = weightOf(backend);
      setText(address, backend.name === backend.address ? weight.slice(3) : backend.address + weight);
      const resolved = backend.resolved ?? 'not resolved';
      setAttribute(address, 'title', resolved === backend.address ? null : `resolved: ${resolved}`);
    },
  };
}

/** The weight where it tells something: when it is not 1, or is not what it should be for a while. */
function weightOf({ weight, effective_weight: now, in_rotation: used }) {
  if (used && now < weight) return ` · weight ${Number(now.toFixed(1))} of ${weight}`;
  return weight === 1 ? '' : ` · weight ${weight}`;
}

function stateCell() {
  const state = badge();
  const since = el('span', { class: 'since' });
  const reason = el('span', { class: 'sub reason' });
  const safeWord = el('span');
  const safeIcon = icon('drain');
  const safe = el('span', { class: 'safe' }, safeIcon, safeWord);
  return {
    name: 'c-state',
    nodes: [el('span', { class: 'line' }, state.node, since), reason, safe],
    update(backend, { live, now }) {
      state.show(lookUp(BACKEND_STATES, backend.state));
      setText(since, `for ${span(now - backend.since_unix_ms)}`);
      setText(reason, backend.reason);
      const left = backend.traffic.in_flight;
      // A load balancer of before knows only the count.
      const done = backend.drain?.safe_to_stop ?? left === 0;
      const words = backend.drain?.words ?? `${plural(left, 'request')} in flight left`;
      safe.hidden = backend.admin === 'ready';
      // Old news promise nothing: it may have been made ready since.
      setAttribute(safe, 'data-tone', done && live ? 'ok' : 'warn');
      setIcon(safeIcon, live ? (done ? 'check' : 'drain') : 'question');
      setText(safeWord, done ? (live ? 'Safe to stop now' : 'Safe to stop when last heard of') : words);
    },
  };
}

function checkCell() {
  const mark = icon('question');
  const result = el('span');
  const line = el('span', { class: 'check' }, mark, result);
  const when = el('span', { class: 'sub' });
  const streak = el('span', { class: 'sub' });
  return {
    name: 'c-check',
    nodes: [line, when, streak],
    update({ check, health }, { now }) {
      const passed = check.last_passed;
      setIcon(mark, passed === null ? 'question' : passed ? 'check' : 'cross');
      setAttribute(line, 'data-tone', passed === null ? null : passed ? 'ok' : 'bad');
      setText(result, check.last_result ?? 'not checked yet');
      const next = check.next_unix_ms === null ? 'checks paused' : `next ${until(check.next_unix_ms, now)}`;
      setText(when, check.last_unix_ms === null ? next : `${ago(check.last_unix_ms, now)} · ${next}`);
      setText(streak, streakInWords(health, check));
    },
  };
}

function requestsCell() {
  const value = el('span', { class: 'value' });
  const total = el('span', { class: 'sub' });
  const line = sparkline();
  return {
    name: 'c-requests',
    nodes: [el('span', { class: 'line' }, el('span', {}, value, el('span', { class: 'unit' }, ' /s')), line.node), total],
    update({ traffic, recent_requests_per_s: recent }, { highest }) {
      setText(value, rate(traffic.requests_per_s));
      setText(total, `${count(traffic.requests_total)} in all`);
      line.show(recent, highest);
    },
  };
}

function errorsCell() {
  const value = el('span', { class: 'value' });
  const broken = el('span', { class: 'sub' });
  return {
    name: 'c-errors',
    nodes: [value, broken],
    update({ traffic }) {
      setText(value, percent(traffic.error_rate));
      setAttribute(value, 'data-tone', errorTone(traffic.error_rate));
      setText(broken, `${count(traffic.failures_total)} broken`);
      setAttribute(broken, 'title', 'attempts that broke (connect, send, answer); most were repeated on another backend');
    },
  };
}

function latencyCell() {
  const p50 = el('span', { class: 'value' });
  const p99 = el('span', { class: 'value' });
  return {
    name: 'c-latency',
    nodes: [el('span', { class: 'pair' }, el('abbr', { title: 'half of the requests took at most' }, 'p50'), p50),
      el('span', { class: 'pair' }, el('abbr', { title: '99 of 100 requests took at most' }, 'p99'), p99)],
    update({ traffic }) {
      setText(p50, latency(traffic.latency?.p50_ms));
      setText(p99, latency(traffic.latency?.p99_ms));
    },
  };
}

function flightCell() {
  const value = el('span', { class: 'value' });
  return {
    name: 'c-flight',
    nodes: [value],
    update: ({ traffic }) => setText(value, count(traffic.in_flight)),
  };
}

/** The three states that an operator can ask for, as buttons. */
export function controlCell(onAsk) {
  let shown = null;
  const group = el('div', { class: 'segments', role: 'group' });
  const buttons = ADMIN_STATES.map(({ state, verb, icon: name, help }) => {
    // An ejected backend is asked to be ready once more: that ends its ejection.
    const changes = () => shown.admin !== state || (state === 'ready' && shown.state === 'ejected');
    const ask = () => changes() && onAsk(shown.pool, shown.backend, state);
    const button = el('button', { type: 'button', title: `${verb}: ${help}`, 'data-action': state, onclick: ask },
      icon(name), el('span', {}, verb));
    group.append(button);
    return { state, button };
  });
  return {
    name: 'c-control',
    nodes: [group],
    update(backend, { pool }) {
      shown = { pool: pool.name, backend: backend.name, admin: backend.admin, state: backend.state };
      setAttribute(group, 'aria-label', `State of ${backend.name}`);
      for (const { state, button } of buttons) setAttribute(button, 'aria-pressed', String(backend.admin === state));
    },
  };
}
