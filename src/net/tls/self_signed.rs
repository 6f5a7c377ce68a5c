//! A certificate for a server that no authority vouches for, and the fingerprints that clients pin.
//!
//! Owns making and writing the pair. Must not know TLS connections: it only makes files that the
//! server loads like any others.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::read_certificates;

/// Days for which a self-signed certificate is good: nobody renews what is pinned by hand.
pub const SELF_SIGNED_DAYS: u64 = 3650;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A fresh certificate and its key, not written anywhere yet.
pub struct SelfSigned {
    /// PEM, for everybody.
    pub certificate: String,
    /// PEM, for the server alone. Wiped when dropped.
    pub key: Zeroizing<String>,
    /// What clients pin: see [`fingerprint`].
    pub fingerprint: String,
}

/// What went wrong, in one line.
#[derive(Debug)]
pub struct CertificateError(String);

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CertificateError {}

/// A name as a certificate holds it: a host name in ASCII (IDNs as punycode), or an IP address
/// without zone or brackets.
fn certificate_name(given: &str) -> Result<String, CertificateError> {
    let bad = |why: &str| {
        Err(CertificateError(format!(
            "{given:?} is not a host name or IP address: {why}, for example chat.lan or 192.168.1.5"
        )))
    };
    if given.is_empty() {
        return bad("give the name that clients connect to");
    }
    if given.contains("://") || given.contains('/') {
        return bad("give the host alone, without a scheme or path");
    }
    let bare = given.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(given);
    // A zone (RFC 4007) means something on the machine of the client alone.
    let address = bare.split('%').next().unwrap_or(bare);
    if let Ok(address) = address.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    if given.contains([':', '[', ']']) {
        return bad("give the host alone, without a port");
    }
    let Ok(ascii) = idna::domain_to_ascii_strict(given) else {
        return bad("use letters, digits, hyphens and dots");
    };
    Ok(ascii)
}

/// Makes a pair for these host names and IP addresses, at least one. It is good from a day before
/// `now`, the time since the Unix epoch, since clocks on a LAN disagree.
pub fn self_signed(names: &[String], now: Duration) -> Result<SelfSigned, CertificateError> {
    let names = names.iter().map(|name| certificate_name(name)).collect::<Result<Vec<_>, _>>()?;
    let first = names.first().ok_or_else(|| {
        CertificateError("a certificate needs a name: a host name or address".to_owned())
    })?;
    let unmakeable =
        |error| CertificateError(format!("no certificate for {}: {error}", names.join(" ")));
    let mut params = CertificateParams::new(names.as_slice()).map_err(unmakeable)?;
    params.distinguished_name.push(DnType::CommonName, first.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(DAY);
    params.not_after = params.not_before + DAY * SELF_SIGNED_DAYS as u32;
    let key = KeyPair::generate().map_err(unmakeable)?;
    let certificate = params.self_signed(&key).map_err(unmakeable)?;
    Ok(SelfSigned {
        fingerprint: fingerprint(certificate.der()),
        certificate: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

impl SelfSigned {
    /// Writes both files, the key readable by its owner alone. Neither may exist: a key that is
    /// overwritten is lost.
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<(), CertificateError> {
        create(key, 0o600, &self.key)?;
        create(certificate, 0o644, &self.certificate).inspect_err(|_| {
            let _ = fs::remove_file(key);
        })
    }
}

fn create(file: &Path, mode: u32, text: &str) -> Result<(), CertificateError> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(file);
    let written = opened.and_then(|mut open| {
        open.write_all(text.as_bytes())?;
        open.sync_all()
    });
    written.map_err(|error| CertificateError(format!("cannot write {}: {error}", file.display())))
}

/// The fingerprint of the first certificate in a PEM file: the server's own.
pub fn fingerprint_of_file(file: &Path) -> Result<String, CertificateError> {
    let chain = read_certificates(file).map_err(|error| CertificateError(error.to_string()))?;
    let first = chain.first().ok_or_else(|| CertificateError("no certificate".to_owned()))?;
    Ok(fingerprint(first))
}

/// SHA-256 of a certificate in DER as hex digits with colons, as other tools show it.
pub fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest(&SHA256, certificate);
    let pairs: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::super::Identity;
    use super::*;

    /// 22 November 2026.
    const NOW: Duration = Duration::from_secs(1_795_305_600);

    fn folder(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vestnik-cert-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_self_signed_pair_is_one_that_the_server_takes() {
        let folder = folder("pair");
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let made = self_signed(&names(&["chat.lan", "192.168.0.7", "::1"]), NOW).unwrap();
        made.write(&certificate, &key).unwrap();
        Identity::load(&certificate, &key).unwrap();
        assert_eq!(fingerprint_of_file(&certificate).unwrap(), made.fingerprint);
        assert_eq!(made.fingerprint.len(), 32 * 3 - 1);
        let mode = fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = folder("overwrite");
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let made = self_signed(&names(&["chat.lan"]), NOW).unwrap();
        fs::write(&certificate, "mine").unwrap();
        let error = made.write(&certificate, &key).unwrap_err().to_string();
        assert!(error.contains("cert.pem"), "{error}");
        assert_eq!(fs::read_to_string(&certificate).unwrap(), "mine");
        assert!(!key.exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn bad_names_are_refused_in_one_line() {
        assert!(self_signed(&[], NOW).is_err());
        for bad in ["", "a b", "[::1]:7421", "host:7421", "https://chat.lan", "chat.lan/", "-x.lan"]
        {
            let error = self_signed(&names(&[bad]), NOW).err().unwrap().to_string();
            assert!(error.contains(bad) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn names_are_written_as_certificates_hold_them() {
        for (given, held) in [
            ("чат.example", "xn--80a0bn.example"),
            ("Chat.LAN", "chat.lan"),
            ("[::1]", "::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("192.168.0.7", "192.168.0.7"),
        ] {
            assert_eq!(certificate_name(given).unwrap(), held);
        }
    }

    #[test]
    fn a_fingerprint_is_the_sha256() {
        assert!(fingerprint(b"").starts_with("E3:B0:C4:42:98:FC:1C:14"));
    }

    #[test]
    fn a_file_without_a_certificate_has_no_fingerprint() {
        let folder = folder("none");
        let file = folder.join("file");
        fs::write(&file, "no certificate").unwrap();
        assert!(fingerprint_of_file(&file).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
