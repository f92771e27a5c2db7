//! `cargo demo`: what it starts, what it says, and that nothing is left of it.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::http::{Client, get};
use e2e::program::{bin_dir, scratch_dir};
use e2e::{PATIENCE, eventually};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// The promise for stopping.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

/// A running `xtask demo --json`.
struct Demo {
    child: Child,
    base: u16,
    stdout: BufReader<ChildStdout>,
    stderr: Arc<Mutex<String>>,
}

impl Demo {
    fn spawn(base: u16, bin_dir: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(e2e::program::bin_dir().join("xtask"));
        command.args(["demo", "--json", "--port-base", &base.to_string(), "--bin-dir"]).arg(bin_dir).args(args);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("XDG_RUNTIME_DIR", scratch_dir());
        // What a developer's shell may hold must not lead the demo astray.
        command.env("BACKENDS", "192.0.2.1:1").env("PROXY_PORT", "1").env("LB_CONFIG", "/nowhere");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("xtask can be started");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let stderr = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let sink = Arc::clone(&stderr);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut text = sink.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
        });
        Self { child, base, stdout, stderr }
    }

    /// Starts it with the real programs, and waits for its ready line.
    async fn start(args: &[&str]) -> (Self, Value) {
        let mut demo = Self::spawn(free_base(), bin_dir(), args);
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, demo.stdout.read_line(&mut line)).await;
        assert!(read.is_ok_and(|read| read.is_ok_and(|length| length > 0)), "no ready line; {}", demo.stderr());
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
        (demo, ready)
    }

    fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    fn signal(&self, signal: &str) {
        kill(signal, self.child.id().expect("it runs"));
    }

    /// Waits for its end and returns the exit code.
    async fn end(&mut self, patience: Duration) -> Option<i32> {
        let status = tokio::time::timeout(patience, self.child.wait()).await;
        status.unwrap_or_else(|_| panic!("still running after {patience:?}; {}", self.stderr())).unwrap().code()
    }
}

#[tokio::test]
async fn runs_everything_and_leaves_nothing_behind() {
    let (mut demo, ready) = Demo::start(&["--no-traffic"]).await;
    let base = demo.base;
    assert_eq!(ready["ready"], true);
    assert_eq!(ready["proxy"], format!("http://127.0.0.1:{base}"));
    assert_eq!(ready["admin"], format!("http://127.0.0.1:{}", base + 9));
    assert_eq!(ready["dashboard"], format!("http://127.0.0.1:{}", base + 10));
    let servers: Vec<&str> = ready["servers"].as_array().unwrap().iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(servers, NAMES);
    let pids = pids(&ready);
    assert_eq!(pids.len(), 5);
    for (name, pid) in &pids {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("every pid is a process");
        let expected = if NAMES.contains(&name.as_str()) { "server" } else { name };
        assert_eq!(comm.trim(), expected, "the pid of {name}");
        assert_eq!(stat(*pid, GROUP), pid.to_string(), "{name} must not get the terminal's Ctrl-C itself");
    }

    assert_takes_turns(base).await;
    assert_eq!(get(base + 10, "/").await.status, 200, "the dashboard answers");

    demo.signal("INT");
    assert_eq!(demo.end(STOPS_WITHIN).await, Some(0));
    let left: Vec<_> = pids.iter().filter(|(_, pid)| exists(*pid)).collect();
    assert!(left.is_empty(), "still there: {left:?}");
    assert_eq!(taken(base), [] as [u16; 0]);
    let mut rest = String::new();
    demo.stdout.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "", "standard output carries the ready line and nothing else");
}

#[tokio::test]
async fn sends_traffic_by_itself_and_survives_a_server() {
    let (mut demo, ready) = Demo::start(&["--traffic", "100"]).await;
    let gamma = pids(&ready).into_iter().find(|(name, _)| name == "gamma").expect("there is a gamma").1;
    eventually("requests reach gamma", async || {
        let metrics = get(demo.base + 3, "/metrics").await.text();
        let requests = metrics.lines().filter(|line| line.starts_with("server_requests_total{"));
        let sum: f64 = requests.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        (sum >= 10.0).then_some(())
    })
    .await;

    kill("KILL", gamma);
    let expected = format!("gamma (pid {gamma}) ended: killed by signal 9. To start it again");
    eventually("the end of gamma is told", async || demo.stderr().contains(&expected).then_some(())).await;
    assert!(demo.stderr().contains(&format!("SERVER_PORT={}", demo.base + 3)), "{}", demo.stderr());
    assert_eq!(get(demo.base, "/").await.status, 200, "the others go on");

    demo.signal("TERM");
    assert_eq!(demo.end(STOPS_WITHIN).await, Some(0));
    assert_eq!(taken(demo.base), [] as [u16; 0]);
}

