//! One attempt to get a certificate: account, order, challenges, certificate, files.

use std::time::Duration;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::Challenge;
use super::client::{Client, Offer, Status};
use super::failure::{Failure, Problem};
use super::storage::{Storage, StoredOrder, covers};
use crate::certificate::x509::Validity;
use crate::config::Acme;
use crate::wire::base64::encode;

/// Polls of an order or an authorization, at most.
const POLLS_MAX: usize = 60;
/// Pause between two polls, unless the authority asks for another one by Retry-After.
const POLL_PAUSE: Duration = Duration::from_secs(2);
/// Longest pause that an authority can ask for.
const POLL_PAUSE_MAX: Duration = Duration::from_secs(15);

/// The type of challenge that is used (RFC 8737).
const TLS_ALPN: &str = "tls-alpn-01";

/// Callbacks of an attempt into the server, and the present time.
pub(super) struct Callbacks<'a> {
    /// Makes the server answer with the certificate of a challenge; `None` ends that.
    pub(super) answer: &'a mut dyn FnMut(Option<Challenge>) -> Result<(), Failure>,
    /// Sleeps. Fails when the server shuts down.
    pub(super) pause: &'a mut dyn FnMut(Duration) -> Result<(), Failure>,
    /// The time since the Unix epoch.
    pub(super) now: Duration,
}

/// Gets a certificate for the configured names, and stores it. Returns its validity.
pub(super) fn attempt(
    acme: &Acme,
    storage: &Storage,
    callbacks: &mut Callbacks<'_>,
) -> Result<Validity, Failure> {
    storage.prepare()?;
    let mut client = Client::open(acme, storage.account_key()?)?;
    client.register(acme.contact.as_deref())?;
    if let Some(stored) = storage.order(&acme.domains)
        && can_continue(&mut client, &stored)?
    {
        let outcome = settle(&mut client, acme, storage, &stored, callbacks);
        match &outcome {
            // The authority may have checked while the server was not there to answer, so this
            // says little about the name.
            Err(failure) if !failure.keeps_order => {
                log::info!("the earlier order failed: {failure}; asking for another one");
            }
            _ => return outcome,
        }
    }
    let stored = begin(&mut client, acme, storage)?;
    settle(&mut client, acme, storage, &stored, callbacks)
}

/// Completes an order, and forgets it unless the next attempt can continue it.
fn settle(
    client: &mut Client,
    acme: &Acme,
    storage: &Storage,
    stored: &StoredOrder,
    callbacks: &mut Callbacks<'_>,
) -> Result<Validity, Failure> {
    let outcome = complete(client, acme, storage, stored, callbacks);
    if !outcome.as_ref().is_err_and(|failure| failure.keeps_order) {
        storage.forget_order();
    }
    outcome
}

/// Whether the order of an earlier attempt can be continued.
fn can_continue(client: &mut Client, stored: &StoredOrder) -> Result<bool, Failure> {
    match client.order(&stored.url) {
        Ok(order) => Ok(!matches!(order.status, Status::Invalid | Status::Over)),
        // This error does not mean that the order is lost.
        Err(failure) if failure.keeps_order => Err(failure),
        Err(_) => Ok(false),
    }
}

/// Orders a certificate. Stores the order and its key before anything else.
fn begin(client: &mut Client, acme: &Acme, storage: &Storage) -> Result<StoredOrder, Failure> {
    let key = KeyPair::generate().map_err(|e| Failure::new(format!("no key: {e}")))?;
    let url = client.new_order(&acme.domains)?;
    let order = StoredOrder::new(url, &acme.domains, &Zeroizing::new(key.serialize_der()));
    storage.keep_order(&order)?;
    Ok(order)
}

/// Polls an order and does what its status requires, until the certificate is stored.
fn complete(
    client: &mut Client,
    acme: &Acme,
    storage: &Storage,
    stored: &StoredOrder,
    callbacks: &mut Callbacks<'_>,
) -> Result<Validity, Failure> {
    let damaged = || Failure::new("the key of the order is damaged");
    let pkcs8 = stored.key().ok_or_else(damaged)?;
    let key = KeyPair::try_from(pkcs8.as_slice()).map_err(|_| damaged())?;
    let name = acme.domains.first().map_or("", String::as_str);
    let (mut is_authorized, mut is_finalized) = (false, false);
    for _ in 0..POLLS_MAX {
        let order = client.order(&stored.url)?;
        match order.status {
            Status::Pending if !is_authorized => {
                for authorization in &order.authorizations {
                    authorize(client, acme, authorization, callbacks)?;
                }
                is_authorized = true;
                continue;
            }
            Status::Ready if !is_finalized => {
                client.finalize(&order, &request(&acme.domains, &key)?)?;
                is_finalized = true;
                continue;
            }
            Status::Valid => {
                let url = order.certificate.unwrap_or_default();
                let chain = client.certificate(&url)?;
                return keep(acme, storage, &key, chain, callbacks.now);
            }
            Status::Pending | Status::Ready | Status::Processing => {}
            Status::Invalid | Status::Over => {
                let problem =
                    order.error.unwrap_or_else(|| Problem::with_detail("the order is void"));
                return Err(problem.explain(name));
            }
        }
        pause(callbacks, order.retry_after)?;
    }
    Err(undecided(client))
}

