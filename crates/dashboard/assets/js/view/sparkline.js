// A backend's last minute in one small line. The number beside it says the same in words, so it is hidden from
// screen readers.

import { setAttribute, svg } from '../dom.js';
import { RECENT_KEPT } from '../store.js';

const HEIGHT = 20;

export function sparkline() {
  const area = svg('path', { class: 'spark-area' });
  const line = svg('path', { class: 'spark-line' });
  const node = svg('svg', {
    class: 'spark',
    viewBox: `0 0 ${RECENT_KEPT - 1} ${HEIGHT}`,
    preserveAspectRatio: 'none',
    'aria-hidden': 'true',
    focusable: 'false',
  }, area, line);
  return {
    node,
    show(rates, highest) {
      const { outline, filled } = shape(rates, highest);
      setAttribute(line, 'd', outline);
      setAttribute(area, 'd', filled);
    },
  };
}

/** The newest rate is at the right edge; `highest` is shared by a pool's backends, so that lines can be compared. */
export function shape(rates, highest) {
  if (rates.length < 2) return { outline: '', filled: '' };
  const first = RECENT_KEPT - rates.length;
  const scale = (HEIGHT - 2) / Math.max(highest, 1e-9);
  const points = rates.map((rate, at) => `${first + at} ${(HEIGHT - 1 - rate * scale).toFixed(2)}`);
  const outline = `M${points.join('L')}`;
  return { outline, filled: `${outline}L${RECENT_KEPT - 1} ${HEIGHT}L${first} ${HEIGHT}Z` };
}
