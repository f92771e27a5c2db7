//! Whoever reads a log may go away; that is no business of the program's.

use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::http;
use e2e::program::bin_dir;

#[tokio::test]
async fn every_program_lives_and_ends_well_when_nobody_reads_its_log_any_more() {
    for (program, port_flag, args, path) in [
        ("loadbalancer", "--port", "--admin-port 0 --backend 127.0.0.1:9 --log-level debug", "/"),
        ("server", "--port", "--log-level debug", "/livez"),
        ("dashboard", "--port", "--admin-url http://127.0.0.1:9 --log-level debug", "/livez"),
    ] {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // `head` takes one line of the log and goes; from then on each write to it fails.
        let line =
            format!("exec {}/{program} {port_flag} {port} {args} 2> >(head -n 1 >/dev/null)", bin_dir().display());
        let mut shell = tokio::process::Command::new("bash");
        shell.args(["-c", &line]).env("ADMIN_TOKEN", "0123456789abcdef").stdout(Stdio::null()).kill_on_drop(true);
        let mut child = shell.spawn().unwrap();
        let up = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok();
        e2e::eventually(&format!("{program} serves"), up).await;
        for _ in 0..5 {
            assert!(http::get(port, path).await.status.as_u16() > 0, "{program}");
        }
        let pid = child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
        let ended = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{program} does not end")).unwrap();
        assert_eq!(ended.code(), Some(0), "{program}");
    }
}
