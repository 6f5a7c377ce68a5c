//! Requests of 1.1, and of older versions what is more on 1.1: files, replies, reactions, invites,
//! closed chats, operators, pushes.

use vestnik::ids::{ChatId, FileId, UserId};
use vestnik::wire::extras::{self, Extras};
use vestnik::wire::request::{PushKeys, Request};

use super::input::Input;
use super::requests::{About, File, Known, PUSH_HOST, message, write_raw};

/// One frame, and what it is about.
#[allow(clippy::too_many_lines)] // one arm per purpose
pub(crate) fn write(
    input: &mut Input<'_>,
    known: &mut Known,
    kind: u8,
    task: u8,
    out: &mut Vec<u8>,
) -> About {
    let chat_number = input.pick(&[1, 1, 1, 1, 1, 1, 2, 2, 3, 4]);
    let chat = ChatId::new(chat_number).expect("not 0");
    let user_number = 1 + input.below(4) as u32;
    let user = UserId::new(user_number).expect("not 0");
    let mut about = About::Other;
    let (text, bytes);
    let mut sent = Vec::new();
    let request = match kind % 24 {
        0..=2 => {
            let (chat, message) = message(input, known, chat);
            about = About::React;
            let emoji = input.pick(&["+", "+", "👍", "", "a b"]);
            Request::React { chat, message, on: input.u8() & 3 != 0, emoji }
        }
        3 => {
            let (chat, message) = message(input, known, chat);
            Request::GetReactions { chat, message }
        }
        4 | 5 => {
            let size = input.pick(&[1, 10, 5000, 70_000, 1 << 40]);
            about = About::BeginFile { chat: chat_number, size };
            Request::BeginFile {
                chat,
                size,
                width: 0,
                height: 0,
                media_type: input.pick(&["image/png", "text/plain", "none"]),
                name: input.pick(&["a.txt", "photo.png", ".."]),
            }
        }
        6..=8 => {
            let at = input.below(known.files.len().max(1));
            let Some(file) = known.files.get(at) else { return write_raw(input, task, out) };
            let offset = if input.u8() & 7 == 0 { 1 } else { file.stored };
            let count = input.pick(&[0, 0, 1, 5000, 30_000]);
            let count = if count == 0 { file.size.saturating_sub(offset) } else { count };
            bytes = File::bytes(file.id, offset, count.min(30_000) as usize);
            about = About::PutFile { file: file.id };
            Request::PutFile { file: file_id(file.id), offset, bytes: &bytes }
        }
        9 => {
            let at = input.below(known.files.len().max(1));
            let Some(file) = known.files.get(at) else { return write_raw(input, task, out) };
            let offset = input.pick(&[0, 0, 1, 5000, u64::MAX >> 1]);
            about = About::GetFile { file: file.id, offset };
            Request::GetFile { file: file_id(file.id), offset, length: u32::from(input.u8()) << 9 }
        }
        10 => {
            let at = input.below(known.files.len().max(1));
            let Some(file) = known.files.get(at) else { return write_raw(input, task, out) };
            Request::EndFile { file: file_id(file.id) }
        }
        11..=13 => {
            known.texts += 1;
            let mut files = Vec::new();
            let mut chat_number = chat_number;
            if input.u8() & 1 == 1 {
                let (chat, message) = message(input, known, chat);
                chat_number = chat.get();
                extras::put_reply(&mut sent, message);
            }
            if let Some(file) = known.files.get(input.below(known.files.len().max(1))) {
                chat_number = file.chat;
                files.push(file.id);
                extras::put_attach(&mut sent, file_id(file.id));
            }
            let has_text = files.is_empty() || input.u8() & 1 == 1;
            text = if has_text { format!("@anna {}", known.texts) } else { String::new() };
            about = About::Send { chat: chat_number, text: text.clone(), files };
            Request::SendChatMsg {
                chat: ChatId::new(chat_number).expect("given"),
                content: &text,
                nonce: Some(known.texts + 1000),
                extras: Extras::trusted(&sent),
            }
        }
        14 => {
            about = About::Invite;
            let of_chat = input.u8() & 7 != 0;
            Request::CreateInvite {
                registers: !of_chat || input.u8() & 1 == 1,
                uses: u16::from(input.u8() & 1) + 1,
                days: 1,
                chat: of_chat.then_some(chat),
            }
        }
        15 => {
            let invite = known.invites.get(input.below(known.invites.len().max(1)));
            text = invite.cloned().unwrap_or_default();
            about = About::UseInvite;
            Request::UseInvite { code: &text }
        }
        16 => match known.invites.get(input.below(known.invites.len().max(1))) {
            Some(code) if input.u8() & 3 == 0 => {
                text = code.chars().take(7).collect();
                Request::EndInvite { hint: &text }
            }
            _ => Request::GetInvites { chat: (input.u8() & 1 == 1).then_some(chat) },
        },
        17 | 18 => {
            about = About::Join { chat: chat_number, user: Some(user_number) };
            Request::AddMember { chat, user }
        }
        19 => match input.u8() & 3 {
            0 => Request::SetChatNotify { chat, notify: input.u8() % 3 },
            _ => Request::SetChatClosed { chat, closed: input.u8() & 1 == 1 },
        },
        20 => match input.u8() & 1 {
            0 => Request::FindUsers { prefix: input.pick(&["", "a", "В"]), limit: 300 },
            _ => {
                about = About::MessagesOfChats;
                let chat = (input.u8() & 1 == 1).then_some(chat);
                let query = input.pick(&["text", "edit", "te*", "\"text 1\"", "anna", "."]);
                Request::SearchMsg { chat, limit: 200, query }
            }
        },
        21 => {
            about = About::ResetPassword { user: user_number };
            Request::ResetPassword { user }
        }
        22 => {
            text = match input.u8() & 3 {
                0 => String::new(),
                1 => "https://elsewhere.example/1".to_owned(),
                _ => format!("https://{PUSH_HOST}/{user_number}"),
            };
            let keys = PushKeys { p256dh: &[4; 65], auth: &[5; 16] };
            let keys = (!text.is_empty()).then_some(keys);
            Request::SubscribePush { endpoint: &text, keys }
        }
        _ => {
            let disabled = input.u8() & 1 == 1;
            about = About::Disable { user: user_number, disabled };
            Request::SetUserDisabled { user, disabled }
        }
    };
    request.write(out, task);
    about
}

fn file_id(id: u64) -> FileId {
    FileId::new(id).expect("given")
}
