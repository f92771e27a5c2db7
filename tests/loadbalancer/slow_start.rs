//! Who returns gets its share little by little.

use e2e::http::Client;

use super::*;

async fn served_by(client: &mut Client) -> String {
    client.get("/").await.unwrap().header("x-served-by").unwrap().to_owned()
}

#[tokio::test]
async fn a_returning_server_gets_its_share_little_by_little_and_then_the_order_is_exact_again() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &["--slow-start", "2s"]).await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    // All were new together at the start: exact from the first request on.
    for number in 0..30 {
        assert_eq!(served_by(&mut client).await, ["a", "b", "c"][number % 3]);
    }
    balancer.set_state("b", "drain").await;
    let row = balancer.set_state("b", "ready").await.json();
    assert_eq!((row["reason"].as_str(), row["effective_weight"].as_f64()), (Some("slow start 10 %"), Some(0.1)));
    let (mut requests, mut to_b, mut shares) = (0, 0, Vec::new());
    loop {
        let row = balancer.backend("b").await;
        let share = row["effective_weight"].as_f64().unwrap();
        if shares.last() != Some(&share) {
            shares.push(share);
        }
        if share == 1.0 {
            assert_eq!(row["reason"], "checks pass");
            break;
        }
        // Whole tables of the lowest share: 10 + 10 + 1.
        for _ in 0..21 {
            requests += 1;
            to_b += u32::from(served_by(&mut client).await == "b");
        }
    }
    assert!(shares.len() > 4 && shares.is_sorted(), "{shares:?}");
    assert!(to_b > 0 && to_b * 4 < requests, "{to_b} of {requests} went to b");
    let mut order = Vec::new();
    for _ in 0..300 {
        order.push(served_by(&mut client).await);
    }
    let first = ["a", "b", "c"].iter().position(|name| *name == order[0]).unwrap();
    for (number, name) in order.iter().enumerate() {
        assert_eq!(name, ["a", "b", "c"][(first + number) % 3], "request {number}");
    }
}

#[tokio::test]
async fn who_is_alone_has_everything_and_those_who_return_together_share_evenly() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &["--slow-start", "1h"]).await;
    for name in ["a", "b", "c"] {
        balancer.set_state(name, "drain").await;
    }
    assert_eq!(balancer.set_state("a", "ready").await.json()["effective_weight"], 1.0);
    balancer.set_state("b", "ready").await;
    balancer.set_state("c", "ready").await;
    for name in ["a", "b", "c"] {
        let row = balancer.backend(name).await;
        assert_eq!((&row["effective_weight"], &row["reason_code"]), (&1.0.into(), &"checks_pass".into()), "{row}");
    }
    let mut client = Client::connect(balancer.port()).await.unwrap();
    let mut names = [(); 3].map(|()| String::new());
    for name in &mut names {
        *name = served_by(&mut client).await;
    }
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_server_that_was_not_there_at_the_start_is_new_and_no_window_means_at_once() {
    for (window, share) in [("1h", 0.1), ("0s", 1.0)] {
        let (_a, first) = server("a").await;
        let port = free_port();
        let late = format!("127.0.0.1:{port},name=b");
        let balancer = Balancer::start(&[first, late], &["--slow-start", window]).await;
        let (_b, _) = server_on("b", port).await;
        let row = balancer.wait_for_state("b", "ready").await;
        assert_eq!(row["effective_weight"], share, "{row}");
    }
}
