//! Generates the Rust types of the contract from `proto/` with protox, so that no protoc is needed anywhere.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;

const PROTOS: &[&str] = &[
    "proto/quiesce/v1/access.proto",
    "proto/quiesce/v1/agent_gateway.proto",
    "proto/quiesce/v1/errors.proto",
    "proto/quiesce/v1/scheduler.proto",
    "proto/quiesce/v1/shutdown_hook.proto",
    "proto/quiesce/v1/types.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    // protox keeps the comments (source info), so that reflection and the golden rendering can show them.
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("quiesce_v1_descriptor_set.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(cfg!(feature = "client"))
        .build_server(cfg!(feature = "server"))
        .compile_fds(descriptors)?;
    Ok(())
}
