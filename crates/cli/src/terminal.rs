//! The terminal: how large it is, whether colours are welcome, and redrawing a few lines in place.
//!
//! Owns every escape sequence. It knows nothing of operations; [`crate::live`] says what the lines are.

use std::io::{self, IsTerminal as _, Write};

use crate::output::text::{Line, Style};

/// What 80-column habits assume where the terminal does not tell its size.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// The size of the terminal behind the standard output, as columns and rows. `None`: it is no terminal.
pub(crate) fn size() -> Option<(usize, usize)> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout)
        .ok()
        .map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)))
        .filter(|(columns, rows)| *columns > 0 && *rows > 0);
    Some(size.unwrap_or(USUAL_SIZE))
}

/// Writes a line, in colour if asked to.
pub(crate) fn write_line(out: &mut impl Write, line: &Line, color: bool) -> io::Result<()> {
    for span in &line.0 {
        match sgr(span.style).filter(|_| color) {
            Some(code) => write!(out, "\x1b[{code}m{}\x1b[0m", span.text)?,
            None => out.write_all(span.text.as_bytes())?,
        }
    }
    writeln!(out)
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

/// Lines at the bottom of the terminal that are replaced as a whole.
#[derive(Debug)]
pub(crate) struct Screen {
    drawn: usize,
    color: bool,
}

impl Screen {
    pub(crate) fn new(color: bool) -> Self {
        Self { drawn: 0, color }
    }

    /// Replaces what was drawn last. The caller keeps `lines` within the terminal's size.
    pub(crate) fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        // One write per frame, so that a redraw never shows half of it.
        let mut frame = Vec::new();
        if self.drawn > 0 {
            write!(frame, "\x1b[{}F", self.drawn)?;
        }
        frame.extend_from_slice(b"\x1b[J");
        for line in lines {
            write_line(&mut frame, line, self.color)?;
        }
        self.drawn = lines.len();
        let mut stdout = io::stdout().lock();
        stdout.write_all(&frame)?;
        stdout.flush()
    }

    /// Takes the lines away, so that something else may be printed; the next frame comes below it.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.draw(&[])
    }
}
