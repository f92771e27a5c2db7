//! Lets a request in or not, and puts on every answer what keeps other sites away from the page.

use axum::extract::{Request, State};
use axum::http::HeaderName;
use axum::middleware::Next;
use axum::response::Response;
use hyper::header::{
    CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderValue, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{StatusCode, Uri};

use super::{App, problem};
use crate::guard::{HostPolicy, Refusal};
use crate::metrics::Metrics;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Nothing inline, nothing from elsewhere, and no frame round it: a script that got into a backend's name is text.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                              connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let verdict = allow(&app.hosts, &request);
    let mut response = match verdict {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            Metrics::add(&app.feed.metrics.refused_requests);
            tracing::warn!(method = %request.method(), path = request.uri().path(), %refusal, "refused");
            refused(refusal)
        }
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn allow(hosts: &HostPolicy, request: &Request) -> Result<(), Refusal> {
    let headers = request.headers();
    let accepted = hosts.accept(host(request.uri(), headers)?)?;
    if request.method().is_safe() {
        return Ok(());
    }
    accepted.allow_change(only(headers, &ORIGIN, Refusal::Origin)?, only(headers, &SEC_FETCH_SITE, Refusal::FetchSite)?)
}

/// RFC 9112 §3.2.2: a target in absolute form names the host, whatever the `Host` field says. No browser sends that
/// to an origin, so that both have to agree.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<Option<&'a str>, Refusal> {
    let field = only(headers, &HOST, Refusal::Host)?;
    match uri.authority() {
        Some(authority) if field != Some(authority.as_str()) => Err(Refusal::Host),
        _ => Ok(field),
    }
}

/// A field that decides must be there at most once, and be text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName, refusal: Refusal) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refusal);
    }
    value.to_str().map(Some).map_err(|_| refusal)
}

fn refused(refusal: Refusal) -> Response {
    let (status, kind, title) = match refusal {
        // RFC 9110 §15.5.20: this server does not answer for that host.
        Refusal::Host => (StatusCode::MISDIRECTED_REQUEST, "foreign-host", "Not the host of this dashboard"),
        Refusal::NoOrigin | Refusal::Origin | Refusal::FetchSite => {
            (StatusCode::FORBIDDEN, "foreign-origin", "Changes only from the page itself")
        }
    };
    problem(status, kind, title, refusal.to_string())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn verdict(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let hosts = HostPolicy::new("127.0.0.1".parse().unwrap(), Vec::new());
        allow(&hosts, &request.body(Body::empty()).unwrap())
    }

    #[test]
    fn fields_that_decide_are_there_once() {
        let host = ("host", "localhost:8090");
        let origin = ("origin", "http://localhost:8090");
        let site = ("sec-fetch-site", "same-origin");
        assert_eq!(verdict("GET", "/", &[host]), Ok(()));
        assert_eq!(verdict("GET", "/", &[host, host]), Err(Refusal::Host));
        assert_eq!(verdict("GET", "/", &[("host", "localhost\u{e9}")]), Err(Refusal::Host));
        for method in ["PUT", "POST", "DELETE", "PATCH", "BREW"] {
            assert_eq!(verdict(method, "/", &[host]), Err(Refusal::NoOrigin), "{method}");
            assert_eq!(verdict(method, "/", &[host, origin, site]), Ok(()), "{method}");
            assert_eq!(verdict(method, "/", &[host, origin, origin]), Err(Refusal::Origin), "{method}");
            assert_eq!(verdict(method, "/", &[host, origin, site, site]), Err(Refusal::FetchSite), "{method}");
        }
    }

    #[test]
    fn a_target_in_absolute_form_is_no_way_round() {
        let host = ("host", "localhost:8090");
        assert_eq!(verdict("GET", "http://evil.example/", &[host]), Err(Refusal::Host));
        assert_eq!(verdict("GET", "http://localhost:8090/", &[("host", "evil.example")]), Err(Refusal::Host));
        assert_eq!(verdict("GET", "http://localhost:8090/", &[]), Err(Refusal::Host));
        assert_eq!(verdict("GET", "http://localhost:8090/", &[host]), Ok(()));
    }
}
