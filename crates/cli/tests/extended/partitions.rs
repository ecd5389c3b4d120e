//! Real links that fail in the middle of a shutdown: scheduler and agents in network namespaces of their own, a cable
//! that is unplugged or loses what goes one way. Nobody gets an error; keepalive notices, and when the cable works
//! again, the operation goes on. The application is told once.
//!
//! Takes root and `iproute2`; skipped, and said so, where there are no namespaces to be had.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use quiesce_protocol::v1::instance;
use quiesce_protocol::v1::operation::State;
use quiesce_testkit::eventually;
use quiesce_testkit::namespace::{Cable, End, Namespace};

use crate::program::Program;
use crate::stack::{Actor, Stack, touch};

/// An agent asks for a sign of life every 20 s and waits 20 s for it.
const NOTICED: Duration = Duration::from_secs(60);

/// With the cable in again, an agent that was away dials again after 36 s at most.
const AGAIN: Duration = Duration::from_secs(60);

/// As patient as the cable is out: the attempt is the same before and after.
const APPLICATION: &str = "kind: Application\nname: db\ncluster: a\nplacement: {agents: {}}\n\
    policy: {gracePeriod: 600s, heartbeatTimeout: 600s}\n";

/// The state of a connection that stands, in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";

/// An application on a, which stays until it is let go, and b stands by; the scheduler is in the middle.
struct World {
    cable: Cable,
    stack: Stack,
    program: Program,
    source: Actor,
    _other: (Cable, Actor),
}

impl World {
    async fn start() -> Result<Self, String> {
        let namespaces = [Namespace::new().await?, Namespace::new().await?, Namespace::new().await?];
        let [center, a, b] = namespaces.map(Arc::new);
        let (cable, other) = (Cable::lay(&center, &a).await, Cable::lay(&center, &b).await);
        let stack = Stack::start_in(&center).await;
        stack.apply(APPLICATION).await;
        let program = Program::new(&stack);
        let command = program.command(&["--until", stack.path("release").to_str().unwrap()]);
        let source = stack.agent("a", "a-0").behind(&stack, &cable, &a).running(command.clone()).start();
        stack.instance_is("a-0", instance::State::Ready).await;
        let target = stack.agent("b", "b-0").standby().behind(&stack, &other, &b).running(command).start();
        stack.instance_is("b-0", instance::State::Held).await;
        Ok(Self { cable, stack, program, source, _other: (other, target) })
    }

    /// Without network namespaces nothing can be shown here.
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    async fn start_or_say_why() -> Option<Self> {
        Self::start().await.inspect_err(|why| println!("skipped, no network namespaces here: {why}")).ok()
    }

    async fn begin_to_stop(&self) -> String {
        let name = self.stack.begin(&["migrate", "db", "--to", "b"]).await;
        self.program.reaches("term", 1).await;
        name
    }

    async fn let_go(&self) {
        touch(&self.stack.path("release"));
        self.program.reaches("end", 1).await;
    }

    async fn the_agent_notices(&self) {
        self.source.wait_for_line("lost the connection to the scheduler", NOTICED).await;
    }

    /// Of the two connections of the agent, the one that is in use is given up.
    async fn the_scheduler_notices(&self) {
        let scheduler = self.stack.scheduler_pid();
        eventually("the scheduler to give up the connection", NOTICED, || async {
            let open = connections(scheduler, self.cable.address(End::Far));
            if open < 2 { Ok(()) } else { Err(format!("{open} connections")) }
        })
        .await;
    }

    /// The operation goes on as if nothing had been.
    async fn it_goes_on(&self, name: &str) {
        let operation = self.stack.reaches(name, State::Succeeded, AGAIN).await;
        assert_eq!(operation.instances[0].attempt, 1, "{operation:#?}");
        self.stack.instance_becomes("a-0", instance::State::Held, AGAIN).await;
        self.stack.instance_is("b-0", instance::State::Ready).await;
        self.program.told(1);
        self.program.never_twice();
    }
}

/// How many connections to this peer there are where that process is, as its kernel says.
fn connections(pid: u32, peer: Ipv4Addr) -> usize {
    let address = u32::from_ne_bytes(peer.octets());
    let sockets = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("the process lives");
    let is_open = |socket: &&str| {
        let mut words = socket.split_whitespace().skip(2);
        let is_peer = words.next().is_some_and(|remote| remote.starts_with(&format!("{address:08X}:")));
        is_peer && words.next() == Some(ESTABLISHED)
    };
    sockets.lines().filter(is_open).count()
}

/// What the cable between scheduler and source does.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    IsOut,
    Loses(End),
}

impl World {
    async fn strike(&self, trouble: Trouble) {
        match trouble {
            Trouble::IsOut => self.cable.unplug().await,
            Trouble::Loses(end) => self.cable.lose_what_goes_to(end).await,
        }
    }

    async fn mend(&self, trouble: Trouble) {
        match trouble {
            Trouble::IsOut => self.cable.plug().await,
            Trouble::Loses(end) => self.cable.deliver_to(end).await,
        }
    }
}

/// The application ends, and its agent cannot say so until the cable is mended.
async fn the_end_is_told_later(trouble: Trouble) {
    let Some(world) = World::start_or_say_why().await else { return };
    let name = world.begin_to_stop().await;
    world.strike(trouble).await;
    world.let_go().await;
    world.the_scheduler_notices().await;
    world.the_agent_notices().await;
    assert_eq!(world.stack.operation(&name).await.state(), State::Stopping);
    assert_eq!(world.program.of("start").len(), 1, "started elsewhere without proof");
    world.mend(trouble).await;
    world.it_goes_on(&name).await;
}

#[tokio::test]
async fn a_cable_that_is_out() {
    the_end_is_told_later(Trouble::IsOut).await;
}

#[tokio::test]
async fn a_cable_that_loses_what_the_agent_says() {
    the_end_is_told_later(Trouble::Loses(End::Near)).await;
}

#[tokio::test]
async fn a_cable_that_loses_what_the_scheduler_says() {
    let Some(world) = World::start_or_say_why().await else { return };
    let trouble = Trouble::Loses(End::Far);
    let name = world.begin_to_stop().await;
    world.strike(trouble).await;
    // The proof arrives, and that is what counts; that the answer does not is noticed as well.
    world.let_go().await;
    world.stack.reaches(&name, State::Succeeded, NOTICED).await;
    world.the_agent_notices().await;
    world.mend(trouble).await;
    world.it_goes_on(&name).await;
}
