//! The WebSocket handshake (RFC 6455, section 4.2).

use crate::http::request::{Method, Request};
use crate::http::response::{Answer, Status};
use crate::http::{Site, origin};
use crate::wire::websocket::accept;

/// The subprotocol of Purpose.
const PROTOCOL: &str = "purpose";

/// Length of a key as text: 16 bytes in base64.
const KEY_CHARS: usize = 24;

/// Checks an upgrade request. Returns the accept key, and whether the subprotocol is offered; or
/// the error answer.
pub(super) fn check<'a>(request: &Request<'a>, site: &Site) -> Result<(String, bool), Answer<'a>> {
    let is_upgrade = request.method == Method::Get
        && !request.is_old
        && request.has_item("upgrade", "websocket")
        && request.has_item("connection", "upgrade");
    let version = request.value("sec-websocket-version").map_err(Answer::status)?;
    if !is_upgrade || version != Some("13") {
        return Err(Answer::status(Status::UpgradeRequired));
    }
    let key = request.value("sec-websocket-key").map_err(Answer::status)?.unwrap_or_default();
    if !is_key(key) {
        return Err(Answer::text(Status::BadRequest, "the Sec-WebSocket-Key is not valid"));
    }
    if !origin::is_allowed(request, site) {
        let why = "pages of this origin may not connect: see --web-origin";
        return Err(Answer::text(Status::Forbidden, why));
    }
    Ok((
        accept(key),
        request.items("sec-websocket-protocol").any(|name| name == PROTOCOL.as_bytes()),
    ))
}

/// Whether a text is base64 of 16 bytes.
fn is_key(key: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let digits = key.strip_suffix("==").unwrap_or_default().as_bytes();
    // Only the first two bits of the last digit are used; the others must be 0.
    key.len() == KEY_CHARS
        && digits.iter().all(|&byte| is_digit(byte))
        && matches!(digits.last(), Some(b'A' | b'Q' | b'g' | b'w'))
}

/// Appends the answer that completes the handshake.
pub(super) fn put(accept: String, has_protocol: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n");
    out.extend_from_slice(b"Connection: Upgrade\r\nSec-WebSocket-Accept: ");
    out.extend_from_slice(accept.as_bytes());
    if has_protocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: purpose");
    }
    out.extend_from_slice(b"\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes() {
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ=="));
        for wrong in [
            "",
            "==",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZR==",
            "dGhlIHNhbXBsZSBub25jZQ=A",
            "dGhlIHNhbXBsZSBub25j ZQ=",
            "dGhlIHNhbXBsZSBub25jZZZQ==",
        ] {
            assert!(!is_key(wrong), "{wrong}");
        }
    }
}
