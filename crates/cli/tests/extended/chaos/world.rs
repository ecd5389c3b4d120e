//! The world that is struck: a scheduler, two clusters with an agent and a Redis each on one data directory, a network
//! between them, a client that writes, a census. Performs the strikes, and checks after each migration what holds
//! whatever was struck.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use quiesce_protocol::v1::failure::Reason;
use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::{Operation, instance};
use quiesce_testkit::eventually;
use quiesce_testkit::port::FreePort;
use quiesce_testkit::proxy::{Mode, TcpProxy};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::plan::{Fault, Moment, Side, Strike};
use super::tally::Tally;
use super::unit::Unit;
use crate::census::{Census, kill_9, running};
use crate::program::Program;
use crate::redis::redis;
use crate::stack::{SOON, Stack};
use crate::writer::{Client, Writer, server_is_ready};

/// Of the clusters and, with `-0`, their instances.
const NAMES: [&str; 2] = ["a", "b"];

/// Patience is short, so that attempts fail while something is away and not only afterwards.
const APPLICATION: &str = "kind: Application\nname: db\ncluster: a\nplacement: {agents: {}}\n\
    policy: {gracePeriod: 8s, heartbeatTimeout: 2s, acceptTimeout: 2s, startTimeout: 10s,\
    retry: {maxAttempts: 3, initialBackoff: 0.2s}}\n";

/// What Redis has acknowledged is on disk, whoever is killed next; and it writes down what it is told.
const DURABLE: [&str; 8] = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--logfile", "redis.log"];

/// Pause of the client after each write: some hundred a second, so that a long run ends with a data set that still
/// loads in a moment.
const WRITE_PAUSE: Duration = Duration::from_millis(2);

/// An operation has ended or rests by then: three attempts of a grace each, the start, and the way back.
const RESTS: Duration = Duration::from_secs(90);

/// Everything that was down is back by then: an agent that found no scheduler several times in a row dials again after 36 s.
const BACK: Duration = Duration::from_secs(80);

/// How often the advice is followed until it is no good advice.
const ADVICE_MAX: usize = 4;

/// Longest look at where an operation stands before it is struck.
const GLANCE: Duration = Duration::from_millis(100);

pub(crate) struct World {
    stack: Stack,
    program: Program,
    ports: [FreePort; 2],
    proxies: [TcpProxy; 2],
    scheduler: Unit,
    agents: [Unit; 2],
    census: Census,
    writer: Writer,
    /// Where the application is.
    home: usize,
    /// So many writes were looked for already.
    looked_for: usize,
    /// So many lines of the log of Redis were read.
    log_read: usize,
    story: Story,
    struck_in: RefCell<Vec<String>>,
    tally: Tally,
}

/// A migration that was said yes to.
struct Accepted {
    name: String,
    at: Instant,
}

/// What happened in the present migration, shown when the test fails.
#[derive(Default)]
struct Story(RefCell<Vec<String>>);

