//! What the demonstration prints: headlines, what happens, what was checked, and at a terminal one line that lives.
//!
//! Owns every escape sequence and the width. In a pipe it prints plain lines only. What others say is made harmless
//! before it is printed: the texts of applications must not steer a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

/// What 80-column habits assume where the terminal does not tell its size.
const USUAL_COLUMNS: usize = 80;

/// Columns before everything that belongs to a scene.
const MARGIN: usize = 3;

/// How the output looks, as far as the environment decides it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// `NO_COLOR` is set.
    pub no_color: bool,
    /// `TERM=dumb`: the terminal understands no escape sequences at all.
    pub dumb: bool,
}

/// What a piece of text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Warning,
    Bad,
}

/// The standard output.
#[derive(Debug)]
pub(super) struct Show {
    color: bool,
    live: bool,
    columns: Option<usize>,
    /// A living line stands at the cursor.
    drawn: bool,
    /// Nobody reads any more.
    deaf: bool,
}

impl Show {
    pub(super) fn new(look: Look) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let columns = terminal.then(|| {
            let size = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
            size.filter(|columns| *columns > 0).unwrap_or(USUAL_COLUMNS)
        });
        let escapes = terminal && !look.dumb;
        Self { color: escapes && !look.no_color, live: escapes, columns, drawn: false, deaf: false }
    }

    /// A line of pieces, cut at the width of the terminal.
    pub(super) fn line(&mut self, pieces: &[(&str, Style)]) {
        let mut frame = self.erased();
        self.push(&mut frame, pieces);
        frame.push('\n');
        self.drawn = false;
        self.write(&frame);
    }

    /// A line in one style.
    pub(super) fn say(&mut self, text: &str, style: Style) {
        self.line(&[(text, style)]);
    }

    /// The outcome of a check, broken into lines if need be: it must not be cut off.
    pub(super) fn outcome(&mut self, good: bool, text: &str) {
        let (word, style) = if good { ("ok  ", Style::Good) } else { ("FAILED  ", Style::Bad) };
        let indent = " ".repeat(MARGIN + word.len());
        for (number, line) in wrap(text, indent.len()).iter().enumerate() {
            match number {
                0 => self.line(&[(&indent[..MARGIN], Style::Plain), (word, style), (line, Style::Plain)]),
                _ => self.line(&[(&indent, Style::Plain), (line, Style::Plain)]),
            }
        }
    }

    /// What is told before a scene, broken into lines.
    pub(super) fn paragraph(&mut self, text: &str) {
        let indent = " ".repeat(MARGIN);
        for line in wrap(text, MARGIN) {
            self.line(&[(&indent, Style::Plain), (&line, Style::Dim)]);
        }
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.line(&[]);
    }

    /// Replaces the living line. Without a terminal there is none.
    pub(super) fn live(&mut self, pieces: &[(&str, Style)]) {
        if !self.live {
            return;
        }
        let mut frame = self.erased();
        self.push(&mut frame, pieces);
        self.drawn = true;
        self.write(&frame);
    }

    /// Takes the living line away.
    pub(super) fn clear(&mut self) {
        let frame = self.erased();
        self.drawn = false;
        self.write(&frame);
    }

    fn erased(&self) -> String {
        if self.drawn { "\r\x1b[K".to_owned() } else { String::new() }
    }

    fn push(&self, frame: &mut String, pieces: &[(&str, Style)]) {
        // The last column stays free: some terminals wrap as soon as it is written.
        let mut left = self.columns.map_or(usize::MAX, |columns| columns.saturating_sub(1));
        for (text, style) in pieces {
            let text: String = clean(text).chars().take(left).collect();
            left -= text.chars().count();
            match sgr(*style).filter(|_| self.color) {
                Some(code) => frame.push_str(&format!("\x1b[{code}m{text}\x1b[0m")),
                None => frame.push_str(&text),
            }
        }
    }

    fn write(&mut self, text: &str) {
        if self.deaf || text.is_empty() {
            return;
        }
        let mut stdout = io::stdout().lock();
        // That nobody reads is no reason to leave processes behind: the story goes on to its end in silence.
        self.deaf = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err();
    }
}

fn sgr(style: Style) -> Option<&'static str> {
    match style {
        Style::Plain => None,
        Style::Bold => Some("1"),
        Style::Dim => Some("2"),
        Style::Good => Some("32"),
        Style::Warning => Some("33"),
        Style::Bad => Some("31"),
    }
}

/// Text without control characters.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Breaks text at spaces into lines that fit beside so many columns that are taken; a longer word stays whole.
pub(super) fn wrap(text: &str, taken: usize) -> Vec<String> {
    let width = USUAL_COLUMNS.saturating_sub(taken + 1);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// "12,345".
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "0.12 s".
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(columns: Option<usize>, color: bool) -> Show {
        Show { color, live: false, columns, drawn: false, deaf: false }
    }

    #[test]
    fn lines_keep_within_the_terminal_and_pipes_get_all() {
        let pieces = [("abc", Style::Bold), ("def\x1b[2J", Style::Plain)];
        let mut narrow = String::new();
        show(Some(6), true).push(&mut narrow, &pieces);
        assert_eq!(narrow, "\x1b[1mabc\x1b[0mde");
        let mut plain = String::new();
        show(None, false).push(&mut plain, &pieces);
        assert_eq!(plain, "abcdef [2J");
    }

    #[test]
    fn long_outcomes_are_broken_at_spaces() {
        assert_eq!(wrap("one two  three", USUAL_COLUMNS - 9), ["one two", "three"]);
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([7, 999, 1000, 1_234_567].map(count), ["7", "999", "1,000", "1,234,567"]);
        assert_eq!(seconds(Duration::from_millis(1_234)), "1.23 s");
    }
}
