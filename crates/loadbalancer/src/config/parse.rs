//! Single values: from the text a person wrote to a type. No option is named here.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use lb_core::backend::{BackendSpec, HostPort, MAX_WEIGHT};

/// What a backend must look like, for messages.
pub(super) const BACKEND_EXPECTED: &str = "HOST:PORT[,weight=1..256][,name=X], such as 10.0.0.7:8080,weight=3";

/// `500ms`, `10s`, `2m`, `1h`; a fraction is allowed, the unit is not optional.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim_start() {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// A duration as a person writes it.
pub(super) fn words(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

/// `512`, `8KiB`, `10MiB`, `1GiB`.
pub(super) fn size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A size as a person writes it.
pub(super) fn size_words(size: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(factor, _)| size >= *factor && size.is_multiple_of(*factor)) {
        Some((factor, unit)) => format!("{}{unit}", size / factor),
        None => size.to_string(),
    }
}

/// `true` or `false`, and what people write for it.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// A network, or an address as a network of one.
pub(super) fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// A token of RFC 9110 §5.6.2, without the characters that would need quoting elsewhere.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
}

/// Splits a list of backends at its commas: a part with `=` belongs to the backend before it.
pub(super) fn split_backends(text: &str) -> Vec<String> {
    let mut backends: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match backends.last_mut() {
            Some(backend) if part.contains('=') => {
                backend.push(',');
                backend.push_str(part);
            }
            _ => backends.push(part.to_owned()),
        }
    }
    backends
}

/// One backend: `HOST:PORT[,weight=N][,name=X]`. The error says what is wrong with it.
pub(super) fn backend(text: &str) -> Result<BackendSpec, String> {
    let mut parts = text.split(',').map(str::trim);
    let address = host_port(parts.next().unwrap_or_default())?;
    let mut spec = BackendSpec { name: address.to_string(), address, weight: 1 };
    for part in parts {
        match part.split_once('=') {
            Some(("weight", number)) => spec.weight = weight(number)?,
            Some(("name", name)) => spec.name = backend_name(name)?,
            _ => return Err(format!("{part:?} is neither weight=N nor name=X")),
        }
    }
    Ok(spec)
}

/// A weight from 1 to [`MAX_WEIGHT`].
pub(super) fn weight(text: &str) -> Result<u32, String> {
    let weight = text.parse().ok().filter(|weight| (1..=MAX_WEIGHT).contains(weight));
    weight.ok_or_else(|| format!("weight {text:?} is not a whole number from 1 to {MAX_WEIGHT}"))
}

/// As long as a host name may be (RFC 1035 §2.3.4), written out.
const LONGEST_HOST: usize = 253;

/// A backend that is given no name is called by its address: what that may be, any name may be.
const LONGEST_NAME: usize = LONGEST_HOST + ":65535".len();

/// A name that fits into a URL path, a log line and a metric label as it is.
pub(super) fn backend_name(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if text.is_empty() || text.len() > LONGEST_NAME || !text.bytes().all(fits) {
        return Err(format!("name {text:?} is not 1 to {LONGEST_NAME} letters, digits and -._:[]"));
    }
    Ok(text.to_owned())
}

/// `HOST:PORT`, with brackets round an IPv6 address. The error says what is wrong with it.
pub(super) fn host_port(text: &str) -> Result<HostPort, String> {
    if text.contains("://") {
        return Err(format!("{text:?} is a URL; give only HOST:PORT"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("{text:?} has no port"));
    };
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("port {port:?} of {text:?} is not a number from 1 to 65535"))?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
        Some(v6) => return Err(format!("{v6:?} is not an IPv6 address")),
        None if host.contains(':') => return Err(format!("the IPv6 address in {text:?} needs brackets")),
        None => host,
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    if host.is_empty() || host.len() > LONGEST_HOST || !host.bytes().all(fits) {
        return Err(format!("{host:?} is not a host name or IP address"));
    }
    // One spelling per address, so that the same server is not taken for two.
    let host = host.parse::<IpAddr>().map_or_else(|_| host.to_ascii_lowercase(), |ip| ip.to_string());
    Ok(HostPort { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1d", "1e9h", "1..2s", "10 parsecs"] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!([words(duration("90s").unwrap()), words(duration("7ms").unwrap())], ["90s", "7ms"]);
    }

    #[test]
    fn a_list_of_backends_keeps_attributes_with_their_backend() {
        let list = split_backends("a:1, b:2,weight=3,name=bee ,c:3,");
        assert_eq!(list, ["a:1", "b:2,weight=3,name=bee", "c:3"]);
        let bee = backend(&list[1]).unwrap();
        assert_eq!((bee.name.as_str(), bee.address.to_string().as_str(), bee.weight), ("bee", "b:2", 3));
    }

    #[test]
    fn wrong_backends_say_what_is_wrong() {
        for (text, words) in [
            ("localhost", "has no port"),
            ("http://localhost:80", "is a URL"),
            ("localhost:http", "is not a number from 1 to 65535"),
            ("localhost:0", "is not a number from 1 to 65535"),
            ("::1:80", "needs brackets"),
            ("[::g]:80", "is not an IPv6 address"),
            (":80", "is not a host name"),
            ("a b:80", "is not a host name"),
            ("a:80,weight=0", "is not a whole number from 1 to 256"),
            ("a:80,size=9", "is neither weight=N nor name=X"),
            ("a:80,name=a/b", "is not 1 to 259 letters"),
        ] {
            let error = backend(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert_eq!(backend("[::1]:80").unwrap().name, "[::1]:80");
    }

    #[test]
    fn whatever_a_backend_is_called_by_itself_it_may_be_called() {
        let longest = backend(&format!("{}:65535", "n".repeat(LONGEST_HOST))).unwrap();
        assert_eq!(backend_name(&longest.name), Ok(longest.name.clone()));
        assert!(backend_name(&format!("{}n", longest.name)).is_err());
    }
}
