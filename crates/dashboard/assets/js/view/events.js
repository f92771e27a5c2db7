// What happened lately, newest first.

import { el, keyed, setText } from '../dom.js';
import { ago, clock } from '../format.js';
import { EVENT_KINDS, lookUp } from '../words.js';
import { icon } from './icons.js';

/** What fits beside the rest; the others are one click away. */
const SHOWN = 8;

export function events(root) {
  let all = false;
  let latest = null;
  const list = el('ol', { class: 'event-list' });
  const empty = el('p', { class: 'empty' }, 'Nothing has happened since the load balancer started.');
  const more = el('button', { class: 'button', type: 'button', 'aria-expanded': 'false', onclick: toggle });
  root.append(el('h2', { id: 'events-title' }, 'What happened lately'), empty, list, more);

  function toggle() {
    all = !all;
    more.setAttribute('aria-expanded', String(all));
    if (latest) update(...latest);
  }

  function update(status, now) {
    latest = [status, now];
    const newestFirst = status.events.toReversed();
    empty.hidden = newestFirst.length > 0;
    more.hidden = newestFirst.length <= SHOWN;
    setText(more, all ? 'Show fewer' : `Show all ${newestFirst.length}`);
    keyed(list, all ? newestFirst : newestFirst.slice(0, SHOWN), (event) => event.seq, entry, (child, event) => {
      setText(child.age, ago(event.unix_ms, now));
    });
  }

  return { update };
}

function entry(event) {
  const kind = lookUp(EVENT_KINDS, event.kind);
  const subject = [event.pool, event.backend].filter(Boolean).join(' / ');
  const age = el('span', { class: 'age' });
  const time = el('time', { datetime: new Date(event.unix_ms).toISOString() }, clock(event.unix_ms));
  const node = el('li', {},
    el('span', { class: 'when' }, time, age),
    el('span', { class: 'kind' }, icon(kind.icon), kind.word),
    el('span', { class: 'what' }, subject ? el('b', {}, subject) : null, subject ? ' ' : null, event.message));
  return { node, age };
}
