//! What a certificate says, for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::files::{LoadError, NamedFile, certificates_of};
use super::identity::PeerIdentity;

/// A certificate in a file. Nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it is about, as a distinguished name.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Its subject alternative names as `DNS:name`, `URI:name`, `IP:address`; others are left out.
    pub names: Vec<String>,
    /// Whom a scheduler takes its holder for, see [`PeerIdentity`].
    pub identity: Option<PeerIdentity>,
    /// Good from then on.
    pub from: SystemTime,
    /// Until then.
    pub until: SystemTime,
    /// Whether it may sign others.
    pub is_authority: bool,
}

impl Certificate {
    /// Every certificate in `file`, one at least.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is no certificate.
    pub fn all_in(file: &NamedFile) -> Result<Vec<Self>, LoadError> {
        certificates_of(file)?
            .iter()
            .map(|der| {
                let problem = "it is not X.509".to_owned();
                Self::read(der).ok_or_else(|| LoadError::Certificate { file: file.clone(), problem })
            })
            .collect()
    }

    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok()?;
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(shown).collect();
        let validity = certificate.validity();
        Some(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            names,
            identity: PeerIdentity::of(der),
            from: time(validity.not_before.timestamp())?,
            until: time(validity.not_after.timestamp())?,
            is_authority: certificate.is_ca(),
        })
    }
}

fn shown(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{name}")),
        GeneralName::URI(uri) => Some(format!("URI:{uri}")),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from)).ok()?;
            Some(format!("IP:{address}"))
        }
        _ => None,
    }
}

/// None before 1970, of which there is no use.
pub(super) fn time(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}
