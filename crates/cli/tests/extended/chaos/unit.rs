//! A process under a restart policy, as a service manager runs it: whenever it ends it is started again.
//!
//! Owns the processes of one program, one after the other. An agent that was killed is kept as long as its application
//! lives, since that is a descendant of it.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::select;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::stack::Actor;

/// What a service manager waits before it starts again what has ended by itself.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Orders under way: each is waited for, so there is one.
const ORDERS: usize = 1;

struct Kill {
    down: Duration,
    done: oneshot::Sender<()>,
}

/// A handle of it. Dropping it ends everything.
pub(crate) struct Unit {
    kills: mpsc::Sender<Kill>,
    task: JoinHandle<()>,
}

impl Unit {
    pub(crate) fn run(start: impl Fn() -> Actor + Send + 'static) -> Self {
        let (kills, orders) = mpsc::channel(ORDERS);
        Self { kills, task: tokio::spawn(keep_running(start, orders)) }
    }

    /// Kills the process with SIGKILL and starts it again after that time. Returns when it is dead; one that is down
    /// already stays so.
    pub(crate) async fn kill_9(&self, down: Duration) {
        let (done, dead) = oneshot::channel();
        // The task lives as long as this handle.
        if self.kills.send(Kill { down, done }).await.is_ok() {
            let _ended = dead.await;
        }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_running(start: impl Fn() -> Actor, mut kills: mpsc::Receiver<Kill>) {
    let mut earlier: Vec<Actor> = Vec::new();
    loop {
        let mut actor = start();
        let ended: Result<ExitStatus, Kill> = select! {
            status = actor.ended() => Ok(status),
            Some(kill) = kills.recv() => Err(kill),
        };
        let pause = match ended {
            Ok(_status) => RESTART_PAUSE,
            Err(Kill { down, done }) => {
                actor.kill_9().await;
                // Whoever ordered it may have gone on to something else.
                let _gone = done.send(());
                down
            }
        };
        earlier.push(actor);
        earlier.retain(|actor| !actor.family().is_empty());
        let mut rest = Box::pin(sleep(pause));
        loop {
            select! {
                () = &mut rest => break,
                // It is down: there is nothing to kill.
                Some(Kill { done, .. }) = kills.recv() => { let _gone = done.send(()); }
            }
        }
    }
}
