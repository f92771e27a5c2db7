//! The proxies that are compared, each with one worker and settings that ask the same of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::site::{PROXY_CORE, Process, Site, free_ports, nginx_config, wait_for};
use crate::Error;

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    Loadbalancer,
    Nginx,
    Haproxy,
}

/// A started proxy; ends when dropped.
pub(super) struct Proxy {
    pub(super) port: u16,
    process: Process,
}

impl Proxy {
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Contender {
    pub(super) const ALL: [Self; 3] = [Self::Loadbalancer, Self::Nginx, Self::Haproxy];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Loadbalancer => "loadbalancer",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    pub(super) fn is_peer(self) -> bool {
        self != Self::Loadbalancer
    }

    /// Starts it on a free port, and waits until it answers rightly through every backend's port.
    pub(super) fn start(self, site: &Site, release: &Path) -> Result<Proxy, Error> {
        let [port] = free_ports()?;
        let process = match self {
            Self::Loadbalancer => {
                let backends = site.backends.map(|port| format!("127.0.0.1:{port}")).join(",");
                Process::start(PROXY_CORE, &release.join("loadbalancer"), |command| {
                    command
                        .env("PROXY_BIND", "127.0.0.1")
                        .env("PROXY_PORT", port.to_string())
                        .env("ADMIN_PORT", "0")
                        .env("LB_WORKERS", "1")
                        .env("RUST_LOG", "warn")
                        .env("BACKENDS", backends)
                        // Its token file goes away with everything else.
                        .env("XDG_RUNTIME_DIR", site.dir())
                })?
            }
            Self::Nginx => {
                let text = nginx_config(site.dir(), "nginx", &nginx_http(port, site.backends));
                let config = site.write("nginx.conf", &text)?;
                Process::start(PROXY_CORE, Path::new("nginx"), |command| command.arg("-c").arg(config))?
            }
            Self::Haproxy => {
                let config = site.write("haproxy.cfg", &haproxy_config(port, site.backends))?;
                Process::start(PROXY_CORE, Path::new("haproxy"), |command| command.arg("-db").arg("-f").arg(config))?
            }
        };
        let proxy = Proxy { port, process };
        wait_for(port).map_err(|e| Error::Failed(format!("{}: {e}", self.name())))?;
        Ok(proxy)
    }

    /// What it says about its version, in one line.
    pub(super) fn version(self, release: &Path) -> String {
        let (program, argument) = match self {
            Self::Loadbalancer => (release.join(self.name()), "--version"),
            Self::Nginx | Self::Haproxy => (PathBuf::from(self.name()), "-v"),
        };
        let output = Command::new(program)
            .arg(argument)
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
            .output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown version").to_owned()
    }
}

/// 128 idle connections: both sides of 64 clients fit, so that none is opened again and again.
fn nginx_http(port: u16, backends: [u16; 3]) -> String {
    let servers = backends.map(|port| format!("    server 127.0.0.1:{port};\n")).concat();
    format!(
        "  upstream pool {{\n{servers}    keepalive 128;\n    keepalive_requests 1000000000;\n  }}\n  server {{\n    \
         listen 127.0.0.1:{port};\n    location / {{\n      proxy_pass http://pool;\n      proxy_http_version 1.1;\n      \
         proxy_set_header Host $http_host;\n      proxy_set_header Connection \"\";\n      \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n    }}\n  }}\n"
    )
}

/// `http-reuse always`, because the others reuse any idle connection, too.
fn haproxy_config(port: u16, backends: [u16; 3]) -> String {
    let servers = backends.map(|port| format!("  server s{port} 127.0.0.1:{port}\n")).concat();
    format!(
        "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 75s\n  \
         timeout server 30s\n  option forwardfor\n  http-reuse always\nfrontend front\n  bind 127.0.0.1:{port}\n  \
         default_backend pool\nbackend pool\n  balance roundrobin\n{servers}"
    )
}
