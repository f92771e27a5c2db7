//! The ground of a benchmark: a directory of its own, the cores, and the backends that answer with small replies and files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::http;
use super::process::{Process, free_ports};
use super::work::{Kind, WORKS};
use crate::Error;

/// For a program to answer its first request: they need milliseconds, and our balancer its first checks.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(10);

/// Which cores do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    /// The proxy's, alone.
    pub(crate) proxy: String,
    /// All others: load and backends.
    pub(crate) load: String,
    /// What is left for the load beside a proxy on cores 0 and 1; all, if nothing is.
    pub(crate) load_beside_two: String,
}

impl Cores {
    /// `None` on a machine with one core.
    pub(crate) fn share(cores: usize) -> Option<Self> {
        let last = cores.checked_sub(1).filter(|last| *last > 0)?;
        let from = |first: usize| if first == last { first.to_string() } else { format!("{first}-{last}") };
        let load_beside_two = from(if last > 1 { 2 } else { 0 });
        Some(Self { proxy: "0".to_owned(), load: from(1), load_beside_two })
    }
}

/// A temporary directory, removed when dropped.
pub(crate) struct Dir {
    path: PathBuf,
}

impl Dir {
    pub(crate) fn new() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("lb-bench-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| Error::Failed(format!("cannot make {}: {e}", path.display())))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
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

/// Replies up to this are said from memory, in one piece with their head, as applications do; what is longer is a file.
const SAID: usize = 1024;

/// One NGINX that answers the requests of all works at many addresses.
pub(super) struct FileServer {
    /// As HOST:PORT.
    pub(super) addresses: Vec<String>,
    /// Held for its drop, which ends it.
    _process: Process,
}

impl FileServer {
    /// `count` servers on one port: every address of 127.0.0.0/8 is this machine.
    pub(super) fn start(dir: &Dir, cores: &str, count: usize) -> Result<Self, Error> {
        let [port] = free_ports()?;
        let addresses: Vec<String> =
            (0..count).map(|n| format!("127.0.{}.{}:{port}", 1 + n / 250, 1 + n % 250)).collect();
        let mut said = String::new();
        // Several works ask for the same.
        for (path, bytes) in files().collect::<BTreeMap<_, _>>() {
            let body = "x".repeat(bytes);
            if bytes <= SAID {
                let _ = writeln!(said, "    location = {path} {{ return 200 {body}; }}");
            } else {
                dir.write(path.trim_start_matches('/'), &body)?;
            }
        }
        // The first address is that of `http::connect`.
        let listen: String = std::iter::once(format!("127.0.0.1:{port}"))
            .chain(addresses.iter().cloned())
            .map(|address| format!("    listen {address};\n"))
            .collect();
        let root = dir.path().display();
        // Without `tcp_nopush` the head of a file is a packet of its own.
        let server = format!(
            "  sendfile on;\n  tcp_nopush on;\n  open_file_cache max=10;\n  server {{\n{listen}    root {root};\n{said}  }}\n"
        );
        let name = format!("backend-{port}");
        let config = dir.write(&format!("{name}.conf"), &nginx_config(dir.path(), &name, &server))?;
        let mut process = Process::start(dir.path(), cores, Path::new("nginx"), |nginx| nginx.arg("-c").arg(config))?;
        process.wait_until(READY_WITHIN, || serves_files(port)).map_err(|e| Error::Failed(format!("backends: {e}")))?;
        Ok(Self { addresses, _process: process })
    }
}

/// Everything that is asked for, with its length.
fn files() -> impl Iterator<Item = (&'static str, usize)> {
    WORKS.iter().filter_map(|work| match work.kind {
        Kind::Http(http) if http.upload == 0 => Some((http.path, http.reply)),
        _ => None,
    })
}

/// Whether the port answers rightly for every file.
pub(super) fn serves_files(port: u16) -> Result<(), String> {
    let mut stream = http::connect(port).map_err(|e| format!("port {port}: {e}"))?;
    files().try_for_each(|(path, bytes)| http::ask(&mut stream, path, 0, bytes))
}

/// An NGINX configuration with `http`, for one process: nothing is left if it has to be killed, and its CPU time is
/// that of one pid. The event loop is the same as a worker's.
pub(crate) fn nginx_config(dir: &Path, name: &str, http: &str) -> String {
    let dir = dir.display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {dir}/{name}-{kind};\n"))
        .concat();
    // 16,384 connections are enough for 8,000 idle ones and their like on the other side.
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/{name}.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 16384; }}\nhttp {{\n  access_log off;\n  keepalive_timeout 75s;\n  \
         keepalive_requests 1000000000;\n{temp}{http}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_has_its_core_alone() {
        let load = |cores| Cores::share(cores).map(|cores| [cores.load, cores.load_beside_two]);
        let expected = |load: &str, beside: &str| Some([load.to_owned(), beside.to_owned()]);
        assert_eq!([load(1), load(2)], [None, expected("1", "0-1")]);
        assert_eq!([load(3), load(8)], [expected("1-2", "2"), expected("1-7", "2-7")]);
    }

    #[test]
    fn every_length_of_reply_has_a_file() {
        let files: Vec<_> = files().collect();
        for wanted in [("/small", 128), ("/large", 16 << 10), ("/huge", 1 << 20)] {
            assert!(files.contains(&wanted), "{wanted:?}");
        }
        assert!(files.iter().all(|(path, _)| *path != "/upload"), "an upload is no file");
    }
}