#[tokio::test]
async fn programs_end_with_a_demo_that_is_killed() {
    let (mut demo, ready) = Demo::start(&["--no-traffic"]).await;
    let _whatever_is_left = KillOnDrop(pids(&ready));
    demo.child.kill().await.expect("it can be killed");
    eventually("all programs are gone", async || {
        pids(&ready).iter().all(|(_, pid)| !exists(*pid) || is_zombie(*pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_way_out() {
    let base = free_base();
    let _holder = TcpListener::bind(("127.0.0.1", base + 2)).expect("it was free");
    let mut demo = Demo::spawn(base, bin_dir(), &[]);
    assert_eq!(demo.end(PATIENCE).await, Some(69));
    let wanted = [
        format!("port {} (for server beta) is taken by ", base + 2),
        format!("(pid {})", std::process::id()),
        "--port-base".to_owned(),
    ];
    for part in wanted {
        eventually(&part, async || demo.stderr().contains(&part).then_some(())).await;
    }
}

#[tokio::test]
async fn a_program_that_fails_at_start_ends_the_demo_with_its_code() {
    let programs = with_broken_loadbalancer();
    let base = free_base();
    let mut demo = Demo::spawn(base, &programs, &[]);
    assert_eq!(demo.end(PATIENCE).await, Some(78));
    let wanted = "loadbalancer ended at start: exit code 78; its last lines:\n  backends: none";
    eventually(wanted, async || demo.stderr().contains(wanted).then_some(())).await;
    assert_eq!(taken(base), [] as [u16; 0], "the servers that had started are stopped");
}

/// Four requests, each answered by the next server.
async fn assert_takes_turns(proxy: u16) {
    eventually("all three servers are in rotation", async || {
        let mut names = [served_by(proxy).await?, served_by(proxy).await?, served_by(proxy).await?];
        names.sort();
        (names == NAMES).then_some(())
    })
    .await;
    let mut client = Client::connect(proxy).await.expect("the proxy accepts");
    let mut names = Vec::new();
    for _ in 0..4 {
        let answer = client.get("/").await.expect("an answer");
        names.push(answer.header("x-served-by").expect("the server's name").to_owned());
    }
    let first = NAMES.iter().position(|name| *name == names[0]).expect("a name of ours");
    let expected: Vec<&str> = (0..4).map(|step| NAMES[(first + step) % 3]).collect();
    assert_eq!(names, expected);
}

async fn served_by(proxy: u16) -> Option<String> {
    get(proxy, "/").await.header("x-served-by").map(str::to_owned)
}

/// A directory with the real programs, but a load balancer that only complains.
fn with_broken_loadbalancer() -> PathBuf {
    let dir = scratch_dir().join("broken");
    std::fs::create_dir_all(&dir).unwrap();
    for program in ["server", "dashboard"] {
        symlink(std::path::absolute(bin_dir().join(program)).unwrap(), dir.join(program)).unwrap();
    }
    let script = dir.join("loadbalancer");
    std::fs::write(&script, "#!/bin/sh\necho 'backends: none' >&2\nexit 78\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// The ports a demo takes.
fn ports(base: u16) -> [u16; 6] {
    [0, 1, 2, 3, 9, 10].map(|offset| base + offset)
}

fn taken(base: u16) -> Vec<u16> {
    ports(base).into_iter().filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_err()).collect()
}

/// A base whose ports are free, below the range from which the system chooses for port 0, and another one for each
/// test process.
fn free_base() -> u16 {
    let start = u16::try_from(std::process::id() % 900).expect("below 900");
    (0..900)
        .map(|step| 20_000 + (start + step) % 900 * 11)
        .find(|base| taken(*base).is_empty())
        .expect("some ports are free")
}

fn pids(ready: &Value) -> Vec<(String, u32)> {
    let pids = ready["pids"].as_object().expect("pids by name");
    pids.iter().map(|(name, pid)| (name.clone(), pid.as_u64().unwrap().try_into().unwrap())).collect()
}

/// So that a failed test leaves nothing running either.
struct KillOnDrop(Vec<(String, u32)>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        for (_, pid) in self.0.iter().filter(|(_, pid)| exists(*pid) && !is_zombie(*pid)) {
            kill("KILL", *pid);
        }
    }
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Dead, but not yet waited for by whoever inherited it.
fn is_zombie(pid: u32) -> bool {
    stat(pid, STATE) == "Z"
}

// Fields of /proc/PID/stat after the program's name.
const STATE: usize = 0;
const GROUP: usize = 2;

/// A field of `/proc/PID/stat`; empty when the process is gone.
fn stat(pid: u32, field: usize) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after_name.split(' ').nth(field).unwrap_or_default().to_owned()
}

fn kill(signal: &str, pid: u32) {
    let status = std::process::Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
}
