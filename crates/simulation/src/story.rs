//! What happened in a run, line by line, to be read like a story.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// The story of one run. Clones write the same one. Nothing is written unless somebody wants to read it.
#[derive(Debug, Clone)]
pub struct Story {
    begin: Instant,
    lines: Option<Arc<Mutex<Vec<String>>>>,
}

impl Story {
    /// Begins now.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn begin(wanted: bool) -> Self {
        Self { begin: Instant::now(), lines: wanted.then(Arc::default) }
    }

    /// Milliseconds since the beginning.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Somebody did something. `what` is only worked out when the story is wanted.
    pub fn tell(&self, who: &str, what: impl FnOnce() -> String) {
        if let Some(lines) = &self.lines {
            let now = self.now_ms();
            let line = format!("{:>5}.{:03} {who:<10} {}", now / 1000, now % 1000, what());
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    /// Everything told so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines
            .as_ref()
            .map(|lines| lines.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .unwrap_or_default()
    }
}
