//! Request bodies of hooks: plain text, or JSON in the format of Slack.

use serde_json::{Map, Value};
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

/// The parts of Slack's JSON that become the message. Everything else (colors, fields, buttons) is
/// ignored.
fn json_text(body: &[u8]) -> Result<String, &'static str> {
    // Some senders begin with a byte order mark, which RFC 8259 lets a reader ignore.
    let body = body.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(body);
    let message: Value = serde_json::from_slice(body).map_err(|_| "the body is not JSON")?;
    let message = message.as_object().ok_or("the JSON is not an object")?;
    let attachments = match message.get("attachments") {
        None | Some(Value::Null) => None,
        Some(Value::Array(attachments)) => Some(attachments.as_slice()),
        Some(_) => return Err("the attachments are not an array"),
    };
    let text = string(message, "text")?;
    if text.is_none() && attachments.is_none() {
        return Err("the JSON has neither text nor attachments");
    }
    let mut lines: Vec<&str> = text.into_iter().collect();
    for attachment in attachments.unwrap_or_default() {
        let attachment = attachment.as_object().ok_or("an attachment is not an object")?;
        lines.extend(string(attachment, "title")?);
        lines.extend(string(attachment, "text")?);
    }
    lines.retain(|line| !line.is_empty());
    Ok(lines.join("\n"))
}

/// A member that is a string, if it is there.
fn string<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, &'static str> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("a text or title is not a string"),
    }
}
