//! The golden vectors in `docs/vectors.json`, for authors of other clients: frames as hex, with the
//! fields that they hold. This test makes the bytes of each anew, reads them with this crate, and
//! requires at least one of every purpose in every version that has it.
//!
//! `VESTNIK_WRITE_VECTORS=1 cargo test -p purpose --test vectors` writes the `frame` of each anew,
//! after its fields were changed by hand.
#![allow(clippy::unwrap_used, reason = "a vector that does not parse fails its test")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use purpose::wire::Version;
use purpose::wire::codec::Reader;
use purpose::wire::decline::CODES;
use purpose::wire::frame::{Frame, Parsed, parse};
use purpose::wire::purpose::{ToClient, ToServer};
use purpose::wire::request::Request;
use serde_json::Value;

const VERSIONS: [(&str, Version); 3] =
    [("0.1", Version::V0_1), ("1.0", Version::V1_0), ("1.1", Version::V1_1)];

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/vectors.json")
}

fn vectors() -> Vec<Value> {
    serde_json::from_str(&fs::read_to_string(path()).unwrap()).unwrap()
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap_or_else(|| panic!("no {key} in {vector}"))
}

fn versions(vector: &Value) -> Vec<Version> {
    let listed = vector["versions"].as_array().unwrap();
    let known = |name: &Value| VERSIONS.iter().find(|(known, _)| name == known).unwrap().1;
    listed.iter().map(known).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A field as section 1 of the protocol writes it; nothing of the crate is used for it.
fn field(field: &Value, out: &mut Vec<u8>) {
    let value = &field["value"];
    let number = || value.as_u64().unwrap_or_else(|| panic!("no number in {field}"));
    match text(field, "type") {
        "u8" => out.push(number().try_into().unwrap()),
        "u16" => out.extend(u16::try_from(number()).unwrap().to_le_bytes()),
        "u32" => out.extend(u32::try_from(number()).unwrap().to_le_bytes()),
        "u64" | "time" => out.extend(number().to_le_bytes()),
        "bool" => out.push(u8::from(value.as_bool().unwrap())),
        "str" => {
            out.extend(value.as_str().unwrap().as_bytes());
            out.push(0);
        }
        "bytes" => out.extend(bytes(value.as_str().unwrap())),
        other => panic!("{other} is not a type of the protocol"),
    }
}

/// The byte of a vector's purpose.
fn byte(vector: &Value) -> u8 {
    let name = text(vector, "name");
    let found = match text(vector, "to") {
        "server" => ToServer::ALL.iter().find(|p| p.name() == name).map(|p| p.byte()),
        "client" => ToClient::ALL.iter().find(|p| p.name() == name).map(|p| p.byte()),
        other => panic!("{other} is no direction"),
    };
    found.unwrap_or_else(|| panic!("{name} is not a purpose"))
}

/// The frame that the fields of a vector make, with the task of its present frame.
fn frame_of(vector: &Value) -> Vec<u8> {
    let mut body = Vec::new();
    vector["fields"].as_array().unwrap().iter().for_each(|each| field(each, &mut body));
    let task = bytes(text(vector, "frame")).get(5).copied().unwrap_or(1);
    let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    frame.extend([byte(vector), task]);
    frame.extend(body);
    frame
}

#[test]
fn frames_are_what_their_fields_make() {
    if std::env::var_os("VESTNIK_WRITE_VECTORS").is_some() {
        // In the text, one vector a line, so that nothing else of it changes.
        let mut file = fs::read_to_string(path()).unwrap();
        for vector in vectors() {
            let line = |frame: &str| format!("\"frame\": \"{frame}\"");
            file = file.replace(&line(text(&vector, "frame")), &line(&hex(&frame_of(&vector))));
        }
        fs::write(path(), file).unwrap();
    }
    for vector in &vectors() {
        assert_eq!(text(vector, "frame"), hex(&frame_of(vector)), "{vector}");
    }
}

#[test]
fn requests_are_read_and_written_by_this_crate() {
    for vector in vectors().iter().filter(|vector| vector["to"] == "server") {
        let bytes = bytes(text(vector, "frame"));
        let Parsed::Frame(Frame { purpose, task, body }) = parse(&bytes, 1 << 16) else {
            panic!("not a whole frame: {vector}");
        };
        let purpose = ToServer::from_byte(purpose).unwrap();
        for version in versions(vector) {
            assert!(purpose.since() <= version, "{vector}");
            let Ok(request) = Request::decode(purpose, version, body) else {
                panic!("malformed on {version:?}: {vector}");
            };
            let mut again = Vec::new();
            request.write(&mut again, task);
            assert_eq!(hex(&again), hex(&bytes), "{vector}");
        }
    }
}

#[test]
fn messages_are_read_by_this_crate() {
    let mut count = 0;
    for vector in vectors().iter().filter(|vector| vector["to"] == "client") {
        let of = vector["answers"].as_str().unwrap_or_else(|| text(vector, "name"));
        let has_chat = match of {
            "MSG_NOTIFY" | "SEARCH_MSG" | "REQUEST_UPDATES" => true,
            "REQUEST_CHAT_MSG" | "REQUEST_CHAT_PAGE" => false,
            _ => continue,
        };
        let bytes = bytes(text(vector, "frame"));
        let mut body = Reader::new(&bytes[6..]);
        if has_chat {
            body.chat_id().unwrap();
        }
        for version in versions(vector) {
            let mut body = body;
            while !body.is_empty() {
                body.message(version).unwrap_or_else(|why| panic!("{why}: {vector}"));
                count += 1;
            }
        }
    }
    assert!(count > 8, "{count}");
}

#[test]
fn every_purpose_has_one_in_every_version() {
    let mut have = BTreeSet::new();
    for vector in vectors() {
        let name = text(&vector, "name");
        if name == "DECLINED" {
            let reason = text(&vector["fields"][0], "value");
            assert!(CODES.contains(&reason.split(':').next().unwrap()), "{reason}");
        }
        if vector["answers"].is_null() {
            for version in versions(&vector) {
                have.insert((text(&vector, "to") == "server", name.to_owned(), version));
            }
        }
    }
    let mut want = BTreeSet::new();
    for (_, version) in VERSIONS {
        let to_server = ToServer::ALL.iter().filter(|p| p.since() <= version);
        want.extend(to_server.map(|p| (true, p.name().to_owned(), version)));
        let to_client = ToClient::ALL.iter().filter(|p| p.since() <= version);
        want.extend(to_client.map(|p| (false, p.name().to_owned(), version)));
    }
    let missing: Vec<_> = want.difference(&have).collect();
    let surplus: Vec<_> = have.difference(&want).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:?}, surplus {surplus:?}");
}
