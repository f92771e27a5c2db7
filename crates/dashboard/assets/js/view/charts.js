// The last five minutes: requests and errors per second, and latency; each with the same as a table.

import { el, setAttribute, setText } from '../dom.js';
import { clock, latency, latencyMark, rate, rateMark } from '../format.js';
import { HISTORY_KEPT } from '../store.js';
import { lineChart } from './chart.js';

/** A row for each of the last samples would be 300; every tenth tells the same story. */
const TABLE_STEP = 10;

const CHARTS = [
  {
    title: 'Requests and errors per second',
    format: rate,
    mark: rateMark,
    lowestTop: 5,
    series: [
      { name: 'Requests', field: 'requests_per_s', color: '--series-requests', fill: true },
      { name: 'Errors', field: 'errors_per_s', color: '--series-errors', dash: [4, 3] },
    ],
  },
  {
    title: 'Latency',
    format: latency,
    mark: latencyMark,
    lowestTop: 1,
    series: [
      { name: 'p50', field: 'p50_ms', color: '--series-p50', dash: [4, 3] },
      { name: 'p99', field: 'p99_ms', color: '--series-p99' },
    ],
  },
];

export function charts(root) {
  const panels = CHARTS.map((definition) => chartPanel(definition));
  root.append(...panels.map(({ node }) => node));
  return {
    update(status, suggestion) {
      for (const panel of panels) panel.update(status, suggestion);
    },
  };
}

function chartPanel({ title, format, mark, lowestTop, series }) {
  const legend = el('p', { class: 'legend' });
  const values = series.map(({ name, color, dash }) => {
    const value = el('b', { class: 'value' });
    const swatch = el('span', { class: 'swatch', 'data-series': color.slice('--series-'.length), 'data-dashed': Boolean(dash) });
    legend.append(el('span', {}, swatch, `${name} `, value));
    return value;
  });
  const canvas = el('div', { class: 'canvas', role: 'img' });
  const quiet = el('p', { class: 'quiet', hidden: true }, 'No requests in the last five minutes. Try: ', el('code'));
  const rows = el('tbody');
  const headings = ['Time', ...series.map(({ name }) => name)].map((name) => el('th', { scope: 'col' }, name));
  const details = el('details', { ontoggle: () => latest && fillTable(latest) },
    el('summary', {}, 'Show as table'),
    el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `${title}, as a table` },
      el('table', { class: 'plain' }, el('caption', { class: 'visually-hidden' }, `${title}, every ten seconds, newest first`),
        el('thead', {}, el('tr', {}, ...headings)), rows)));
  const node = el('figure', { class: 'panel chart' },
    el('figcaption', {}, el('h2', {}, title), legend), el('div', { class: 'plot' }, canvas, quiet), details);
  const chart = lineChart(canvas, { series, mark, lowestTop, onPoint: (at) => showValues(at) });
  let latest = null;
  let pointed = null;

  function showValues(at) {
    pointed = at;
    const sample = latest?.history[at ?? latest.history.length - 1];
    series.forEach(({ field }, number) => setText(values[number], sample ? format(sample[field]) : format(null)));
  }

  function fillTable({ history }) {
    if (!details.open) return;
    const samples = history.toReversed().filter((_, at) => at % TABLE_STEP === 0);
    rows.replaceChildren(...samples.map((sample) => el('tr', {},
      el('th', { scope: 'row' }, clock(sample.unix_ms)), ...series.map(({ field }) => el('td', {}, format(sample[field]))))));
  }

  return {
    node,
    update(status, suggestion) {
      latest = status;
      const { history } = status;
      chart.update(history, status.now_unix_ms);
      showValues(pointed !== null && pointed < history.length ? pointed : null);
      setAttribute(canvas, 'aria-label', summary(title, series, history, format));
      quiet.hidden = history.some((sample) => sample.requests_per_s > 0);
      setText(quiet.lastChild, suggestion);
      // Once in a table step is enough, and leaves a screen reader time to read it.
      if (rows.childElementCount === 0 || status.tick % TABLE_STEP === 0) fillTable(status);
    },
  };
}

/** What a person would say who looks at the chart. */
export function summary(title, series, history, format) {
  const parts = series.map(({ name, field }) => {
    const known = history.map((sample) => sample[field]).filter((value) => value !== null);
    if (known.length === 0) return `${name} not known`;
    return `${name} now ${format(history.at(-1)[field])}, highest ${format(Math.max(...known))}`;
  });
  return `${title}, last ${Math.round(HISTORY_KEPT / 60)} minutes: ${parts.join('; ')}`;
}
