//! HTTP answers: status, the headers common to all, and the body.

use std::borrow::Cow;
use std::io::Write as _;

use crate::http::Exchange;

/// An HTTP status that the server uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// 200: success.
    Ok,
    /// 204: done, without content.
    NoContent,
    /// 304: the client's copy is current.
    NotModified,
    /// 400: the request is invalid.
    BadRequest,
    /// 403: not allowed.
    Forbidden,
    /// 404: no such path.
    NotFound,
    /// 405: the path exists, but not for this method.
    MethodNotAllowed,
    /// 408: the request took too long to arrive.
    RequestTimeout,
    /// 411: the body has no Content-Length.
    LengthRequired,
    /// 413: the body or text exceeds its limit.
    ContentTooLarge,
    /// 415: the Content-Type of the body is not supported.
    UnsupportedMediaType,
    /// 426: not a WebSocket handshake of version 13.
    UpgradeRequired,
    /// 429: a rate limit is reached.
    TooManyRequests,
    /// 431: the request head exceeds its limits.
    HeadTooLarge,
    /// 503: try again later.
    Unavailable,
    /// 505: not HTTP/1.
    VersionNotSupported,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::NoContent => "204 No Content",
            Self::NotModified => "304 Not Modified",
            Self::BadRequest => "400 Bad Request",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::LengthRequired => "411 Length Required",
            Self::ContentTooLarge => "413 Content Too Large",
            Self::UnsupportedMediaType => "415 Unsupported Media Type",
            Self::UpgradeRequired => "426 Upgrade Required",
            Self::TooManyRequests => "429 Too Many Requests",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }

    /// A one-line explanation for people.
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoContent | Self::NotModified => "",
            Self::BadRequest => "this is not a request that the server understands",
            Self::Forbidden => "this is not allowed here",
            Self::NotFound => "there is nothing here",
            Self::MethodNotAllowed => "this method is not allowed here",
            Self::RequestTimeout => "the request took too long to arrive",
            Self::LengthRequired => "the body needs a Content-Length",
            Self::ContentTooLarge => "the body is too long",
            Self::UnsupportedMediaType => "the body has to be text/plain or application/json",
            Self::UpgradeRequired => "this is for WebSocket connections, version 13",
            Self::TooManyRequests => "too many requests",
            Self::HeadTooLarge => "the head of the request is too long",
            Self::Unavailable => "not available at the moment",
            Self::VersionNotSupported => "the server speaks HTTP/1.1",
        }
    }

    /// Whether the connection must be closed, because later bytes cannot be trusted.
    pub const fn closes(self) -> bool {
        matches!(
            self,
            Self::BadRequest
                | Self::RequestTimeout
                | Self::LengthRequired
                | Self::ContentTooLarge
                | Self::HeadTooLarge
                | Self::VersionNotSupported
        )
    }

    /// Whether the answer has neither body nor Content-Length.
    const fn is_bodiless(self) -> bool {
        matches!(self, Self::NoContent | Self::NotModified)
    }
}

/// How clients may cache an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cache {
    /// Not at all.
    Never,
    /// After revalidation by ETag.
    Confirmed,
    /// Forever: the path contains a hash of the content.
    Immutable,
}

impl Cache {
    const fn value(self) -> &'static str {
        match self {
            Self::Never => "no-store",
            Self::Confirmed => "no-cache",
            Self::Immutable => "public, max-age=31536000, immutable",
        }
    }
}

/// Security headers of an asset: it is a part of the page, and loads nothing as a document of its
/// own. The page's policies have no effect on parts, and would be a third of what they weigh.
const ASSET_SECURITY: &str = "\
Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n\
X-Content-Type-Options: nosniff\r\n\
Referrer-Policy: no-referrer\r\n\
Cross-Origin-Resource-Policy: same-origin\r\n";

