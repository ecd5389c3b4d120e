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

mutants! {
    grants_the_grace_twice: GraceBeginsAnew, fails ["D04"];
    takes_stale_results: StaleAttemptCounts, fails ["T02"];
    takes_any_token: TokenUnchecked, fails ["F09", "X04", "T02"];
    takes_any_result_for_proof: AnyResultProves, fails ["F17"];
    forgets_what_is_open: OperationForgotten, fails ["D01"];
    loses_events: EventLost, fails ["W04"];
    resumes_one_too_late: ResumesOneTooLate, fails ["W04", "W05"];
}
