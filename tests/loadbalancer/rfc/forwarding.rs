//! What a proxy takes out of a message and puts into it: hop-by-hop fields, `Via`, `Max-Forwards`, and what clients
//! try to talk it into with `Connection`.

use super::*;

/// RFC 9110 §7.6.1 (items 43, 44)
#[tokio::test]
async fn fields_about_the_connection_stay_on_their_side() {
    let answer = b"HTTP/1.1 200 OK\r\nconnection: x-private, X-Other\r\nx-private: 1\r\nx-other: 2\r\nx-public: 3\r\n\
        keep-alive: timeout=5\r\nproxy-connection: close\r\nupgrade: h2c\r\nte: x\r\nproxy-authenticate: Basic\r\n\
        connection: x-third\r\nx-third: 4\r\ncontent-length: 2\r\n\r\nok";
    let rig = Rig::answering(answer, true).await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: X-Private , x-other\r\nx-private: 1\r\nX-Other: 2\r\n\
        x-public: 3\r\nkeep-alive: timeout=5\r\nproxy-connection: close\r\nconnection:x-third\r\nx-third: 4\r\n\
        upgrade: h2c\r\n\r\n";
    let answer = rig.answer(request).await;
    let got = rig.record.take().remove(0);
    for message in [&answer, &got] {
        for gone in ["connection", "x-private", "x-other", "x-third", "keep-alive", "proxy-connection", "upgrade", "te"]
        {
            assert_eq!(message.fields(gone), Vec::<&str>::new(), "{gone}: {}", message.head);
        }
        assert_eq!(message.field("x-public"), Some("3"));
    }
    // A challenge is for whoever can answer it (RFC 9110 §11.7.1); we cannot.
    assert_eq!(answer.field("proxy-authenticate"), Some("Basic"));
    // The backend's word about its own connection is not about the client's.
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(client.message().await.expect("kept open").status(), 200);
    }
}

