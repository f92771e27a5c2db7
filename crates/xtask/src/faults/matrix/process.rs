//! Faults of what the proxy's process lives in: descriptors, memory, the clock.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use super::super::rig::{Rig, Wishes};
use super::super::surroundings::{MemoryLimit, faketime};
use super::super::trial::Trial;
use crate::Error;
use crate::bench::http;
use crate::bench::proc::{cpu_time, resident_bytes};

/// Few enough to be used up at once, and enough for 64 clients with a server's connection each.
const DESCRIPTORS: usize = 256;

/// A connection that the kernel does not take within this finds no room in the line.
const KEPT_OUT_AFTER: Duration = Duration::from_millis(300);

/// The proxy waits while it has none; a busy loop would take all of a core.
const MOST_CPU_SHARE: f64 = 0.2;

/// For CPU time to be counted, in steps of 10 ms. With what comes before it, less than the half second after which the
/// balancer, short of descriptors, takes a client for idle: those make room, and a request that crosses such a close is lost.
const CPU_WINDOW: Duration = Duration::from_millis(300);

/// For what is under way to end, before CPU time is counted.
const SETTLED: Duration = Duration::from_millis(100);

/// What a small container gets; the proxies here need some 10 to 30 MiB.
const MEMORY: u64 = 80 << 20;

/// Heads that are never finished, each almost as long as a head may be: together far more than that.
const HELD_HEADS: usize = 4500;
const HELD_BYTES: usize = 30 << 10;

pub(super) fn no_descriptors(trial: &mut Trial<'_>) -> Result<(), Error> {
    let wrapper = vec!["prlimit".to_owned(), format!("--nofile={DESCRIPTORS}")];
    let (mut share, mut flooded) = (0.0, 0);
    let told = trial.under_load(Wishes { wrapper, ..Wishes::default() }, |trial, rig, load| {
        // They connect, by the kernel's grace, and most of them are never accepted. Whose line of those that wait is
        // shorter than the flood has the rest of it kept out by the kernel, which is as good.
        let address = SocketAddr::from(([127, 0, 0, 1], rig.proxy.port));
        let open = |_| TcpStream::connect_timeout(&address, KEPT_OUT_AFTER).ok();
        let flood: Vec<TcpStream> = (0..2 * DESCRIPTORS).map_while(open).collect();
        flooded = flood.len();
        sleep(trial.fault_time());
        load.pause(true);
        sleep(SETTLED);
        let before = cpu_time(rig.proxy.pid())?;
        sleep(CPU_WINDOW);
        share = cpu_time(rig.proxy.pid())?.total_us_since(before) / CPU_WINDOW.as_micros() as f64;
        load.pause(false);
        if trial.is_ours() {
            let answers = super::super::admin::get(rig.proxy.admin_port, "/livez").is_some();
            trial.report.demand(answers, || "the admin API has no descriptor left".to_owned());
        }
        drop(flood);
        Ok(())
    })?;
    trial.report.demand(share < MOST_CPU_SHARE, || format!("{:.0} % of a core while it waits", share * 100.0));
    trial.report.note(format!("{:.0} % of a core while {flooded} more connections wait", share * 100.0));
    trial.demand_felt(flooded >= DESCRIPTORS);
    trial.demand_none_failed(&told.asked, true);
    trial.demand_alive(&told.rig);
    Ok(())
}

pub(super) fn memory(trial: &mut Trial<'_>) -> Result<(), Error> {
    let limit = match MemoryLimit::new(MEMORY) {
        Ok(limit) => limit,
        Err(reason) => {
            trial.not_here(reason);
            return Ok(());
        }
    };
    let resident = |rig: &Rig| if rig.proxy.lives() { resident_bytes(rig.proxy.pid()) } else { Ok(0) };
    let mut figures = [0; 3];
    let mut count = 0;
    let told = trial.under_load(Wishes { wrapper: limit.wrapper(), ..Wishes::default() }, |trial, rig, _| {
        figures[0] = resident(rig)?;
        let head = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; HELD_BYTES]].concat();
        let mut held = vec![];
        while held.len() < HELD_HEADS && rig.proxy.lives() {
            let Ok(mut stream) = http::connect(rig.proxy.port) else { break };
            let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
            // Whoever is shed is not held.
            if stream.write_all(&head).is_err() {
                break;
            }
            held.push(stream);
        }
        sleep(trial.fault_time());
        figures[1] = resident(rig)?;
        count = held.len();
        drop(held);
        sleep(trial.fault_time());
        figures[2] = resident(rig)?;
        Ok(())
    })?;
    trial.demand_alive(&told.rig);
    trial.report.demand(figures[1] <= MEMORY, || format!("{} bytes resident under a limit of {MEMORY}", figures[1]));
    let [before, during, after] = figures.map(|bytes| bytes as f64 / (1u64 << 20) as f64);
    trial.report.note(format!(
        "resident {before:.1} MiB before, {during:.1} with {count} unfinished heads, {after:.1} after, of {}",
        MEMORY >> 20
    ));
    Ok(())
}

pub(super) fn clock(trial: &mut Trial<'_>) -> Result<(), Error> {
    let library = match faketime() {
        Ok(library) => library,
        Err(reason) => {
            trial.not_here(reason);
            return Ok(());
        }
    };
    let file = trial.ground.dir.write("clock", "+0\n")?;
    let environment = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", &*file.to_string_lossy()),
        ("FAKETIME_NO_CACHE", "1"),
        // Monotonic time does not jump: that is what it is for.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    // Each look at the clock reads the file: that is slow, and not what this is about.
    trial.per_s /= 4.0;
    let told = trial.under_load(Wishes { environment, ..Wishes::default() }, |trial, _, _| {
        for jump in ["+1d", "-1d", "+0"] {
            fs::write(&file, format!("{jump}\n")).map_err(|e| Error::Failed(format!("the clock's file: {e}")))?;
            sleep(trial.fault_time() * 2 / 3);
        }
        Ok(())
    })?;
    trial.per_s *= 4.0;
    trial.demand_none_failed(&told.asked, true);
    if trial.is_ours() {
        let log = fs::read_to_string(&told.rig.log).unwrap_or_default();
        let day = |line: &str| line.split('"').nth(3).and_then(|time| time.get(..10)).map(str::to_owned);
        let days: std::collections::BTreeSet<String> = log.lines().filter_map(day).collect();
        trial.demand_felt(days.len() >= 3);
        trial.report.note(format!("its log has lines of {}", days.into_iter().collect::<Vec<_>>().join(", ")));
    }
    Ok(())
}
