//! Certificates, keys and CA bundles as PEM files.
//!
//! Owns reading and checking them. Every error names the file, the setting it comes from, and the way out; none shows
//! what is in a file.

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::fresh::Validity;
use super::provider;

/// Longest file that is read: the CA bundle of a whole system has a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What nobody but its owner may do to a private key, nor the owner need to.
const KEY_MODE_FORBIDDEN: u32 = 0o177;
/// Where distributions keep the CAs they trust: Debian and Alpine, Red Hat, SUSE.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// A file, and the setting that named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// As people write it: `--tls-cert`, `tls.certificate`.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
}

impl fmt::Display for NamedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.setting)
    }
}

/// The files a program authenticates itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate, followed by those between it and the CA if there are any.
    pub certificate: NamedFile,
    /// Its private key.
    pub key: NamedFile,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not there, or not ours to read.
    #[error("cannot read {file}")]
    Read {
        /// Which.
        file: NamedFile,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Others could read the key, or could have.
    #[error("private key {file} is open to others than its owner (mode {mode:04o}): chmod 600 {}", file.path.display())]
    KeyIsOpen {
        /// Which.
        file: NamedFile,
        /// Its permissions.
        mode: u32,
    },
    /// Longer than any such file.
    #[error("{file} is longer than {FILE_BYTES_MAX} bytes and cannot be what it should be")]
    TooLong {
        /// Which.
        file: NamedFile,
    },
    /// Something else than PEM, or a damaged one.
    #[error("{file} is not a PEM file")]
    Pem {
        /// Which.
        file: NamedFile,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// PEM, but with other things in it.
    #[error("{file} has no `-----BEGIN {what}-----` in it; is it another file?")]
    Missing {
        /// Which.
        file: NamedFile,
        /// What should be there.
        what: &'static str,
    },
    /// A certificate that cannot be read or trusted.
    #[error("{file} holds a certificate that cannot be used: {problem}")]
    Certificate {
        /// Which.
        file: NamedFile,
        /// What is wrong with it.
        problem: String,
    },
    /// A key that cannot be read.
    #[error("{file} holds a private key that cannot be used; RSA, ECDSA (P-256, P-384) and Ed25519 keys can")]
    Key {
        /// Which.
        file: NamedFile,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// Each is fine, but they do not go together.
    #[error("private key {key} does not belong to certificate {certificate}; give the two that were made together")]
    Mismatch {
        /// The key.
        key: NamedFile,
        /// The certificate.
        certificate: NamedFile,
    },
    /// Nobody is trusted.
    #[error("this system has no bundle of trusted CAs, so name one with {setting}")]
    NoAuthorities {
        /// The setting that would.
        setting: &'static str,
    },
}

/// What was found in the files, unread. Neither kept nor shown.
pub(super) struct Contents {
    own: Option<(Vec<u8>, Vec<u8>)>,
    authorities: Option<Vec<u8>>,
}

impl Contents {
    pub(super) fn read(own: Option<&KeyPair>, authorities: Option<&NamedFile>) -> Result<Self, LoadError> {
        let own = own.map(|pair| Ok((read(&pair.certificate, Guard::None)?, read(&pair.key, Guard::Key)?)));
        let authorities = authorities.map(|file| read(file, Guard::None));
        Ok(Self { own: own.transpose()?, authorities: authorities.transpose()? })
    }

    /// Tells contents from others; not from contents that somebody has made up to look like these, who could have
    /// written the files as well.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.own.hash(&mut hasher);
        self.authorities.hash(&mut hasher);
        hasher.finish()
    }

    /// Certificate and key, if they belong together.
    pub(super) fn own(&self, files: &KeyPair) -> Result<Option<(Arc<CertifiedKey>, Validity)>, LoadError> {
        let Some((certificate, key)) = &self.own else { return Ok(None) };
        let unusable = |problem: String| LoadError::Certificate { file: files.certificate.clone(), problem };
        let chain = certificates(certificate, &files.certificate)?;
        let validity = validity(&chain[0]).ok_or_else(|| unusable("it is not X.509".to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| match source {
            pem::Error::NoItemsFound => LoadError::Missing { file: files.key.clone(), what: "PRIVATE KEY" },
            source => LoadError::Pem { file: files.key.clone(), source },
        })?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                LoadError::Mismatch { key: files.key.clone(), certificate: files.certificate.clone() }
            }
            rustls::Error::InvalidCertificate(problem) => unusable(problem.to_string()),
            source => LoadError::Key { file: files.key.clone(), source },
        })?;
        Ok(Some((Arc::new(certified), validity)))
    }

    /// The CAs that are trusted.
    pub(super) fn authorities(&self, file: &NamedFile) -> Result<Arc<RootCertStore>, LoadError> {
        let mut store = RootCertStore::empty();
        for certificate in certificates(self.authorities.as_deref().unwrap_or_default(), file)? {
            store
                .add(certificate)
                .map_err(|error| LoadError::Certificate { file: file.clone(), problem: error.to_string() })?;
        }
        Ok(Arc::new(store))
    }

    /// The CAs a system trusts, without those we cannot read: they are not of our choice.
    pub(super) fn parsable_authorities(&self) -> Arc<RootCertStore> {
        let mut store = RootCertStore::empty();
        let found = CertificateDer::pem_slice_iter(self.authorities.as_deref().unwrap_or_default());
        store.add_parsable_certificates(found.filter_map(Result::ok));
        Arc::new(store)
    }
}

/// Where this system keeps the CAs it trusts.
pub(super) fn system_authorities(setting: &'static str) -> Result<NamedFile, LoadError> {
    let found = SYSTEM_AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
    found.map(|path| NamedFile { setting, path: path.to_owned() }).ok_or(LoadError::NoAuthorities { setting })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    None,
    Key,
}

fn read(file: &NamedFile, guard: Guard) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::Read { file: file.clone(), source };
    let opened = File::open(&file.path).map_err(failed)?;
    // Of the opened file, not of the path: what is checked is what is read.
    let mode = opened.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if guard == Guard::Key && mode & KEY_MODE_FORBIDDEN != 0 {
        return Err(LoadError::KeyIsOpen { file: file.clone(), mode });
    }
    let mut bytes = Vec::new();
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(LoadError::TooLong { file: file.clone() });
    }
    Ok(bytes)
}

/// The certificates in a file, one at least.
pub(super) fn certificates_of(file: &NamedFile) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    certificates(&read(file, Guard::None)?, file)
}

/// At least one.
fn certificates(bytes: &[u8], file: &NamedFile) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|source| LoadError::Pem { file: file.clone(), source })?;
    if found.is_empty() {
        return Err(LoadError::Missing { file: file.clone(), what: "CERTIFICATE" });
    }
    Ok(found)
}

fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    Some(Validity { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
}
