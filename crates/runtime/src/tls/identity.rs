//! Who a certificate says its holder is.

use std::fmt;
use std::time::SystemTime;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate::time;

/// Longest identity: that of a SPIFFE ID. It ends up in records and logs.
const LENGTH_MAX: usize = 2048;

/// The identity of whoever holds a certificate, as its subject alternative names have it. Only worth something once the
/// certificate was verified, as it is wherever this crate hands one out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerIdentity {
    /// The one URI of the certificate, such as `spiffe://quiesce/applications/shop/instances/shop-0`.
    Uri(String),
    /// Without any URI, its first DNS name, in lower case.
    Dns(String),
}

impl PeerIdentity {
    /// The identity in `certificate` (DER). None when it has neither URI nor DNS name, or more than one URI: two answers
    /// to "who is it" are none.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names = &certificate.subject_alternative_name().ok()??.value.general_names;
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => is_plain(uri).then(|| Self::Uri(uri.to_owned())),
            (Some(_), Some(_)) => None,
            (None, _) => names.iter().find_map(|name| match name {
                GeneralName::DNSName(name) if is_plain(name) => Some(Self::Dns(name.to_ascii_lowercase())),
                _ => None,
            }),
        }
    }

    /// When `certificate` (DER) expires; none if that cannot be read.
    pub(super) fn until(certificate: &[u8]) -> Option<SystemTime> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        time(certificate.validity().not_after.timestamp())
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Uri(text) | Self::Dns(text) => text,
        }
    }

    /// Trust domain and path of an identity in SPIFFE form: `quiesce` and `/applications/shop/instances/shop-0`.
    pub fn as_spiffe(&self) -> Option<(&str, &str)> {
        let Self::Uri(uri) = self else { return None };
        let rest = uri.strip_prefix("spiffe://")?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        (!domain.is_empty() && domain.bytes().all(allowed)).then_some((domain, path))
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Fit for records and logs as it is.
fn is_plain(text: &str) -> bool {
    (1..=LENGTH_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn identity(names: &[SanType]) -> Option<PeerIdentity> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerIdentity::of(certificate.der())
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn the_uri_comes_before_dns_names() {
        let spiffe = "spiffe://quiesce/applications/shop/instances/shop-0";
        let found = identity(&[dns("shop-0.example.net"), uri(spiffe)]).unwrap();
        assert_eq!(found, PeerIdentity::Uri(spiffe.to_owned()));
        assert_eq!(found.as_spiffe(), Some(("quiesce", "/applications/shop/instances/shop-0")));
        assert_eq!(found.to_string(), spiffe);
    }

    #[test]
    fn without_a_uri_the_first_dns_name_counts() {
        let found = identity(&[dns("Agent.example.net"), dns("other")]).unwrap();
        assert_eq!(found, PeerIdentity::Dns("agent.example.net".to_owned()));
        assert_eq!(found.as_spiffe(), None);
    }

    #[test]
    fn what_is_ambiguous_or_not_fit_for_a_log_is_no_identity() {
        assert_eq!(identity(&[uri("spiffe://a/b"), uri("spiffe://a/c")]), None);
        assert_eq!(identity(&[uri("spiffe://a/b\u{7}")]), None);
        assert_eq!(identity(&[uri(&format!("spiffe://a/{}", "b".repeat(LENGTH_MAX)))]), None);
        assert_eq!(identity(&[SanType::IpAddress([127, 0, 0, 1].into())]), None);
        assert_eq!(identity(&[]), None);
        assert_eq!(PeerIdentity::of(b"no certificate"), None);
    }

    #[test]
    fn only_a_proper_trust_domain_is_spiffe() {
        for wrong in ["spiffe:///path", "spiffe://UPPER/path", "spiffe://user@host/path", "https://host/path"] {
            assert_eq!(PeerIdentity::Uri(wrong.to_owned()).as_spiffe(), None, "{wrong}");
        }
    }
}
