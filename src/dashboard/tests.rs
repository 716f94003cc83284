//! What is embedded is what the page asks for, small, and said once to whoever has it.

use std::collections::BTreeSet;

use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HeaderName, IF_NONE_MATCH};
use actix_web::test::TestRequest;

use super::*;

/// All that a browser loads, compressed.
const BYTES_MAX: usize = 200_000;

fn ask(path: &str, headers: &[(HeaderName, &str)]) -> HttpResponse {
    let file = files().iter().find(|file| file.path == path).unwrap();
    let mut request = TestRequest::default();
    for (name, value) in headers {
        request = request.insert_header((name.clone(), *value));
    }
    answer(&request.to_http_request(), file)
}

fn tag(answer: &HttpResponse) -> &str {
    answer.headers().get(ETAG).unwrap().to_str().unwrap()
}

#[test]
fn the_whole_page_is_small() {
    let sizes = files().iter().map(|file| file.coded(Coding::Gzip).0.len());
    let all: usize = sizes.sum();
    assert!(all < BYTES_MAX, "{all} bytes");
}

#[test]
fn what_the_page_and_its_scripts_name_is_served_and_nothing_else() {
    let served: BTreeSet<&str> = files().iter().map(|file| file.path).collect();
    let mut named = BTreeSet::from(["/".to_owned()]);
    for file in files() {
        let (text, _) = file.coded(Coding::Identity);
        let text = std::str::from_utf8(&text).unwrap().to_owned();
        // The library has examples of addresses in its comments.
        if file.path == "/dashboard/uplot.js" {
            continue;
        }
        let own = text.split(['"', '\'']).filter_map(|part| match file.path {
            "/" => part.strip_prefix("dashboard/"),
            _ => part.strip_prefix("./"),
        });
        named.extend(own.map(|name| format!("/dashboard/{name}")));
        for scheme in ["http://", "https://"] {
            let mut foreign = text.split(scheme).skip(1);
            assert!(foreign.all(|rest| rest.starts_with("www.w3.org/2000/svg")), "{}", file.path);
        }
        assert!(!text.contains("innerHTML"), "{}", file.path);
    }
    assert_eq!(named, served.into_iter().map(str::to_owned).collect());
}

#[test]
fn a_form_is_sent_once() {
    let zipped = ask("/", &[(ACCEPT_ENCODING, "br, gzip")]);
    assert_eq!(zipped.headers().get(CONTENT_ENCODING).unwrap(), "gzip");
    let plain = ask("/", &[]);
    assert!(!plain.headers().contains_key(CONTENT_ENCODING));
    assert_ne!(tag(&zipped), tag(&plain));
    for wishes in ["gzip;q=0", "gzip;q=0.1, identity;q=1", "deflate"] {
        assert_eq!(tag(&ask("/", &[(ACCEPT_ENCODING, wishes)])), tag(&plain), "{wishes}");
    }
    for (known, status) in [
        (tag(&zipped), StatusCode::NOT_MODIFIED),
        ("*", StatusCode::NOT_MODIFIED),
        (tag(&plain), StatusCode::OK),
        ("nonsense", StatusCode::OK),
    ] {
        let again = ask("/", &[(ACCEPT_ENCODING, "gzip"), (IF_NONE_MATCH, known)]);
        assert_eq!(again.status(), status, "{known}");
    }
}
