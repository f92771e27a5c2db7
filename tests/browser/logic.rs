//! The page's pure modules, run where they belong: in a browser.

use super::{browse, dashboard};

/// Each line is a check; those that fail come back in words.
const FORMATS: &str = r"
    const { rate, percent, latency, span, ago, until, count, plural } = await import('./assets/js/format.js');
    const plain = (text) => text.replaceAll('\u00a0', ' ');
    const failed = [];
    const is = (made, expected) => { if (plain(made) !== expected) failed.push(`${made} is not ${expected}`); };
    is(rate(0), '0'); is(rate(0.04), '0.0'); is(rate(3.14), '3.1'); is(rate(128.4), '128'); is(rate(12345), '12,345'); is(rate(123456), '123.5K');
    is(percent(null), '–'); is(percent(0), '0 %'); is(percent(0.0004), '< 0.1 %'); is(percent(0.015), '1.5 %'); is(percent(0.5), '50 %'); is(percent(1), '100 %');
    is(latency(null), '–'); is(latency(0.42), '0.42 ms'); is(latency(4.2), '4.2 ms'); is(latency(420), '420 ms'); is(latency(4200), '4.2 s');
    is(span(0), '0 s'); is(span(59400), '59 s'); is(span(60000), '1 min'); is(span(3600000), '1 h'); is(span(86400000 * 3), '3 days'); is(span(-5), '0 s');
    is(ago(1000, 1500), 'just now'); is(ago(1000, 6000), '5 s ago'); is(until(6000, 1000), 'in 5 s'); is(until(1000, 6000), 'now');
    is(count(1234), '1,234'); is(count(12345678), '12.3M'); is(plural(1, 'request'), '1 request'); is(plural(2, 'request'), '2 requests');
    return failed;";

const MERGE: &str = r"
    const { applyDelta, applyBackend, HISTORY_KEPT, EVENTS_KEPT, RECENT_KEPT } = await import('./assets/js/store.js');
    const failed = [];
    const check = (what, holds) => { if (!holds) failed.push(what); };
    const backend = (name, rate) => ({ name, traffic: { requests_per_s: rate }, recent_requests_per_s: [rate] });
    const sample = (tick) => ({ unix_ms: tick * 1000 });
    const status = { tick: 1, version: 'v', events: [{ seq: 1 }], history: [sample(1)],
      pools: [{ name: 'p', policy: 'round_robin', backends: [backend('a', 1), backend('b', 2)] }] };
    const delta = (tick, backends, events = []) => ({ tick, events, sample: sample(tick), pools: [{ name: 'p', state: 'degraded', backends }] });
    const next = applyDelta(status, delta(2, [backend('a', 10)], [{ seq: 1 }, { seq: 2 }]));
    check('what is named is replaced', next.tick === 2 && next.version === 'v' && next.pools[0].state === 'degraded' && next.pools[0].policy === 'round_robin');
    check('a changed backend gets its new rate', String(next.pools[0].backends[0].recent_requests_per_s) === '1,10');
    check('an unchanged backend repeats its rate', String(next.pools[0].backends[1].recent_requests_per_s) === '2,2');
    const told = applyDelta({ ...status, retries: { active: 1 } }, { ...delta(2, []), overload: { level: 'shed' }, pools: [{ name: 'p', queue: { waiting: 3 }, backends: [] }] });
    check('overload and the queue follow, and who does not tell has said nothing', told.overload.level === 'shed' && told.pools[0].queue.waiting === 3 && told.retries.active === 1 && applyDelta(status, { ...delta(2, []), retries: { active: 2 } }).retries.active === 2);
    check('events are taken once', next.events.length === 2);
    check('the old status is left alone', status.tick === 1 && status.events.length === 1 && status.pools[0].backends[0].recent_requests_per_s.length === 1);
    check('an old delta changes nothing', applyDelta(next, delta(2, [])) === next);
    check('a missing tick is noticed', applyDelta(next, delta(4, [])) === null);
    check('an unknown pool is noticed', applyDelta(next, { ...delta(3, []), pools: [{ name: 'x', backends: [] }] }) === null);
    check('a new backend is added', applyDelta(next, delta(3, [backend('c', 0)])).pools[0].backends.length === 3);
    let long = next;
    for (let tick = 3; tick < 1000; tick += 1) long = applyDelta(long, delta(tick, [], [{ seq: tick }]));
    check('lists keep their length', long.history.length === HISTORY_KEPT && long.events.length === EVENTS_KEPT && long.pools[0].backends[0].recent_requests_per_s.length === RECENT_KEPT);
    const changed = applyBackend(next, 'p', { name: 'a', state: 'draining', recent_requests_per_s: [] });
    check('an answered change is shown and keeps the sparkline', changed.pools[0].backends[0].state === 'draining' && changed.pools[0].backends[0].recent_requests_per_s.length === 2);
    return failed;";

const EFFECTS: &str = r"
    const { effectOf } = await import('./assets/js/effect.js');
    const failed = [];
    const backend = (name, in_rotation, in_flight = 0) => ({ name, in_rotation, health: 'up', admin: in_rotation ? 'ready' : 'drain', check: {}, traffic: { in_flight } });
    const says = (backends, name, wanted, ...parts) => {
      const { title, lines, warning, confirm } = effectOf({ name: 'p', backends }, backends.find((one) => one.name === name), wanted);
      const text = [title, ...lines, warning, confirm].join(' | ');
      for (const part of parts) if (!text.includes(part)) failed.push(`no '${part}' in: ${text}`);
      return text;
    };
    const three = [backend('a', true, 4), backend('b', true), backend('c', true)];
    if (says(three, 'a', 'drain', 'Drain a?', '2 of 3 stay in rotation', '4 requests in flight').includes('503')) failed.push('a warning for nothing');
    says(three, 'b', 'maintenance', 'Put b in maintenance?', '2 of 3 stay', 'Nothing in flight', 'No health checks');
    const last = [backend('a', true, 1), backend('b', false), backend('c', false)];
    says(last, 'a', 'drain', '0 of 3 stay', '1 request in flight', 'last backend of p', '503', 'Drain anyway');
    says(last, 'b', 'ready', 'Make ready b?', '2 of 3 in rotation');
    says([{ ...backend('a', false), health: 'down', check: { last_result: 'connection refused' } }], 'a', 'ready', 'until its checks pass', 'connection refused');
    says([backend('a', false)], 'a', 'maintenance', '503 already');
    says([{ ...backend('a', false), admin: 'ready', state: 'ejected' }, backend('b', true)], 'a', 'ready', '2 of 2 in rotation', 'Its ejection ends now');
    return failed;";

#[tokio::test]
async fn the_pure_modules_do_what_they_say() {
    let dashboard = dashboard("http://127.0.0.1:1", 0).await;
    let url = format!("{}/", dashboard.field("url"));
    browse("logic", |page| async move {
        page.open(&url, (1280, 800)).await;
        for (what, script) in [("formats", FORMATS), ("merge", MERGE), ("effects", EFFECTS)] {
            assert_eq!(page.run(script).await, serde_json::json!([]), "{what}");
        }
    })
    .await;
}
