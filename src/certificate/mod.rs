//! Certificates and keys as files: reading, generating, writing.
//!
//! Owns PEM, the names that a certificate can hold, and generated pairs. Must not know connections,
//! nor what a pair is used for.

pub mod authority;
pub mod self_signed;
pub mod x509;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use rustix::fs::OFlags;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::limits::PEM_BYTES_MAX;

/// An error with a certificate or a key: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateError(pub String);

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CertificateError {}

fn wrong<T>(message: String) -> Result<T, CertificateError> {
    Err(CertificateError(message))
}

/// A generated certificate with its key.
pub struct Pair {
    /// The certificate in PEM.
    pub certificate: String,
    /// The private key in PEM. Wiped when dropped.
    pub key: Zeroizing<String>,
    /// The fingerprint that clients pin: see [`fingerprint`].
    pub fingerprint: String,
}

impl Pair {
    /// Writes both files, the key readable by its owner only. Fails if one exists: an overwritten
    /// key is lost.
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<(), CertificateError> {
        create(key, 0o600, self.key.as_bytes())?;
        create(certificate, 0o644, self.certificate.as_bytes()).inspect_err(|_| {
            let _ = fs::remove_file(key);
        })
    }
}

fn create(file: &Path, mode: u32, bytes: &[u8]) -> Result<(), CertificateError> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(file);
    let written = opened.and_then(|mut open| {
        open.write_all(bytes)?;
        open.sync_all()
    });
    written.map_err(|error| cannot_write(file, &error))
}

/// Replaces a file atomically: after a crash there is the old one or the new one.
pub fn replace(file: &Path, mode: u32, bytes: &[u8]) -> Result<(), CertificateError> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    // An interrupted attempt may have left it.
    let _ = fs::remove_file(&new);
    create(&new, mode, bytes)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let renamed = fs::rename(&new, file)
        .and_then(|()| File::open(folder.unwrap_or(Path::new(".")))?.sync_all());
    renamed.map_err(|error| cannot_write(file, &error))
}

fn cannot_write(file: &Path, error: &io::Error) -> CertificateError {
    CertificateError(format!("cannot write {}: {}", file.display(), reason(error)))
}

/// The message for an I/O error.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "it does not exist".to_owned(),
        ErrorKind::AlreadyExists => "it exists already".to_owned(),
        ErrorKind::PermissionDenied => {
            "permission denied; run this as the user that owns it".to_owned()
        }
        ErrorKind::IsADirectory => "it is a folder".to_owned(),
        ErrorKind::StorageFull => "the disk is full".to_owned(),
        ErrorKind::Other => error.to_string(),
        kind => kind.to_string(),
    }
}

/// Converts a name to the form of certificates: a host name in ASCII (IDNs as punycode), or an IP
/// address without zone or brackets.
pub fn certificate_name(given: &str) -> Result<String, CertificateError> {
    let bad = |why: &str| {
        wrong(format!(
            "{given:?} is not a host name or IP address: {why}, for example chat.lan or 192.168.1.5"
        ))
    };
    if given.is_empty() {
        return bad("give the name that clients connect to");
    }
    if given.contains("://") || given.contains('/') {
        return bad("give the host alone, without a scheme or path");
    }
    let bare = given.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(given);
    // A zone (RFC 4007) has a meaning on the client's machine only.
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

/// Reads the certificates of a PEM file, at least one, in the order of the file.
pub fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = read_pem(file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => wrong(format!(
            "no certificate in {}: a PEM file with BEGIN CERTIFICATE is needed",
            file.display()
        )),
        Err(_) => wrong(format!("{} is damaged: it is no PEM file", file.display())),
    }
}

/// Reads the private key of a PEM file.
pub fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let pem = read_pem(file)?;
    // The parser's error is not shown, since it might quote the key.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        CertificateError(format!(
            "no private key in {}: a PEM file with BEGIN PRIVATE KEY, not encrypted, is needed",
            file.display()
        ))
    })
}

fn read_pem(file: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    // Enough capacity for every key: growing would leave a copy of the key in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
    // The event loop reads these files, and a pipe could block it.
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(file)
        .and_then(|open| match open.metadata()?.file_type() {
            kind if kind.is_file() => open.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes),
            kind if kind.is_dir() => Err(ErrorKind::IsADirectory.into()),
            _ => Err(io::Error::other("it is not a regular file")),
        })
        .map_err(|error| {
            CertificateError(format!("cannot read {}: {}", file.display(), reason(&error)))
        })?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return wrong(format!("{} is too long to be a PEM file", file.display()));
    }
    Ok(bytes)
}

/// The fingerprint of the first certificate in a PEM file, which is the server's own.
pub fn fingerprint_of_file(file: &Path) -> Result<String, CertificateError> {
    let chain = read_certificates(file)?;
    chain.first().map_or_else(|| wrong("no certificate".to_owned()), |first| Ok(fingerprint(first)))
}

/// SHA-256 of a certificate in DER as hex digits with colons, as other tools show it.
pub fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest(&SHA256, certificate);
    let pairs: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_file_is_replaced_as_a_whole() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = std::env::temp_dir().join(format!("vestnik-replace-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("pair.pem");
        fs::write(folder.join("pair.pem.new"), "half").unwrap();
        for text in ["one", "two"] {
            replace(&file, 0o600, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let error = replace(&folder.join("none/pair.pem"), 0o600, b"").unwrap_err().to_string();
        assert!(error.starts_with("cannot write "), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
