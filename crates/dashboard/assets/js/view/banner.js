// What is missing, why, and what happens next. The headline is announced once, the countdown is not.

import { el, setText } from '../dom.js';
import { ago, clock, until } from '../format.js';
import { icon } from './icons.js';

/** A connection that is back within this is not worth a banner. */
const FLICKER_MS = 1500;
const START_BALANCER = 'cargo run --release --bin loadbalancer';
const START_DASHBOARD = 'cargo run --release --bin dashboard';

export function banner(root) {
  // A live region speaks only if it was there before its text.
  const voice = el('p', { class: 'visually-hidden', role: 'status' });
  const headline = el('strong');
  const cause = el('p', { class: 'cause' });
  const next = el('p', { class: 'next' });
  const command = el('code');
  const hint = el('p', { class: 'hint' }, 'To start it: ', command);
  const body = el('div', {}, headline, cause, next, hint);
  const box = el('div', { class: 'banner', hidden: true }, icon('unplugged'), body);
  root.append(voice, box);
  return {
    /** `problem` is what `problemOf` returns. */
    update(problem) {
      box.hidden = problem === null;
      if (problem === null) {
        if (voice.textContent) setText(voice, 'Live again');
        return;
      }
      setText(voice, problem.headline);
      setText(headline, problem.headline);
      setText(cause, problem.cause);
      setText(next, problem.next);
      hint.hidden = problem.command === null;
      setText(command, problem.command ?? '');
    },
  };
}

/** The one problem that matters most now, or `null`. `now` is in the browser's own time. */
export function problemOf({ link, balancer, status, asOf, now }) {
  const stale = status ? `What you see is from ${clock(asOf)}, ${ago(asOf, now)}.` : '';
  if (!link.open) {
    if (now - link.since < FLICKER_MS) return null;
    return {
      headline: 'This page has lost its dashboard',
      cause: `${location.origin} does not answer. Is the dashboard still running?`,
      next: `Trying again ${until(link.retryAt ?? now, now)}. ${stale}`,
      command: START_DASHBOARD,
    };
  }
  if (!balancer || balancer.reachable) return null;
  if (balancer.error === null) {
    return { headline: 'Connecting to the load balancer', cause: balancer.url, next: stale, command: null };
  }
  return {
    headline: status ? 'The load balancer is not there any more' : 'The load balancer is not there',
    cause: `${balancer.url}: ${balancer.error}`,
    next: `Trying again ${until(balancer.retryAt, now)}. ${stale}`,
    // A load balancer that answers, if only with a refusal, is not started by starting another one.
    command: /refused \(|^cannot resolve/.test(balancer.error) ? START_BALANCER : null,
  };
}
