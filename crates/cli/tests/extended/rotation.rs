//! Certificates, CAs and the key of the tokens change while a shutdown is running, and the shutdown does not notice: it
//! ends STOPPED, with one SIGTERM, and the migration it is part of goes on to its end. Afterwards new connections use what
//! is new, and what was taken away opens nothing any more.

use std::fs;
use std::time::Duration;

use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::{Evidence, instance, stop_result};
use quiesce_testkit::certificates::Pair;
use quiesce_testkit::eventually;
use quiesce_testkit::proxy::TcpProxy;

use crate::openssl::shown_certificate;
use crate::program::Program;
use crate::secured::{ANN, Authority, Maker, Secured};
use crate::stack::{Actor, SOON, touch};

/// As patient as a rotation takes on a busy machine.
const APPLICATION: &str = "kind: Application\nname: db\ncluster: a\nplacement: {agents: {}}\n\
    policy: {gracePeriod: 600s}\n";

/// An agent that was away has to find its way back: backoff of a few seconds on both sides.
const AWAY: Duration = Duration::from_secs(40);

/// An application that, once told, stays until the test lets it go; in the middle of its shutdown.
struct MidShutdown {
    stack: Secured,
    program: Program,
    /// On the way of the source's agent to the scheduler.
    proxy: TcpProxy,
    source: Actor,
    target: Actor,
    operation: String,
}

impl MidShutdown {
    async fn begin() -> Self {
        let mut stack = Secured::unstarted(Maker::Quiesce).await;
        // Says whose a connection is.
        let flags = ["--log", "info,quiesce_scheduler=debug"].map(str::to_owned);
        stack.proofs().scheduler.extend(flags);
        stack.start_scheduler().await;
        stack.apply(APPLICATION).await;
        let program = Program::new(&stack);
        let proxy = stack.proxy().await;
        let command = program.command(&["--until", stack.path("release").to_str().unwrap()]);
        let source = stack.certified_agent("a", "a-0").await.through(&proxy).running(command.clone()).start();
        stack.instance_is("a-0", instance::State::Ready).await;
        let target = stack.certified_agent("b", "b-0").await.standby().running(command).start();
        stack.instance_is("b-0", instance::State::Held).await;
        let operation = stack.begin(&["migrate", "db", "--to", "b"]).await;
        program.reaches("term", 1).await;
        stack.reaches(&operation, State::Stopping, SOON).await;
        Self { stack, program, proxy, source, target, operation }
    }

    /// Makes the source's agent connect anew, for its calls and for dialling in.
    async fn reconnects(&self) {
        let before = attached(&self.source);
        self.proxy.cut_connections();
        eventually("the agent to be attached again", AWAY, || async { attached(&self.source) > before }).await;
        assert_eq!(self.stack.operation(&self.operation).await.state(), State::Stopping);
        self.program.told(1);
    }

    /// Lets the application go, and checks that everything came out as if nothing had been changed.
    async fn end(&self) {
        touch(&self.stack.path("release"));
        let operation = self.stack.reaches(&self.operation, State::Succeeded, AWAY).await;
        let stopped = operation.instances.iter().find(|one| one.instance.ends_with("/a-0")).expect("it was stopped");
        let result = stopped.status.clone().unwrap().result.unwrap();
        assert_eq!(result.outcome(), stop_result::Outcome::Stopped, "{result:#?}");
        assert_eq!(result.evidence(), Evidence::GroupEmpty, "{result:#?}");
        assert_eq!((stopped.attempt, result.exit_code), (1, Some(0)), "{operation:#?}");
        self.program.told(1);
        self.program.never_twice();
        let starts = self.program.of("start");
        assert_eq!(starts.iter().map(|entry| entry.instance.as_str()).collect::<Vec<_>>(), ["a-0", "b-0"]);
    }

    /// Changes files, and waits until all of these use the new ones.
    async fn change<'a>(&self, users: impl IntoIterator<Item = &'a Actor>, change: impl FnOnce()) {
        let before: Vec<_> = users.into_iter().map(|user| (user, changes(user))).collect();
        change();
        for (user, before) in before {
            eventually("the new files to be in use", SOON, || async { changes(user) > before }).await;
        }
    }

    async fn shown(&self) -> String {
        shown_certificate(self.stack.port(), &self.stack.file("ca.pem")).await
    }

    /// Waits until the scheduler shows the certificate that stands in its file, and no other.
    async fn shows_what_is_in_the_file(&self) {
        let installed = fs::read_to_string(self.stack.file("127.0.0.1.pem")).unwrap();
        eventually("the new certificate to be shown", SOON, || async { self.shown().await == installed }).await;
    }
}

fn attached(agent: &Actor) -> usize {
    lines(agent, "attached to the scheduler")
}

fn changes(user: &Actor) -> usize {
    lines(user, "certificates changed; new connections use the new ones")
}

fn lines(actor: &Actor, text: &str) -> usize {
    actor.lines().iter().filter(|line| line.text.contains(text)).count()
}

