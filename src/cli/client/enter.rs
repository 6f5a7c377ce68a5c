//! Login: user name, saved session or password, and the first chat, before there is a screen.

use std::io::{self, IsTerminal, Write};

use purpose::client::{Client, Error};
use vestnik::auth::password::Secret;
use vestnik::ids::{ChatId, UserId};

use super::super::failure::Failure;
use super::super::prompt;
use super::command;
use super::input::{Line, Lines};
use super::report;
use super::saved_session::{Folder, Slot};
use super::server::Server;
use super::text::harmless;

/// Options for the login.
#[derive(clap::Args)]
pub(super) struct EnterArguments {
    /// Who you are [default: who came last, or asked for]
    #[arg(long, value_name = "NAME", env = "VESTNIK_USER", hide_env = true)]
    user: Option<String>,

    /// Read your password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,

    /// Make the user first, where the server lets people register
    #[arg(long)]
    register: bool,

    /// The code that lets you register, or the link with it
    #[arg(long, value_name = "CODE", requires = "register")]
    invite: Option<String>,

    /// Keep no session: it ends when you leave, and the password is asked for again
    #[arg(long)]
    no_keep: bool,

    /// End the kept session, and leave
    #[arg(long, conflicts_with_all = ["register", "no_keep", "password_stdin"])]
    pub(super) forget: bool,
}

/// A logged-in user.
pub(super) struct Entered {
    pub(super) client: Client,
    pub(super) me: UserId,
    pub(super) name: String,
    /// Where the session is saved; `None`: it ends with the client.
    pub(super) slot: Option<Slot>,
}

/// Connects, and restores the saved session or logs in.
pub(super) fn enter(
    arguments: &EnterArguments,
    server: &Server,
    lines: &mut Lines,
) -> Result<Entered, Failure> {
    let folder = Folder::find();
    let user = who(arguments, server, folder.as_ref(), lines)?;
    let slot = match &folder {
        Some(folder) if !arguments.no_keep => take_slot(folder, server, &user),
        _ => None,
    };
    let mut client = connect(server)?;
    if let (Some(folder), Some(pin)) = (folder.as_ref().filter(|_| !arguments.no_keep), &server.pin)
        && let Err(error) = folder.remember_pin(&server.name, pin)
    {
        note(&format!("the certificate is not remembered: {error}"));
    }
    let has_session = restore(&mut client, slot.as_ref().filter(|_| !arguments.register))?;
    if has_session {
        if arguments.password_stdin {
            // Consume the line: it is the password, not a message.
            lines.password()?;
        }
    } else {
        log_in(arguments, &mut client, &user, lines)?;
    }
    let me = client.session().and_then(|session| session.user);
    let me = me.ok_or_else(|| Failure::new("the server does not say who you are"))?;
    let name = client.user(me).map_err(Failure::new)?.nickname;
    let slot = slot.filter(|slot| has_session || keep(slot, server, &name, &client));
    Ok(Entered { client, me, name, slot })
}

/// Ends the saved session, on the server and locally.
pub(super) fn forget(arguments: &EnterArguments, server: &Server) -> Result<(), Failure> {
    let folder =
        Folder::find().ok_or_else(|| Failure::new("no session is kept: HOME is not set"))?;
    let user = arguments.user.clone().or_else(|| folder.last_user(&server.name));
    let user =
        user.ok_or_else(|| Failure::Failed(format!("no session is kept for {}", server.name)))?;
    let slot = folder
        .slot(&server.name, &user)
        .map_err(|error| Failure::Failed(format!("cannot look for kept sessions: {error}")))?
        .ok_or_else(|| {
            Failure::Failed(format!(
                "another client of {user} uses the session: leave it by /logoff"
            ))
        })?;
    let session = slot.read();
    let session = session.ok_or_else(|| {
        Failure::Failed(format!("no session of {user} is kept for {}", server.name))
    })?;
    let ended = connect(server).and_then(|mut client| {
        match client.restore(&session).and_then(|()| client.logoff()) {
            Ok(()) => Ok(()),
            Err(error) if error.code() == Some("bad-session") => Ok(()),
            Err(error) => Err(Failure::new(error)),
        }
    });
    slot.forget()
        .map_err(|error| Failure::Failed(format!("cannot forget the session: {error}")))?;
    ended.map_err(|failure| match failure {
        Failure::Failed(words) => {
            Failure::Failed(format!("the session is forgotten here, but not ended: {words}"))
        }
        other => other,
    })
}

fn connect(server: &Server) -> Result<Client, Failure> {
    Client::connect(server.address.clone(), server.options())
        .map_err(|error| server.unreachable(&error))
}

