//! Certificates for one run.

use std::path::Path;

use quiesce_testkit::certificates::Authority;

/// Files of a scheduler on loopback and of those who trust it.
pub(crate) struct Files {
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Makes them in `directory`.
pub(crate) fn files(directory: &Path) -> Files {
    let authority = Authority::new();
    let pair = authority.issue(&["127.0.0.1"]).write(directory, "scheduler");
    let text = |path: &Path| path.display().to_string();
    Files {
        authority: text(&authority.write(directory, "ca.pem")),
        certificate: text(&pair.certificate),
        key: text(&pair.key),
    }
}
