//! What the process says of itself: log lines on standard error.
//!
//! Owns the set-up of `tracing` and the one way to print an error with its causes. Standard output is never touched:
//! it belongs to the command's result, or to the application an agent supervises.

use std::env;
use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// Enough to follow operations and processes, see the levels in `CONTRIBUTING.md`.
pub const DEFAULT_FILTER: &str = "info";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// [`Format::Text`] when standard error is a terminal, [`Format::Json`] otherwise.
    #[default]
    Auto,
    /// For people; coloured on a terminal unless `NO_COLOR` is set.
    Text,
    /// One JSON object per line.
    Json,
}

/// The text is not the name of a [`Format`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("log format {0:?} is not one of auto, text, json")]
pub struct ParseFormatError(String);

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(ParseFormatError(other.to_owned())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What to log, and how.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// How lines look.
    pub format: Format,
    /// Directives of `tracing_subscriber::filter::Targets`, such as `info,quiesce_agent=debug`: levels, of everything or of
    /// modules. Filters by spans and fields would cost the agent a fifth of its size, mostly for regular expressions.
    pub filter: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { format: Format::Auto, filter: DEFAULT_FILTER.to_owned() }
    }
}

impl Telemetry {
    /// Checks the filter without setting anything up, so that a configuration can report it with its other problems.
    pub fn validate(&self) -> Result<(), FilterError> {
        self.directives().map(drop)
    }

    /// Whether lines are JSON, which depends on where standard error goes unless it was chosen.
    #[must_use]
    pub fn is_json(&self) -> bool {
        resolve(self.format, io::stderr().is_terminal()) == Lines::Json
    }

    fn directives(&self) -> Result<Targets, FilterError> {
        self.filter.parse().map_err(|source| FilterError { filter: self.filter.clone(), source })
    }
}

/// The log filter cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("log filter {filter:?} is not a list of directives such as info,quiesce_agent=debug")]
pub struct FilterError {
    filter: String,
    #[source]
    source: ParseError,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter is wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Something else in this process had set up logging before.
    #[error("cannot set up logging")]
    Taken(#[source] TryInitError),
}

/// Sets up logging for the whole process, panics included. Call once, from `main`.
pub fn init(telemetry: &Telemetry) -> Result<(), InitError> {
    let filter = telemetry.directives()?;
    let terminal = io::stderr().is_terminal();
    // The filter alone decides; that of the lines would cut off what is below its own default.
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(io::stderr);
    let outcome = match resolve(telemetry.format, terminal) {
        Lines::Text => lines.with_ansi(terminal && colour_wanted()).finish().with(filter).try_init(),
        Lines::Json => lines.json().flatten_event(true).with_current_span(false).finish().with(filter).try_init(),
    };
    outcome.map_err(InitError::Taken)?;
    log_panics();
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Lines {
    Text,
    Json,
}

fn resolve(format: Format, terminal: bool) -> Lines {
    match (format, terminal) {
        (Format::Text, _) | (Format::Auto, true) => Lines::Text,
        (Format::Json, _) | (Format::Auto, false) => Lines::Json,
    }
}

/// <https://no-color.org>: any value but the empty one. A property of the terminal like its width, hence read here
/// and not a setting of ours.
fn colour_wanted() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Without this a panic would put lines that are not JSON among those that are.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(
            panic.location = location,
            panic = panic.payload_as_str().unwrap_or("a value that is not text"),
            "panicked, this is a bug"
        );
    }));
}

/// An error with its causes: `cannot open the store: permission denied`.
///
/// `Display` of our errors never includes the source, so this is how errors are logged and shown.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + 'a {
    Chain(error)
}

struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the store")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot lock {path}")]
    struct Inner {
        path: &'static str,
        #[source]
        source: io::Error,
    }

    #[test]
    fn chain_prints_every_cause_once() {
        let source = io::Error::other("held by process 7");
        let error = Outer(Inner { path: "db", source });
        assert_eq!(chain(&error).to_string(), "cannot open the store: cannot lock db: held by process 7");
    }

    #[test]
    fn auto_follows_the_terminal_and_a_choice_overrides_it() {
        assert_eq!(resolve(Format::Auto, true), Lines::Text);
        assert_eq!(resolve(Format::Auto, false), Lines::Json);
        assert_eq!(resolve(Format::Json, true), Lines::Json);
        assert_eq!(resolve(Format::Text, false), Lines::Text);
    }

    #[test]
    fn format_names_round_trip_and_others_are_refused() {
        for format in [Format::Auto, Format::Text, Format::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!(
            "xml".parse::<Format>().unwrap_err().to_string(),
            "log format \"xml\" is not one of auto, text, json"
        );
    }

    #[test]
    fn a_wrong_filter_is_found_before_anything_is_set_up() {
        Telemetry::default().validate().unwrap();
        let wrong = Telemetry { filter: "info,quiesce_agent=loud".to_owned(), ..Telemetry::default() };
        let error = wrong.validate().unwrap_err();
        assert!(error.to_string().contains("quiesce_agent=loud"), "{error}");
    }
}