#[tokio::test]
async fn the_schedulers_certificate_is_replaced_during_a_shutdown() {
    let world = MidShutdown::begin().await;
    let before = world.shown().await;
    world.stack.install(&world.stack.authority.issue("127.0.0.1").await);
    world.shows_what_is_in_the_file().await;
    assert_ne!(world.shown().await, before);
    world.reconnects().await;
    world.end().await;
}

#[tokio::test]
async fn the_agents_certificate_is_replaced_during_a_shutdown() {
    let mut world = MidShutdown::begin().await;
    let renewed = "spiffe://renewed.example.org/applications/db/instances/a-0";
    let pair = world.stack.authority.issue(renewed).await;
    world.change([&world.source], || world.stack.install(&pair)).await;
    assert_eq!(lines(world.stack.scheduler(), renewed), 0);
    world.reconnects().await;
    world.stack.scheduler().wait_for_line(renewed, SOON).await;
    world.end().await;
}

#[tokio::test]
async fn the_ca_is_replaced_during_a_shutdown() {
    let mut world = MidShutdown::begin().await;
    let new = Authority::new(Maker::Quiesce, world.stack.path("new-pki")).await;
    let everybody = async |world: &mut MidShutdown, change: &dyn Fn(&Secured)| {
        let before = changes(world.stack.scheduler());
        world.change([&world.source, &world.target], || change(&world.stack)).await;
        let scheduler = &*world.stack.scheduler();
        eventually("the scheduler to use the new files", SOON, || async { changes(scheduler) > before }).await;
    };
    let [old_ca, new_ca] = [&world.stack.authority, &new].map(|ca| fs::read_to_string(ca.certificate()).unwrap());
    let old_ann = Pair { certificate: world.stack.path("old-ann.pem"), key: world.stack.path("old-ann.key") };
    fs::copy(world.stack.file("ann.pem"), &old_ann.certificate).unwrap();
    fs::copy(world.stack.file("ann.key"), &old_ann.key).unwrap();

    everybody(&mut world, &|stack| fs::write(stack.file("ca.pem"), format!("{old_ca}{new_ca}")).unwrap()).await;
    world.reconnects().await;

    let agents = [Secured::agent_name("a-0"), Secured::agent_name("b-0")];
    let mut pairs = Vec::new();
    for name in ["127.0.0.1", ANN].into_iter().chain(agents.iter().map(String::as_str)) {
        pairs.push(new.issue(name).await);
    }
    everybody(&mut world, &|stack| pairs.iter().for_each(|pair| stack.install(pair))).await;
    world.shows_what_is_in_the_file().await;
    world.reconnects().await;
    let old = [("QUIESCE_CERT", old_ann.certificate.to_str().unwrap()), ("QUIESCE_KEY", old_ann.key.to_str().unwrap())];
    world.stack.quiesce_with(&["get", "applications"], &old).await.expect(0);

    everybody(&mut world, &|stack| fs::write(stack.file("ca.pem"), &new_ca).unwrap()).await;
    world.stack.quiesce(&["get", "applications"]).await.expect(0);
    let refused = world.stack.quiesce_with(&["get", "applications"], &old).await.expect(1);
    assert!(refused.stderr.contains("refuses the certificate of --cert"), "{}", refused.stderr);
    let old_ca = world.stack.authority.certificate();
    let distrusted = [("QUIESCE_CA", old_ca.to_str().unwrap())];
    let refused = world.stack.quiesce_with(&["get", "applications"], &distrusted).await.expect(1);
    assert!(refused.stderr.contains("not signed by a CA that is trusted here"), "{}", refused.stderr);
    world.reconnects().await;
    world.end().await;
}

#[tokio::test]
async fn the_key_of_the_tokens_is_rotated_during_a_shutdown() {
    let mut world = MidShutdown::begin().await;
    let token = |instance: &str| world.stack.agent("", instance).state_dir().join("instance.token");
    let (source, target) = (token("a-0"), token("b-0"));
    let of_key = |path: &std::path::Path, key: u32| {
        let text = fs::read_to_string(path).unwrap();
        if text.starts_with(&format!("qit1.{key}.")) { Ok(()) } else { Err("another key's") }
    };
    of_key(&source, 1).expect("there is one key as yet");
    let before = attached(&world.source);
    world.stack.stop_scheduler().await;
    world.stack.proofs().scheduler.push("--rotate-key".to_owned());
    world.stack.start_scheduler().await;
    eventually("the agent to be attached again", AWAY, || async { attached(&world.source) > before }).await;
    for file in [&source, &target] {
        eventually("a token of the new key", AWAY, || async { of_key(file, 2) }).await;
    }
    world.end().await;

    // And what begins now lives by the new key.
    let back = world.stack.begin(&["migrate", "db", "--to", "a"]).await;
    world.stack.reaches(&back, State::Succeeded, AWAY).await;
    world.program.told(2);
    world.program.never_twice();
}
