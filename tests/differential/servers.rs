//! The real servers: how each is started, and how the line that it writes for a request is read.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use e2e::program::{bin_dir, scratch_dir, workspace_root};
use tokio::process::{Child, Command};

use super::ledger::Form;

/// One kind of server.
pub(crate) struct Kind {
    pub name: &'static str,
    /// A system's program, or one of the Python environment's.
    program: Where,
    /// `{PORT}` and the like are filled in.
    arguments: &'static [&'static str],
    /// The file that it is configured by, if it has one.
    config: Option<&'static str>,
    pub form: Form,
    /// How many of a hundred mutations it gets: the fast ones more, so that all are done at about the same time.
    pub share: u64,
}

enum Where {
    System(&'static str),
    Venv(&'static str),
}

use Where::{System, Venv};

#[rustfmt::skip]
pub(crate) static KINDS: [Kind; 10] = [
    Kind { name: "nginx", program: System("nginx"), arguments: &["-e", "{DIR}/nginx.error", "-c", "{CONFIG}"],
        config: Some(include_str!("servers/nginx.conf")), form: Form::Nginx, share: 16 },
    Kind { name: "apache", program: System("apache2"), arguments: &["-X", "-d", "{DIR}", "-f", "{CONFIG}"],
        config: Some(include_str!("servers/apache.conf")), form: Form::RequestLine, share: 14 },
    Kind { name: "lighttpd", program: System("lighttpd"), arguments: &["-D", "-f", "{CONFIG}"],
        config: Some(include_str!("servers/lighttpd.conf")), form: Form::RequestLine, share: 16 },
    Kind { name: "node", program: System("node"), arguments: &["{SOURCES}/app.mjs"],
        config: None, form: Form::Plain, share: 14 },
    Kind { name: "gunicorn", program: Venv("gunicorn"), arguments: &["--bind", "127.0.0.1:{PORT}", "--worker-class", "gthread",
        "--threads", "64", "--keep-alive", "600", "--limit-request-line", "0", "--limit-request-field_size", "0", "--log-level", "error", "app:wsgi"],
        config: None, form: Form::Plain, share: 6 },
    Kind { name: "uvicorn with httptools", program: Venv("uvicorn"), arguments: &["--port", "{PORT}", "--http", "httptools", "--loop", "asyncio",
        "--no-access-log", "--log-level", "error", "--timeout-keep-alive", "600", "app:asgi"],
        config: None, form: Form::Asgi, share: 12 },
    Kind { name: "uvicorn with h11", program: Venv("uvicorn"), arguments: &["--port", "{PORT}", "--http", "h11", "--h11-max-incomplete-event-size", "262144",
        "--loop", "asyncio", "--no-access-log", "--log-level", "error", "--timeout-keep-alive", "600", "app:asgi"],
        config: None, form: Form::Asgi, share: 5 },
    Kind { name: "waitress", program: Venv("waitress-serve"), arguments: &["--listen", "127.0.0.1:{PORT}", "--threads", "8",
        "--connection-limit", "1000", "--channel-timeout", "600", "app:wsgi"],
        config: None, form: Form::Plain, share: 5 },
    Kind { name: "hypercorn", program: Venv("hypercorn"), arguments: &["--bind", "127.0.0.1:{PORT}", "--keep-alive", "600", "--log-level", "error", "app:asgi"],
        config: None, form: Form::AsgiUpperCase, share: 4 },
    Kind { name: "aiohttp", program: Venv("python"), arguments: &["{SOURCES}/app.py"],
        config: None, form: Form::Plain, share: 8 },
];

/// A running server; killed when dropped.
pub(crate) struct Server {
    pub kind: &'static Kind,
    pub port: u16,
    pub ledger: PathBuf,
    child: Child,
}

impl Kind {
    /// Whether it is installed. `cargo xtask test` installs all of them and says so, and then none may be missing.
    pub(crate) fn is_there(&self) -> bool {
        if std::env::var("DIFFERENTIAL_SERVER").is_ok_and(|only| only != self.name) {
            return false;
        }
        let there = self.path().is_some();
        assert!(there || std::env::var_os("E2E_REQUIRE_SERVERS").is_none(), "{} is not installed", self.name);
        there
    }

    fn path(&self) -> Option<PathBuf> {
        let (dirs, program) = match self.program {
            System(program) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                // Debian keeps servers where not every user's path leads.
                (std::env::split_paths(&path).chain(["/usr/sbin".into()]).collect(), program)
            }
            Venv(program) => (vec![bin_dir().parent()?.join("python-servers/bin")], program),
        };
        dirs.into_iter().map(|dir| dir.join(program)).find(|path| path.is_file())
    }

    /// Starts one on a free port and waits until it takes connections.
    pub(crate) async fn start(&'static self) -> Server {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("a port can be had").port();
        let dir = scratch_dir().join(self.name.replace(' ', "-"));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        let ledger = dir.join("ledger");
        let sources = workspace_root().join("tests/differential/servers");
        let fill = |text: &str| {
            let path = |path: &Path| path.display().to_string();
            text.replace("{PORT}", &port.to_string())
                .replace("{DIR}", &path(&dir))
                .replace("{LEDGER}", &path(&ledger))
                .replace("{SOURCES}", &path(&sources))
                .replace("{CONFIG}", &path(&dir.join("config")))
        };
        if let Some(config) = self.config {
            std::fs::write(dir.join("config"), fill(config)).expect("the temporary directory is writable");
        }
        let log = std::fs::File::create(dir.join("output")).expect("the temporary directory is writable");
        let program = self.path().unwrap_or_else(|| panic!("{} is not installed", self.name));
        let mut command = Command::new(program);
        command.args(self.arguments.iter().map(|argument| fill(argument))).current_dir(&sources);
        command.env("PORT", port.to_string()).env("LEDGER", &ledger).env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {}: {e}", self.name));
        let up = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok();
        e2e::eventually(&format!("{} serves; its words are in {}", self.name, dir.display()), up).await;
        Server { kind: self, port, ledger, child }
    }
}

impl Server {
    /// Asks it to end, so that it writes out what it holds back, and waits for that.
    pub(crate) async fn stop(&mut self) {
        let pid = self.child.id().unwrap_or_else(|| panic!("{} has ended by itself", self.kind.name)).to_string();
        let status = std::process::Command::new("kill").args(["-s", "TERM", &pid]).status().expect("kill runs");
        assert!(status.success(), "kill -s TERM {pid}");
        let ended = tokio::time::timeout(e2e::PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} does not end", self.kind.name)).expect("a child can be waited for");
    }
}
