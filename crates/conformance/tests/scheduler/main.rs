//! The suite for schedulers under test: ours passes everything; with the feature `mutants`, each bug that is switched on
//! fails exactly the checks that are named for it.

#![expect(clippy::unwrap_used, reason = "tests panic where they fail")]

use quiesce_conformance::run::{Outcome, Report};

mod command;
#[cfg(feature = "mutants")]
mod mutants;
mod world;

fn skipped(report: &Report) -> Vec<&'static str> {
    let skipped = report.results.iter().filter(|result| matches!(result.outcome, Outcome::Skipped { .. }));
    skipped.map(|result| result.check.id).collect()
}

/// Checks to look at alone, as `--case` has them.
const CASE: &str = "QUIESCE_CONFORMANCE_CASE";

#[tokio::test]
async fn our_scheduler_passes_everything() {
    let case = std::env::var(CASE).unwrap_or_default();
    let report = world::judge(&case).await;
    assert!(report.is_passed(true), "{report}");
    assert_eq!(skipped(&report), [""; 0], "{report}");
}
