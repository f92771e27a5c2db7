//! Backends of our own that take uploads, where a file server will not do.
//!
//! They run on one thread of this process, so that they are on the load's cores, and end when dropped.

use std::io;
use std::thread::JoinHandle;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::oneshot;

use super::http;
use crate::Error;

/// How many backends there are of each kind, as many as file servers.
pub(super) const BACKENDS: usize = 3;

/// The sinks.
pub(super) struct Sinks {
    /// As HOST:PORT.
    pub(super) addresses: Vec<String>,
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sinks {
    pub(super) fn start() -> Result<Self, Error> {
        let failed = |e: io::Error| Error::Failed(format!("cannot start backends: {e}"));
        let mut listeners = Vec::new();
        let mut listen = |_| -> io::Result<String> {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?.to_string();
            listeners.push(listener);
            Ok(address)
        };
        let addresses = (0..BACKENDS).map(&mut listen).collect::<Result<_, _>>().map_err(failed)?;
        let runtime = runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            for listener in listeners {
                // It was bound a moment ago; a failure shows as a backend that does not answer.
                if let Ok(listener) = TcpListener::from_std(listener) {
                    tokio::spawn(accept(listener));
                }
            }
            let _ = stopped.await;
        };
        let thread = std::thread::Builder::new().name("sinks".to_owned()).spawn(move || runtime.block_on(serve));
        Ok(Self { addresses, stop: Some(stop), thread: Some(thread.map_err(failed)?) })
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        // An error ends the connection: whoever is at its other end reports it.
        tokio::spawn(sink(stream));
    }
}

/// Reads each request's body to its end, and only then answers.
async fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    while let Some(head) = read_head(&mut stream, &mut bytes).await? {
        let length = http::field(&head, "content-length").and_then(|length| length.parse::<usize>().ok());
        let Some(length) = length else {
            return stream.write_all(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\n\r\n").await;
        };
        let mut left = length.saturating_sub(bytes.len());
        bytes.drain(..length.min(bytes.len()));
        while left > 0 {
            let most = left.min(chunk.len());
            match stream.read(&mut chunk[..most]).await? {
                0 => return Ok(()),
                read => left -= read,
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
    }
    Ok(())
}

/// The next head, without its last two line ends, which are taken off `bytes`. `None` at the end of the connection.
pub(crate) async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
) -> io::Result<Option<String>> {
    loop {
        if let Some(head) = http::take_head(bytes)? {
            return Ok(Some(head));
        }
        if stream.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: &str) -> u16 {
        address.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    #[test]
    fn a_sink_takes_uploads_one_after_the_other_and_ends_when_dropped() {
        let sinks = Sinks::start().unwrap();
        assert_eq!(sinks.addresses.len(), BACKENDS);
        let port = port(&sinks.addresses[2]);
        let mut stream = http::connect(port).unwrap();
        for bytes in [1, 70_000, 1 << 20] {
            http::ask(&mut stream, "/upload", bytes, 2).unwrap();
        }
        assert!(http::ask(&mut stream, "/upload", 0, 2).unwrap_err().contains("411"));
        drop(sinks);
        assert!(http::connect(port).is_err(), "nobody listens any more");
    }
}
