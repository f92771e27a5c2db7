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

const PLACES: &str = r"
    const { placeOf, addressOf, OVERVIEW } = await import('./assets/js/place.js');
    const { moment, bytes, sentence } = await import('./assets/js/format.js');
    const failed = [];
    const check = (what, holds) => { if (!holds) failed.push(what); };
    for (const [pool, backend] of [['default', 'alpha'], ['a/b', '../x?y#z'], ['p', '[::1]:80 é %2F']]) {
      const address = addressOf(pool, backend);
      const back = placeOf(address);
      check(`${address} is there and back`, back?.pool === pool && back?.backend === backend && !/[\s<>]/.test(address));
    }
    for (const none of ['', '#', OVERVIEW, '#pools', '#/pools/a', '#/pools/a/backends/', '#/pools/a/backends/b/c', '#/pools/%E9/backends/b']) {
      check(`${none} is the overview`, placeOf(none) === null);
    }
    const noon = new Date(2026, 4, 5, 12, 0, 7).getTime();
    check('a time of today is a time', moment(noon, noon + 3600e3) === '12:00:07');
    check('one of another day says which', moment(noon, noon + 86400e3) === 'May 5, 2026, 12:00:07');
    const plain = (text) => text.replaceAll('\u00a0', ' ');
    check('bytes', plain([0, 1023, 1024, 1536, 20 * 1024 ** 2, 3 * 1024 ** 3].map(bytes).join()) === '0 B,1,023 B,1.0 KiB,1.5 KiB,20 MiB,3.0 GiB');
    check('a sentence', sentence('down for') === 'Down for' && sentence('') === '');
    return failed;";

