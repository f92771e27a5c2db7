// Numbers and times as words. Pure: the present is an argument.

/** Not known, such as a latency without requests. */
export const UNKNOWN = '–';

const SPACE = '\u00a0';
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const mark = new Intl.NumberFormat('en', { maximumFractionDigits: 2 });
const clockTime = new Intl.DateTimeFormat('en', { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

const day = new Intl.DateTimeFormat('en', { year: 'numeric', month: 'short', day: 'numeric' });
const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function count(number) {
  return number >= 1e6 ? compact.format(number) : whole.format(number);
}

/** Per second, without the unit. */
export function rate(perSecond) {
  if (perSecond === 0) return '0';
  if (perSecond < 100) return oneDigit.format(perSecond);
  return perSecond < 1e5 ? whole.format(perSecond) : compact.format(perSecond);
}

/** A share from 0 to 1. What is not zero never reads as zero. */
export function percent(share) {
  if (share === null || share === undefined) return UNKNOWN;
  if (share === 0) return `0${SPACE}%`;
  const percents = share * 100;
  if (percents < 0.1) return `<${SPACE}0.1${SPACE}%`;
  return `${percents < 10 ? oneDigit.format(percents) : whole.format(percents)}${SPACE}%`;
}

/** A duration that was measured. */
export function latency(ms) {
  if (ms === null || ms === undefined) return UNKNOWN;
  if (ms === 0) return `0${SPACE}ms`;
  if (ms < 1) return `${ms.toFixed(2)}${SPACE}ms`;
  if (ms < 10) return `${oneDigit.format(ms)}${SPACE}ms`;
  if (ms < 1000) return `${whole.format(ms)}${SPACE}ms`;
  return `${oneDigit.format(ms / 1000)}${SPACE}s`;
}

/** The same for the marks of an axis, which are round numbers. */
export function rateMark(perSecond) {
  return compact.format(perSecond);
}

export function latencyMark(ms) {
  if (ms === 0) return '0';
  return ms < 1000 ? `${mark.format(ms)}${SPACE}ms` : `${mark.format(ms / 1000)}${SPACE}s`;
}

/** How long something lasts or is ago, in its largest whole unit. */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds}${SPACE}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}${SPACE}min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)}${SPACE}h`;
  return `${Math.floor(seconds / 86400)}${SPACE}days`;
}

export function ago(thenMs, nowMs) {
  const ms = nowMs - thenMs;
  return ms < 1000 ? 'just now' : `${span(ms)} ago`;
}

export function until(thenMs, nowMs) {
  const ms = thenMs - nowMs;
  return ms < 500 ? 'now' : `in ${span(ms)}`;
}

export function clock(unixMs) {
  return clockTime.format(new Date(unixMs));
}

/** The same with its day, when that is not today. */
export function moment(unixMs, nowMs) {
  const [then, today] = [unixMs, nowMs].map((ms) => day.format(new Date(ms)));
  return then === today ? clock(unixMs) : `${then}, ${clock(unixMs)}`;
}

export function bytes(number) {
  const step = Math.min(BYTE_UNITS.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, number)) / 10)));
  const scaled = number / 1024 ** step;
  return `${scaled < 10 && step > 0 ? oneDigit.format(scaled) : whole.format(scaled)}${SPACE}${BYTE_UNITS[step]}`;
}

/** Starts as a sentence does. */
export function sentence(words) {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
