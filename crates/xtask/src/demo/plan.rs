//! What runs in the demo, and on which ports. Pure.

use std::path::Path;

/// The README's ports: proxy 8080, servers 8081 to 8083, admin API 8089, dashboard 8090.
pub(crate) const DEFAULT_PORT_BASE: u16 = 8080;

/// Names that a person can tell apart at a glance, in alphabetical order as the ports are.
const SERVER_NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

const ADMIN_OFFSET: u16 = 9;
const DASHBOARD_OFFSET: u16 = 10;

/// Everything stays on this machine: a demo is no reason to open a port to the network.
pub(crate) const HOST: &str = "127.0.0.1";

/// The ports of one demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) proxy: u16,
    pub(crate) admin: u16,
    pub(crate) dashboard: u16,
    pub(crate) servers: Vec<(&'static str, u16)>,
}

/// One process to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// The binary: `loadbalancer`, `server` or `dashboard`.
    pub(crate) program: &'static str,
    /// What a person calls this process, and the prefix of its log lines.
    pub(crate) name: &'static str,
    pub(crate) url: String,
    pub(crate) env: Vec<(&'static str, String)>,
    pub(crate) args: Vec<String>,
}

impl Plan {
    /// The plan that starts at `base`.
    ///
    /// # Errors
    /// When `base` is 0 or its last port would be beyond 65535.
    pub(crate) fn at(base: u16) -> Result<Self, String> {
        let highest = u16::MAX - DASHBOARD_OFFSET;
        if base == 0 {
            return Err(format!(
                "--port-base 0 is not supported: the demo's ports follow one another, so the first must \
                 be known; give a port from 1 to {highest}"
            ));
        }
        if base > highest {
            return Err(format!(
                "--port-base {base} is too high: the demo uses the ports from N to N+{DASHBOARD_OFFSET}; give a port \
                 from 1 to {highest}"
            ));
        }
        Ok(Self {
            proxy: base,
            admin: base + ADMIN_OFFSET,
            dashboard: base + DASHBOARD_OFFSET,
            servers: SERVER_NAMES.into_iter().zip(base + 1..).collect(),
        })
    }

    /// Each port with what will listen there, in words.
    pub(crate) fn ports(&self) -> Vec<(u16, String)> {
        let mut ports = vec![(self.proxy, "loadbalancer, proxy".to_owned())];
        ports.extend(self.servers.iter().map(|(name, port)| (*port, format!("server {name}"))));
        ports.push((self.admin, "loadbalancer, admin API".to_owned()));
        ports.push((self.dashboard, "dashboard".to_owned()));
        ports
    }

    pub(crate) fn proxy_url(&self) -> String {
        url(self.proxy)
    }

    pub(crate) fn admin_url(&self) -> String {
        url(self.admin)
    }

    pub(crate) fn dashboard_url(&self) -> String {
        url(self.dashboard)
    }

    /// The servers: they come first, so that the load balancer's first checks find them.
    pub(crate) fn servers(&self) -> Vec<Spec> {
        let server = |&(name, port): &(&'static str, u16)| Spec {
            program: "server",
            name,
            url: url(port),
            env: vec![
                ("SERVER_BIND", HOST.to_owned()),
                ("SERVER_PORT", port.to_string()),
                ("SERVER_NAME", name.to_owned()),
            ],
            // Faults can be switched at run time only in a server that was started with the flag.
            args: vec!["--faults".to_owned(), "none".to_owned()],
        };
        self.servers.iter().map(server).collect()
    }

    pub(crate) fn loadbalancer(&self) -> Spec {
        let backend = |(name, port): &(&str, u16)| ["--backend".to_owned(), format!("{HOST}:{port},name={name}")];
        Spec {
            program: "loadbalancer",
            name: "loadbalancer",
            url: self.proxy_url(),
            env: vec![
                ("PROXY_BIND", HOST.to_owned()),
                ("PROXY_PORT", self.proxy.to_string()),
                ("ADMIN_BIND", HOST.to_owned()),
                ("ADMIN_PORT", self.admin.to_string()),
            ],
            args: self.servers.iter().flat_map(backend).collect(),
        }
    }

    pub(crate) fn dashboard(&self) -> Spec {
        Spec {
            program: "dashboard",
            name: "dashboard",
            url: self.dashboard_url(),
            env: vec![
                ("DASHBOARD_PORT", self.dashboard.to_string()),
                ("LOAD_BALANCER_URL", self.proxy_url()),
                ("ADMIN_URL", self.admin_url()),
            ],
            args: Vec::new(),
        }
    }
}

impl Spec {
    /// A line that starts this process again, to paste into a shell. Nothing in it needs quoting.
    pub(crate) fn shell_line(&self, bin_dir: &Path) -> String {
        let env = self.env.iter().map(|(name, value)| format!("{name}={value}"));
        let binary = bin_dir.join(self.program).display().to_string();
        let words: Vec<String> = env.chain([binary]).chain(self.args.iter().cloned()).collect();
        words.join(" ")
    }
}

fn url(port: u16) -> String {
    format!("http://{HOST}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_base_gives_the_ports_of_the_readme() {
        let plan = Plan::at(DEFAULT_PORT_BASE).unwrap();
        assert_eq!((plan.proxy, plan.admin, plan.dashboard), (8080, 8089, 8090));
        assert_eq!(plan.servers, [("alpha", 8081), ("beta", 8082), ("gamma", 8083)]);
        let ports: Vec<u16> = plan.ports().into_iter().map(|(port, _)| port).collect();
        assert_eq!(ports, [8080, 8081, 8082, 8083, 8089, 8090]);
    }

    #[test]
    fn a_base_without_room_is_refused_and_says_what_would_do() {
        assert!(Plan::at(0).unwrap_err().contains("from 1 to 65525"));
        assert!(Plan::at(65526).unwrap_err().contains("from 1 to 65525"));
        assert_eq!(Plan::at(65525).unwrap().dashboard, 65535);
        assert_eq!(Plan::at(1).unwrap().proxy, 1);
    }

    #[test]
    fn every_program_is_told_its_ports_and_where_the_others_are() {
        let plan = Plan::at(100).unwrap();
        let loadbalancer = plan.loadbalancer().shell_line(Path::new("bin"));
        assert_eq!(
            loadbalancer,
            "PROXY_BIND=127.0.0.1 PROXY_PORT=100 ADMIN_BIND=127.0.0.1 ADMIN_PORT=109 bin/loadbalancer \
             --backend 127.0.0.1:101,name=alpha --backend 127.0.0.1:102,name=beta --backend 127.0.0.1:103,name=gamma"
        );
        assert_eq!(
            plan.servers()[2].shell_line(Path::new("bin")),
            "SERVER_BIND=127.0.0.1 SERVER_PORT=103 SERVER_NAME=gamma bin/server --faults none"
        );
        assert_eq!(
            plan.dashboard().shell_line(Path::new("bin")),
            "DASHBOARD_PORT=110 LOAD_BALANCER_URL=http://127.0.0.1:100 ADMIN_URL=http://127.0.0.1:109 bin/dashboard"
        );
    }
}
