//! Every decoder of bodies: it never panics, and what it takes is what it would write.

use vestnik::auth::password::{self, Kind};
use vestnik::auth::token::{InviteCode, session_digest};
use vestnik::names::{self, Name};
use vestnik::wire::Version;
use vestnik::wire::codec::{Reader, put_message};
use vestnik::wire::frame::{self, Parsed};
use vestnik::wire::purpose::ToServer;
use vestnik::wire::request::Request;

/// `data`: purpose, version, body.
pub fn bodies(data: &[u8]) {
    let [purpose, version, body @ ..] = data else { return };
    let version = match version % 3 {
        0 => Version::V0_1,
        1 => Version::V1_0,
        _ => Version::V1_1,
    };
    if let Some(purpose) = ToServer::from_byte(*purpose) {
        request(purpose, version, body);
    }
    pack(version, body);
    if let Ok(text) = std::str::from_utf8(body) {
        words(text);
    }
}

fn request(purpose: ToServer, version: Version, body: &[u8]) {
    let Ok(request) = Request::decode(purpose, version, body) else { return };
    // Of an answer nothing but its being one is taken.
    if matches!(request, Request::Accepted { .. } | Request::Declined { .. } | Request::Part { .. })
    {
        return;
    }
    let mut written = Vec::new();
    request.write(&mut written, 7);
    let Parsed::Frame(frame) = frame::parse(&written, body.len()) else {
        panic!("{} is not read back as a frame", purpose.name());
    };
    assert_eq!((frame.purpose, frame.task), (purpose.byte(), 7));
    assert_eq!(frame.bytes(), written.len());
    // An id of a message or file, or an offset, that no server gives reads as the last of all;
    // everything else as it is.
    if frame.body != body {
        let again = Request::decode(purpose, version, frame.body);
        assert!(again == Ok(request), "{} reads back as another", purpose.name());
        let is_high = |end: usize| body.get(end - 1).is_some_and(|byte| *byte >= 0x80);
        assert!([8, 12, 16].into_iter().any(is_high), "{} is written otherwise", purpose.name());
    }
}

fn pack(version: Version, body: &[u8]) {
    let mut reader = Reader::new(body);
    let mut written = Vec::new();
    while let Ok(message) = reader.message(version) {
        if message.id.get() != i64::MAX as u64 {
            put_message(&mut written, version, &message);
            assert_eq!(written.len(), message.bytes(version));
            let again = Reader::new(&written).message(version);
            assert!(again == Ok(message), "a message reads back as another");
        }
        written.clear();
    }
}

/// Names, passwords and codes, which come as text and are parsed further.
fn words(text: &str) {
    if let Ok(name) = Name::parse(text) {
        assert!((1..=32).contains(&name.text().chars().count()));
        assert_eq!(names::name_key(text).as_deref(), Some(name.key()));
        let again = Name::parse(name.text()).expect("a name that was taken is one");
        assert_eq!((again.text(), again.key()), (name.text(), name.key()));
        assert!(names::prefix_key(text).is_some_and(|prefix| name.key().starts_with(&prefix)));
    }
    let _ = names::name_key(text);
    let _ = names::prefix_key(text);
    if password::prepare(text, Kind::User).is_ok() {
        assert!(password::prepare_attempt(text).is_some(), "a password that can be set, not tried");
    }
    let _ = session_digest(text);
    if let Some(code) = InviteCode::parse(text) {
        let again = InviteCode::parse(&code.expose()).expect("a code that is shown can be typed");
        assert_eq!(again.digest().0, code.digest().0);
    }
}
