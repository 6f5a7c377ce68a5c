//! Answers: a status, the headers that every answer carries, and a body.

use std::borrow::Cow;
use std::io::Write as _;

use crate::http::Exchange;

/// A status that the server gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Here it is.
    Ok,
    /// It is done, and there is nothing to send.
    NoContent,
    /// What the client has is still so.
    NotModified,
    /// It is no request.
    BadRequest,
    /// It is not allowed.
    Forbidden,
    /// There is nothing of that name.
    NotFound,
    /// There is, but not for this method.
    MethodNotAllowed,
    /// The request took too long to come.
    RequestTimeout,
    /// A body without a length.
    LengthRequired,
    /// A body or text over its limit.
    ContentTooLarge,
    /// A body of another type than those that are read.
    UnsupportedMediaType,
    /// A WebSocket of another version, or none.
    UpgradeRequired,
    /// Too often.
    TooManyRequests,
    /// A head over its limits.
    HeadTooLarge,
    /// Not now.
    Unavailable,
    /// Another version of HTTP than 1.
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

    /// One line for people.
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

    /// Whether nothing that follows on the connection can be trusted.
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

    /// Whether the answer has neither a body nor a length.
    const fn is_bodiless(self) -> bool {
        matches!(self, Self::NoContent | Self::NotModified)
    }
}

/// How long an answer may be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cache {
    /// Not at all.
    Never,
    /// As long as the server confirms it each time.
    Confirmed,
    /// For good: its path names its content.
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

/// What every answer carries. The page may load nothing but its own parts, is shown in no frame and
/// gets no feature of the browser but those two.
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

/// An answer to one request.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: Status,
    /// Type of the body.
    pub media_type: &'a str,
    /// How long it may be kept.
    pub cache: Cache,
    /// What confirms it, without quotes.
    pub etag: Option<Cow<'a, str>>,
    /// The body is compressed.
    pub is_gzip: bool,
    /// It would be another one for who accepts another encoding.
    pub varies: bool,
    /// The methods that are allowed.
    pub allow: Option<&'a str>,
    /// Seconds after which to try again.
    pub retry_s: Option<u32>,
    /// The body.
    pub body: Cow<'a, [u8]>,
}

impl<'a> Answer<'a> {
    /// One line of text.
    pub fn text(status: Status, line: &'a str) -> Self {
        let mut body = line.as_bytes().to_vec();
        if !body.is_empty() {
            body.push(b'\n');
        }
        Self {
            status,
            media_type: "text/plain; charset=utf-8",
            cache: Cache::Never,
            etag: None,
            is_gzip: false,
            varies: false,
            allow: None,
            retry_s: None,
            body: Cow::Owned(body),
        }
    }

    /// What a status says by itself.
    pub fn status(status: Status) -> Self {
        Self::text(status, status.why())
    }

    /// Appends it.
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
        // Without a clock there is no date.
        if exchange.wall_s > 0
            && let Ok(time) = jiff::Timestamp::from_second(exchange.wall_s)
        {
            write!(out, "Date: {}\r\n", time.strftime("%a, %d %b %Y %H:%M:%S GMT"))?;
        }
        if !self.status.is_bodiless() {
            write!(out, "Content-Type: {}\r\n", self.media_type)?;
            write!(out, "Content-Length: {}\r\n", self.body.len())?;
            if self.is_gzip {
                out.extend_from_slice(b"Content-Encoding: gzip\r\n");
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
        out.extend_from_slice(SECURITY.as_bytes());
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}