/// The user name: from the options, of the last login, or asked for.
fn who(
    arguments: &EnterArguments,
    server: &Server,
    folder: Option<&Folder>,
    lines: &mut Lines,
) -> Result<String, Failure> {
    if let Some(user) = &arguments.user {
        return Ok(user.clone());
    }
    let last = folder.and_then(|folder| folder.last_user(&server.name));
    if let Some(last) = last.filter(|_| !arguments.register) {
        return Ok(last);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage("say who you are by --user NAME".to_owned()));
    }
    let cannot = |error: io::Error| Failure::Failed(format!("cannot ask who you are: {error}"));
    write!(io::stderr(), "Who are you? ").map_err(cannot)?;
    loop {
        match lines.next() {
            Some(Line::Text(name)) if !name.trim().is_empty() => return Ok(name.trim().to_owned()),
            Some(_) => return Err(Failure::Usage("say who you are by --user NAME".to_owned())),
            None if lines.has_ended() => return Err(Failure::NobodyReads),
            None => lines.read().map_err(cannot)?,
        }
    }
}

/// The slot of the session, unless another client has locked it.
fn take_slot(folder: &Folder, server: &Server, user: &str) -> Option<Slot> {
    let words = match folder.slot(&server.name, user) {
        Ok(Some(slot)) => return Some(slot),
        Ok(None) => {
            "another client of yours uses the kept session: this one is not kept".to_owned()
        }
        Err(error) => format!("the session is not kept: {error}"),
    };
    note(&words);
    None
}

/// Restores the saved session; false if there is no valid one.
fn restore(client: &mut Client, slot: Option<&Slot>) -> Result<bool, Failure> {
    let Some((slot, session)) = slot.and_then(|slot| slot.read().map(|session| (slot, session)))
    else {
        return Ok(false);
    };
    match client.restore(&session) {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some("bad-session") => {
            note("the kept session has ended");
            // It is overwritten by the next session, or declined again.
            let _ = slot.forget();
            Ok(false)
        }
        Err(error) => Err(cannot("come in", &error)),
    }
}

fn log_in(
    arguments: &EnterArguments,
    client: &mut Client,
    user: &str,
    lines: &mut Lines,
) -> Result<(), Failure> {
    let password = if arguments.password_stdin {
        lines.password()?
    } else {
        let first = ask(&format!("Password of {}: ", harmless(user)))?;
        if arguments.register && ask("Again: ")? != first {
            return Err(Failure::new("the two passwords differ: nobody was registered"));
        }
        come_back(client)?;
        first
    };
    if arguments.register {
        let invite = arguments.invite.as_deref().map(command::invite_code);
        client
            .register(user, password.expose(), invite)
            .map_err(|error| cannot("come in", &error))?;
    }
    client.login(user, password.expose()).map(drop).map_err(|error| cannot("come in", &error))
}

/// Reconnects if typing the password took longer than the server's timeouts for the login and for
/// HEARTBEAT.
fn come_back(client: &mut Client) -> Result<(), Failure> {
    match client.heartbeat() {
        Err(error) if error.is_broken() => {
            client.reconnect().map_err(|error| cannot("come in", &error))
        }
        // Any other error shows at the next request.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Saves the session; returns whether that worked.
fn keep(slot: &Slot, server: &Server, name: &str, client: &Client) -> bool {
    let Some(session) = client.session() else { return false };
    let written = slot.write(&server.name, name, session);
    if let Err(error) = &written {
        note(&format!("the session is not kept: {error}"));
    }
    written.is_ok()
}

/// Finds the first chat, and joins it if necessary.
pub(super) fn chat(client: &mut Client, name: &str) -> Result<ChatId, Failure> {
    let chat = client.chat_id(name).map_err(|error| cannot(&format!("open {name}"), &error))?;
    let mut password = None;
    loop {
        match client.join(chat, password.as_ref().map(Secret::expose)) {
            Ok(()) => return Ok(chat),
            Err(error) if error.code() == Some("already-member") => return Ok(chat),
            Err(error) if error.code() == Some("password-required") && password.is_none() => {
                password = Some(ask_for_chat(name)?);
                come_back(client)?;
            }
            Err(error) => return Err(cannot(&format!("open {name}"), &error)),
        }
    }
}

fn ask_for_chat(name: &str) -> Result<Secret, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Failed(format!(
            "{name} asks for a password: leave --chat out, and begin with the line \
             '/join {name} PASSWORD'"
        )));
    }
    ask(&format!("Password of {}: ", harmless(name)))
}

/// Asks on the terminal without echo.
pub(super) fn ask(prompt: &str) -> Result<Secret, Failure> {
    if !io::stdin().is_terminal() {
        let words = "there is no terminal to ask for a password: say --password-stdin and give it \
                     as the first line of standard input";
        return Err(Failure::Usage(words.to_owned()));
    }
    prompt::read_secret(prompt)
        .map_err(|error| Failure::Failed(format!("cannot ask for a password: {error}")))
}

fn cannot(what: &str, error: &Error) -> Failure {
    match error {
        Error::Declined(declined) => {
            Failure::Failed(format!("cannot {what}: {}", report::reason(declined.words())))
        }
        error => Failure::Failed(report::reason(&error.to_string())),
    }
}

/// Prints a line on standard error.
pub(super) fn note(words: &str) {
    // When standard error is closed, nobody wants to know.
    let _ = writeln!(io::stderr(), "-- {words}");
}
