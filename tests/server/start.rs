//! Options, the ready line, addresses, and what is said when something is wrong.

use std::time::Duration;

use e2e::http;
use e2e::program::{Ended, Program, run};
use e2e::raw;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(10);

async fn ends(args: &[&str], env: &[(&str, &str)]) -> Ended {
    run("server", args, env, SOON).await
}

#[tokio::test]
async fn the_ready_line_tells_the_real_port_and_the_name_that_follows_from_it() {
    let program = Program::start("server", &[], &[("SERVER_PORT", "0")]).await;
    let port = program.port("url");
    assert_eq!(program.field("url"), format!("http://127.0.0.1:{port}"));
    assert_eq!(program.field("name"), format!("server-{port}"));
    assert_eq!(http::get(port, "/").await.header("x-served-by"), Some(program.field("name")));
    assert_eq!(program.stdout().lines().count(), 1, "only the ready line goes to standard output");
}

#[tokio::test]
async fn flags_win_over_variables_and_empty_variables_are_unset() {
    let empty = ["SERVER_NAME", "SERVER_BIND", "SERVER_FAULTS", "SERVER_DRAIN", "LOG_FORMAT", "RUST_LOG"];
    let mut env: Vec<(&str, &str)> = empty.iter().map(|name| (*name, "")).collect();
    env.push(("SERVER_PORT", "not used, hence not wrong"));
    let program = Program::start("server", &["--port", "0"], &env).await;
    let port = program.port("url");
    assert_eq!(program.field("name"), format!("server-{port}"));
    assert_eq!(http::get(port, "/admin/faults").await.status, 403, "an empty SERVER_FAULTS enables nothing");

    let program = Program::start("server", &["--port=0", "--name", "flag"], &[("SERVER_NAME", "variable")]).await;
    assert_eq!(program.field("name"), "flag");
    let program = Program::start("server", &["--port=0"], &[("SERVER_NAME", "variable")]).await;
    assert_eq!(program.field("name"), "variable");
}

