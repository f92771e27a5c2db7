//! A panic in a worker's task costs one connection: the process lives, a counter says so, nothing else is disturbed.
//!
//! Nothing in the program can be made to panic from outside, so a subscriber to its log panics instead, in the middle of
//! the task that logs. This runs the whole load balancer as a process of its own: this test binary, called again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use loadbalancer::config::{self, Command as Asked};
use loadbalancer::{Ended, Signals, run};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

const PATIENCE: Duration = Duration::from_secs(20);

/// Where the child finds its backend.
const BACKEND: &str = "PANIC_TEST_BACKEND";

/// Panics when an attempt at a backend breaks: the request is counted as in flight then.
struct PanicsAtABrokenAttempt;

impl<S: tracing::Subscriber> Layer<S> for PanicsAtABrokenAttempt {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Message(bool);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0 |= field.name() == "message" && format!("{value:?}") == "attempt broke";
            }
        }
        let mut message = Message(false);
        event.record(&mut message);
        assert!(!message.0, "this panic is what the test is about");
    }
}

#[test]
#[ignore = "the load balancer that the other test starts as a process"]
fn the_load_balancer() {
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(PanicsAtABrokenAttempt)).unwrap();
    let backend = std::env::var(BACKEND).expect("started by the other test");
    let words =
        "loadbalancer --port 0 --bind 127.0.0.1 --admin-port 0 --workers 1 --retries 0 --check-interval 1h --backend";
    let args = words.split(' ').chain([backend.as_str()]).map(Into::into);
    let Ok(Ok(Asked::Run(config))) = config::parse(args, |_| None) else { panic!("the options are good") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async { run(*config, Signals::new().unwrap()).await });
    assert_eq!(ended.unwrap(), Ended::Drained);
}

/// The child; killed when dropped.
struct Process {
    child: Child,
    proxy: String,
    admin: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(backend: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "the_load_balancer", "--nocapture"]).env(BACKEND, backend);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // libtest says what it runs on the same line.
        let ready = lines.find(|line| line.contains("ready loadbalancer ")).expect("it becomes ready");
        let field = |key: &str| {
            let found = ready.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix("=http://"));
            found.expect("a field of the ready line").to_owned()
        };
        let (proxy, admin) = (field("proxy"), field("admin"));
        thread::spawn(move || lines.for_each(drop));
        Self { child, proxy, admin }
    }

    /// A number on the metrics page.
    fn metric(&self, name: &str) -> f64 {
        let page = get(&mut connect(&self.admin), "/metrics");
        let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name} in:\n{page}"))
    }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
}

fn get(stream: &mut TcpStream, path: &str) -> String {
    ask(stream, path);
    answer(stream)
}

/// A whole answer, by its Content-Length.
fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200 "), "{text}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if body.len() >= length.expect("a length") {
                return text.into_owned();
            }
        }
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "closed after {text:?}");
        bytes.extend_from_slice(&buffer[..read]);
    }
}

/// A backend that closes the connection at `/broken`, answers `/held` when told to, and anything else at once.
fn backend() -> (String, std::sync::mpsc::Sender<()>, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (release, released) = channel();
    let released = std::sync::Arc::new(std::sync::Mutex::new(released));
    let (seen_tx, seen) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (released, seen) = (std::sync::Arc::clone(&released), seen_tx.clone());
            thread::spawn(move || serve(stream, &released, &seen));
        }
    });
    (address, release, seen)
}

fn serve(stream: TcpStream, released: &std::sync::Mutex<Receiver<()>>, seen: &std::sync::mpsc::Sender<String>) {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    while matches!(reader.read_line(&mut line), Ok(1..)) {
        if let Some(path) = line.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) {
            let _ = seen.send(path.to_owned());
            match path {
                "/broken" => return,
                "/held" => released.lock().unwrap().recv().unwrap(),
                _ => {}
            }
            let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        line.clear();
    }
}

#[test]
fn a_panic_in_a_workers_task_costs_one_connection() {
    let (address, release, seen) = backend();
    let mut process = Process::start(&address);
    // On the one worker there are a connection between two requests, one inside a request, and the one that breaks.
    let mut idle = connect(&process.proxy);
    assert!(get(&mut idle, "/").ends_with("ok"));
    let mut held = connect(&process.proxy);
    ask(&mut held, "/held");
    while seen.recv_timeout(PATIENCE).expect("the request arrives") != "/held" {}
    assert_eq!(process.metric("lb_panics_total"), 0.0);

    let mut broken = connect(&process.proxy);
    ask(&mut broken, "/broken");
    let mut rest = Vec::new();
    // Closed or reset; what must not come is an answer.
    let _ = broken.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{}", rest.escape_ascii());

    let started = Instant::now();
    while process.metric("lb_panics_total") != 1.0 || process.metric("lb_in_flight") != 1.0 {
        assert!(started.elapsed() < PATIENCE, "the panic is not counted, or its request still counts as in flight");
    }
    assert!(get(&mut idle, "/").ends_with("ok"), "a connection that was idle");
    release.send(()).unwrap();
    assert!(answer(&mut held).ends_with("ok"), "a request that was under way");
    assert!(get(&mut connect(&process.proxy), "/").ends_with("ok"), "a new connection");
    while process.metric("lb_in_flight") != 0.0 {
        assert!(started.elapsed() < PATIENCE, "nothing is under way, and something counts");
    }
    assert_eq!(process.metric("lb_panics_total"), 1.0);
    drop((idle, held));
    assert!(process.child.try_wait().unwrap().is_none(), "the process lives");
    let term = Command::new("kill").args(["-s", "TERM", &process.child.id().to_string()]).status().unwrap();
    assert!(term.success() && process.child.wait().unwrap().success(), "and ends in order");
}

#[test]
fn the_release_binary_unwinds_too() {
    // With `panic = "abort"` the test above would still pass, and the shipped program would die.
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let manifest: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
    let release = &manifest["profile"]["release"];
    assert!(release.get("panic").is_none_or(|how| how.as_str() == Some("unwind")), "{release:?}");
}
