// What happened lately, newest first.

import { el, keyed, setText } from '../dom.js';
import { ago, clock } from '../format.js';
import { addressOf } from '../place.js';
import { EVENT_KINDS, lookUp } from '../words.js';
import { icon } from './icons.js';

/** What fits beside the rest; the others are one click away. */
const SHOWN = 8;

const ALL = {
  title: 'What happened lately',
  id: 'events-title',
  level: 'h2',
  empty: 'Nothing has happened since the load balancer started.',
  subject: true,
};

/** `subject` is whether each entry says whom it is about. */
export function events(root, { title, id, level, empty: nothing, subject } = ALL) {
  let all = false;
  let latest = null;
  const list = el('ol', { class: 'event-list' });
  const empty = el('p', { class: 'empty' }, nothing);
  const more = el('button', { class: 'button', type: 'button', 'aria-expanded': 'false', onclick: toggle });
  root.append(el(level, { id }, title), empty, list, more);

  function toggle() {
    all = !all;
    more.setAttribute('aria-expanded', String(all));
    if (latest) update(...latest);
  }

  /** Oldest first, as they come. */
  function update(happened, now) {
    latest = [happened, now];
    const newestFirst = happened.toReversed();
    empty.hidden = newestFirst.length > 0;
    more.hidden = newestFirst.length <= SHOWN;
    setText(more, all ? 'Show fewer' : `Show all ${newestFirst.length}`);
    keyed(list, all ? newestFirst : newestFirst.slice(0, SHOWN), (event) => event.seq, (event) => entry(event, subject), (child, event) => {
      setText(child.age, ago(event.unix_ms, now));
    });
  }

  return { update };
}

function entry(event, withSubject) {
  const kind = lookUp(EVENT_KINDS, event.kind);
  const subject = withSubject ? subjectOf(event) : null;
  const age = el('span', { class: 'age' });
  const time = el('time', { datetime: new Date(event.unix_ms).toISOString() }, clock(event.unix_ms));
  const node = el('li', {},
    el('span', { class: 'when' }, time, age),
    el('span', { class: 'kind' }, icon(kind.icon), kind.word),
    el('span', { class: 'what' }, subject, subject ? ' ' : null, event.message));
  return { node, age };
}

/** A backend leads to its own view; a pool is on this page. */
function subjectOf({ pool, backend }) {
  const words = [pool, backend].filter(Boolean).join(' / ');
  if (pool && backend) return el('a', { href: addressOf(pool, backend) }, words);
  return words ? el('b', {}, words) : null;
}
