//! Schedulers with one bug each: ours, with a switch of `quiesce-mutation` on.

use quiesce_mutation::{Mutant, switch};

use super::world;

/// A test for each mutant: it fails these checks, and no others.
macro_rules! mutants {
    ($($name:ident: $mutant:ident, fails $ids:expr;)*) => {
        $(
            // The switch is for this thread, and all of the scheduler runs on it.
            #[tokio::test(flavor = "current_thread")]
            async fn $name() {
                switch(Some(Mutant::$mutant));
                let report = world::judge("").await;
                switch(None);
                assert_eq!(report.failed(), $ids, "{report}");
            }
        )*
    };
}

// Where a bug keeps other checks from getting to what they look at, they fail as well: nothing is known to be right
// behind it.
mutants! {
    grants_the_grace_twice: GraceBeginsAnew, fails ["D04"];
    takes_stale_results: StaleAttemptCounts, fails ["T02"];
    takes_any_token: TokenUnchecked, fails ["F09", "X04", "T02"];
    // What should have failed has stopped: there is no next attempt, nothing DEGRADED, and nothing in BACKING_OFF.
    takes_any_result_for_proof: AnyResultProves, fails ["F05", "F11", "F12", "F17", "F20", "S11", "T02", "C05", "C07", "C08", "C09", "C10", "D01"];
    // A start that fails, hangs or breaks is that of a target that nobody waits for any more.
    takes_the_target_for_ready: TargetNotAwaited, fails ["S03", "S04", "S05", "S06", "S07", "S08", "D05"];
    starts_standbys: StandbysStarted, fails ["S11"];
    admits_while_open: AdmitsWhileOpen, fails ["G04"];
    forgets_what_is_open: OperationForgotten, fails ["D01", "D02", "D03", "D04", "D05"];
    // Lost is the last event of a step: of a failure that degrades, the change of state; of a wish, its answer.
    loses_events: EventLost, fails ["O01", "F03", "F04", "F07", "F09", "F13", "F15", "F16", "F17", "F18", "F19", "S01", "S05", "X01", "X02", "W03", "W07", "W08"];
    resumes_one_too_late: ResumesOneTooLate, fails ["W04", "W05"];
}
