//! What a check is: its id for ever, its level, what it needs, the rule it looks at, and how it came out.

use std::fmt;

use futures::future::BoxFuture;
use quiesce_protocol::v1::Capability;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::fixture::{FixtureError, Mode};
use crate::hook::stage::Stage;

/// Whom a check is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Every hook passes it.
    Must,
    /// A hook that announces the capabilities it needs passes it.
    Capability,
    /// A hook should pass it: a failure is a warning, unless asked to be strict.
    Should,
}

impl Level {
    /// The letter of the tables: `M`, `C` or `S`.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::Must => "M",
            Self::Capability => "C",
            Self::Should => "S",
        }
    }
}

/// What has to be there for a check to make sense. What is missing skips it, and is the reason that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The fixture has this mode.
    Mode(Mode),
    /// The hook announces this capability.
    Capability(Capability),
    /// The hook can be started anew, with its application left alone.
    Restart,
    /// The hook takes a bearer token, so that it can be left out.
    Bearer,
    /// The hook says which instance it serves.
    Instance,
    /// The hook dials in, to us.
    DialIn,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mode(mode) => write!(f, "mode {mode}"),
            Self::Capability(capability) => f.write_str(capability.as_str_name().trim_start_matches("CAPABILITY_")),
            Self::Restart => f.write_str("agent.restart"),
            Self::Bearer => f.write_str("a bearer token"),
            Self::Instance => f.write_str("a hook that knows its instance"),
            Self::DialIn => f.write_str("--accept"),
        }
    }
}

/// Why a check did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The hook broke the rule.
    Failed {
        /// What the rule asks for.
        expected: String,
        /// What happened instead.
        seen: String,
    },
    /// It could not be judged, and why.
    Skipped(String),
    /// The fixture did not do what it is there for: nothing is known of the hook.
    Broken(String),
}

impl Stop {
    /// The hook broke the rule.
    pub fn failed(expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::Failed { expected: expected.into(), seen: seen.into() }
    }
}

impl From<FixtureError> for Stop {
    fn from(error: FixtureError) -> Self {
        Self::Broken(error.to_string())
    }
}

/// How a check came out.
pub type Verdict = Result<(), Stop>;

/// What a check does, on a stage of its suite.
pub type Run<S> = for<'a> fn(&'a S) -> BoxFuture<'a, Verdict>;

/// What is told of a check.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Never changes, and never means another check of its suite.
    pub id: &'static str,
    /// Whom it is for.
    pub level: Level,
    /// What is done, and when it passes; one line.
    pub title: &'static str,
    /// The rule it looks at, in the words of the contract.
    pub rule: &'static str,
    /// What to do when it fails.
    pub advice: &'static str,
}

/// Checks that belong together.
#[derive(Debug)]
pub struct Group<S: 'static = Stage, N: 'static = Need> {
    /// One word or two.
    pub name: &'static str,
    /// In the order in which they are run.
    pub checks: &'static [Check<S, N>],
}

/// One check, of hooks unless said otherwise.
pub struct Check<S: 'static = Stage, N: 'static = Need> {
    /// Never changes, and never means another check.
    pub id: &'static str,
    /// Whom it is for.
    pub level: Level,
    /// What is done, and when it passes; one line.
    pub title: &'static str,
    /// The rule it looks at, in the words of the contract.
    pub rule: &'static str,
    /// What to do when it fails.
    pub advice: &'static str,
    /// What has to be there.
    pub needs: &'static [N],
    /// The check itself.
    pub run: Run<S>,
}

impl<S, N> Check<S, N> {
    /// What is told of it.
    #[must_use]
    pub fn about(&self) -> About {
        let Self { id, level, title, rule, advice, .. } = *self;
        About { id, level, title, rule, advice }
    }
}

impl<S, N> fmt::Debug for Check<S, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("id", &self.id).field("level", &self.level).finish_non_exhaustive()
    }
}

/// Passes if `holds`.
pub(crate) fn expect(holds: bool, expected: impl Into<String>, seen: impl fmt::Display) -> Verdict {
    if holds { Ok(()) } else { Err(Stop::failed(expected, seen.to_string())) }
}

/// An error of gRPC in words: code, reason if there is one, message.
pub(crate) fn tell(status: &Status) -> String {
    let reason = reason(status).map(|reason| format!(" {reason}")).unwrap_or_default();
    format!("{}{reason}: {:?}", code_name(status.code()), status.message())
}

/// ErrorInfo.reason, if there is one.
pub(crate) fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// Passes if `answer` is an error with one of `codes`, and, if it names a reason, with `reason`. That a reason is named at
/// all is another check (B04).
pub(crate) fn refused<T>(answer: Result<T, Status>, codes: &[Code], wanted: &str) -> Verdict {
    let names: Vec<_> = codes.iter().map(|code| code_name(*code)).collect();
    let expected = format!("{} {wanted}", names.join(" or ")).trim_end().to_owned();
    let status = match answer {
        Ok(_) => return Err(Stop::failed(expected, "OK")),
        Err(status) => status,
    };
    let named = reason(&status);
    let fits =
        codes.contains(&status.code()) && (wanted.is_empty() || named.as_deref().is_none_or(|named| named == wanted));
    expect(fits, expected, tell(&status))
}

/// The name of a code as the contract writes it.
pub(crate) fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
