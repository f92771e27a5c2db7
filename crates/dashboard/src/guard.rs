//! Who may ask, decided by `Host`, `Origin` and `Sec-Fetch-Site`: the page has no login, so that another web site
//! open in the same browser must be able neither to read it (DNS rebinding) nor to press its buttons (CSRF).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::http::uri::Authority;

/// A name the page may be asked for by, besides loopback ones. `--allowed-host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    host: Host,
    /// The page is reached through a proxy that speaks TLS, so its origin is `https`.
    https: bool,
}

impl FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (https, authority) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => (false, ""),
            None => (false, text),
        };
        match Host::parse(authority) {
            Some(host) => Ok(Self { host, https }),
            None => Err("expected HOST, HOST:PORT or https://HOST, such as ops.example.com (--allowed-host or \
                         DASHBOARD_ALLOWED_HOSTS)"
                .to_owned()),
        }
    }
}

/// Which hosts are ours.
#[derive(Clone, Debug)]
pub(crate) struct HostPolicy {
    bind: IpAddr,
    allowed: Vec<AllowedHost>,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The `Host` is missing or not one of ours.
    Host,
    /// A change without a word about where it comes from.
    NoOrigin,
    /// A change that another site asks for.
    Origin,
    /// The browser itself says that another site asks.
    FetchSite,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => {
                "this dashboard does not answer to that Host; expected localhost, a loopback address, the address \
                 given with --bind, or a name listed with --allowed-host or DASHBOARD_ALLOWED_HOSTS"
            }
            Self::NoOrigin => "a change needs an Origin field that names this page, as a browser sends it",
            Self::Origin => {
                "the Origin of this change is not this page; behind a proxy with TLS list the page as https://HOST \
                 with --allowed-host or DASHBOARD_ALLOWED_HOSTS"
            }
            Self::FetchSite => "the browser says that another site asks for this change (Sec-Fetch-Site)",
        })
    }
}

/// The host that a request was let in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    host: Host,
    https: bool,
}

impl HostPolicy {
    pub(crate) const fn new(bind: IpAddr, allowed: Vec<AllowedHost>) -> Self {
        Self { bind, allowed }
    }

    /// # Errors
    /// When the host is not ours.
    pub(crate) fn accept(&self, host: Option<&str>) -> Result<Accepted, Refusal> {
        let host = host.and_then(Host::parse).ok_or(Refusal::Host)?;
        let listed = self.allowed.iter().find(|allowed| allowed.host.covers(&host));
        if host.is_loopback() || host.address() == Some(self.bind) || listed.is_some() {
            let https = listed.is_some_and(|allowed| allowed.https);
            return Ok(Accepted { host, https });
        }
        Err(Refusal::Host)
    }
}

impl Accepted {
    /// Whether a change comes from the page itself: the same scheme, host and port as the request.
    ///
    /// # Errors
    /// When it does not, or does not say so.
    pub(crate) fn allow_change(&self, origin: Option<&str>, fetch_site: Option<&str>) -> Result<(), Refusal> {
        let origin = origin.ok_or(Refusal::NoOrigin)?;
        let (scheme, default_port) = if self.https { ("https", 443) } else { ("http", 80) };
        let same = origin.split_once("://").is_some_and(|(origin_scheme, authority)| {
            origin_scheme == scheme
                && Host::parse(authority).is_some_and(|origin| {
                    origin.name == self.host.name
                        && origin.port.unwrap_or(default_port) == self.host.port.unwrap_or(default_port)
                })
        });
        if !same {
            return Err(Refusal::Origin);
        }
        // Browsers that do not know the field send none; whoever sends it must say that it is us.
        match fetch_site {
            None | Some("same-origin") => Ok(()),
            Some(_) => Err(Refusal::FetchSite),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// Lower case, an IPv6 address without brackets.
    name: String,
    port: Option<u16>,
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        if text.contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            // `Authority` takes any digits; a port that is none makes the whole host void.
            Some(port) => Some(port.parse().ok()?),
            None => None,
        };
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        Some(Self { name, port })
    }

    fn address(&self) -> Option<IpAddr> {
        self.name.parse().ok()
    }

    fn is_loopback(&self) -> bool {
        self.name == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }

