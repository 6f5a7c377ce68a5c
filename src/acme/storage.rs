//! Files of ACME next to the data file: the account's key, the order in progress, and the pair of
//! certificate and key.
//!
//! Each file is readable by its owner only and replaced atomically.
//!
//! ```text
//! vestnik.db.acme/acme-v02.api.letsencrypt.org_directory/account.json
//!                                                       /order.json
//!                                                       /chat.example.org.pem
//! ```

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::failure::Failure;
use super::jose::AccountKey;
use crate::certificate::x509::{self, Validity};
use crate::certificate::{read_certificates, replace};
use crate::config::Acme;
use crate::limits::PEM_BYTES_MAX;
use crate::wire::base64::{decode_url, encode_url};

/// The files for one authority's directory and one certificate.
#[derive(Clone, Debug)]
pub struct Storage {
    folder: PathBuf,
    pair: PathBuf,
}

/// An order in progress; after a restart it is continued.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct StoredOrder {
    pub(super) url: String,
    pub(super) domains: Vec<String>,
    /// The key of the certificate, as PKCS#8 in base64url.
    key: String,
}

impl StoredOrder {
    pub(super) fn new(url: String, domains: &[String], key: &[u8]) -> Self {
        Self { url, domains: domains.to_owned(), key: encode_url(key) }
    }

    /// The key of the certificate, decoded to PKCS#8; `None` when it is damaged.
    pub(super) fn key(&self) -> Option<Zeroizing<Vec<u8>>> {
        decode_url(&self.key).map(Zeroizing::new)
    }
}

impl Drop for StoredOrder {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

#[derive(Deserialize, Serialize)]
struct StoredAccount {
    key: String,
}

impl Storage {
    /// The paths that follow from the options. Creates nothing.
    pub fn new(data: &Path, acme: &Acme) -> Self {
        let mut root = data.as_os_str().to_owned();
        root.push(".acme");
        let directory = acme.directory.strip_prefix("https://").unwrap_or(&acme.directory);
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' };
        let name: String = directory.chars().map(plain).collect();
        // A name with leading dots could mean another folder.
        let folder = Path::new(&root).join(name.trim_start_matches('.'));
        let name = acme.domains.first().map_or("none", String::as_str);
        Self { pair: folder.join(format!("{name}.pem")), folder }
    }

    /// Path of the file with the key and the chain.
    pub fn pair(&self) -> &Path {
        &self.pair
    }

    /// Creates the folders, accessible to their owner only.
    pub(super) fn prepare(&self) -> Result<(), Failure> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|error| {
            Failure::new(format!(
                "cannot make the folder {}: {}",
                self.folder.display(),
                error.kind()
            ))
        })
    }

    /// Loads the key of the account, or generates and stores one.
    pub(super) fn account_key(&self) -> Result<AccountKey, Failure> {
        let file = self.folder.join("account.json");
        let stored: Option<StoredAccount> = read(&file);
        let known = stored.and_then(|stored| decode_url(&stored.key)).map(Zeroizing::new);
        if let Some(key) = known.and_then(|known| AccountKey::from_stored(&known)) {
            return Ok(key);
        }
        let made = AccountKey::generate()?;
        write(&file, &StoredAccount { key: encode_url(&made) })?;
        AccountKey::from_stored(&made).ok_or_else(|| Failure::new("a new key cannot be used"))
    }

    /// Loads the order in progress, if it is for these names.
    pub(super) fn order(&self, domains: &[String]) -> Option<StoredOrder> {
        let order: StoredOrder = read(&self.folder.join("order.json"))?;
        (order.domains == domains).then_some(order)
    }

    pub(super) fn keep_order(&self, order: &StoredOrder) -> Result<(), Failure> {
        write(&self.folder.join("order.json"), order)
    }

    pub(super) fn forget_order(&self) {
        let _ = fs::remove_file(self.folder.join("order.json"));
    }

    /// Stores a key and its chain in PEM: in one file, so that they always belong together.
    pub(super) fn keep_pair(&self, pair: &str) -> Result<(), Failure> {
        Ok(replace(&self.pair, 0o600, pair.as_bytes())?)
    }
}

