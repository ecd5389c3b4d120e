//! Durations as people write them, in flags and in files: `90s`, `1m30s`, `1.5h`.
//!
//! The one parser and the one writer of such text. What a duration may be for a purpose is checked there; here is only
//! the limit of the contract.

use std::time::Duration;

/// Longest duration that can be written: that of the contract (`types.proto`, "Time"). Nothing here waits for longer, and
/// who writes months has mistaken the unit.
pub const MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Longest life of a credential that can be written. What a kind of credential may have is checked where it is made.
pub const LIFETIME_MAX: Duration = Duration::from_hours(20 * 366 * 24);

/// Text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not numbers with units.
    #[error("{0}; write 90s, 1m30s or 2h (ms, s, m, h, d)")]
    Form(String),
    /// Above [`MAX`].
    #[error("longer than 7 days")]
    TooLong,
    /// Above [`LIFETIME_MAX`].
    #[error("longer than 20 years")]
    TooLongALife,
}

/// Reads numbers with units, `90s` or `1m 30s`. A number may have decimals, a unit may be written out (`2hours`).
///
/// # Errors
/// What is wrong with the text, and how it could be written.
pub fn parse(text: &str) -> Result<Duration, ParseError> {
    parse_up_to(MAX, ParseError::TooLong, text)
}

/// The same for how long a credential is good: `90d`, `1year`.
///
/// # Errors
/// As for [`parse`].
pub fn parse_lifetime(text: &str) -> Result<Duration, ParseError> {
    parse_up_to(LIFETIME_MAX, ParseError::TooLongALife, text)
}

fn parse_up_to(max: Duration, too_long: ParseError, text: &str) -> Result<Duration, ParseError> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= max => Ok(duration),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => Err(too_long),
        Err(error) => Err(ParseError::Form(error.to_string())),
    }
}

/// Writes a duration so that [`parse`] reads the same again: `1m30s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_live_longer_than_anything_waits() {
        assert_eq!(parse("366d"), Err(ParseError::TooLong));
        assert_eq!(parse_lifetime("366d"), Ok(Duration::from_hours(366 * 24)));
        assert_eq!(parse_lifetime("21years"), Err(ParseError::TooLongALife));
    }

    #[test]
    fn the_usual_units_are_understood() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("90s", 90_000),
            ("1m", 60_000),
            ("1m30s", 90_000),
            ("1m 30s", 90_000),
            ("1.5h", 5_400_000),
            ("0.1s", 100),
            ("2hours", 7_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("1.000000001s"), Ok(Duration::new(1, 1)));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_a_way_out() {
        for text in ["", " ", "30", "s", "-5s", "1x", "soon", "1s!", "1..5s", "1s\0"] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains("write 90s"), "{text}: {error}");
        }
        for text in ["8d", "604800001ms", "3months", "99999999999999999999s", "1M"] {
            assert_eq!(parse(text), Err(ParseError::TooLong), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for duration in [Duration::ZERO, Duration::new(90, 1), Duration::from_millis(3_661_001), MAX] {
            assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }
}