    /// A rule without a port covers every port.
    fn covers(&self, other: &Self) -> bool {
        self.name == other.name && (self.port.is_none() || self.port == other.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> HostPolicy {
        let allowed = ["ops.example.com", "one-port.example.com:9000", "https://tls.example.com"];
        HostPolicy::new("10.0.0.7".parse().unwrap(), allowed.iter().map(|host| host.parse().unwrap()).collect())
    }

    #[test]
    fn only_our_own_hosts_are_answered() {
        for (host, ours) in [
            (Some("localhost"), true),
            (Some("localhost:8090"), true),
            (Some("LOCALHOST:1"), true),
            (Some("127.0.0.1:8090"), true),
            (Some("127.9.9.9"), true),
            (Some("[::1]:8090"), true),
            (Some("[::1]"), true),
            (Some("10.0.0.7:8090"), true),
            (Some("ops.example.com"), true),
            (Some("ops.example.com:8443"), true),
            (Some("one-port.example.com:9000"), true),
            (Some("one-port.example.com:9001"), false),
            (Some("one-port.example.com"), false),
            (None, false),
            (Some(""), false),
            (Some("evil.example"), false),
            (Some("localhost.evil.example"), false),
            (Some("127.0.0.1.evil.example"), false),
            (Some("evil.example:8090"), false),
            (Some("localhost@evil.example"), false),
            (Some("evil.example@localhost"), false),
            (Some("10.0.0.8:8090"), false),
            (Some("0.0.0.0:8090"), false),
            (Some("localhost:notaport"), false),
            (Some("localhost:99999"), false),
            (Some("localhost, evil.example"), false),
            (Some("[::2]"), false),
        ] {
            assert_eq!(policy().accept(host).is_ok(), ours, "{host:?}");
        }
    }

    #[test]
    fn only_the_page_itself_may_change_anything() {
        let same = Some("same-origin");
        for (host, origin, site, verdict) in [
            ("localhost:8090", Some("http://localhost:8090"), same, Ok(())),
            ("localhost:8090", Some("http://localhost:8090"), None, Ok(())),
            ("localhost", Some("http://localhost"), same, Ok(())),
            ("localhost:80", Some("http://localhost"), same, Ok(())),
            ("[::1]:8090", Some("http://[::1]:8090"), same, Ok(())),
            ("tls.example.com", Some("https://tls.example.com"), same, Ok(())),
            ("tls.example.com", Some("http://tls.example.com"), same, Err(Refusal::Origin)),
            ("localhost:8090", None, same, Err(Refusal::NoOrigin)),
            ("localhost:8090", None, None, Err(Refusal::NoOrigin)),
            ("localhost:8090", Some("null"), None, Err(Refusal::Origin)),
            ("localhost:8090", Some(""), None, Err(Refusal::Origin)),
            ("localhost:8090", Some("http://localhost:8080"), same, Err(Refusal::Origin)),
            ("localhost:8090", Some("http://127.0.0.1:8090"), same, Err(Refusal::Origin)),
            ("localhost:8090", Some("https://localhost:8090"), same, Err(Refusal::Origin)),
            ("localhost:8090", Some("http://evil.example"), None, Err(Refusal::Origin)),
            ("localhost:8090", Some("http://localhost:8090.evil.example"), None, Err(Refusal::Origin)),
            ("localhost:8090", Some("http://localhost:8090/path"), same, Err(Refusal::Origin)),
            ("localhost:8090", Some("http://localhost:8090"), Some("same-site"), Err(Refusal::FetchSite)),
            ("localhost:8090", Some("http://localhost:8090"), Some("cross-site"), Err(Refusal::FetchSite)),
            ("localhost:8090", Some("http://localhost:8090"), Some("none"), Err(Refusal::FetchSite)),
        ] {
            let accepted = policy().accept(Some(host)).unwrap();
            assert_eq!(accepted.allow_change(origin, site), verdict, "{host} {origin:?} {site:?}");
        }
    }

    #[test]
    fn an_allowed_host_is_a_host() {
        for wrong in ["", "a b", "ftp://x", "user@host", "host:port"] {
            assert!(wrong.parse::<AllowedHost>().is_err(), "{wrong:?}");
        }
    }
}
