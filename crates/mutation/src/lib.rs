//! Bugs on demand: places where the project would be wrong if it were written a little differently.
//!
//! A [`Mutant`] stands at the line that keeps a promise, and breaks it when it is switched on. The simulation switches
//! on one after the other and has to notice; a suite that does not would not notice a real bug of that kind either.
//! Without the feature `switches` [`active`] is `false` at compile time and nothing of this is in a program.

/// One way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// The driver acts before what it does is durable.
    ActsBeforePersisting,
    /// A request is answered with yes before it is durable.
    AnswersBeforePersisting,
    /// After a restart of the scheduler an open operation is not taken up.
    OperationForgotten,
    /// After a restart of the scheduler the grace period begins anew.
    GraceBeginsAnew,
    /// A result of an earlier attempt counts.
    StaleAttemptCounts,
    /// Whatever a hook reports as the last word counts as proof of the end.
    AnyResultProves,
    /// The source is given up before the target is ready.
    TargetNotAwaited,
    /// A deletion that is taken back starts standbys as well.
    StandbysStarted,
    /// One event of several in a step is not stored.
    EventLost,
    /// A watcher resumes one event too late.
    ResumesOneTooLate,
    /// Completion tokens are not compared.
    TokenUnchecked,
    /// A start is admitted while an operation is open.
    AdmitsWhileOpen,
    /// The agent asks for no permission.
    GateOpen,
    /// The agent starts under any epoch.
    EpochIgnored,
    /// The agent starts its application before that is written down.
    StartsBeforeJournal,
    /// The agent does not hold.
    HoldForgotten,
    /// The agent tells its application again when it was restarted.
    TellsAgain,
    /// The agent takes having told for having stopped.
    ToldIsStopped,
    /// The agent looks at the first process alone.
    ChildrenIgnored,
    /// The agent lets a shutdown be taken back behind the point of no return.
    CancelsTooLate,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::ActsBeforePersisting,
        Self::AnswersBeforePersisting,
        Self::OperationForgotten,
        Self::GraceBeginsAnew,
        Self::StaleAttemptCounts,
        Self::AnyResultProves,
        Self::TargetNotAwaited,
        Self::StandbysStarted,
        Self::EventLost,
        Self::ResumesOneTooLate,
        Self::TokenUnchecked,
        Self::AdmitsWhileOpen,
        Self::GateOpen,
        Self::EpochIgnored,
        Self::StartsBeforeJournal,
        Self::HoldForgotten,
        Self::TellsAgain,
        Self::ToldIsStopped,
        Self::ChildrenIgnored,
        Self::CancelsTooLate,
    ];
}

/// Whether this bug is wanted, on this thread.
#[cfg(feature = "switches")]
#[must_use]
pub fn active(mutant: Mutant) -> bool {
    switches::ACTIVE.get() == Some(mutant)
}

/// No bug is ever wanted.
#[cfg(not(feature = "switches"))]
#[inline(always)]
#[must_use]
pub const fn active(_: Mutant) -> bool {
    false
}

/// Switches on one bug on this thread, or none.
#[cfg(feature = "switches")]
pub fn switch(mutant: Option<Mutant>) {
    switches::ACTIVE.set(mutant);
}

#[cfg(feature = "switches")]
mod switches {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        pub(super) static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }
}
