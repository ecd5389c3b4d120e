//! Versions of the files of the state directory.
//!
//! Every file begins with knowing its format: a later one need not look like ours, so the format is read before anything
//! else, and a file that a newer agent wrote is left to it. What else is in a file is its owner's business.

use serde::Deserialize;

/// The format a file says it has, whatever the rest of it looks like.
pub(crate) fn of(content: &[u8]) -> serde_json::Result<u32> {
    /// What every format has.
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    serde_json::from_slice(content).map(|Head { format }| format)
}
