//! What is told of checks and of what came of them: to people, as JSON, as JUnit.

use std::fmt::{Display, Write as _};

use quiesce_runtime::duration;
use serde_json::{Value, json};

use crate::check::{About, Check, Group};
use crate::run::{CheckResult, Outcome, Report, Standing};

/// Writing to a string does not fail.
const INFALLIBLE: &str = "writing to a string does not fail";

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Passed => "ok",
        Standing::Failed => "FAILED",
        Standing::Warning => "warning",
        Standing::ExpectedFailure => "expected",
        Standing::UnexpectedPass => "UNEXPECTED",
        Standing::Skipped => "skipped",
    }
}

/// One check: a line, and if it failed what to know about that.
#[must_use]
pub fn line(result: &CheckResult, strict: bool) -> String {
    let standing = result.standing(strict);
    let About { id, level, title, rule, advice } = result.check;
    let mut text = format!("{:<10} {id} {} {title}", word(standing), level.letter());
    if result.duration.as_secs() >= 2 {
        write!(text, " ({} s)", result.duration.as_secs()).expect(INFALLIBLE);
    }
    text.push('\n');
    match &result.outcome {
        Outcome::Failed { expected, seen } => {
            writeln!(text, "           expected: {expected}").expect(INFALLIBLE);
            writeln!(text, "           seen:     {seen}").expect(INFALLIBLE);
            match (&result.expected_failure, standing) {
                (Some(reason), _) if reason.is_empty() => {}
                (Some(reason), _) => writeln!(text, "           known:    {reason}").expect(INFALLIBLE),
                (None, _) => {
                    writeln!(text, "           rule:     {rule}").expect(INFALLIBLE);
                    writeln!(text, "           do:       {advice}").expect(INFALLIBLE);
                }
            }
        }
        Outcome::Broken { problem } => {
            writeln!(text, "           the fixture does not work: {problem}").expect(INFALLIBLE);
        }
        Outcome::Skipped { reason } => writeln!(text, "           {reason}").expect(INFALLIBLE),
        Outcome::Passed if standing == Standing::UnexpectedPass => {
            writeln!(text, "           it was expected to fail: take it off the list").expect(INFALLIBLE);
        }
        Outcome::Passed => {}
    }
    text
}

/// The last line.
#[must_use]
pub fn summary(report: &Report, strict: bool) -> String {
    let count = |standing| report.count(standing, strict);
    let mut parts = vec![format!("{} passed", count(Standing::Passed)), format!("{} failed", count(Standing::Failed))];
    for (standing, name) in [
        (Standing::Warning, "warnings"),
        (Standing::ExpectedFailure, "failed as expected"),
        (Standing::UnexpectedPass, "passed unexpectedly"),
        (Standing::Skipped, "skipped"),
    ] {
        if count(standing) > 0 {
            parts.push(format!("{} {name}", count(standing)));
        }
    }
    format!("{}\n", parts.join(", "))
}

