// One line chart over the last five minutes, drawn by uPlot. Colours come from the style sheet, so that light and
// dark are decided in one place.

/* global uPlot */

import { HISTORY_KEPT } from '../store.js';

const HEIGHT = 148;
/** A hole in the samples wider than this is a hole in the line. */
const GAP_S = 2.5;
/** Between the marks of the time axis; as few as a phone has room for. */
const TIME_STEPS_S = [60, 120, 300];

/**
 * A chart inside `root`. `onPoint(at)` is called with the number of the sample under the pointer, or `null`.
 */
export function lineChart(root, { series, mark, lowestTop, onPoint }) {
  let plot = null;
  let data = [[], ...series.map(() => [])];
  let indexes = [];
  let end = Date.now() / 1000;

  function draw() {
    plot?.destroy();
    plot = null;
    const width = root.clientWidth;
    if (width === 0) return;
    plot = new uPlot(options(width), data, root);
  }

  function options(width) {
    const style = getComputedStyle(root);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: color('--muted'),
      font: `11px ${style.fontFamily}`,
      grid: { stroke: color('--grid'), width: 1 },
      ticks: { show: false },
    };
    return {
      width,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 18, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, sync: { key: 'time' }, points: { size: 6 } },
      scales: {
        x: { time: true, range: () => [end - HISTORY_KEPT, end] },
        y: { range: (_, low, high) => [0, Math.max(lowestTop, (high ?? 0) * 1.15)] },
      },
      axes: [
        { ...axis, size: 24, space: 64, incrs: TIME_STEPS_S, values: (_, ticks) => ticks.map((tick) => minute(tick)) },
        { ...axis, size: 58, space: 26, values: (_, ticks) => ticks.map((tick) => mark(tick)) },
      ],
      series: [{}, ...series.map((line) => ({
        stroke: color(line.color),
        width: 1.75,
        dash: line.dash,
        fill: line.fill ? color(`${line.color}-fill`) : undefined,
        points: { show: false },
        spanGaps: false,
      }))],
      hooks: { setCursor: [(u) => onPoint(u.cursor.idx === null ? null : indexes[u.cursor.idx] ?? null)] },
    };
  }

  new ResizeObserver(() => {
    if (plot && root.clientWidth === plot.width) return;
    draw();
  }).observe(root);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);

  return {
    update(history, nowMs) {
      end = nowMs / 1000;
      ({ data, indexes } = columns(history, series));
      if (plot) plot.setData(data);
      else draw();
    },
  };
}

/** Samples as uPlot wants them, with an empty point inside each hole; `indexes` leads back to the sample. */
export function columns(history, series) {
  const data = [[], ...series.map(() => [])];
  const indexes = [];
  history.forEach((sample, at) => {
    const time = sample.unix_ms / 1000;
    const before = data[0].at(-1);
    if (before !== undefined && time - before > GAP_S) {
      data[0].push(before + 1);
      series.forEach((_, number) => data[number + 1].push(null));
      indexes.push(null);
    }
    data[0].push(time);
    series.forEach(({ field }, number) => data[number + 1].push(sample[field]));
    indexes.push(at);
  });
  return { data, indexes };
}

function minute(unixSeconds) {
  const time = new Date(unixSeconds * 1000);
  const pad = (number) => String(number).padStart(2, '0');
  const seconds = time.getSeconds();
  return `${pad(time.getHours())}:${pad(time.getMinutes())}${seconds ? `:${pad(seconds)}` : ''}`;
}
