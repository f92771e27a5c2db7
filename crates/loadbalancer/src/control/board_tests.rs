//! Beliefs without a network: checkers are started and never get a turn, results are handed in.

use std::time::Duration;

use lb_core::health::Pass;

use super::*;
use crate::config::{Command, parse};

/// A board of three backends, `b0` to `b2`, that are all up, with these options; and its settings.
fn board(args: &[&str]) -> (Board, Config) {
    let names = (0..3).flat_map(|at| ["--backend".to_owned(), format!("127.0.0.1:808{at},name=b{at}")]);
    let args = ["loadbalancer".to_owned()].into_iter().chain(names).chain(args.iter().map(|arg| (*arg).to_owned()));
    let Ok(Command::Run(config)) = parse(args.map(Into::into), |_| None).unwrap() else { panic!("not to be run") };
    let (reports, _) = mpsc::channel(1);
    let mut board = Board::new(&config, &reports, 0);
    for at in 0..3 {
        board.take_report(&config.health, report(at, passed()), 10);
    }
    board.settle(10);
    board.take_snapshot();
    (board, *config)
}

fn passed() -> Outcome {
    Outcome::Passed(Pass { took: Duration::from_millis(1), status: None })
}

fn refused() -> Failure {
    Failure { code: ReasonCode::ConnectionRefused, words: "connection refused".to_owned() }
}

fn report(at: u32, outcome: Outcome) -> Report {
    let (address, took) = (Some(SocketAddr::from(([127, 0, 0, 1], 8080 + at as u16))), Duration::from_millis(1));
    Report { backend: BackendId(at), epoch: 0, outcome, took, address, discovery: None }
}

fn live(at: u32) -> LiveFailure {
    LiveFailure { backend: BackendId(at), failure: refused() }
}

#[tokio::test]
async fn failed_connects_of_requests_take_a_backend_down() {
    let (mut board, config) = board(&[]);
    (0..3).for_each(|_| board.take_live_failure(&config.health, live(0), 20));
    assert_eq!(board.pools[0].entries[0].health.health(), Health::Down);
}

#[tokio::test]
async fn where_checks_look_at_another_port_failed_connects_of_requests_are_left_to_ejection() {
    let (mut board, config) = board(&["--check-port", "9000"]);
    (0..30).for_each(|_| board.take_live_failure(&config.health, live(0), 20));
    assert_eq!(board.pools[0].entries[0].health.health(), Health::Up);
    assert!(board.pools[0].entries[0].history.results().any(|row| row.words == "connection refused"));
    board.take_suspect(BackendId(0), 30);
    assert_eq!(board.pools[0].entries[0].state(), BackendState::Ejected);
    // Without ejection nothing else would hold it off.
    let (mut board, config) = self::board(&["--check-port", "9000", "--outlier-detection", "off"]);
    (0..3).for_each(|_| board.take_live_failure(&config.health, live(0), 20));
    assert_eq!(board.pools[0].entries[0].health.health(), Health::Down);
}
