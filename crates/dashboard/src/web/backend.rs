//! What one backend is asked about and asked to do: its paths in the admin API, and its last checks for the page.

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use hyper::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{App, forward, unreachable_balancer};

/// RFC 3986 §2.3: what needs no escape in a path segment; a name with a slash must stay one segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `GET …/checks`: the last results, passed on. Asked for each time: an open page asks once a second at most, and what
/// is kept here would only be older.
pub(super) async fn checks(State(app): State<App>, Path((pool, name)): Path<(String, String)>) -> Response {
    match app.client.ask(Method::GET, &target(&pool, &name, "checks"), Bytes::new()).await {
        Ok(reply) => forward(reply),
        Err(error) => unreachable_balancer(&app, &error),
    }
}

/// Where the admin API has `what` (`state`, `checks`) of a backend.
pub(super) fn target(pool: &str, name: &str, what: &str) -> String {
    let pool = utf8_percent_encode(pool, SEGMENT);
    let name = utf8_percent_encode(name, SEGMENT);
    format!("/v1/pools/{pool}/backends/{name}/{what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(target("default", "alpha-1", "state"), "/v1/pools/default/backends/alpha-1/state");
        assert_eq!(target("a/b", "../x?y#z", "state"), "/v1/pools/a%2Fb/backends/..%2Fx%3Fy%23z/state");
        assert_eq!(target("p", "[::1]:80 é", "checks"), "/v1/pools/p/backends/%5B%3A%3A1%5D%3A80%20%C3%A9/checks");
    }
}
