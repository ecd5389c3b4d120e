//! Whole schedulers, agents and clients on simulated hosts.

use quiesce_simulation::stack;

#[test]
fn one() {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    let run = stack::run(seed);
    println!("{}", run.story.join("\n"));
    assert!(run.is_good(), "{:#?}", run.violations);
}
