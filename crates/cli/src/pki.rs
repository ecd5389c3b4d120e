//! A CA in a directory, for installations that have none: made once, and asked for certificates.
//!
//! Owns what stands in the certificates, and the files. Keys are P-256, which every TLS library takes. It is no service:
//! nothing is revoked, certificates are short-lived instead.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use quiesce_agent::identity::Identity;
use quiesce_runtime::clock::wall_now;
use quiesce_runtime::{durable, secret_file};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// Certificates are good from a little before they are made, for machines whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(5 * 60);
/// The longest certificate: to the end of a century nobody here will see. Beyond it dates take another form.
const LAST_YEAR: i32 = 2100;
/// Longest name: that of a certificate's common name (RFC 5280, ub-common-name).
const NAME_MAX: usize = 64;
/// Longest file that is read here; keys and certificates have a few hundred bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PkiError {
    #[error("there is a CA in {} already, and it stays", .0.display())]
    Exists(PathBuf),
    #[error("of the CA in {} there is only one of ca.pem and ca.key", .0.display())]
    Half(PathBuf),
    #[error("there is no CA in {}", .0.display())]
    NoAuthority(PathBuf),
    #[error("cannot use the CA in {}", directory.display())]
    Authority { directory: PathBuf, source: rcgen::Error },
    #[error(transparent)]
    Key(#[from] secret_file::ReadError),
    #[error("{name:?} is no name for a certificate: {why}")]
    Name { name: String, why: String },
    #[error("the certificate cannot be made")]
    Make(#[source] rcgen::Error),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// A certificate and its key, as files.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Files {
    fn called(directory: &Path, stem: &str) -> Self {
        Self { certificate: directory.join(format!("{stem}.pem")), key: directory.join(format!("{stem}.key")) }
    }

    fn are_there(&self, directory: &Path) -> Result<bool, PkiError> {
        match (self.certificate.exists(), self.key.exists()) {
            (both, other) if both == other => Ok(both),
            (_, _) => Err(PkiError::Half(directory.to_owned())),
        }
    }

    /// Of the CA in `directory`.
    pub(crate) fn of_authority(directory: &Path) -> Self {
        Self::called(directory, "ca")
    }
}

/// Makes a CA.
pub(crate) fn init(directory: &Path, name: &str, lifetime: Duration) -> Result<Files, PkiError> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(wrong_name(name, format!("1 to {NAME_MAX} bytes")));
    }
    let files = Files::of_authority(directory);
    if files.are_there(directory)? {
        return Err(PkiError::Exists(directory.to_owned()));
    }
    let mut params = params(name, lifetime);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(PkiError::Make)?;
    let certificate = params.self_signed(&key).map_err(PkiError::Make)?;
    let unwritten = |path: &Path| {
        let path = path.to_owned();
        move |source| PkiError::Write { path, source }
    };
    fs::create_dir_all(directory).map_err(unwritten(directory))?;
    // The key first: a certificate without it would look like a CA.
    durable::create(&files.key, key.serialize_pem().as_bytes()).map_err(unwritten(&files.key))?;
    durable::create(&files.certificate, certificate.pem().as_bytes()).map_err(unwritten(&files.certificate))?;
    Ok(files)
}

/// Makes a certificate for `names`, in place of one of the same first name.
pub(crate) fn issue(directory: &Path, names: &[String], lifetime: Duration) -> Result<Files, PkiError> {
    let kinds = names.iter().map(|name| kind(name)).collect::<Result<Vec<_>, _>>()?;
    if kinds.iter().filter(|kind| matches!(kind, SanType::URI(_))).count() > 1 {
        return Err(wrong_name(&names.join(" "), "a certificate with two URIs names nobody".to_owned()));
    }
    let first = names.first().map(String::as_str).unwrap_or_default();
    let stem = first.rsplit('/').next().unwrap_or(first).replace(':', "-");
    if stem.is_empty() || stem == "ca" || stem.starts_with('.') {
        return Err(wrong_name(first, "its last part has to do as the name of a file other than the CA's".to_owned()));
    }
    let issuer = authority(directory)?;
    let mut params = params(stem.get(..NAME_MAX).unwrap_or(&stem), lifetime);
    params.subject_alt_names = kinds;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().map_err(PkiError::Make)?;
    let certificate = params.signed_by(&key, &issuer).map_err(PkiError::Make)?;
    let files = Files::called(directory, &stem);
    // Whoever reads between the two sees that they do not go together, and keeps what it has.
    for (path, content) in [(&files.key, key.serialize_pem()), (&files.certificate, certificate.pem())] {
        durable::replace(path, content.as_bytes()).map_err(|source| PkiError::Write { path: path.clone(), source })?;
    }
    Ok(files)
}

/// The name of the agent of `text`, `APP/INSTANCE`.
pub(crate) fn agent_name(text: &str) -> Result<String, PkiError> {
    let (application, instance) =
        text.split_once('/').ok_or_else(|| wrong_name(text, "APP/INSTANCE, such as shop/shop-0".to_owned()))?;
    // Of its cluster a certificate says nothing.
    let identity = Identity::new(application, instance, "any").map_err(|error| wrong_name(text, error.to_string()))?;
    Ok(format!("spiffe://quiesce/{}", identity.instance_name()))
}

fn wrong_name(name: &str, why: String) -> PkiError {
    PkiError::Name { name: name.to_owned(), why }
}

fn kind(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let refused = |why: &str| Err(wrong_name(name, why.to_owned()));
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refused("it has to be ASCII, without spaces");
    }
    let Ok(text) = name.try_into() else { return refused("it has to be ASCII") };
    if name.contains("://") {
        return Ok(SanType::URI(text));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if name.len() > 253 || !name.strip_prefix("*.").unwrap_or(name).split('.').all(label) {
        return refused("it is neither a DNS name, nor an IP address, nor a URI");
    }
    Ok(SanType::DnsName(text))
}

fn params(name: &str, lifetime: Duration) -> CertificateParams {
    let now = wall_now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    let last = date_time_ymd(LAST_YEAR, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = (epoch + now.saturating_add(lifetime)).min(last);
    params
}

fn authority(directory: &Path) -> Result<Issuer<'static, KeyPair>, PkiError> {
    let files = Files::of_authority(directory);
    if !files.are_there(directory)? {
        return Err(PkiError::NoAuthority(directory.to_owned()));
    }
    let key = text(&files.key, secret_file::open(&files.key)?.0)?;
    let opened = fs::File::open(&files.certificate);
    let opened = opened.map_err(|source| PkiError::Read { path: files.certificate.clone(), source })?;
    let certificate = text(&files.certificate, opened)?;
    let unusable = |source| PkiError::Authority { directory: directory.to_owned(), source };
    let key = KeyPair::from_pem(&key).map_err(unusable)?;
    Issuer::from_ca_cert_pem(&certificate, key).map_err(unusable)
}

fn text(path: &Path, file: fs::File) -> Result<String, PkiError> {
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|source| PkiError::Read { path: path.to_owned(), source })?;
    Ok(text)
}
