// What the page knows, and how news changes it. Pure: the same rules as `merge.rs`, which does this for the browsers
// that come later.

export const EVENTS_KEPT = 200;
export const HISTORY_KEPT = 300;
export const RECENT_KEPT = 60;

/** The status after `delta`; the same one when the delta is older; `null` when a tick is missing between them. */
export function applyDelta(status, delta) {
  if (delta.tick <= status.tick) return status;
  const pools = new Map(status.pools.map((pool) => [pool.name, pool]));
  if (delta.tick > status.tick + 1 || delta.pools.some((pool) => !pools.has(pool.name))) return null;
  const changes = new Map(delta.pools.map((change) => [change.name, change]));
  const newest = status.events.at(-1)?.seq ?? 0;
  return {
    ...status,
    tick: delta.tick,
    now_unix_ms: delta.now_unix_ms,
    generation: delta.generation,
    ready: delta.ready,
    connections: delta.connections,
    overload: delta.overload ?? status.overload,
    retries: delta.retries ?? status.retries,
    traffic: delta.traffic,
    history: [...status.history, delta.sample].slice(-HISTORY_KEPT),
    events: [...status.events, ...delta.events.filter((event) => event.seq > newest)].slice(-EVENTS_KEPT),
    pools: status.pools.map((pool) => applyToPool(pool, changes.get(pool.name))),
  };
}

function applyToPool(pool, change) {
  if (!change) return pool;
  const changed = new Map(change.backends.map((backend) => [backend.name, backend]));
  const backends = pool.backends.map((backend) => {
    const next = changed.get(backend.name);
    changed.delete(backend.name);
    const rates = next ? next.recent_requests_per_s : [backend.traffic.requests_per_s];
    const recent = [...backend.recent_requests_per_s, ...rates].slice(-RECENT_KEPT);
    return { ...(next ?? backend), recent_requests_per_s: recent };
  });
  return {
    ...pool,
    state: change.state,
    reason: change.reason,
    traffic: change.traffic,
    queue: change.queue,
    backends: [...backends, ...changed.values()],
  };
}

/** The status with one backend as the load balancer returned it after a change; its sparkline stays. */
export function applyBackend(status, poolName, backend) {
  return {
    ...status,
    pools: status.pools.map((pool) => pool.name !== poolName ? pool : {
      ...pool,
      backends: pool.backends.map((old) => old.name !== backend.name ? old
        : { ...backend, recent_requests_per_s: old.recent_requests_per_s }),
    }),
  };
}
