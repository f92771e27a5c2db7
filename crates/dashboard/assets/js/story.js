// The story of one backend in words: whether it takes requests, what comes next, what is under way, and whether it may
// be stopped. Pure: the present is an argument. A fact is `{term, words, note, tone}`.

import { ago, bytes, count, latency, moment, percent, plural, rate, sentence, span, until } from './format.js';
import { EJECTION_CAUSES, classInWords, streakInWords } from './words.js';

const fact = (term, words, note = '', tone = null) => ({ term, words, note, tone });

/** Why it is as it is and what comes next. `checks` is `null` until they have been read. */
export function stateFacts(pool, backend, checks, now) {
  const { check } = backend;
  const since = fact('Since', moment(backend.since_unix_ms, now), `for ${span(now - backend.since_unix_ms)}`);
  return [takesRequests(pool, backend), since, nextCheck(check, now), lastCheck(check, now),
    lastPass(backend, checks, now), checkCounts(check), ejection(backend.ejection, now)];
}

function takesRequests(pool, backend) {
  const { weight, effective_weight: effective } = backend;
  const term = 'New requests';
  if (!backend.in_rotation) return fact(term, 'None');
  if (pool.state === 'panic' && backend.state !== 'ready') {
    return fact(term, 'Some, all the same', 'its pool is in panic and uses all it has', 'warn');
  }
  if (effective < weight) {
    const now = `weight ${Number(effective.toFixed(2))} of ${weight}`;
    return fact(term, `${percent(effective / weight)} of its share`, `slow start: ${now}, more from second to second`, 'warn');
  }
  return fact(term, 'Its whole share', weight === 1 ? '' : `weight ${weight}`);
}

function nextCheck(check, now) {
  const term = 'Next check';
  if (check.next_unix_ms === null) return fact(term, 'Paused', 'not checked while in maintenance');
  if (check.next_unix_ms - now < 500) return fact(term, 'Due now');
  return fact(term, sentence(until(check.next_unix_ms, now)), moment(check.next_unix_ms, now));
}

function lastCheck(check, now) {
  const term = 'Last check';
  if (check.last_unix_ms === null) return fact(term, 'None yet');
  const words = sentence(check.last_result ?? (check.last_passed ? 'passed' : 'failed'));
  return fact(term, words, ago(check.last_unix_ms, now), check.last_passed ? null : 'bad');
}

function lastPass({ health, check }, checks, now) {
  const term = 'Last pass';
  const streak = streakInWords(health, check);
  if (checks === null) return fact(term, '…', streak);
  if (checks.last_passed_unix_ms === null) return fact(term, 'Never', streak);
  return fact(term, sentence(ago(checks.last_passed_unix_ms, now)), streak || moment(checks.last_passed_unix_ms, now));
}

function checkCounts({ passed_total: passed, failed_total: failed }) {
  return fact('Checks so far', `${count(passed)} passed`, `${count(failed)} failed`);
}

function ejection({ until_unix_ms: end, times, total }, now) {
  const term = 'Ejection';
  const causes = EJECTION_CAUSES.filter(([field]) => total[field] > 0)
    .map(([field, why]) => `${count(total[field])} ${why}`).join(', ');
  if (end !== null) return fact(term, `Ends ${until(end, now)}`, `at ${moment(end, now)}; ${causes}`, 'bad');
  if (!causes) return fact(term, 'Never');
  return fact(term, 'Not now', `since the start ${causes}${times > 0 ? '; the next one takes longer' : ''}`);
}

/** What it does for clients. */
export function trafficFacts({ traffic, connect, learned_idle_ms: idle }) {
  const { latency: took } = traffic;
  return [
    fact('Requests', `${rate(traffic.requests_per_s)} /s`, `${count(traffic.requests_total)} in all`),
    fact('Errors', percent(traffic.error_rate), `${count(traffic.failures_total)} broken · ${count(traffic.retries_total)} sent elsewhere`),
    fact('Latency', `p50 ${latency(took?.p50_ms)}`, `p99 ${latency(took?.p99_ms)} · max ${latency(took?.max_ms)}`),
    fact('To connect', latency(connect?.p50_ms), idle === null || idle === undefined ? '' : `closes idle connections after ${latency(idle)}`),
  ];
}

/** What is under way by kind, and for how long: `{kind, number}` and the age in words. */
export function underWay({ in_flight: found }) {
  const kinds = [['Requests', found.requests], ['Streams', found.streams], ['Tunnels', found.tunnels]];
  const none = kinds.every(([, number]) => number === 0);
  let oldest = none ? '–' : 'just begun';
  if (found.oldest_ms !== null) oldest = span(found.oldest_ms);
  return { kinds: kinds.map(([kind, number]) => ({ kind, number })), oldest };
}

/** Whether the backend may be stopped: `{verdict, headline, words, tone, icon, deadline}`. Old news promise nothing. */
export function safetyOf(backend, live, now) {
  const { drain, admin } = backend;
  if (admin === 'ready') return { ...notDrained(backend), deadline: null };
  if (!drain) {
    const words = 'This load balancer is too old to say how far the drain is.';
    return { verdict: 'unknown', headline: 'Safe or not: not known', words, tone: 'warn', icon: 'question', deadline: null };
  }
  const began = `Taken out at ${moment(drain.since_unix_ms, now)}, ${ago(drain.since_unix_ms, now)}.`;
  if (!live) {
    const words = drain.safe_to_stop ? 'It was safe when it was last heard of.' : `${sentence(drain.words)} when it was last heard of.`;
    return { verdict: 'unknown', headline: 'Safe or not: not known', words, tone: 'warn', icon: 'question', deadline: null };
  }
  if (drain.safe_to_stop) {
    const words = `Nothing is under way and nothing more is sent to it, since ${moment(drain.safe_since_unix_ms, now)}. ${began}`;
    return { verdict: 'safe', headline: 'Safe to stop now', words, tone: 'ok', icon: 'check', deadline: null };
  }
  const words = `${sentence(drain.words)}. ${began}`;
  return { verdict: 'wait', headline: 'Not safe to stop yet', words, tone: 'warn', icon: 'drain', deadline: deadlineOf(drain, now) };
}

