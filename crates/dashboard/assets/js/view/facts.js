// A list of facts: what is asked, the answer, and what else there is to say of it.

import { el, keyed, setAttribute, setText } from '../dom.js';

/** `update` takes facts as `story.js` makes them. */
export function factList(label) {
  const node = el('dl', { class: 'facts', 'aria-label': label });
  return {
    node,
    update(facts) {
      keyed(node, facts, ({ term }) => term, ({ term }) => entry(term), (child, fact) => child.update(fact));
    },
  };
}

function entry(term) {
  const value = el('span', { class: 'value' });
  const note = el('span', { class: 'sub' });
  const node = el('div', { 'data-fact': term }, el('dt', {}, term), el('dd', {}, value, note));
  return {
    node,
    update(fact) {
      setText(value, fact.words);
      setAttribute(value, 'data-tone', fact.tone);
      setText(note, fact.note);
    },
  };
}
