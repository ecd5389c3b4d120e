//! Writes the contract as one descriptor set, for tools that cannot or may not ask a scheduler by reflection:
//! `cargo run --example descriptor-set FILE`. Comments are in it, and the types of the details that errors carry.

use std::path::PathBuf;
use std::{env, fs};

use prost_reflect::DescriptorPool;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path: PathBuf = env::args_os().nth(1).ok_or("usage: descriptor-set FILE")?.into();
    // By its own types, which keep options that the types of prost do not know.
    let mut pool = DescriptorPool::decode(quiesce_protocol::FILE_DESCRIPTOR_SET)?;
    let details = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
    let missing = details.file.into_iter().filter(|file| pool.get_file_by_name(file.name()).is_none());
    pool.add_file_descriptor_protos(missing.collect::<Vec<_>>())?;
    fs::write(path, pool.encode_to_vec())?;
    Ok(())
}
