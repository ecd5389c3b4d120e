//! The way to the scheduler: its address, its name, its port, and who is at the other end.

use std::net::IpAddr;
use std::time::SystemTime;

use quiesce_runtime::machine::{Machine, Socket};
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{ConnectError, Inspected, answers_in_tls};
use tokio::time::timeout;

use super::Report;
use crate::client::{CONNECT_TIMEOUT, PROTOCOL, Place, Target};

/// Goes the way; whether it leads to somebody.
pub(crate) async fn check(target: &Target, now: SystemTime, report: &mut Report) -> bool {
    let place = match target.place() {
        Ok(place) => place,
        Err(error) => {
            report.error("address", &error);
            return false;
        }
    };
    let Some(is_loopback) = resolve(&place, report).await else { return false };
    let Some(socket) = connect(&place, report).await else { return false };
    if place.tls {
        in_tls(target, &place, socket, now, report).await
    } else {
        plain(&place, socket, is_loopback, report).await
    }
}

/// Whether all that the name stands for is this machine; none if it stands for nothing.
async fn resolve(place: &Place, report: &mut Report) -> Option<bool> {
    let bare = place.host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(address.is_loopback());
    }
    let found = match timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(&place.address)).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect::<Vec<_>>(),
        Ok(Err(error)) => {
            let next = format!("correct the name in --scheduler or QUIESCE_SCHEDULER; look: getent hosts {bare}");
            report.problem("name", format!("{bare} cannot be resolved: {error}"), next);
            return None;
        }
        Err(_) => {
            let what = format!("the name servers do not answer for {bare}");
            report.problem("name", what, format!("look: getent hosts {bare}; cat /etc/resolv.conf"));
            return None;
        }
    };
    let shown: Vec<_> = found.iter().map(IpAddr::to_string).collect();
    report.ok("name", format!("{bare} is {}", shown.join(", ")));
    Some(!found.is_empty() && found.iter().all(IpAddr::is_loopback))
}

async fn connect(place: &Place, report: &mut Report) -> Option<Box<dyn Socket>> {
    let Place { address, .. } = place;
    let machine = Machine::local();
    match timeout(CONNECT_TIMEOUT, machine.network.connect(address, None)).await {
        Ok(Ok(socket)) => {
            report.ok("port", format!("{address} accepts connections"));
            Some(socket)
        }
        Ok(Err(error)) => {
            let next = "start one with `quiesce scheduler`, or set --scheduler or QUIESCE_SCHEDULER";
            report.problem("port", format!("nobody listens at {address}: {error}"), next);
            None
        }
        Err(_) => {
            let what = format!("no answer from {address} within {} s", CONNECT_TIMEOUT.as_secs());
            report.problem("port", what, "is the host up, and does a firewall let you through?");
            None
        }
    }
}

async fn plain(place: &Place, socket: Box<dyn Socket>, is_loopback: bool, report: &mut Report) -> bool {
    let address = &place.address;
    if Box::pin(answers_in_tls(socket)).await {
        let next = format!("write https://{address}, and name its CA with --ca");
        report.problem("tls", format!("what listens at {address} speaks TLS, and was asked without"), next);
        return false;
    }
    if is_loopback {
        report.ok("tls", "none, and none is needed on loopback");
    } else {
        let what = format!("none: whoever is on the way to {address} reads tokens and can change what is asked for");
        let next =
            format!("make certificates (quiesce pki init pki; quiesce pki issue pki {}) and use https://", place.host);
        report.warning("tls", what, next);
    }
    true
}

async fn in_tls(target: &Target, place: &Place, socket: Box<dyn Socket>, now: SystemTime, report: &mut Report) -> bool {
    let connector = match target.connector() {
        Ok(connector) => connector,
        Err(error) => {
            report.error("tls", &error);
            return false;
        }
    };
    let Inspected { certificates, speaks } = match Box::pin(connector.inspect(socket, &place.host, PROTOCOL)).await {
        Ok(inspected) => inspected,
        Err(error) => {
            report.problem("tls", chain(&error).to_string(), advice(&error, place));
            return false;
        }
    };
    if let Some(own) = certificates.first() {
        let whose = format!("the certificate of {}", place.host);
        let renew =
            format!("give the scheduler a new one: quiesce pki issue DIR {}; it takes it up by itself", place.host);
        report.validity("tls", &whose, own, now, &renew);
    }
    if !speaks {
        let next = "let what ends TLS on the way pass it through, or offer h2";
        report.warning("tls", "the other end does not say that it speaks HTTP/2 (ALPN)", next);
    }
    true
}

/// What to do, where the error itself says what is wrong only, or says it in passing.
fn advice(error: &ConnectError, place: &Place) -> String {
    let Place { host, address, .. } = place;
    match error {
        ConnectError::NotTls { .. } => format!("write http://{address}, or the port that speaks TLS"),
        ConnectError::Expired { .. } => {
            format!("give the scheduler a new one: quiesce pki issue DIR {host}; it takes it up by itself")
        }
        ConnectError::NotYetValid { .. } => "compare the clocks: date -u, here and there".to_owned(),
        ConnectError::UnknownAuthority { setting, .. } => {
            format!("name the CA that has signed it: {setting} FILE; what is in a file: quiesce pki show FILE")
        }
        ConnectError::WrongName { .. } => {
            format!("use a name it is for, or give the scheduler one for {host}: quiesce pki issue DIR {host}")
        }
        ConnectError::CertificateRequired { certificate, key, .. } => {
            format!("show a certificate: {certificate} FILE {key} FILE")
        }
        ConnectError::Refused { .. } => {
            "get a new one: quiesce pki issue, by the CA that the scheduler trusts".to_owned()
        }
        ConnectError::Protocol { .. } => format!("is {address} the port of the scheduler?"),
        ConnectError::Slow { .. }
        | ConnectError::Name { .. }
        | ConnectError::Certificate { .. }
        | ConnectError::Failed { .. }
        | ConnectError::Broken { .. } => format!("what does it say: openssl s_client -connect {address}"),
    }
}
