//! Errors of ACME: one line that says what failed and what to do.
//!
//! The text of an authority is not trusted: it is shortened and loses its control characters
//! before it is logged.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// Longest part of an authority's text in a message, in characters.
const DETAIL_CHARS_MAX: usize = 300;

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    message: String,
    /// Retry-After of the authority: no attempt comes before this time has passed.
    pub(super) retry_after: Option<Duration>,
    /// Whether the next attempt may continue the order: the error is not the order's.
    pub(super) keeps_order: bool,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), retry_after: None, keeps_order: false }
    }

    /// A transient failure: the next attempt continues the order.
    pub(super) fn transient(message: impl Into<String>) -> Self {
        Self { keeps_order: true, ..Self::new(message) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<crate::certificate::CertificateError> for Failure {
    /// A certificate that cannot be written (a full disk) keeps the order: the next attempt
    /// downloads the same certificate again.
    fn from(error: crate::certificate::CertificateError) -> Self {
        Self::transient(error.to_string())
    }
}

/// A problem document of an authority (RFC 7807, with the types of RFC 8555, section 6.7).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
    identifier: Option<Identifier>,
    subproblems: Vec<Problem>,
}

/// The name that a problem is about.
#[derive(Clone, Debug, Deserialize)]
struct Identifier {
    value: String,
}

impl Problem {
    /// A problem with a text and no type.
    pub(super) fn with_detail(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..Self::default() }
    }

    fn kind(&self) -> &str {
        self.kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(&self.kind)
    }

    /// Whether the request may be repeated with another nonce.
    pub(super) fn is_bad_nonce(&self) -> bool {
        self.kind() == "badNonce"
    }

    /// Describes the problem with `name`, or with the request for it.
    pub(super) fn explain(&self, name: &str) -> Failure {
        // A compound problem: the first of its parts is shown.
        if let Some(first) = self.subproblems.first()
            && first.subproblems.is_empty()
        {
            return first.explain(name);
        }
        let about = self.identifier.as_ref().map(|identifier| clean(&identifier.value));
        let name = about.as_deref().unwrap_or(name);
        let detail = match clean(&self.detail) {
            detail if detail.is_empty() => String::new(),
            detail => format!(" (the authority says: {detail})"),
        };
        let message = match self.kind() {
            "connection" => format!(
                "port 443 of {name} cannot be reached from the internet: open it in the firewall, \
                 or forward it to this server"
            ),
            "dns" => format!(
                "{name} has no address that the authority can find: set its A or AAAA record to \
                 the address of this machine"
            ),
            "unauthorized" | "incorrectResponse" | "tls" => format!(
                "something else answers on port 443 of {name}: its A and AAAA records must name \
                 this machine, and no other program or proxy may take the connections"
            ),
            "caa" => format!(
                "a CAA record of {name} forbids this authority: remove it, or add one that allows it"
            ),
            "rateLimited" => "the authority limits how often it issues certificates".to_owned(),
            "rejectedIdentifier" | "unsupportedIdentifier" => {
                format!("the authority issues no certificates for {name}")
            }
            "externalAccountRequired" => {
                "the authority wants an account that is made on its site, \
                 which is not supported: choose another by --acme-directory"
                    .to_owned()
            }
            "invalidContact" | "unsupportedContact" => {
                "the authority refuses the address of --acme-contact".to_owned()
            }
            "userActionRequired" => "the authority wants its terms to be agreed to anew".to_owned(),
            "serverInternal" => "the authority has trouble of its own".to_owned(),
            "" => "the authority refuses".to_owned(),
            other => format!("the authority refuses: {}", clean(other)),
        };
        let keeps_order = matches!(self.kind(), "rateLimited" | "serverInternal");
        Failure { keeps_order, ..Failure::new(message + &detail) }
    }
}

/// Makes untrusted text fit for a log line: one line, no control characters, bounded.
pub(super) fn clean(text: &str) -> String {
    let text: String =
        text.chars().take(DETAIL_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, detail: &str) -> Problem {
        let json = serde_json::json!({
            "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn each_problem_is_one_line_that_says_what_to_do() {
        for (kind, message) in [
            ("connection", "port 443 of chat.example cannot be reached"),
            ("dns", "set its A or AAAA record"),
            ("unauthorized", "something else answers on port 443 of chat.example"),
            ("incorrectResponse", "something else answers"),
            ("tls", "something else answers"),
            ("caa", "CAA record of chat.example"),
            ("rateLimited", "limits how often"),
            ("rejectedIdentifier", "no certificates for chat.example"),
            ("externalAccountRequired", "--acme-directory"),
            ("invalidContact", "--acme-contact"),
            ("serverInternal", "trouble of its own"),
            ("brandNew", "refuses: brandNew"),
        ] {
            let line =
                problem(kind, "what\nhappened\u{1b}[31m").explain("chat.example").to_string();
            assert!(line.contains(message), "{kind}: {line}");
            assert!(line.contains("what happened") && !line.contains(char::is_control), "{line}");
        }
    }

    #[test]
    fn the_first_of_several_problems_is_shown() {
        let mut both = problem("compound", "two problems");
        both.subproblems = vec![problem("caa", "no"), problem("dns", "no")];
        assert!(both.explain("a.example").to_string().contains("CAA record of a.example"));
        both.subproblems[0].identifier = Some(Identifier { value: "b.\u{7}example".to_owned() });
        assert!(both.explain("a.example").to_string().contains("CAA record of b. example"));
    }

    #[test]
    fn a_text_of_others_is_short() {
        assert_eq!(clean(&"x".repeat(10_000)).len(), DETAIL_CHARS_MAX);
        assert_eq!(clean(" a \r\n b\0 "), "a b");
    }
}
