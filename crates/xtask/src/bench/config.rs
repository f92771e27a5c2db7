//! The peers' configurations: settings that ask of each what ours does by default. Pure.
//!
//! Connections to backends are kept, X-Forwarded-For is added, no access log is written, and no body is stored on its
//! way (NGINX would store uploads, and replies on disk; nobody else does).

use super::contender::Origin;

/// Idle connections to backends: both sides of 1,000 clients fit, so that none is opened again and again.
const KEPT: usize = 1024;

/// What NGINX needs in its `http` block.
pub(super) fn nginx(port: u16, origin: Origin, backends: &[String]) -> String {
    let servers: String = backends.iter().map(|address| format!("    server {address};\n")).collect();
    // A tunnel has to be asked for, in a location that then keeps no connection.
    let connection = match origin {
        Origin::Echoes => "      proxy_set_header Upgrade $http_upgrade;\n      proxy_set_header Connection upgrade;\n",
        Origin::Files | Origin::Sinks | Origin::Replies => "      proxy_set_header Connection \"\";\n",
    };
    format!(
        "  upstream pool {{\n{servers}    keepalive {KEPT};\n    keepalive_requests 1000000000;\n  }}\n  server {{\n    \
         listen 127.0.0.1:{port};\n    client_max_body_size 0;\n    location / {{\n      proxy_pass http://pool;\n      \
         proxy_http_version 1.1;\n      proxy_request_buffering off;\n      proxy_max_temp_file_size 0;\n      \
         proxy_set_header Host $http_host;\n{connection}      \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n    }}\n  }}\n"
    )
}

/// `http-reuse always`, because the others reuse any idle connection, too. 9,000 connections and their like on the
/// other side stay below 20,000 descriptors.
pub(super) fn haproxy(port: u16, backends: &[String]) -> String {
    let servers: String =
        backends.iter().enumerate().map(|(n, address)| format!("  server s{n} {address}\n")).collect();
    format!(
        "global\n  nbthread 1\n  maxconn 9000\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 75s\n  \
         timeout server 30s\n  timeout tunnel 1h\n  option forwardfor\n  http-reuse always\nfrontend front\n  \
         bind 127.0.0.1:{port}\n  default_backend pool\nbackend pool\n  balance roundrobin\n{servers}"
    )
}

/// It adds X-Forwarded-* by itself. Without `admin off` it would also listen elsewhere.
pub(super) fn caddy(port: u16, backends: &[String]) -> String {
    let servers = backends.join(" ");
    format!(
        "{{\n\tadmin off\n\tauto_https off\n\tlog {{\n\t\tlevel ERROR\n\t}}\n}}\n\nhttp://:{port} {{\n\t\
         bind 127.0.0.1\n\treverse_proxy {servers} {{\n\t\tlb_policy round_robin\n\t\ttransport http {{\n\t\t\t\
         keepalive_idle_conns {KEPT}\n\t\t\tkeepalive_idle_conns_per_host {KEPT}\n\t\t}}\n\t}}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_and_the_port_is_in_each() {
        let backends = ["127.0.1.1:81".to_owned(), "127.0.1.2:81".to_owned()];
        for text in [nginx(4242, Origin::Files, &backends), haproxy(4242, &backends), caddy(4242, &backends)] {
            for wanted in ["127.0.1.1:81", "127.0.1.2:81", "127.0.0.1", ":4242"] {
                assert!(text.contains(wanted), "{wanted} in {text}");
            }
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
        }
    }

    #[test]
    fn nginx_tunnels_only_where_it_must() {
        assert!(nginx(1, Origin::Echoes, &[]).contains("Connection upgrade"));
        assert!(!nginx(1, Origin::Sinks, &[]).contains("upgrade"));
    }
}
