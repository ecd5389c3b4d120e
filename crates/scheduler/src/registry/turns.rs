//! One at a time for each application: whoever adds, removes or admits an instance writes the application's record, and two
//! who do so at the same time are in each other's way.
//!
//! Only a means against pointless tries, within this process; what is right is decided by the preconditions of each commit,
//! as ever. A turn is never held while anything but the store is waited for.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use quiesce_operation::ApplicationId;
use tokio::sync::{Mutex, MutexGuard};

/// Applications share so many turns: few enough to cost nothing, enough that two that are busy rarely share one. If they do,
/// each waits for some commits of the other.
const TURNS: usize = 256;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Turns {
    turns: Arc<[Mutex<()>]>,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self { turns: (0..TURNS).map(|_| Mutex::new(())).collect() }
    }

    /// Waits for the turn of `application`, first come first served; it is over when the guard is dropped.
    pub(super) async fn of(&self, application: &ApplicationId) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(application.as_str());
        let place = usize::try_from(hash % TURNS as u64).unwrap_or(0);
        self.turns[place].lock().await
    }
}
