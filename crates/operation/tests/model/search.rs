//! Breadth-first search over every world that can come to be. Knows nothing of operations: it asks a [`World`] what can
//! happen, lets it happen, and remembers which worlds it has seen. Every finite run without further faults has to end at
//! rest, and there must be no endless ones.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::world::{Action, World};

/// More worlds than this are not called exhausted: some 80 bytes each, and a search that nobody waits for.
const WORLDS_MAX: usize = 5_000_000;

/// What a search that came to its end has seen.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) worlds: usize,
    pub(crate) transitions: usize,
    pub(crate) depth: usize,
    pub(crate) at_rest: usize,
    pub(crate) time: Duration,
}

impl Figures {
    /// Shown also when the test passes: what was searched is the result.
    pub(crate) fn print(&self, name: &str, faults: u8) {
        let Self { worlds, transitions, depth, at_rest, time } = self;
        let line = format!(
            "model: {name}: exhausted with up to {faults} faults: {worlds} worlds ({at_rest} at rest), {transitions} \
             transitions, depth {depth}, {:.1} s",
            time.as_secs_f64()
        );
        writeln!(std::io::stderr(), "{line}").expect("stderr can be written to");
    }
}

/// The shortest way to something that must not be.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) broken: String,
    pub(crate) steps: Vec<String>,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.broken)?;
        for (index, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:4}  {step}", index + 1)?;
        }
        Ok(())
    }
}

/// How a world was come to first.
struct Origin {
    parent: usize,
    action: Option<Action>,
}

struct Search {
    first: World,
    origins: Vec<Origin>,
    known: HashMap<u64, usize>,
    transitions: usize,
    /// Transitions that need neither a person nor a fault.
    of_itself: Vec<(usize, usize)>,
    at_rest: usize,
}

/// Searches everything that can come out of `first`.
pub(crate) fn explore(first: World) -> Result<Figures, Story> {
    let began = Instant::now();
    let mut search = Search {
        origins: vec![Origin { parent: 0, action: None }],
        known: HashMap::from([(first.fingerprint(), 0)]),
        transitions: 0,
        of_itself: Vec::new(),
        at_rest: 0,
        first: first.clone(),
    };
    let mut layer = vec![(0, first)];
    let mut depth = 0;
    while !layer.is_empty() {
        let mut next = Vec::new();
        for (index, world) in layer {
            search.expand(index, &world, &mut next)?;
        }
        layer = next;
        depth += 1;
    }
    search.every_run_ends()?;
    let Search { origins, transitions, at_rest, .. } = search;
    Ok(Figures { worlds: origins.len(), transitions, depth: depth - 1, at_rest, time: began.elapsed() })
}

impl Search {
    fn expand(&mut self, index: usize, world: &World, next: &mut Vec<(usize, World)>) -> Result<(), Story> {
        let actions = world.actions();
        if world.is_settled() {
            world.check_rest().map_err(|broken| self.story(index, None, broken))?;
            self.at_rest += 1;
        }
        for action in actions {
            self.transitions += 1;
            let after = take(world, &action).map_err(|broken| self.story(index, Some(&action), broken))?;
            let count = self.origins.len();
            let target = match self.known.entry(after.fingerprint()) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => *unknown.insert(count),
            };
            if world.is_of_itself(&action) {
                self.of_itself.push((index, target));
            }
            if target == count {
                assert!(count < WORLDS_MAX, "not exhausted: more than {WORLDS_MAX} worlds; lower the bounds");
                self.origins.push(Origin { parent: index, action: Some(action) });
                next.push((target, after));
            }
        }
        Ok(())
    }

    /// Takes away every world that cannot but come to rest, from the end backwards. What is left goes round in circles.
    fn every_run_ends(&self) -> Result<(), Story> {
        let mut ways_on = vec![0_usize; self.origins.len()];
        let mut ways_here: Vec<Vec<usize>> = vec![Vec::new(); self.origins.len()];
        for &(from, to) in &self.of_itself {
            ways_on[from] += 1;
            ways_here[to].push(from);
        }
        let mut ends: Vec<usize> = (0..ways_on.len()).filter(|&index| ways_on[index] == 0).collect();
        while let Some(end) = ends.pop() {
            for &from in &ways_here[end] {
                ways_on[from] -= 1;
                if ways_on[from] == 0 {
                    ends.push(from);
                }
            }
        }
        match ways_on.iter().position(|&ways| ways > 0) {
            None => Ok(()),
            Some(index) => Err(self.story(index, None, "I4: from here on it may go round in circles".to_owned())),
        }
    }

    fn story(&self, index: usize, last: Option<&Action>, broken: String) -> Story {
        let mut actions: Vec<&Action> = last.into_iter().collect();
        let mut at = index;
        while let Some(action) = &self.origins[at].action {
            actions.push(action);
            at = self.origins[at].parent;
        }
        let mut world = self.first.clone();
        let mut steps = Vec::new();
        for action in actions.into_iter().rev() {
            let told = world.describe(action);
            match take(&world, action) {
                Ok(after) => {
                    steps.push(format!("{told} -> {}", after.summary()));
                    world = after;
                }
                Err(_) => steps.push(told),
            }
        }
        Story { broken, steps }
    }
}

/// A panic of the machine is a counterexample like any other.
fn take(world: &World, action: &Action) -> Result<World, String> {
    match catch_unwind(AssertUnwindSafe(|| world.after(action))) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
            Err(format!("panicked: {text}"))
        }
    }
}
