//! What the commands have in common: which checks are run, and where the results go.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use regex::Regex;

use crate::check::Group;
use crate::output;
use crate::run::{CheckResult, Report, Selection};

/// Flags of every suite.
#[derive(Debug, Clone, Args)]
pub struct Choice {
    /// Only groups whose name matches
    #[arg(long, value_name = "REGEX")]
    pub suite: Option<Regex>,

    /// Only checks whose id matches
    #[arg(long, value_name = "REGEX")]
    pub case: Option<Regex>,

    /// A check of level S that fails is a failure, too
    #[arg(long)]
    pub strict: bool,

    /// Ids that are known to fail, one a line, each followed by the reason
    #[arg(long, value_name = "FILE")]
    pub expected_failures: Option<PathBuf>,

    /// Write the results here, as JUnit
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Write the results here, as JSON; `-` is the standard output, and takes the place of the lines for people
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,

    /// Show all checks, and run none; with --json as JSON
    #[arg(long)]
    pub list: bool,
}

impl Choice {
    /// Which of the checks of `groups` are run; what is wrong goes to `problems`.
    pub fn selection<S, N>(&self, groups: &[Group<S, N>], problems: &mut Vec<String>) -> Selection {
        let mut selection =
            Selection { suite: self.suite.clone(), case: self.case.clone(), expected_failures: Default::default() };
        let ids: Vec<_> = groups.iter().flat_map(|group| group.checks).map(|check| check.id).collect();
        if let Some(path) = &self.expected_failures {
            match std::fs::read_to_string(path) {
                Ok(text) => match Selection::parse_expected(&text, &ids) {
                    Ok(expected) => selection.expected_failures = expected,
                    Err(found) => {
                        problems.extend(found.into_iter().map(|problem| format!("{}, {problem}", path.display())));
                    }
                },
                Err(error) => problems.push(format!("--expected-failures {}: {error}", path.display())),
            }
        }
        let taken = groups.iter().any(|group| group.checks.iter().any(|check| selection.takes(group.name, check.id)));
        if !taken {
            problems.push("--suite and --case leave no check to run; --list shows all there are".to_owned());
        }
        selection
    }

    /// All checks, as asked for.
    #[must_use]
    pub fn listing<S, N: std::fmt::Display>(&self, groups: &[Group<S, N>]) -> String {
        if self.json.is_some() { format!("{:#}\n", output::list_json(groups)) } else { output::list(groups) }
    }

    /// Whether the standard output is for machines.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }

    /// Shows a result to people as it comes.
    #[expect(clippy::print_stdout, reason = "the output of the commands is what they are for")]
    pub fn tell(&self, result: &CheckResult) {
        if !self.is_quiet() {
            print!("{}", output::line(result, self.strict));
            // A line is of use when it comes; a closed pipe is noticed by the next one.
            let _closed = std::io::stdout().flush();
        }
    }

    /// Writes what came of a run of `tool` to where it was asked for; `remark` stands before the last line.
    ///
    /// # Errors
    /// Which file could not be written, and why.
    #[expect(clippy::print_stdout, reason = "the output of the commands is what they are for")]
    pub fn conclude(&self, tool: &str, remark: &str, report: &Report) -> Result<(), String> {
        if let Some(path) = &self.junit {
            write(path, &output::junit(tool, report, self.strict))?;
        }
        if let Some(path) = self.json.as_deref().filter(|_| !self.is_quiet()) {
            write(path, &format!("{:#}\n", output::json(report, self.strict)))?;
        }
        if self.is_quiet() {
            println!("{:#}", output::json(report, self.strict));
        } else {
            print!("\n{remark}{}", output::summary(report, self.strict));
        }
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
