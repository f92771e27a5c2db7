//! The page and what it is made of, embedded in the binary: no file to lose, no build step to forget.

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use rust_embed::RustEmbed;

use super::not_found;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Assets;

/// Ask each time whether it is still the same: a new dashboard must not run with an old script.
const REVALIDATE: &str = "no-cache";

pub(super) async fn page(headers: HeaderMap) -> Response {
    serve("index.html", &headers).await
}

pub(super) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    serve(&path, &headers).await
}

async fn serve(path: &str, headers: &HeaderMap) -> Response {
    let (Some(file), Some(content_type)) = (Assets::get(path), content_type(path)) else {
        return not_found().await;
    };
    let hash: String = file.metadata.sha256_hash().iter().map(|byte| format!("{byte:02x}")).collect();
    let etag = format!("\"{hash}\"");
    let head = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, REVALIDATE), (ETAG, etag.as_str())];
    // RFC 9110 §13.1.2: a list of tags, weak or strong, or `*`.
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).is_some_and(|tags| {
        tags.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
    });
    if known {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (head, file.data).into_response()
}

/// The whole list: a file of another kind is not part of the page.
fn content_type(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

#[cfg(test)]
#[path = "assets_tests.rs"]
mod tests;
