//! The reference hook beside an imitated application: listening, dialling in, or with a fault.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use quiesce_agent::StartMode;
use quiesce_agent::credential::Credential;
use quiesce_agent::hook::{Drain, Hook, HookOptions, Records, Shelf};
use quiesce_agent::identity::Identity;
use quiesce_agent::life::{self, Listen, Parts, Reach};
use quiesce_conformance::fixture::{Fixture, FixtureError, Mode};
use quiesce_conformance::gateway::Gateway;
use quiesce_conformance::hook;
use quiesce_conformance::reach::Endpoint;
use quiesce_conformance::run::{Report, Selection};
use quiesce_conformance::subject::{Settings, Subject};
use quiesce_runtime::machine::Machine;
use quiesce_runtime::tasks::Tasks;
use tokio::time::sleep;

use super::dialling::{self, Habit};
use super::imitation::{Driven, Imitation};
use super::machine::machine;
use super::mutants::{self, Fault};

/// How long draining takes in its mode.
const DRAINING: Duration = Duration::from_secs(4);

/// How the hook is reached.
#[derive(Clone)]
enum Way {
    /// A whole agent, which registers at this address.
    Agent { gateway: String, listens: bool },
    /// An agent of our own, which dials in there.
    Dialling { gateway: String, habit: Habit },
    /// A hook alone, which may have a fault, behind a door that stays where it is.
    Hook { door: mutants::Door, fault: Option<Fault> },
}

/// The fixture.
struct World {
    machine: Machine,
    way: Way,
    state: Mutex<State>,
}

/// What the present hook and application are.
#[derive(Default)]
struct State {
    application: Option<Arc<Imitation>>,
    shelf: Arc<Paper>,
    /// Of the application and its operating system.
    ground: Tasks,
    /// Of the program of the hook.
    program: Tasks,
    /// All that were told to stop before.
    signals: u32,
}

/// A shelf that outlives programs.
#[derive(Default)]
struct Paper(Mutex<(u64, Option<Vec<u8>>)>);

impl Shelf for Paper {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        let mut paper = self.0.lock().unwrap();
        // Revisions are counted anew by every program.
        paper.0 = 0;
        Ok(paper.1.clone())
    }

    fn save(&self, revision: u64, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        let mut paper = self.0.lock().unwrap();
        if revision >= paper.0 {
            *paper = (revision, Some(content));
        }
        Box::pin(async { Ok(()) })
    }
}

impl World {
    fn new(machine: Machine, way: Way) -> Arc<Self> {
        Arc::new(Self { machine, way, state: Mutex::default() })
    }

    fn application(&self) -> Option<Arc<Imitation>> {
        self.state.lock().unwrap().application.clone()
    }

    /// The program of the hook begins, beside the application as it is now.
    async fn begin(&self, mode: Mode) {
        let (application, shelf, program) = {
            let mut state = self.state.lock().unwrap();
            state.program = Tasks::new();
            let application = Arc::clone(state.application.as_ref().expect("there is an application"));
            (application, Arc::clone(&state.shelf), state.program.clone())
        };
        let mut options = HookOptions::new(Identity::new("shop", "shop-0", "edge-1").unwrap());
        options.machine = self.machine.clone();
        options.drain = Some(drain(mode));
        let driven = Arc::new(Driven(Arc::clone(&application)));
        let forgets = matches!(&self.way, Way::Hook { fault: Some(Fault::ForgetsOnRestart), .. });
        let records = if forgets { Records::on(Arc::<Paper>::default()) } else { Records::on(shelf) };
        match &self.way {
            Way::Agent { gateway, listens } => {
                let listen = listens.then(|| Listen { address: "127.0.0.1:0".to_owned(), advertise: None, tls: None });
                let parts = Parts {
                    options,
                    records,
                    reach: Reach::Sockets { scheduler: format!("http://{gateway}"), tls: None, listen },
                    credential: Credential::none(),
                    agent_id: "agent-1".to_owned(),
                    stop_order: 0,
                    labels: Default::default(),
                    policy: Default::default(),
                    standby: false,
                    start: StartMode::Permitted,
                    grace: None,
                };
                let tasks = program.clone();
                program.spawn("agent", async move {
                    let asked = futures::stream::pending().boxed();
                    life::live(driven, parts, asked, &tasks).await.unwrap();
                });
            }
            Way::Dialling { gateway, habit } => {
                let hook = Hook::open(driven, options, records, &program).unwrap();
                let (machine, gateway) = (self.machine.clone(), gateway.clone());
                program.spawn("agent", dialling::dial_in(machine, gateway, hook, *habit, application));
            }
            Way::Hook { door, fault } => {
                let hook = Hook::open(driven, options, records, &program).unwrap();
                mutants::open(door, hook, application, *fault, &program);
            }
        }
    }

