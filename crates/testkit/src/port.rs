//! Ports for programs that cannot be told to choose one themselves.
//!
//! What we write binds port 0 and says what it got. Redis and the like want a number beforehand, and a number that was
//! free a moment ago may be somebody else's by the time they bind it. So numbers are claimed: they lie below the range
//! from which the kernel serves port 0, and an abstract unix socket per number keeps other tests, in this process and
//! others, from handing it out as well.

use std::fs;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Below `net.ipv4.ip_local_port_range`, which begins at 32768, and above what services use by default.
const CLAIMABLE: Range<u16> = 20_000..32_000;

/// A TCP port on loopback that nobody else uses; claimed until dropped.
#[derive(Debug)]
pub struct FreePort {
    number: u16,
    _claim: UnixListener,
}

impl FreePort {
    /// Claims a port. Keep the value for as long as the port is in use.
    pub fn claim() -> Self {
        // Test processes begin their search at different places; the claim alone decides.
        let span = u32::from(CLAIMABLE.end - CLAIMABLE.start);
        let first = std::process::id().wrapping_mul(61) % span;
        (0..span)
            .map(|step| CLAIMABLE.start + u16::try_from((first + step) % span).expect("the span is below u16::MAX"))
            .find_map(Self::try_claim)
            .expect("no port between 20000 and 32000 is free")
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn try_claim(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("quiesce-testkit-port-{number}"))
            .expect("a short name without NUL is a valid abstract address");
        // A failure means that somebody has it, which is the question asked.
        let claim = UnixListener::bind_addr(&name).ok()?;
        (!is_bound(number)).then_some(Self { number, _claim: claim })
    }
}

/// Whether some socket has the port. Looked up and not tried out: a socket bound for a moment would be inherited by a
/// process that another test forks in that very moment, and be in the way until that has executed its program.
fn is_bound(number: u16) -> bool {
    let port = format!(":{number:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        // Without IPv6 there is no second table, and nobody in it.
        let sockets = fs::read_to_string(table).unwrap_or_default();
        sockets.lines().any(|socket| socket.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&port)))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn claimed_ports_differ_and_can_be_bound() {
        let ports = [FreePort::claim(), FreePort::claim(), FreePort::claim()];
        let listeners = ports.each_ref().map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap());
        assert_eq!(listeners.len(), 3);
    }

    #[test]
    fn a_port_that_is_bound_by_somebody_else_is_not_claimed() {
        let port = FreePort::claim();
        let number = port.number();
        let _other = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        assert!(FreePort::try_claim(number).is_none(), "claimed twice");
        drop(port);
        assert!(FreePort::try_claim(number).is_none(), "claimed although it is bound");
    }
}
