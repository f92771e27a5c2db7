//! The demo's trickle of requests: plain HTTP/1.1 GETs over kept connections, at a steady rate.
//!
//! It is scenery, not a measurement. When the load balancer is away nothing is sent, and it goes on by itself when the
//! load balancer is back.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

/// Enough to see movement on every server each second, and too little to be noticed by the machine.
pub(crate) const DEFAULT_PER_S: u32 = 20;

/// Requests in flight at most. Reached only when servers are slow; then the rate falls instead of connections growing.
const MAX_IN_FLIGHT: usize = 64;

/// A request that takes longer is given up: a person watching wants to see it fail.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer that is read; the demo's servers send some dozens of bytes.
const MAX_BODY_BYTES: u64 = 1 << 20;

type Connection = BufReader<TcpStream>;

/// Sends requests to `proxy` until it is dropped.
pub(crate) async fn trickle(proxy: SocketAddr, per_s: u32) {
    let idle: Arc<Mutex<Vec<Connection>>> = Arc::default();
    let mut running = tokio::task::JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / per_s.max(1));
    // After a pause (a suspended laptop) go on, instead of making up for what was missed.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        while running.try_join_next().is_some() {}
        if running.len() >= MAX_IN_FLIGHT {
            continue;
        }
        let idle = Arc::clone(&idle);
        running.spawn(async move {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            // A failure is not reported: it is on the dashboard, which is what the demo is about.
            if let Ok(Ok(Some(connection))) = tokio::time::timeout(PATIENCE, one_request(proxy, kept)).await {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
        });
    }
}

/// One GET, on a `kept` connection if there is one that still works. Returns the connection if it may be used again.
async fn one_request(proxy: SocketAddr, kept: Option<Connection>) -> io::Result<Option<Connection>> {
    if let Some(mut connection) = kept
        && let Ok(reusable) = exchange(&mut connection, proxy).await
    {
        return Ok(reusable.then_some(connection));
    }
    let stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    let mut connection = BufReader::new(stream);
    let reusable = exchange(&mut connection, proxy).await?;
    Ok(reusable.then_some(connection))
}

/// Writes a request and reads the whole answer; whether the connection can carry another one.
async fn exchange(connection: &mut Connection, proxy: SocketAddr) -> io::Result<bool> {
    let request = format!("GET / HTTP/1.1\r\nHost: {proxy}\r\nUser-Agent: demo-traffic\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut content_length = None;
    let mut close = false;
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => content_length = value.trim().parse().ok(),
                "connection" => close = value.trim().eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
    }
    // An answer of unknown or unlikely length is not worth parsing here: the connection is given up instead.
    let Some(length) = content_length.filter(|length| *length <= MAX_BODY_BYTES) else { return Ok(false) };
    let read = tokio::io::copy(&mut connection.take(length), &mut tokio::io::sink()).await?;
    Ok(read == length && !close)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

    /// Answers requests on one connection with `answers`, then closes it; returns how many requests came.
    async fn serve(listener: &TcpListener, answers: &[&str]) -> usize {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        for (served, answer) in answers.iter().enumerate() {
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap() == 0 {
                    return served;
                }
                if line == "\r\n" {
                    break;
                }
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        answers.len()
    }

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn one_connection_carries_many_requests() {
        let (listener, proxy) = listen().await;
        let traffic = tokio::spawn(trickle(proxy, 200));
        assert_eq!(serve(&listener, &[OK; 5]).await, 5);
        traffic.abort();
    }

    #[tokio::test]
    async fn it_goes_on_when_the_load_balancer_comes_back() {
        let (listener, proxy) = listen().await;
        let traffic = tokio::spawn(trickle(proxy, 200));
        assert_eq!(serve(&listener, &[OK]).await, 1);
        drop(listener);
        // The port stays ours only if nobody took it meanwhile, so it is taken back at once.
        let listener = TcpListener::bind(proxy).await.unwrap();
        assert_eq!(serve(&listener, &[OK, OK]).await, 2);
        traffic.abort();
    }

    #[tokio::test]
    async fn an_answer_that_says_close_or_has_no_length_ends_the_connection() {
        for answer in ["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            let (listener, proxy) = listen().await;
            let answers = [answer];
            let (served, kept) = tokio::join!(serve(&listener, &answers), one_request(proxy, None));
            assert_eq!(served, 1);
            assert!(kept.unwrap().is_none(), "{answer}");
        }
    }
}
