//! What a process really writes: logging is set up once per process, so each case runs this test binary again as a
//! process of its own.

use std::process::{Command, Output};

use quiesce_runtime::telemetry::{self, Format, Telemetry};

/// Makes [`the_process_under_test`] do its work; its value is the format.
const FORMAT: &str = "QUIESCE_TEST_LOG_FORMAT";

#[test]
fn the_process_under_test() {
    // Run as one test among the others there is nothing to do.
    let Ok(format) = std::env::var(FORMAT) else { return };
    let format: Format = format.parse().unwrap();
    telemetry::init(&Telemetry { format, ..Telemetry::default() }).unwrap();
    tracing::info!(operation.id = "op-1", attempt = 2, "hook succeeded");
    tracing::debug!("not of interest by default");
    assert!(telemetry::init(&Telemetry::default()).is_err(), "a second set-up is refused");
    std::thread::spawn(|| panic!("on purpose")).join().unwrap_err();
}

fn run(format: Format) -> Output {
    let output = Command::new(std::env::current_exe().expect("a test has a binary"))
        .args(["--exact", "the_process_under_test", "--nocapture"])
        .env(FORMAT, format.to_string())
        .output()
        .expect("a test can run itself");
    assert!(output.status.success(), "{output:?}");
    output
}

#[test]
fn without_a_terminal_every_line_on_standard_error_is_json() {
    let output = run(Format::Auto);
    let lines: Vec<_> = std::str::from_utf8(&output.stderr).unwrap().lines().collect();
    assert!(lines.iter().all(|line| line.starts_with('{') && line.ends_with('}')), "{lines:#?}");
    assert!(lines[0].contains(r#""message":"hook succeeded","operation.id":"op-1","attempt":2"#), "{lines:#?}");
    assert!(lines[1].contains(r#""panic":"on purpose""#) && lines[1].contains("telemetry.rs:"), "{lines:#?}");
    assert_eq!(lines.len(), 2, "{lines:#?}");
}

#[test]
fn standard_output_is_left_alone() {
    let output = run(Format::Json);
    assert!(!String::from_utf8(output.stdout).unwrap().contains("hook succeeded"));
}

#[test]
fn text_has_no_colours_without_a_terminal() {
    let text = String::from_utf8(run(Format::Text).stderr).unwrap();
    assert!(text.contains("hook succeeded operation.id=\"op-1\" attempt=2"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}
