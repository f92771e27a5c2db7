//! Options, ports, exit codes, health, the end, and what systemd hears.

use std::time::{Duration, Instant};

use e2e::http;
use e2e::program::{Program, run, scratch_dir};
use tokio::net::{TcpListener, UnixDatagram};

use super::{Events, alone};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_ready_line_names_the_real_port_and_is_all_there_is_on_standard_output() {
    let (program, port) = alone(&[]).await;
    assert_ne!(port, 0);
    assert_eq!(program.stdout(), format!("ready dashboard url=http://127.0.0.1:{port}\n"));
    assert_eq!(http::get(port, "/").await.status, 200);
}

#[tokio::test]
async fn a_wrong_variable_or_flag_ends_with_2_and_says_what_was_expected() {
    let env = |name: &'static str, value: &'static str| (vec![], vec![(name, value)]);
    let flag = |name: &'static str, value: &'static str| (vec![name, value], vec![]);
    for ((args, env), parts) in [
        (env("DASHBOARD_PORT", "abc"), ["DASHBOARD_PORT", "'abc'", "0 to 65535"]),
        (env("DASHBOARD_PORT", "70000"), ["DASHBOARD_PORT", "'70000'", "0 to 65535"]),
        (env("ADMIN_PORT", "-1"), ["ADMIN_PORT", "'-1'", "0 to 65535"]),
        (env("DASHBOARD_BIND", "here"), ["DASHBOARD_BIND", "'here'", "127.0.0.1"]),
        (
            env("LOAD_BALANCER_URL", "localhost:8080"),
            ["LOAD_BALANCER_URL", "'localhost:8080'", "http://localhost:8080"],
        ),
        (env("ADMIN_URL", "https://lb:8089"), ["ADMIN_URL", "'https://lb:8089'", "plain http only"]),
        (flag("--allowed-host", "a b"), ["--allowed-host", "'a b'", "ops.example.com"]),
        (flag("--log-format", "xml"), ["--log-format", "'xml'", "json"]),
        (flag("--prot", "1"), ["unexpected argument", "'--prot'", "'--port'"]),
    ] {
        let ended = run("dashboard", &args, &env, SOON).await;
        assert_eq!(ended.code, Some(2), "{args:?} {env:?}: {}", ended.stderr);
        for part in parts {
            assert!(ended.stderr.contains(part), "{args:?} {env:?}: no {part:?} in {}", ended.stderr);
        }
        assert_eq!(ended.stdout, "");
    }
}

#[tokio::test]
async fn an_empty_variable_counts_as_unset() {
    let names = ["DASHBOARD_BIND", "LOAD_BALANCER_URL", "ADMIN_PORT", "ADMIN_URL", "ADMIN_TOKEN", "ADMIN_TOKEN_FILE"];
    let mut env = names.map(|name| (name, "")).to_vec();
    env.extend([("DASHBOARD_ALLOWED_HOSTS", ""), ("DASHBOARD_ALLOW_REMOTE", ""), ("LOG_FORMAT", ""), ("RUST_LOG", "")]);
    let program = Program::start("dashboard", &["--port", "0"], &env).await;
    assert!(program.field("url").starts_with("http://127.0.0.1:"));
    assert!(program.stderr().contains("\"admin\":\"http://localhost:8089\""), "{}", program.stderr());
}

#[tokio::test]
async fn a_flag_wins_over_its_variable() {
    let env = [("DASHBOARD_PORT", "1"), ("LOAD_BALANCER_URL", "http://env:80"), ("ADMIN_PORT", "2")];
    let args = ["--port", "0", "--load-balancer-url", "http://127.0.0.9:80", "--admin-port", "3"];
    let program = Program::start("dashboard", &args, &env).await;
    assert_ne!(program.port("url"), 1);
    assert!(program.stderr().contains("\"admin\":\"http://127.0.0.9:3\""), "{}", program.stderr());
}

#[tokio::test]
async fn a_port_in_use_ends_with_69_and_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = run("dashboard", &[], &[("DASHBOARD_PORT", &port)], SOON).await;
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    for part in [&*format!("127.0.0.1:{port}"), "another program", "DASHBOARD_PORT"] {
        assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    }
}

