//! The files of the page, each compressed when it is first asked for so.

use std::io::Write as _;
use std::sync::{LazyLock, OnceLock};

use actix_web::http::header::EntityTag;
use actix_web::web::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};

use crate::gateway::coding::Coding;

/// One file of the page.
#[derive(Debug)]
pub(super) struct File {
    /// Where it is served.
    pub(super) path: &'static str,
    pub(super) kind: &'static str,
    plain: (Bytes, EntityTag),
    gzip: (OnceLock<Bytes>, EntityTag),
}

impl File {
    fn new(path: &'static str, kind: &'static str, text: &'static [u8]) -> Self {
        let hash = digest(&SHA256, text);
        let name: String = hash.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        // Two forms of one file are two entities to a cache that compares strongly.
        let gzip = (OnceLock::new(), EntityTag::new_strong(format!("{name}-gzip")));
        Self { path, kind, plain: (Bytes::from_static(text), EntityTag::new_strong(name)), gzip }
    }

    pub(super) fn coded(&self, coding: Coding) -> (Bytes, &EntityTag) {
        let (plain, gzip) = (&self.plain, &self.gzip);
        match coding {
            Coding::Identity | Coding::Deflate => (plain.0.clone(), &plain.1),
            Coding::Gzip => (gzip.0.get_or_init(|| compressed(&plain.0)).clone(), &gzip.1),
        }
    }
}

/// All of them.
pub(super) fn files() -> &'static [File] {
    static FILES: LazyLock<Vec<File>> =
        LazyLock::new(|| EMBEDDED.iter().map(|&(path, kind, text)| File::new(path, kind, text)).collect());
    &FILES
}

fn compressed(text: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    written.expect("a vector takes whatever is written").into()
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! assets {
    ($($kind:ident $name:literal)*) => {
        &[
            ("/", HTML, include_bytes!("assets/index.html")),
            $((concat!("/dashboard/", $name), $kind, include_bytes!(concat!("assets/", $name))),)*
            ("/dashboard/uplot.js", JS, include_bytes!("vendor/uplot/uPlot.esm.js")),
            ("/dashboard/uplot-licence.txt", TEXT, include_bytes!("vendor/uplot/LICENSE")),
            ("/dashboard/uplot.css", CSS, include_bytes!("vendor/uplot/uPlot.min.css")),
        ]
    };
}

/// Path, content type, content.
const EMBEDDED: &[(&str, &str, &[u8])] = assets! {
    CSS "style.css"
    SVG "icon.svg"
    JS "app.js"
    JS "audit.js"
    JS "charts.js"
    JS "dom.js"
    JS "fan.js"
    JS "format.js"
    JS "map.js"
    JS "models.js"
    JS "net.js"
    JS "observed.js"
    JS "regions.js"
    JS "scaler.js"
    JS "tables.js"
    JS "theme.js"
};
