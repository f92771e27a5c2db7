// What is under way at a backend, by kind and for how long; and whether it may be stopped.

import { el, keyed, setAttribute, setText } from '../dom.js';
import { count } from '../format.js';
import { safetyOf, underWay } from '../story.js';
import { icon, setIcon } from './icons.js';

export function underway(root) {
  const kinds = el('dl', { class: 'kinds' });
  const safety = safetyBox();
  root.append(el('h3', { id: 'underway-title' }, 'Under way'), kinds, safety.node);
  return {
    /** `live` is whether `backend` is as it is now. */
    update(backend, live, now) {
      const { kinds: found, oldest } = underWay(backend);
      const shown = [...found.map(({ kind, number }) => ({ kind, words: count(number) })), { kind: 'Oldest', words: oldest }];
      keyed(kinds, shown, ({ kind }) => kind, ({ kind }) => number(kind), (child, { words }) => setText(child.value, words));
      safety.update(backend, live, now);
    },
  };
}

function number(kind) {
  const value = el('dd', { class: 'value' });
  return { node: el('div', { 'data-kind': kind }, el('dt', {}, kind), value), value };
}

function safetyBox() {
  const mark = icon('question');
  const headline = el('strong');
  const words = el('p', {});
  const bar = el('progress', { max: '1', 'aria-label': 'Time until the deadline of the drain that is over' });
  const deadline = el('p', { class: 'sub' });
  const command = el('code');
  const hint = el('p', { class: 'sub' }, 'A script can wait for it: ', command);
  const node = el('div', { class: 'safety' }, mark, el('div', {}, headline, words, bar, deadline, hint));
  return {
    node,
    update(backend, live, now) {
      const safety = safetyOf(backend, live, now);
      setAttribute(node, 'data-verdict', safety.verdict);
      setAttribute(node, 'data-tone', safety.tone);
      setIcon(mark, safety.icon);
      setText(headline, safety.headline);
      setText(words, safety.words);
      const share = safety.deadline?.share ?? null;
      bar.hidden = share === null;
      if (share !== null) bar.value = share;
      deadline.hidden = safety.deadline === null;
      setText(deadline, safety.deadline?.words ?? '');
      hint.hidden = safety.verdict !== 'wait';
      setText(command, `loadbalancer wait-drained --backend ${backend.name}`);
    },
  };
}
