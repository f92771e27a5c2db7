// One panel per pool: its state and why, and the table of its backends.

import { el, keyed, setText } from '../dom.js';
import { POOL_STATES, lookUp } from '../words.js';
import { backendRow } from './backend.js';
import { badge } from './icons.js';

/** Column headings; the same words label each value where the table becomes cards. */
export const COLUMNS = ['Backend', 'State', 'Last check', 'Requests', 'Errors', 'Latency', 'In flight', 'Change state'];

/** `onAsk(pool, backend, state)` is called by the buttons. */
export function pools(root, { onAsk }) {
  return {
    /** `live` is whether this is how things are now. */
    update(status, live, now) {
      keyed(root, status.pools, (pool) => pool.name, () => panel(onAsk), (child, pool) => child.update(pool, live, now));
    },
  };
}

function panel(onAsk) {
  const name = el('span');
  const policy = el('span', { class: 'policy' });
  const reason = el('span', { class: 'reason' });
  const state = badge();
  const heading = el('h2', {}, 'Pool ', name);
  const rows = el('tbody', { role: 'rowgroup' });
  const empty = el('p', { class: 'empty' }, 'No backends in this pool. Give the load balancer some: ',
    el('code', {}, 'loadbalancer --backend 127.0.0.1:8081'));
  const headings = COLUMNS.map((column) => el('th', { role: 'columnheader', scope: 'col' }, column));
  const table = el('table', { class: 'backends', role: 'table' },
    el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...headings)), rows);
  const node = el('section', { class: 'panel pool' },
    el('header', { class: 'pool-head' }, heading, state.node, reason, policy), empty, table);
  return {
    node,
    update(pool, live, now) {
      setText(name, pool.name);
      setText(policy, pool.policy.replaceAll('_', ' '));
      setText(reason, pool.reason);
      state.show(lookUp(POOL_STATES, pool.state));
      table.setAttribute('aria-label', `Backends of pool ${pool.name}`);
      empty.hidden = pool.backends.length > 0;
      table.hidden = !empty.hidden;
      const highest = Math.max(1, ...pool.backends.flatMap((backend) => backend.recent_requests_per_s));
      keyed(rows, pool.backends, (backend) => backend.name, () => backendRow(COLUMNS, onAsk),
        (row, backend) => row.update(pool, backend, { highest, live, now }));
    },
  };
}