impl Story {
    fn tell(&self, began: Instant, line: impl std::fmt::Display) {
        self.0.borrow_mut().push(format!("{:7.3} {line}", began.elapsed().as_secs_f64()));
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the story of this migration\n{}", self.0.borrow().join("\n"));
        }
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        let stack = Stack::unstarted();
        fs::create_dir_all(stack.path("data")).unwrap();
        let program = Program::new(&stack);
        let ports = [FreePort::claim(), FreePort::claim()];
        let numbers = [ports[0].number(), ports[1].number()];
        let census = Census::start("redis-server", stack.path(""), numbers.to_vec());
        let scheduler = stack.scheduler_program();
        let scheduler = Unit::run(move || scheduler.start());
        eventually("the scheduler to answer", SOON, || async {
            let ran = stack.quiesce(&["get", "operations"]).await;
            if ran.code == Some(0) { Ok(()) } else { Err(ran.stderr) }
        })
        .await;
        stack.apply(APPLICATION).await;
        let proxies = [stack.proxy().await, stack.proxy().await];
        let agents = [0, 1].map(|cluster| {
            let agent = stack.agent(NAMES[cluster], &format!("{}-0", NAMES[cluster])).through(&proxies[cluster]);
            let agent = if cluster == 0 { agent } else { agent.standby() };
            let agent = agent.running(program.locked(&redis(numbers[cluster], &stack.path("data"), &DURABLE)));
            Unit::run(move || agent.start())
        });
        server_is_ready(numbers[0]).await;
        let writer = Writer::start(numbers, WRITE_PAUSE);
        let (story, struck_in, tally) = (Story::default(), RefCell::default(), Tally::default());
        let (home, looked_for, log_read) = (0, 0, 0);
        let world = Self {
            stack,
            program,
            ports,
            proxies,
            scheduler,
            agents,
            census,
            writer,
            home,
            looked_for,
            log_read,
            story,
            struck_in,
            tally,
        };
        world.is_back().await;
        world
    }

    /// Moves the application to the other cluster, strikes, and sees to it that all comes out well.
    pub(crate) async fn migrate(&mut self, label: &str, strikes: Vec<Strike>) {
        self.story.0.borrow_mut().clear();
        let began = Instant::now();
        self.story.tell(began, format_args!("migration {label}, from {}", NAMES[self.home]));
        let (yes, accepted) = watch::channel(None);
        let (name, ()) = tokio::join!(self.request(label, began, yes), self.strike(&strikes, began, accepted));
        let mut attempts = BTreeMap::new();
        let mut advised = 0;
        let last = loop {
            let rest = self.rests(&name).await;
            self.story.tell(began, format_args!("{:?}: {} {}", rest.state(), rest.message, rest.advice));
            for member in &rest.instances {
                let short = member.instance.rsplit('/').next().unwrap_or_default();
                *attempts.entry(short.to_owned()).or_default() += member.attempt;
            }
            if let Some(failure) = &rest.failure {
                let reason = failure.reason();
                assert!(explains(&strikes, reason), "nothing that was struck leads to {reason:?}: {rest:#?}");
            }
            if rest.done {
                break rest;
            }
            Tally::count(&mut self.tally.degraded, format!("{:?}", rest.failure.as_ref().map(|why| why.reason())));
            advised += 1;
            assert!(advised <= ADVICE_MAX, "following the advice leads nowhere: {rest:#?}");
            self.follow_advice(&rest, began).await;
        };
        self.home = match last.state() {
            State::Succeeded => 1 - self.home,
            State::RolledBack => self.home,
            other => panic!("nobody asked for {other:?}: {last:#?}"),
        };
        let ended = began.elapsed();
        self.is_back().await;
        self.story.tell(began, "all is back");
        self.check(&attempts).await;
        self.tally.durations.push(ended);
        self.tally.recoveries.push(began.elapsed() - ended);
        Tally::count(&mut self.tally.outcomes, format!("{:?}", last.state()));
        for strike in strikes {
            *self.tally.strikes.entry(strike.fault.kind()).or_default() += 1;
        }
        for state in self.struck_in.take() {
            Tally::count(&mut self.tally.struck_in, state);
        }
    }

    /// Asks until the scheduler has said yes: asking again is asking once.
    async fn request(&self, label: &str, began: Instant, yes: watch::Sender<Option<Accepted>>) -> String {
        let to = NAMES[1 - self.home];
        let id = format!("chaos-{}", label.replace(' ', "-"));
        let args = ["migrate", "db", "--to", to, "--request-id", &id, "--detach", "-o", "json"];
        let accepted = eventually("the migration to be accepted", RESTS, || async {
            let ran = self.stack.quiesce(&args).await;
            if ran.code == Some(0) { Ok(ran.json()) } else { Err(format!("{}{}", ran.stdout, ran.stderr)) }
        });
        let name = accepted.await["name"].as_str().expect("an operation has a name").to_owned();
        self.story.tell(began, format_args!("{name} is accepted"));
        yes.send_replace(Some(Accepted { name: name.clone(), at: Instant::now() }));
        name
    }

    /// Strikes one after the other; what is counted from the acceptance waits for it.
    async fn strike(&self, strikes: &[Strike], began: Instant, accepted: watch::Receiver<Option<Accepted>>) {
        let mut again: Vec<(Instant, usize)> = Vec::new();
        for strike in strikes {
            let at = match strike.at {
                Moment::Asked(after) => began + after,
                Moment::Accepted(after) => {
                    let mut accepted = accepted.clone();
                    // The sender stays until it has sent; a request that fails ends the test.
                    let Ok(at) = accepted.wait_for(Option::is_some).await.map(|yes| yes.as_ref().map(|yes| yes.at))
                    else {
                        return;
                    };
                    at.unwrap_or(began) + after
                }
            };
            self.pass_until(at, &mut again, began).await;
            let cluster = match strike.fault {
                Fault::Agent { side, .. } | Fault::Reset { side } | Fault::Network { side, .. } => self.cluster(side),
                Fault::Scheduler { .. } | Fault::Application => self.home,
            };
            let name = accepted.borrow().as_ref().map(|yes| yes.name.clone());
            let state = self.glance(name).await;
            self.story.tell(began, format_args!("{} ({}, {state})", strike.fault, NAMES[cluster]));
            self.struck_in.borrow_mut().push(state);
            match strike.fault {
                Fault::Scheduler { down } => self.scheduler.kill_9(down).await,
                Fault::Agent { down, .. } => self.agents[cluster].kill_9(down).await,
                Fault::Application => {
                    running("redis-server", &self.stack.path("")).into_iter().for_each(kill_9);
                }
                Fault::Reset { .. } => self.proxies[cluster].cut_connections(),
                Fault::Network { mode, lasts, .. } => {
                    self.proxies[cluster].set_mode(mode);
                    again.push((Instant::now() + lasts, cluster));
                }
            }
        }
        let last = again.iter().map(|(at, _)| *at).max().unwrap_or(began);
        self.pass_until(last, &mut again, began).await;
    }

    /// Waits until then, and lets networks pass again whose time has come.
    async fn pass_until(&self, moment: Instant, again: &mut Vec<(Instant, usize)>, began: Instant) {
        again.sort();
        while let Some((at, cluster)) = again.first().copied().filter(|(at, _)| *at <= moment) {
            sleep_until(at).await;
            self.proxies[cluster].set_mode(Mode::Pass);
            self.story.tell(began, format_args!("the network of {} passes again", NAMES[cluster]));
            again.remove(0);
        }
        sleep_until(moment).await;
    }

    fn cluster(&self, side: Side) -> usize {
        match side {
            Side::Source => self.home,
            Side::Target => 1 - self.home,
        }
    }

    /// Where the operation stands, if that can be had at once.
    async fn glance(&self, name: Option<String>) -> String {
        let Some(name) = name else { return "being asked for".to_owned() };
        match timeout(GLANCE, self.stack.try_operation(&name)).await {
            Ok(Ok(operation)) => format!("{:?}", operation.state()),
            Ok(Err(_)) | Err(_) => "without a scheduler".to_owned(),
        }
    }

    async fn rests(&self, name: &str) -> Operation {
        eventually(format!("{name} to rest"), RESTS, || async {
            let now = self.stack.try_operation(name).await?;
            let rests = now.done || now.state() == State::Degraded;
            if rests { Ok(now) } else { Err(format!("{:?}: {}", now.state(), now.message)) }
        })
        .await
    }

    /// Does what the advice says first; what is to be seen to before, a service manager does here.
    async fn follow_advice(&self, rest: &Operation, began: Instant) {
        let advice = rest.advice.split("quiesce ").nth(1).unwrap_or_else(|| panic!("no command: {rest:#?}"));
        let command = advice.split(". ").next().unwrap_or_default().trim_end_matches('.');
        for cluster in 0..NAMES.len() {
            self.is_reachable(cluster).await;
        }
        self.story.tell(began, format_args!("as advised: quiesce {command}"));
        let mut args: Vec<_> = command.split_whitespace().collect();
        args.extend(["-o", "json"]);
        self.stack.quiesce(&args).await.expect(0);
    }

    /// Its agent answers again, whatever it says.
    async fn is_reachable(&self, cluster: usize) {
        let name = format!("{}-0", NAMES[cluster]);
        eventually(format!("{name} to be reachable"), BACK, || async {
            let now = self.stack.try_instance(&name).await?;
            if now.state() == instance::State::Unreachable { Err("unreachable".to_owned()) } else { Ok(()) }
        })
        .await;
    }

    /// The application runs where it belongs and takes writes, the other cluster stands by.
    async fn is_back(&self) {
        for (cluster, wanted) in [(self.home, instance::State::Ready), (1 - self.home, instance::State::Held)] {
            self.stack.instance_becomes(&format!("{}-0", NAMES[cluster]), wanted, BACK).await;
        }
        self.writer.reaches(self.ports[self.home].number()).await;
    }

    /// What holds after each migration. `attempts` to stop each instance were made.
    async fn check(&mut self, attempts: &BTreeMap<String, i32>) {
        let counted = self.census.so_far();
        assert_eq!(counted.double, Vec::<String>::new(), "two servers were alive");
        assert_eq!(self.program.of("double"), [], "a second copy was started");
        let mut starts = self.program.of("start");
        for pair in starts.windows(2) {
            // What is started again under the same permission is the same instance.
            let same = pair[1].epoch == pair[0].epoch && pair[1].instance == pair[0].instance;
            assert!(pair[1].epoch > pair[0].epoch || same, "an old epoch was started again: {pair:#?}");
        }
        starts.reverse();

        for (pid, times) in self.told() {
            let run = starts.iter().find(|start| start.pid == pid).expect("every server has started");
            let tried = attempts.get(&run.instance).copied().unwrap_or_default();
            assert!(times <= tried, "{run:?} was told {times} times to stop in {tried} attempts");
            self.tally.sigterms += usize::try_from(times).unwrap_or_default();
        }
        self.tally.attempts += usize::try_from(attempts.values().sum::<i32>()).unwrap_or_default();

        let acknowledged = self.writer.so_far();
        let mut client = Client::connect(self.ports[self.home].number()).await.expect("the server is ready");
        assert_eq!(client.missing(&acknowledged[self.looked_for..]).await, [], "acknowledged writes are lost");
        self.looked_for = acknowledged.len();
    }

    /// How often each server says it got a SIGTERM since the last look. Redis writes that down itself, pid first:
    /// `4711:signal-handler (1700000000) Received SIGTERM scheduling shutdown...`
    fn told(&mut self) -> BTreeMap<u32, i32> {
        let log = fs::read_to_string(self.stack.path("data/redis.log")).unwrap();
        let mut told = BTreeMap::new();
        for line in log.lines().skip(self.log_read).filter(|line| line.contains("Received SIGTERM")) {
            let pid = line.split(':').next().and_then(|pid| pid.parse().ok()).expect("a pid comes first");
            *told.entry(pid).or_default() += 1;
        }
        self.log_read = log.lines().count();
        told
    }

    /// Looks for every write of the run once more, and returns the figures.
    pub(crate) async fn end(mut self) -> Tally {
        let acknowledged = self.writer.end().await;
        let mut client = Client::connect(self.ports[self.home].number()).await.expect("the server is ready");
        let missing = client.missing(&acknowledged).await;
        let counted = self.census.end();
        self.tally.acknowledged = acknowledged.len();
        self.tally.lost = missing.len();
        self.tally.starts = self.program.of("start").len();
        self.tally.looks = counted.looks;
        self.tally.alive_at_once = counted.at_once;
        assert_eq!(missing, [], "acknowledged writes are lost");
        assert_eq!(counted.double, Vec::<String>::new(), "two servers were alive");
        self.tally
    }
}

/// Whether something that was struck can lead to a failure of this kind.
fn explains(strikes: &[Strike], reason: Reason) -> bool {
    strikes.iter().any(|strike| match strike.fault {
        // An application that was killed takes its agent with it, so its hook is away as well.
        Fault::Application => matches!(
            reason,
            Reason::HookUnreachable
                | Reason::AcceptTimeout
                | Reason::HeartbeatTimeout
                | Reason::CheckFailed
                | Reason::StartFailed
                | Reason::StartTimeout
        ),
        // Between writing down that the application is told and telling it, a crash swallows the signal.
        Fault::Agent { .. } => matches!(
            reason,
            Reason::HookUnreachable
                | Reason::AcceptTimeout
                | Reason::HeartbeatTimeout
                | Reason::GraceTimeout
                | Reason::StartFailed
                | Reason::StartTimeout
        ),
        // Agents have to find their way back to a scheduler that was away.
        Fault::Scheduler { .. } | Fault::Reset { .. } | Fault::Network { .. } => matches!(
            reason,
            Reason::HookUnreachable | Reason::AcceptTimeout | Reason::HeartbeatTimeout | Reason::StartTimeout
        ),
    })
}
