// The top line: which load balancer this is, how it is, and whether what is shown is live.

import { el, setAttribute, setText } from '../dom.js';
import { ago, plural, span } from '../format.js';
import { badge, icon, setIcon } from './icons.js';

export function header({ identity, verdict, link, pause }, { onPause }) {
  const verdictBadge = badge('large');
  const linkBadge = badge();
  verdict.append(verdictBadge.node);
  link.append(linkBadge.node);
  const pauseIcon = icon('pause');
  const pauseWord = el('span', {}, 'Pause');
  pause.append(pauseIcon, pauseWord);
  pause.addEventListener('click', onPause);
  return {
    /** `view` is `{status, url, mode, ageMs, now, subject}`; `subject` is what else is looked at than the whole. */
    update(view) {
      setText(identity, view.status ? identityOf(view.status, view.now) : view.url ?? '');
      verdict.hidden = !view.status;
      if (view.status) verdictBadge.show(view.mode === 'lost' ? lostVerdict() : verdictOf(view.status));
      linkBadge.show(linkOf(view));
      document.title = titleOf(view);
    },
    paused(paused) {
      setIcon(pauseIcon, paused ? 'play' : 'pause');
      setText(pauseWord, paused ? 'Resume' : 'Pause');
      setAttribute(pause, 'aria-pressed', String(paused));
    },
  };
}

function identityOf(status, now) {
  const up = span(now - status.started_unix_ms);
  return `${status.proxy_address} · version ${status.version} · ${plural(status.workers, 'worker')} · up ${up}`;
}

/** One sentence for the whole: the first thing that is wrong, else how much is right. */
export function verdictOf(status) {
  const backends = status.pools.flatMap((pool) => pool.backends);
  const serving = backends.filter((backend) => backend.in_rotation).length;
  const words = `${serving} of ${plural(backends.length, 'backend')} in rotation`;
  if (status.ready.draining) return { word: 'Shutting down', icon: 'power', tone: 'warn' };
  if (backends.length === 0) return { word: 'No backends', icon: 'warning', tone: 'bad' };
  if (status.pools.some((pool) => pool.state === 'down')) return { word: `Down: ${words}`, icon: 'cross', tone: 'bad' };
  if (status.pools.some((pool) => pool.state === 'panic')) return { word: `Panic: ${words}`, icon: 'warning', tone: 'bad' };
  if (status.pools.some((pool) => pool.state === 'degraded')) {
    return { word: `Degraded: ${words}`, icon: 'warning', tone: 'warn' };
  }
  return { word: words, icon: 'check', tone: 'ok' };
}

function lostVerdict() {
  return { word: 'State not known', icon: 'question', tone: 'warn' };
}

function linkOf({ mode, ageMs, status, now }) {
  if (mode === 'paused') return { word: `Paused ${ago(status?.now_unix_ms ?? now, now)}`, icon: 'pause', tone: 'warn' };
  if (mode === 'live') return { word: 'Live', icon: 'live', tone: 'ok' };
  if (mode === 'connecting') return { word: 'Connecting', icon: 'question', tone: 'warn' };
  return { word: ageMs === null ? 'Not live' : `Not live, ${span(ageMs)} old`, icon: 'unplugged', tone: 'bad' };
}

function titleOf({ status, mode, subject }) {
  if (mode === 'lost') return 'Not live – Load balancer';
  if (!status) return 'Load balancer';
  if (subject) return `${subject} – Load balancer`;
  const verdict = verdictOf(status);
  return verdict.tone === 'ok' ? 'Load balancer' : `${verdict.word} – Load balancer`;
}
