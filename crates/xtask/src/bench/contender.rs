//! The proxies that are compared, each started with one worker.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Process, free_ports};
use super::site::{Dir, READY_WITHIN, nginx_config, serves_files};
use super::work::SMALL;
use super::{config, http, websocket};
use crate::Error;

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    Loadbalancer,
    Nginx,
    Haproxy,
    Caddy,
}

/// What the backends do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Files,
    Sinks,
    Echoes,
    /// They answer every request with a small reply, at the least cost.
    Replies,
}

/// How a proxy is started.
pub(super) struct Setup<'a> {
    pub(super) dir: &'a Dir,
    /// Where our release binary is.
    pub(super) release: &'a Path,
    pub(super) cores: &'a str,
    pub(super) origin: Origin,
    pub(super) backends: &'a [String],
    /// Ours alone: more workers than one, and further arguments.
    pub(super) workers: usize,
    pub(super) arguments: Vec<String>,
}

/// A started proxy; ends when dropped.
pub(super) struct Proxy {
    pub(super) port: u16,
    process: Process,
}

impl Proxy {
    /// Once it answers rightly.
    pub(super) fn ready(port: u16, process: Process, origin: Origin) -> Result<Self, Error> {
        let mut proxy = Self { port, process };
        proxy.process.wait_until(READY_WITHIN, || answers(origin, port))?;
        Ok(proxy)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Contender {
    pub(crate) const ALL: [Self; 4] = [Self::Loadbalancer, Self::Nginx, Self::Haproxy, Self::Caddy];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Loadbalancer => "loadbalancer",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
        }
    }

    /// Starts it on a free port, and waits until it answers rightly.
    pub(super) fn start(self, setup: &Setup<'_>) -> Result<Proxy, Error> {
        let failed = |e| Error::Failed(format!("{} did not start: {e}", self.name()));
        let [port] = free_ports()?;
        let process = self.spawn(setup, port).map_err(failed)?;
        Proxy::ready(port, process, setup.origin).map_err(failed)
    }

    fn spawn(self, setup: &Setup<'_>, port: u16) -> Result<Process, Error> {
        let Setup { dir, cores, backends, .. } = setup;
        let start = |program: &Path, arguments: &dyn Fn(&mut Command)| {
            Process::start(dir.path(), cores, program, |command| {
                arguments(command);
                command
            })
        };
        match self {
            Self::Loadbalancer => start(&setup.release.join("loadbalancer"), &|command| {
                command
                    .args(&setup.arguments)
                    .env("PROXY_BIND", "127.0.0.1")
                    .env("PROXY_PORT", port.to_string())
                    .env("ADMIN_PORT", "0")
                    .env("LB_WORKERS", setup.workers.to_string())
                    .env("RUST_LOG", "warn")
                    .env("BACKENDS", backends.join(","))
                    // Its token file goes away with everything else.
                    .env("XDG_RUNTIME_DIR", dir.path());
            })
            // One that is trained writes down what it has learned at its end.
            .map(Process::gently),
            Self::Nginx => {
                let http = config::nginx(port, setup.origin, backends);
                // Several may run at once.
                let name = format!("nginx-{port}");
                let file = dir.write(&format!("{name}.conf"), &nginx_config(dir.path(), &name, &http))?;
                start(Path::new("nginx"), &|command| {
                    command.arg("-c").arg(&file);
                })
            }
            Self::Haproxy => {
                let file = dir.write(&format!("haproxy-{port}.cfg"), &config::haproxy(port, backends))?;
                start(Path::new("haproxy"), &|command| {
                    command.arg("-db").arg("-f").arg(&file);
                })
            }
            Self::Caddy => {
                let file = dir.write(&format!("Caddyfile-{port}"), &config::caddy(port, backends))?;
                start(Path::new("caddy"), &|command| {
                    command
                        .args(["run", "--adapter", "caddyfile", "--config"])
                        .arg(&file)
                        .env("GOMAXPROCS", "1")
                        // It keeps files of its own below these.
                        .env("HOME", dir.path())
                        .env("XDG_CONFIG_HOME", dir.path())
                        .env("XDG_DATA_HOME", dir.path());
                })
            }
        }
    }

    /// What it says about its version, in one line.
    pub(crate) fn version(self, release: &Path) -> String {
        let (program, argument) = match self {
            Self::Loadbalancer => (release.join(self.name()), "--version"),
            Self::Nginx | Self::Haproxy => (PathBuf::from(self.name()), "-v"),
            Self::Caddy => (PathBuf::from(self.name()), "version"),
        };
        let output = Command::new(program)
            .arg(argument)
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
            .output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        version_number(&String::from_utf8_lossy(&text)).unwrap_or("of unknown version").to_owned()
    }
}

/// The first word that begins like a version: every program puts other words round it.
fn version_number(text: &str) -> Option<&str> {
    let words = text.split(|c: char| c.is_whitespace() || c == '/').map(|word| word.trim_start_matches('v'));
    words
        .map(|word| word.split('-').next().unwrap_or(word))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
}

/// Whether the proxy does what it will be measured at.
fn answers(origin: Origin, port: u16) -> Result<(), String> {
    let connect = || http::connect(port).map_err(|e| format!("port {port}: {e}"));
    match origin {
        Origin::Files => serves_files(port),
        Origin::Replies => http::ask(&mut connect()?, "/small", 0, SMALL),
        Origin::Sinks => http::ask(&mut connect()?, "/upload", 1 << 20, 2),
        Origin::Echoes => websocket::try_once(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_between_other_words() {
        for (text, version) in [
            ("loadbalancer 0.1.0\n", "0.1.0"),
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n", "2.6.12"),
            ("v2.6.2 h1:abc=\n", "2.6.2"),
        ] {
            assert_eq!(version_number(text), Some(version));
        }
        assert_eq!(version_number("sh: not found"), None);
    }
}
