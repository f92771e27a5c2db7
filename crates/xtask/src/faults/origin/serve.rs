//! One connection of an origin: requests are read, entered into the book, and answered as the mode says.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::super::ident::{Id, Side, fill, hash};
use super::super::ledger::Deed;
use super::book::InHand;
use super::mode::{How, Mode, Place};
use super::{Origin, State};
use crate::bench::http::field;
use crate::bench::sinks::read_head;

/// For what was sent to reach the other side before a reset throws away what the kernel still holds.
const BEFORE_RESET: Duration = Duration::from_millis(2);

/// How long an early answer waits for its reader before the connection ends with the body unread.
const AFTER_EARLY: Duration = Duration::from_millis(50);

/// What a request asks for.
struct Request {
    id: Id,
    post: bool,
    /// Of its body.
    length: usize,
    /// Of the answer's.
    answer: usize,
}

impl Request {
    fn parse(head: &str) -> Option<Self> {
        let mut words = head.split(' ');
        let post = words.next()? == "POST";
        let mut path = words.next()?.trim_start_matches('/').split('/');
        let (id, answer) = (Id::parse(path.next()?)?, path.next()?.parse().ok()?);
        let length = field(head, "content-length").map_or(Some(0), |length| length.parse().ok())?;
        Some(Self { id, post, length, answer })
    }
}

/// How a connection goes on after an answer.
enum Next {
    Keep,
    Close,
    Reset,
}

/// Serves until the connection ends; whether it is to be reset.
pub(super) async fn serve(origin: &Origin, stream: &mut TcpStream) -> bool {
    let (mut bytes, mut first) = (Vec::new(), true);
    loop {
        let Some(head) = next_head(origin, stream, &mut bytes, first).await else { return false };
        let mode = origin.state.borrow().mode;
        if mode == Mode::LateReset && !first {
            return true;
        }
        // A check of health, or whatever asks for nothing of the ledger.
        let Some(request) = Request::parse(&head) else {
            let well = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if stream.write_all(well).await.is_err() {
                return false;
            }
            continue;
        };
        let mut in_hand = InHand::new(&origin.book, request.id, request.post);
        match exchange((origin, &mut in_hand), stream, &mut bytes, &request, mode).await {
            Ok(Next::Keep) => first = false,
            Ok(Next::Close) => return false,
            Ok(Next::Reset) => {
                sleep(BEFORE_RESET).await;
                return true;
            }
            Err(_) => {
                let _ = origin.book.enter(request.id, Deed::Unheard, request.post, 0);
                return false;
            }
        }
    }
}

/// The next request's head, or `None` when there is to be none.
async fn next_head(origin: &Origin, stream: &mut TcpStream, bytes: &mut Vec<u8>, first: bool) -> Option<String> {
    let mut state = origin.state.clone();
    let idle = match state.borrow().mode {
        Mode::CloseIdle { most_ms } if !first => {
            Some(Duration::from_micros(1000 + origin.numbers.borrow_mut().below(most_ms.max(1) * 1000)))
        }
        _ => None,
    };
    let too_long = async {
        match idle {
            Some(idle) => sleep(idle).await,
            None => std::future::pending().await,
        }
    };
    let left = |state: &State| state.stopping;
    tokio::select! {
        head = read_head(stream, bytes) => head.ok().flatten(),
        () = too_long => None,
        _ = state.wait_for(left) => None,
    }
}

