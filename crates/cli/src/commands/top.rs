//! `quiesce top`: the board on the screen, kept up to date by the stream of events, until a key or a signal ends it.
//!
//! Owns the terminal while it runs, and gives it back however it ends.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt as _;
use quiesce_protocol::v1::{Instance, ListInstancesRequest, Operation};
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::{Ending, Session, get};
use crate::args::{Format, TopArgs};
use crate::client::Client;
use crate::error::Error;
use crate::follow::{Follow, NEWS_BUFFER, News, Target};
use crate::top::{Board, Flow, Tab, view};

/// The shortest time between two frames: what a person sees as at once. However many events come, this many are drawn.
const FRAME: Duration = Duration::from_millis(100);
/// Countdowns show whole seconds; twice as often keeps them from skipping one.
const REDRAW: Duration = Duration::from_millis(500);
/// No stream tells of instances. They are asked for while they are looked at, this often.
const INSTANCES_EVERY: Duration = Duration::from_secs(3);
/// More than a person scrolls through.
const INSTANCES_MAX: i32 = 1000;

/// Something that was asked for has come.
enum Fetched {
    Operation(Box<Operation>),
    Instances(Vec<Instance>, bool),
    /// It will be asked for again, and the stream says what is wrong.
    Nothing,
}

type Fetch = Pin<Box<dyn Future<Output = Fetched>>>;

pub(super) async fn run(session: &Session, args: TopArgs) -> Result<Ending, Error> {
    if !session.live || session.format != Format::Table {
        let problem = match session.format {
            Format::Table => "quiesce top needs a terminal, and the standard output is none that it could draw on",
            Format::Json | Format::Yaml => "quiesce top is for people and has no other output",
        };
        let advice = ["now: quiesce get operations", "as it goes on: quiesce watch -o json"];
        return Err(Error::Input { problem: problem.to_owned(), advice: advice.map(str::to_owned).to_vec() });
    }
    let client = session.connect().await?;
    // So that a wrong token or filter is said where it can be read.
    get::list_operations_once(&client, args.filter.as_deref().unwrap_or_default()).await?;
    let mut screen = Screen::open()?;
    let mut board = Board::new(&session.target.url);
    let outcome = Box::pin(show(&mut screen, &mut board, client, args.filter.unwrap_or_default(), session.color)).await;
    drop(screen);
    outcome.map(|()| Ending::Done)
}

/// The terminal, as long as it is ours.
struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal over; a panic gives it back as well, before it says what it is.
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell if the terminal has gone.
        drop(ratatui::try_restore());
    }
}

async fn show(
    screen: &mut Screen,
    board: &mut Board,
    client: Client,
    filter: String,
    color: bool,
) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut keys = EventStream::new();
    let (sender, mut news) = mpsc::channel(NEWS_BUFFER);
    let mut following = pin!(Follow::new(client.clone(), Target::All { filter }, None).patient().run(sender));
    let mut ended = false;
    let mut fetch: Option<Fetch> = None;
    let mut frame = tokio::time::interval(FRAME);
    frame.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut every = tokio::time::interval(INSTANCES_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut stale, mut drawn) = (true, Instant::now());
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => return Ok(()),
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    let tab = board.tab();
                    match board.key(key) {
                        Flow::Quit => return Ok(()),
                        Flow::Open(name) => fetch = Some(operation(client.clone(), name)),
                        Flow::Go => {}
                    }
                    if board.tab() != tab {
                        every.reset_immediately();
                    }
                    stale = true;
                }
                Some(Ok(_)) => stale = true,
                Some(Err(error)) => return Err(error.into()),
                // The terminal has gone.
                None => return Ok(()),
            },
            _ = frame.tick() => {
                if stale || drawn.elapsed() >= REDRAW {
                    let at = Instant::now();
                    screen.0.draw(|frame| view::draw(board, at, color, frame))?;
                    (stale, drawn) = (false, at);
                }
            }
            fetched = async { fetch.as_mut().expect("it is guarded").await }, if fetch.is_some() => {
                fetch = None;
                stale = true;
                match fetched {
                    Fetched::Operation(operation) => board.fill(*operation),
                    Fetched::Instances(instances, cut) => board.instances(instances, cut),
                    Fetched::Nothing => {}
                }
            }
            _ = every.tick() => {
                if board.tab() == Tab::Instances && fetch.is_none() {
                    fetch = Some(instances(client.clone()));
                }
            }
            result = &mut following, if !ended => {
                result?;
                ended = true;
            }
            item = news.recv(), if !ended => {
                stale = true;
                match item {
                    Some(News::Event(event)) => board.event(&event, Instant::now()),
                    Some(News::Notice(text)) => board.notice(text),
                    Some(News::Anew) => {
                        board.anew();
                        board.watching();
                    }
                    None => ended = true,
                }
            }
        }
    }
}

fn operation(client: Client, name: String) -> Fetch {
    Box::pin(async move {
        match get::operation(&client, &name).await {
            Ok(operation) => Fetched::Operation(Box::new(operation)),
            Err(_) => Fetched::Nothing,
        }
    })
}

fn instances(client: Client) -> Fetch {
    Box::pin(async move {
        let mut found: Vec<Instance> = Vec::new();
        let mut page_token = String::new();
        let most = usize::try_from(INSTANCES_MAX).unwrap_or(usize::MAX);
        loop {
            let parent = get::ALL_APPLICATIONS.to_owned();
            let request = ListInstancesRequest {
                parent,
                page_size: INSTANCES_MAX,
                page_token,
                ..ListInstancesRequest::default()
            };
            let Ok(page) = client.api().list_instances(request).await else { return Fetched::Nothing };
            let page = page.into_inner();
            found.extend(page.instances);
            page_token = page.next_page_token;
            if page_token.is_empty() || found.len() >= most {
                return Fetched::Instances(found, !page_token.is_empty());
            }
        }
    })
}
