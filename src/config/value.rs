//! Types of options: how the command line and the TOML file write their values.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{
    BoolishValueParser, PossibleValuesParser, TypedValueParser as _, ValueParser,
    ValueParserFactory,
};
use clap::{Arg, ArgAction, ArgMatches, value_parser};

use super::acme::{AcmeContact, AcmeDirectory, Domain};
use super::push::{PushContact, PushHost, PushResolve};
use super::web::{Network, WebOrigin};

/// A type of options.
pub(super) trait OptionValue: Clone + Send + Sync + 'static {
    /// Makes an argument one of such a value.
    fn argument(argument: Arg) -> Arg;

    /// The value of an argument, if it is set.
    fn from_matches(found: &ArgMatches, id: &str) -> Option<Self> {
        // A command that does not have the argument at all sets it as little.
        found.try_get_one(id).ok().flatten().cloned()
    }

    /// The value as it stands in the file.
    ///
    /// # Errors
    /// What is wrong with it: the end of a sentence that begins with the key.
    fn from_toml(value: &toml::Value) -> Result<Self, String>;
}

/// The error for a value of another type than the key's.
fn must_be<T>(wanted: &str, value: &toml::Value) -> Result<T, String> {
    let shown = match value {
        toml::Value::Array(_) => "an array".to_owned(),
        toml::Value::Table(_) => "a table".to_owned(),
        // As it stands in the file, unless it is long.
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    Err(format!(" must be {wanted}, not {shown}"))
}

impl OptionValue for PathBuf {
    fn argument(argument: Arg) -> Arg {
        argument.value_parser(value_parser!(Self))
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        match value.as_str() {
            Some("") => must_be("the path of a file", value),
            Some(text) => Ok(text.into()),
            None => must_be("text in quotes", value),
        }
    }
}

/// A flag, which may also be followed by `=true` or `=false`.
impl OptionValue for bool {
    fn argument(argument: Arg) -> Arg {
        argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true)
            .action(ArgAction::Set)
            .value_parser(BoolishValueParser::new())
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        value.as_bool().map_or_else(|| must_be("true or false", value), Ok)
    }
}

/// A type of numbers, which have bounds.
pub(super) trait Number: PartialOrd + fmt::Display {
    /// What follows such a number in a line of text.
    const UNIT: &'static str = "";
}

macro_rules! whole_numbers {
    ($($type:ty)+) => {$(
        impl Number for $type {}

        impl OptionValue for $type {
            fn argument(argument: Arg) -> Arg {
                argument.value_parser(value_parser!($type))
            }

            fn from_toml(value: &toml::Value) -> Result<Self, String> {
                let number = value.as_integer().and_then(|number| number.try_into().ok());
                number.map_or_else(|| must_be("a whole number from 0 up", value), Ok)
            }
        }
    )+};
}

whole_numbers! { u32 u64 usize }

/// A length of time, written in seconds with or without a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds {
    /// The same in milliseconds.
    pub ms: u64,
}

impl Seconds {
    /// Of milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self { ms }
    }

    /// Of whole seconds.
    pub const fn from_s(seconds: u64) -> Self {
        Self { ms: seconds * 1000 }
    }
}

impl TryFrom<f64> for Seconds {
    type Error = String;

    fn try_from(seconds: f64) -> Result<Self, String> {
        // Far past every bound, and far from where a float is no longer exact.
        if !(0.0..=1e9).contains(&seconds) {
            return Err("it is not a number of seconds".to_owned());
        }
        Ok(Self { ms: (seconds * 1000.0).round() as u64 })
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds: Result<f64, _> = text.parse();
        seconds.map_err(|_| "it is not a number of seconds".to_owned())?.try_into()
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ms as f64 / 1000.0)
    }
}

impl Number for Seconds {
    const UNIT: &'static str = " seconds";
}

impl OptionValue for Seconds {
    fn argument(argument: Arg) -> Arg {
        argument.value_parser(value_parser!(Self))
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let seconds = match value {
            toml::Value::Integer(seconds) => *seconds as f64,
            toml::Value::Float(seconds) => *seconds,
            _ => return must_be("a number of seconds", value),
        };
        seconds.try_into().map_err(|why| format!(": {why}"))
    }
}

/// A value that is text in the file, too.
trait Text: Clone + Send + Sync + 'static {
    fn read(text: &str) -> Result<Self, String>;
}

/// A text of which an option may have several: separated by commas, or as an array of the file.
trait ListedText: Text {
    /// What the file must have for them.
    const WANTED: &'static str;
}

