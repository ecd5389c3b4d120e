//! The timeline under clock steps, reboots, restored checkpoints and clocks that go back.

use super::*;

/// Clocks in the hands of a test.
#[derive(Debug)]
struct Machine {
    boot_id: &'static str,
    boottime_ms: AtomicU64,
    wall_ms: AtomicU64,
}

impl Machine {
    fn new(boot_id: &'static str, boottime_ms: u64, wall_ms: u64) -> Arc<Self> {
        Arc::new(Self { boot_id, boottime_ms: boottime_ms.into(), wall_ms: wall_ms.into() })
    }

    fn start(self: &Arc<Self>, stored: Option<&Anchor>) -> Timeline {
        Timeline::start_with(Box::new(Arc::clone(self)), stored).unwrap()
    }

    fn set(&self, boottime_ms: u64, wall_ms: u64) {
        self.boottime_ms.store(boottime_ms, Ordering::Release);
        self.wall_ms.store(wall_ms, Ordering::Release);
    }
}

impl Source for Machine {
    fn boot_id(&self) -> io::Result<String> {
        Ok(self.boot_id.to_owned())
    }

    fn boottime_ms(&self) -> u64 {
        self.boottime_ms.load(Ordering::Acquire)
    }

    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Acquire)
    }
}

fn stored() -> Anchor {
    Anchor { boot_id: "first".to_owned(), boottime_ms: 5_000, timeline_ms: 1_000_000, wall_ms: 900_000 }
}

fn wall_ms(time: SystemTime) -> u64 {
    millis_since_epoch(time)
}

#[test]
fn the_first_start_ever_begins_at_wall_time() {
    assert_eq!(Machine::new("first", 5_000, 900_000).start(None).now(), 900_000);
}

#[test]
fn time_advances_with_the_boot_clock_and_ignores_steps_of_the_wall_clock() {
    let machine = Machine::new("first", 5_000, 900_000);
    let timeline = machine.start(None);
    machine.set(5_250, 77);
    assert_eq!(timeline.now(), 900_250);
    machine.set(6_000, 999_999_999);
    assert_eq!(timeline.now(), 901_000);
}

#[test]
fn a_restart_within_one_boot_counts_by_the_boot_clock() {
    // The wall clock was set back by a day meanwhile; it has no say.
    assert_eq!(Machine::new("first", 7_500, 1).start(Some(&stored())).now(), 1_002_500);
}

#[test]
fn a_reboot_counts_by_the_wall_clock() {
    let machine = Machine::new("second", 20, 960_000);
    let timeline = machine.start(Some(&stored()));
    assert_eq!(timeline.now(), 1_060_000);
    machine.set(1_020, 960_000);
    assert_eq!(timeline.now(), 1_061_000);
}

#[test]
fn a_reboot_with_the_wall_clock_set_back_goes_on_from_the_anchor() {
    assert_eq!(Machine::new("second", 20, 1_234).start(Some(&stored())).now(), 1_000_000);
}

#[test]
fn a_boot_clock_behind_the_anchor_of_the_same_boot_stands_still() {
    // A container restored in another time namespace.
    assert_eq!(Machine::new("first", 10, 900_000).start(Some(&stored())).now(), 1_000_000);
}

#[test]
fn a_boot_clock_that_goes_back_under_a_running_process_stands_still() {
    let machine = Machine::new("first", 5_000, 900_000);
    let timeline = machine.start(None);
    machine.set(8_000, 903_000);
    assert_eq!(timeline.now(), 903_000);
    machine.set(6_000, 903_000);
    assert_eq!(timeline.now(), 903_000);
    assert_eq!(timeline.anchor().timeline_ms, 903_000);
    machine.set(8_001, 903_000);
    assert_eq!(timeline.now(), 903_001);
}

#[test]
fn every_anchor_of_one_boot_leads_to_the_same_timeline() {
    let machine = Machine::new("first", 5_000, 900_000);
    let timeline = machine.start(None);
    let early = timeline.anchor();
    machine.set(9_000, 20);
    let late = timeline.anchor();
    assert_eq!(late, Anchor { boot_id: "first".to_owned(), boottime_ms: 9_000, timeline_ms: 904_000, wall_ms: 20 });
    machine.set(10_000, 30);
    assert_eq!(machine.start(Some(&early)).now(), 905_000);
    assert_eq!(machine.start(Some(&late)).now(), 905_000);
}

#[test]
fn anchors_handed_on_over_many_reboots_never_go_back() {
    let mut anchor = stored();
    let walls = [1_000_000, 50, 2_000_000, 1_999_999, 0, u64::MAX, 3];
    for (wall, boot_id) in walls.into_iter().zip(["b", "c", "d", "e", "f", "g", "h"]) {
        let timeline = Machine::new(boot_id, 1, wall).start(Some(&anchor));
        assert!(timeline.now() >= anchor.timeline_ms, "went back at {boot_id}");
        anchor = timeline.anchor();
    }
}

#[test]
fn people_see_the_wall_clock_as_it_is_set_now() {
    let machine = Machine::new("first", 5_000, 900_000);
    let timeline = machine.start(Some(&Anchor { wall_ms: 100, ..stored() }));
    assert_eq!(wall_ms(timeline.wall(1_000_000)), 900_000);
    assert_eq!(wall_ms(timeline.wall(1_000_500)), 900_500);
    assert_eq!(wall_ms(timeline.wall(999_000)), 899_000);
    machine.set(5_000, 2_000_000);
    assert_eq!(wall_ms(timeline.wall(1_000_500)), 2_000_500);
    assert_eq!(wall_ms(timeline.wall(0)), 1_000_000);
}

#[test]
fn the_farthest_instants_do_not_overflow() {
    let timeline = Machine::new("first", u64::MAX, u64::MAX).start(Some(&stored()));
    assert_eq!(timeline.now(), u64::MAX);
    assert!(timeline.wall(u64::MAX) >= timeline.wall(0));
}

#[test]
fn this_machine_has_a_timeline_that_a_restart_continues() {
    let before = Timeline::start(None).unwrap();
    let anchor = before.anchor();
    assert!(!anchor.boot_id.is_empty());
    let after = Timeline::start(Some(&anchor)).unwrap();
    assert!(after.now() >= anchor.timeline_ms);
    // Both count by the same clock from the same anchor, so asking in turn gives one ascending sequence.
    let (first, second, third) = (before.now(), after.now(), before.now());
    assert!(first <= second && second <= third, "{first} {second} {third}");
}

#[tokio::test(start_paused = true)]
async fn sleepers_follow_the_timeline_and_not_the_timer() {
    let clock = Arc::new(ManualClock::new(1_000));
    sleep_until(&*clock, 1_000).await;
    let mut sleeping = Box::pin(sleep_until(&*clock, 61_000));
    // An hour of timers is nothing while the timeline stands still.
    assert!(tokio::time::timeout(Duration::from_secs(3_600), &mut sleeping).await.is_err());
    // A suspend: the timeline jumps while no timer fired.
    clock.advance(Duration::from_secs(60));
    tokio::time::timeout(RECHECK * 2, sleeping).await.unwrap();
}

#[test]
fn a_manual_clock_never_goes_back() {
    let clock = ManualClock::new(10);
    clock.advance_to(30);
    clock.advance_to(20);
    assert_eq!(clock.now(), 30);
    assert_eq!(wall_ms(clock.wall(40)), 40);
}
