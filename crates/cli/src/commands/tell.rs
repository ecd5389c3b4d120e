//! What commands say that work on files: a headline with facts, or a document.

use serde::Serialize;

use super::Session;
use crate::args::Format;
use crate::error::Error;
use crate::output::json;
use crate::output::text::{self, Line, Style};

/// Where facts begin.
const INDENT: usize = 2;
/// How wide text is where no terminal says.
const WIDTH: usize = 80;

/// Lines for people, or the document.
pub(super) fn document(
    session: &Session,
    document: &impl Serialize,
    lines: impl FnOnce() -> Vec<Line>,
) -> Result<(), Error> {
    match session.format {
        Format::Table => session.print(&lines()),
        Format::Json | Format::Yaml => Ok(json::write(&mut std::io::stdout().lock(), session.format, document)?),
    }
}

/// Indented and wrapped.
pub(super) fn facts(session: &Session, facts: &[String]) -> Vec<Line> {
    let room = session.width().unwrap_or(WIDTH).saturating_sub(INDENT);
    let wrapped = facts.iter().flat_map(|fact| text::wrap(fact, room));
    wrapped.map(|line| Line::new(format!("{:INDENT$}{line}", ""), Style::Plain)).collect()
}

/// Something to copy: indented further, and never broken.
pub(super) fn command(words: &str) -> Line {
    Line::new(format!("{:width$}{words}", "", width = 2 * INDENT), Style::Plain)
}
