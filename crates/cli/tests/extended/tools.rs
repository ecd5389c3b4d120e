//! Programs of others that the suite needs and no package of Debian brings: where they are, and how to get them.
//!
//! `.ci/run` installs them, below `$HOME/.cache/quiesce-ci`, in the versions it names. One that is missing is a failure:
//! a proof that was not made is none.

use std::path::{Path, PathBuf};

/// Says which versions.
const CI: &str = include_str!("../../../../.ci/run");

/// A Python with grpcio, grpcio-status and protobuf.
pub(crate) fn python_with_grpcio() -> PathBuf {
    let version = version("grpcio_version");
    found(
        "QUIESCE_GRPCIO_PYTHON",
        &format!("grpcio-{version}/bin/python"),
        &format!("python3 -m venv VENV && VENV/bin/pip install grpcio=={version} grpcio-status=={version}"),
    )
}

/// grpcurl, which is grpc-go.
pub(crate) fn grpcurl() -> PathBuf {
    let version = version("grpcurl_version");
    found(
        "QUIESCE_GRPCURL",
        &format!("grpcurl-{version}/grpcurl"),
        &format!("GOBIN=DIR go install github.com/fullstorydev/grpcurl/cmd/grpcurl@{version}"),
    )
}

fn version(name: &str) -> &'static str {
    let line = CI.lines().find_map(|line| line.strip_prefix("readonly ")?.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!(".ci/run says no {name}"))
}

fn found(variable: &str, place: &str, install: &str) -> PathBuf {
    let usual = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/quiesce-ci").join(place);
    let path = std::env::var_os(variable).map_or_else(usual, PathBuf::from);
    assert!(path.exists(), "there is no {}: {install}, and say where it is with {variable}", path.display());
    path
}
