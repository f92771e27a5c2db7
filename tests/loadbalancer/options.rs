//! What is said wrong ends at once, in words, with the right code.

use std::time::Duration;

use e2e::program::{run, scratch_dir};

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// Exit code and standard error of a start that must fail.
async fn refused(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let ended = run("loadbalancer", args, env, SOON).await;
    assert_eq!(ended.stdout, "", "{args:?} {env:?}");
    (ended.code, ended.stderr)
}

#[tokio::test]
async fn wrong_flags_and_variables_are_named_with_value_and_expectation() {
    for (args, env, code, words) in [
        (&[][..], &[("PROXY_PORT", "abc")][..], 2, "variable PROXY_PORT: proxy.port: \"abc\": expected a port number"),
        (&[], &[("LB_CONNECT_TIMEOUT", "5")], 2, "expected a duration with its unit"),
        (&["--prot", "1"], &[], 2, "'--port'"),
        (&["--workers", "-1"], &[], 2, "flag --workers: proxy.workers: \"-1\": expected a whole number from 0 to 256"),
        (&["--backend", "localhost"], &[], 2, "\"localhost\" has no port"),
        (&[], &[("BACKENDS", "")], 78, "variable BACKENDS: pool.backends: \"\": names no backend"),
        (&["--backend", "a:1", "--backend", "a:1"], &[], 78, "the address is given twice"),
        (&["--backend", "a:1,name=x", "--backend", "b:1,name=x"], &[], 78, "the name is given twice"),
        (&["--admin-bind", "0.0.0.0"], &[], 78, "needs a token of yours"),
        (&["--port", "8080", "--admin-port", "8080"], &[], 78, "is the proxy's port too"),
        (&["--config", "/no/such/file.toml"], &[], 78, "cannot be read: No such file"),
        (&[], &[("ADMIN_TOKEN", "short")], 2, "at least 16 visible characters"),
    ] {
        let (found, text) = refused(args, env).await;
        assert_eq!(found, Some(code), "{args:?} {env:?}: {text}");
        assert!(text.contains(words), "{args:?} {env:?}: {text}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_who_should_change_what() {
    // Taken by another balancer: the one program that would be able to share the port by mistake.
    let first = Program::start("loadbalancer", &["--port", "0", "--admin-port", "0"], &[]).await;
    let port = first.port("proxy").to_string();
    let (code, text) = refused(&["--port", &port, "--admin-port", "0"], &[]).await;
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains(&port) && text.contains("PROXY_PORT or --port"), "{text}");
    let (code, text) = refused(&["--port", "0", "--admin-port", &port], &[]).await;
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains(&port) && text.contains("ADMIN_PORT or --admin-port"), "{text}");
}

#[tokio::test]
async fn a_file_is_checked_without_doing_anything_else() {
    let good = scratch_dir().join("good.toml");
    std::fs::write(&good, "[proxy]\nport = 1\n[[pool]]\nbackends = [\"a:1\"]\n").unwrap();
    let ended = run("loadbalancer", &["check", &good.display().to_string()], &[], SOON).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let bad = scratch_dir().join("bad.toml");
    std::fs::write(&bad, "[proxy]\nport = \"x\"\n[timeouts]\nconect = \"1s\"\n[[pool]]\nbackends = []\n").unwrap();
    let path = bad.display().to_string();
    let ended = run("loadbalancer", &["check", &path], &[], SOON).await;
    assert_eq!(ended.code, Some(78));
    for words in [
        "3 problems",
        &format!("{path}:2:8: proxy.port: \"x\": expected"),
        &format!("{path}:4:1: timeouts.conect: there is no such key; did you mean timeouts.connect?"),
        &format!("{path}:6:12: pool.backends: \"\": names no backend"),
    ] {
        assert!(ended.stderr.contains(words), "no {words:?} in {}", ended.stderr);
    }
}

#[tokio::test]
async fn variables_configure_it_as_the_project_promises() {
    let (_server, backend) = server("a").await;
    let (proxy, admin) = (free_port().to_string(), free_port().to_string());
    let env = [
        ("PROXY_PORT", proxy.as_str()),
        ("ADMIN_PORT", &admin),
        ("BACKENDS", &backend),
        ("PROXY_BIND", "127.0.0.1"),
        ("LB_WORKERS", "1"),
    ];
    let program = Program::start("loadbalancer", &[], &env).await;
    assert_eq!(program.field("proxy"), format!("http://127.0.0.1:{proxy}"));
    assert_eq!(http::get(program.port("proxy"), "/").await.header("x-served-by"), Some("a"));
}

#[tokio::test]
async fn help_names_units_and_defaults() {
    let help = run("loadbalancer", &["--help"], &[], SOON).await;
    assert_eq!(help.code, Some(0));
    for words in [
        "--connect-timeout <DURATION>",
        "[default: 2s]",
        "[env: LB_KEEP_ALIVE_TIMEOUT]",
        "[default: 75s]",
        "Exit codes",
        "ADMIN_TOKEN",
    ] {
        assert!(help.stdout.contains(words), "no {words:?} in\n{}", help.stdout);
    }
    assert_eq!(run("loadbalancer", &["--version"], &[], SOON).await.stdout.trim(), "loadbalancer 0.1.0");
}
