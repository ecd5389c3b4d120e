//! Recovery: what to take up after a restart. The plan is pure; carrying it out is spawning tasks.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use quiesce_operation::{ApplicationId, OperationId};
use quiesce_store::{SCAN_MAX, Scan, Space};
use tracing::{error, info};

use quiesce_mutation::{Mutant, active};

use super::actor::Entry;
use super::{Handle, Snapshot};
use crate::records::{self, LoadError, OperationRecord};

/// Most operations that are taken up again at the same time. Together with [`SPACING`] it bounds what a restart throws at
/// the network and at those who have to answer: some three thousand calls a second, so that five thousand operations are
/// back within two seconds.
pub(super) const AT_ONCE: usize = 64;
/// How long an operation that was taken up keeps its place.
pub(super) const SPACING: Duration = Duration::from_millis(20);

/// What is to be done after a restart, in the order of the operations' ids, which is that of their acceptance.
#[derive(Debug, Default)]
pub struct Plan {
    /// Operations to take up.
    pub resume: Vec<Snapshot>,
    /// Records that cannot be taken up. Each blocks its own application and nothing else.
    pub refused: Vec<Refused>,
}

/// A record that cannot be taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it is.
    pub key: String,
    /// Why not.
    pub reason: String,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the operations in the store")]
pub struct RecoverError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// One record of the store, readable or not.
pub(super) struct Found {
    pub(super) key: String,
    pub(super) operation: Result<Snapshot, String>,
}

impl Plan {
    /// The plan for what was found in the store, in the order of the keys.
    pub(super) fn of(found: impl IntoIterator<Item = Found>) -> Self {
        let mut plan = Self::default();
        let mut holders: BTreeMap<ApplicationId, OperationId> = BTreeMap::new();
        for Found { key, operation } in found {
            let judged = operation.and_then(|stored| {
                stored.operation.validate().map_err(|error| error.to_string())?;
                let application = &stored.operation.request().application;
                if let Some(holder) = holders.get(application).filter(|_| !stored.operation.is_done()) {
                    return Err(format!("{application} is held by {holder}, which is open as well"));
                }
                Ok(stored)
            });
            match judged {
                Ok(stored) if stored.operation.is_done() => {}
                Ok(stored) => {
                    holders.insert(stored.operation.request().application.clone(), stored.operation.id().clone());
                    plan.resume.push(stored);
                }
                Err(reason) => plan.refused.push(Refused { key, reason }),
            }
        }
        plan
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Snapshot { operation, revision } in &self.resume {
            let (id, request, state) = (operation.id(), operation.request(), operation.state().as_str());
            writeln!(f, "resume {id} of {} at revision {revision}: {state}", request.application)?;
        }
        for Refused { key, reason } in &self.refused {
            writeln!(f, "refuse {key}: {reason}")?;
        }
        Ok(())
    }
}

impl Handle {
    /// Takes up every open operation in the store. To be called once, when every registered instance has been made
    /// known to [`crate::hooks::Hooks`] and before requests are served. Returns what was planned.
    pub async fn recover(&self) -> Result<Plan, RecoverError> {
        let plan = self.plan().await.map_err(|error| RecoverError(Box::new(error)))?;
        for refused in &plan.refused {
            self.context.health.fail();
            error!(key = refused.key, reason = refused.reason, "stored operation cannot be taken up");
        }
        for stored in &plan.resume {
            if active(Mutant::OperationForgotten) {
                continue;
            }
            self.take_up(stored.clone(), Entry::Recovered);
        }
        info!(resumed = plan.resume.len(), refused = plan.refused.len(), "open operations taken up");
        Ok(plan)
    }

    /// Reads every operation, page by page; the finished ones are let go of at once.
    async fn plan(&self) -> Result<Plan, LoadError> {
        let mut found = Vec::new();
        let mut scan = Scan::all(Space::Operations);
        loop {
            let page = self.context.store.scan(scan.clone()).await.map_err(LoadError::Read)?;
            for entry in &page {
                let operation = match records::from_entry::<OperationRecord>(entry) {
                    Ok(stored) if stored.record.0.is_done() => continue,
                    Ok(stored) => Ok(Snapshot { operation: stored.record.0, revision: stored.revision }),
                    Err(error) => Err(quiesce_runtime::telemetry::chain(&error).to_string()),
                };
                found.push(Found { key: entry.key.to_string(), operation });
            }
            match page.last() {
                Some(last) if page.len() == SCAN_MAX => scan.after = Some(last.key.clone()),
                Some(_) | None => return Ok(Plan::of(found)),
            }
        }
    }
}
