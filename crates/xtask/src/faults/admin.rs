//! As much of a client of the admin API as it takes to read a page.

use std::io::{Read, Write};

use crate::bench::http;

/// The body of a page, or `None` if it does not come.
pub(super) fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = http::connect(port).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: faults\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}
