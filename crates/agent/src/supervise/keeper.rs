//! The one task that owns a supervised application.
//!
//! Owns the run, the hold, the notify socket, the published status. Everything that happens comes through [`Event`], one
//! at a time, and is written to the journal before it is done. How it is told to stop stands in `stopping`, what
//! it says of itself in `hearing`, what its script has to do with it in `script`.

use std::{
    convert::Infallible,
    ffi::OsString,
    io,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};
use quiesce_runtime::tasks::Tasks;
use quiesce_runtime::trace_context::TraceContext;
use tokio::{
    select,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::{debug, error, info, warn};

use quiesce_mutation::{Mutant, active};

use super::{
    Config, OpenError, Order, check,
    hearing::receive,
    run::{self, Found, Leader, LiveRun},
    script::{Heard, ScriptSide},
};
use crate::hook::chronicle::operation_id;
use crate::{
    application::{
        AppState, AppStatus, Capabilities, End, Evidence, Hold, HoldError, HoldKind, HoldOrder, KillError, Permission,
        Ready, StartError, StartOrder,
    },
    delegate::callback::Callback,
    hold::{self, HoldFile},
    host::{Host, Launch},
    id,
    journal::{self, Journal, WriteError},
    notify::{Notice, NotifySocket},
    process::{
        Identity,
        boot::{self, BootTime},
        membership::MARKER,
        signal::Signal,
    },
};

/// Rounds of looking and killing within one order: each finds the children of the one before. What is left after them
/// is killed at the rescans.
const KILL_ROUNDS_MAX: usize = 8;

pub(super) struct Keeper {
    pub(super) config: Config,
    pub(super) journal: Journal,
    hold_file: HoldFile,
    pub(super) socket: Option<NotifySocket>,
    orders: mpsc::Receiver<Order>,
    child_signal: BoxStream<'static, ()>,
    is_subreaper: bool,
    pub(super) run: Option<LiveRun>,
    /// The running stop command; completes with what there is to say about it.
    pub(super) stop_command: Option<BoxFuture<'static, String>>,
    /// What connects us with the application's script, if that is how it is told to stop.
    pub(super) script: Option<ScriptSide>,
    /// What is known, as it will be published next.
    pub(super) present: AppStatus,
    published: watch::Sender<AppStatus>,
}

enum Event {
    Order(Order),
    Message(io::Result<(i32, Notice)>),
    ProcessEnded,
    ChildEnded,
    Ready(Ready),
    StopCommand(String),
    Script(Heard),
    Deadline,
    NobodyLeft,
}

impl Keeper {
    pub(super) async fn open(
        config: Config,
        journal: Journal,
        orders: mpsc::Receiver<Order>,
        tasks: &Tasks,
    ) -> Result<(Self, watch::Receiver<AppStatus>, Capabilities), OpenError> {
        if config.command.is_empty() {
            return Err(OpenError::NoCommand);
        }
        let host = journal.host().clone();
        let hold_file = HoldFile::new(Arc::clone(&host.files), journal.directory());
        let hold = hold_file.load()?;
        let is_subreaper = host.processes.become_subreaper();
        if !is_subreaper {
            warn!("cannot become a subreaper: ends will be known less well");
        }
        let child_signal = host.signals.of_children().map_err(OpenError::Processes)?;
        let contents = journal.contents();
        let mut present = AppStatus { epoch: contents.epoch, hold, ..AppStatus::default() };
        let mut run = None;
        if let Some(mut record) = contents.run {
            present.epoch = record.epoch;
            present.start_time = Some(UNIX_EPOCH + Duration::from_millis(record.start_time_ms));
            if record.end.is_none() {
                match run::find(&host, &record, &config).map_err(OpenError::Processes)? {
                    Found::Alive(found) => {
                        info!(epoch = record.epoch, processes = found.members.count(), "found the application again");
                        run = Some(*found);
                    }
                    Found::Over(end) => {
                        info!(epoch = record.epoch, "the application {}", end.message);
                        record.end = Some(end);
                        let record = record.clone();
                        let write = journal.update(move |contents| contents.run = Some(record));
                        write.await.map_err(OpenError::Journal)?;
                    }
                }
            }
            present.end = record.end.filter(|_| run.is_none());
        }
        let socket = match run.as_ref().and_then(|run| run.record.notify_socket.as_deref()) {
            Some(path) => host.notifications.bind_at(path),
            None => host.notifications.bind(journal.directory(), &contents.agent_id),
        };
        let socket = socket
            .inspect_err(|error| warn!(error = error as &dyn std::error::Error, "the application cannot speak"))
            .ok();
        let capabilities = Capabilities {
            check: true,
            kill: true,
            hold: true,
            start: true,
            settle: true,
            extend: socket.is_some(),
            durable: true,
        };
        let (published, status) = watch::channel(present.clone());
        let script = ScriptSide::new(&config.stop, tasks);
        let mut keeper = Self {
            config,
            journal,
            hold_file,
            socket,
            orders,
            child_signal,
            is_subreaper,
            run,
            stop_command: None,
            script,
            present,
            published,
        };
        keeper.hear_script_again().await;
        keeper.resume();
        keeper.publish();
        Ok((keeper, status, capabilities))
    }

    pub(super) fn host(&self) -> &Host {
        self.journal.host()
    }

    /// Goes on with a run that was found again.
    fn resume(&mut self) {
        let Some(run) = &mut self.run else { return };
        if run.record.ready.is_none() {
            let variables = helper_variables(&run.record);
            run.readiness = Box::pin(self.config.ready.clone().prove(self.journal.host().clone(), variables));
        }
        self.resume_stop();
    }

    pub(super) async fn work(mut self) {
        loop {
            match self.next().await {
                Event::NobodyLeft => return,
                event => self.handle(event).await,
            }
        }
    }

    async fn next(&mut self) -> Event {
        let deadline = self.run.as_ref().and_then(LiveRun::next_deadline);
        let (members, readiness) = match &mut self.run {
            Some(run) => (Some(&mut run.members), Some(&mut run.readiness)),
            None => (None, None),
        };
        // Every branch is cancel-safe: streams and channels, and futures that are kept when they are not done. First what
        // comes once or seldom, then orders, whose givers wait for the answer; last what an application can keep busy.
        // The end of a process is also an occasion to hear and to reap, so that none of those three starves another.
        select! {
            biased;
            () = async { match deadline { Some(deadline) => sleep_until(deadline).await, None => never().await } } => {
                Event::Deadline
            }
            said = async { match &mut self.stop_command { Some(command) => command.await, None => never().await } } => {
                Event::StopCommand(said)
            }
            ready = async { match readiness { Some(readiness) => readiness.await, None => never().await } } => {
                Event::Ready(ready)
            }
            order = self.orders.recv() => order.map_or(Event::NobodyLeft, Event::Order),
            () = async { match members { Some(members) => members.next_end().await, None => never().await } } => {
                Event::ProcessEnded
            }
            Some(()) = self.child_signal.next() => Event::ChildEnded,
            heard = async { match &mut self.script { Some(script) => script.next().await, None => never().await } } => {
                Event::Script(heard)
            }
            message = receive(self.socket.as_mut()) => Event::Message(message),
        }
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Order(order) => self.obey(order).await,
            Event::Message(message) => self.hear(message).await,
            Event::ProcessEnded => {
                self.hear_last_words().await;
                // Somebody waits for what is found; zombies change nothing about that, and can wait themselves.
                let has_children = self.child_signal.next().now_or_never().is_some();
                self.look().await;
                if has_children {
                    self.reap_orphans();
                }
            }
            Event::ChildEnded => {
                self.reap_orphans();
                self.hear_last_words().await;
            }
            Event::Ready(ready) => self.on_proof(ready).await,
            Event::StopCommand(said) => {
                self.stop_command = None;
                self.present.message = said;
            }
            Event::Script(Heard::News) => {}
            Event::Script(Heard::Report(report)) => self.on_report(report).await,
            Event::Deadline => self.on_deadline().await,
            Event::NobodyLeft => {}
        }
        self.publish();
    }

    async fn obey(&mut self, order: Order) {
        // Nobody waits for an answer when the reply cannot be sent; what was ordered is done all the same.
        match order {
            Order::Check(reply) => {
                self.look().await;
                let (run, stop) = (self.run.as_ref(), &self.config.stop);
                let mut findings = check::check(self.host(), run, stop, &self.config.path);
                self.check_script(&mut findings).await;
                let _ = reply.send(findings);
            }
            Order::Hold(order, reply) => {
                let result = self.hold(order).await;
                self.publish();
                let _ = reply.send(result);
            }
            Order::Stop(order, reply) => {
                let result = self.stop(order).await;
                self.publish();
                let _ = reply.send(result);
            }
            Order::Kill(reply) => {
                let result = self.kill().await;
                self.publish();
                let _ = reply.send(result);
            }
            Order::Start(order, reply) => {
                let result = self.start(order).await;
                self.publish();
                let _ = reply.send(result);
            }
            Order::Retire(reply) => {
                let result = self.retire().await;
                self.publish();
                let _ = reply.send(result);
            }
            Order::Forward(signal) => self.forward(signal),
        }
    }

    fn reap_orphans(&self) {
        if let Err(error) = self.host().processes.reap_orphans() {
            warn!(%error, "cannot reap orphans");
        }
    }

    fn forward(&self, signal: Signal) {
        if let Some(run) = &self.run
            && let Err(reason) = run.tell(signal)
        {
            warn!(%reason, "cannot pass a signal on");
        }
    }

    async fn hold(&mut self, order: HoldOrder) -> Result<(), HoldError> {
        if active(Mutant::HoldForgotten) {
            return Ok(());
        }
        let same = |hold: &Hold| {
            let asked = (&order.operation, order.kind, order.epoch);
            hold.deleted || (&hold.operation, hold.kind, hold.epoch) == asked
        };
        if !self.present.hold.as_ref().is_some_and(same) {
            let hold = hold::ordered(order.clone(), &*self.host().machine.clocks);
            debug!(
                operation.id = operation_id(&hold.operation),
                epoch = hold.epoch,
                kind = hold.kind.as_str(),
                "holding: nothing starts the application from now on"
            );
            self.put_hold(hold).await?;
        }
        let revoke = move |contents: &mut journal::Contents| {
            contents.epoch = contents.epoch.max(order.epoch);
            contents.revoked = contents.epoch;
        };
        self.journal.update(revoke).await.map_err(|error| HoldError::NotDurable(error.into()))
    }

    async fn retire(&mut self) -> Result<(), HoldError> {
        let hold = self.present.hold.clone().unwrap_or_else(|| {
            let epoch = self.present.epoch;
            let order = HoldOrder { operation: String::new(), kind: HoldKind::Delete, epoch };
            hold::ordered(order, &*self.host().machine.clocks)
        });
        if hold.deleted { Ok(()) } else { self.put_hold(Hold { deleted: true, ..hold }).await }
    }

    async fn put_hold(&mut self, hold: Hold) -> Result<(), HoldError> {
        let written = self.hold_file.put(hold.clone()).await;
        written.map_err(|error| HoldError::NotDurable(error.into()))?;
        self.present.hold = Some(hold);
        Ok(())
    }

    async fn start(&mut self, order: StartOrder) -> Result<(), StartError> {
        self.look().await;
        if let Some(run) = &self.run {
            return Err(StartError::StillRunning { processes: run.members.count(), epoch: run.record.epoch });
        }
        let epoch = self.permitted(order.permission)?;
        let run_id = id::fresh(&self.host().machine).to_string();
        let mut variables = self.variables(&order, epoch, &run_id);
        variables.extend(
            order.trace.iter().flat_map(TraceContext::variables).map(|(name, value)| (name.into(), value.into())),
        );
        let mut callback = None;
        if let Some(script) = &mut self.script {
            let (opened, found) = script.open(&self.journal.host().machine, &order.application).await?;
            callback = Some(opened);
            variables.extend(found.map(|(name, value)| (name.into(), value.into())));
        }
        let mut withheld = self.config.withheld.clone();
        withheld.push("NOTIFY_SOCKET".into());
        let (program, arguments) = (self.config.command[0].clone(), self.config.command[1..].to_vec());
        let command = program.to_string_lossy().into_owned();
        let launch = Launch { program, arguments, withheld, variables };
        let waiting = self.host().processes.spawn(&launch);
        let waiting = waiting.map_err(|source| StartError::Spawn { command: command.clone(), source })?;
        let record = self.prepare(epoch, run_id, waiting.identity(), callback);
        let record = record.map_err(|error| StartError::NotDurable(error.into()))?;
        let not_durable = |error: WriteError| StartError::NotDurable(error.into());
        let written = record.clone();
        let write = self.journal.update(move |contents| {
            contents.epoch = epoch;
            contents.run = Some(written);
        });
        if active(Mutant::StartsBeforeJournal) {
            drop(write);
        } else {
            write.await.map_err(not_durable)?;
        }
        // After the epoch is used up: should we die in between, the hold stays and the epoch is not used twice.
        self.hold_file.clear().await.map_err(|error| StartError::NotDurable(error.into()))?;
        self.present =
            AppStatus { epoch, start_time: Some(boot::wall(&*self.host().machine.clocks)), ..AppStatus::default() };

        let process = match waiting.go().await {
            Ok(process) => process,
            Err(source) => {
                let why = format!("was never started: cannot execute {command}: {source}");
                let end = run::end(&record, Evidence::GroupEmpty, &self.config, Some(why.clone()));
                self.over(record, end).await;
                // What never ran has not ended. Only the journal keeps it, lest the next life look for it.
                self.present.end = None;
                self.present.message = why;
                return Err(StartError::Spawn { command, source });
            }
        };
        info!(epoch, process.pid = process.identity().pid, "started the application");
        let leader = Leader::Child { process, exit: None, is_subreaper: self.is_subreaper };
        let processes = Arc::clone(&self.host().processes);
        let mut run = LiveRun::new(record, leader, processes, self.is_subreaper);
        let proof = self.config.ready.clone().prove(self.host().clone(), helper_variables(&run.record));
        run.readiness = Box::pin(proof);
        self.run = Some(run);
        self.look().await;
        Ok(())
    }

    /// The epoch to run under, if the permission is good.
    fn permitted(&self, permission: Permission) -> Result<u64, StartError> {
        let contents = self.journal.contents();
        match (&self.present.hold, permission) {
            (Some(hold), _) if hold.deleted => Err(StartError::Deleted { message: self.hold_file.note(hold) }),
            (_, Permission::New(epoch)) if epoch > contents.epoch || active(Mutant::EpochIgnored) => Ok(epoch),
            (_, Permission::New(epoch)) => Err(StartError::Outdated { epoch, highest: contents.epoch }),
            (Some(hold), Permission::Standing | Permission::Unfenced) => Err(StartError::Held(hold.clone())),
            (None, Permission::Standing) if contents.has_standing_permission() => Ok(contents.epoch),
            (None, Permission::Standing) => Err(StartError::NoPermission),
            (None, Permission::Unfenced) => Ok(contents.epoch),
        }
    }

    /// What the journal says of the run that is about to begin.
    fn prepare(
        &self,
        epoch: u64,
        run_id: String,
        leader: Identity,
        callback: Option<Callback>,
    ) -> io::Result<journal::Run> {
        let Host { machine, processes, .. } = self.host();
        Ok(journal::Run {
            run_id,
            epoch,
            leader,
            started: BootTime::now(&*machine.clocks)?,
            start_time_ms: machine.clocks.wall_ms(),
            namespace: processes.namespace()?,
            agent_was_init: processes.own_pid() == 1,
            notify_socket: self.socket.as_ref().map(|socket| socket.path.clone()),
            callback,
            ready: None,
            exit: None,
            told: None,
            killed: false,
            end: None,
        })
    }

    /// What the application finds in its environment.
    fn variables(&self, order: &StartOrder, epoch: u64, run_id: &str) -> Vec<(OsString, OsString)> {
        let mut variables: Vec<(&str, OsString)> = vec![
            ("QUIESCE_APPLICATION", order.application.clone().into()),
            ("QUIESCE_INSTANCE", order.instance.clone().into()),
            ("QUIESCE_CLUSTER", order.cluster.clone().into()),
            ("QUIESCE_EPOCH", epoch.to_string().into()),
            (MARKER, run_id.into()),
        ];
        variables.extend(self.socket.as_ref().map(|socket| ("NOTIFY_SOCKET", socket.path.clone().into())));
        variables.into_iter().map(|(name, value)| (name.into(), value)).collect()
    }

    async fn kill(&mut self) -> Result<(), KillError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        run.is_killing = true;
        if let Err(error) = self.record(|record| record.killed = true).await {
            // Killing does not wait for a full disk: only the remark that it was killed could be lost.
            warn!(error = &error as &dyn std::error::Error, "cannot record the kill");
            if let Some(run) = &mut self.run {
                run.record.killed = true;
            }
        }
        let mut result = Ok(());
        let mut before = Vec::new();
        for _ in 0..KILL_ROUNDS_MAX {
            self.look().await; // kills whom it finds
            let Some(run) = &self.run else { return Ok(()) };
            let members: Vec<_> = run.members.iter().collect();
            result = run.tell_all(Signal::KILL).map_err(|reason| KillError::Refused { reason });
            if members.iter().all(|member| before.contains(member)) {
                break;
            }
            before = members;
        }
        result
    }

    /// Looks at the processes of the run, and notices its end.
    pub(super) async fn look(&mut self) {
        let Some(run) = &mut self.run else { return };
        let lives = match run.look() {
            Ok(lives) => lives,
            Err(error) => return warn!(%error, "cannot look at the processes of the application"),
        };
        if lives {
            return self.on_alive().await;
        }
        if let Some(run) = self.run.take() {
            let (record, end) = run.conclude(&self.config);
            info!(
                epoch = record.epoch,
                evidence = end.evidence.as_str(),
                killed = end.killed,
                "the application {}",
                end.message
            );
            self.over(record, end).await;
        }
    }

    async fn on_alive(&mut self) {
        let Some(run) = &mut self.run else { return };
        if run.is_killing
            && let Err(reason) = run.tell_all(Signal::KILL)
        {
            warn!(%reason, "cannot kill");
        }
        if run.leader_lives() {
            return;
        }
        let exit = run.exit();
        if exit.is_some() && run.record.exit != exit {
            info!(processes = run.members.count(), "the first process {}, others live on", run::describe(exit));
            if let Err(error) = self.record(|record| record.exit = exit).await {
                warn!(error = &error as &dyn std::error::Error, "cannot record the exit of the first process");
            }
        }
        self.plan_rest();
    }

    /// Nothing of the run is left.
    async fn over(&mut self, mut record: journal::Run, end: End) {
        record.end = Some(end.clone());
        if let Some(script) = &mut self.script {
            script.close();
        }
        // The next life of this agent finds out by itself that nothing is left, only less exactly.
        if let Err(error) = self.journal.update(move |contents| contents.run = Some(record)).await {
            error!(error = &error as &dyn std::error::Error, "cannot record the end of the application");
        }
        let AppStatus { epoch, start_time, said, stopping, hold, .. } = std::mem::take(&mut self.present);
        self.present = AppStatus { epoch, start_time, said, stopping, hold, end: Some(end), ..AppStatus::default() };
    }

    async fn on_deadline(&mut self) {
        let now = Instant::now();
        let Some(run) = &mut self.run else { return };
        if run.rescan_at.is_some_and(|at| at <= now) {
            run.rescan_at = None;
            self.look().await;
        }
        self.on_stop_deadline(now).await;
    }

    /// Changes the record of the run, durably.
    pub(super) async fn record(&mut self, change: impl FnOnce(&mut journal::Run)) -> Result<(), WriteError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let mut record = run.record.clone();
        change(&mut record);
        let written = record.clone();
        self.journal.update(move |contents| contents.run = Some(written)).await?;
        run.record = record;
        Ok(())
    }

    fn publish(&mut self) {
        let present = &mut self.present;
        match &self.run {
            Some(run) => {
                present.state = run.state();
                present.epoch = run.record.epoch;
                present.start_time = Some(run.start_time());
                present.pid = u32::try_from(run.record.leader.pid).ok();
                present.ready = run.record.ready;
                present.processes = run.members.count();
                present.end = None;
                let script = self.script.as_ref().and_then(|script| script.describe(run.record.told.as_ref()?));
                if !run.leader_lives() {
                    let exit = run::describe(run.exit());
                    let who = run.members.describe();
                    let before = script.map(|script| format!("{script}; ")).unwrap_or_default();
                    present.message = format!("{before}the first process {exit}; {} left: {who}", run.members.count());
                } else if let Some(script) = script {
                    present.message = script;
                }
            }
            None => {
                present.state = if present.hold.is_some() { AppState::Held } else { AppState::Stopped };
            }
        }
        self.published.send_if_modified(|published| {
            let changed = published != present;
            if changed {
                published.clone_from(present);
            }
            changed
        });
    }
}

pub(super) async fn never<T>() -> T {
    match std::future::pending::<Infallible>().await {}
}

/// What helper commands find in their environment.
pub(super) fn helper_variables(record: &journal::Run) -> Vec<(String, String)> {
    vec![
        ("QUIESCE_EPOCH".to_owned(), record.epoch.to_string()),
        ("QUIESCE_PID".to_owned(), record.leader.pid.to_string()),
    ]
}
