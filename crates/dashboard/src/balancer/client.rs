//! One request to the admin API: resolve, connect to the first address that answers, ask with the token.
//!
//! A connection serves one request. Actions are rare and the stream is long, so there is nothing to keep open.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lb_core::api::Problem;
use tokio::net::TcpStream;

use crate::target::AdminUrl;
use crate::token::TokenSource;

/// Per address. A machine that is there answers a connection in milliseconds; the banner should not wait for more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// From the request to the head of its answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// For a whole answer.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// A status of 1,000 backends is about 1 MiB.
const LARGEST_BODY: usize = 16 * 1024 * 1024;

/// Asks the admin API of one load balancer.
pub(crate) struct AdminClient {
    target: AdminUrl,
    token: TokenSource,
}

/// A whole answer, to be passed on.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

/// Why there is no answer, in words that a page can show.
#[derive(Debug)]
pub(crate) enum AdminError {
    Resolve {
        host: String,
        cause: String,
    },
    Connect(Vec<(SocketAddr, io::Error)>),
    /// No token, an unreadable one, or one that was refused.
    Token {
        problem: String,
        advice: String,
    },
    Exchange(String),
    /// Another answer than the contract promises.
    Unexpected(String),
    Silent(Duration),
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { host, cause } => write!(f, "cannot resolve {host}: {cause}"),
            Self::Connect(tried) => {
                for (number, (address, cause)) in tried.iter().enumerate() {
                    let comma = if number == 0 { "" } else { ", " };
                    write!(f, "{comma}{} ({address})", in_words(cause))?;
                }
                Ok(())
            }
            Self::Token { problem, advice } => write!(f, "{problem}; {advice}"),
            Self::Exchange(problem) | Self::Unexpected(problem) => f.write_str(problem),
            Self::Silent(limit) => write!(f, "no news for {:.1} s", limit.as_secs_f32()),
        }
    }
}

/// Without the operating system's number for it.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "no route".to_owned(),
        _ => error.to_string(),
    }
}

impl AdminClient {
    pub(crate) const fn new(target: AdminUrl, token: TokenSource) -> Self {
        Self { target, token }
    }

    pub(crate) const fn target(&self) -> &AdminUrl {
        &self.target
    }

    /// Opens the live stream.
    pub(crate) async fn stream(&self) -> Result<Incoming, AdminError> {
        let response = self.send(Method::GET, "/v1/stream", "text/event-stream", Bytes::new()).await?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let reply = collect(response).await?;
        Err(AdminError::Unexpected(format!("the load balancer answered {}{}", reply.status, reply.detail())))
    }

    /// A request with a short answer, whatever its status.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Reply, AdminError> {
        collect(self.send(method, path, "application/json", body).await?).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>, AdminError> {
        // First the connection: while nobody listens there, a missing token file is no news.
        let stream = self.connect().await?;
        let token = |problem| AdminError::Token { problem, advice: self.token.advice() };
        let mut request = Request::builder()
            .method(method)
            .uri(self.target.path(path))
            .header(HOST, self.target.authority())
            .header(AUTHORIZATION, self.token.authorization().map_err(token)?)
            .header(ACCEPT, accept);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|error| AdminError::Exchange(error.to_string()))?;

        let broken = |error: hyper::Error| AdminError::Exchange(format!("the connection broke: {error}"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer's body, or when that is dropped.
        tokio::spawn(connection);
        let response = tokio::time::timeout(HEAD_TIMEOUT, sender.send_request(request))
            .await
            .map_err(|_| AdminError::Silent(HEAD_TIMEOUT))?
            .map_err(broken)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(token("the load balancer refused the admin token".to_owned()));
        }
        Ok(response)
    }

    /// `localhost` may be ::1 and 127.0.0.1, and the load balancer may listen on only one of them: all are tried.
    async fn connect(&self) -> Result<TcpStream, AdminError> {
        let host = self.target.host();
        let resolve = |cause: String| AdminError::Resolve { host: host.to_owned(), cause };
        let addresses =
            tokio::net::lookup_host((host, self.target.port())).await.map_err(|error| resolve(error.to_string()))?;
        let mut tried = Vec::new();
        for address in addresses {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
            match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    // Without it an answer is only a little later.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => tried.push((address, error)),
            }
        }
        if tried.is_empty() {
            return Err(resolve("it has no address".to_owned()));
        }
        Err(AdminError::Connect(tried))
    }
}

impl Reply {
    /// What the load balancer says about a refusal, with a colon before it; empty when it says nothing.
    fn detail(&self) -> String {
        serde_json::from_slice::<Problem>(&self.body)
            .map_or_else(|_| String::new(), |problem| format!(": {}", problem.detail))
    }
}

async fn collect(response: Response<Incoming>) -> Result<Reply, AdminError> {
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, LARGEST_BODY).collect())
        .await
        .map_err(|_| AdminError::Silent(BODY_TIMEOUT))?
        .map_err(|error| AdminError::Exchange(format!("the answer broke off: {error}")))?
        .to_bytes();
    Ok(Reply { status: head.status, content_type: head.headers.get(CONTENT_TYPE).cloned(), body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_that_was_tried_is_named() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let tried = vec![
            ("[::1]:8089".parse().unwrap(), refused()),
            ("127.0.0.1:8089".parse().unwrap(), io::ErrorKind::TimedOut.into()),
        ];
        let error = AdminError::Connect(tried).to_string();
        assert_eq!(error, "connection refused ([::1]:8089), no answer (127.0.0.1:8089)");
    }
}
