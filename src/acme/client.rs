//! ACME client: the signed requests of RFC 8555 and their answers.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::failure::{Failure, Problem};
use super::http::{Answer, Http};
use super::jose::AccountKey;
use crate::config::Acme;
use crate::limits::{ACME_NONCE_TRIES_MAX, DOMAINS_MAX};
use crate::wire::base64::encode_url;

/// The directory: URLs at which an authority accepts requests (RFC 8555, section 7.1.1).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
    new_order: String,
}

/// Status of an order, an authorization or a challenge (RFC 8555, section 7.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
    /// Deactivated, expired, revoked, or unknown: it cannot be continued.
    #[default]
    #[serde(other)]
    Over,
}

/// An order for a certificate (RFC 8555, section 7.1.3).
#[derive(Debug, Deserialize)]
pub(super) struct Order {
    pub(super) status: Status,
    #[serde(default)]
    pub(super) authorizations: Vec<String>,
    pub(super) finalize: String,
    pub(super) certificate: Option<String>,
    pub(super) error: Option<Problem>,
    #[serde(skip)]
    pub(super) retry_after: Option<Duration>,
}

/// The authorization of the account for one name (RFC 8555, section 7.1.4).
#[derive(Debug, Deserialize)]
pub(super) struct Authorization {
    pub(super) status: Status,
    pub(super) identifier: Identifier,
    #[serde(default)]
    pub(super) challenges: Vec<Offer>,
    #[serde(skip)]
    pub(super) retry_after: Option<Duration>,
}

/// The name of an authorization.
#[derive(Debug, Deserialize)]
pub(super) struct Identifier {
    pub(super) value: String,
}

/// A challenge that the authority offers for a name (RFC 8555, section 7.1.5).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Offer {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) url: String,
    pub(super) token: String,
    pub(super) status: Status,
    pub(super) error: Option<Problem>,
}

/// A client with an account at an authority, for one attempt.
pub(super) struct Client {
    http: Http,
    key: AccountKey,
    directory: Directory,
    /// URL of the account; `None` until [`Client::register`].
    account: Option<String>,
    nonce: Option<String>,
    /// The first name, for messages about problems that name none.
    name: String,
}

impl Client {
    /// Creates a client: fetches the directory of the authority.
    pub(super) fn open(acme: &Acme, key: AccountKey) -> Result<Self, Failure> {
        let http = Http::new(&acme.directory, acme.ca.as_deref())?;
        let name = acme.domains.first().cloned().unwrap_or_default();
        let answer = http.get(&acme.directory)?;
        let directory = match answer.status {
            200 => parse(&http, &answer)?,
            _ => return Err(problem(&http, &answer).explain(&name)),
        };
        Ok(Self { http, key, directory, account: None, nonce: None, name })
    }

    /// Finds the account of the key, or creates it.
    pub(super) fn register(&mut self, contact: Option<&str>) -> Result<(), Failure> {
        let mut account = json!({ "termsOfServiceAgreed": true });
        if let (Some(contact), Some(members)) = (contact, account.as_object_mut()) {
            members.insert("contact".to_owned(), json!([format!("mailto:{contact}")]));
        }
        let url = self.directory.new_account.clone();
        let answer = self.post(&url, &account.to_string())?;
        self.account = Some(self.location(&answer)?);
        Ok(())
    }

    /// Orders a certificate for names. Returns the URL of the order.
    pub(super) fn new_order(&mut self, names: &[String]) -> Result<String, Failure> {
        let identifiers: Vec<_> =
            names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
        let order = json!({ "identifiers": identifiers });
        let url = self.directory.new_order.clone();
        let answer = self.post(&url, &order.to_string())?;
        self.location(&answer)
    }

    /// Fetches an order.
    pub(super) fn order(&mut self, url: &str) -> Result<Order, Failure> {
        let answer = self.post(url, "")?;
        let order: Order = parse(&self.http, &answer)?;
        if order.authorizations.len() > DOMAINS_MAX {
            return Err(Failure::new(format!("{} wants too much to be checked", self.http.host())));
        }
        Ok(Order { retry_after: answer.retry_after, ..order })
    }

    /// Fetches an authorization.
    pub(super) fn authorization(&mut self, url: &str) -> Result<Authorization, Failure> {
        let answer = self.post(url, "")?;
        let authorization = parse(&self.http, &answer)?;
        Ok(Authorization { retry_after: answer.retry_after, ..authorization })
    }

    /// Asks the authority to check a challenge.
    pub(super) fn answer(&mut self, challenge: &Offer) -> Result<(), Failure> {
        self.post(&challenge.url, "{}").map(drop)
    }

    /// Sends the signing request of an order whose names are authorized.
    pub(super) fn finalize(&mut self, order: &Order, request: &[u8]) -> Result<(), Failure> {
        let body = json!({ "csr": encode_url(request) });
        self.post(&order.finalize, &body.to_string()).map(drop)
    }

    /// Downloads a certificate and its chain.
    pub(super) fn certificate(
        &mut self,
        url: &str,
    ) -> Result<Vec<CertificateDer<'static>>, Failure> {
        let answer = self.post(url, "")?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&answer.body).collect();
        match chain {
            Ok(chain) if !chain.is_empty() => Ok(chain),
            _ => Err(Failure::new(format!("{} sent no certificate", self.http.host()))),
        }
    }

    /// The key authorization of a challenge's token.
    pub(super) fn key_authorization(&self, token: &str) -> String {
        self.key.key_authorization(token)
    }

    /// The host of the authority.
    pub(super) fn host(&self) -> &str {
        self.http.host()
    }

    /// Posts a signed request. Repeats it with a fresh nonce while the authority rejects the nonce.
    fn post(&mut self, url: &str, payload: &str) -> Result<Answer, Failure> {
        for _ in 0..ACME_NONCE_TRIES_MAX {
            let nonce = match self.nonce.take() {
                Some(nonce) => nonce,
                None => self.new_nonce()?,
            };
            let body = self.key.sign(url, &nonce, self.account.as_deref(), payload)?;
            let mut answer = self.http.post(url, &body)?;
            self.nonce = answer.nonce.take();
            if matches!(answer.status, 200..=299) {
                return Ok(answer);
            }
            let problem = problem(&self.http, &answer);
            if !problem.is_bad_nonce() {
                let mut failure = problem.explain(&self.name);
                failure.retry_after = answer.retry_after;
                return Err(failure);
            }
        }
        let host = self.http.host();
        Err(Failure::new(format!("{host} declines every request as if it had been sent twice")))
    }

    fn new_nonce(&mut self) -> Result<String, Failure> {
        let answer = self.http.head(&self.directory.new_nonce)?;
        answer.nonce.ok_or_else(|| no_acme(&self.http))
    }

    fn location(&self, answer: &Answer) -> Result<String, Failure> {
        answer.location.clone().ok_or_else(|| no_acme(&self.http))
    }
}

fn parse<T: DeserializeOwned>(http: &Http, answer: &Answer) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body).map_err(|_| no_acme(http))
}

/// The problem in an error answer; an answer without one becomes a problem with its status.
fn problem(http: &Http, answer: &Answer) -> Problem {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| {
        Problem::with_detail(format!("{} answers {}", http.host(), answer.status))
    })
}

fn no_acme(http: &Http) -> Failure {
    let host = http.host();
    Failure::new(format!("{host} answers something that is not ACME: check --acme-directory"))
}