/// All checks as Markdown, a table for each group.
#[must_use]
pub fn list<S, N: Display>(groups: &[Group<S, N>]) -> String {
    let mut text = String::new();
    for group in groups {
        writeln!(text, "### {}\n", group.name).expect(INFALLIBLE);
        writeln!(text, "| id | level | check | needs |\n|---|---|---|---|").expect(INFALLIBLE);
        for check in group.checks {
            let needs: Vec<_> = check.needs.iter().map(ToString::to_string).collect();
            let Check { id, level, title, .. } = check;
            writeln!(text, "| {id} | {} | {title} | {} |", level.letter(), needs.join(", ")).expect(INFALLIBLE);
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// All checks as JSON.
#[must_use]
pub fn list_json<S, N: Display>(groups: &[Group<S, N>]) -> Value {
    let describe = |group: &str, check: &Check<S, N>| {
        json!({
            "id": check.id,
            "group": group,
            "level": check.level.letter(),
            "title": check.title,
            "rule": check.rule,
            "advice": check.advice,
            "needs": check.needs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    };
    groups.iter().flat_map(|group| group.checks.iter().map(|check| describe(group.name, check))).collect()
}

/// Results as JSON.
#[must_use]
pub fn json(report: &Report, strict: bool) -> Value {
    let describe = |result: &CheckResult| {
        let mut value = json!({
            "id": result.check.id,
            "group": result.group,
            "level": result.check.level.letter(),
            "title": result.check.title,
            "rule": result.check.rule,
            "seconds": result.duration.as_secs_f64(),
            "standing": word(result.standing(strict)).to_ascii_lowercase(),
        });
        let outcome = serde_json::to_value(&result.outcome).unwrap_or_default();
        if let (Some(value), Value::Object(outcome)) = (value.as_object_mut(), outcome) {
            value.extend(outcome);
        }
        value
    };
    json!({
        "passed": report.is_passed(strict),
        "checks": report.results.iter().map(describe).collect::<Vec<_>>(),
    })
}

/// Results as JUnit: a suite for each group. Warnings and expected failures are skipped tests there, since JUnit has no
/// words for them.
#[must_use]
pub fn junit(tool: &str, report: &Report, strict: bool) -> String {
    let mut text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{tool}\">\n");
    let mut groups: Vec<_> = report.results.iter().map(|result| result.group).collect();
    groups.dedup();
    for group in groups {
        let results: Vec<_> = report.results.iter().filter(|result| result.group == group).collect();
        let bad =
            |result: &&&CheckResult| matches!(result.standing(strict), Standing::Failed | Standing::UnexpectedPass);
        let skipped = |result: &&&CheckResult| {
            matches!(result.standing(strict), Standing::Skipped | Standing::Warning | Standing::ExpectedFailure)
        };
        let failures = results.iter().filter(bad).count();
        let skips = results.iter().filter(skipped).count();
        let tests = results.len();
        writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skips}\">",
            group
        )
        .expect(INFALLIBLE);
        for result in results {
            case(&mut text, result, strict);
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn case(text: &mut String, result: &CheckResult, strict: bool) {
    let name = escape(&format!("{} {}", result.check.id, result.check.title));
    let seconds = result.duration.as_secs_f64();
    write!(text, "    <testcase classname=\"{}\" name=\"{name}\" time=\"{seconds:.3}\"", result.group)
        .expect(INFALLIBLE);
    let standing = result.standing(strict);
    let told = escape(line(result, strict).trim_end());
    match standing {
        Standing::Passed => text.push_str("/>\n"),
        Standing::Failed | Standing::UnexpectedPass => {
            writeln!(text, "><failure message=\"{}\">{told}</failure></testcase>", word(standing)).expect(INFALLIBLE);
        }
        Standing::Skipped | Standing::Warning | Standing::ExpectedFailure => {
            writeln!(text, "><skipped message=\"{told}\"/></testcase>").expect(INFALLIBLE);
        }
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            // XML has no way to write other control characters.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// What is said when waits are shorter than the contract's own.
#[must_use]
pub fn shortened(waits: crate::subject::Waits) -> Option<String> {
    let usual = crate::subject::Waits::default();
    let pairs = [
        ("kept", waits.kept, usual.kept),
        ("silent", waits.silent, usual.silent),
        ("unread", waits.unread, usual.unread),
        ("overdue", waits.overdue, usual.overdue),
        ("ping", waits.ping, usual.ping),
        ("away", waits.away, usual.away),
    ];
    let shorter: Vec<_> = pairs
        .into_iter()
        .filter(|(_, now, usual)| now < usual)
        .map(|(name, now, usual)| format!("{name} {} instead of {}", duration::format(now), duration::format(usual)))
        .collect();
    (!shorter.is_empty()).then(|| format!("waits are shorter than usual, and prove less: {}\n", shorter.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hook::GROUPS;

    fn report(outcome: Outcome) -> Report {
        let check = GROUPS[0].checks[0].about();
        let duration = Duration::from_secs(3);
        Report {
            results: vec![CheckResult { group: GROUPS[0].name, check, outcome, duration, expected_failure: None }],
        }
    }

    #[test]
    fn a_failure_says_what_was_expected_and_seen_by_which_rule_and_what_to_do() {
        let report = report(Outcome::Failed { expected: "this".to_owned(), seen: "that <&>".to_owned() });
        let text = report.to_string();
        for part in ["FAILED", "I01", "expected: this", "seen:     that", "rule:", "do:", "0 passed, 1 failed"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let junit = junit("hook-conformance", &report, false);
        assert!(junit.contains("failures=\"1\"") && junit.contains("that &lt;&amp;&gt;"), "{junit}");
        assert_eq!(json(&report, false)["checks"][0]["expected"], "this");
    }

    #[test]
    fn a_skipped_check_says_why() {
        let report = report(Outcome::Skipped { reason: "no such mode".to_owned() });
        assert!(report.to_string().contains("no such mode"));
        assert!(junit("hook-conformance", &report, false).contains("skipped=\"1\""));
        assert!(report.is_passed(true));
    }
}
