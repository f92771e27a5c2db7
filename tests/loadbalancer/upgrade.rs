//! WebSocket through the balancer, with a real library on both ends: messages, the close handshake, idle tunnels,
//! and how tunnels are counted, listed and drained.

use std::time::{Duration, Instant};

use e2e::origin::Origin;
use e2e::program::scratch_dir;
use e2e::raw;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};

use super::*;

type Socket = WebSocketStream<TcpStream>;

/// A server that sends each message back; `quit` makes it close with 4001, `crash` without a word. It tells of each
/// connection that ended and how.
struct Echo {
    port: u16,
    ended: tokio::sync::mpsc::UnboundedReceiver<Option<Message>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port can be had");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let (tell, ended) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    // The balancer's health checks connect and say nothing.
                    if let Ok(socket) = accept_async_with_config(stream, Some(large())).await {
                        let _ = tell.send(Self::converse(socket).await);
                    }
                });
            }
        });
        Self { port, ended, task }
    }

    /// Until the end; returns the client's close message if there was one.
    async fn converse(mut socket: Socket) -> Option<Message> {
        while let Some(Ok(message)) = socket.next().await {
            match &message {
                Message::Close(_) => {
                    // Reading on sends the answer to it.
                    while let Some(Ok(_)) = socket.next().await {}
                    return Some(message);
                }
                Message::Text(text) if text.as_str() == "quit" => {
                    let frame = CloseFrame { code: CloseCode::from(4001), reason: "as you wish".into() };
                    let _ = socket.close(Some(frame)).await;
                }
                Message::Text(text) if text.as_str() == "crash" => return None,
                Message::Text(_) | Message::Binary(_) => socket.send(message).await.ok()?,
                _ => {}
            }
        }
        None
    }

    fn backend(&self) -> String {
        format!("127.0.0.1:{},name=echo", self.port)
    }
}

/// Messages larger than the library's default bounds.
fn large() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(64 << 20)).max_frame_size(Some(64 << 20))
}

async fn open(balancer: &Balancer) -> Socket {
    let stream = TcpStream::connect(("127.0.0.1", balancer.port())).await.expect("the balancer takes connections");
    stream.set_nodelay(true).expect("a socket takes options");
    let url = format!("ws://127.0.0.1:{}/chat", balancer.port());
    let (socket, answer) = client_async_with_config(url, stream, Some(large())).await.expect("a handshake");
    assert_eq!(answer.status().as_u16(), 101);
    socket
}

/// The next message, in time; `None` at the end of the connection, however it came.
async fn next(socket: &mut Socket) -> Option<Message> {
    tokio::time::timeout(e2e::PATIENCE, socket.next()).await.expect("in time").and_then(Result::ok)
}

async fn echoed(socket: &mut Socket, message: Message) {
    socket.send(message.clone()).await.expect("it can be sent");
    assert!(next(socket).await == Some(message), "something else came back");
}

/// The sum of a metric over its labels.
async fn metric(balancer: &Balancer, name: &str) -> f64 {
    let text = http::get(balancer.admin_port(), "/metrics").await.text();
    let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let values: Vec<f64> = lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(!values.is_empty(), "there is no {name}:\n{text}");
    values.iter().sum()
}

