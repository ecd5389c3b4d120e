//! Programs of others that the suite needs and no package of Debian brings: where they are, and how to get them.
//!
//! `.ci/run` installs them, below `$HOME/.cache/quiesce-ci`, in the versions it names. One that is missing is a failure:
//! a proof that was not made is none.

use std::path::{Path, PathBuf};

/// They say which versions.
const SAID: [&str; 2] = [include_str!("../../../../.ci/run"), include_str!("../../../../clients/toolchain")];

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

/// buf, which is connect-go.
pub(crate) fn buf() -> PathBuf {
    let version = version("buf_version");
    found(
        "QUIESCE_BUF",
        &format!("buf-{version}/node_modules/.bin/buf"),
        &format!("npm install --prefix DIR @bufbuild/buf@{version}"),
    )
}

/// An example of the workspace, which the step "tests" of `.ci/run` builds along.
pub(crate) fn example(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let example = program.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(example.exists(), "build it first: cargo build --example {name}");
    example
}

fn version(name: &str) -> &'static str {
    let mut lines = SAID.iter().flat_map(|text| text.lines());
    let line = lines.find_map(|line| line.strip_prefix("readonly ")?.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("neither .ci/run nor clients/toolchain says {name}"))
}

fn found(variable: &str, place: &str, install: &str) -> PathBuf {
    let usual = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/quiesce-ci").join(place);
    let path = std::env::var_os(variable).map_or_else(usual, PathBuf::from);
    assert!(path.exists(), "there is no {}: {install}, and say where it is with {variable}", path.display());
    path
}