/// Reads a JSON file. A damaged file counts as missing.
fn read<T: for<'de> Deserialize<'de>>(file: &Path) -> Option<T> {
    if fs::metadata(file).ok()?.len() > PEM_BYTES_MAX {
        return None;
    }
    let text = Zeroizing::new(fs::read(file).ok()?);
    let value = serde_json::from_slice(&text).ok();
    if value.is_none() {
        log::warn!("{} is damaged and is made anew", file.display());
    }
    value
}

fn write(file: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_vec(value).map(Zeroizing::new);
    let text = text.map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
    Ok(replace(file, 0o600, &text)?)
}

/// Validity of the certificate in a file, and its jitter (see [`super::schedule::State`]); `None`
/// unless the certificate covers all of these names.
pub fn covered_by(file: &Path, domains: &[String]) -> Option<(Validity, u16)> {
    if !file.exists() {
        return None;
    }
    covers(read_certificates(file).ok()?.first()?, domains)
}

/// Like [`covered_by`], for a certificate in memory.
pub(super) fn covers(
    certificate: &CertificateDer<'_>,
    domains: &[String],
) -> Option<(Validity, u16)> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    for domain in domains {
        let name = ServerName::try_from(domain.as_str()).ok()?;
        verify_server_name(&parsed, &name).ok()?;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let drawn = digest.as_ref().iter().take(2).fold(0_u16, |sum, byte| sum << 8 | u16::from(*byte));
    Some((x509::validity(certificate)?, drawn % 1000))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;
    use crate::certificate::self_signed::self_signed;

    fn storage(test: &str) -> (Storage, PathBuf) {
        let name = format!("vestnik-acme-storage-{}-{test}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).unwrap();
        let acme = Acme {
            domains: vec!["chat.example".to_owned()],
            directory: "https://localhost:14000/dir".to_owned(),
            contact: None,
            ca: None,
        };
        (Storage::new(&root.join("vestnik.db"), &acme), root)
    }

    #[test]
    fn what_is_kept_is_read_back_and_private() {
        let (storage, root) = storage("kept");
        assert!(storage.pair().ends_with("vestnik.db.acme/localhost_14000_dir/chat.example.pem"));
        let acme = Acme {
            domains: vec!["chat.example".to_owned()],
            directory: "https://..".to_owned(),
            contact: None,
            ca: None,
        };
        let odd = Storage::new(Path::new("vestnik.db"), &acme);
        assert_eq!(odd.pair(), Path::new("vestnik.db.acme/chat.example.pem"));
        storage.prepare().unwrap();
        storage.prepare().unwrap();
        let token = storage.account_key().unwrap().key_authorization("t");
        assert_eq!(storage.account_key().unwrap().key_authorization("t"), token);
        let domains = ["chat.example".to_owned()];
        let order = StoredOrder::new("https://localhost:14000/o".to_owned(), &domains, b"key");
        storage.keep_order(&order).unwrap();
        assert_eq!(storage.order(&domains), Some(order));
        assert_eq!(storage.order(&domains).unwrap().key().unwrap().as_slice(), b"key");
        assert_eq!(storage.order(&["other.example".to_owned()]), None);
        storage.keep_pair("pair").unwrap();
        for entry in fs::read_dir(&storage.folder).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let mode = fs::metadata(&storage.folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        storage.forget_order();
        assert_eq!(storage.order(&domains), None);
        // A damaged key is replaced, which means a new account.
        fs::write(storage.folder.join("account.json"), "{").unwrap();
        assert_ne!(storage.account_key().unwrap().key_authorization("t"), token);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_certificate_covers_its_names() {
        let (_, root) = storage("covers");
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let (cert, key) = (root.join("cert.pem"), root.join("key.pem"));
        let made = self_signed(&names(&["a.example", "b.example"]), Duration::from_secs(1 << 31));
        made.unwrap().write(&cert, &key).unwrap();
        let (validity, drawn) = covered_by(&cert, &names(&["b.example", "a.example"])).unwrap();
        assert!(validity.not_after > validity.not_before && drawn < 1000);
        assert!(covered_by(&cert, &names(&["a.example", "c.example"])).is_none());
        assert!(covered_by(&key, &names(&["a.example"])).is_none());
        assert!(covered_by(&root.join("none"), &names(&["a.example"])).is_none());
        fs::remove_dir_all(root).unwrap();
    }
}