/// Security headers of every other answer. The page may load only its own parts, cannot be framed,
/// and gets only two browser features.
const SECURITY: &str = "\
Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
connect-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; worker-src 'self'; \
manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
require-trusted-types-for 'script'; trusted-types sw\r\n\
X-Content-Type-Options: nosniff\r\n\
Referrer-Policy: no-referrer\r\n\
Cross-Origin-Opener-Policy: same-origin\r\n\
Cross-Origin-Resource-Policy: same-origin\r\n\
Permissions-Policy: accelerometer=(), autoplay=(), camera=(), clipboard-read=(), \
clipboard-write=(self), display-capture=(), encrypted-media=(), fullscreen=(self), \
geolocation=(), gyroscope=(), hid=(), idle-detection=(), magnetometer=(), microphone=(), midi=(), \
payment=(), picture-in-picture=(), publickey-credentials-get=(), screen-wake-lock=(), serial=(), \
usb=(), xr-spatial-tracking=()\r\n";

/// The answer to one request.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: Status,
    /// Type of the body.
    pub media_type: &'a str,
    /// How it may be cached.
    pub cache: Cache,
    /// The ETag, without quotes.
    pub etag: Option<Cow<'a, str>>,
    /// The coding of the body, for Content-Encoding.
    pub encoding: Option<&'static str>,
    /// The answer depends on Accept-Encoding.
    pub varies: bool,
    /// The allowed methods, for 405.
    pub allow: Option<&'a str>,
    /// Seconds for Retry-After.
    pub retry_s: Option<u32>,
    /// The body.
    pub body: Cow<'a, [u8]>,
}

impl<'a> Answer<'a> {
    /// An answer with one line of text.
    pub fn text(status: Status, line: &str) -> Self {
        let mut body = line.as_bytes().to_vec();
        if !body.is_empty() {
            body.push(b'\n');
        }
        Self {
            status,
            media_type: "text/plain; charset=utf-8",
            cache: Cache::Never,
            etag: None,
            encoding: None,
            varies: false,
            allow: None,
            retry_s: None,
            body: Cow::Owned(body),
        }
    }

    /// An answer with the explanation of its status.
    pub fn status(status: Status) -> Self {
        Self::text(status, status.why())
    }

    /// Appends the encoded answer.
    pub(super) fn put(&self, out: &mut Vec<u8>, exchange: &Exchange) {
        out.reserve(SECURITY.len() + 512 + self.body.len());
        // Writing to a Vec cannot fail.
        let _ = self.put_head(out, exchange);
        if !exchange.is_head && !self.status.is_bodiless() {
            out.extend_from_slice(&self.body);
        }
    }

    fn put_head(&self, out: &mut Vec<u8>, exchange: &Exchange) -> std::io::Result<()> {
        write!(out, "HTTP/1.1 {}\r\n", self.status.line())?;
        // Without a clock there is no Date.
        if exchange.wall_s > 0
            && let Ok(time) = jiff::Timestamp::from_second(exchange.wall_s)
        {
            write!(out, "Date: {}\r\n", time.strftime("%a, %d %b %Y %H:%M:%S GMT"))?;
        }
        if !self.status.is_bodiless() {
            write!(out, "Content-Type: {}\r\n", self.media_type)?;
            write!(out, "Content-Length: {}\r\n", self.body.len())?;
            if let Some(encoding) = self.encoding {
                write!(out, "Content-Encoding: {encoding}\r\n")?;
            }
        }
        write!(out, "Cache-Control: {}\r\n", self.cache.value())?;
        if let Some(etag) = &self.etag {
            write!(out, "ETag: \"{etag}\"\r\n")?;
        }
        if self.varies {
            out.extend_from_slice(b"Vary: Accept-Encoding\r\n");
        }
        if let Some(allow) = self.allow {
            write!(out, "Allow: {allow}\r\n")?;
        }
        if let Some(seconds) = self.retry_s {
            write!(out, "Retry-After: {seconds}\r\n")?;
        }
        if self.status == Status::UpgradeRequired {
            out.extend_from_slice(b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
            out.extend_from_slice(if exchange.is_last {
                b"Connection: close, Upgrade\r\n".as_slice()
            } else {
                b"Connection: Upgrade\r\n"
            });
        } else if exchange.is_last {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        let security = match self.cache {
            Cache::Immutable => ASSET_SECURITY,
            Cache::Never | Cache::Confirmed => SECURITY,
        };
        out.extend_from_slice(security.as_bytes());
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}
