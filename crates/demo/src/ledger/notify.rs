//! The application's side of the sd_notify protocol: one datagram of `NAME=value` lines at a time to `NOTIFY_SOCKET`.
//!
//! Best effort by nature: nobody may listen, and nothing here may keep the application from its work.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::debug;

/// A listener reads at once; one that does not must not hold up a save. The call blocks for this long at most.
const SEND_TIME_MAX: Duration = Duration::from_millis(200);

/// Tells whoever supervises the application how it is; silent if nobody asked.
#[derive(Debug)]
pub(super) struct Notifier {
    target: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// A notifier for the value of `NOTIFY_SOCKET`: a path, or `@` and an abstract name.
    pub(super) fn new(notify_socket: Option<&OsStr>) -> io::Result<Self> {
        let Some(name) = notify_socket else { return Ok(Self { target: None }) };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        // Not connected: the listener may be replaced under the same name while we live.
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIME_MAX))?;
        Ok(Self { target: Some((socket, address)) })
    }

    /// `STATUS=`: what the application is doing, for people.
    pub(super) fn status(&self, status: &str) {
        self.send(None, status);
    }

    /// `READY=1`: it serves.
    pub(super) fn ready(&self, status: &str) {
        self.send(Some("READY=1"), status);
    }

    /// `STOPPING=1`: it heard the request and is on its way down.
    pub(super) fn stopping(&self, status: &str) {
        self.send(Some("STOPPING=1"), status);
    }

    /// `EXTEND_TIMEOUT_USEC=`: it goes on, and needs at least this long from now.
    pub(super) fn extend(&self, time: Duration, status: &str) {
        self.send(Some(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros())), status);
    }

    fn send(&self, event: Option<&str>, status: &str) {
        let Some((socket, address)) = &self.target else { return };
        // A line break in an error's text would read as an assignment of its own.
        let status = format!("STATUS={}", status.replace('\n', " "));
        let message = event.map_or_else(|| status.clone(), |event| format!("{event}\n{status}"));
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            debug!(%error, "nobody took the notification");
        }
    }
}
