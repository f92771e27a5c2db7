// The last results as a strip, oldest at the left: a bar for each that passed, as tall as it took time, a crossed field
// for each that failed. The table beside it says the same, so the strip is one picture to screen readers.

import { el, keyed, setAttribute, setText } from '../dom.js';
import { ago, clock, latency } from '../format.js';
import { resultsInWords } from '../story.js';
import { classInWords } from '../words.js';
import { icon } from './icons.js';

/** As many as the load balancer keeps (`RESULTS_KEPT`); fewer leave the left side empty. */
export const RESULTS_SHOWN = 32;
/** Of the height: a result of no time at all is still to be seen. */
const LOWEST = 0.14;

export function strip() {
  const slots = el('div', { class: 'slots', role: 'img' });
  const from = el('span');
  const scale = el('span');
  const node = el('div', { class: 'strip' }, slots, el('p', { class: 'sub strip-ends' }, from, scale, el('span', {}, 'newest')));
  return {
    node,
    update(results, now) {
      const tallest = Math.max(0, ...results.filter(({ passed }) => passed).map(({ took_ms: took }) => took ?? 0));
      const places = [...Array(Math.max(0, RESULTS_SHOWN - results.length)).fill(null), ...results];
      keyed(slots, places.map((result, at) => ({ result, at })), ({ at }) => at, slot,
        (child, { result }) => child.update(result, tallest));
      setAttribute(slots, 'aria-label', `Results of checks, newest first: ${resultsInWords(results)}`);
      setText(from, results.length > 0 ? ago(results[0].unix_ms, now) : '');
      setText(scale, tallest > 0 ? `tallest bar ${latency(tallest)}` : '');
    },
  };
}

function slot() {
  const bar = el('span', { class: 'bar' });
  const node = el('span', { class: 'slot' }, icon('cross'), bar);
  return {
    node,
    update(result, tallest) {
      setAttribute(node, 'data-result', result === null ? null : result.passed ? 'passed' : 'failed');
      setAttribute(node, 'data-source', result?.source ?? null);
      setAttribute(node, 'title', result && title(result));
      // By the root, so that one slow check does not make all others look like none.
      const share = result?.passed && tallest > 0 ? Math.max(LOWEST, Math.sqrt((result.took_ms ?? 0) / tallest)) : LOWEST;
      bar.style.blockSize = `${(share * 100).toFixed(1)}%`;
    },
  };
}

function title(result) {
  const what = result.passed ? 'passed' : `failed, ${classInWords(result.class)}`;
  return `${clock(result.unix_ms)} ${what}: ${result.words}`;
}
