//! The embedded browser client, as `build.rs` prepares it: parts named by a hash of their content,
//! and the page, service worker and manifest that refer to them.

use std::borrow::Cow;

use crate::http::request::Request;
use crate::http::response::{Answer, Cache, Status};

/// One variant of an asset.
#[derive(Debug)]
struct Content {
    /// SHA-256 digest in hex digits.
    digest: &'static str,
    plain: &'static [u8],
    /// Compressed with gzip, if that is shorter.
    gzip: Option<&'static [u8]>,
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
        let gzip = content.gzip.filter(|_| accepts_gzip(request));
        let etag = if gzip.is_some() {
            Cow::Owned(format!("{}-gzip", content.digest))
        } else {
            Cow::Borrowed(content.digest)
        };
        let is_known = has_etag(request, content.digest);
        Answer {
            status: if is_known { Status::NotModified } else { Status::Ok },
            media_type: self.media_type,
            cache: self.cache,
            etag: Some(etag),
            is_gzip: gzip.is_some(),
            varies: true,
            allow: None,
            retry_s: None,
            body: Cow::Borrowed(gzip.unwrap_or(content.plain)),
        }
    }
}

/// Whether If-None-Match names a content, in either encoding: a client that has one needs no other.
fn has_etag(request: &Request<'_>, digest: &str) -> bool {
    request.items("if-none-match").any(|item| {
        let item = item.strip_prefix(b"W/").unwrap_or(item);
        let tag = item.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        let tag = tag.map(|tag| tag.strip_suffix(b"-gzip").unwrap_or(tag));
        item == b"*" || tag == Some(digest.as_bytes())
    })
}

/// Whether Accept-Encoding allows gzip.
fn accepts_gzip(request: &Request<'_>) -> bool {
    let mut any = false;
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
                return !is_refused;
            }
            _ => {}
        }
    }
    any
}
