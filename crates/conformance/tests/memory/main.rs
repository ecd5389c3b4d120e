//! The suite itself under test: the reference passes everything, and each mutant fails the checks that are named for it and
//! no others. All in memory and in virtual time, so that every wait is as long as the contract's.

#![expect(clippy::unwrap_used, reason = "tests panic where they fail")]

use dialling::Habit;
use mutants::Fault;
use quiesce_conformance::run::{Outcome, Report};

mod dialling;
mod imitation;
mod machine;
mod mutants;
mod world;

#[track_caller]
fn assert_passed(report: &Report) {
    assert!(report.is_passed(true), "{report}");
}

fn skipped(report: &Report) -> Vec<&'static str> {
    let skipped = report.results.iter().filter(|result| matches!(result.outcome, Outcome::Skipped { .. }));
    skipped.map(|result| result.check.id).collect()
}

#[tokio::test(start_paused = true)]
async fn the_agent_passes_everything_when_it_listens() {
    let report = world::judge_agent(true).await;
    assert_passed(&report);
    assert_eq!(skipped(&report), ["I10", "A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08"], "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_agent_passes_everything_when_it_dials_in() {
    let report = world::judge_agent(false).await;
    assert_passed(&report);
    assert_eq!(skipped(&report), ["I06", "I07", "I10"], "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_hook_without_a_fault_passes_everything() {
    assert_passed(&world::judge_hook(None).await);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_dials_in_well_passes_everything() {
    assert_passed(&world::judge_dialling(Habit::Good).await);
}

/// A test for each mutant: it fails these checks, and no others.
macro_rules! hooks {
    ($($name:ident: $fault:expr, fails $ids:expr;)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                let report = world::judge_hook(Some($fault)).await;
                assert_eq!(report.failed(), $ids, "{report}");
            }
        )*
    };
}

macro_rules! dialling {
    ($($name:ident: $habit:expr, fails $ids:expr;)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                let report = world::judge_dialling($habit).await;
                assert_eq!(report.failed(), $ids, "{report}");
            }
        )*
    };
}

// Where a fault keeps other checks from getting to what they look at, they fail as well: nothing is known to be right
// behind it.
hooks! {
    told_is_stopped: Fault::ToldIsStopped, fails ["S01", "S03", "S17", "S18", "R03", "R06", "R07", "R08", "R09", "R10", "R13", "R15", "R16", "K01", "K02", "K03", "K04", "K05", "K06", "K07", "D01", "C02", "G01", "G03", "E04", "E06", "E08", "E09", "E10", "E13", "E14", "E15", "E17"];
    signals_twice: Fault::SignalsTwice, fails ["R01", "R02", "R03", "R04", "R05", "R06", "R08", "R10", "R13", "R14", "R16"];
    signals_on_repetition: Fault::SignalsOnRepetition, fails ["R01", "R03", "R06", "R13", "R14"];
    kills_by_itself: Fault::KillsByItself, fails ["K01", "K02", "D01"];
    kills_the_first_only: Fault::KillsTheFirstOnly, fails ["K07"];
    kills_for_anybody: Fault::KillsForAnybody, fails ["K04"];
    only_claims: Fault::OnlyClaims, fails ["S13", "S18"];
    takes_old_epochs: Fault::TakesOldEpochs, fails ["E04", "E05", "E06", "E14"];
    forgets_on_restart: Fault::ForgetsOnRestart, fails ["R13", "R14"];
    forgets_soon: Fault::ForgetsSoon, fails ["R11"];
    forgets_the_token: Fault::ForgetsTheToken, fails ["S11"];
    cuts_the_token: Fault::CutsTheToken, fails ["S11"];
    token_everywhere: Fault::TokenEverywhere, fails ["S11", "G03"];
    token_in_messages: Fault::TokenInMessages, fails ["S20"];
    replays_an_old_result: Fault::ReplaysAnOldResult, fails ["R12", "C01", "L01", "E05"];
    goes_back_in_phase: Fault::GoesBackInPhase, fails ["S08"];
    wrong_final_phase: Fault::WrongFinalPhase, fails ["S12", "C01"];
    no_heartbeats: Fault::NoHeartbeats, fails ["S05", "S06", "K02"];
    counts_anew: Fault::CountsAnew, fails ["R01", "R03", "R06", "R11", "R13", "R14", "G01"];
    result_twice: Fault::ResultTwice, fails ["S07", "R01"];
    ends_with_an_error: Fault::EndsWithAnError, fails ["S07", "R01"];
    late_result: Fault::LateResult, fails ["S04", "S05", "S15"];
    waits_for_the_first: Fault::WaitsForTheFirst, fails ["S02", "S05"];
    nameless: Fault::Nameless, fails ["S09"];
    stopped_without_running: Fault::StoppedWithoutRunning, fails ["S15"];
    refuses_unknown_kinds: Fault::RefusesUnknownKinds, fails ["I12"];
    lets_everybody_in: Fault::LetsEverybodyIn, fails ["I06", "I07"];
    any_instance: Fault::AnyInstance, fails ["B03", "E10"];
    refuses_repetition: Fault::RefusesRepetition, fails ["R01", "R03", "R06", "R11", "R13", "R14"];
    two_at_a_time: Fault::TwoAtATime, fails ["R08", "R10", "R16"];
    never_yields: Fault::NeverYields, fails ["R09", "R15"];
    dies_with_the_call: Fault::DiesWithTheCall, fails ["R04", "R05", "R06"];
    announces_too_much: Fault::AnnouncesTooMuch, fails ["Q01", "Q02"];
    bare_errors: Fault::BareErrors, fails ["B04"];
    cancels_too_late: Fault::CancelsTooLate, fails ["C02"];
    ignores_settling: Fault::IgnoresSettling, fails ["T01", "T02"];
    concludes_what_runs: Fault::ConcludesWhatRuns, fails ["E16"];
}

dialling! {
    ends_the_line_with_a_line_feed: Habit::LineFeed, fails ["A01"];
    keeps_the_token: Habit::KeepsTheToken, fails ["A02"];
    no_pause: Habit::NoPause, fails ["A02", "A08"];
    same_pause: Habit::SamePause, fails ["A08"];
    no_spread: Habit::NoSpread, fails ["A08"];
    no_pings: Habit::NoPings, fails ["A05", "A06"];
    new_agent: Habit::NewAgent, fails ["A07"];
    touches_the_application: Habit::TouchesTheApplication, fails ["A04", "A07", "A08"];
}
