//! A production agent on a simulated machine, from its start to its exit code or its crash.

use quiesce_agent::args::Settings;
use quiesce_agent::life::Reach;
use quiesce_runtime::tasks::Tasks;
use tokio::task::JoinHandle;

use super::Machine;

/// An agent that lives. Dropping it kills it as `kill -9` does.
#[derive(Debug)]
pub struct Agent {
    machine: Machine,
    number: u64,
    tasks: Tasks,
    life: JoinHandle<u8>,
}

impl Agent {
    /// Begins a life on `machine`; any agent before it is dead by then.
    pub fn start(machine: &Machine, settings: Settings, reach: Reach) -> Self {
        let (host, number) = machine.begin_agent();
        let (tasks, home) = (Tasks::new(), machine.clone());
        let work = tasks.clone();
        // Not one of its own tasks, whose end it waits for.
        let life = tokio::spawn(async move {
            let code = quiesce_agent::live(settings, reach, &host, &work).await;
            home.end_agent(number);
            code
        });
        Self { machine: machine.clone(), number, tasks, life }
    }

    /// Waits until it has ended: with its exit code, or `None` if it was killed, also by a fate of its disk.
    pub async fn ended(mut self) -> Option<u8> {
        let mut living = self.machine.living_agent();
        let number = self.number;
        tokio::select! {
            biased; // one that has ended does not live either
            // It panics where a process would abort.
            code = &mut self.life => code.ok(),
            // The sender lives as long as the machine.
            _ = living.wait_for(|living| *living != Some(number)) => None,
        }
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        *self.machine.living_agent().borrow() == Some(self.number)
    }

    /// Kills it.
    pub fn crash(self) {}
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.machine.end_agent(self.number);
        self.life.abort();
        self.tasks.abort();
    }
}
