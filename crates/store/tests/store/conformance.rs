//! Every backend of this crate passes the suite.

use std::sync::Arc;

use quiesce_store::Store;
use quiesce_store::conformance::Subject;
use quiesce_store::embedded::{EmbeddedStore, Options};
use quiesce_store::memory::MemoryStore;
use tempfile::TempDir;
use uuid::Uuid;

/// The memory of one store, which is there for as long as the process.
struct Memory(MemoryStore);

impl Subject for Memory {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }
}

/// A data directory of its own.
struct Embedded(TempDir);

impl Subject for Embedded {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(EmbeddedStore::open(self.0.path(), &Options::new(Uuid::new_v4())).unwrap())
    }
}

mod memory {
    quiesce_store::conformance_tests!(super::Memory(super::MemoryStore::new(super::Uuid::new_v4())));
}

mod embedded {
    quiesce_store::conformance_tests!(super::Embedded(tempfile::tempdir().unwrap()));
}
