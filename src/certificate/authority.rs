//! A private certificate authority for a LAN without public names, and its certificates.
//!
//! Its certificate is installed on the devices of a household or a company. A stolen key could
//! impersonate any site to them, so name constraints bind it to the names of one network.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SerialNumber,
    date_time_ymd,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use zeroize::Zeroizing;

use super::self_signed::DAY;
use super::{
    CertificateError, Pair, certificate_name, fingerprint, read_certificates, read_key, wrong, x509,
};

/// Days for which the authority's certificate is valid.
pub const AUTHORITY_DAYS: u32 = 3650;

/// Longest validity of a certificate, in days: iOS rejects longer ones.
pub const ISSUED_DAYS_MAX: u32 = 825;

/// Longest name of an authority, in characters (RFC 5280, ub-common-name).
const NAME_CHARS_MAX: usize = 64;

/// Default name constraints: names and addresses for which no public authority issues certificates.
pub const PRIVATE_NAMES: [&str; 13] = [
    "lan",
    "local",
    "home.arpa",
    "internal",
    "localhost",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "fc00::/7",
    "fe80::/10",
    "::1/128",
];

/// Makes an authority for these host names (with all names below them), addresses and networks.
///
/// `now` is the time since the Unix epoch; the certificate is valid from a day earlier.
pub fn authority(
    name: Option<&str>,
    names: &[String],
    now: Duration,
) -> Result<Pair, CertificateError> {
    let key = KeyPair::generate().map_err(unmakeable)?;
    let mut params = CertificateParams::default();
    let common_name = match name {
        Some(name) if name.is_empty() || name.chars().count() > NAME_CHARS_MAX => {
            return wrong(format!("the name of an authority has 1 to {NAME_CHARS_MAX} characters"));
        }
        Some(name) if name.contains(char::is_control) => {
            return wrong("the name of an authority holds no control characters".to_owned());
        }
        Some(name) => name.to_owned(),
        // The digits distinguish several authorities on one phone.
        None => format!("vestnik CA {}", key_digits(&key)),
    };
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(constraints(names)?);
    params.serial_number = Some(serial_number()?);
    params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(DAY);
    params.not_after = params.not_before + DAY * AUTHORITY_DAYS;
    let certificate = params.self_signed(&key).map_err(unmakeable)?;
    Ok(Pair {
        fingerprint: fingerprint(certificate.der()),
        certificate: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

/// The files of an authority.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// File of its certificate.
    pub certificate: &'a Path,
    /// File of its key.
    pub key: &'a Path,
}

/// Issues a certificate for these host names and IP addresses (at least one).
///
/// It is valid for `days`, at most about [`ISSUED_DAYS_MAX`]. `key` is the file of an existing key;
/// without it a key is generated.
pub fn issue(
    by: Files<'_>,
    names: &[String],
    days: u32,
    key: Option<&Path>,
    now: Duration,
) -> Result<Pair, CertificateError> {
    let names = names.iter().map(|name| certificate_name(name)).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = names.first() else {
        return wrong("a certificate needs a name: a host name or address".to_owned());
    };
    let certificate = by.certificate.display();
    let authority = read_certificates(by.certificate)?.swap_remove(0);
    let (Some(subject), Some(validity)) =
        (x509::common_name(&authority), x509::validity(&authority))
    else {
        return wrong(format!("{certificate} is not of an authority that `vestnik cert ca` made"));
    };
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name.remove(DnType::CommonName);
    issuer.distinguished_name.push(DnType::CommonName, subject);
    let issuer = Issuer::new(issuer, load_key(by.key)?);
    let key = match key {
        Some(file) => load_key(file)?,
        None => KeyPair::generate().map_err(unmakeable)?,
    };
    // A day earlier, since clocks on a LAN disagree; and not longer than the authority.
    let begin = now.saturating_sub(DAY);
    let longest = (begin + DAY * ISSUED_DAYS_MAX).min(validity.not_after);
    let end = (now + DAY * days).min(longest);
    let sign = |names: &[String]| {
        let mut params = CertificateParams::new(names).map_err(unmakeable)?;
        params.distinguished_name.push(DnType::CommonName, first.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number()?);
        params.not_before = date_time_ymd(1970, 1, 1) + begin;
        params.not_after = date_time_ymd(1970, 1, 1) + end;
        params.signed_by(&key, &issuer).map_err(unmakeable)
    };
    // One name outside the constraints would make clients reject the certificate for all names.
    for name in &names {
        check(by, &authority, sign(std::slice::from_ref(name))?.der(), name, now)?;
    }
    let made = sign(&names)?;
    Ok(Pair {
        fingerprint: fingerprint(made.der()),
        certificate: made.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

/// Verifies a certificate as a client does that trusts the authority.
fn check(
    by: Files<'_>,
    authority: &CertificateDer<'static>,
    issued: &CertificateDer<'_>,
    name: &str,
    now: Duration,
) -> Result<(), CertificateError> {
    let file = by.certificate.display();
    let useless =
        |_| CertificateError(format!("the certificate in {file} is not that of an authority"));
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(useless)?;
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier =
        verifier.map_err(|error| CertificateError(format!("cannot check {file}: {error}")))?;
    let now = UnixTime::since_unix_epoch(now);
    let server = ServerName::try_from(name);
    let server = server.map_err(|_| CertificateError(format!("{name} is not a host name")))?;
    let Err(error) = verifier.verify_server_cert(issued, &[], &server, &[], now) else {
        return Ok(());
    };
    use rustls::CertificateError::{BadSignature, Expired, ExpiredContext};
    wrong(match error {
        rustls::Error::InvalidCertificate(BadSignature) => {
            format!("the key in {} is not that of the authority in {file}", by.key.display())
        }
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            format!("the authority in {file} has expired: make another by `vestnik cert ca`")
        }
        _ => format!(
            "the authority in {file} may not vouch for {name}: name all that it is for when you \
             make it, `vestnik cert ca {name} …`"
        ),
    })
}

/// The name constraints of the authority: these names and addresses only.
fn constraints(names: &[String]) -> Result<NameConstraints, CertificateError> {
    let mut constraints =
        NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees: Vec::new() };
    let private = PRIVATE_NAMES.map(str::to_owned);
    for name in if names.is_empty() { &private[..] } else { names } {
        constraints.permitted_subtrees.push(subtree(name)?);
    }
    // Without any permitted name (or address), a constraint would not restrict names (addresses).
    let permits =
        |is_kind: fn(&GeneralSubtree) -> bool| constraints.permitted_subtrees.iter().any(is_kind);
    let mut excluded = Vec::new();
    if !permits(|subtree| matches!(subtree, GeneralSubtree::DnsName(_))) {
        excluded.push(GeneralSubtree::DnsName(String::new()));
    }
    if !permits(|subtree| matches!(subtree, GeneralSubtree::IpAddress(_))) {
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])));
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])));
    }
    constraints.excluded_subtrees = excluded;
    Ok(constraints)
}

