//! The contract as it was compiled: its files, services, comments, reasons.

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, FileDescriptor};
use quiesce_protocol::FILE_DESCRIPTOR_SET;

/// The package of everything in the contract.
pub(crate) const PACKAGE: &str = "quiesce.v1";

// Field numbers of descriptor.proto, of which source locations are made.
pub(crate) const MESSAGE: i32 = 4;
pub(crate) const ENUM: i32 = 5;
pub(crate) const SERVICE: i32 = 6;
pub(crate) const METHOD: i32 = 2;
pub(crate) const FIELD: i32 = 2;
pub(crate) const NESTED_MESSAGE: i32 = 3;
pub(crate) const NESTED_ENUM: i32 = 4;
pub(crate) const VALUE: i32 = 2;

pub(crate) fn pool() -> DescriptorPool {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build has checked it")
}

pub(crate) fn files(pool: &DescriptorPool) -> Vec<FileDescriptor> {
    pool.files().filter(|file| file.package_name() == PACKAGE).collect()
}

pub(crate) fn services(pool: &DescriptorPool) -> Vec<prost_reflect::ServiceDescriptor> {
    pool.services().filter(|service| service.package_name() == PACKAGE).collect()
}

/// The comments of a file by the path of what they stand at.
pub(crate) struct Comments(BTreeMap<Vec<i32>, String>);

impl Comments {
    pub(crate) fn of(file: &FileDescriptor) -> Self {
        let proto = file.file_descriptor_proto();
        let locations = proto.source_code_info.as_ref().map(|info| info.location.as_slice()).unwrap_or_default();
        Self(locations.iter().map(|at| (at.path.clone(), at.leading_comments().trim().to_owned())).collect())
    }

    pub(crate) fn leading(&self, path: &[i32]) -> &str {
        self.0.get(path).map(String::as_str).unwrap_or_default()
    }
}

/// The reasons as they stand in ErrorInfo, each with its comment.
pub(crate) fn reasons(pool: &DescriptorPool) -> BTreeMap<String, String> {
    let reasons = pool.get_enum_by_name("quiesce.v1.ErrorReason").expect("the contract has it");
    let comments = Comments::of(&reasons.parent_file());
    // In the order of the file, which source locations count in; the descriptor's own order is by number.
    let values = (0..).zip(&reasons.enum_descriptor_proto().value).filter(|(_, value)| value.number() != 0);
    values
        .map(|(index, value)| {
            let reason = value.name().strip_prefix("ERROR_REASON_").expect("buf lint sees to the prefix");
            (reason.to_owned(), comments.leading(&[reasons.path(), &[VALUE, index]].concat()).to_owned())
        })
        .collect()
}

/// The code a reason's comment begins with.
pub(crate) fn first_word(comment: &str) -> &str {
    comment.split([',', ' ', '\n']).next().unwrap_or_default()
}
