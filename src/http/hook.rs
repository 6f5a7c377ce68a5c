//! Request bodies of hooks: plain text, or JSON in the format of Slack.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use zeroize::Zeroizing;

use crate::http::request::Request;

/// The format of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The body is the text.
    Text,
    /// The body is JSON that contains the text.
    Json,
}

impl Format {
    /// The format for the Content-Type of a request.
    pub(super) fn of(request: &Request<'_>) -> Option<Self> {
        let value = request.value("content-type").ok()??;
        let (media_type, parameters) = value.split_once(';').unwrap_or((value, ""));
        let format = match media_type.trim().to_ascii_lowercase().as_str() {
            "text/plain" => Self::Text,
            "application/json" => Self::Json,
            _ => return None,
        };
        let has_other_charset = parameters.split(';').any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("charset")
                && !value.eq_ignore_ascii_case("utf-8")
                && !value.eq_ignore_ascii_case("utf8")
                && !value.eq_ignore_ascii_case("us-ascii")
        });
        (!has_other_charset).then_some(format)
    }
}

/// Extracts the text of a body. The error is a line for people.
pub(super) fn text(format: Format, body: &[u8]) -> Result<Zeroizing<String>, &'static str> {
    let text = Zeroizing::new(match format {
        Format::Text => {
            let text = std::str::from_utf8(body).map_err(|_| "the text is not UTF-8")?;
            text.strip_suffix('\n').unwrap_or(text).to_owned()
        }
        Format::Json => json_text(body)?,
    });
    if text.contains('\0') {
        return Err("the text holds a NUL");
    }
    if text.is_empty() {
        return Err(match format {
            Format::Text => "the text is empty",
            Format::Json => "the text, and the title and text of each attachment, are empty",
        });
    }
    Ok(text)
}

/// The parts of Slack's JSON that become the message: of the body (`IS_BODY`) its text and its
/// attachments, of each attachment its title and text. Everything else (colors, fields, buttons) is
/// skipped without being decoded: a value that cannot be decoded, such as a number that is too
/// large or half a surrogate pair, does not matter there.
struct Part<const IS_BODY: bool> {
    title: Option<String>,
    text: Option<String>,
    attachments: Option<Vec<Part<false>>>,
}

impl<'de, const IS_BODY: bool> Deserialize<'de> for Part<IS_BODY> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A derived implementation would accept an array, too.
        deserializer.deserialize_map(PartVisitor::<IS_BODY>)
    }
}

struct PartVisitor<const IS_BODY: bool>;

impl<'de, const IS_BODY: bool> Visitor<'de> for PartVisitor<IS_BODY> {
    type Value = Part<IS_BODY>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut part = Part { title: None, text: None, attachments: None };
        while let Some(key) = members.next_key()? {
            match key {
                Key::Text => part.text = members.next_value()?,
                Key::Title if !IS_BODY => part.title = members.next_value()?,
                Key::Attachments if IS_BODY => part.attachments = members.next_value()?,
                Key::Title | Key::Attachments | Key::Other => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(part)
    }
}

/// The name of a member.
enum Key {
    Title,
    Text,
    Attachments,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes: a name with half a surrogate pair is no text.
        deserializer.deserialize_bytes(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E: serde::de::Error>(self, name: &[u8]) -> Result<Key, E> {
        Ok(match name {
            b"title" => Key::Title,
            b"text" => Key::Text,
            b"attachments" => Key::Attachments,
            _ => Key::Other,
        })
    }
}

fn json_text(body: &[u8]) -> Result<String, &'static str> {
    // Some senders begin with a byte order mark, which RFC 8259 lets a reader ignore.
    let body = body.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(body);
    let body: Part<true> = serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => {
            "the body is not an object, or its attachments are not an array of objects, or a text \
             or title is not a string"
        }
        Category::Io | Category::Syntax | Category::Eof => "the body is not JSON",
    })?;
    if body.text.is_none() && body.attachments.is_none() {
        return Err("the JSON has neither text nor attachments");
    }
    let mut lines: Vec<String> = body.text.into_iter().collect();
    for attachment in body.attachments.unwrap_or_default() {
        lines.extend(attachment.title);
        lines.extend(attachment.text);
    }
    lines.retain(|line| !line.is_empty());
    Ok(lines.join("\n"))
}
