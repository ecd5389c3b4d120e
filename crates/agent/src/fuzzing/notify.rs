//! Datagrams of an application: nothing gets out of bounds, and every line counts for itself.

use std::time::Duration;

use crate::application::SAID_MAX;
use crate::notify::{Notice, printable};

/// A day; the promise of the agent, whatever the application asks for.
const EXTEND_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// One datagram.
#[must_use]
pub fn notify(bytes: &[u8]) -> bool {
    let notice = Notice::parse(bytes);
    if let Some(status) = &notice.status {
        assert!(status.len() <= SAID_MAX, "{} bytes are kept", status.len());
        assert!(!status.chars().any(char::is_control), "what is shown can play with the terminal");
        assert_eq!(printable(status).trim(), status.trim(), "what is safe to show is shown as it is");
    }
    assert!(notice.extend.is_none_or(|extend| extend <= EXTEND_MAX));
    assert!(notice.main_pid.is_none_or(|pid| pid > 1), "init, a group or everybody");

    let lines = bytes.split(|byte| *byte == b'\n').map(Notice::parse);
    let together = lines.fold(Notice::default(), |all, line| Notice {
        ready: all.ready | line.ready,
        stopping: all.stopping | line.stopping,
        reloading: all.reloading | line.reloading,
        status: line.status.or(all.status),
        extend: line.extend.or(all.extend),
        main_pid: line.main_pid.or(all.main_pid),
        errno: line.errno.or(all.errno),
    });
    assert_eq!(notice, together, "a line that cannot be understood has changed what another said");
    notice != Notice::default()
}