const STORIES: &str = r"
    const { safetyOf, stateFacts, underWay, poolFacts, resultsInWords } = await import('./assets/js/story.js');
    const failed = [];
    const plain = (text) => text.replaceAll('\u00a0', ' ');
    const is = (what, made, expected) => { if (plain(String(made)) !== expected) failed.push(`${what}: '${made}' is not '${expected}'`); };
    const has = (what, made, ...parts) => { for (const part of parts) if (!plain(String(made)).includes(part)) failed.push(`${what}: no '${part}' in '${made}'`); };
    const now = new Date(2026, 4, 5, 12, 0, 0).getTime();
    const check = { last_unix_ms: now - 2000, last_passed: true, last_result: 'connected', streak: 3, needed: 3, next_unix_ms: now + 3000, passed_total: 3, failed_total: 0 };
    const ejection = { until_unix_ms: null, times: 0, total: { consecutive_errors: 0, success_rate: 0, failure_percentage: 0 } };
    const ready = { name: 'a', state: 'ready', admin: 'ready', health: 'up', in_rotation: true, weight: 2, effective_weight: 2, since_unix_ms: now - 60000, check, ejection };
    const told = (backend, pool = { state: 'ok' }, checks = null) => Object.fromEntries(stateFacts(pool, { ...ready, ...backend }, checks, now).map((fact) => [fact.term, `${fact.words}|${fact.note}`]));
    is('all of it', told({})['New requests'], 'Its whole share|weight 2');
    has('a part of it', told({ effective_weight: 0.5 })['New requests'], '25 % of its share', 'slow start', 'weight 0.5 of 2');
    is('none', told({ in_rotation: false })['New requests'], 'None|');
    has('in panic', told({ state: 'down' }, { state: 'panic' })['New requests'], 'all the same', 'panic');
    is('next check', told({})['Next check'], 'In 3 s|12:00:03');
    has('paused checks', told({ check: { ...check, next_unix_ms: null } })['Next check'], 'Paused', 'maintenance');
    is('a check that is late', told({ check: { ...check, next_unix_ms: now - 9000 } })['Next check'], 'Due now|');
    has('never passed', told({}, undefined, { last_passed_unix_ms: null })['Last pass'], 'Never');
    has('an ejection', told({ ejection: { until_unix_ms: now + 10000, times: 2, total: { ...ejection.total, consecutive_errors: 2 } } })['Ejection'], 'Ends in 10 s', '2 for errors in a row');
    is('no ejection', told({})['Ejection'], 'Never|');

    const drain = { since_unix_ms: now - 30000, safe_to_stop: false, safe_since_unix_ms: null, deadline_unix_ms: now + 90000, overdue: false, at_deadline: 'wait', words: '1 tunnel in flight' };
    const safety = (drain, live = true, admin = 'drain') => safetyOf({ ...ready, admin, drain }, live, now);
    is('waiting', safety(drain).verdict, 'wait');
    has('waiting', safety(drain).words, '1 tunnel in flight', '30 s ago');
    is('a quarter is over', safety(drain).deadline.share, '0.25');
    has('the deadline', safety(drain).deadline.words, 'in 1 min', 'the wait goes on');
    has('that closes', safety({ ...drain, at_deadline: 'close' }).deadline.words, 'is closed');
    has('past it', safety({ ...drain, overdue: true, deadline_unix_ms: now - 1000 }).deadline.words, 'passed');
    has('without one', safety({ ...drain, deadline_unix_ms: null }).deadline.words, 'No deadline');
    const done = { ...drain, safe_to_stop: true, safe_since_unix_ms: now - 5000 };
    is('safe', safety(done).headline, 'Safe to stop now');
    is('safe in maintenance', safety(done, true, 'maintenance').verdict, 'safe');
    is('old news promise nothing', safety(done, false).verdict, 'unknown');
    is('not drained', safety(null, true, 'ready').verdict, 'not-drained');
    is('a load balancer of before', safety(null).verdict, 'unknown');

    is('kinds', JSON.stringify(underWay({ in_flight: { requests: 2, streams: 0, tunnels: 1, oldest_ms: 61000 } })), '{`kinds`:[{`kind`:`Requests`,`number`:2},{`kind`:`Streams`,`number`:0},{`kind`:`Tunnels`,`number`:1}],`oldest`:`1 min`}'.replaceAll('`', String.fromCharCode(34)));
    is('nothing', underWay({ in_flight: { requests: 0, streams: 0, tunnels: 0, oldest_ms: null } }).oldest, '–');
    is('too young to have an age', underWay({ in_flight: { requests: 1, streams: 0, tunnels: 0, oldest_ms: null } }).oldest, 'just begun');

    const around = (status, pool) => poolFacts(status, { state: 'panic', reason: 'r', backends: [ready], ...pool }).map((fact) => `${fact.term} ${fact.words} ${fact.note}`).join('; ');
    const queue = { max_requests: 200, max_requests_per_backend: null, waiting: 3, length: 1024, longest_wait_ms: 40, queued_total: 9, refused_total: 2 };
    const overload = { level: 'shed', reason: 'memory at 96 %', memory_used_bytes: 1024, memory_limit_bytes: 2048, descriptors_open: 5, descriptors_limit: 0 };
    has('its pool', around({ overload }, { queue }), '1 of 1 r', 'Panic Yes', '3 of 1,024 wait', 'first for 40 ms', 'at most 200 in the pool', '2 refused', 'new requests get 503', 'memory at 96 %', '1.0 KiB of 2.0 KiB');
    has('nothing limited', around({}, { queue: null }), 'requests are not limited');

    const result = (passed, code = null) => ({ passed, class: code });
    is('results', resultsInWords([result(true), result(true), result(false, 'wrong_status')]), 'the last failed (wrong status), before that 2 passed');
    is('two', resultsInWords([result(true), result(true)]), 'the last 2 passed');
    is('none', resultsInWords([]), 'no results yet');
    is('many runs', resultsInWords([true, false, true, false, true].map((passed) => result(passed, 'reset'))), 'the last passed, before that 1 failed (reset), before that 1 passed, and 2 more');
    return failed;";

#[tokio::test]
async fn the_pure_modules_do_what_they_say() {
    let dashboard = dashboard("http://127.0.0.1:1", 0).await;
    let url = format!("{}/", dashboard.field("url"));
    browse("logic", |page| async move {
        page.open(&url, (1280, 800)).await;
        for (what, script) in
            [("formats", FORMATS), ("merge", MERGE), ("effects", EFFECTS), ("places", PLACES), ("stories", STORIES)]
        {
            assert_eq!(page.run(script).await, serde_json::json!([]), "{what}");
        }
    })
    .await;
}
