//! Time that survives a restart of the agent but not of the machine.
//!
//! Owns moments that are compared across a crash: wall clocks jump, monotonic clocks of a dead process are lost. The
//! clocks themselves are read in `quiesce_runtime::clock`.

use std::{
    fs, io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use quiesce_runtime::clock::Source;
use serde::{Deserialize, Serialize};

/// A moment, comparable as long as the machine is not restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootTime {
    /// Which boot.
    pub(crate) boot_id: String,
    /// Milliseconds since that boot.
    pub(crate) ms: u64,
}

impl BootTime {
    /// This moment.
    pub(crate) fn now(clocks: &dyn Source) -> io::Result<Self> {
        Ok(Self { boot_id: clocks.boot_id()?, ms: clocks.boottime_ms() })
    }

    /// How long ago it was; `None` when the machine was restarted since.
    pub(crate) fn elapsed(&self, clocks: &dyn Source) -> io::Result<Option<Duration>> {
        let now = Self::now(clocks)?;
        Ok((now.boot_id == self.boot_id).then(|| Duration::from_millis(now.ms.saturating_sub(self.ms))))
    }
}

/// The wall clock, for people.
pub(crate) fn wall(clocks: &dyn Source) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(clocks.wall_ms())
}

/// The wall clock as RFC 3339, for people.
pub(crate) fn timestamp(clocks: &dyn Source) -> String {
    humantime::format_rfc3339_millis(wall(clocks)).to_string()
}

/// The pid namespace this process lives in. Pids mean nothing outside of theirs.
pub(crate) fn pid_namespace() -> io::Result<String> {
    Ok(fs::read_link("/proc/self/ns/pid")?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use quiesce_runtime::clock::Kernel;

    use super::*;

    #[test]
    fn time_is_comparable_within_a_boot_only() {
        let now = BootTime::now(&Kernel).unwrap();
        assert!(now.elapsed(&Kernel).unwrap().is_some());
        let other = BootTime { boot_id: "another".into(), ..now };
        assert_eq!(other.elapsed(&Kernel).unwrap(), None);
    }
}