async fn exchange(
    (origin, in_hand): (&Origin, &mut InHand<'_>),
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    request: &Request,
    mode: Mode,
) -> io::Result<Next> {
    let early = mode == Mode::Early && request.length > 0;
    let mut heard = None;
    if !early {
        while bytes.len() < request.length {
            // What follows the body stays in `bytes`: it is the next request.
            if !matches!(stream.read_buf(bytes).await, Ok(1..)) {
                in_hand.enter(Deed::Broken, 0)?;
                return Ok(Next::Close);
            }
        }
        heard = Some(hash(&bytes[..request.length]));
        bytes.drain(..request.length);
    }
    let deed = if early { Deed::Early } else { Deed::Whole };
    in_hand.enter(deed, heard.unwrap_or(0))?;
    if let Mode::Slow { ms } = mode {
        wait(stream, Duration::from_millis(ms)).await?;
    }
    let next = respond(origin, stream, request, mode, heard).await?;
    if early {
        sleep(AFTER_EARLY).await;
        return Ok(Next::Close);
    }
    Ok(next)
}

async fn respond(
    origin: &Origin,
    stream: &mut TcpStream,
    request: &Request,
    mode: Mode,
    heard: Option<u64>,
) -> io::Result<Next> {
    let close = origin.state.borrow().stopping || mode.closes();
    let status = if mode == Mode::Fail { "503 Service Unavailable" } else { "200 OK" };
    let mut head = format!("HTTP/1.1 {status}\r\nX-Id: {}\r\nX-Origin: {}\r\n", request.id, origin.number);
    if let Some(heard) = heard {
        head.push_str(&format!("X-Heard: {heard:016x}\r\n"));
    }
    let mut body = Vec::new();
    fill(&mut body, request.id, Side::Response, request.answer);
    let half = body.len() / 2;
    let place = if let Mode::Cut { place, .. } = mode { place } else { Place::Length };
    head.push_str(&match (mode, place) {
        (Mode::LieLong, _) => format!("Content-Length: {}\r\n", body.len() + 10),
        // What was announced is whole: the reader has to be told what to expect.
        (Mode::LieShort, _) => format!("Content-Length: {half}\r\nX-Length: {half}\r\n"),
        (_, Place::Chunked) => "Transfer-Encoding: chunked\r\n".to_owned(),
        (_, Place::Close) => "Connection: close\r\n".to_owned(),
        (_, Place::Head | Place::Length) => format!("Content-Length: {}\r\n", body.len()),
    });
    head.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
    let mut out = head.into_bytes();
    match mode {
        Mode::Cut { place, how } => {
            match place {
                Place::Head => out.truncate(out.len() / 2),
                Place::Chunked => out.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes()),
                Place::Length | Place::Close => {}
            }
            if place != Place::Head {
                out.extend_from_slice(&body[..half]);
            }
            stream.write_all(&out).await?;
            return Ok(if how == How::Reset { Next::Reset } else { Next::Close });
        }
        Mode::Drip { one_in } if origin.numbers.borrow_mut().below(one_in.max(1)) == 0 => {
            stream.write_all(&out).await?;
            drip(origin, stream, &body).await?;
        }
        _ => {
            out.extend_from_slice(&body);
            if mode == Mode::Extra {
                out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nnobody's");
            }
            stream.write_all(&out).await?;
        }
    }
    Ok(if close { Next::Close } else { Next::Keep })
}

/// A byte a second for as long as that is the mode, and the rest at once.
async fn drip(origin: &Origin, stream: &mut TcpStream, body: &[u8]) -> io::Result<()> {
    let mut state = origin.state.clone();
    let mode_now = state.borrow().mode;
    for (at, byte) in body.iter().enumerate() {
        if state.borrow().mode != mode_now {
            return stream.write_all(&body[at..]).await;
        }
        stream.write_all(&[*byte]).await?;
        tokio::select! {
            waited = wait(stream, Duration::from_secs(1)) => waited?,
            _ = state.wait_for(|state| state.mode != mode_now) => {}
        }
    }
    Ok(())
}

/// Waits, unless the other side ends the connection.
async fn wait(stream: &TcpStream, time: Duration) -> io::Result<()> {
    let ended = async {
        loop {
            stream.readable().await?;
            match stream.try_read(&mut [0; 1]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
                Ok(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    };
    tokio::select! {
        ended = ended => ended,
        () = sleep(time) => Ok(()),
    }
}
