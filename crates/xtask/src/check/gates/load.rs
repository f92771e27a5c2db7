//! The requests that are counted. No more than needed to be answered in order: what is measured is the other side.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::Error;

/// As load generators send them.
pub(super) const PLAIN: &str = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

/// As tools send them that ask once.
const LAST: &str = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: close\r\n\r\n";

/// As a browser sends them, with the cookies of a shop.
pub(super) const BROWSER: &str = "GET /products/garden?page=2&sort=price HTTP/1.1\r\nHost: shop.example.org\r\n\
    Connection: keep-alive\r\nCache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"139\", \"Not;A=Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n\
    Referer: https://shop.example.org/products/garden\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=6f1c2a9be07d4c53a1f0c8d2b7e94a36; cart=3; theme=dark; consent=necessary%2Cstatistics\r\n\r\n";

/// Connections that are opened before their answers are waited for.
const AT_ONCE: usize = 16;

/// A machine under load answers late; one that does not answer at all must not hold the command up.
const PATIENCE: Duration = Duration::from_secs(30);

/// `requests` in turn on one connection.
pub(super) fn on_one_connection(port: u16, request: &str, requests: usize) -> Result<(), Error> {
    converse(port, request, requests).map_err(|e| Error::Failed(format!("a request was not answered: {e}")))
}

/// `each` in turn on each of `connections`, all at the same time.
pub(super) fn on_many_connections(port: u16, connections: usize, each: usize) -> Result<(), Error> {
    at_once(connections, move || on_one_connection(port, PLAIN, each))
}

/// `each` in turn by each of `clients`, every one on a connection of its own.
pub(super) fn on_new_connections(port: u16, clients: usize, each: usize) -> Result<(), Error> {
    let ask =
        move || converse(port, LAST, 1).map_err(|e| Error::Failed(format!("a new connection was not answered: {e}")));
    at_once(clients, move || (0..each).try_for_each(|_| ask()))
}

fn at_once(clients: usize, client: impl Fn() -> Result<(), Error> + Clone + Send + 'static) -> Result<(), Error> {
    let clients: Vec<_> = (0..clients).map(|_| thread::spawn(client.clone())).collect();
    for client in clients {
        client.join().map_err(|_| Error::Failed("a client panicked".to_owned()))??;
    }
    Ok(())
}

/// `count` connections that have had one answer each and ask for no more; they end when they are dropped.
pub(super) fn idle_connections(port: u16, count: usize) -> Result<Vec<TcpStream>, Error> {
    let failed = |e| Error::Failed(format!("an idle connection was not answered: {e}"));
    let mut all: Vec<TcpStream> = Vec::with_capacity(count);
    while all.len() < count {
        let first = all.len();
        for _ in first..(first + AT_ONCE).min(count) {
            all.push(ask_first(port, PLAIN).map_err(failed)?);
        }
        all[first..].iter_mut().try_for_each(read_answer).map_err(failed)?;
    }
    Ok(all)
}

/// Whether they are all open still, and nothing was said on them.
pub(super) fn are_open(connections: &mut [TcpStream]) -> bool {
    let waits = |stream: &mut TcpStream| {
        let looked = stream.set_nonblocking(true).and_then(|()| stream.read(&mut [0]));
        matches!(looked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    connections.iter_mut().all(waits)
}

fn converse(port: u16, request: &str, requests: usize) -> std::io::Result<()> {
    let mut stream = ask_first(port, request)?;
    read_answer(&mut stream)?;
    for _ in 1..requests {
        stream.write_all(request.as_bytes())?;
        read_answer(&mut stream)?;
    }
    Ok(())
}

fn ask_first(port: u16, request: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

fn read_answer(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let mut filled = 0;
    while !is_whole(&buffer[..filled])? {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
    }
    Ok(())
}

/// Whether a whole good answer is there.
fn is_whole(bytes: &[u8]) -> std::io::Result<bool> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    match length {
        Some(length) if head.starts_with("http/1.1 200 ") => Ok(bytes.len() >= end + 4 + length),
        _ => Err(std::io::Error::other(format!("not the answer that was expected: {head}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body_and_must_be_good() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 0..answer.len() {
            assert!(!is_whole(&answer[..cut]).unwrap());
        }
        assert!(is_whole(answer).unwrap());
        assert!(is_whole(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").is_err());
        for request in [PLAIN, LAST, BROWSER] {
            assert!(request.ends_with("\r\n\r\n") && request.lines().all(|line| !line.starts_with(' ')));
        }
    }
}
