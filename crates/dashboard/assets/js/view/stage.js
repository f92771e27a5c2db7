// Which of the two views is on: all backends, or the one that the address names. Going there and back moves the focus
// and keeps the place on the page, as a person expects of two pages.

import { setAttribute } from '../dom.js';
import { addressOf, placeOf } from '../place.js';

/**
 * `main` says in `data-view` which one is on; the style sheet hides the other. `onMove` is called after each move, and
 * draws; `focusDetail` is where the focus goes with it.
 */
export function stage(main, { onMove, focusDetail }) {
  let place = placeOf(location.hash);
  let overviewScroll = 0;
  show();
  window.addEventListener('hashchange', move);

  function show() {
    setAttribute(main, 'data-view', place === null ? 'overview' : 'detail');
  }

  function move() {
    const before = place;
    place = placeOf(location.hash);
    if (before === null) overviewScroll = scrollY;
    show();
    onMove();
    if (place !== null) {
      scrollTo(0, 0);
      focusDetail();
    } else if (before !== null) {
      scrollTo(0, overviewScroll);
      linkTo(before)?.focus({ preventScroll: true });
    }
  }

  function linkTo({ pool, backend }) {
    const address = addressOf(pool, backend);
    return [...main.querySelectorAll('.backends a.name')].find((link) => link.getAttribute('href') === address);
  }

  return {
    /** `{pool, backend}`, the same object until the next move, or `null` for all backends. */
    place: () => place,
  };
}
