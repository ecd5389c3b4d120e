//! Keeping what is in use as fresh as the files.
//!
//! Owns the change from old files to new ones, and the warning before certificates expire. Files are compared by what
//! is in them: that holds for a file that is written, one that is renamed over another, and for the link that
//! Kubernetes turns to a new directory. What cannot be used (half a file, one of two) is left alone, and what was in
//! use stays so.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tracing::{info, warn};

use super::files::{Contents, KeyPair, LoadError, NamedFile};
use crate::clock::Source;
use crate::drain;
use crate::telemetry::chain;

/// How often files are looked at. New ones are waited for by a person, or come days before the old ones expire; three
/// small files every few seconds cost nothing.
pub const RELOAD_EVERY: Duration = Duration::from_secs(3);
/// A certificate expires soon when less than this part of its life is left: whoever renews by itself does so earlier
/// (cert-manager when a third is left), so a fifth means that nothing does.
const EXPIRY_SHARE: i64 = 5;
/// But no earlier than two weeks before: a reminder for months would not be read.
const EXPIRY_WARNING_MAX: Duration = Duration::from_hours(14 * 24);
/// How often it is said again; enough for whoever looks at the last hours of a log.
const EXPIRY_REPEAT: Duration = Duration::from_hours(1);

/// When a certificate is good, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Validity {
    fn is_short(self, left: i64) -> bool {
        let warning = ((self.until - self.from) / EXPIRY_SHARE).min(seconds(EXPIRY_WARNING_MAX));
        left <= warning
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// What is made of files, and how.
pub(super) struct Recipe<C> {
    pub(super) own: Option<KeyPair>,
    pub(super) authorities: Option<NamedFile>,
    pub(super) make: Make<C>,
}

type Make<C> = Box<dyn Fn(&Contents) -> Result<(Arc<C>, Option<Validity>), LoadError> + Send + Sync>;

impl<C> Recipe<C> {
    fn read(&self) -> Result<Contents, LoadError> {
        Contents::read(self.own.as_ref(), self.authorities.as_ref())
    }

    fn made_of(&self, contents: &Contents) -> Result<Made<C>, LoadError> {
        let (config, validity) = (self.make)(contents)?;
        Ok(Made { config, validity, fingerprint: contents.fingerprint() })
    }
}

struct Made<C> {
    config: Arc<C>,
    validity: Option<Validity>,
    fingerprint: u64,
}

/// What was made of the files last. Clones share it.
pub(super) struct Fresh<C> {
    inner: Arc<Inner<C>>,
}

struct Inner<C> {
    recipe: Recipe<C>,
    clocks: Arc<dyn Source>,
    current: RwLock<Made<C>>,
}

impl<C> Clone for Fresh<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<C: Send + Sync + 'static> Fresh<C> {
    pub(super) fn load(recipe: Recipe<C>, clocks: Arc<dyn Source>) -> Result<Self, LoadError> {
        let made = recipe.made_of(&recipe.read()?)?;
        Ok(Self { inner: Arc::new(Inner { recipe, clocks, current: RwLock::new(made) }) })
    }

    pub(super) fn config(&self) -> Arc<C> {
        let current = self.inner.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.config)
    }

    /// Looks at the files; whether there was something new in them. After an error everything is as before.
    pub(super) fn refresh(&self) -> Result<bool, LoadError> {
        let Inner { recipe, current, .. } = &*self.inner;
        let contents = recipe.read()?;
        let known = current.read().unwrap_or_else(PoisonError::into_inner).fingerprint;
        if contents.fingerprint() == known {
            return Ok(false);
        }
        let made = recipe.made_of(&contents)?;
        *current.write().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(true)
    }

    pub(super) fn expiry(&self) -> Expiry {
        let fresh = self.clone();
        Expiry(Arc::new(move || fresh.left().map(|(left, _)| left)))
    }

    /// Seconds until the own certificate expires, and whether those are few.
    fn left(&self) -> Option<(i64, bool)> {
        let validity = self.inner.current.read().unwrap_or_else(PoisonError::into_inner).validity?;
        let now = seconds(Duration::from_millis(self.inner.clocks.wall_ms()));
        let left = validity.until.saturating_sub(now);
        Some((left, validity.is_short(left)))
    }

    /// Looks at the files again and again until drained.
    pub(super) async fn keep(self, drain: drain::Watch) {
        let mut complained = None;
        let mut until_warning = Duration::ZERO;
        loop {
            if until_warning.is_zero() {
                self.warn_of_expiry();
                until_warning = EXPIRY_REPEAT;
            }
            tokio::select! {
                biased;
                () = drain.signaled() => return,
                () = tokio::time::sleep(RELOAD_EVERY) => {}
            }
            until_warning = until_warning.saturating_sub(RELOAD_EVERY);
            let fresh = self.clone();
            // A disk that hangs shall not hold up a runtime with one thread.
            let Ok(outcome) = tokio::task::spawn_blocking(move || fresh.refresh()).await else { return };
            match outcome {
                Ok(true) => {
                    info!(files = self.files(), "certificates changed; new connections use the new ones");
                    (complained, until_warning) = (None, Duration::ZERO);
                }
                Ok(false) => complained = None,
                Err(error) => {
                    let problem = chain(&error).to_string();
                    if complained.as_ref() != Some(&problem) {
                        warn!(error = problem, "changed certificates cannot be used; those from before stay in use");
                    }
                    complained = Some(problem);
                }
            }
        }
    }

    fn warn_of_expiry(&self) {
        let (Some((left, true)), Some(own)) = (self.left(), &self.inner.recipe.own) else { return };
        let file = own.certificate.path.display();
        if left <= 0 {
            warn!(%file, "the certificate has expired, and nobody will accept it; put a new one in its place");
        } else {
            warn!(%file, seconds_left = left, "the certificate expires soon; put a new one in its place");
        }
    }

    fn files(&self) -> String {
        let Recipe { own, authorities, .. } = &self.inner.recipe;
        let own = own.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
        own.chain(authorities).map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// When a certificate expires; goes along with its reloads. For a metric.
#[derive(Clone)]
pub struct Expiry(Arc<dyn Fn() -> Option<i64> + Send + Sync>);

impl Expiry {
    /// Seconds until then, negative afterwards; none without a certificate.
    pub fn seconds_left(&self) -> Option<i64> {
        (self.0)()
    }
}

impl std::fmt::Debug for Expiry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expiry").field(&self.seconds_left()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soon_is_a_fifth_of_a_life_and_two_weeks_at_most() {
        let day = 24 * 3600;
        let short = Validity { from: 0, until: day };
        assert!(!short.is_short(day / 4));
        assert!(short.is_short(day / 6));
        assert!(short.is_short(-1));
        let long = Validity { from: 0, until: 365 * day };
        assert!(!long.is_short(15 * day));
        assert!(long.is_short(14 * day));
    }
}
