//! Request bodies of hooks: plain text, or JSON in the format of Slack.

use serde::Deserialize;
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
                && !value.eq_ignore_ascii_case("us-ascii")
        });
        (!has_other_charset).then_some(format)
    }
}

/// The parts of Slack's JSON that become the message. Everything else (colors, fields, buttons) is
/// ignored.
#[derive(Deserialize)]
struct Message {
    text: Option<String>,
    attachments: Option<Vec<Attachment>>,
}

#[derive(Deserialize)]
struct Attachment {
    title: Option<String>,
    text: Option<String>,
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
        return Err("the text is empty");
    }
    Ok(text)
}

fn json_text(body: &[u8]) -> Result<String, &'static str> {
    let message: Message = serde_json::from_slice(body)
        .map_err(|_| "the body is not JSON with a text or attachments")?;
    if message.text.is_none() && message.attachments.is_none() {
        return Err("the JSON has neither text nor attachments");
    }
    let attachments = message.attachments.unwrap_or_default();
    let parts = attachments.into_iter().flat_map(|attachment| [attachment.title, attachment.text]);
    let lines: Vec<String> = std::iter::once(message.text)
        .chain(parts)
        .flatten()
        .filter(|text| !text.is_empty())
        .collect();
    Ok(lines.join("\n"))
}
