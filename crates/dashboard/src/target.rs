//! Where the admin API is: derived from the load balancer's URL and the admin port, or said in full.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

/// Where the admin API listens unless somebody says otherwise.
pub(crate) const DEFAULT_ADMIN_PORT: u16 = 8089;
/// The port of `http` when a URL does not name one.
const HTTP_PORT: u16 = 80;

/// The load balancer's own address, of which only the host is used. `LOAD_BALANCER_URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerUrl {
    host: String,
}

impl FromStr for LoadBalancerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected http://HOST[:PORT], such as http://localhost:8080 (--load-balancer-url or \
                        LOAD_BALANCER_URL)";
        let url = Parts::of(text).map_err(|problem| format!("{problem}; {expected}"))?;
        if !matches!(url.scheme.as_str(), "http" | "https") {
            return Err(format!("scheme {:?} is not http; {expected}", url.scheme));
        }
        Ok(Self { host: url.host })
    }
}

/// The admin API: plain HTTP, a host, a port, and the path it is mounted under (without a slash at its end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminUrl {
    host: String,
    port: u16,
    path: String,
}

impl AdminUrl {
    pub(crate) fn beside(balancer: &LoadBalancerUrl, port: u16) -> Self {
        Self { host: balancer.host.clone(), port, path: String::new() }
    }

    /// Without the brackets of an IPv6 address.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The value of the `Host` field.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The request target of `path`, which starts with a slash.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.path)
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

impl FromStr for AdminUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected http://HOST[:PORT][/PATH], such as http://localhost:8089 (--admin-url or ADMIN_URL)";
        let url = Parts::of(text).map_err(|problem| format!("{problem}; {expected}"))?;
        match url.scheme.as_str() {
            "http" => {}
            "https" => return Err(format!("the admin API is spoken to over plain http only, not https; {expected}")),
            other => return Err(format!("scheme {other:?} is not http; {expected}")),
        }
        Ok(Self { host: url.host, port: url.port.unwrap_or(HTTP_PORT), path: url.path })
    }
}

struct Parts {
    scheme: String,
    host: String,
    port: Option<u16>,
    path: String,
}

impl Parts {
    fn of(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.trim().parse().map_err(|_| "not a URL")?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("not a URL with scheme and host");
        };
        if authority.as_str().contains('@') {
            return Err("a user name or password does not belong here: it would be shown on the page");
        }
        // `Uri` accepts any digits as a port, and then says that there is none.
        let written_port = authority.as_str().rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        if written_port.is_some() && authority.port_u16().is_none() {
            return Err("the port is not a number from 0 to 65535");
        }
        if authority.host().is_empty() {
            return Err("the host is empty");
        }
        if uri.query().is_some() {
            return Err("a query does not belong here");
        }
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16(),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_api_is_on_the_load_balancers_host() {
        let beside = |url: &str| AdminUrl::beside(&url.parse().unwrap(), DEFAULT_ADMIN_PORT).to_string();
        assert_eq!(beside("http://localhost:8080"), "http://localhost:8089");
        assert_eq!(beside("http://localhost:8080/"), "http://localhost:8089");
        assert_eq!(beside("http://10.0.0.7"), "http://10.0.0.7:8089");
        assert_eq!(beside("https://lb.example.com/app"), "http://lb.example.com:8089");
        assert_eq!(beside("http://[::1]:8080"), "http://[::1]:8089");
    }

    #[test]
    fn an_admin_url_is_taken_in_full() {
        let url: AdminUrl = "http://[::1]:9000/lb/".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.authority().as_str()), ("::1", 9000, "[::1]:9000"));
        assert_eq!(url.path("/v1/status"), "/lb/v1/status");
        assert_eq!(url.to_string(), "http://[::1]:9000/lb");
        assert_eq!("http://lb".parse::<AdminUrl>().unwrap().to_string(), "http://lb:80");
    }

    #[test]
    fn a_wrong_url_is_refused_with_what_was_expected() {
        for (wrong, why) in [
            ("", "not a URL"),
            ("localhost:8080", "with scheme and host"),
            ("localhost", "with scheme and host"),
            ("/status", "with scheme and host"),
            ("ftp://localhost", "is not http"),
            ("http://", "not a URL"),
            ("http://host:99999", "port"),
            ("http://host:", "port"),
            ("http://user:secret@host", "password"),
            ("http://host/?token=x", "query"),
            ("http://two words", "not a URL"),
        ] {
            for error in [wrong.parse::<LoadBalancerUrl>().unwrap_err(), wrong.parse::<AdminUrl>().unwrap_err()] {
                assert!(error.contains(why), "{wrong:?} gave {error:?}");
                assert!(error.contains("expected http://HOST"), "{wrong:?} gave {error:?}");
                assert!(!error.contains("secret"), "{wrong:?} gave {error:?}");
            }
        }
        let error = "https://localhost:8089".parse::<AdminUrl>().unwrap_err();
        assert!(error.contains("plain http only"), "{error}");
    }
}