    fn end_program(&self) {
        self.state.lock().unwrap().program.abort();
    }
}

fn drain(mode: Mode) -> Drain {
    Arc::new(move |_order| {
        Box::pin(async move {
            if mode == Mode::Drains {
                sleep(DRAINING).await;
            }
            Ok(())
        })
    })
}

impl Fixture for World {
    fn modes(&self) -> Vec<Mode> {
        Mode::ALL.to_vec()
    }

    fn start(&self, mode: Mode) -> BoxFuture<'_, Result<(), FixtureError>> {
        Box::pin(async move {
            self.end_program();
            {
                let mut state = self.state.lock().unwrap();
                state.ground.abort();
                state.signals += state.application.take().map_or(0, |application| application.signals());
                state.ground = Tasks::new();
                state.shelf = Arc::default();
                state.application = Some(match &self.way {
                    Way::Agent { .. } => Imitation::new(mode, None, &state.ground),
                    Way::Dialling { .. } => Imitation::running(mode, None, 1, &state.ground),
                    Way::Hook { fault, .. } => Imitation::running(mode, *fault, 1, &state.ground),
                });
            }
            self.begin(mode).await;
            Ok(())
        })
    }

    fn is_alive(&self) -> BoxFuture<'_, Result<bool, FixtureError>> {
        Box::pin(async { Ok(self.application().is_some_and(|application| application.is_alive())) })
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), FixtureError>> {
        Box::pin(async {
            if let Some(application) = self.application() {
                application.strike();
            }
            Ok(())
        })
    }

    fn signals(&self) -> BoxFuture<'_, Result<u32, FixtureError>> {
        Box::pin(async {
            let before = self.state.lock().unwrap().signals;
            Ok(before + self.application().map_or(0, |application| application.signals()))
        })
    }

    fn can_restart(&self) -> bool {
        true
    }

    fn restart(&self) -> BoxFuture<'_, Result<(), FixtureError>> {
        Box::pin(async {
            self.end_program();
            self.begin(Mode::Fast).await;
            Ok(())
        })
    }
}

async fn judge(subject: Subject, suite: &str) -> Report {
    let selection = Selection { suite: Some(suite.parse().unwrap()), ..Selection::default() };
    hook::run(&subject, &selection, |_result| {}).await.unwrap()
}

/// The agent, as it is.
pub(crate) async fn judge_agent(listens: bool) -> Report {
    let (machine, tasks) = (machine(), Tasks::new());
    let gateway = Gateway::bind(machine.clone(), "127.0.0.1:0", &tasks).await.unwrap();
    let world = World::new(machine, Way::Agent { gateway: gateway.address().to_owned(), listens });
    judge(Subject::registering(world, gateway, Settings::default()), "").await
}

/// An agent that dials in as it is used to.
pub(crate) async fn judge_dialling(habit: Habit) -> Report {
    let (machine, tasks) = (machine(), Tasks::new());
    let gateway = Gateway::bind(machine.clone(), "127.0.0.1:0", &tasks).await.unwrap();
    let world = World::new(machine, Way::Dialling { gateway: gateway.address().to_owned(), habit });
    judge(Subject::registering(world, gateway, Settings::default()), "dial-in").await
}

/// The hook, with this fault if any.
pub(crate) async fn judge_hook(fault: Option<Fault>) -> Report {
    let machine = machine();
    let door = mutants::Door::at(&machine).await;
    let endpoint = Endpoint::on(machine.clone(), door.address(), None).unwrap();
    let bearer = Some(mutants::BEARER.to_owned());
    let world = World::new(machine, Way::Hook { door, fault });
    judge(Subject::listening(world, endpoint, Settings { bearer, ..Settings::default() }), "").await
}
