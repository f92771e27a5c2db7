// The words and icons for states. A state is always shown by icon and word; its colour only helps.

export const BACKEND_STATES = {
  ready: { word: 'Ready', phrase: 'is ready', icon: 'check', tone: 'ok' },
  draining: { word: 'Draining', phrase: 'is draining', icon: 'drain', tone: 'info' },
  maintenance: { word: 'Maintenance', phrase: 'is in maintenance', icon: 'wrench', tone: 'info' },
  down: { word: 'Down', phrase: 'is down', icon: 'cross', tone: 'bad' },
  ejected: { word: 'Ejected', phrase: 'is ejected for failing requests', icon: 'warning', tone: 'bad' },
  unknown: { word: 'Not checked', phrase: 'waits for its first check', icon: 'question', tone: 'warn' },
};

export const POOL_STATES = {
  ok: { word: 'OK', icon: 'check', tone: 'ok' },
  degraded: { word: 'Degraded', icon: 'warning', tone: 'warn' },
  down: { word: 'Down', icon: 'cross', tone: 'bad' },
  panic: { word: 'Panic', icon: 'warning', tone: 'bad' },
};

/** What an operator can ask for, in the order of the buttons. */
export const ADMIN_STATES = [
  { state: 'ready', verb: 'Ready', icon: 'check', help: 'takes requests when it is healthy' },
  { state: 'drain', verb: 'Drain', icon: 'drain', help: 'no new requests, finishes those in flight, stays checked' },
  { state: 'maintenance', verb: 'Maintenance', icon: 'wrench', help: 'no requests and no checks' },
];

export const EVENT_KINDS = {
  health: { word: 'Health', icon: 'pulse' },
  operator: { word: 'Operator', icon: 'person' },
  discovery: { word: 'Discovery', icon: 'compass' },
  lifecycle: { word: 'Lifecycle', icon: 'power' },
  ejection: { word: 'Ejection', icon: 'unplugged' },
  panic: { word: 'Panic', icon: 'warning' },
  drain: { word: 'Drain', icon: 'drain' },
  overload: { word: 'Overload', icon: 'warning' },
};

/** Why a backend was ejected: a pair of the field in `ejection.total` and what it counts. */
export const EJECTION_CAUSES = [
  ['consecutive_errors', 'for errors in a row'],
  ['success_rate', 'for failing more than its peers'],
  ['failure_percentage', 'for failing nearly always'],
];

/** The class of a failed check: `connection_refused` is `connection refused`. */
export function classInWords(code) {
  return code?.replaceAll('_', ' ') ?? '';
}

/** A word that a newer load balancer may use is shown as it is. */
export function lookUp(table, key) {
  return table[key] ?? { word: key, phrase: `is ${key}`, icon: 'question', tone: 'warn' };
}

/** How far a backend's checks are from changing its health. */
export function streakInWords(health, check) {
  if (check.last_passed === null) return '';
  const { streak, needed } = check;
  if (health === 'down') {
    return check.last_passed ? `${streak} of ${needed} passed to come back` : `${streak} failed in a row, ${needed} must pass`;
  }
  if (health === 'up' && !check.last_passed) return `${streak} of ${needed} failed to go down`;
  return check.last_passed ? `${streak} passed in a row` : `${streak} failed in a row`;
}

/** From this share of errors on, somebody should look now. */
const ALARMING_SHARE = 0.01;

/** The tone of a share of errors; none at all has none. */
export function errorTone(share) {
  if (!share) return null;
  return share < ALARMING_SHARE ? 'warn' : 'bad';
}
