//! The peers' configurations, with their best settings against faults. Pure.
//!
//! The same timeouts and intervals of checks as ours gets. Retries go as far as is safe: a POST is not sent twice.

use super::proxy::Timing;

/// What differs between runs.
pub(super) struct Haproxy<'a> {
    pub(super) workers: usize,
    pub(super) timing: Timing,
    pub(super) backends: &'a [String],
    /// They are names that a resolver of the rig knows.
    pub(super) by_name: bool,
    /// No server is taken out for its errors; without checks that fail it stays.
    pub(super) steady: bool,
    /// By what is under way, not in turns.
    pub(super) by_load: bool,
}

/// `retry-on` names everything that can be tried again before an answer has begun; `disable-l7-retry` keeps a POST from
/// being sent twice. `http-reuse safe` sends a connection's first request only on a fresh one or one in good use. Its line
/// of connections that wait to be accepted would be as short as the descriptors are few: `backlog` makes it as long as
/// the others'.
pub(super) fn haproxy(port: u16, with: &Haproxy<'_>) -> String {
    let Haproxy { workers, timing, backends, .. } = with;
    let (connect, head, interval) = (timing.connect.as_millis(), timing.head.as_millis(), timing.interval.as_millis());
    let fast = timing.fast_interval.as_millis();
    let (resolvers, by_name) = if with.by_name {
        (
            "resolvers names\n  nameserver here 127.0.0.1:53\n  timeout resolve 200ms\n  timeout retry 200ms\n  \
             hold valid 200ms\n",
            " resolvers names init-addr last,libc,none",
        )
    } else {
        ("", "")
    };
    let balance = if with.by_load { "leastconn" } else { "roundrobin" };
    let observe = if with.steady { "" } else { "observe layer7 error-limit 5 on-error mark-down" };
    let servers: String = backends
        .iter()
        .enumerate()
        .map(|(n, address)| {
            format!(
                "  server s{n} {address} check inter {interval}ms fastinter {fast}ms downinter {fast}ms fall 3 rise 2 \
                 {observe}{by_name}\n"
            )
        })
        .collect();
    format!(
        "global\n  nbthread {workers}\n{resolvers}defaults\n  mode http\n  timeout connect {connect}ms\n  \
         timeout client 75s\n  timeout http-keep-alive 75s\n  timeout server {head}ms\n  timeout queue 1s\n  \
         timeout check {connect}ms\n  retries 3\n  option redispatch 1\n  retry-on conn-failure empty-response \
         junk-response 502 503 504\n  option abortonclose\n  option forwardfor\n  http-reuse safe\nfrontend front\n  bind \
         127.0.0.1:{port}\n  backlog 1024\n  default_backend pool\nbackend pool\n  balance {balance}\n  http-request \
         disable-l7-retry if METH_POST\n{servers}"
    )
}

/// Bodies are buffered, as is the default, so that a POST that was not sent can go elsewhere; in memory up to 128 KiB.
/// A server that failed three times within a second is left alone for a second; none, if `steady`: where every server
/// has errors all the time it would answer that there is none. Each was the better one for NGINX where it is used.
pub(super) fn nginx(port: u16, timing: &Timing, backends: &[String], (steady, by_load): (bool, bool)) -> String {
    let (connect, head) = (timing.connect.as_millis(), timing.head.as_millis());
    let fails = if steady { 0 } else { 3 };
    let balance = if by_load { "    least_conn;\n" } else { "" };
    let server = |address| format!("    server {address} max_fails={fails} fail_timeout=1s;\n");
    let servers: String = backends.iter().map(server).collect();
    format!(
        "  upstream pool {{\n{balance}{servers}    keepalive 256;\n    keepalive_requests 1000000000;\n  }}\n  server {{\n    \
         listen 127.0.0.1:{port};\n    client_max_body_size 0;\n    client_body_buffer_size 128k;\n    location / \
         {{\n      proxy_pass http://pool;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      \
         proxy_set_header Host $http_host;\n      proxy_connect_timeout {connect}ms;\n      proxy_read_timeout \
         {head}ms;\n      proxy_send_timeout {head}ms;\n      proxy_max_temp_file_size 0;\n      proxy_next_upstream \
         error timeout invalid_header http_502 http_503 http_504;\n      proxy_next_upstream_tries 3;\n    }}\n  }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_and_the_port_is_in_each() {
        let (timing, backends) = (Timing::QUICK, ["127.0.0.1:81".to_owned(), "127.0.0.1:82".to_owned()]);
        let with = Haproxy { workers: 2, timing, backends: &backends, by_name: true, steady: false, by_load: true };
        for (text, balance) in
            [(haproxy(4242, &with), "leastconn"), (nginx(4242, &timing, &backends, (false, true)), "least_conn;")]
        {
            assert!(text.contains(balance), "{text}");
            for wanted in ["127.0.0.1:81", "127.0.0.1:82", "127.0.0.1:4242", "1000ms", "2000ms"] {
                assert!(text.contains(wanted), "{wanted} in {text}");
            }
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
        }
    }
}
