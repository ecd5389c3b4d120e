//! What the application says of itself, and when it is ready.
//!
//! Owns who is believed: members of the run, nobody else. What is said changes what is published, never what is done:
//! only the operating system says that something has ended.

use std::io;

use futures::{FutureExt, StreamExt as _};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::keeper::{Keeper, never};
use crate::{
    application::Ready,
    notify::{Notice, NotifySocket},
    readiness::Probe,
};

/// Messages taken from the notify socket when a process ends, so that its last words are not lost; whoever sent more in
/// the moment of its end has had its say.
const LAST_WORDS_MAX: usize = 64;

impl Keeper {
    pub(super) async fn hear(&mut self, message: io::Result<(i32, Notice)>) {
        let (pid, notice) = match message {
            Ok(message) => message,
            Err(error) => {
                // A broken socket would be readable for ever.
                warn!(%error, "the notify socket broke: the application cannot speak any more");
                self.socket = None;
                return;
            }
        };
        let Some(run) = &mut self.run else { return };
        if !run.recognizes(pid) {
            return debug!(process.pid = pid, "ignored a notification from a process that is not of the application");
        }
        run.has_spoken = true;
        run.main = notice.main_pid.and_then(|pid| run.members.contains_pid(pid)).or(run.main);
        if let Some(status) = notice.status {
            self.present.said = Some(status).filter(|status| !status.is_empty());
        }
        if let Some(errno) = notice.errno {
            let error = io::Error::from_raw_os_error(errno);
            self.present.said = Some(format!("failed: {error}"));
        }
        self.present.stopping |= notice.stopping;
        if let Some(extend) = notice.extend {
            self.present.extend_until = Instant::now().into_std().checked_add(extend);
        }
        if notice.ready {
            self.on_ready(Ready::Notified).await;
        }
    }

    pub(super) async fn hear_last_words(&mut self) {
        for _ in 0..LAST_WORDS_MAX {
            let Some(message) = receive(self.socket.as_mut()).now_or_never() else { return };
            self.hear(message).await;
        }
    }

    pub(super) async fn on_proof(&mut self, ready: Ready) {
        let Some(run) = &mut self.run else { return };
        run.readiness = Box::pin(std::future::pending());
        // Who speaks of itself will also say when it is ready.
        if !(self.config.ready == Probe::Auto && run.has_spoken) {
            self.on_ready(ready).await;
        }
    }

    async fn on_ready(&mut self, ready: Ready) {
        let Some(run) = &mut self.run else { return };
        if run.record.ready.is_some() {
            return;
        }
        info!(epoch = run.record.epoch, readiness = ready.as_str(), "the application is ready");
        run.readiness = Box::pin(std::future::pending());
        if let Err(error) = self.record(|record| record.ready = Some(ready)).await {
            warn!(error = &error as &dyn std::error::Error, "cannot record that the application is ready");
            if let Some(run) = &mut self.run {
                run.record.ready = Some(ready);
            }
        }
    }
}

/// Cancel-safe.
pub(super) async fn receive(socket: Option<&mut NotifySocket>) -> io::Result<(i32, Notice)> {
    match socket {
        Some(socket) => match socket.messages.next().await {
            Some(message) => message,
            None => never().await,
        },
        None => never().await,
    }
}