fn subtree(name: &str) -> Result<GeneralSubtree, CertificateError> {
    let (host, bits) = match name.split_once('/') {
        Some((host, bits)) => (host, Some(bits)),
        None => (name, None),
    };
    let Ok(address) = host.parse::<IpAddr>() else {
        return Ok(GeneralSubtree::DnsName(certificate_name(name)?));
    };
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(bits_max), |bits| bits.parse().ok());
    match bits.filter(|bits| *bits <= bits_max) {
        Some(bits) => {
            Ok(GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(first(address, bits), bits)))
        }
        None => wrong(format!("{name:?} is not a network, such as 192.168.0.0/16")),
    }
}

/// The first address of a network.
fn first(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

fn load_key(file: &Path) -> Result<KeyPair, CertificateError> {
    let key = read_key(file)?;
    KeyPair::try_from(&key).map_err(|_| {
        CertificateError(format!(
            "the key in {} is of a kind that cannot sign here: use one that `vestnik cert` made",
            file.display()
        ))
    })
}

/// A random serial number: a certificate that is issued again for the same key needs another one.
fn serial_number() -> Result<SerialNumber, CertificateError> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| CertificateError("the system gives no random numbers".to_owned()))?;
    // A positive number whose first byte is not 0.
    bytes[0] = bytes[0] & 0x7F | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A few hex digits that identify a key.
fn key_digits(key: &KeyPair) -> String {
    fingerprint(key.public_key_raw()).chars().filter(char::is_ascii_hexdigit).take(4).collect()
}

