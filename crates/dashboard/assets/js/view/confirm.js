// Asks before a state change, with its effect as things stand now, and stays until it is known to have worked.

import { el, keyed, setAttribute, setText } from '../dom.js';
import { effectOf } from '../effect.js';
import { icon } from './icons.js';

/**
 * `find(pool, backend)` gives `{pool, backend}` as they are now, or `null`; `act(pool, backend, state)` does it and
 * resolves to `{ok, message}`.
 */
export function confirmation(dialog, { find, act }) {
  let asked = null;
  let busy = false;
  const title = el('h2', { id: 'confirm-title' });
  const lines = el('ul', { class: 'effect' });
  const warningText = el('span');
  const warning = el('p', { class: 'warning', id: 'confirm-warning' }, icon('warning'), warningText);
  const failure = el('p', { class: 'failure', role: 'alert' });
  const cancel = el('button', { class: 'button', type: 'button', onclick: () => dialog.close() }, 'Cancel');
  const confirm = el('button', { class: 'button primary', type: 'button', onclick: send });
  dialog.append(title, lines, warning, failure, el('div', { class: 'choices' }, cancel, confirm));
  dialog.addEventListener('close', () => { asked = null; });

  function show() {
    const found = asked && find(asked.pool, asked.backend);
    if (!found) return;
    const effect = effectOf(found.pool, found.backend, asked.state);
    setText(title, effect.title);
    keyed(lines, effect.lines.map((text, at) => ({ text, at })), ({ at }) => at,
      () => ({ node: el('li') }), (child, { text }) => setText(child.node, text));
    warning.hidden = effect.warning === null;
    setText(warningText, effect.warning ?? '');
    setAttribute(dialog, 'aria-describedby', effect.warning ? 'confirm-warning' : null);
    setAttribute(confirm, 'data-tone', effect.warning ? 'bad' : null);
    setText(confirm, busy ? 'Asking the load balancer …' : effect.confirm);
    setAttribute(confirm, 'aria-disabled', busy ? 'true' : null);
  }

  async function send() {
    if (busy || !asked) return;
    const { pool, backend, state } = asked;
    busy = true;
    setText(failure, '');
    show();
    const outcome = await act(pool, backend, state);
    busy = false;
    if (outcome.ok) dialog.close();
    else setText(failure, `Not done: ${outcome.message}`);
    show();
  }

  return {
    ask(pool, backend, state) {
      asked = { pool, backend, state };
      setText(failure, '');
      show();
      dialog.showModal();
      // Enter right after opening must not take out the last backend.
      (warning.hidden ? confirm : cancel).focus();
    },
    update: show,
  };
}