function notDrained({ in_rotation: used, state }) {
  let words = 'It takes new requests. Drain it before you stop it.';
  if (!used) words = `It is ${state} and takes none now, but may again by itself. Drain it before you stop it.`;
  return { verdict: 'not-drained', headline: 'Not being drained', words, tone: 'info', icon: 'play' };
}

/** `{share, words}`: how much of the time is over, 0 to 1; `null` without a deadline. */
function deadlineOf(drain, now) {
  const { since_unix_ms: since, deadline_unix_ms: deadline, at_deadline: then } = drain;
  if (deadline === null) return { share: null, words: 'No deadline: it is waited for as long as it takes.' };
  const closes = then === 'close';
  if (drain.overdue || now >= deadline) {
    return { share: 1, words: `Its deadline passed at ${moment(deadline, now)}: ${closes ? 'what is left is being closed' : 'what is left is waited for'}.` };
  }
  const share = Math.min(1, Math.max(0, (now - since) / Math.max(1, deadline - since)));
  return { share, words: `Deadline ${until(deadline, now)}, at ${moment(deadline, now)}: ${closes ? 'what is left then is closed' : 'it becomes an event then, and the wait goes on'}.` };
}

/** The backend's surroundings: its pool, the queue before it, and the means of the whole. */
export function poolFacts(status, pool) {
  const serving = pool.backends.filter((backend) => backend.in_rotation).length;
  const tones = { down: 'bad', panic: 'bad', degraded: 'warn' };
  return [
    fact('In rotation', `${serving} of ${pool.backends.length}`, pool.reason, tones[pool.state] ?? null),
    panic(pool),
    queue(pool.queue),
    overload(status.overload),
    retries(status.retries),
  ].filter(Boolean);
}

function panic(pool) {
  if (pool.state !== 'panic') return fact('Panic', 'No');
  return fact('Panic', 'Yes', 'so few are ready that all which take connections are used', 'bad');
}

function queue(found) {
  if (!found) return fact('Queue', 'None', 'requests are not limited');
  const limits = [[found.max_requests, 'in the pool'], [found.max_requests_per_backend, 'at each backend']]
    .filter(([most]) => most !== null).map(([most, where]) => `${count(most)} ${where}`).join(', ');
  const waiting = found.waiting === 0 ? 'Nobody waits' : `${count(found.waiting)} of ${count(found.length)} wait`;
  const longest = found.waiting === 0 ? '' : `the first for ${latency(found.longest_wait_ms)} · `;
  const note = `${longest}at most ${limits} · ${count(found.queued_total)} ever waited, ${count(found.refused_total)} refused`;
  return fact('Queue', waiting, note, found.waiting > 0 ? 'warn' : null);
}

function overload(found) {
  if (!found) return null;
  const level = { calm: 'No', shrink: 'Yes: idle connections are closed', shed: 'Yes: new requests get 503' }[found.level];
  const memory = found.memory_limit_bytes > 0 ? `${bytes(found.memory_used_bytes)} of ${bytes(found.memory_limit_bytes)} memory` : '';
  const descriptors = found.descriptors_limit > 0 ? `${count(found.descriptors_open)} of ${count(found.descriptors_limit)} descriptors` : '';
  const note = [found.reason, memory, descriptors].filter(Boolean).join(' · ');
  return fact('Overload', level ?? found.level, note, found.level === 'calm' ? null : 'bad');
}

const REPEATS = ['connect', 'unsent', 'stale', 'closed', 'try_timeout', 'status'];

function retries(found) {
  if (!found) return null;
  const made = REPEATS.reduce((sum, cause) => sum + found[`${cause}_total`], 0);
  const refused = found.refused_recent_total + found.refused_active_total;
  return fact('Repeats', `${plural(made, 'request')} sent again`, `${count(found.active)} under way · ${count(refused)} not sent again: budget used up`, refused > 0 ? 'warn' : null);
}

/** The results in one sentence, newest first: `the last 12 failed (connection refused), before that 20 passed`. */
export function resultsInWords(results) {
  const runs = [];
  for (const result of results.toReversed()) {
    const what = result.passed ? 'passed' : `failed (${classInWords(result.class)})`;
    if (runs.at(-1)?.what === what) runs.at(-1).number += 1;
    else runs.push({ what, number: 1 });
  }
  if (runs.length === 0) return 'no results yet';
  const newest = ({ what, number }) => (number === 1 ? `the last ${what}` : `the last ${number} ${what}`);
  const said = runs.slice(0, 3).map((run, at) => (at === 0 ? newest(run) : `before that ${run.number} ${run.what}`));
  const older = runs.slice(3).reduce((sum, { number }) => sum + number, 0);
  return said.join(', ') + (older > 0 ? `, and ${older} more` : '');
}
