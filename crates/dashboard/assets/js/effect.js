// What a state change will do, said before it is done. Pure.

import { plural } from './format.js';

const VERBS = { ready: 'Make ready', drain: 'Drain', maintenance: 'Put in maintenance' };

/** `{title, lines, warning, confirm}` for asking `pool`'s `backend` to become `wanted`. */
export function effectOf(pool, backend, wanted) {
  const others = pool.backends.filter((other) => other.name !== backend.name && other.in_rotation).length;
  const all = pool.backends.length;
  const lines = wanted === 'ready' ? returning(backend, others, all) : leaving(backend, wanted, others, all);
  const warning = warningOf(pool, backend, wanted, others);
  const verb = VERBS[wanted];
  return {
    title: wanted === 'maintenance' ? `Put ${backend.name} in maintenance?` : `${verb} ${backend.name}?`,
    lines,
    warning,
    confirm: warning ? `${verb} anyway` : verb,
  };
}

function leaving(backend, wanted, others, all) {
  const stay = `${others} of ${all} ${others === 1 ? 'stays' : 'stay'} in rotation`;
  const inFlight = backend.traffic.in_flight;
  const flight = inFlight === 0 ? 'Nothing in flight' : `${plural(inFlight, 'request')} in flight, allowed to finish`;
  const checks = wanted === 'drain' ? 'Its health stays checked' : 'No health checks until it is made ready again';
  return [stay, flight, checks];
}

function returning(backend, others, all) {
  if (backend.health === 'down') {
    return [`${others} of ${all} in rotation until its checks pass`, `Its last check: ${backend.check.last_result ?? 'none yet'}`];
  }
  if (backend.state === 'ejected') {
    return [`${others + 1} of ${all} in rotation`, 'Its ejection ends now, whatever it was ejected for'];
  }
  if (backend.admin === 'maintenance' || backend.health === 'unknown') {
    return ['Its first check decides', `If it passes, ${others + 1} of ${all} are in rotation`];
  }
  return [`${others + 1} of ${all} in rotation`, 'It takes new requests at once'];
}

function warningOf(pool, backend, wanted, others) {
  if (wanted === 'ready' || others > 0) return null;
  if (!backend.in_rotation) return `No backend of ${pool.name} is in rotation: its clients get 503 already.`;
  return `${backend.name} is the last backend of ${pool.name} in rotation: its clients will get 503 until another one is ready.`;
}