impl<T: Text> OptionValue for T {
    fn argument(argument: Arg) -> Arg {
        argument.value_parser(T::read)
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let Some(text) = value.as_str() else { return must_be("text in quotes", value) };
        T::read(text).map_err(|why| format!(": {why}"))
    }
}

impl<T: ListedText> OptionValue for Vec<T> {
    fn argument(argument: Arg) -> Arg {
        argument.value_parser(T::read).value_delimiter(',').action(ArgAction::Append)
    }

    fn from_matches(found: &ArgMatches, id: &str) -> Option<Self> {
        Some(found.try_get_many(id).ok().flatten()?.cloned().collect())
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let texts: Option<Vec<&str>> = match value {
            toml::Value::String(text) => Some(text.split(',').collect()),
            toml::Value::Array(values) => values.iter().map(toml::Value::as_str).collect(),
            _ => None,
        };
        let texts = texts.ok_or_else(|| format!(" must be {}", T::WANTED))?;
        texts.into_iter().map(|text| T::read(text).map_err(|why| format!(": {why}"))).collect()
    }
}

macro_rules! texts {
    ($($type:ty $(= $wanted:literal)?;)+) => {$(
        impl Text for $type {
            fn read(text: &str) -> Result<Self, String> {
                text.parse()
            }
        }

        $(impl ListedText for $type {
            const WANTED: &'static str = $wanted;
        })?
    )+};
}

texts! {
    Domain = "a domain, or an array of domains";
    AcmeDirectory;
    AcmeContact;
    WebOrigin = "an address, or an array of addresses";
    Network = "an address, or an array of addresses";
    PushHost = "a host, or an array of hosts";
    PushContact;
    PushResolve = "HOST=ADDR:PORT, or an array of these";
}

/// A numeric address with a port.
impl Text for SocketAddr {
    fn read(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| {
            format!("{text:?} is not an address with a port, such as 127.0.0.1:7420 or [::1]:7420")
        })
    }
}

impl ListedText for SocketAddr {
    const WANTED: &'static str = "an address, or an array of addresses";
}

/// Makes enums of which each value is written as one word.
macro_rules! choices {
    ($($(#[$about:meta])* $name:ident {
        $($(#[$about_variant:meta])* $variant:ident = $word:literal,)+
    })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$about_variant])* $variant,)+
        }

        impl $name {
            /// What may be written for it.
            pub const NAMES: &[&str] = &[$($word),+];
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("it is one of {}", Self::NAMES.join(", "))),
                }
            }
        }

        impl ValueParserFactory for $name {
            type Parser = ValueParser;

            fn value_parser() -> ValueParser {
                PossibleValuesParser::new(Self::NAMES).try_map(|name| name.parse::<Self>()).into()
            }
        }

        impl OptionValue for $name {
            fn argument(argument: Arg) -> Arg {
                // Where the value's name lists them, the help need not.
                let is_listed = argument.get_value_names().is_some_and(|names| {
                    names.iter().any(|name| name.as_str() == Self::NAMES.join("|"))
                });
                argument.value_parser(value_parser!(Self)).hide_possible_values(is_listed)
            }

            fn from_toml(value: &toml::Value) -> Result<Self, String> {
                let Some(word) = value.as_str() else { return must_be("text in quotes", value) };
                word.parse().or_else(|_| must_be(&format!("one of {}", Self::NAMES.join(", ")), value))
            }
        }
    )+};
}

choices! {
    /// A switch.
    OnOff {
        /// It is on.
        On = "on",
        /// It is off.
        Off = "off",
    }
    /// Who may register over the network.
    Registration {
        /// Nobody: the operator adds users.
        Closed = "closed",
        /// Who has a code that the operator or `vestnik invite` made.
        Invite = "invite",
        /// Everybody.
        Open = "open",
    }
    /// Who may make invites that register.
    InvitesBy {
        /// Operators.
        Operators = "operators",
        /// Operators, and admins of a chat for that chat.
        Admins = "admins",
    }
    /// Who may look for users by name.
    UserList {
        /// All users.
        All = "all",
        /// Operators.
        Operators = "operators",
    }
    /// What a push says of a message.
    PushContent {
        /// Its author and its text.
        Full = "full",
        /// Only that there is one.
        None = "none",
    }
    /// Which program checkpoints the WAL.
    Checkpoints {
        /// The server.
        Own = "own",
        /// Another program, such as Litestream; the server never does.
        External = "external",
    }
}
