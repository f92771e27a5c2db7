//! The promises under load. Their names begin with `load_`: the runner lets each have the machine for itself.

use std::time::Duration;

use e2e::load::{Load, Plan};
use tokio::time::Instant;

use super::*;

/// Requests of the long run; the interval of confidence for 0 failures is 3 / this.
const MANY: u64 = 1_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn load_a_server_killed_twenty_times_costs_no_user_an_error() {
    let (mut programs, backends) = servers().await;
    let port = programs[1].port("url");
    // The defaults of health checking: 5 s, 1 s while changing, rise 2, fall 3.
    let mut args = vec!["--port", "0", "--admin-port", "0"];
    backends.iter().for_each(|backend| args.extend(["--backend", backend]));
    let balancer = Balancer { program: Program::start("loadbalancer", &args, &[("ADMIN_TOKEN", TOKEN)]).await };
    let load = Load::start(&Plan { port: balancer.port(), connections: 64, requests: u64::MAX, reconnect: true });
    let mut slowest_return = Duration::ZERO;
    for _ in 0..20 {
        let before = balancer.backend("b").await["traffic"]["requests_total"].as_u64();
        e2e::eventually("b takes its share", async || {
            (balancer.backend("b").await["traffic"]["requests_total"].as_u64() > before).then_some(())
        })
        .await;
        programs[1].kill().await;
        balancer.wait_for_state("b", "down").await;
        programs[1] = server_on("b", port).await.0;
        let restarted = Instant::now();
        balancer.wait_for_state("b", "ready").await;
        slowest_return = slowest_return.max(restarted.elapsed());
    }
    e2e::eventually_within(Duration::from_secs(300), "a million requests", async || {
        (load.answered() >= MANY).then_some(())
    })
    .await;
    load.stop();
    let tally = load.finish().await;
    println!("{} answered, {} failed, slowest return {slowest_return:?}", tally.answered, tally.failed);
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    assert!(tally.answered >= MANY);
    // rise 2 × interval 5 s.
    assert!(slowest_return < Duration::from_secs(10), "{slowest_return:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn load_sigterm_loses_no_request_that_was_accepted() {
    for _ in 0..5 {
        let (_servers, backends) = servers().await;
        let mut balancer = Balancer::start(&backends, &[]).await;
        let plan = Plan { port: balancer.port(), connections: 64, requests: u64::MAX, reconnect: false };
        let load = Load::start(&plan);
        e2e::eventually("the load is on", async || (load.answered() > 20_000).then_some(())).await;
        balancer.program.signal("TERM");
        let started = Instant::now();
        assert_eq!(balancer.program.wait(Duration::from_secs(5)).await.code(), Some(0));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        let tally = load.finish().await;
        assert_eq!(tally.failed, 0, "{:?}", tally.failures);
        assert_eq!(tally.closed, 64, "each connection was told to close");
    }
}

#[tokio::test]
async fn load_none_at_all_costs_next_to_nothing() {
    let (_servers, backends) = servers().await;
    let mut args = vec!["--port", "0", "--admin-port", "0"];
    backends.iter().for_each(|backend| args.extend(["--backend", backend]));
    let program = Program::start("loadbalancer", &args, &[("ADMIN_TOKEN", TOKEN)]).await;
    let cpu_ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = cpu_ticks();
    tokio::time::sleep(Duration::from_secs(20)).await;
    // A tick is 10 ms: 20 s at 0.5 % of a core are ten of them.
    let used = cpu_ticks() - before;
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{used} ticks of 10 ms in 20 s, {resident} KiB resident");
    assert!(used < 10, "{used} ticks");
    assert!(resident < 15 * 1024, "{resident} KiB");
}
