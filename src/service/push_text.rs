//! The content of a push: JSON in the form of a declarative push message (protocol section 5a).

use crate::config::PushContent;
use crate::ids::ChatId;
use crate::push::encryption::TEXT_BYTES_MAX;

/// The title where neither a chat nor an author is named.
const SERVER_TITLE: &str = "vestnik";
/// Longest title, in characters.
const TITLE_CHARS_MAX: usize = 100;
/// Longest nickname before a text, in characters.
const NAME_CHARS_MAX: usize = 40;
/// Longest text, in characters.
const TEXT_CHARS_MAX: usize = 200;

// JSON escapes a character to six bytes at most. 700 bytes are for member names and the link.
const _: () =
    assert!((TITLE_CHARS_MAX + NAME_CHARS_MAX + TEXT_CHARS_MAX) * 6 + 700 < TEXT_BYTES_MAX);

/// The data of a push.
pub(super) struct Notice<'a> {
    pub(super) chat: ChatId,
    /// The title or name of the chat; `None` for a direct chat.
    pub(super) chat_title: Option<&'a str>,
    pub(super) sender: &'a str,
    /// The text, or the lines that stand for files.
    pub(super) text: &'a str,
    /// Number of chats with new messages.
    pub(super) new_chats: u32,
}

/// The JSON of a push. Links begin with `site`, if it is known.
pub(super) fn text(notice: &Notice<'_>, content: PushContent, site: Option<&str>) -> String {
    let title = notice.chat_title.unwrap_or(match content {
        PushContent::None => SERVER_TITLE,
        PushContent::Full => notice.sender,
    });
    let body = match (content, notice.chat_title) {
        (PushContent::None, _) => "New message".to_owned(),
        (PushContent::Full, None) => cut(notice.text, TEXT_CHARS_MAX),
        (PushContent::Full, Some(_)) => {
            format!("{}: {}", cut(notice.sender, NAME_CHARS_MAX), cut(notice.text, TEXT_CHARS_MAX))
        }
    };
    let chat = notice.chat.get();
    let text = serde_json::json!({
        "web_push": 8030,
        "notification": {
            "title": cut(title, TITLE_CHARS_MAX),
            "body": body,
            "navigate": format!("{}/#chat={chat}", site.unwrap_or_default()),
            "tag": format!("chat-{chat}"),
            "app_badge": notice.new_chats,
        },
        // Some browsers expect it at the top level.
        "app_badge": notice.new_chats,
    });
    text.to_string()
}

/// The JSON that `vestnik push test` sends.
pub fn test_text(site: Option<&str>) -> String {
    let text = serde_json::json!({
        "web_push": 8030,
        "notification": {
            "title": SERVER_TITLE,
            "body": "Notifications work.",
            "navigate": format!("{}/", site.unwrap_or_default()),
            "tag": "test",
        },
    });
    text.to_string()
}

/// The beginning of a text, with an ellipsis if it was cut.
fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => {
            let kept = text.chars().take(chars_max - 1);
            kept.chain(std::iter::once('…')).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice<'a>() -> Notice<'a> {
        Notice {
            chat: ChatId::new(7).unwrap(),
            chat_title: Some("Kitchen"),
            sender: "Anna",
            text: "Tea is ready",
            new_chats: 2,
        }
    }

    fn json(text: &str) -> serde_json::Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_push_is_of_the_declarative_form() {
        let site = Some("https://chat.example.org");
        let expected = serde_json::json!({
            "web_push": 8030,
            "notification": {
                "title": "Kitchen",
                "body": "Anna: Tea is ready",
                "navigate": "https://chat.example.org/#chat=7",
                "tag": "chat-7",
                "app_badge": 2,
            },
            "app_badge": 2,
        });
        assert_eq!(json(&text(&notice(), PushContent::Full, site)), expected);
    }

    #[test]
    fn a_direct_chat_is_titled_by_its_sender() {
        let direct = Notice { chat_title: None, ..notice() };
        let sent = json(&text(&direct, PushContent::Full, None));
        assert_eq!(sent["notification"]["title"], "Anna");
        assert_eq!(sent["notification"]["body"], "Tea is ready");
        assert_eq!(sent["notification"]["navigate"], "/#chat=7");
    }

    #[test]
    fn without_content_the_text_stays_on_the_server() {
        let sent = text(&notice(), PushContent::None, None);
        assert!(!sent.contains("Tea") && !sent.contains("Anna"), "{sent}");
        assert_eq!(json(&sent)["notification"]["body"], "New message");
        assert_eq!(json(&sent)["notification"]["title"], "Kitchen");
        let direct = Notice { chat_title: None, ..notice() };
        let sent = text(&direct, PushContent::None, None);
        assert!(!sent.contains("Tea") && !sent.contains("Anna"), "{sent}");
        assert_eq!(json(&sent)["notification"]["title"], "vestnik");
    }

    #[test]
    fn the_longest_text_fits_into_a_push() {
        let long = "\u{1}".repeat(100_000);
        let longest = Notice {
            chat: ChatId::new(u32::MAX >> 1).unwrap(),
            chat_title: Some(&long),
            sender: &long,
            text: &long,
            new_chats: u32::MAX,
        };
        let site = format!("https://{}", "a".repeat(253));
        let sent = text(&longest, PushContent::Full, Some(&site));
        assert!(sent.len() <= TEXT_BYTES_MAX, "{}", sent.len());
        let body = json(&sent)["notification"]["body"].as_str().unwrap().to_owned();
        assert_eq!(body.chars().count(), NAME_CHARS_MAX + 2 + TEXT_CHARS_MAX);
        assert!(body.ends_with('…'));
    }
}