async fn wait_for_tunnels(balancer: &Balancer, count: f64) {
    e2e::eventually(&format!("{count} tunnels"), async || {
        (metric(balancer, "lb_tunnels").await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn messages_of_all_kinds_and_sizes_come_back() {
    let echo = Echo::start().await;
    let balancer = Balancer::start(&[echo.backend()], &[]).await;
    let mut socket = open(&balancer).await;
    echoed(&mut socket, Message::text("hello")).await;
    echoed(&mut socket, Message::text("")).await;
    for size in [1, 125, 126, 65_535, 65_536, 1 << 20, 16 << 20] {
        let bytes: Vec<u8> = (0..size).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        echoed(&mut socket, Message::binary(bytes)).await;
    }
    socket.send(Message::Ping(b"are you there".to_vec().into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(Message::Pong(b"are you there".to_vec().into())));
    for number in 0..1000 {
        echoed(&mut socket, Message::text(number.to_string())).await;
    }
}

#[tokio::test]
async fn many_tunnels_do_not_mix() {
    let echo = Echo::start().await;
    let balancer = Balancer::start(&[echo.backend()], &[]).await;
    let mut sockets = Vec::new();
    for _ in 0..64 {
        sockets.push(open(&balancer).await);
    }
    assert_eq!(metric(&balancer, "lb_tunnels").await, 64.0);
    for round in 0..5 {
        for (number, socket) in sockets.iter_mut().enumerate() {
            socket.send(Message::text(format!("{round} {number}"))).await.unwrap();
        }
        for (number, socket) in sockets.iter_mut().enumerate() {
            assert_eq!(next(socket).await, Some(Message::text(format!("{round} {number}"))));
        }
    }
    drop(sockets);
    wait_for_tunnels(&balancer, 0.0).await;
    assert_eq!(metric(&balancer, "lb_tunnels_total").await, 64.0);
}

#[tokio::test]
async fn the_close_handshake_goes_through_from_either_side() {
    let mut echo = Echo::start().await;
    let balancer = Balancer::start(&[echo.backend()], &[]).await;
    let mut socket = open(&balancer).await;
    let frame = CloseFrame { code: CloseCode::Away, reason: "done here".into() };
    socket.close(Some(frame.clone())).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(Message::Close(Some(frame.clone()))), "the server's answer to it");
    assert_eq!(next(&mut socket).await, None);
    assert_eq!(echo.ended.recv().await, Some(Some(Message::Close(Some(frame)))));
    drop(socket);
    let mut socket = open(&balancer).await;
    socket.send(Message::text("quit")).await.unwrap();
    let frame = CloseFrame { code: CloseCode::from(4001), reason: "as you wish".into() };
    assert_eq!(next(&mut socket).await, Some(Message::Close(Some(frame))));
    assert_eq!(next(&mut socket).await, None);
    drop(socket);
    wait_for_tunnels(&balancer, 0.0).await;
}

#[tokio::test]
async fn an_end_without_a_word_on_one_side_ends_the_other() {
    let mut echo = Echo::start().await;
    let balancer = Balancer::start(&[echo.backend()], &[]).await;
    let mut socket = open(&balancer).await;
    socket.send(Message::text("crash")).await.unwrap();
    assert_eq!(next(&mut socket).await, None);
    assert_eq!(echo.ended.recv().await, Some(None));
    drop(socket);
    let mut socket = open(&balancer).await;
    echoed(&mut socket, Message::text("here")).await;
    drop(socket);
    assert_eq!(tokio::time::timeout(Duration::from_secs(2), echo.ended.recv()).await, Ok(Some(None)));
    wait_for_tunnels(&balancer, 0.0).await;
    assert_eq!(balancer.status().await["traffic"]["in_flight"], 0);
}

#[tokio::test]
async fn an_idle_tunnel_ends_after_its_time_and_a_used_one_does_not() {
    let echo = Echo::start().await;
    let config = scratch_dir().join("tunnel.toml");
    std::fs::write(&config, "[timeouts]\ntunnel = \"700ms\"\n").unwrap();
    // Neither of the others is meant for tunnels.
    let config = config.display().to_string();
    let others = ["--config", &config, "--body-stall-timeout", "200ms", "--keep-alive-timeout", "200ms"];
    let args = [&others[..], &["--response-head-timeout", "200ms", "--client-head-timeout", "200ms"]].concat();
    let balancer = Balancer::start(&[echo.backend()], &args).await;
    let mut socket = open(&balancer).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2000) {
        echoed(&mut socket, Message::text("still here")).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let quiet = Instant::now();
    assert_eq!(next(&mut socket).await, None);
    assert!((300..2500).contains(&quiet.elapsed().as_millis()), "{:?}", quiet.elapsed());
    wait_for_tunnels(&balancer, 0.0).await;
}

#[tokio::test]
async fn one_direction_is_use_enough() {
    let echo = Echo::start().await;
    let config = scratch_dir().join("tunnel-one-way.toml");
    std::fs::write(&config, "[timeouts]\ntunnel = \"700ms\"\n").unwrap();
    let balancer = Balancer::start(&[echo.backend()], &["--config", &config.display().to_string()]).await;
    let mut socket = open(&balancer).await;
    let began = Instant::now();
    // Unasked pongs: nothing comes back.
    while began.elapsed() < Duration::from_millis(2000) {
        socket.send(Message::Pong(b"".to_vec().into())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    echoed(&mut socket, Message::text("still here")).await;
}

#[tokio::test]
async fn tunnels_are_listed_with_both_ends() {
    let echo = Echo::start().await;
    let balancer = Balancer::start(&[echo.backend()], &[]).await;
    let before = balancer.admin(Method::GET, "/v1/tunnels", "").await;
    assert_eq!(before.status.as_u16(), 200, "{}", before.text());
    assert!(!before.text().contains("echo"), "{}", before.text());
    let mut socket = open(&balancer).await;
    echoed(&mut socket, Message::text("here")).await;
    let client = socket.get_ref().local_addr().unwrap().to_string();
    let listed = balancer.admin(Method::GET, "/v1/tunnels", "").await.text();
    assert!(listed.contains(&client) && listed.contains("\"echo\""), "{client}: {listed}");
    let stranger = http::get(balancer.admin_port(), "/v1/tunnels").await;
    assert_eq!(stranger.status.as_u16(), 401);
    drop(socket);
    e2e::eventually("it is gone from the list", async || {
        let listed = balancer.admin(Method::GET, "/v1/tunnels", "").await.text();
        (!listed.contains(&client)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn draining_a_backend_ends_its_tunnels_and_no_others() {
    let (echo, other) = (Echo::start().await, Echo::start().await);
    let second = format!("127.0.0.1:{},name=other", other.port);
    let balancer = Balancer::start(&[echo.backend(), second], &["--drain-timeout", "1s"]).await;
    // Round robin: one on each.
    let mut sockets = [open(&balancer).await, open(&balancer).await];
    for socket in &mut sockets {
        echoed(socket, Message::text("here")).await;
    }
    assert_eq!(balancer.set_state("echo", "drain").await.status.as_u16(), 200);
    let mut echo = echo;
    tokio::time::timeout(Duration::from_secs(5), echo.ended.recv()).await.expect("ended by the drain");
    wait_for_tunnels(&balancer, 1.0).await;
    let mut alive = 0;
    for socket in &mut sockets {
        let _ = socket.send(Message::text("still here?")).await;
        alive += usize::from(next(socket).await == Some(Message::text("still here?")));
    }
    assert_eq!(alive, 1, "the other backend's tunnel goes on");
}

#[tokio::test]
async fn sigterm_ends_tunnels_and_the_program_ends_in_time() {
    let echo = Echo::start().await;
    let mut balancer = Balancer::start(&[echo.backend()], &["--drain-timeout", "1s"]).await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(open(&balancer).await);
    }
    balancer.program.signal("TERM");
    let began = Instant::now();
    for socket in &mut sockets {
        assert_eq!(next(socket).await, None);
    }
    assert_eq!(balancer.program.wait(Duration::from_secs(5)).await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_tunnel_whose_reader_sleeps_stops_its_writer() {
    let echo = Echo::start().await;
    let balancer = Balancer::start(&[echo.backend()], &["--workers", "1"]).await;
    let resident = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", balancer.program.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let mut socket = open(&balancer).await;
    echoed(&mut socket, Message::text("here")).await;
    let start = resident();
    // Everything comes back and nobody reads it: sooner or later nothing more is taken.
    let mut sent = 0_u64;
    let piece = Message::binary(vec![7; 1 << 20]);
    while tokio::time::timeout(Duration::from_millis(700), socket.send(piece.clone())).await.is_ok() {
        sent += 1;
        assert!(sent < 256, "{sent} MiB were taken of a client that reads nothing");
    }
    let grown = resident().saturating_sub(start);
    assert!(grown < 4 * 1024, "{sent} MiB on their way hold {grown} KiB");
}

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A client in a tunnel to a backend that does what it does.
async fn raw_tunnel(balancer: &Balancer) -> TcpStream {
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(HANDSHAKE).await.unwrap();
    assert!(raw::read_head(&mut client).await.starts_with("HTTP/1.1 101 "));
    client
}

/// The backend talks all the time, so that often both sockets have something to tell at once, and the reset is seen by who
/// writes before what came ahead of it has been read.
#[tokio::test]
async fn the_last_words_before_a_reset_arrive() {
    let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |_, stream: TcpStream| {
        let tell = tell.clone();
        async move {
            let (mut reader, mut writer) = stream.into_split();
            writer.write_all(SWITCHING).await.ok()?;
            let talk = tokio::spawn(async move { while writer.write_all(b"bla").await.is_ok() {} });
            let mut words = Vec::new();
            let _ = reader.read_to_end(&mut words).await;
            talk.abort();
            let _ = tell.send(words);
            None
        }
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &["--workers", "1"]).await;
    for round in 0..100 {
        let mut client = raw_tunnel(&balancer).await;
        client.read_exact(&mut [0; 3]).await.unwrap();
        client.write_all(b"bye").await.unwrap();
        raw::reset(client);
        let words =
            tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.expect("the tunnel ends").unwrap();
        assert_eq!(words.as_slice(), b"bye", "round {round}");
    }
}

/// Without a word from the backend, which would find out.
#[tokio::test]
async fn a_reset_after_half_a_close_ends_the_tunnel() {
    let origin = Origin::start(|_, mut stream: TcpStream| async move {
        stream.write_all(SWITCHING).await.ok()?;
        while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
        tokio::time::sleep(Duration::from_secs(60)).await;
        None
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &[]).await;
    let mut client = raw_tunnel(&balancer).await;
    client.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    wait_for_tunnels(&balancer, 1.0).await;
    raw::reset(client);
    wait_for_tunnels(&balancer, 0.0).await;
    // Both may be told at the same look, and then a read finds the end first.
    for _ in 0..100 {
        let mut client = raw_tunnel(&balancer).await;
        client.shutdown().await.unwrap();
        raw::reset(client);
    }
    wait_for_tunnels(&balancer, 0.0).await;
}
