//! `loadbalancer wait-drained`: asks a running balancer's admin API until a backend is safe to stop, for scripts that
//! deploy. It changes nothing there, and says in words how it ended; [`Failed::exit_code`] says it to the script.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_core::api::{DrainReport, Problem, runtime_dir, token_file_name};
use lb_core::health::Failure;
use lb_core::probe;
use lb_core::probe::reply::Judge;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{AdminAddress, WaitDrained};

/// One question waits for so long in the balancer, so that a break of the network in between is noticed.
const ONE_WAIT: Duration = Duration::from_secs(20);

/// For an answer beyond that wait, and for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

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
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let report = ask(asked, &token, left.min(ONE_WAIT)).await?;
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
    }
}

/// One question, which waits for up to `wait` in the balancer.
async fn ask(asked: &WaitDrained, token: &str, wait: Duration) -> Result<DrainReport, Failed> {
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
    let mut connection = connect(admin).await.map_err(unreachable)?;
    let mut answer = Answer::default();
    let started = Instant::now();
    let deadline = started + wait + PATIENCE;
    let exchanged = probe::exchange(&mut connection, request.as_bytes(), false, &mut answer, started, deadline);
    exchanged.await.map_err(|failure| unreachable(failure.words))?;
    let detail = || {
        let problem = serde_json::from_slice::<Problem>(&answer.body);
        problem.map_or_else(|_| format!("it answered {}", answer.status), |problem| problem.detail)
    };
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map_err(|error| unreachable(format!("not its admin API? {error}"))),
        401 => Err(Failed::Token(format!("{admin} refuses the token: {}", detail()))),
        404 => Err(Failed::Unknown(detail())),
        _ => Err(unreachable(detail())),
    }
}

/// A name may be several addresses, and the balancer listen on only one of them: all are tried.
async fn connect(admin: &AdminAddress) -> Result<TcpStream, String> {
    let found = timeout(PATIENCE, tokio::net::lookup_host((admin.host.as_str(), admin.port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("{} is not resolved within {PATIENCE:?}", admin.host)),
    };
    let mut words = "its name has no address".to_owned();
    for address in addresses {
        match timeout_at(Instant::now() + PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => words = format!("{address}: {error}"),
            Err(_) => words = format!("{address}: no connection within {PATIENCE:?}"),
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

impl Judge for Answer {
    fn status(&mut self, status: u16) -> Result<(), Failure> {
        self.status = status;
        Ok(())
    }

    fn body(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.body.extend_from_slice(piece);
        if self.body.len() > MOST_ANSWER {
            let code = lb_core::api::ReasonCode::TooLong;
            return Err(Failure { code, words: format!("its answer is longer than {MOST_ANSWER} bytes") });
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
        (None, None) => read(&kept(asked.admin.port))?,
    };
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failed::Token("the admin token is empty, or has characters that no token has".to_owned()));
    }
    Ok(token.to_owned())
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
    use super::*;

    #[test]
    fn names_stay_one_segment_of_a_path() {
        assert_eq!(encoded("[::1]:8081"), "%5B%3A%3A1%5D%3A8081");
        assert_eq!(encoded("a/../b?c#d%"), "a%2F..%2Fb%3Fc%23d%25");
    }
}
