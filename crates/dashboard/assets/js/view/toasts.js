// Short words about what was just done, and a quiet voice for screen readers about what changed by itself.

import { el, setText } from '../dom.js';
import { BACKEND_STATES, lookUp } from '../words.js';
import { icon } from './icons.js';

const SHOWN_MS = 6000;
/** State changes within this are said together. */
const GATHER_MS = 2000;
const SAID_AT_ONCE = 3;

export function toasts(root) {
  return {
    done(text) {
      const node = el('p', { class: 'toast', 'data-tone': 'ok' }, icon('check'), el('span', {}, text));
      root.append(node);
      setTimeout(() => node.remove(), SHOWN_MS);
    },
  };
}

export function announcer(root) {
  let known = null;
  let waiting = [];
  let timer = null;

  function say() {
    timer = null;
    const more = waiting.length - SAID_AT_ONCE;
    const said = waiting.slice(0, SAID_AT_ONCE).join('. ');
    setText(root, more > 0 ? `${said}. And ${more} more changes.` : said);
    waiting = [];
  }

  return {
    update(status) {
      const states = new Map(status.pools.flatMap((pool) =>
        pool.backends.map((backend) => [`${pool.name}/${backend.name}`, backend])));
      for (const [key, backend] of states) {
        const before = known?.get(key);
        if (!before) continue;
        if (before.state !== backend.state) {
          waiting.push(`${backend.name} ${lookUp(BACKEND_STATES, backend.state).phrase}: ${backend.reason}`);
        }
        const [was, is] = [before, backend].map(({ drain }) => drain?.safe_to_stop ?? false);
        if (!was && is) waiting.push(`${backend.name} is safe to stop now`);
        if (was && !is && backend.drain) waiting.push(`${backend.name} is no longer safe to stop`);
      }
      known = states;
      if (waiting.length && timer === null) timer = setTimeout(say, GATHER_MS);
    },
  };
}
