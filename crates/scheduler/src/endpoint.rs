//! Where a hook listens, as it is registered: in the clear, in TLS, or on a unix socket.
//!
//! Owns the forms and what they say about who could listen in. It connects to nothing.

use std::net::{IpAddr, Ipv6Addr};

/// What an endpoint that is called in TLS begins with.
const SECURE: &str = "https://";
/// What one on this machine begins with.
const UNIX: &str = "unix:";

/// Where a hook listens. Whether anybody does shows later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint<'a> {
    /// `unix:/absolute/path`; the path.
    Unix(&'a str),
    /// `host:port` or `[v6]:port`, in the clear.
    Plain(&'a str),
    /// `https://` before the same, without that.
    Secure(&'a str),
}

impl<'a> Endpoint<'a> {
    /// The endpoint in `text`, if it is one.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        if let Some(path) = text.strip_prefix(UNIX) {
            let fits = path.starts_with('/') && path.len() > 1 && !path.contains(char::is_control);
            return fits.then_some(Self::Unix(path));
        }
        match text.strip_prefix(SECURE) {
            Some(authority) => is_authority(authority).then_some(Self::Secure(authority)),
            None => is_authority(text).then_some(Self::Plain(text)),
        }
    }

    /// Whether nobody on a network can read what is said there: it is encrypted, or goes over none.
    pub(crate) fn is_private(self) -> bool {
        match self {
            Self::Unix(_) | Self::Secure(_) => true,
            Self::Plain(authority) => is_loopback(host_of(authority)),
        }
    }
}

/// Name or address in `host:port`; that of IPv6 without its brackets.
pub(crate) fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Names other than `localhost` lead wherever somebody else says.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether it is `host:port` or `[v6]:port`.
pub(crate) fn is_authority(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return false;
    }
    match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_no_scheme_but_unix_and_https() {
        let authorities = ["10.0.0.7:7080", "localhost:1", "db-0.svc:65535", "[::1]:80"];
        for authority in authorities {
            assert_eq!(Endpoint::parse(authority), Some(Endpoint::Plain(authority)));
            assert_eq!(Endpoint::parse(&format!("https://{authority}")), Some(Endpoint::Secure(authority)));
        }
        assert_eq!(Endpoint::parse("unix:/run/hook.sock"), Some(Endpoint::Unix("/run/hook.sock")));
        for bad in [
            "",
            "host",
            "host:0",
            "host:65536",
            "http://host:80",
            "https://",
            "https://host",
            "https://host:80/path",
            "https://user@host:80",
            "https://unix:/run/hook.sock",
            "HTTPS://host:80",
            "::1:80",
            "unix:hook",
            "unix:/",
            ":80",
            "a b:1",
            "unix:/a\nb",
        ] {
            assert_eq!(Endpoint::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_loopback_is_private_without_tls() {
        for private in
            ["127.0.0.1:80", "127.8.8.8:80", "[::1]:80", "localhost:80", "unix:/run/hook.sock", "https://10.0.0.7:80"]
        {
            assert!(Endpoint::parse(private).unwrap().is_private(), "{private}");
        }
        // The last two may lead to this machine, but other programs may take them for something else.
        for open in ["10.0.0.7:80", "[2001:db8::1]:80", "db-0:80", "127.0.0.1.example.net:80", "0.0.0.0:80", "127.1:80"]
        {
            assert!(!Endpoint::parse(open).unwrap().is_private(), "{open}");
        }
    }

    #[test]
    fn a_host_is_what_a_certificate_is_for() {
        for (authority, host) in [("db-0:80", "db-0"), ("10.0.0.7:80", "10.0.0.7"), ("[::1]:80", "::1")] {
            assert_eq!(host_of(authority), host);
        }
    }
}