/// Proves control of one name to the authority, unless it is authorized already.
fn authorize(
    client: &mut Client,
    acme: &Acme,
    url: &str,
    callbacks: &mut Callbacks<'_>,
) -> Result<(), Failure> {
    let authorization = client.authorization(url)?;
    if authorization.status == Status::Valid {
        return Ok(());
    }
    let name = authorization.identifier.value;
    if !acme.domains.contains(&name) {
        let host = client.host();
        return Err(Failure::new(format!(
            "{host} wants a name to be checked that was not ordered"
        )));
    }
    let offers = authorization.challenges.into_iter();
    let Some(offer) = offers.into_iter().find(|offer| offer.kind == TLS_ALPN) else {
        return Err(Failure::new(format!(
            "{} does not check {name} by {TLS_ALPN}, and nothing else is supported",
            client.host()
        )));
    };
    let authorization = client.key_authorization(&offer.token);
    (callbacks.answer)(Some(challenge(&name, &authorization)?))?;
    let checked = check(client, url, &name, &offer, callbacks);
    // An error here changes nothing: the check is over.
    let _ = (callbacks.answer)(None);
    checked
}

/// Asks the authority to check a challenge, and polls for the result.
fn check(
    client: &mut Client,
    url: &str,
    name: &str,
    offer: &Offer,
    callbacks: &mut Callbacks<'_>,
) -> Result<(), Failure> {
    if offer.status == Status::Pending {
        client.answer(offer)?;
    }
    for _ in 0..POLLS_MAX {
        let authorization = client.authorization(url)?;
        match authorization.status {
            Status::Valid => return Ok(()),
            Status::Pending | Status::Processing => {}
            _ => {
                let failed = authorization.challenges.into_iter().find_map(|offer| offer.error);
                let problem = failed.unwrap_or_else(|| Problem::with_detail("the check failed"));
                return Err(problem.explain(name));
            }
        }
        pause(callbacks, authorization.retry_after)?;
    }
    Err(undecided(client))
}

fn pause(callbacks: &mut Callbacks<'_>, asked: Option<Duration>) -> Result<(), Failure> {
    (callbacks.pause)(asked.unwrap_or(POLL_PAUSE).clamp(Duration::from_secs(1), POLL_PAUSE_MAX))
}

fn undecided(client: &Client) -> Failure {
    Failure::transient(format!("{} comes to no decision", client.host()))
}

/// Makes the certificate that answers a challenge (RFC 8737, section 3).
fn challenge(name: &str, authorization: &str) -> Result<Challenge, Failure> {
    let failed = |error| Failure::new(format!("no certificate for the check of {name:?}: {error}"));
    let expected = digest(&SHA256, authorization.as_bytes());
    let mut params = CertificateParams::new([name.to_owned()]).map_err(failed)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(expected.as_ref())];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Challenge {
        name: name.to_owned(),
        certificate: certificate.into(),
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    })
}

/// The certificate signing request for names, in DER.
fn request(names: &[String], key: &KeyPair) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::new(format!("no signing request: {error}"));
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(failed)?;
    Ok(request.der().to_vec())
}

/// Stores the key and the chain, if the chain fits the key and the names and has not expired.
fn keep(
    acme: &Acme,
    storage: &Storage,
    key: &KeyPair,
    chain: Vec<CertificateDer<'static>>,
    now: Duration,
) -> Result<Validity, Failure> {
    let mut pair = Zeroizing::new(key.serialize_pem());
    for certificate in &chain {
        put_certificate(&mut pair, certificate);
    }
    let Some((validity, _)) = chain.first().and_then(|first| covers(first, &acme.domains)) else {
        return Err(Failure::new("the authority sent a certificate for other names"));
    };
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    CertifiedKey::from_der(chain, private, &default_provider())
        .map_err(|_| Failure::new("the authority sent a certificate for another key"))?;
    if validity.not_after <= now {
        return Err(Failure::new(
            "the authority sent a certificate that has expired: check the clock of this machine",
        ));
    }
    storage.keep_pair(&pair)?;
    Ok(validity)
}

/// Appends a certificate as PEM.
fn put_certificate(pem: &mut String, certificate: &CertificateDer<'_>) {
    let mut rest = &*encode(certificate);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
}
