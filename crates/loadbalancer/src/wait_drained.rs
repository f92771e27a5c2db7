//! `loadbalancer wait-drained`: asks a running balancer's admin API until a backend is safe to stop, for scripts that
//! deploy. It changes nothing there, and says in words how it ended; [`Failed::exit_code`] says it to the script.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_core::api::{DrainReport, Problem, runtime_dir, token_file_name};
use lb_core::health::Failure;
use lb_core::probe;
use lb_core::probe::reply::Judge;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::config::{AdminAddress, WaitDrained};

/// One question waits for so long in the balancer, so that a break of the network in between is noticed.
const ONE_WAIT: Duration = Duration::from_secs(20);

/// For an answer beyond that wait, and for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer may be so late at the end of the time that was asked for, and not more: what runs this has a limit of its own.
const GRACE: Duration = Duration::from_secs(1);

/// From one question to the next while the balancer lets nobody else wait in it.
const PAUSE: Duration = Duration::from_secs(1);

/// A longer answer is none of the admin API's.
const MOST_ANSWER: usize = 64 * 1024;

/// A longer file is no token.
const MOST_TOKEN: usize = 4096;

/// Why it is not known to be safe to stop the backend.
#[derive(Debug)]
pub enum Failed {
    /// Something is still in flight; says what.
    TimeIsUp(String),
    /// Nobody asked the backend to drain, so that it never will be safe.
    NotDraining(String),
    /// The balancer knows no such backend.
    Unknown(String),
    /// The token is missing or wrong.
    Token(String),
    /// The balancer does not answer, or not as it should.
    Unreachable(String),
}

