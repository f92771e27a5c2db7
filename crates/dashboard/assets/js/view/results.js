// The last results of checks: a strip to see the pattern, and a table, newest first, to read each one.

import { el, keyed, setAttribute, setText } from '../dom.js';
import { ago, latency, moment, sentence } from '../format.js';
import { resultsInWords } from '../story.js';
import { classInWords } from '../words.js';
import { icon, setIcon } from './icons.js';
import { strip } from './strip.js';

const COLUMNS = ['Time', 'Result', 'Class', 'Took', 'What was found'];

export function results(root) {
  const summary = el('p', { class: 'sub' });
  const problem = el('p', { class: 'failure', role: 'alert' });
  const picture = strip();
  const rows = el('tbody', { role: 'rowgroup' });
  const headings = COLUMNS.map((column) => el('th', { role: 'columnheader', scope: 'col' }, column));
  const table = el('table', { class: 'results', role: 'table', 'aria-labelledby': 'results-title' },
    el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...headings)), rows);
  // Focusable, or the keyboard could not scroll it.
  const scroll = el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Results of checks, as a table' }, table);
  const empty = el('p', { class: 'empty' }, 'No result yet.');
  root.append(el('h3', { id: 'results-title' }, 'Last checks'), summary, problem, picture.node, legend(), empty, scroll);
  return {
    /** `news` is `{checks, problem}`, or `null` while nothing has been read. */
    update(news, now) {
      setText(problem, news?.problem ? `The checks cannot be read: ${news.problem}` : '');
      const found = news?.checks?.results ?? [];
      setText(summary, news === null ? 'Reading …' : sentence(resultsInWords(found)));
      picture.update(found, now);
      empty.hidden = news === null || found.length > 0;
      scroll.hidden = found.length === 0;
      keyed(rows, numbered(news?.checks, found).reverse(), ({ key }) => key, ({ result }) => row(result, now), (child, { result }) => child.age(result, now));
    },
  };
}

/** Two results may be of one millisecond: the key says which of them, and of whom. */
function numbered(checks, found) {
  const seen = new Map();
  return found.map((result) => {
    const time = `${checks.pool}/${checks.backend}/${result.unix_ms}/${result.source}`;
    const number = (seen.get(time) ?? 0) + 1;
    seen.set(time, number);
    return { key: `${time}/${number}`, result };
  });
}

/** A result never changes; only its age does. */
function row(result, now) {
  const age = el('span', { class: 'age sub' });
  const mark = icon('cross');
  setIcon(mark, result.passed ? 'check' : 'cross');
  const word = el('span', {}, result.passed ? 'Passed' : 'Failed');
  const source = result.source === 'traffic' ? el('span', { class: 'sub' }, 'a client’s request') : null;
  const time = el('time', { datetime: new Date(result.unix_ms).toISOString() }, moment(result.unix_ms, now));
  const cells = [
    [time, ' ', age],
    [el('span', { class: 'check', 'data-tone': result.passed ? 'ok' : 'bad' }, mark, word), source],
    [classInWords(result.class) || '–'],
    [latency(result.took_ms)],
    [sentence(result.words)],
  ];
  const node = el('tr', { role: 'row', 'data-result': result.passed ? 'passed' : 'failed' },
    ...cells.map((children, at) => el('td', { role: 'cell', 'data-label': COLUMNS[at] }, ...children)));
  return {
    node,
    age: (current, present) => setText(age, ago(current.unix_ms, present)),
  };
}

function legend() {
  const entry = (attributes, ...words) => {
    const slot = el('span', { class: 'slot', 'aria-hidden': 'true', ...attributes }, icon('cross'), el('span', { class: 'bar' }));
    return el('span', {}, slot, ...words);
  };
  const node = el('p', { class: 'legend strip-legend' },
    entry({ 'data-result': 'passed', 'data-source': 'check' }, 'passed, taller took longer'),
    entry({ 'data-result': 'failed', 'data-source': 'check' }, 'failed'),
    entry({ 'data-result': 'failed', 'data-source': 'traffic' }, 'a client’s request failed'));
  setAttribute(node, 'aria-hidden', 'true');
  return node;
}
