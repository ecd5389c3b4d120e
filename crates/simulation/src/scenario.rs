//! What a seed contains: how many of what, how they behave, what goes wrong how often.

use std::time::Duration;

use quiesce_agent::process::Exit;
use quiesce_operation::policy::FailureStrategy;
use quiesce_operation::{Kind, Policy};

use crate::chance::Chance;
use crate::laws::Fact;
use crate::machine::Home;
use crate::machine::temper::{Executable, Kinship, Offspring, OnTerm, Speech, Temper};
use crate::wire::Weather;

/// One run, before anything has happened.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Instances at the source, and as many that stand by.
    pub instances: usize,
    /// Nothing goes wrong but what applications do by themselves.
    pub calm: bool,
    /// How long things go wrong in each round, and how often.
    pub storm: Duration,
    /// Pause between two things that go wrong.
    pub pause: Duration,
    /// The network while it storms.
    pub weather: Weather,
    /// What applications are stopped and started by.
    pub policy: Policy,
    /// How each application behaves, sources first.
    pub tempers: Vec<Temper>,
    /// Where agents live.
    pub home: Home,
    /// Agents run a drain command first, so that shutdowns can be taken back.
    pub drains: bool,
    /// What is asked for, one after the other.
    pub rounds: Vec<Kind>,
    /// How long a drain command runs.
    pub draining: Duration,
    /// Somebody meddles: cancels, extends, retries.
    pub meddling: bool,
    /// Somebody takes a request back so soon after it was accepted.
    pub regret: Option<Duration>,
}

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn draw(chance: &Chance) -> Self {
        let instances = chance.pick(&[1, 1, 1, 2, 2, 3]);
        let calm = chance.percent(10);
        let decent = chance.percent(40);
        let tempers = (0..2 * instances).map(|place| {
            if decent || chance.percent(50) { decent_temper(chance) } else { temper(chance, place >= instances) }
        });
        let tempers: Vec<Temper> = tempers.collect();
        let rounds = match chance.within(0..=9) {
            0..=3 => vec![Kind::Migrate],
            4..=5 => vec![Kind::Delete],
            6..=7 => vec![Kind::Migrate, Kind::Migrate],
            _ => vec![Kind::Migrate, Kind::Delete],
        };
        let bad = |of: &[u64]| if calm { 0 } else { chance.pick(of) };
        Self {
            instances,
            calm,
            storm: if calm { Duration::ZERO } else { chance.millis(1_000..=40_000) },
            pause: chance.millis(100..=6_000),
            weather: Weather { breaks: bad(&[0, 0, 5, 30]), doubles: bad(&[0, 20, 200]), late: bad(&[0, 10, 100]) },
            policy: policy(chance),
            tempers,
            home: if chance.percent(75) { Home::Host } else { Home::Container },
            drains: chance.percent(40),
            rounds,
            draining: chance.millis(0..=1_500),
            meddling: !calm && chance.percent(40),
            regret: (!calm && chance.percent(15)).then(|| chance.millis(0..=2_500)),
        }
    }

    /// What the scenario itself can be the reason of.
    #[must_use]
    pub fn facts(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        for temper in &self.tempers {
            match temper.on_term {
                OnTerm::Ends { after, code } => {
                    if after > Duration::from_secs(1) {
                        facts.push(Fact::SlowStop);
                    }
                    if code != 0 {
                        facts.push(Fact::BadEnd);
                    }
                }
                OnTerm::Dies => facts.push(Fact::BadEnd),
                OnTerm::Ignores => facts.extend([Fact::Unwilling, Fact::SlowStop]),
                OnTerm::Hangs => facts.push(Fact::SlowStop),
            }
            if temper.executable != Executable::Yes || temper.speech == Speech::NeverReady {
                facts.push(Fact::BadStart);
            }
            if let Speech::ReadyAfter(after) = temper.speech
                && after > Duration::from_secs(2)
            {
                facts.push(Fact::BadStart);
            }
            if temper.crashes.is_some() {
                facts.extend([Fact::BadEnd, Fact::BadStart]);
            }
            if !temper.stuck.is_zero() {
                facts.push(Fact::SlowStop);
            }
            if !temper.offspring.is_empty() {
                facts.extend([Fact::Offspring, Fact::SlowStop]);
            }
        }
        if !self.policy.overall_timeout.is_zero() {
            facts.push(Fact::TightPolicy);
        }
        facts
    }

    /// Whether nothing keeps every request from being done as asked.
    #[must_use]
    pub fn is_fair(&self) -> bool {
        self.calm && self.facts().is_empty()
    }
}

