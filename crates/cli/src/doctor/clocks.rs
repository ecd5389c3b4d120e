//! Clocks, as far as answers show them. No deadline depends on them; certificates, tokens and what people read do.

use std::time::{Duration, SystemTime};

use quiesce_protocol::v1::{Instance, Operation};

use super::Report;
use crate::name;
use crate::output::text;

/// `Date` of HTTP has whole seconds, and answers take their time.
const TELLING: Duration = Duration::from_secs(10);
/// Certificates of `quiesce pki` are good from five minutes before they are made.
const HARMFUL: Duration = Duration::from_secs(5 * 60);
/// How far a report of an agent may be from when it came in.
const REPORT: Duration = Duration::from_secs(30);

/// The scheduler's clock and ours.
pub(crate) fn of_scheduler(theirs: SystemTime, ours: SystemTime, report: &mut Report) {
    let (apart, direction) = apart(theirs, ours);
    let what = format!("the scheduler's clock is {} {direction} this machine's", text::span(apart));
    let next = "set both by NTP; look: timedatectl";
    if apart >= HARMFUL {
        report.problem("clock", format!("{what}: new certificates and tokens will not be good there"), next);
    } else if apart >= TELLING {
        report.warning("clock", what, next);
    } else {
        report.ok("clock", "the scheduler and this machine agree on the time");
    }
}

/// Agents whose reports are from another time than when they came in, and applications that were started in the future.
pub(crate) fn of_agents(operations: &[Operation], instances: &[Instance], now: SystemTime, report: &mut Report) {
    for shutdown in operations.iter().flat_map(|operation| &operation.instances) {
        let said = shutdown.status.as_ref().and_then(|status| text::time(status.report_time.as_ref()));
        let heard = text::time(shutdown.heartbeat_time.as_ref());
        if let (Some(said), Some(heard)) = (said, heard) {
            agent(&shutdown.instance, said, heard, report);
        }
    }
    for instance in instances {
        let hook = instance.hook.as_ref();
        let started = hook.and_then(|hook| text::time(hook.app_start_time.as_ref()));
        if let Some(started) = started.filter(|started| *started > now + REPORT) {
            agent(&instance.name, started, now, report);
        }
    }
}

fn agent(instance: &str, said: SystemTime, heard: SystemTime, report: &mut Report) {
    let (apart, direction) = apart(said, heard);
    if apart > REPORT {
        let what = format!("its agent's clock is {} {direction} the scheduler's", text::span(apart));
        report.warning(name::short(instance), what, "set the clock of its host by NTP; look there: timedatectl");
    }
}

/// How far, and in which direction the first is of the second.
fn apart(one: SystemTime, other: SystemTime) -> (Duration, &'static str) {
    match one.duration_since(other) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    }
}
