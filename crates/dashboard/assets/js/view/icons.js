// Small line icons, drawn on a 16 × 16 grid. Always beside a word, so they are hidden from screen readers.

import { svg } from '../dom.js';

const PATHS = {
  check: 'M3.5 8.5l3 3 6-7',
  cross: 'M4 4l8 8M12 4l-8 8',
  drain: 'M8 2.5v7M5 7l3 3 3-3M3 13.5h10',
  wrench: 'M10.2 3.2a3 3 0 0 0-3.6 3.9L3 10.8 5.2 13l3.7-3.6a3 3 0 0 0 3.9-3.6l-1.9 1.8-1.9-.6-.6-1.9z',
  question: 'M5.8 6.2a2.2 2.2 0 1 1 3.3 1.9c-.8.4-1.1.9-1.1 1.7M8 12.4v.1',
  warning: 'M8 2.8L14 13.2H2zM8 6.8v3M8 11.6v.1',
  pulse: 'M1.8 8.5h3l1.7-4.5 3 8 1.7-3.5h3',
  person: 'M8 7.6a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5M3.2 13.6c.5-2.6 2.4-3.9 4.8-3.9s4.3 1.3 4.8 3.9',
  compass: 'M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12M10.4 5.6L9 9 5.6 10.4 7 7z',
  power: 'M8 2.5v5M4.6 4.6a4.8 4.8 0 1 0 6.8 0',
  back: 'M10 3.5L5.5 8l4.5 4.5',
  pause: 'M5.5 3.5v9M10.5 3.5v9',
  play: 'M5 3.5v9l7-4.5z',
  live: 'M8 10.2a2.2 2.2 0 1 0 0-4.4 2.2 2.2 0 0 0 0 4.4M3.8 12.2a6 6 0 0 1 0-8.4M12.2 3.8a6 6 0 0 1 0 8.4',
  unplugged: 'M2.5 13.5l3-3M10.5 5.5l3-3M6 7.5l2.5 2.5-1 1a1.8 1.8 0 0 1-2.5-2.5zM8.5 5.5l2 2 .8-.9a1.5 1.5 0 0 0-2-2z',
};

export function icon(name) {
  const path = svg('path', { d: PATHS[name] });
  path.iconName = name;
  return svg('svg', { class: 'icon', viewBox: '0 0 16 16', 'aria-hidden': 'true', focusable: 'false' }, path);
}

/** Turns an icon into another one. */
export function setIcon(node, name) {
  const path = node.firstChild;
  if (path.iconName === name) return;
  path.iconName = name;
  path.setAttribute('d', PATHS[name]);
}

/** Icon and word in the colour of its tone. */
export function badge(extraClass = '') {
  const mark = icon('question');
  const word = document.createElement('span');
  const node = document.createElement('span');
  node.className = `badge ${extraClass}`;
  node.append(mark, word);
  return {
    node,
    show({ word: text, icon: name, tone }) {
      setIcon(mark, name);
      if (word.textContent !== text) word.textContent = text;
      if (node.dataset.tone !== tone) node.dataset.tone = tone;
    },
  };
}
