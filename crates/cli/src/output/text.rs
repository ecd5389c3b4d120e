//! Styled lines, and text from elsewhere made fit to print.
//!
//! Everything an application, an agent or a scheduler said goes through [`clean`] before it reaches a terminal.

use std::time::{Duration, SystemTime};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What a piece of text means; the terminal decides how that looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Warning,
    Bad,
}

/// Text in one style, free of control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) style: Style,
}

/// One line, without its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line(pub(crate) Vec<Span>);

impl Line {
    /// A line in one style.
    pub(crate) fn new(text: impl AsRef<str>, style: Style) -> Self {
        Self::default().then(text, style)
    }

    /// Adds a piece.
    pub(crate) fn then(mut self, text: impl AsRef<str>, style: Style) -> Self {
        self.0.push(Span { text: clean(text.as_ref()), style });
        self
    }

    /// The same line within `width` columns.
    pub(crate) fn fit(self, width: usize) -> Self {
        let mut left = width;
        let mut spans = Vec::with_capacity(self.0.len());
        let total: usize = self.0.iter().map(|span| span.text.width()).sum();
        if total <= width {
            return self;
        }
        for mut span in self.0 {
            let wide = span.text.width();
            if wide < left {
                left -= wide;
                spans.push(span);
                continue;
            }
            // Something behind this piece is cut off as well, so it ends with the ellipsis even if it just fits.
            span.text = ellipsis(&format!("{}\u{2026}", span.text), left);
            spans.push(span);
            break;
        }
        Self(spans)
    }

    /// The text without styles.
    pub(crate) fn plain(&self) -> String {
        self.0.iter().map(|span| span.text.as_str()).collect()
    }
}

/// Text without control characters: what others say must not steer this terminal or break a line.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// At most `width` columns, with an ellipsis where something is missing.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        cut.push(c);
    }
    if width > 0 {
        cut.push('\u{2026}');
    }
    cut
}

/// Breaks text at spaces into lines of at most `width` columns; a longer word stays whole.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in clean(text).split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// "0s", "48s", "1m30s", "2h05m", "3d04h": never wider than six columns below 100 days.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// As [`span`], with tenths below ten seconds, for how long something took.
pub(crate) fn took(duration: Duration) -> String {
    if duration < Duration::from_secs(10) { format!("{:.1}s", duration.as_secs_f64()) } else { span(duration) }
}

/// A protobuf duration; negative ones count as zero.
pub(crate) fn duration(value: Option<&prost_types::Duration>) -> Option<Duration> {
    value.map(|value| Duration::try_from(*value).unwrap_or_default())
}

/// A protobuf timestamp; `None` also for what no clock can show.
pub(crate) fn time(value: Option<&prost_types::Timestamp>) -> Option<SystemTime> {
    value.and_then(|value| SystemTime::try_from(*value).ok())
}

/// "2026-11-22T20:04:25Z".
pub(crate) fn stamp(value: Option<&prost_types::Timestamp>) -> String {
    time(value).map_or_else(|| "-".to_owned(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

/// How long ago, on this machine's clock; a little skew shows as "0s".
pub(crate) fn age(value: Option<&prost_types::Timestamp>, now: SystemTime) -> String {
    time(value).map_or_else(|| "-".to_owned(), |time| span(now.duration_since(time).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc\t"), "a [2Jb c ");
    }

    #[test]
    fn lines_are_cut_with_an_ellipsis_and_never_wider_than_asked() {
        assert_eq!(ellipsis("abcdef", 6), "abcdef");
        assert_eq!(ellipsis("abcdefg", 6), "abcde\u{2026}");
        assert_eq!(ellipsis("\u{6f22}\u{5b57}\u{6f22}\u{5b57}", 5), "\u{6f22}\u{5b57}\u{2026}");
        let line = Line::new("abc", Style::Plain).then("def", Style::Bold);
        assert_eq!(line.clone().fit(6).plain(), "abcdef");
        assert_eq!(line.clone().fit(5).plain(), "abcd\u{2026}");
        assert_eq!(line.fit(3).plain(), "ab\u{2026}");
    }

    #[test]
    fn durations_are_short() {
        let texts = [0, 59, 90, 7500, 273600].map(|s| span(Duration::from_secs(s)));
        assert_eq!(texts, ["0s", "59s", "1m30s", "2h05m", "3d04h"]);
    }

    #[test]
    fn long_text_is_wrapped_at_spaces() {
        assert_eq!(wrap("one two  three", 8), ["one two", "three"]);
        assert_eq!(wrap("", 8), Vec::<String>::new());
    }
}
