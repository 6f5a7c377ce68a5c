//! What can go wrong for a client, as one enum.

use std::{error, fmt, io};

use crate::wire::codec::Malformed;

/// Why a call of the client failed.
#[derive(Debug)]
pub enum Error {
    /// The server said no. The connection lives on.
    Declined(Declined),
    /// No answer within the time allowed. What was asked may have happened or not.
    TimedOut,
    /// The server ended the connection, or it was ended before.
    Closed,
    /// The network failed.
    Io(io::Error),
    /// The server sent what the protocol does not allow; the words say what.
    Protocol(&'static str),
    /// The server, or a proxy before it, answers a WebSocket by this status of HTTP.
    NoWebSocket(u16),
    /// What the caller uploads cannot be read, or where a download goes cannot be written. The
    /// connection lives on.
    File(io::Error),
    /// The answer is longer than [`Options::answer_bytes_max`](super::Options::answer_bytes_max).
    TooLong,
}

impl Error {
    /// Whether the connection is of no more use: [`Client::reconnect`](super::Client::reconnect)
    /// may help, and what was asked may have happened or not.
    pub fn is_broken(&self) -> bool {
        match self {
            Self::TimedOut
            | Self::Closed
            | Self::Io(_)
            | Self::Protocol(_)
            | Self::NoWebSocket(_) => true,
            Self::Declined(_) | Self::File(_) | Self::TooLong => false,
        }
    }

    /// The code of a DECLINED (protocol section 6), if that is what it was.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Declined(declined) => Some(declined.code()),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declined(declined) => declined.fmt(f),
            Self::TimedOut => f.write_str("the server did not answer in time"),
            Self::Closed => f.write_str("the connection has ended"),
            Self::Io(error) => f.write_str(&without_number(error)),
            Self::File(error) => {
                write!(f, "the file cannot be read or written: {}", without_number(error))
            }
            Self::Protocol(what) => write!(f, "the server broke the protocol: {what}"),
            Self::NoWebSocket(status) => {
                write!(f, "it does not accept a WebSocket here, but answers HTTP status {status}")
            }
            Self::TooLong => f.write_str("the answer is longer than this client takes"),
        }
    }
}

/// An error of the system. The number that it gives its errors says nothing to people.
fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    // It is the end of a line here. A word in capitals, such as TLS, stays as it is.
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io(error) | Self::File(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl From<Malformed> for Error {
    fn from(why: Malformed) -> Self {
        Self::Protocol(why.words())
    }
}

/// The reason of a DECLINED: a stable code, and words for a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Declined {
    reason: String,
    code_bytes: usize,
}

impl Declined {
    /// Takes the reason as the wire carries it: `code: words`.
    pub fn new(reason: &str) -> Self {
        let code_bytes = reason.find(": ").unwrap_or(reason.len());
        Self { reason: reason.to_owned(), code_bytes }
    }

    /// The stable code, e.g. `not-member`.
    pub fn code(&self) -> &str {
        self.reason.get(..self.code_bytes).unwrap_or(&self.reason)
    }

    /// The words for a person.
    pub fn words(&self) -> &str {
        self.reason.get(self.code_bytes + 2..).unwrap_or_default()
    }

    /// The one number in the words: the seconds of `rate-limited`, the time in microseconds up to
    /// which the range of a `too-large` fits. `None` when there is none, or more than one.
    pub fn number(&self) -> Option<i64> {
        let mut numbers =
            self.words().split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
        let number = numbers.next()?.parse().ok()?;
        numbers.next().is_none().then_some(number)
    }
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_comes_apart_into_code_words_and_number() {
        let declined = Declined::new("rate-limited: try again in 7 seconds");
        assert_eq!(declined.code(), "rate-limited");
        assert_eq!(declined.words(), "try again in 7 seconds");
        assert_eq!(declined.number(), Some(7));
        assert_eq!(Declined::new("odd").code(), "odd");
        assert_eq!(Declined::new("odd").words(), "");
        assert_eq!(Declined::new("a: 1 or 2").number(), None);
    }

    #[test]
    fn an_error_of_the_system_is_the_end_of_a_line() {
        let text = |code| Error::Io(io::Error::from_raw_os_error(code)).to_string();
        assert_eq!(text(111), "connection refused");
        assert_eq!(without_number(&io::Error::other("TLS failed")), "TLS failed");
        assert_eq!(without_number(&io::Error::other("")), "");
    }
}
