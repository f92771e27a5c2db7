//! What systemd is told, over a real notify socket.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use e2e::program::scratch_dir;

use super::*;

#[tokio::test]
async fn systemd_hears_of_readiness_status_life_and_the_end() {
    let (mut server, backend) = server("a").await;
    let path = scratch_dir().join(format!("notify-{}.sock", free_port()));
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let told = std::sync::Mutex::new(String::new());
    // Reads until the words have been said.
    let hear = |words: &str| {
        let mut buffer = [0; 4096];
        let started = std::time::Instant::now();
        while !told.lock().unwrap().contains(words) {
            // Other words keep coming, so the socket's own timeout is not enough.
            assert!(started.elapsed() < Duration::from_secs(10), "never told {words:?}: {told:?}");
            let length = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("never told {words:?}: {e}; {told:?}"));
            let mut told = told.lock().unwrap();
            told.push_str(&String::from_utf8_lossy(&buffer[..length]));
            told.push('\n');
        }
    };
    let name = path.display().to_string();
    let env = [("NOTIFY_SOCKET", name.as_str()), ("WATCHDOG_USEC", "400000")];
    let mut balancer = Balancer::start_with(&[backend], &[], &env).await;
    hear("READY=1");
    hear("STATUS=pool default: 1 of 1 backends ready");
    hear("WATCHDOG=1");
    server.kill().await;
    hear("STATUS=pool default: 0 of 1 backends ready; a down: connection refused");
    balancer.program.signal("TERM");
    hear("STOPPING=1");
    assert_eq!(balancer.program.wait(e2e::PATIENCE).await.code(), Some(0));
}
