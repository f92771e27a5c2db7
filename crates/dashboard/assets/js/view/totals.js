// The cards at the top: everything together, in six numbers.

import { el, setAttribute, setText } from '../dom.js';
import { count, latency, percent, plural, rate, UNKNOWN } from '../format.js';
import { errorTone } from '../words.js';

const CLASSES = [
  ['2xx', 'ok'],
  ['3xx', 'info'],
  ['4xx', 'warn'],
  ['5xx', 'bad'],
];

export function totals(root) {
  const cards = {
    requests: card('Requests', '/s'),
    errors: card('Errors', ''),
    p50: card('Latency p50', ''),
    p99: card('Latency p99', ''),
    inFlight: card('In flight', ''),
    answers: card('Answers', ''),
  };
  const mix = statusMix();
  cards.answers.node.insertBefore(mix.node, cards.answers.note);
  root.append(...Object.values(cards).map(({ node }) => node));
  return {
    update(status) {
      const { traffic, connections } = status;
      cards.requests.show(rate(traffic.requests_per_s), `${count(traffic.requests_total)} since start`);
      cards.errors.show(percent(traffic.error_rate), errorNote(traffic), errorTone(traffic.error_rate));
      cards.p50.show(latency(traffic.latency?.p50_ms), `p90 ${latency(traffic.latency?.p90_ms)}`);
      cards.p99.show(latency(traffic.latency?.p99_ms), `max ${latency(traffic.latency?.max_ms)}`);
      cards.inFlight.show(count(traffic.in_flight), `${plural(connections.open, 'connection')} open`);
      const answered = Object.values(traffic.responses).reduce((sum, number) => sum + number, 0);
      cards.answers.show(answered === 0 ? UNKNOWN : count(answered), answersNote(traffic));
      mix.show(traffic.responses, answered);
    },
  };
}

function errorNote(traffic) {
  return `${rate(traffic.errors_per_s)} /s · ${count(traffic.retries_total)} retried`;
}

function answersNote(traffic) {
  return `${count(traffic.responses['5xx'])} × 5xx · ${count(traffic.made_here_total)} made here`;
}

function card(title, unit) {
  const value = el('span', { class: 'value' }, UNKNOWN);
  const note = el('p', { class: 'note' });
  const shown = el('p', { class: 'figure' }, value, unit ? el('span', { class: 'unit' }, ` ${unit}`) : null);
  const node = el('article', { class: 'panel card', 'aria-label': title }, el('h2', {}, title), shown, note);
  return {
    node,
    note,
    show(text, noteText, tone = null) {
      setText(value, text);
      setText(note, noteText);
      setAttribute(value, 'data-tone', tone);
    },
  };
}

/** A bar of the answers' status classes, with the same in words for who cannot tell the colours apart. */
function statusMix() {
  const parts = CLASSES.map(([name, tone]) => ({ name, node: el('span', { 'data-tone': tone }) }));
  const node = el('div', { class: 'mix', role: 'img' }, ...parts.map((part) => part.node));
  return {
    node,
    show(responses, answered) {
      for (const part of parts) {
        part.node.hidden = responses[part.name] === 0;
        part.node.style.flexGrow = String(responses[part.name]);
      }
      const words = parts.filter((part) => responses[part.name] > 0)
        .map((part) => `${part.name} ${percent(responses[part.name] / answered)}`);
      const label = words.length ? words.join(', ') : 'no answers yet';
      setAttribute(node, 'aria-label', label);
      setAttribute(node, 'title', label);
    },
  };
}
