//! Request heads: parsed in one pass, and strict wherever two parsers could disagree.

use memchr::memchr;

use crate::config::is_authority;
use crate::http::response::Status;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEAD_LINES_MAX};

/// Buffer for header lines, empty.
pub(super) const LINES: [httparse::Header<'static>; HTTP_HEAD_LINES_MAX] =
    [httparse::EMPTY_HEADER; HTTP_HEAD_LINES_MAX];

/// The method of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    /// GET.
    Get,
    /// HEAD: the same without a body.
    Head,
    /// POST.
    Post,
    /// Any other method; none is allowed.
    Other,
}

/// A request without its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// What is asked for.
    pub(super) method: Method,
    /// Its path, without the query.
    pub(super) path: &'a str,
    /// The version is HTTP/1.0, which has no Upgrade.
    pub(super) is_old: bool,
    lines: &'a [httparse::Header<'a>],
}

/// A request, and what its head requires of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) request: Request<'a>,
    /// Close the connection after the answer.
    pub(super) is_last: bool,
    /// Length of the body; `None` without a Content-Length.
    pub(super) body_bytes: Option<usize>,
    /// The client waits for 100 Continue before it sends the body.
    pub(super) expects_continue: bool,
}

impl<'a> Request<'a> {
    /// The values of all header lines with this name.
    pub(super) fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let lines = self.lines.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        lines.map(|line| line.value)
    }

    /// The value of the only header line with this name.
    pub(super) fn value(&self, name: &str) -> Result<Option<&'a str>, Status> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                std::str::from_utf8(value).map(Some).map_err(|_| Status::BadRequest)
            }
            _ => Err(Status::BadRequest),
        }
    }

    /// The items of a comma-separated list over all lines with this name, trimmed.
    pub(super) fn items(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.values(name).flat_map(|value| value.split(|&byte| byte == b',')).map(trim)
    }

    /// Whether a list contains an item, ignoring case.
    pub(super) fn has_item(&self, name: &str, item: &str) -> bool {
        self.items(name).any(|given| given.eq_ignore_ascii_case(item.as_bytes()))
    }
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Finds the end of a head, in however many pieces it arrives; scans no byte twice.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    scanned: u16,
    line_start: u16,
    lines: u8,
}

impl HeadScanner {
    /// The length of the head at the front of `bytes`, once it is complete.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, Status> {
        let most = bytes.get(..HTTP_HEAD_BYTES_MAX).unwrap_or(bytes);
        loop {
            let at = usize::from(self.scanned);
            let Some(found) = memchr(b'\n', most.get(at..).unwrap_or_default()) else { break };
            let line_end = at + found;
            if line_end == 0 || most.get(line_end - 1) != Some(&b'\r') {
                return Err(Status::BadRequest);
            }
            let is_empty = line_end - 1 == usize::from(self.line_start);
            if is_empty && self.lines == 0 {
                return Err(Status::BadRequest);
            }
            if is_empty {
                *self = Self::default();
                return Ok(Some(line_end + 1));
            }
            self.lines += 1;
            // The request line is not one of the header lines.
            if usize::from(self.lines) > 1 + HTTP_HEAD_LINES_MAX {
                return Err(Status::HeadTooLarge);
            }
            self.scanned = (line_end + 1) as u16;
            self.line_start = self.scanned;
        }
        if most.len() == HTTP_HEAD_BYTES_MAX {
            return Err(Status::HeadTooLarge);
        }
        self.scanned = most.len() as u16;
        Ok(None)
    }
}

/// Parses a complete head.
pub(super) fn parse<'h, 'a: 'h>(
    head: &'a [u8],
    lines: &'h mut [httparse::Header<'a>; HTTP_HEAD_LINES_MAX],
) -> Result<Head<'h>, Status> {
    let line_end = memchr(b'\r', head).ok_or(Status::BadRequest)?;
    let (line, rest) = head.split_at_checked(line_end).ok_or(Status::BadRequest)?;
    let rest = rest.strip_prefix(b"\r\n").ok_or(Status::BadRequest)?;
    let (method, path, is_old) = request_line(line)?;
    let lines = match httparse::parse_headers(rest, lines) {
        Ok(httparse::Status::Complete((count, lines))) if count == rest.len() => lines,
        _ => return Err(Status::BadRequest),
    };
    let request = Request { method, path, is_old, lines };
    match request.value("host")? {
        Some(host) if !is_authority(host) => return Err(Status::BadRequest),
        None if !is_old => return Err(Status::BadRequest),
        _ => {}
    }
    let body_bytes = body_bytes(&request)?;
    if matches!(method, Method::Get | Method::Head) && body_bytes.is_some_and(|bytes| bytes > 0) {
        return Err(Status::BadRequest);
    }
    Ok(Head {
        request,
        is_last: is_old || request.has_item("connection", "close"),
        body_bytes,
        expects_continue: !is_old && request.has_item("expect", "100-continue"),
    })
}

/// Method, path and whether the version is 1.0.
fn request_line(line: &[u8]) -> Result<(Method, &str, bool), Status> {
    let line = std::str::from_utf8(line).map_err(|_| Status::BadRequest)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Status::BadRequest);
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        // A tunnel, and the preface of HTTP/2.
        "CONNECT" | "PRI" | "" => return Err(Status::BadRequest),
        _ if method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') => Method::Other,
        _ => return Err(Status::BadRequest),
    };
    let is_old = match version.strip_prefix("HTTP/").map(str::as_bytes) {
        Some([b'1', b'.', minor @ b'0'..=b'9']) => *minor == b'0',
        Some([b'0'..=b'9', b'.', b'0'..=b'9']) => return Err(Status::VersionNotSupported),
        _ => return Err(Status::BadRequest),
    };
    let is_plain = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    // Rejects absolute URLs and `*`.
    if !target.starts_with('/') || !is_plain {
        return Err(Status::BadRequest);
    }
    let path = target.split('?').next().unwrap_or_default();
    Ok((method, path, is_old))
}

/// The length of the body. A length that two parsers could read differently is an error.
fn body_bytes(request: &Request<'_>) -> Result<Option<usize>, Status> {
    let length = request.value("content-length")?;
    if request.values("transfer-encoding").next().is_some() {
        let is_ambiguous = length.is_some() || request.is_old;
        return Err(if is_ambiguous { Status::BadRequest } else { Status::LengthRequired });
    }
    let Some(length) = length else { return Ok(None) };
    if length.is_empty() || !length.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(Status::BadRequest);
    }
    // A length that overflows is too long in any case.
    Ok(Some(length.parse().unwrap_or(usize::MAX)))
}
