//! The real programs as child processes.
//!
//! A program is started with port 0, prints `ready <program> key=value …` on its standard output when it serves,
//! and is killed when its handle is dropped. The binaries come from `E2E_BIN_DIR` (set by `cargo xtask test`), else
//! they are built once, in release, the way the README says.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::PATIENCE;

/// A running program of ours.
pub struct Program {
    child: Child,
    pid: u32,
    fields: HashMap<String, String>,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

/// What a program that ended by itself left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// Starts `name` (`loadbalancer`, `server`, `dashboard`, `xtask`) and waits for its ready line.
    ///
    /// The environment is only `env` plus `PATH`, `HOME` and a private `XDG_RUNTIME_DIR`, so that nothing of the
    /// developer's shell leaks in.
    ///
    /// # Panics
    /// When it does not become ready, with everything it printed.
    pub async fn start(name: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = command(name, args, env).spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let pid = child.id().expect("a child that was just started has an id");
        let (ready_tx, mut ready) = watch::channel(None);
        let stdout = collect(child.stdout.take().expect("stdout is piped"), Some(ready_tx));
        let stderr = collect(child.stderr.take().expect("stderr is piped"), None);
        let mut program = Self { child, pid, fields: HashMap::new(), stdout, stderr };
        let line = tokio::time::timeout(PATIENCE, ready.wait_for(Option::is_some)).await;
        let Ok(Ok(line)) = line.map(|l| l.map(|l| l.clone().unwrap_or_default())) else {
            panic!("{name} {args:?} did not become ready; stderr:\n{}", program.stderr());
        };
        program.fields = line
            .split_whitespace()
            .filter_map(|word| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
            .collect();
        program
    }

    /// A `key=value` of the ready line, such as `proxy` or `url`.
    pub fn field(&self, key: &str) -> &str {
        self.fields.get(key).unwrap_or_else(|| panic!("no {key} in the ready line: {:?}", self.fields))
    }

    /// The port of a URL in the ready line.
    pub fn port(&self, key: &str) -> u16 {
        let url = self.field(key);
        url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port in {url}"))
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("no panic while printing").clone()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no panic while printing").clone()
    }

    /// Sends a signal by name: `TERM`, `KILL`, `INT`, `STOP`, `CONT`, `HUP`.
    pub fn signal(&self, signal: &str) {
        let status = Blocking::new("kill").args(["-s", signal, &self.pid.to_string()]).status().expect("kill runs");
        assert!(status.success(), "kill -s {signal} {}", self.pid);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it is still there after `patience`.
    pub async fn wait(&mut self, patience: Duration) -> ExitStatus {
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => status.expect("a child can be waited for"),
            Err(_) => panic!("still running after {patience:?}; stderr:\n{}", self.stderr()),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a child can be killed");
    }
}

/// Runs a program that is expected to end by itself within `patience`.
///
/// # Panics
/// When it does not end.
pub async fn run(name: &str, args: &[&str], env: &[(&str, &str)], patience: Duration) -> Ended {
    let child = command(name, args, env).spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
    let Ok(output) = tokio::time::timeout(patience, child.wait_with_output()).await else {
        panic!("{name} {args:?} did not end within {patience:?}");
    };
    let output = output.expect("output can be read");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The directory of the binaries under test.
pub fn bin_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        if let Some(dir) = std::env::var_os("E2E_BIN_DIR") {
            return PathBuf::from(dir);
        }
        let root = workspace_root();
        let status = Blocking::new(env!("CARGO"))
            .args(["build", "--quiet", "--release", "-p", "loadbalancer", "-p", "server", "-p", "dashboard"])
            .args(["-p", "xtask"])
            .current_dir(&root)
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the programs under test do not build");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        target.join("release")
    })
}

/// The root of the checkout.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// A directory of this test process, removed by nobody but the system's own clean-up of temporary files. Its name has the time in
/// it, too: a former process with the same number may have left one, with lines in its logs that nobody here has written.
pub fn scratch_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let dir = std::env::temp_dir().join(format!("lb-e2e-{}-{}", std::process::id(), now.as_nanos()));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        dir
    })
}

fn command(name: &str, args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(bin_dir().join(name));
    command.args(args).env_clear();
    for inherited in ["PATH", "HOME"] {
        if let Some(value) = std::env::var_os(inherited) {
            command.env(inherited, value);
        }
    }
    command.env("XDG_RUNTIME_DIR", scratch_dir()).envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn collect(
    stream: impl AsyncRead + Unpin + Send + 'static,
    ready: Option<watch::Sender<Option<String>>>,
) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&text);
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(ready) = &ready
                && line.starts_with("ready ")
            {
                ready.send_replace(Some(line.clone()));
            }
            let mut text = sink.lock().expect("no panic while printing");
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}
