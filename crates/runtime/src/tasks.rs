//! Tasks with a name and an owner.
//!
//! Every task of a process is spawned here: its end is awaited at shutdown, a panic is logged instead of vanishing
//! with a dropped handle, and what did not end in time is named. It does not tell tasks to end (see [`crate::drain`])
//! before the limit given to [`Tasks::shutdown`] is over.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug_span, error};

/// After aborting, a task ends at its next await point; one that has none for this long is stuck in a computation,
/// and waiting longer would not help.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// The tasks of one process or component. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    running: Arc<Running>,
}

/// Tasks were still running when the wait was over; they were aborted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tasks did not end within {limit:?}: {}", names.join(", "))]
pub struct UnfinishedError {
    /// The names of the tasks, sorted; one entry per task.
    pub names: Vec<String>,
    /// How long they were waited for.
    pub limit: Duration,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` as a task of the current runtime under `name`, in a span that carries the name when somebody looks closely
    /// enough to want it: thousands of tasks wait at any time, and a span for each costs more than most of them.
    ///
    /// The task runs on when the returned [`Task`] is dropped: it stays owned here.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn<T, F>(&self, name: impl Into<String>, work: F) -> Task<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let name = Arc::<str>::from(name.into());
        let span = debug_span!("task", task.name = %name);
        let panicked = Arc::clone(&name);
        let entry = Running::enter(&self.running, name);
        let id = entry.id;
        let handle = tokio::spawn(
            self.tracker.track_future(
                async move {
                    let outcome = AssertUnwindSafe(work).catch_unwind().await;
                    drop(entry);
                    let tell = |panic: Box<dyn Any + Send>| {
                        error!(task.name = %panicked, panic = message(panic.as_ref()), "task panicked");
                    };
                    outcome.map_err(tell).ok()
                }
                .instrument(span),
            ),
        );
        self.running.set_abort_handle(id, handle.abort_handle());
        Task { handle }
    }

    /// How many tasks are running.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task is running.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Aborts every task at its next await point, and waits for nothing: what a crash of the process does.
    pub fn abort(&self) {
        // Whoever crashes has nobody to tell what was lost.
        let _names = self.running.abort_all();
    }

    /// Waits until every task has ended, at most `limit`; then aborts the rest and names them in the error. Tasks
    /// spawned meanwhile are waited for as well.
    pub async fn shutdown(&self, limit: Duration) -> Result<(), UnfinishedError> {
        self.tracker.close();
        if tokio::time::timeout(limit, self.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        let names = self.running.abort_all();
        // Whether or not the aborted tasks end in time, the caller learns the same: they did not end by themselves.
        let _aborted = tokio::time::timeout(ABORT_LIMIT, self.tracker.wait()).await;
        // Between the timeout and the abort the last task may have ended by itself.
        if names.is_empty() { Ok(()) } else { Err(UnfinishedError { names, limit }) }
    }
}

/// One spawned task.
#[derive(Debug)]
pub struct Task<T> {
    handle: JoinHandle<Option<T>>,
}

impl<T> Task<T> {
    /// Waits for the result; `None` when the task panicked (logged already) or was aborted. Cancel-safe in so far as
    /// dropping this future leaves the task running.
    pub async fn join(self) -> Option<T> {
        // The join error says no more than the `None`: panics are caught inside, what remains is an abort.
        self.handle.await.ok().flatten()
    }

    /// Ends the task at its next await point.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// Whether the task has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

/// Who is running, so that a shutdown that took too long can name and abort them.
#[derive(Debug, Default)]
struct Running {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    entries: BTreeMap<u64, (Arc<str>, Option<AbortHandle>)>,
}

impl Running {
    fn enter(running: &Arc<Self>, name: Arc<str>) -> Entry {
        let mut state = running.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.entries.insert(id, (name, None));
        Entry { id, running: Arc::clone(running) }
    }

    /// Comes after the spawn, without the lock held over it: a runtime that is shutting down drops the task, and with
    /// it the entry, inside `spawn`.
    fn set_abort_handle(&self, id: u64, handle: AbortHandle) {
        if let Some((_, slot)) = self.lock().entries.get_mut(&id) {
            *slot = Some(handle);
        }
    }

    fn abort_all(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (name, handle) in self.lock().entries.values() {
            names.push(name.to_string());
            if let Some(handle) = handle {
                handle.abort();
            }
        }
        names.sort();
        names
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Present among the running while it lives; moved into the task, so that an abort removes it too.
struct Entry {
    id: u64,
    running: Arc<Running>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.running.lock().entries.remove(&self.id);
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is not text")
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const PLENTY: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn join_returns_what_the_task_returned() {
        let tasks = Tasks::new();
        assert_eq!(tasks.spawn("answer", async { 42 }).join().await, Some(42));
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_and_nothing_else() {
        let tasks = Tasks::new();
        let bad = tasks.spawn("bad", async { panic!("on purpose") });
        let good = tasks.spawn("good", async { "still here" });
        assert_eq!(bad.join().await, None::<()>);
        assert_eq!(good.join().await, Some("still here"));
        tasks.shutdown(PLENTY).await.unwrap();
    }

    #[tokio::test]
    async fn shutdown_awaits_tasks_whose_handles_were_dropped() {
        let tasks = Tasks::new();
        let (send, receive) = tokio::sync::oneshot::channel();
        drop(tasks.spawn("receiver", async move { receive.await.unwrap() }));
        drop(tasks.spawn("sender", async move { send.send(()).unwrap() }));
        tasks.shutdown(PLENTY).await.unwrap();
        assert!(tasks.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_names_and_aborts_what_does_not_end() {
        let tasks = Tasks::new();
        let dropped = Arc::new(());
        let witness = Arc::clone(&dropped);
        tasks.spawn("watcher", async move {
            pending::<()>().await;
            drop(witness);
        });
        tasks.spawn("committer", pending::<()>());
        tasks.spawn("quick", async {});
        let error = tasks.shutdown(PLENTY).await.unwrap_err();
        assert_eq!(error.names, ["committer", "watcher"]);
        assert_eq!(error.to_string(), "tasks did not end within 10s: committer, watcher");
        assert!(tasks.is_empty());
        assert_eq!(Arc::strong_count(&dropped), 1);
    }

    #[tokio::test]
    async fn an_aborted_task_is_forgotten() {
        let tasks = Tasks::new();
        let task = tasks.spawn("stuck", pending::<()>());
        task.abort();
        assert_eq!(task.join().await, None);
        tasks.shutdown(PLENTY).await.unwrap();
    }
}
