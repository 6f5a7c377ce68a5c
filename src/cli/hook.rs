//! `vestnik hook`: bots that write to a chat over HTTP.

use clap::Subcommand;
use ring::rand::SystemRandom;
use vestnik::auth::password::nobody;
use vestnik::auth::token::HookToken;
use vestnik::config::WebOrigin;
use vestnik::ids::UserId;
use vestnik::limits::PASSWORD_ITERATIONS;
use vestnik::names::{Name, name_key};
use vestnik::store::Store;
use vestnik::store::changes::Change;
use vestnik::store::users::User;

use super::failure::Failure;
use super::file::Stop;
use super::output::{self, Cell, Format};
use super::user::taken;
use super::{Context, Outcome, chat, file};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add a bot that writes to a chat, and print its token alone
    Add {
        /// The chat
        chat: String,
        /// The bot: the name that its messages carry
        name: String,
        /// Print the URL of the hook instead
        #[arg(long)]
        link: bool,
        /// The site that the URL names, such as https://chat.example.org
        #[arg(long, value_name = "URL", env = "VESTNIK_PUBLIC_URL", hide_env = true)]
        public_url: Option<WebOrigin>,
    },
    /// List all hooks; the database does not hold their tokens
    List {
        #[command(flatten)]
        format: Format,
    },
    /// End a hook: the bot stays as a disabled user, and its messages stay
    Remove {
        /// The bot
        name: String,
    },
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::Add { chat, name, link, public_url } => {
            let url = public_url.or_else(|| context.options.public_url.clone());
            let base = match (link, url) {
                (false, _) => String::new(),
                (true, Some(url)) => format!("{url}/hook/"),
                (true, None) => {
                    let words = "--link needs the address of the server: pass --public-url";
                    return Err(Failure::Usage(words.to_owned()));
                }
            };
            add(&chat, &name, &base, context)
        }
        Command::List { format } => list(format, context),
        Command::Remove { name } => remove(&name, context),
    }
}

fn add(chat: &str, given: &str, base: &str, context: &mut Context<'_>) -> Outcome {
    let name = file::parse_login(given)?;
    let token = HookToken::generate(&SystemRandom::new()).map_err(Failure::new)?;
    // Nobody can log in as the bot: no known password matches this hash.
    let password = nobody(PASSWORD_ITERATIONS);
    let out = &mut *context.out;
    file::change(&context.data, |store| {
        let chat = file::chat(store, chat)?;
        let user = match store.user_by_key(name.key())? {
            None => store.add_user(name.text(), name.key(), &password, file::now())?,
            Some(user) => Some(former_bot(store, &user, &name, &password)?),
        };
        let user = user.ok_or_else(|| taken(given))?;
        if store.is_banned(chat.chat, user)? {
            let words = format!("{given} is banned from {}: unban it first", chat.name);
            return Err(Failure::Failed(words).into());
        }
        // First of all it becomes a bot, since one fills no vacancy of a group without an admin.
        store.add_hook(&token.digest().0, user, chat.chat, file::now())?;
        if store.member(chat.chat, user)?.is_none() {
            chat::add_member(store, chat.chat, user, false, file::now())?;
        }
        file::reveal(out, |out| Ok(writeln!(out, "{base}{}", token.expose())?))
    })
}

/// Enables the user of a removed hook again, as one who cannot log in.
fn former_bot(
    store: &mut Store<'_>,
    user: &User,
    name: &Name,
    password: &str,
) -> Result<UserId, Stop> {
    let has_hook = store.hooks()?.iter().any(|hook| hook.user == user.user);
    if has_hook {
        let words = format!("there is a hook {} already: remove it first", user.nickname);
        return Err(Failure::Failed(words).into());
    }
    if !store.is_bot(user.user)? {
        return Err(taken(name.text()).into());
    }
    // One that was set by hand goes, with the sessions made with it.
    store.change_password(user.user, password)?;
    store.end_sessions(user.user, None)?;
    store.note_change(Change::SessionsEnded(user.user))?;
    store.set_disabled(user.user, false)?;
    Ok(user.user)
}

fn list(format: Format, context: &mut Context<'_>) -> Outcome {
    let hooks = file::look(&context.data, |store| Ok(store.hooks()?))?;
    let rows: Vec<_> = hooks
        .into_iter()
        .map(|hook| {
            [
                Cell::from(hook.user.get()),
                Cell::from(hook.nickname),
                Cell::from(hook.chat_name),
                Cell::from(hook.created),
            ]
        })
        .collect();
    Ok(output::list(context.out, format, ["ID", "NAME", "CHAT", "CREATED"], &rows)?)
}

fn remove(name: &str, context: &mut Context<'_>) -> Outcome {
    let user = file::change(&context.data, |store| {
        let user = match name_key(name) {
            Some(key) => store.user_by_key(&key)?,
            None => None,
        };
        let none = || {
            let name = file::quoted(name);
            Failure::Failed(format!("there is no hook {name}: see 'vestnik hook list'"))
        };
        let user = user.ok_or_else(none)?;
        if !store.remove_hook(user.user)? {
            return Err(none().into());
        }
        store.set_disabled(user.user, true)?;
        store.end_sessions(user.user, None)?;
        store.note_change(Change::SessionsEnded(user.user))?;
        Ok(user)
    })?;
    writeln!(context.out, "the hook {} is void", user.nickname)?;
    Ok(())
}