fn unmakeable(error: rcgen::Error) -> CertificateError {
    CertificateError(format!("no certificate: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    /// 22 November 2026.
    const NOW: Duration = Duration::from_secs(1_795_305_600);

    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let name = format!("vestnik-authority-{}-{test}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn authority(&self, names: &[&str]) -> (PathBuf, PathBuf) {
            let files = (self.0.join("ca.crt"), self.0.join("ca.key"));
            let _ = (fs::remove_file(&files.0), fs::remove_file(&files.1));
            authority(None, &list(names), NOW).unwrap().write(&files.0, &files.1).unwrap();
            files
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn issue_for(files: &(PathBuf, PathBuf), names: &[&str]) -> Result<Pair, CertificateError> {
        let by = Files { certificate: &files.0, key: &files.1 };
        issue(by, &list(names), ISSUED_DAYS_MAX, None, NOW)
    }

    #[test]
    fn an_authority_vouches_for_private_names_alone() {
        let folder = Folder::new("private");
        let files = folder.authority(&[]);
        for name in ["chat.lan", "printer.local", "192.168.1.5", "10.0.0.1", "fd00::7", "localhost"]
        {
            issue_for(&files, &[name]).unwrap();
        }
        for name in ["example.org", "chat.example.org", "8.8.8.8", "2001:db8::1", "planet"] {
            let error = issue_for(&files, &["chat.lan", name]).err().expect(name).to_string();
            assert!(error.contains("may not vouch for") && error.contains(name), "{error}");
        }
    }

    #[test]
    fn an_authority_vouches_for_what_it_is_made_for_alone() {
        let folder = Folder::new("given");
        let names_only = folder.authority(&["example.org"]);
        issue_for(&names_only, &["chat.example.org", "example.org"]).unwrap();
        for name in ["chat.lan", "192.168.1.5", "fd00::1", "badexample.org"] {
            assert!(issue_for(&names_only, &[name]).is_err(), "{name}");
        }
        let addresses_only = folder.authority(&["192.168.1.77/24", "fd00::5"]);
        issue_for(&addresses_only, &["192.168.1.5", "fd00::5"]).unwrap();
        for name in ["chat.lan", "192.168.2.5", "fd00::6", "localhost"] {
            assert!(issue_for(&addresses_only, &[name]).is_err(), "{name}");
        }
        for wrong in ["10.0.0.0/33", "fd00::/129", "10.0.0.0/x", "a b", "https://a", ""] {
            assert!(authority(None, &list(&[wrong]), NOW).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_issued_is_what_phones_accept() {
        let folder = Folder::new("issued");
        let files = folder.authority(&[]);
        let by = Files { certificate: &files.0, key: &files.1 };
        let made = issue(by, &list(&["chat.lan"]), 5000, None, NOW).unwrap();
        let der = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
        let validity = x509::validity(&der).unwrap();
        assert_eq!(validity.not_after - validity.not_before, DAY * ISSUED_DAYS_MAX);
        // Not longer than the authority.
        let late = NOW + DAY * 3600;
        let made = issue(by, &list(&["chat.lan"]), 825, None, late).unwrap();
        let der = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
        assert_eq!(x509::validity(&der).unwrap().not_after, NOW + DAY * (AUTHORITY_DAYS - 1));
        let error = issue(by, &list(&["chat.lan"]), 825, None, NOW + DAY * 3651).err().unwrap();
        assert!(error.to_string().contains("has expired"), "{error}");
    }

    #[test]
    fn a_renewed_certificate_keeps_its_key() {
        let folder = Folder::new("renewed");
        let files = folder.authority(&[]);
        let by = Files { certificate: &files.0, key: &files.1 };
        let first = issue(by, &list(&["chat.lan"]), 30, None, NOW).unwrap();
        let (cert, key) = (folder.0.join("cert.pem"), folder.0.join("key.pem"));
        first.write(&cert, &key).unwrap();
        let second = issue(by, &list(&["chat.lan"]), 30, Some(&key), NOW + DAY).unwrap();
        assert_eq!(second.key, first.key);
        assert_ne!(second.fingerprint, first.fingerprint);
    }

    #[test]
    fn what_is_no_authority_issues_nothing() {
        let folder = Folder::new("none");
        let files = folder.authority(&[]);
        let leaf = issue_for(&files, &["chat.lan"]).unwrap();
        let other = (folder.0.join("cert.pem"), folder.0.join("key.pem"));
        leaf.write(&other.0, &other.1).unwrap();
        let says = |certificate: &Path, key: &Path, message: &str| {
            let by = Files { certificate, key };
            let error = issue(by, &list(&["chat.lan"]), 1, None, NOW).err().unwrap().to_string();
            assert!(error.contains(message) && !error.contains('\n'), "{error}");
        };
        says(&files.0, &other.1, "is not that of the authority");
        says(&other.0, &files.1, "");
        says(&files.0, &files.0, "no private key");
        says(&files.1, &files.1, "no certificate");
        for name in ["", "a\nb", &"x".repeat(65)] {
            assert!(authority(Some(name), &[], NOW).is_err(), "{name:?}");
        }
    }
}
