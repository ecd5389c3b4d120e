# Everyday commands. `.ci/run` does all of it, and more, on a machine that has nothing prepared.

# What can be done here.
default:
    @just --list --unsorted

# Format all crates.
fmt:
    cargo fmt --all

# Formatting and lints, as strict as CI.
lint:
    cargo fmt --all --check
    cargo clippy --all-targets -- -D warnings

# All tests that need nothing but Rust; arguments go to cargo, such as `just test -p quiesce-runtime clock`.
test *ARGS:
    cargo test {{ ARGS }}

# Fuzzes each target for some seconds, or some targets: `just fuzz --seconds 300 filter`; see docs/testing.md.
fuzz *ARGS:
    fuzz/run {{ ARGS }}

# Generates what the clients have of proto/, in every language. `just gen --check` says whether it is up to date.
gen *ARGS:
    clients/generate {{ ARGS }}

# Whether the contract is documented, formatted, and compatible with the released one.
contract *ARGS:
    bash -c 'source clients/toolchain && install_buf && proto/check "$buf" "$@"' contract {{ ARGS }}

# Makes the contract as it stands the released one, which later ones are compared with.
release-contract: contract (contract "--release")

# The contract as one file for grpcurl and buf curl, to go with a release; see docs/protocol.md.
descriptor-set FILE="quiesce-v1.binpb":
    cargo run --example descriptor-set {{ FILE }}

# The clients and hook kits against what `cargo build` has made: `just clients`, or `just clients python go`.
clients *ARGS:
    clients/test {{ ARGS }}

# Whether a hook keeps the rules: `just conformance --endpoint 127.0.0.1:7080`; see docs/conformance.md.
conformance *ARGS:
    cargo run -p quiesce-conformance --bin hook-conformance -- {{ ARGS }}

# Whether a scheduler keeps its promises: `just scheduler-conformance --endpoint http://127.0.0.1:7600`.
scheduler-conformance *ARGS:
    cargo run -p quiesce-conformance --bin scheduler-conformance -- {{ ARGS }}

# The API documentation; a broken link is an error.
doc:
    RUSTDOCFLAGS="-D rustdoc::broken_intra_doc_links -D rustdoc::private_intra_doc_links" cargo doc --no-deps

# How fast and how small it is, beside the limits that apply: `just bench`, `just bench --only durable --json FILE`; see
# docs/performance.md.
bench *ARGS:
    benches/run {{ ARGS }}

# Licences, bans, sources, advisories. Needs cargo-deny.
deny:
    cargo deny --workspace --all-features check

# Everything CI does, the extended suite included; as root, since it installs Debian packages that are missing.
extended:
    .ci/run

# The world in memory: `just sim SEEDS=100000` runs so many seeds, `SEED=42 just sim` tells the story of one.
sim SEEDS="10000":
    RUSTFLAGS="--cfg tokio_unstable" cargo run --profile simulation -p quiesce-simulation --example simulate -- {{ trim_start_match(SEEDS, "SEEDS=") }}

# Whole schedulers, agents and clients, connections and all: `just stack SEEDS=1000` runs seeds, `SEED=42 just stack` one.
stack SEEDS="200":
    RUSTFLAGS="--cfg tokio_unstable" SEEDS={{ trim_start_match(SEEDS, "SEEDS=") }} cargo test --profile simulation -p quiesce-simulation --test whole_stack -- --nocapture

# Every interleaving of a small protocol over the production state machine; prints bounds, states and time.
model:
    RUSTFLAGS="--cfg tokio_unstable" MODEL_KINDS=together cargo test --profile simulation -p quiesce-operation --test model -- --nocapture

# Whether the simulation would notice bugs: switches them on, one after the other.
teeth:
    RUSTFLAGS="--cfg tokio_unstable" cargo test --profile simulation -p quiesce-simulation --features mutants --test teeth -- --nocapture

# Writes docs/metrics.md anew, from the declarations of the metrics.
metrics:
    UPDATE_GOLDEN=1 cargo test -p quiesce-scheduler --lib the_page_about_metrics
