//! The generated contract of Quiesce, and nothing else.
//!
//! The specification is the text of `proto/quiesce/v1/*.proto`; this crate adds no behaviour. Feature `client` adds the
//! generated clients, `server` the generated server traits; with neither the crate holds the messages only.

#[cfg(any(feature = "client", feature = "server"))]
pub mod codec;

/// Package `quiesce.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the proto comments are its documentation"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/quiesce.v1.rs"));
    // `Debug` of the messages that carry secrets, without these.
    include!(concat!(env!("OUT_DIR"), "/quiesce.v1.debug.rs"));
}

/// The encoded `google.protobuf.FileDescriptorSet` of package `quiesce.v1` and its imports, comments included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quiesce_v1_descriptor_set.bin"));

/// `google.rpc.ErrorInfo.domain` of every error of the contract.
pub const ERROR_DOMAIN: &str = "quiesce.v1";

#[cfg(test)]
mod tests;
