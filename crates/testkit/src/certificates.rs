//! A CA of a test's own, and what it signs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};

/// Certificates of tests are good from this year on.
const FIRST_YEAR: i32 = 2000;
/// And until this one, unless a test wants an expired one.
const LAST_YEAR: i32 = 4000;

/// A CA. Two of them have the same name and different keys, as after making one anew.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key.
pub struct Issued {
    certificate: String,
    key: String,
}

/// Where they were written.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key, for its owner alone.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "no two of them are the same")]
    pub fn new() -> Self {
        let mut params = params(&[], LAST_YEAR);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "a test's CA");
        let key = KeyPair::generate().expect("keys can be made");
        let pem = params.self_signed(&key).expect("certificates can be signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate as a file in `directory`.
    pub fn write(&self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, &self.pem).expect("the file can be written");
        path
    }

    /// A certificate for `names`: URIs, IP addresses, DNS names. Good for servers and clients.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_until(names, LAST_YEAR)
    }

    /// The same, good until the beginning of `year`.
    #[must_use]
    pub fn issue_until(&self, names: &[&str], year: i32) -> Issued {
        let mut params = params(names, year);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, "a test's certificate");
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("certificates can be signed").pem();
        Issued { certificate, key: key.serialize_pem() }
    }
}

impl Issued {
    /// Writes both to `directory`, in place of what is there: `NAME.pem` and `NAME.key`.
    pub fn write(&self, directory: &Path, name: &str) -> Pair {
        let pair =
            Pair { certificate: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) };
        self.write_certificate(&pair);
        self.write_key(&pair);
        pair
    }

    /// Half of [`Issued::write`].
    pub fn write_certificate(&self, pair: &Pair) {
        fs::write(&pair.certificate, &self.certificate).expect("the certificate can be written");
    }

    /// The other half.
    pub fn write_key(&self, pair: &Pair) {
        fs::write(&pair.key, &self.key).expect("the key can be written");
        fs::set_permissions(&pair.key, Permissions::from_mode(0o600)).expect("its mode can be set");
    }
}

fn params(names: &[&str], year: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(FIRST_YEAR, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    let name = |name: &&str| match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) if name.contains("://") => SanType::URI((*name).try_into().expect("a URI is ASCII")),
        Err(_) => SanType::DnsName((*name).try_into().expect("a DNS name is ASCII")),
    };
    params.subject_alt_names = names.iter().map(name).collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}
