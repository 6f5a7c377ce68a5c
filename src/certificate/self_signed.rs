//! Self-signed certificates, for servers whose fingerprint clients pin.

use std::time::Duration;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use zeroize::Zeroizing;

use super::{CertificateError, Pair, certificate_name, fingerprint};

/// Days for which a self-signed certificate is valid: long, since every client pins it by hand.
pub const SELF_SIGNED_DAYS: u64 = 3650;

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes a pair for these host names and IP addresses (at least one).
///
/// `now` is the time since the Unix epoch; the certificate is valid from a day earlier, since
/// clocks on a LAN disagree.
pub fn self_signed(names: &[String], now: Duration) -> Result<Pair, CertificateError> {
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
    Ok(Pair {
        fingerprint: fingerprint(certificate.der()),
        certificate: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::super::{fingerprint_of_file, read_certificates, read_key};
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
    fn a_self_signed_pair_is_written_and_read() {
        let folder = folder("pair");
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let made = self_signed(&names(&["chat.lan", "192.168.0.7", "::1"]), NOW).unwrap();
        made.write(&certificate, &key).unwrap();
        assert_eq!(read_certificates(&certificate).unwrap().len(), 1);
        read_key(&key).unwrap();
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
    fn a_file_without_a_certificate_has_no_fingerprint() {
        let folder = folder("none");
        let file = folder.join("file");
        fs::write(&file, "no certificate").unwrap();
        assert!(fingerprint_of_file(&file).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
