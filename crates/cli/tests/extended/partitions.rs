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
        let stack = Stack::start_within(&center).await;
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

    /// It has ended, and nobody can say so.
    async fn it_waits(&self, name: &str) {
        assert_eq!(self.stack.operation(name).await.state(), State::Stopping);
        assert_eq!(self.program.of("start").len(), 1, "started elsewhere without proof");
    }

    /// The operation goes on as if nothing had been.
    async fn it_goes_on(&self, name: &str) {
        let operation = self.stack.reaches(name, State::Succeeded, AGAIN).await;
        assert_eq!(operation.instances[0].attempt, 1, "{operation:#?}");
        self.told_once().await;
    }

    async fn told_once(&self) {
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

#[tokio::test]
async fn a_cable_that_is_out() {
    let Some(world) = World::start_or_say_why().await else { return };
    let name = world.begin_to_stop().await;
    world.cable.unplug().await;
    world.let_go().await;
    world.the_scheduler_notices().await;
    world.the_agent_notices().await;
    world.it_waits(&name).await;
    world.cable.plug().await;
    world.it_goes_on(&name).await;
}

#[tokio::test]
async fn a_cable_that_loses_what_the_agent_says() {
    let Some(world) = World::start_or_say_why().await else { return };
    let name = world.begin_to_stop().await;
    world.cable.lose_what_goes_to(End::Near).await;
    world.let_go().await;
    world.the_scheduler_notices().await;
    world.the_agent_notices().await;
    world.it_waits(&name).await;
    world.cable.deliver_to(End::Near).await;
    world.it_goes_on(&name).await;
}

#[tokio::test]
async fn a_cable_that_loses_what_the_scheduler_says() {
    let Some(world) = World::start_or_say_why().await else { return };
    let name = world.begin_to_stop().await;
    world.cable.lose_what_goes_to(End::Far).await;
    // The proof arrives, and that is what counts; that the answer does not is noticed as well.
    world.let_go().await;
    world.stack.reaches(&name, State::Succeeded, NOTICED).await;
    world.the_agent_notices().await;
    world.cable.deliver_to(End::Far).await;
    world.it_goes_on(&name).await;
}
