//! What the page shows: live figures, on every screen, in light and dark.

use super::{NAMES, Setup, browse};

const DESK: (u32, u32) = (1280, 800);

#[tokio::test]
async fn the_page_becomes_live_and_its_figures_move_with_the_traffic() {
    let setup = Setup::start().await;
    let traffic = setup.traffic();
    let url = setup.url();
    browse("live", |page| async move {
        page.open(&url, DESK).await;
        page.ready().await;
        page.until("it is live", "document.documentElement.dataset.link === 'live'").await;
        page.until("requests are counted", "parseFloat(document.querySelector('.totals .value').textContent) > 20")
            .await;
        for name in NAMES {
            let row = format!("[data-backend={name}]");
            assert!(page.text(&format!("{row} .c-state .badge")).await.contains("Ready"));
            let check = page.text(&format!("{row} .c-check")).await;
            assert!(check.contains("connected in") && check.contains("next") && check.contains("in a row"), "{check}");
            let moving = format!("parseFloat(document.querySelector('{row} .c-requests .value').textContent) > 5");
            page.until("each backend has its share", &moving).await;
            page.until(
                "its latency is known",
                &format!("/\\d/.test(document.querySelector('{row} .c-latency').textContent)"),
            )
            .await;
        }
        assert!(page.text("#verdict").await.contains("3 of 3 backends in rotation"));
        assert!(page.text("#events").await.contains("alpha"));
        let tick = page.eval("Number(document.documentElement.dataset.tick)").await.as_u64().unwrap();
        page.until("ticks go on", &format!("Number(document.documentElement.dataset.tick) > {}", tick + 2)).await;
        page.until("the charts are drawn", "document.querySelectorAll('.chart canvas').length === 2").await;
        assert!(
            page.eval("document.querySelector('.canvas').getAttribute('aria-label')")
                .await
                .as_str()
                .unwrap()
                .contains("now")
        );
        assert_eq!(page.complaints().await, Vec::<String>::new());
    })
    .await;
    drop(traffic);
}

#[tokio::test]
async fn it_fits_every_screen_in_light_and_dark() {
    let setup = Setup::start().await;
    let traffic = setup.traffic();
    let url = setup.url();
    browse("screens", |page| async move {
        page.open(&url, DESK).await;
        page.ready().await;
        page.until("some history", "document.querySelectorAll('[data-backend=gamma] .spark-line[d^=M]').length === 1")
            .await;
        for (width, height, scheme, name) in [
            (1280, 800, "light", "desk-light"),
            (1280, 800, "dark", "desk-dark"),
            (820, 1180, "light", "tablet"),
            (390, 844, "dark", "phone-390"),
            (320, 640, "light", "phone-320"),
        ] {
            page.screen((width, height), scheme).await;
            let drawn =
                format!("innerWidth === {width} && document.querySelector('.chart canvas').clientWidth < {width}");
            page.until("the charts have the new width", &drawn).await;
            let sideways =
                page.eval("[document.documentElement.scrollWidth, document.documentElement.clientWidth]").await;
            assert!(sideways[0].as_u64() <= sideways[1].as_u64(), "{name} scrolls sideways: {sideways}");
            assert_eq!(page.eval(SMALL_TARGETS).await, serde_json::json!([]), "{name}: too small to hit");
            assert_eq!(page.eval(LOW_CONTRAST).await, serde_json::json!([]), "{name}: too faint to read");
            page.picture(name).await;
        }
        let background = "getComputedStyle(document.body).backgroundColor";
        page.screen(DESK, "dark").await;
        let dark = page.eval(background).await;
        page.screen(DESK, "light").await;
        assert_ne!(page.eval(background).await, dark, "light and dark differ");
        assert_eq!(page.complaints().await, Vec::<String>::new());
    })
    .await;
    drop(traffic);
}

/// WCAG 2.5.8: what can be clicked is at least 24 px in both directions.
pub(super) const SMALL_TARGETS: &str = "[...document.querySelectorAll('button, summary, a:not(.skip)')]
    .filter((node) => node.checkVisibility())
    .map((node) => [node.textContent, node.getBoundingClientRect()])
    .filter(([, box]) => box.width < 24 || box.height < 24).map(([text]) => text)";

/// WCAG 1.4.3: text stands out from what is behind it by 4.5 to 1.
pub(super) const LOW_CONTRAST: &str = r"(() => {
    const parse = (color) => {
      const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d');
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const over = (front, back) => front.slice(0, 3).map((value, at) => value * front[3] / 255 + back[at] * (1 - front[3] / 255));
    const luminance = (rgb) => {
      const [r, g, b] = rgb.map((value) => value / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (node) => {
      const layers = [];
      for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
      return layers.reverse().reduce((back, front) => over(front, back), [255, 255, 255]);
    };
    const faint = new Set();
    for (const node of document.querySelectorAll('body *')) {
      const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
      if (!own || !node.checkVisibility({ checkOpacity: true }) || node.closest('.skip, .visually-hidden, noscript, svg')) continue;
      const back = behind(node);
      const [light, dark] = [luminance(over(parse(getComputedStyle(node).color), back)), luminance(back)].sort((a, b) => b - a);
      const ratio = (light + 0.05) / (dark + 0.05);
      if (ratio < 4.5) faint.add(`${node.className || node.tagName} '${node.textContent.slice(0, 20)}' ${ratio.toFixed(2)}`);
    }
    return [...faint];
  })()";

#[tokio::test]
async fn a_chart_can_be_read_as_a_table_and_motion_can_be_paused() {
    let setup = Setup::start().await;
    let traffic = setup.traffic();
    let url = setup.url();
    browse("pause", |page| async move {
        page.open(&url, DESK).await;
        page.ready().await;
        page.click(".chart summary").await;
        page.until("the table has rows", "document.querySelectorAll('.chart tbody tr').length > 0").await;
        assert!(page.text(".chart .plain thead").await.contains("Requests"));

        page.click("#pause").await;
        page.until("it is paused", "document.documentElement.dataset.link === 'paused'").await;
        assert_eq!(page.eval("document.querySelector('#pause').getAttribute('aria-pressed')").await, "true");
        let before = page.eval("document.documentElement.dataset.tick").await;
        // Two more ticks come in behind it.
        tokio::time::sleep(std::time::Duration::from_millis(2200)).await;
        assert_eq!(page.eval("document.documentElement.dataset.tick").await, before, "nothing moves");
        page.click("#pause").await;
        page.until(
            "it goes on where things are now",
            &format!("Number(document.documentElement.dataset.tick) >= 2 + {}", before.as_str().unwrap()),
        )
        .await;
        assert_eq!(page.complaints().await, Vec::<String>::new());
    })
    .await;
    drop(traffic);
}

#[tokio::test]
async fn without_a_load_balancer_the_page_says_so_and_what_to_do() {
    let dashboard = super::dashboard("http://127.0.0.1:1", 0).await;
    let url = format!("{}/", dashboard.field("url"));
    browse("first-run", |page| async move {
        page.open(&url, DESK).await;
        page.until("the banner is there", "document.querySelector('.banner').checkVisibility()").await;
        page.until(
            "it names the cause",
            "document.querySelector('.banner').textContent.includes('connection refused')",
        )
        .await;
        let text = page.text(".banner").await;
        for part in [
            "The load balancer is not there",
            "http://127.0.0.1:1",
            "Trying again",
            "cargo run --release --bin loadbalancer",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        page.picture("first-run").await;
    })
    .await;
}