#[tokio::test]
async fn a_wrong_option_ends_with_2_and_names_itself_its_value_and_what_was_expected() {
    for (args, env, words) in [
        (&[][..], &[("SERVER_PORT", "abc")][..], &["SERVER_PORT=abc", "a port number, 0 to 65535"][..]),
        (&[], &[("SERVER_PORT", "70000")], &["SERVER_PORT=70000", "0 to 65535"]),
        (&["--port", "-1"], &[], &["-1"]),
        (&["--port="], &[], &["--port=:", "0 to 65535"]),
        (&[], &[("SERVER_BIND", "nowhere")], &["SERVER_BIND=nowhere", "IP address"]),
        (&["--name", "a b"], &[], &["--name=a b", "1 to 64 letters"]),
        (&[], &[("SERVER_DRAIN", "30")], &["SERVER_DRAIN=30", "with a unit"]),
        (&["--drain", "2h"], &[], &["--drain=2h", "at most 1h"]),
        (&[], &[("SERVER_FAULTS", "error=200%")], &["SERVER_FAULTS=error=200%", "0% to 100%"]),
        (&["--log-format", "xml"], &[], &["--log-format=xml", "auto, text or json"]),
        (&[], &[("RUST_LOG", "server=loud")], &["RUST_LOG=server=loud", "error, warn, info"]),
        (&["--prot", "1"], &[], &["--prot", "--port"]),
        (&["extra"], &[], &["extra"]),
        // All at once.
        (
            &["--name", "ä"],
            &[("SERVER_PORT", "x"), ("SERVER_DRAIN", "y")],
            &["--name=ä", "SERVER_PORT=x", "SERVER_DRAIN=y"],
        ),
    ] {
        let ended = ends(args, env).await;
        assert_eq!(ended.code, Some(2), "{args:?} {env:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{args:?} {env:?}");
        for word in words {
            assert!(ended.stderr.contains(word), "{args:?} {env:?}: {word:?} is not in {}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn a_taken_port_ends_with_69_and_says_who_holds_it_and_what_to_change() {
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    for args in [&["--port", &port][..], &["--port", &port, "--bind", "127.0.0.1"]] {
        let ended = ends(args, &[]).await;
        assert_eq!(ended.code, Some(69), "{ended:?}");
        let pid = format!("pid {}", std::process::id());
        for word in [&format!(":{port}"), "--port", "SERVER_PORT", &pid] {
            assert!(ended.stderr.contains(word), "{word:?} is not in {}", ended.stderr);
        }
        assert_eq!(ended.stdout, "", "not ready");
    }
    // 192.0.2.0/24 is nobody's address (RFC 5737).
    let ended = ends(&["--port=0", "--bind=192.0.2.1"], &[]).await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains("192.0.2.1") && ended.stderr.contains("SERVER_BIND"), "{}", ended.stderr);
}

#[tokio::test]
async fn all_interfaces_by_default_both_versions_of_ip() {
    let program = Program::start("server", &["--port=0", "--name=all"], &[]).await;
    let port = program.port("url");
    assert_eq!(server_at("127.0.0.1", port).await.as_deref(), Some("all"));
    if TcpListener::bind("[::1]:0").await.is_ok() {
        assert_eq!(server_at("::1", port).await.as_deref(), Some("all"));
        let only_v6 = Program::start("server", &["--port=0", "--bind=::1", "--name=only-v6"], &[]).await;
        let port = only_v6.port("url");
        assert_eq!(only_v6.field("url"), format!("http://[::1]:{port}"));
        assert_eq!(server_at("::1", port).await.as_deref(), Some("only-v6"));
        assert_ne!(server_at("127.0.0.1", port).await.as_deref(), Some("only-v6"));
    }
    let only_v4 = Program::start("server", &["--port=0", "--bind=127.0.0.1", "--name=only-v4"], &[]).await;
    assert_ne!(server_at("127.0.0.2", only_v4.port("url")).await.as_deref(), Some("only-v4"));
}

/// Who answers at `ip:port`, if anyone. Not merely whether someone does: a port that is ours on one address may be
/// another program's on the next.
async fn server_at(ip: &str, port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((ip, port)).await.ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.ok()?;
    let answer = raw::read_to_close(&mut stream, SOON).await?;
    answer.lines().find_map(|line| line.strip_prefix("x-served-by: ").map(str::to_owned))
}

#[tokio::test]
async fn help_has_every_option_with_its_variable_and_default_and_every_path() {
    let help = ends(&["--help"], &[]).await;
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for argument in server::command().get_arguments() {
        let long = argument.get_long().expect("every option has a long name");
        assert!(help.stdout.contains(&format!("--{long}")), "--{long}");
        if let Some(variable) = argument.get_env() {
            assert!(help.stdout.contains(&format!("[env: {}]", variable.to_str().unwrap())), "{variable:?}");
            let described = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(described.contains("default") || help.stdout.contains("[default: "), "{long}");
        }
    }
    for word in [
        "Listening:",
        "Behaviour:",
        "Logging:",
        "[default: 8081]",
        "[default: 30s]",
        "[default: all interfaces",
        "/livez",
        "/readyz",
        "/healthz",
        "/health",
        "/metrics",
        "/echo",
        "/bytes/N ",
        "/delay/MS ",
        "/status/CODE ",
        "/stream/N ",
        "/sse",
        "/admin/ready",
        "/admin/not-ready",
        "/admin/faults",
        "latency=",
        "jitter=",
        "error=",
        "hang=",
        "reset-before=",
        "reset-mid=",
        "refuse",
    ] {
        assert!(help.stdout.contains(word), "{word} is not in\n{}", help.stdout);
    }
    let version = ends(&["--version"], &[]).await;
    assert_eq!((version.code, version.stdout.as_str()), (Some(0), concat!("server ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[tokio::test]
async fn the_log_is_json_off_a_terminal_and_text_on_request() {
    let program = Program::start("server", &["--port=0"], &[]).await;
    let line = e2e::eventually("a log line", async || program.stderr().lines().next().map(str::to_owned)).await;
    let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!((&json["level"], &json["name"]), (&"INFO".into(), &program.field("name").into()));

    let program = Program::start("server", &["--port=0"], &[("LOG_FORMAT", "text")]).await;
    let line = e2e::eventually("a log line", async || program.stderr().lines().next().map(str::to_owned)).await;
    assert!(line.contains(" INFO ") && !line.starts_with('{'), "{line}");

    let program = Program::start("server", &["--port=0", "--log-level", "off"], &[]).await;
    http::get(program.port("url"), "/").await;
    assert_eq!(program.stderr(), "");
}
