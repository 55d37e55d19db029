//! The pages as a browser asks for them: their policy, their caching, their compressed forms, and that nothing is missing.

use surety_gateway::KeyTerms;

use crate::{
    fake::FakeWorker,
    http::{Answer, Site},
    keys::key,
};

const BROWSER: &str = "accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n";

/// The paths that a page names.
fn named(html: &str) -> Vec<String> {
    let after = |mark: &'static str| html.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
    let paths = after("src=\"").chain(after("href=\"")).filter(|path| *path != "/openapi.json");
    paths.map(str::to_owned).collect()
}

fn check_policy(answer: &Answer) {
    let policy = answer.header("content-security-policy").expect("a policy");
    let begins = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; ";
    let rest = policy.strip_prefix(begins).unwrap_or_else(|| panic!("{policy}"));
    for directive in ["frame-ancestors 'none'", "base-uri 'none'", "require-trusted-types-for 'script'"] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!rest.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert!(answer.header("permissions-policy").is_some_and(|policy| policy.contains("camera=()")));
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_get_the_page_and_programs_how_to_use_the_api() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    for headers in ["", "accept: */*\r\n", "accept: text/html;q=0, */*\r\n"] {
        let told = site.get_with("/", headers).await;
        assert!(
            told.text().contains("base URL") && told.text().contains("chat "),
            "{headers}: {}",
            told.text()
        );
        assert_eq!(told.header("vary"), Some("accept"));
    }
    let page = site.get_with("/", BROWSER).await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!((page.header("cache-control"), page.header("content-encoding")), (Some("no-cache"), None));
    check_policy(&page);
    assert!(!page.text().contains("<script>") && !page.text().contains("http"), "{}", page.text());

    let files = named(page.text());
    assert!(files.iter().any(|path| path.ends_with(".js")), "{files:?}");
    for path in &files {
        let file = site.get(path).await;
        assert_eq!(file.status, 200, "{path}");
        check_policy(&file);
        let kept =
            if path.starts_with("/assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
        assert_eq!(file.header("cache-control"), Some(kept), "{path}");
    }
    assert_eq!(site.post("/theme.js", "{}").await.status, 405);
    assert_eq!(site.get("/assets/none.js").await.error()["code"], "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_compressed_as_asked_and_not_sent_twice() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let page = site.get_with("/", BROWSER).await;
    let script =
        named(page.text()).into_iter().find(|path| path.starts_with("/assets/") && path.ends_with(".js"));
    let script = script.expect("a script");
    let plain = site.get(&script).await;
    for (asked, encoding) in [("gzip, deflate, br", "br"), ("gzip", "gzip"), ("br;q=0, gzip", "gzip")] {
        let answer = site.get_with(&script, &format!("accept-encoding: {asked}\r\n")).await;
        assert_eq!(answer.header("content-encoding"), Some(encoding), "{asked}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        assert!(answer.body.len() * 2 < plain.body.len(), "{asked}: {} bytes", answer.body.len());
        assert_eq!(answer.header("etag"), plain.header("etag"));
    }
    let known = format!("{BROWSER}if-none-match: {}\r\n", page.header("etag").expect("a tag"));
    let again = site.get_with("/", &known).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    check_policy(&again);
    let other = site.get_with("/", &format!("{BROWSER}if-none-match: \"other\"\r\n")).await;
    assert_eq!((other.status, &other.body), (200, &page.body));
}

/// Whoever has no key yet needs the page to type it in.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_needs_no_key() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    key(&site, KeyTerms::named("mine")).await;
    assert_eq!(site.get("/v1/models").await.status, 401);
    let page = site.get_with("/", BROWSER).await;
    assert_eq!(page.status, 200);
    for path in named(page.text()).iter().map(String::as_str).chain(["/service-worker.js"]) {
        assert_eq!(site.get(path).await.status, 200, "{path}");
    }
}
