//! `vestnik chat rename|title|passwd|close|open`: settings of a group, which its admins set by the
//! protocol.

use vestnik::auth::password::Kind;
use vestnik::limits::TITLE_CHARS_MAX;
use vestnik::store::changes::Change;

use crate::cli::failure::Failure;
use crate::cli::{Context, Outcome, file, secret};

pub(super) fn rename(name: &str, given: &str, context: &mut Context<'_>) -> Outcome {
    let new = file::parse_group(given)?;
    let chat = file::change(&context.data, |store| {
        let chat = file::chat(store, name)?;
        let holder = store.chat_by_key(new.key())?;
        if holder.is_some_and(|holder| holder.chat != chat.chat) {
            let words = format!("there is a chat {given:?} already: choose another name");
            return Err(Failure::Failed(words).into());
        }
        store.rename_chat(chat.chat, new.text(), new.key())?;
        store.note_change(Change::ChatChanged(chat.chat))?;
        Ok(chat)
    })?;
    writeln!(context.out, "chat {} is now {}", chat.name, new.text())?;
    Ok(())
}

pub(super) fn title(name: &str, text: &str, context: &mut Context<'_>) -> Outcome {
    let length = text.chars().count();
    if length > TITLE_CHARS_MAX {
        let words = format!("a title has at most {TITLE_CHARS_MAX} characters, this one {length}");
        return Err(Failure::Failed(words));
    }
    let chat = file::change(&context.data, |store| {
        let chat = file::chat(store, name)?;
        store.set_chat_title(chat.chat, text)?;
        store.note_change(Change::ChatChanged(chat.chat))?;
        Ok(chat)
    })?;
    let done = if text.is_empty() { "no title any more" } else { "a new title" };
    writeln!(context.out, "chat {} has {done}", chat.name)?;
    Ok(())
}

/// Without a password: removes it.
pub(super) fn passwd(
    name: &str,
    password: Option<&secret::Arguments>,
    context: &mut Context<'_>,
) -> Outcome {
    // A mistyped name fails before anybody types a password twice.
    file::look(&context.data, |store| file::chat(store, name).map(drop))?;
    let hash = match password {
        Some(password) => {
            let hash = password.ask_and_hash(Kind::Chat, &context.options);
            Some(hash.map_err(|failure| match failure {
                Failure::Usage(words) if words == secret::NO_TERMINAL => {
                    Failure::Usage(format!("{words}; or pass --none to remove the password"))
                }
                other => other,
            })?)
        }
        None => None,
    };
    let chat = file::change(&context.data, |store| {
        let chat = file::chat(store, name)?;
        store.set_chat_password(chat.chat, hash.as_deref())?;
        store.note_change(Change::ChatChanged(chat.chat))?;
        Ok(chat)
    })?;
    let done = if hash.is_some() { "a new password" } else { "no password any more" };
    writeln!(context.out, "chat {} has {done}; its members stay", chat.name)?;
    Ok(())
}

pub(super) fn set_closed(name: &str, is_closed: bool, context: &mut Context<'_>) -> Outcome {
    let state = if is_closed { "closed" } else { "open" };
    let chat = file::change(&context.data, |store| {
        let chat = file::chat(store, name)?;
        if chat.closed == is_closed {
            let words = format!("chat {} is {state} already", chat.name);
            return Err(Failure::Failed(words).into());
        }
        store.set_chat_closed(chat.chat, is_closed)?;
        store.note_change(Change::ChatClosed(chat.chat))?;
        Ok(chat)
    })?;
    writeln!(context.out, "chat {} is {state}", chat.name)?;
    Ok(())
}