#[tokio::test]
async fn listening_beyond_loopback_is_refused_unless_it_is_meant() {
    let ended = run("dashboard", &["--port", "0", "--bind", "0.0.0.0"], &[], SOON).await;
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    for part in ["0.0.0.0", "no login", "DASHBOARD_ALLOW_REMOTE=true"] {
        assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    }
    let env = [("DASHBOARD_BIND", "0.0.0.0"), ("DASHBOARD_ALLOW_REMOTE", "true")];
    let program = Program::start("dashboard", &["--port", "0"], &env).await;
    assert!(program.field("url").starts_with("http://0.0.0.0:"));
}

#[tokio::test]
async fn two_tokens_are_refused() {
    let env = [("ADMIN_TOKEN", "s3cret-token"), ("ADMIN_TOKEN_FILE", "/nowhere")];
    let ended = run("dashboard", &["--port", "0"], &env, SOON).await;
    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains("expected one of them") && !ended.stderr.contains("s3cret"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_help_never_shows_the_token() {
    let ended = run("dashboard", &["--help"], &[("ADMIN_TOKEN", "s3cret-token")], SOON).await;
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.contains("ADMIN_TOKEN") && !ended.stdout.contains("s3cret"), "{}", ended.stdout);
}

#[tokio::test]
async fn it_is_ready_without_a_balancer_and_says_so_when_asked() {
    let (_program, port) = alone(&[]).await;
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = http::get(port, path).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok\n"), "{path}");
    }
    let verbose = e2e::eventually("the first try is over", async || {
        let text = http::get(port, "/readyz?verbose").await.text();
        text.contains("refused").then_some(text)
    })
    .await;
    assert_eq!(
        verbose,
        "page: ok\nload balancer: not reachable, http://127.0.0.1:1: connection refused (127.0.0.1:1) (does not make the page unready)\n"
    );
    let metrics = http::get(port, "/metrics").await.text();
    assert!(metrics.contains("\ndashboard_balancer_up 0\n"), "{metrics}");
}

#[tokio::test]
async fn a_signal_ends_open_streams_and_the_program() {
    for signal in ["TERM", "INT"] {
        let (mut program, port) = alone(&[]).await;
        let mut events = Events::open(port).await;
        events.next().await.expect("the stream is open");
        let began = Instant::now();
        program.signal(signal);
        while events.next().await.is_some() {}
        assert_eq!(program.wait(SOON).await.code(), Some(0), "SIG{signal}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

/// The first signal waits a second for answers under way; here one that never comes: a head that is half sent.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (mut program, port) = alone(&[]).await;
    let mut half = e2e::raw::connect(port).await;
    tokio::io::AsyncWriteExt::write_all(&mut half, b"GET / HTTP/1.1\r\nhost: loc").await.unwrap();
    // Another connection's answer: the half head before it has been seen.
    http::get(port, "/livez").await;
    program.signal("TERM");
    e2e::eventually("it stops", async || program.stderr().contains("ending all streams").then_some(())).await;
    program.signal("TERM");
    assert_eq!(program.wait(SOON).await.code(), Some(1), "{}", program.stderr());
}

#[tokio::test]
async fn systemd_hears_ready_watchdog_and_stopping() {
    let path = scratch_dir().join(format!("notify-dashboard-{}", std::process::id()));
    let socket = UnixDatagram::bind(&path).unwrap();
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "400000")];
    let mut program = Program::start("dashboard", &["--port", "0", "--admin-url", "http://127.0.0.1:1"], &env).await;
    let url = program.field("url").to_owned();
    until(&socket, &format!("READY=1\nSTATUS=page at {url}, load balancer at http://127.0.0.1:1\n")).await;
    let began = Instant::now();
    for _ in 0..6 {
        until(&socket, "WATCHDOG=1\n").await;
    }
    // Every half of the 400 ms.
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(2_300)).contains(&took), "{took:?}");
    program.signal("TERM");
    until(&socket, "STOPPING=1\n").await;
    assert_eq!(program.wait(SOON).await.code(), Some(0));
    std::fs::remove_file(path).unwrap();
}

async fn until(socket: &UnixDatagram, expected: &str) {
    let mut buffer = [0; 1024];
    loop {
        let received = tokio::time::timeout(e2e::PATIENCE, socket.recv(&mut buffer)).await;
        let length = received.unwrap_or_else(|_| panic!("no {expected:?} in time")).unwrap();
        if String::from_utf8_lossy(&buffer[..length]).contains(expected) {
            return;
        }
    }
}
