//! How many hooks are in which state, kept up to date as they change: to know it, nobody has to look at all of them.

use std::sync::{Arc, Mutex, PoisonError};

use quiesce_operation::report::AppState;

use super::{HookState, Presence};

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    states: [usize; 4],
    apps: [usize; 6],
}

impl Tally {
    /// Hooks in this state.
    #[must_use]
    pub fn of_state(&self, state: HookState) -> usize {
        self.states[state as usize]
    }

    /// Hooks that last said this of their application.
    #[must_use]
    pub fn of_app(&self, state: AppState) -> usize {
        self.apps[state as usize]
    }

    fn add(&mut self, (state, app): Place) {
        self.states[state as usize] += 1;
        self.apps[app as usize] += 1;
    }

    fn remove(&mut self, (state, app): Place) {
        self.states[state as usize] -= 1;
        self.apps[app as usize] -= 1;
    }
}

type Place = (HookState, AppState);

/// The counts, for those who are counted. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    tally: Arc<Mutex<Tally>>,
}

impl Counts {
    pub(super) fn now(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more hook, of which nothing is known yet.
    pub(super) fn join(&self) -> Counted {
        let place = (HookState::Unknown, AppState::Unspecified);
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).add(place);
        Counted { counts: self.clone(), place: Mutex::new(Some(place)) }
    }
}

/// One hook that is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    counts: Counts,
    /// Where it is counted; none: it has left.
    place: Mutex<Option<Place>>,
}

impl Counted {
    /// It is like this now. One that has left stays away.
    pub(super) fn is(&self, presence: &Presence) {
        let app = presence.info.as_ref().map_or(AppState::Unspecified, |info| info.app_state);
        let next = (presence.state, app);
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = place.filter(|before| *before != next) else { return };
        let mut tally = self.counts.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.remove(before);
        tally.add(next);
        *place = Some(next);
    }

    /// It does not count any more.
    pub(super) fn leave(&self) {
        if let Some(place) = self.place.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.counts.tally.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_once_where_it_is_and_nowhere_when_it_has_left() {
        let counts = Counts::default();
        let (one, other) = (counts.join(), counts.join());
        assert_eq!(counts.now().of_state(HookState::Unknown), 2);
        let unreachable = Presence { state: HookState::Unreachable, ..Presence::default() };
        one.is(&unreachable);
        one.is(&unreachable);
        assert_eq!((counts.now().of_state(HookState::Unknown), counts.now().of_state(HookState::Unreachable)), (1, 1));
        one.leave();
        one.is(&unreachable);
        drop(one);
        drop(other);
        assert_eq!(counts.now(), Tally::default());
    }
}