/// RFC 9110 §7.6.1 (item 45)
#[tokio::test]
async fn connection_cannot_remove_what_we_add() {
    let rig = Rig::start().await;
    let ours = ["via", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"];
    for list in [ours.join(", "), ours.join("\r\nconnection: "), ours.join(",").to_uppercase()] {
        let got = rig.forwarded(format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: {list}\r\n\r\n")).await;
        for name in ours {
            assert!(got.field(name).is_some_and(|value| !value.is_empty()), "{name}: {}", got.head);
        }
        assert_eq!(got.field("x-forwarded-for"), Some("127.0.0.1"));
    }
    // A list of its own is obeyed before ours is added: what it removes is only what the client had sent.
    let list = "GET / HTTP/1.1\r\nhost: x\r\nconnection: via\r\nvia: 1.0 secret\r\n\r\n";
    let got = rig.forwarded(list).await;
    assert!(!got.head.contains("secret") && got.field("via").is_some(), "{}", got.head);
}

/// RFC 9110 §7.6.1 (items 43, 45)
#[tokio::test]
async fn connection_that_names_framing_or_routing_is_refused() {
    let rig = Rig::start().await;
    for named in [
        "content-length",
        "Content-Length",
        "host",
        "transfer-encoding",
        ":path",
        ":authority",
        "close, host",
        "x, content-length",
    ] {
        let head = format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: {named}\r\ncontent-length: 5\r\n\r\nhello");
        rig.refuses(400, head).await;
    }
    let chunked = "connection: transfer-encoding\r\ntransfer-encoding: chunked\r\n";
    rig.refuses(400, format!("POST / HTTP/1.1\r\nhost: x\r\n{chunked}\r\n5\r\nhello\r\n0\r\n\r\n")).await;
    rig.refuses(400, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nconnection: host\r\n\r\n").await;
}

/// RFC 9110 §7.6.2 (item 46)
#[tokio::test]
async fn max_forwards_of_options_counts_down_and_ends_here() {
    let rig = Rig::start().await;
    for (given, passed) in [("1", "0"), ("10", "9"), ("007", "6")] {
        let got = rig.forwarded(format!("OPTIONS / HTTP/1.1\r\nhost: x\r\nmax-forwards: {given}\r\n\r\n")).await;
        assert_eq!(got.field("max-forwards"), Some(passed));
    }
    let before = rig.origin.requests();
    for target in ["/", "*"] {
        let answer = rig.answer(format!("OPTIONS {target} HTTP/1.1\r\nhost: x\r\nmax-forwards: 0\r\n\r\n")).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, ""));
        assert!(answer.field("allow").is_some_and(|allow| allow.contains("GET")), "{}", answer.head);
    }
    for invalid in ["-1", "a", "1 2", "1, 2", "", "1\r\nmax-forwards: 2", "1.5"] {
        let answer = rig.answer(format!("OPTIONS / HTTP/1.1\r\nhost: x\r\nmax-forwards: {invalid}\r\n\r\n")).await;
        assert_eq!(answer.status(), 400, "{invalid}");
    }
    assert_eq!(rig.origin.requests(), before);
    // A number larger than ours: the largest we can pass on, or one less than it.
    let got = rig.forwarded("OPTIONS / HTTP/1.1\r\nhost: x\r\nmax-forwards: 99999999999999999999\r\n\r\n").await;
    assert!(got.field("max-forwards").unwrap().parse::<u128>().unwrap() < 99_999_999_999_999_999_999);
}

/// RFC 9110 §7.6.2 (item 46)
#[tokio::test]
async fn max_forwards_of_other_methods_is_not_ours() {
    let rig = Rig::start().await;
    for method in ["GET", "POST", "PURGE"] {
        for value in ["0", "7", "x"] {
            let got = rig.forwarded(format!("{method} / HTTP/1.1\r\nhost: x\r\nmax-forwards: {value}\r\n\r\n")).await;
            assert_eq!(got.field("max-forwards"), Some(value), "{method}");
        }
    }
}

/// RFC 9110 §7.6.3 (item 47)
#[tokio::test]
async fn via_grows_on_every_message_both_ways() {
    let config = file("via", "[proxy]\nvia = \"here\"\n");
    let answer = b"HTTP/1.0 200 OK\r\nvia: 1.1 inner\r\ncontent-length: 2\r\n\r\nok";
    let rig = Rig::with(answer, false, &["--config", &config]).await;
    let answer = rig.answer("GET / HTTP/1.1\r\nhost: x\r\nvia: 1.0 a, 1.1 b\r\nVia: 1.1 c\r\n\r\n").await;
    assert_eq!(rig.record.take()[0].fields("via").join(", "), "1.0 a, 1.1 b, 1.1 c, 1.1 here");
    // RFC 9110 §5.6.1.1: no empty elements.
    let got = rig.forwarded("GET / HTTP/1.1\r\nhost: x\r\nvia:\r\nvia: 1.1 c\r\n\r\n").await;
    assert_eq!(got.fields("via").join(", "), "1.1 c, 1.1 here");
    // The version is that of the message as it was received here.
    assert_eq!(answer.fields("via").join(", "), "1.1 inner, 1.0 here");
    rig.answer("GET / HTTP/1.0\r\nhost: x\r\n\r\n").await;
    assert_eq!(rig.record.take()[0].fields("via").join(", "), "1.0 here");
}

/// RFC 9110 §7.6.3, RFC 5842 §7.2 (item 48)
#[tokio::test]
async fn a_request_that_was_here_before_is_508() {
    let rig = Rig::start().await;
    let got = rig.forwarded("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let via = got.field("via").expect("a Via of ours").to_owned();
    let pseudonym = via.strip_prefix("1.1 ").expect("version and pseudonym").to_owned();
    for seen in
        [via.clone(), format!("1.0 other, {via}, 1.1 more"), format!("1.1 a\r\nvia: HTTP/1.1 {pseudonym} (comment)")]
    {
        let answer = rig.answer(format!("GET / HTTP/1.1\r\nhost: x\r\nvia: {seen}\r\n\r\n")).await;
        assert_eq!(answer.status(), 508, "{seen}");
    }
    assert_eq!(rig.origin.requests(), 1);
    for other in [format!("1.1 {pseudonym}x"), format!("1.1 x{pseudonym}"), "1.1 loadbalancer".to_owned()] {
        rig.forwarded(format!("GET / HTTP/1.1\r\nhost: x\r\nvia: {other}\r\n\r\n")).await;
    }
}

/// RFC 9110 §7.6.3 (item 48)
#[tokio::test]
async fn two_balancers_in_a_row_are_no_loop_and_two_in_a_ring_are() {
    let rig = Rig::start().await;
    let outer = Balancer::start(&[format!("127.0.0.1:{}", rig.balancer.port())], &[]).await;
    assert_eq!(outer.get("/").await.text(), "ok");
    let got = rig.record.take().remove(0);
    let via = got.fields("via").join(", ");
    let pseudonyms: Vec<&str> = via.split(", ").collect();
    assert!(pseudonyms.len() == 2 && pseudonyms[0] != pseudonyms[1], "{via}");
    // Two whose backends are each other. One that names itself does not even start.
    let port = super::super::free_port().to_string();
    let own = Balancer::start(&[format!("127.0.0.1:{port}")], &[]).await;
    let _other = Balancer::start(&[format!("127.0.0.1:{}", own.port())], &["--port", &port]).await;
    own.wait_for_state(&format!("127.0.0.1:{port}"), "ready").await;
    let answer = own.get("/").await;
    assert_eq!(answer.status.as_u16(), 508, "{}", answer.text());
    let metrics = e2e::http::get(own.admin_port(), "/metrics").await.text();
    assert!(metrics.contains("reason=\"loop\""), "{metrics}");
}

/// RFC 9110 §7.7 (item 50)
#[tokio::test]
async fn no_content_is_transformed() {
    let body = b"\x1f\x8b\x08\0compressed or not \0\xff\xfe";
    let head = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncache-control: no-transform\r\ncontent-type: text/html\r\n\
        etag: \"a\"\r\ncontent-length: ";
    let answer = [format!("{head}{}\r\n\r\n", body.len()).as_bytes(), body].concat();
    let rig = Rig::answering(&answer, true).await;
    for accept in ["", "accept-encoding: identity\r\n", "accept-encoding: br\r\ncache-control: no-transform\r\n"] {
        let got = rig.answer(format!("GET / HTTP/1.1\r\nhost: x\r\n{accept}\r\n")).await;
        assert_eq!((got.body.as_slice(), got.field("etag")), (&body[..], Some("\"a\"")));
        assert_eq!((got.field("content-encoding"), got.field("cache-control")), (Some("gzip"), Some("no-transform")));
        let seen = rig.record.take().remove(0);
        let encoding = accept.lines().next().and_then(|line| line.split_once(": ")).map(|(_, value)| value);
        assert_eq!(seen.field("accept-encoding"), encoding);
    }
}

/// RFC 9110 §7.2 (item 66)
#[tokio::test]
async fn the_backend_gets_one_host_that_was_validated() {
    let rig = Rig::start().await;
    let request = "GET / HTTP/1.1\r\nhost: shop.example\r\nx-forwarded-host: evil\r\nx-host: evil\r\nforwarded: host=evil\r\n\
        x-original-host: a\r\n\r\n";
    let got = rig.forwarded(request).await;
    assert_eq!(got.field("host"), Some("shop.example"));
    assert_eq!((got.field("x-forwarded-host"), got.field("forwarded")), (Some("shop.example"), None));
    assert!(got.head.starts_with("GET / HTTP/1.1\r\nhost: shop.example\r\n"), "first: {}", got.head);
}

/// RFC 9110 §7.4
#[tokio::test]
async fn what_was_asked_for_securely_must_have_come_so_or_from_somebody_trusted() {
    let request = "GET https://shop.example/a HTTP/1.1\r\nhost: shop.example\r\n\r\n";
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(Rig::answering(answer, true).await.answer(request).await.status(), 400);
    let rig = Rig::with(answer, true, &["--trusted-proxy", "127.0.0.1"]).await;
    assert_eq!(rig.answer(request).await.status(), 200);
}

/// RFC 9110 §11.7 (item 67)
#[tokio::test]
async fn credentials_for_a_proxy_go_no_further_and_those_for_the_origin_do() {
    let rig = Rig::start().await;
    let credentials =
        "proxy-authorization: Basic proxy-secret\r\nauthorization: Basic mine\r\nProxy_Authorization: x-secret\r\n";
    let got = rig.forwarded(format!("GET / HTTP/1.1\r\nhost: x\r\n{credentials}\r\n")).await;
    assert!(!got.head.contains("secret"), "{}", got.head);
    assert_eq!(got.field("authorization"), Some("Basic mine"));
}

/// RFC 9110 §9.2.2, RFC 9112 §9.3.1 (item 53)
#[tokio::test]
async fn what_is_not_idempotent_is_never_sent_twice_by_itself() {
    let (one, other) = (Origin::hanging_up().await, Origin::hanging_up().await);
    let balancer = Balancer::start(&[one.address(), other.address()], &[]).await;
    for (count, method) in ["POST", "PATCH", "PURGE", "CUSTOM"].into_iter().enumerate() {
        let mut client = Wire::connect(balancer.port()).await;
        client.send(format!("{method} / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\npay")).await.unwrap();
        assert_eq!(client.message().await.expect("an answer").status(), 502, "{method}");
        assert_eq!(one.requests() + other.requests(), count + 1, "{method}");
    }
    // Known not to have been processed: nothing was sent to the one that refuses connections.
    let rig = Rig::start().await;
    let dead = format!("127.0.0.1:{}", super::super::free_port());
    let balancer =
        Balancer::start(&[dead, rig.origin.address()], &["--check-interval", "1h", "--check-fast-interval", "1h"])
            .await;
    for _ in 0..4 {
        let mut client = Wire::connect(balancer.port()).await;
        client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\npay").await.unwrap();
        assert_eq!(client.message().await.expect("an answer").status(), 200);
    }
    assert_eq!(rig.record.take().len(), 4);
}
