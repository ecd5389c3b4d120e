//! What goes wrong during a migration, and when: a function of a seed and the number of the migration, and of nothing
//! else, so that a run that failed can be struck in the same places again.

use std::fmt;
use std::time::Duration;

use quiesce_testkit::proxy::Mode;

/// Most strikes of one migration: two at the same time, and one on the way back.
const STRIKES_MAX: u64 = 3;

/// An undisturbed migration of a Redis takes about half of this on an idle machine; most strikes fall into it.
const EARLY: Duration = Duration::from_millis(500);

/// The others: what has gone wrong is being mended.
const LATE: Duration = Duration::from_secs(3);

/// Longest time for which a process stays down. Beyond it nothing is left to see but attempts that fail.
const DOWN_MAX: Duration = Duration::from_secs(2);

/// Longest time for which the network is away: twice the `heartbeat_timeout` of the run.
const AWAY_MAX: Duration = Duration::from_secs(4);

/// One of the two clusters, as the migration sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Target,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of the scheduler, which stays down for so long.
    Scheduler { down: Duration },
    /// `kill -9` of an agent, which stays down for so long. Its application lives on.
    Agent { side: Side, down: Duration },
    /// `kill -9` of every Redis that runs at that moment, wherever it does.
    Application,
    /// The connections between an agent and the scheduler are reset.
    Reset { side: Side },
    /// The network between them does this for so long.
    Network { side: Side, mode: Mode, lasts: Duration },
}

/// When something goes wrong. On a busy machine it takes longer to ask than to move, so most is counted from the yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// So long after the migration was asked for, for the first time.
    Asked(Duration),
    /// So long after it was accepted.
    Accepted(Duration),
}

/// A fault and its moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) at: Moment,
    pub(crate) fault: Fault,
}

/// The strikes of the migration `number` of the run with this seed, in the order in which they fall.
pub(crate) fn strikes(seed: u64, number: u64) -> Vec<Strike> {
    let mut chance = Chance(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut strikes: Vec<Strike> = Vec::new();
    for _ in 0..chance.below(STRIKES_MAX + 1) {
        let at = match strikes.last() {
            Some(other) if chance.below(4) == 0 => other.at,
            _ => match chance.below(6) {
                0 => Moment::Asked(chance.up_to(EARLY)),
                1 => Moment::Accepted(chance.up_to(LATE)),
                _ => Moment::Accepted(chance.up_to(EARLY)),
            },
        };
        strikes.push(Strike { at, fault: fault(&mut chance) });
    }
    strikes.sort_by_key(|strike| strike.at);
    strikes
}

fn fault(chance: &mut Chance) -> Fault {
    // Half of those that go down come back at once, as under a service manager.
    let down = if chance.below(2) == 0 { DOWN_MAX / 10 } else { DOWN_MAX };
    let down = chance.up_to(down);
    let side = if chance.below(2) == 0 { Side::Source } else { Side::Target };
    match chance.below(8) {
        0 | 1 => Fault::Scheduler { down },
        2..=4 => Fault::Agent { side, down },
        5 => Fault::Application,
        6 => Fault::Reset { side },
        _ => {
            let mode = match chance.below(3) {
                0 => Mode::Cut,
                1 => Mode::Hold,
                _ => Mode::BlackHole,
            };
            Fault::Network { side, mode, lasts: chance.up_to(AWAY_MAX) }
        }
    }
}

impl Fault {
    /// What it is counted as.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Scheduler { .. } => "kill -9 of the scheduler",
            Self::Agent { side: Side::Source, .. } => "kill -9 of the source's agent",
            Self::Agent { side: Side::Target, .. } => "kill -9 of the target's agent",
            Self::Application => "kill -9 of the application",
            Self::Reset { .. } => "connections reset",
            Self::Network { mode: Mode::Cut, .. } => "network cut",
            Self::Network { mode: Mode::Hold, .. } => "network held",
            Self::Network { mode: Mode::BlackHole, .. } => "network swallowing",
            Self::Network { mode: Mode::Pass, .. } => unreachable!("no fault"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Self::Scheduler { down } | Self::Agent { down, .. } => write!(f, ", down for {down:?}"),
            Self::Network { side, lasts, .. } => write!(f, " at the {side:?} for {lasts:?}"),
            Self::Reset { side } => write!(f, " at the {side:?}"),
            Self::Application => Ok(()),
        }
    }
}

/// A generator of its own (splitmix64), so that a seed means the same for ever.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn up_to(&mut self, limit: Duration) -> Duration {
        let micros = u64::try_from(limit.as_micros()).expect("limits are seconds");
        Duration::from_micros(self.below(micros + 1))
    }
}

#[test]
fn a_seed_means_the_same_again_and_all_faults_come_up() {
    let run = |seed| -> Vec<_> { (0..200).flat_map(|number| strikes(seed, number)).collect() };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let mut kinds: Vec<_> = run(7).into_iter().map(|strike| strike.fault.kind()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), 8, "{kinds:?}");
}
