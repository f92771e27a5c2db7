//! The ground of a benchmark: a directory of its own, free ports, backends, and children that end with it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::WORKS;
use crate::{Error, pact};

/// For a program to answer its first request: they need milliseconds, and our balancer its first checks.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// The proxy's core, alone.
pub(super) const PROXY_CORE: &str = "0";

/// Directory, backends and cores of one benchmark.
pub(super) struct Site {
    dir: Dir,
    pub(super) backends: [u16; 3],
    /// The cores that are not the proxy's, as taskset takes them.
    pub(super) load_cores: String,
    /// Held for its drop, which ends it.
    _backend: Process,
}

impl Site {
    /// Starts the backends: one NGINX that answers on three ports, with files it keeps open.
    pub(super) fn new(cores: usize) -> Result<Self, Error> {
        let dir = Dir::new()?;
        let backends = free_ports()?;
        let load_cores = if cores == 2 { "1".to_owned() } else { format!("1-{}", cores - 1) };
        for work in WORKS {
            dir.write(work.path.trim_start_matches('/'), &"x".repeat(work.bytes))?;
        }
        let listen: String = backends.iter().map(|port| format!("    listen 127.0.0.1:{port};\n")).collect();
        let server = format!(
            "  sendfile on;\n  open_file_cache max=10;\n  server {{\n{listen}    root {};\n  }}\n",
            dir.path.display()
        );
        let config = dir.write("backend.conf", &nginx_config(&dir.path, "backend", &server))?;
        let backend = Process::start(&load_cores, Path::new("nginx"), |nginx| nginx.arg("-c").arg(config))?;
        for port in backends {
            wait_for(port)?;
        }
        Ok(Self { dir, backends, load_cores, _backend: backend })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir.path
    }

    /// Writes a file and returns its path.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        self.dir.write(name, text)
    }
}

/// An NGINX configuration with `http`, for one process: nothing is left if it has to be killed, and its CPU time is
/// that of one pid. The event loop is the same as a worker's.
pub(super) fn nginx_config(dir: &Path, name: &str, http: &str) -> String {
    let dir = dir.display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {dir}/{name}-{kind};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/{name}.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n  keepalive_timeout 75s;\n  \
         keepalive_requests 1000000000;\n{temp}{http}}}\n"
    )
}

/// A child on given cores; killed and waited for when dropped.
pub(super) struct Process(Child);

impl Process {
    pub(super) fn start(
        cores: &str,
        program: &Path,
        arguments: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<Self, Error> {
        let mut command = pact::command(Path::new("taskset"));
        command.args(["-c", cores]).arg(program);
        // Debian keeps the peers in /usr/sbin, which is not on every user's path.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        arguments(&mut command).env("PATH", path).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().map_err(|e| Error::Failed(format!("cannot start {}: {e}", program.display())))?;
        Ok(Self(child))
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Different ports that are free now.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N], Error> {
    let failed = |e| Error::Failed(format!("cannot find a free port: {e}"));
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        *port = listener.local_addr().map_err(failed)?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Waits until `port` answers all work rightly.
pub(super) fn wait_for(port: u16) -> Result<(), Error> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let wrong = WORKS.iter().find_map(|work| match get(port, work.path) {
            Ok((200, bytes)) if bytes == work.bytes => None,
            Ok((status, bytes)) => Some(format!("{}: status {status}, {bytes} bytes", work.path)),
            Err(e) => Some(e.to_string()),
        });
        match wrong {
            None => return Ok(()),
            Some(wrong) if Instant::now() > deadline => {
                return Err(Error::Failed(format!("port {port} does not answer as it should: {wrong}")));
            }
            Some(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Status and length of the body.
fn get(port: u16, path: &str) -> std::io::Result<(u16, usize)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(READY_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse_answer(&answer).ok_or_else(|| std::io::Error::other("no whole answer"))
}

fn parse_answer(answer: &[u8]) -> Option<(u16, usize)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.len() - end - 4))
}

/// A temporary directory, removed when dropped.
struct Dir {
    path: PathBuf,
}

impl Dir {
    fn new() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("lb-bench-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| Error::Failed(format!("cannot make {}: {e}", path.display())))?;
        Ok(Self { path })
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        fs::write(&path, text).map_err(|e| Error::Failed(format!("cannot write {}: {e}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_the_length_of_its_body() {
        assert_eq!(parse_answer(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello"), Some((200, 5)));
        assert_eq!(parse_answer(b"HTTP/1.1 503 No\r\n\r\n"), Some((503, 0)));
        assert_eq!(parse_answer(b"HTTP/1.1 200 OK\r\n"), None);
    }

    #[test]
    fn a_process_is_gone_once_it_is_dropped() {
        let process = Process::start(PROXY_CORE, Path::new("sleep"), |sleep| sleep.arg("600")).unwrap();
        let proc = format!("/proc/{}", process.pid());
        assert!(Path::new(&proc).exists());
        drop(process);
        assert!(!Path::new(&proc).exists());
    }
}
