use super::*;

/// Every file of the page. A file that is missing would be noticed by nobody but the person who opens the page.
const EXPECTED: &[&str] = &[
    "css/backends.css",
    "css/base.css",
    "css/detail.css",
    "css/overlay.css",
    "css/page.css",
    "icon.svg",
    "index.html",
    "js/actions.js",
    "js/checks.js",
    "js/dom.js",
    "js/effect.js",
    "js/format.js",
    "js/main.js",
    "js/place.js",
    "js/store.js",
    "js/story.js",
    "js/stream.js",
    "js/view/backend.js",
    "js/view/banner.js",
    "js/view/chart.js",
    "js/view/charts.js",
    "js/view/confirm.js",
    "js/view/detail.js",
    "js/view/events.js",
    "js/view/facts.js",
    "js/view/header.js",
    "js/view/icons.js",
    "js/view/pools.js",
    "js/view/results.js",
    "js/view/sparkline.js",
    "js/view/stage.js",
    "js/view/strip.js",
    "js/view/toasts.js",
    "js/view/totals.js",
    "js/view/underway.js",
    "js/words.js",
    "vendor/manifest.json",
    "vendor/uplot/LICENSE.txt",
    "vendor/uplot/uPlot.iife.min.js",
    "vendor/uplot/uPlot.min.css",
];

fn text(path: &str) -> String {
    String::from_utf8(Assets::get(path).unwrap().data.into_owned()).unwrap()
}

fn own_files(extension: &str) -> impl Iterator<Item = &'static str> {
    EXPECTED.iter().copied().filter(move |path| path.ends_with(extension) && !path.starts_with("vendor/"))
}

#[test]
fn every_asset_is_there_and_none_besides() {
    let mut found: Vec<String> = Assets::iter().map(|path| path.into_owned()).collect();
    found.sort();
    assert_eq!(found, EXPECTED);
}

#[test]
fn every_asset_has_a_type_that_browsers_run() {
    for path in EXPECTED {
        assert!(content_type(path).is_some(), "{path}");
    }
}

#[test]
fn vendored_files_are_the_ones_that_were_published() {
    let manifest: serde_json::Value = serde_json::from_str(&text("vendor/manifest.json")).unwrap();
    let mut listed = vec!["vendor/manifest.json".to_owned()];
    for package in manifest["vendored"].as_array().unwrap() {
        for field in ["name", "version", "source", "licence"] {
            assert!(package[field].is_string(), "{field} of {package}");
        }
        for file in package["files"].as_array().unwrap() {
            let path = file["path"].as_str().unwrap();
            assert_eq!(sha256(path), file["sha256"].as_str().unwrap(), "{path} was changed");
            listed.push(path.to_owned());
        }
    }
    listed.sort();
    let vendored: Vec<_> = EXPECTED.iter().filter(|path| path.starts_with("vendor/")).collect();
    assert_eq!(listed.iter().collect::<Vec<_>>(), vendored, "every vendored file is in the manifest");
}

/// rust-embed computed it from the bytes it embedded.
fn sha256(path: &str) -> String {
    Assets::get(path).unwrap().metadata.sha256_hash().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content security policy would stop it in the browser, where nobody reads the console.
#[test]
fn the_page_has_no_inline_script_style_or_handler() {
    let page = text("index.html");
    for forbidden in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    for script in page.split("<script").skip(1) {
        assert!(script.trim_start().starts_with("src="), "<script{script}");
    }
}

/// An address that starts with a slash would leave the path that a proxy serves the page under.
#[test]
fn every_address_is_relative() {
    for path in own_files(".html").chain(own_files(".js")).chain(own_files(".css")) {
        let text = text(path);
        for forbidden in [
            "src=\"/",
            "href=\"/",
            "url(/",
            "fetch('/",
            "follow('/",
            "from '/",
            "`/api",
            "'/api",
            "src=\"http",
            "href=\"http",
        ] {
            assert!(!text.contains(forbidden), "{path} holds {forbidden}");
        }
    }
}

/// A module that is imported but not there stops the whole page.
#[test]
fn every_import_leads_to_an_asset() {
    for path in own_files(".js") {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for import in text(path).split(" from '").skip(1) {
            let import = import.split('\'').next().unwrap();
            let mut parts: Vec<&str> = folder.split('/').collect();
            for part in import.split('/') {
                match part {
                    "." => {}
                    ".." => drop(parts.pop()),
                    name => parts.push(name),
                }
            }
            assert!(EXPECTED.contains(&parts.join("/").as_str()), "{path} imports {import}");
        }
    }
}

#[test]
fn text_from_the_load_balancer_never_becomes_markup() {
    for path in own_files(".js") {
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!text(path).contains(forbidden), "{path} uses {forbidden}");
        }
    }
}

#[tokio::test]
async fn an_unchanged_asset_is_not_sent_again() {
    let first = serve("css/base.css", &HeaderMap::new()).await;
    assert_eq!(first.status(), StatusCode::OK);
    let etag = first.headers()[ETAG].clone();
    for tags in [etag.to_str().unwrap().to_owned(), format!("\"other\", W/{}", etag.to_str().unwrap()), "*".to_owned()]
    {
        let known: HeaderMap = [(IF_NONE_MATCH, tags.parse().unwrap())].into_iter().collect();
        assert_eq!(serve("css/base.css", &known).await.status(), StatusCode::NOT_MODIFIED, "{tags}");
    }
    let other: HeaderMap = [(IF_NONE_MATCH, "\"other\"".parse().unwrap())].into_iter().collect();
    assert_eq!(serve("css/base.css", &other).await.status(), StatusCode::OK);
    assert_eq!(serve("css/none.css", &HeaderMap::new()).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(serve("../Cargo.toml", &HeaderMap::new()).await.status(), StatusCode::NOT_FOUND);
}