/// A temper nobody has to complain of.
#[must_use]
pub fn decent_temper(chance: &Chance) -> Temper {
    let speech = match chance.within(0..=2) {
        0 => Speech::Silent,
        _ => Speech::ReadyAfter(chance.millis(0..=900)),
    };
    let on_term = OnTerm::Ends { after: chance.millis(0..=900), code: 0 };
    Temper { speech, on_term, is_nameless: chance.percent(20), ..Temper::default() }
}

fn temper(chance: &Chance, target: bool) -> Temper {
    let mut temper = decent_temper(chance);
    match chance.within(0..=9) {
        0 => temper.on_term = OnTerm::Ends { after: chance.millis(1_000..=60_000), code: 0 },
        1 => temper.on_term = OnTerm::Ends { after: chance.millis(0..=2_000), code: 3 },
        2 => temper.on_term = OnTerm::Dies,
        3 => temper.on_term = OnTerm::Ignores,
        4 => temper.on_term = OnTerm::Hangs,
        5 => temper.stuck = chance.millis(1_000..=30_000),
        6 => {
            let exit = Exit { code: Some(chance.pick(&[0, 1])), signal: None };
            temper.crashes = Some((chance.millis(100..=60_000), exit));
        }
        7 | 8 => {
            // A daemon of one without a mark would have none either, and nobody could tell whose it is.
            temper.is_nameless = false;
            let kinship = chance.pick(&[Kinship::Child, Kinship::Daemon]);
            let outlives = chance.percent(70).then(|| chance.millis(0..=8_000));
            let on_term = chance.pick(&[OnTerm::Dies, OnTerm::Ends { after: Duration::from_millis(300), code: 0 }]);
            temper.offspring.push(Offspring { born: chance.millis(0..=3_000), kinship, outlives, on_term });
        }
        _ => {
            temper.on_term = OnTerm::Ends { after: chance.millis(2_000..=30_000), code: 0 };
            temper.asks_for = Some(chance.millis(5_000..=90_000));
            temper.speech = Speech::ReadyAfter(chance.millis(0..=500));
        }
    }
    if target && chance.percent(40) {
        match chance.within(0..=3) {
            0 => temper.executable = Executable::Missing,
            1 => temper.executable = Executable::Broken,
            2 => temper.speech = Speech::NeverReady,
            _ => temper.speech = Speech::ReadyAfter(chance.millis(1_000..=40_000)),
        }
    }
    temper
}

fn policy(chance: &Chance) -> Policy {
    let seconds = |of: &[u64]| Duration::from_secs(chance.pick(of));
    Policy {
        grace_period: seconds(&[3, 10, 60, 120]),
        heartbeat_timeout: seconds(&[2, 5, 15]),
        accept_timeout: seconds(&[1, 4, 10]),
        kill_timeout: seconds(&[2, 10]),
        max_extension: seconds(&[0, 0, 20]),
        overall_timeout: seconds(&[0, 0, 0, 90]),
        settle_period: seconds(&[0, 0, 1]),
        max_attempts: u32::try_from(chance.pick(&[1, 2, 3])).unwrap_or(1),
        initial_backoff: chance.millis(100..=2_000),
        max_backoff: Duration::from_secs(10),
        failure_strategy: chance.pick(&[FailureStrategy::GiveUp, FailureStrategy::GiveUp, FailureStrategy::Force]),
        allow_unverified: chance.percent(10),
        hold_on_unclean_exit: chance.percent(20),
        max_parallel_stops: u32::try_from(chance.pick(&[0, 0, 1])).unwrap_or(0),
        start_timeout: seconds(&[5, 30]),
        ..Policy::built_in()
    }
}
