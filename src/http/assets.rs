//! The embedded browser client, as `build.rs` prepares it: parts named by a hash of their content,
//! and the page, service worker and manifest that refer to them.

use std::borrow::Cow;

use crate::http::request::Request;
use crate::http::response::{Answer, Cache, Status};

/// One variant of an asset.
#[derive(Debug)]
struct Content {
    /// A digest of the plain bytes, in hex digits.
    digest: &'static str,
    plain: &'static [u8],
    /// Compressed with gzip, if that is shorter.
    gzip: Option<&'static [u8]>,
    /// Compressed with Brotli, if that is shorter: by an eighth shorter than with gzip.
    brotli: Option<&'static [u8]>,
}

impl Content {
    /// The body for a client that accepts `codings`, and the name of the coding that it has.
    fn encoded(&self, codings: Codings) -> (&'static [u8], Option<&'static str>) {
        match (self.brotli, self.gzip) {
            (Some(body), _) if codings.brotli => (body, Some("br")),
            (_, Some(body)) if codings.gzip => (body, Some("gzip")),
            _ => (self.plain, None),
        }
    }
}

/// A file that is served.
#[derive(Debug)]
pub(super) struct Asset {
    path: &'static str,
    media_type: &'static str,
    cache: Cache,
    content: Content,
    /// The content to serve while the server has no users.
    first_run: Option<Content>,
}

/// Sorted by path.
static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The asset at a path.
pub(super) fn find(path: &str) -> Option<&'static Asset> {
    let found = ASSETS.binary_search_by(|asset| asset.path.cmp(path)).ok()?;
    ASSETS.get(found)
}

impl Asset {
    /// The answer to a request for it. `is_empty`: the server has no users.
    pub(super) fn answer(&self, request: &Request<'_>, is_empty: bool) -> Answer<'static> {
        let first_run = self.first_run.as_ref().filter(|_| is_empty);
        let content = first_run.unwrap_or(&self.content);
        let (body, encoding) = content.encoded(accepted_codings(request));
        let etag = match encoding {
            Some(name) => Cow::Owned(format!("{}-{name}", content.digest)),
            None => Cow::Borrowed(content.digest),
        };
        let is_known = has_etag(request, content.digest);
        Answer {
            status: if is_known { Status::NotModified } else { Status::Ok },
            media_type: self.media_type,
            cache: self.cache,
            etag: Some(etag),
            encoding,
            varies: true,
            allow: None,
            retry_s: None,
            body: Cow::Borrowed(body),
        }
    }
}

/// Whether If-None-Match names a content, in any coding: a client that has one needs no other.
fn has_etag(request: &Request<'_>, digest: &str) -> bool {
    request.items("if-none-match").any(|item| {
        let item = item.strip_prefix(b"W/").unwrap_or(item);
        let tag = item.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        let rest = tag.and_then(|tag| tag.strip_prefix(digest.as_bytes()));
        item == b"*" || matches!(rest, Some(b"" | b"-gzip" | b"-br"))
    })
}

/// Codings that a client accepts.
#[derive(Clone, Copy)]
struct Codings {
    gzip: bool,
    brotli: bool,
}

/// What Accept-Encoding allows. Brotli has to be named: `*` is the word of clients that know gzip.
fn accepted_codings(request: &Request<'_>) -> Codings {
    let (mut gzip, mut brotli, mut any) = (None, false, false);
    for item in request.items("accept-encoding") {
        let mut parts = item.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let is_refused = parts.any(|part| {
            let part = part.to_ascii_lowercase();
            let weight = part.strip_prefix(b"q=");
            weight.is_some_and(|weight| weight.iter().all(|digit| matches!(digit, b'0' | b'.')))
        });
        match coding {
            b"*" => any = !is_refused,
            _ if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") => {
                gzip = gzip.or(Some(!is_refused));
            }
            _ if coding.eq_ignore_ascii_case(b"br") => brotli = !is_refused,
            _ => {}
        }
    }
    Codings { gzip: gzip.unwrap_or(any), brotli }
}
