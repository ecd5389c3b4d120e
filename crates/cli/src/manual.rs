//! Manual pages of all commands, made of what `--help` knows.
//!
//! Owns which pages there are and what stands on them beside what clap_mangen writes: examples, exit codes, the way to the
//! other pages. It writes no files.

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use quiesce_agent::args::Program;

use crate::args::Cli;

/// The section for commands.
const SECTION: &str = "1";
/// What the heading of every page says.
const MANUAL: &str = "Quiesce";
/// Pages are made by whoever runs the command, and say for which version. Nothing at all would be no word on the line, and the
/// version would be taken for the date.
const NO_DATE: &str = " ";
/// `quiesce agent` is the program `quiesce-agent`, and the page of that name is the program's.
const AGENT: &str = "agent";

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    /// The name of its file: `quiesce-get.1`.
    pub(crate) file: String,
    pub(crate) text: Vec<u8>,
}

/// The pages of both programs.
pub(crate) fn pages() -> Vec<Page> {
    let mut agent = Program::command();
    agent.build();
    let mut pages = vec![page(&agent, &["quiesce".to_owned()])];
    let mut quiesce = Cli::command().disable_help_subcommand(true);
    quiesce.build();
    walk(&quiesce, None, &mut pages);
    pages
}

fn walk(command: &Command, parent: Option<&str>, pages: &mut Vec<Page>) {
    let own = name(command);
    let inner: Vec<&Command> = command.get_subcommands().filter(|inner| !inner.is_hide_set()).collect();
    let near: Vec<String> =
        parent.map(str::to_owned).into_iter().chain(inner.iter().map(|inner| name(inner))).collect();
    pages.push(page(command, &near));
    for inner in inner.into_iter().filter(|inner| inner.get_name() != AGENT) {
        walk(inner, Some(&own), pages);
    }
}

/// `quiesce-token-create`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: &Command, near: &[String]) -> Page {
    let version = format!("quiesce {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).title(name(command)).section(SECTION).date(NO_DATE);
    let man = man.manual(MANUAL).source(version);
    let mut text = Vec::new();
    let written = [
        man.render_title(&mut text),
        man.render_name_section(&mut text),
        man.render_synopsis_section(&mut text),
        man.render_description_section(&mut text),
        man.render_options_section(&mut text),
        if command.has_subcommands() { man.render_subcommands_section(&mut text) } else { Ok(()) },
        said_below(command).to_writer(&mut text),
        see_also(near).to_writer(&mut text),
    ];
    for result in written {
        result.expect("a vector takes whatever is written to it");
    }
    Page { file: format!("{}.{SECTION}", name(command)), text }
}

/// What stands below the flags in `--help`, with its headings as sections.
fn said_below(command: &Command) -> Roff {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut roff = Roff::new();
    let mut in_notes = false;
    for block in help.split("\n\n") {
        let (heading, rest) = match block.split_once('\n') {
            Some((first, rest)) if first.ends_with(':') => (section(first), rest),
            Some(_) | None => (None, block),
        };
        if let Some(heading) = heading {
            roff.control("SH", [heading]);
        } else if !in_notes && !block.is_empty() {
            roff.control("SH", ["NOTES"]);
            in_notes = true;
        }
        if rest.starts_with(' ') {
            roff.control("nf", []);
            for line in rest.lines() {
                roff.text([roman(line.trim_start_matches("  "))]);
            }
            roff.control("fi", []);
        } else if !rest.is_empty() {
            roff.control("PP", []);
            roff.text([roman(rest.replace('\n', " "))]);
        }
    }
    roff
}

/// What a manual calls it.
fn section(heading: &str) -> Option<&'static str> {
    match heading {
        "Examples:" => Some("EXAMPLES"),
        "Exit codes:" => Some("EXIT STATUS"),
        _ => None,
    }
}

fn see_also(near: &[String]) -> Roff {
    let mut roff = Roff::new();
    if near.is_empty() {
        return roff;
    }
    roff.control("SH", ["SEE ALSO"]);
    let mut inlines = Vec::new();
    for (index, name) in near.iter().enumerate() {
        let end = if index + 1 == near.len() { "" } else { ", " };
        inlines.extend([bold(name), roman(format!("({SECTION}){end}"))]);
    }
    roff.text(inlines);
    roff
}
