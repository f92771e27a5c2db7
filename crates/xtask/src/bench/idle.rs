//! Clients that got one answer and then stay connected without asking for more.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;

use super::http;
use super::work::SMALL_REPLIES;

/// So many connections are opened before their answers are waited for: one by one, a busy machine would take longer
/// for thousands than the first of them may be idle.
const AT_ONCE: usize = 16;

/// Connections that are held open until dropped.
pub(super) struct Idle(Vec<TcpStream>);

impl Idle {
    /// # Errors
    /// When a connection is refused, or not answered as it should be.
    pub(super) fn open(port: u16, count: usize) -> Result<Self, String> {
        let mut streams: Vec<TcpStream> = Vec::with_capacity(count);
        while streams.len() < count {
            let first = streams.len();
            let failed = |e: String| format!("idle connections from number {} of {count}: {e}", first + 1);
            let ends = (first + AT_ONCE).min(count);
            for _ in first..ends {
                let mut stream = http::connect(port).map_err(|e| failed(e.to_string()))?;
                http::send(&mut stream, SMALL_REPLIES.path, 0).map_err(failed)?;
                streams.push(stream);
            }
            for stream in &mut streams[first..] {
                http::expect(stream, SMALL_REPLIES.path, SMALL_REPLIES.reply).map_err(failed)?;
            }
        }
        Ok(Self(streams))
    }

    /// # Errors
    /// When the proxy has closed one, or said more on it.
    pub(super) fn all_open(&mut self) -> Result<(), String> {
        let count = self.0.len();
        for (number, stream) in self.0.iter_mut().enumerate() {
            stream.set_nonblocking(true).map_err(|e| e.to_string())?;
            match stream.read(&mut [0]) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                _ => return Err(format!("idle connection {} of {count} did not stay open", number + 1)),
            }
        }
        Ok(())
    }
}

/// Descriptors that this process, and every child that it starts, may have.
///
/// # Errors
/// When the hard limit is below `needed`.
pub(crate) fn raise_descriptor_limit(needed: u64) -> Result<(), String> {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit >= needed => Ok(()),
        Ok(limit) => Err(format!("{needed} descriptors are needed, and the hard limit is {limit} (ulimit -Hn)")),
        Err(e) => Err(format!("cannot raise the limit of descriptors: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn a_connection_that_ends_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 128\r\n\r\n{}", "x".repeat(128));
        let server = std::thread::spawn(move || {
            let accept = |_| {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
                stream
            };
            (0..2).map(accept).collect::<Vec<_>>()
        });
        let mut idle = Idle::open(port, 2).unwrap();
        let mut held = server.join().unwrap();
        assert_eq!(idle.all_open(), Ok(()));
        held.pop();
        // The end of a loopback connection is there at once.
        assert_eq!(idle.all_open(), Err("idle connection 2 of 2 did not stay open".to_owned()));
        assert!(Idle::open(port, 1).is_err(), "nobody listens any more");
    }

    #[test]
    fn more_descriptors_than_anybody_may_have_are_refused() {
        assert_eq!(raise_descriptor_limit(8), Ok(()));
        assert!(raise_descriptor_limit(u64::MAX).is_err());
    }
}
