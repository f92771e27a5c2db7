//! One client connection from accept to close: hyper's HTTP/1 server, our timeouts, and the ways to end it.
//!
//! What is answered is decided in `routes`, which faults befall a request in `serve`. This is the only place that
//! touches a connection's socket.

mod io;
pub(crate) mod phase;

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, service};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use self::io::Watched;
use self::phase::{HEAD_TIMEOUT, Phases, Verdict};
use crate::app::App;
use crate::serve;

/// A client that takes no byte of its answer for this long is gone: the kernel then ends the connection, and the
/// answer's body with it. As the load balancer's own body stall.
const WRITE_STALL: Duration = Duration::from_secs(60);

/// How long, and for how many bytes, a client may go on sending after the answer ended the connection: closing a
/// socket with unread bytes in it makes the kernel send a reset, and the client would lose the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 << 20;

/// How far the stop has come, for connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Serve,
    /// Close when idle; finish the request that is being answered first.
    Close,
    /// Close now, whatever is under way.
    Cut,
}

/// A request that ends with its connection, without (the rest of) an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// With a TCP reset.
    Reset,
    /// With a plain close.
    Close,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "reset on purpose",
            Self::Close => "closed without an answer",
        })
    }
}

impl StdError for Cut {}

/// What a request knows of its connection.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) phases: Arc<Phases>,
}

/// How hyper's part ended.
enum End {
    Done(Result<(), hyper::Error>),
    HeadLate,
    Cut,
}

/// Serves `tcp` until either side closes it or `stage` says so.
pub(crate) async fn run(tcp: TcpStream, address: SocketAddr, app: Arc<App>, mut stage: watch::Receiver<Stage>) {
    prepare(&tcp);
    let phases = Arc::new(Phases::new(Instant::now()));
    let io = TokioIo::new(Watched::new(tcp, Arc::clone(&app), Arc::clone(&phases)));
    let peer = Peer { address, phases: Arc::clone(&phases) };
    let service = {
        let app = Arc::clone(&app);
        service::service_fn(move |request: Request<Incoming>| serve::answer(Arc::clone(&app), peer.clone(), request))
    };
    let mut http = http1::Builder::new().header_read_timeout(None).serve_connection(io, service);
    let end = drive(Pin::new(&mut http), &phases, &mut stage).await;
    let tcp = http.into_parts().io.into_inner().into_tcp();
    match end {
        End::Cut => {}
        End::HeadLate => {
            let linger = linger(tcp, late_head_answer(&app).into_bytes());
            until_cut(linger, &mut stage).await;
        }
        End::Done(Ok(())) => {
            if phases.is_upload_open() && !phases.has_client_closed() {
                until_cut(linger(tcp, Vec::new()), &mut stage).await;
            }
        }
        End::Done(Err(error)) => {
            if is_reset(&error) {
                reset(&tcp);
            } else if error.is_parse() && !phases.has_client_closed() {
                until_cut(linger(tcp, Vec::new()), &mut stage).await;
            } else {
                debug!(peer = %address, %error, "connection ended");
            }
        }
    }
}

/// Runs hyper, and ends it when a timeout or the stop says so.
async fn drive<C>(mut http: Pin<&mut C>, phases: &Phases, stage: &mut watch::Receiver<Stage>) -> End
where
    C: Future<Output = Result<(), hyper::Error>> + Graceful,
{
    let timer = tokio::time::sleep(HEAD_TIMEOUT);
    tokio::pin!(timer);
    loop {
        tokio::select! {
            // hyper first: bytes that are already here make a connection busy before it is judged idle.
            biased;
            ended = http.as_mut() => return End::Done(ended),
            () = timer.as_mut() => match phases.verdict(Instant::now()) {
                Verdict::LookAgain(at) => timer.as_mut().reset(at),
                Verdict::HeadLate => return End::HeadLate,
                Verdict::Silent => {
                    http.as_mut().close_when_idle();
                    timer.as_mut().reset(Instant::now() + HEAD_TIMEOUT);
                }
            },
            changed = stage.changed() => {
                let stage = *stage.borrow_and_update();
                if changed.is_err() || stage == Stage::Cut {
                    return End::Cut;
                }
                // A begun head is answered, with `Connection: close`; hyper would throw it away.
                if stage == Stage::Close && !phases.is_in_head() {
                    http.as_mut().close_when_idle();
                }
            }
        }
    }
}

/// hyper's graceful shutdown, without its type parameters.
trait Graceful {
    fn close_when_idle(self: Pin<&mut Self>);
}

impl<S, B> Graceful for http1::Connection<TokioIo<Watched>, S>
where
    S: service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn close_when_idle(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Neither setting is worth refusing a connection for.
fn prepare(tcp: &TcpStream) {
    if let Err(error) = tcp.set_nodelay(true).and_then(|()| SockRef::from(tcp).set_tcp_user_timeout(Some(WRITE_STALL)))
    {
        debug!(%error, "cannot set socket options");
    }
}

/// A close with SO_LINGER 0 throws away what was not sent and sends a RST instead of a FIN.
fn reset(tcp: &TcpStream) {
    if let Err(error) = tcp.set_zero_linger() {
        debug!(%error, "cannot reset the connection, closing it instead");
    }
}

fn is_reset(error: &hyper::Error) -> bool {
    error.source().and_then(|cause| cause.downcast_ref::<Cut>()) == Some(&Cut::Reset)
}

/// RFC 9110 §15.5.9; hyper closes without a word.
fn late_head_answer(app: &App) -> String {
    let name = app.name();
    format!("HTTP/1.1 408 Request Timeout\r\nx-served-by: {name}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
}

/// Says a last word, closes our side, and takes what the client still sends until it closes too.
async fn linger(mut tcp: TcpStream, last_word: Vec<u8>) {
    let goodbye = async {
        tcp.write_all(&last_word).await?;
        tcp.shutdown().await?;
        let mut discarded = vec![0; 16 * 1024];
        let mut left = LINGER_BYTES;
        loop {
            let read = tcp.read(&mut discarded).await?;
            left = left.saturating_sub(read);
            if read == 0 || left == 0 {
                return std::io::Result::Ok(());
            }
        }
    };
    if let Ok(Err(error)) = tokio::time::timeout(LINGER, goodbye).await {
        debug!(%error, "while closing a connection");
    }
}

async fn until_cut(what: impl Future<Output = ()>, stage: &mut watch::Receiver<Stage>) {
    tokio::select! {
        () = what => {}
        _ = stage.wait_for(|stage| *stage == Stage::Cut) => {}
    }
}