impl Failed {
    /// 1 when the time is up, 3 when nobody asked for the drain, 4 for no such backend, 69 (`EX_UNAVAILABLE`) when the
    /// balancer cannot be asked, 77 (`EX_NOPERM`) for the token.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::TimeIsUp(_) => 1,
            Self::NotDraining(_) => 3,
            Self::Unknown(_) => 4,
            Self::Unreachable(_) => 69,
            Self::Token(_) => 77,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimeIsUp(words)
            | Self::NotDraining(words)
            | Self::Unknown(words)
            | Self::Token(words)
            | Self::Unreachable(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for Failed {}

/// Waits until the backend is safe to stop, and says so in words.
///
/// # Errors
/// It is not, or that cannot be known.
pub async fn wait_drained(asked: &WaitDrained) -> Result<String, Failed> {
    let token = token(asked)?;
    let until = Instant::now() + asked.timeout;
    let mut crowded = false;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = if crowded { Duration::ZERO } else { left.min(ONE_WAIT) };
        let report = match ask(asked, &token, wait, until + GRACE).await? {
            Said::Report(report) => report,
            Said::Crowded => {
                crowded = true;
                continue;
            }
        };
        let name = format!("backend {} of pool {}", asked.backend, asked.pool);
        if report.safe_to_stop {
            return Ok(format!("{name} is {}", report.words));
        }
        if report.drain.is_none() {
            return Err(Failed::NotDraining(report.words));
        }
        if Instant::now() >= until {
            let words = format!("{name} is not drained within {:?}: {}", asked.timeout, report.words);
            return Err(Failed::TimeIsUp(words));
        }
        if crowded {
            tokio::time::sleep(PAUSE.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }
}

/// One question, which waits for up to `wait` in the balancer, and must be answered by `latest`.
async fn ask(asked: &WaitDrained, token: &str, wait: Duration, latest: Instant) -> Result<Said, Failed> {
    let WaitDrained { admin, pool, backend, .. } = asked;
    let request = format!(
        "GET {}/v1/pools/{}/backends/{}/drain?wait={}ms HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
         Accept: application/json\r\nConnection: close\r\n\r\n",
        admin.path,
        encoded(pool),
        encoded(backend),
        wait.as_millis(),
        admin.authority()
    );
    let unreachable = |words: String| Failed::Unreachable(format!("{admin} cannot be asked: {words}"));
    let mut connection = connect(admin, latest).await.map_err(unreachable)?;
    let mut answer = Answer::default();
    let started = Instant::now();
    let deadline = latest.min(started + wait + PATIENCE);
    let exchanged = probe::exchange(&mut connection, request.as_bytes(), false, &mut answer, started, deadline);
    exchanged.await.map_err(|failure| unreachable(failure.in_full()))?;
    answer.said(admin, wait)
}

/// What came of a question.
#[derive(Debug)]
enum Said {
    Report(DrainReport),
    /// As many wait in the balancer as may; who does not wait is answered.
    Crowded,
}

/// A name may be several addresses, and the balancer listen on only one of them: all are tried,
/// until `latest`.
async fn connect(admin: &AdminAddress, latest: Instant) -> Result<TcpStream, String> {
    let soon = || latest.min(Instant::now() + PATIENCE);
    let found = timeout_at(soon(), tokio::net::lookup_host((admin.host.as_str(), admin.port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("{} is not resolved in time", admin.host)),
    };
    let mut words = "its name has no address".to_owned();
    for address in addresses {
        match timeout_at(soon(), TcpStream::connect(address)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => words = format!("{address}: {error}"),
            Err(_) => words = format!("{address}: no connection in time"),
        }
    }
    Err(words)
}

/// What was answered.
#[derive(Default)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    /// What it says to a question that waited for up to `wait`.
    fn said(&self, admin: &AdminAddress, wait: Duration) -> Result<Said, Failed> {
        let unreachable = |words: String| Err(Failed::Unreachable(format!("{admin} cannot be asked: {words}")));
        if self.status == 200 {
            return match serde_json::from_slice(&self.body) {
                Ok(report) => Ok(Said::Report(report)),
                Err(error) => unreachable(format!("not its admin API? {error}")),
            };
        }
        let (kind, detail) = match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => (problem.kind, problem.detail),
            Err(_) => (String::new(), format!("it answered {}", self.status)),
        };
        match (self.status, kind.as_str()) {
            (401, _) => Err(Failed::Token(format!("{admin} refuses the token: {detail}"))),
            // Any other 404 is of a wrong path, or of something else than a balancer.
            (404, "/problems/unknown-backend") => Err(Failed::Unknown(detail)),
            (503, "/problems/too-many-waits") if !wait.is_zero() => Ok(Said::Crowded),
            _ => unreachable(detail),
        }
    }
}

impl Judge for Answer {
    fn status(&mut self, status: u16) -> Result<(), Failure> {
        self.status = status;
        Ok(())
    }

    fn body(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.body.extend_from_slice(piece);
        if self.body.len() > MOST_ANSWER {
            let words = format!("its answer is longer than {MOST_ANSWER} bytes");
            return Err(Failure::new(lb_core::api::ReasonCode::TooLong, words));
        }
        Ok(())
    }
}

/// RFC 3986 §2.1: names may hold characters that mean something in a path.
fn encoded(name: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// The operator's token, or the one that a balancer of the same user keeps.
fn token(asked: &WaitDrained) -> Result<String, Failed> {
    let token = match (&asked.token, &asked.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => read(path)?,
        (None, None) if is_this_machine(&asked.admin.host) => read(&kept(asked.admin.port))?,
        // The kept one is of a balancer here, and would be shown to whoever listens there.
        (None, None) => {
            let words = format!("{} may be another machine: name its token with --admin-token-file", asked.admin);
            return Err(Failed::Token(format!("{words}, or set ADMIN_TOKEN")));
        }
    };
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failed::Token("the admin token is empty, or has characters that no token has".to_owned()));
    }
    Ok(token.to_owned())
}

fn is_this_machine(host: &str) -> bool {
    let loopback = |address: IpAddr| address.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(loopback)
}

fn read(path: &Path) -> Result<String, Failed> {
    let words = |error: &dyn fmt::Display| {
        Failed::Token(format!(
            "the admin token cannot be read from {}: {error}; name it with --admin-token-file, or set ADMIN_TOKEN",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(path).map_err(|error| words(&error))?;
    if text.len() > MOST_TOKEN { Err(words(&"it is too long for a token")) } else { Ok(text) }
}

fn kept(port: u16) -> PathBuf {
    // Without /proc nobody is root, and the temporary directory is looked at.
    let own = std::fs::metadata("/proc/self").map_or(u32::MAX, |own| own.uid());
    runtime_dir(|name| std::env::var(name).ok(), own, std::env::temp_dir()).join(token_file_name(port))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn names_stay_one_segment_of_a_path() {
        assert_eq!(encoded("[::1]:8081"), "%5B%3A%3A1%5D%3A8081");
        assert_eq!(encoded("a/../b?c#d%"), "a%2F..%2Fb%3Fc%23d%25");
    }

    fn asked(port: u16, host: &str) -> WaitDrained {
        WaitDrained {
            pool: "default".to_owned(),
            backend: "b".to_owned(),
            timeout: Duration::from_secs(10),
            admin: AdminAddress { host: host.to_owned(), port, path: String::new() },
            token: None,
            token_file: None,
        }
    }

    fn problem(status: u16, kind: &str) -> Answer {
        let body = serde_json::json!({ "type": kind, "title": "t", "status": status, "detail": "why" });
        Answer { status, body: body.to_string().into_bytes() }
    }

    #[test]
    fn only_an_unknown_backend_is_one() {
        let admin = asked(1, "lb").admin;
        let code = |answer: Answer| answer.said(&admin, Duration::ZERO).unwrap_err().exit_code();
        assert_eq!(code(problem(404, "/problems/unknown-backend")), 4);
        assert_eq!(code(problem(404, "/problems/unknown-path")), 69);
        assert_eq!(code(Answer { status: 404, body: b"<html>".to_vec() }), 69);
        assert_eq!(code(problem(401, "/problems/unauthorized")), 77);
        assert_eq!(code(problem(503, "/problems/too-many-waits")), 69, "it did not wait");
    }

    #[tokio::test]
    async fn where_too_many_wait_it_asks_without_waiting() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let balancer = tokio::spawn(async move {
            let mut targets = Vec::new();
            let report = |safe: bool| {
                let in_flight = lb_core::api::InFlight::default();
                let report = serde_json::json!({
                    "pool": "default", "backend": "b", "admin": "drain", "safe_to_stop": safe, "words": "safe to stop",
                    "in_flight": in_flight, "drain": {
                        "since_unix_ms": 1, "safe_to_stop": safe, "safe_since_unix_ms": null, "deadline_unix_ms": null,
                        "overdue": false, "at_deadline": "wait", "words": "w",
                    },
                });
                Answer { status: 200, body: report.to_string().into_bytes() }
            };
            for answer in [problem(503, "/problems/too-many-waits"), report(false), report(true)] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                targets.push(String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned());
                let (status, length) = (answer.status, answer.body.len());
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                stream.write_all(&[head.as_bytes(), &answer.body].concat()).await.unwrap();
            }
            targets
        });
        let asked = WaitDrained { token: Some("secret".to_owned()), ..asked(port, "127.0.0.1") };
        assert_eq!(wait_drained(&asked).await.unwrap(), "backend b of pool default is safe to stop");
        let targets = balancer.await.unwrap();
        assert!(!targets[0].contains("wait=0ms") && targets[1..].iter().all(|target| target.contains("wait=0ms")));
    }

    #[tokio::test]
    async fn a_balancer_that_does_not_answer_takes_no_longer_than_was_asked_for_and_a_moment() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (token, timeout) = (Some("secret".to_owned()), Duration::from_millis(100));
        let asked = WaitDrained { token, timeout, ..asked(port, "127.0.0.1") };
        let started = Instant::now();
        assert_eq!(wait_drained(&asked).await.unwrap_err().exit_code(), 69);
        assert!(started.elapsed() < timeout + GRACE + Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[test]
    fn the_kept_token_is_not_shown_to_other_machines() {
        for (host, here) in
            [("localhost", true), ("127.0.0.9", true), ("::1", true), ("lb", false), ("10.0.0.1", false)]
        {
            assert_eq!(is_this_machine(host), here, "{host}");
        }
        let refused = token(&asked(1, "lb.example")).unwrap_err();
        assert_eq!(refused.exit_code(), 77);
        assert!(refused.to_string().contains("--admin-token-file"), "{refused}");
    }
}
