//! Boards as a terminal of 80 columns and 24 rows shows them, and what keys do to them.

use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use prost_types::Timestamp;
use quiesce_protocol::v1::{
    Evidence, Failure, HookInfo, Instance, InstanceCounts, InstanceShutdown, Operation, OperationEvent, OperationKind,
    ShutdownPhase, ShutdownPolicy, ShutdownStatus, StopResult, failure, instance, operation, operation_event,
    stop_result,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;

use super::{Board, Flow, Tab, view};

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: 1_700_000_000 + seconds, nanos: 0 })
}

fn span(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn operation(id: &str, app: &str, state: operation::State, begun: i64) -> Operation {
    use operation::State;
    Operation {
        name: format!("operations/{id}"),
        application: format!("applications/{app}"),
        kind: OperationKind::Migrate.into(),
        state: state.into(),
        done: matches!(state, State::Succeeded | State::Cancelled | State::RolledBack | State::Abandoned),
        source_cluster: "a".to_owned(),
        target_cluster: "b".to_owned(),
        create_time: at(begun),
        policy: Some(ShutdownPolicy { grace_period: span(60), ..ShutdownPolicy::default() }),
        counts: Some(InstanceCounts { stopping: 1, stopped: 1, ..InstanceCounts::default() }),
        attempt: 1,
        ..Operation::default()
    }
}

fn event(kind: operation_event::Type, seconds: i64, operation: Operation) -> OperationEvent {
    OperationEvent {
        r#type: kind.into(),
        event_time: at(seconds),
        operation: Some(operation),
        ..OperationEvent::default()
    }
}

fn bookmark() -> OperationEvent {
    OperationEvent { r#type: operation_event::Type::Bookmark.into(), ..OperationEvent::default() }
}

/// One of each kind, twenty seconds in.
fn board(heard: Instant) -> Board {
    use operation::State;
    use operation_event::Type;
    let mut board = Board::new("http://127.0.0.1:7600");
    let mut stopping = operation("op-1", "shop", State::Stopping, 0);
    stopping.deadline_time = at(90);
    stopping.attempt = 2;
    let mut degraded = operation("op-2", "db", State::Degraded, 5);
    degraded.failure = Some(Failure {
        reason: failure::Reason::GraceTimeout.into(),
        instance: "applications/db/instances/db-0".to_owned(),
        message: "still running".to_owned(),
        ..Failure::default()
    });
    let mut waits = operation("op-3", "cache", State::Stopped, 6);
    waits.awaiting_confirmation = true;
    let mut done = operation("op-4", "web", State::Succeeded, 1);
    done.end_time = at(9);
    for operation in [stopping, degraded, waits, done] {
        board.event(&event(Type::Snapshot, 20, operation), heard);
    }
    let mut progress = event(Type::Progress, 20, operation("op-1", "shop", State::Stopping, 0));
    progress.operation.as_mut().unwrap().deadline_time = at(90);
    progress.operation.as_mut().unwrap().attempt = 2;
    progress.instance = Some(InstanceShutdown {
        instance: "applications/shop/instances/shop-0".to_owned(),
        status: Some(ShutdownStatus {
            phase: ShutdownPhase::Stopping.into(),
            message: "flushing".to_owned(),
            ..ShutdownStatus::default()
        }),
        attempt: 2,
        accept_time: at(0),
        deadline_time: at(90),
        extension: span(30),
        ..InstanceShutdown::default()
    });
    board.event(&progress, heard);
    board
}

fn drawn(board: &mut Board, at: Instant, columns: u16, rows: u16, color: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| view::draw(board, at, color, frame)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let area = buffer.area();
    let row = |y| (0..area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
    (0..area.height).map(row).collect()
}

fn screen(board: &mut Board, at: Instant) -> String {
    text(&drawn(board, at, 80, 24, true))
}

fn press(board: &mut Board, code: KeyCode) -> Flow {
    board.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(board: &mut Board, words: &str) {
    for c in words.chars() {
        press(board, KeyCode::Char(c));
    }
}

/// The selected line.
fn selected(board: &mut Board, at: Instant) -> String {
    let buffer = drawn(board, at, 80, 24, true);
    let reversed = |y: &u16| buffer[(0, *y)].modifier.contains(ratatui::style::Modifier::REVERSED);
    let y = (0..24).find(reversed).expect("one is selected");
    text(&buffer).lines().nth(usize::from(y)).unwrap().to_owned()
}

#[test]
fn what_waits_for_a_person_comes_first_with_the_command_that_helps() {
    let heard = Instant::now();
    let mut board = board(heard);
    assert_eq!(
        screen(&mut board, heard + Duration::from_secs(4)),
        "\
quiesce top  http://127.0.0.1:7600  watching
[operations] instances  events   1 DEGRADED  1 to confirm  1 going on  1 over
─ operations ──────────────────────────────────────────────────────────────────
migrate db a -> b         DEGRADED     ■■·· GRACE_TIMEOUT db-0: still running
    -> quiesce retry op-2 (try again)
migrate cache a -> b      STOPPED      ■■■·            18s                   1/2
    -> quiesce confirm op-3
migrate shop a -> b       STOPPING     ■■·· ███░░░░░░░ 24s/1m30s +30s    #2  1/2
migrate web a -> b        SUCCEEDED    ■■■■            8.0s                  1/2








─ heard last ──────────────────────────────────────────────────────────────────
2023-11-14T22:13:40Z op-1 PROGRESS shop-0 STOPPING attempt=2 left=1m10s flushing




j k move  Enter open  Tab view  / filter  ? keys  q quit
"
    );
}

#[test]
fn an_open_operation_shows_its_instances_with_their_evidence() {
    let heard = Instant::now();
    let mut board = board(heard);
    press(&mut board, KeyCode::Down);
    press(&mut board, KeyCode::Down);
    assert_eq!(press(&mut board, KeyCode::Enter), Flow::Open("operations/op-1".to_owned()));
    let mut whole = operation("op-1", "shop", operation::State::Stopping, 0);
    whole.instances = vec![InstanceShutdown {
        instance: "applications/shop/instances/shop-1".to_owned(),
        status: Some(ShutdownStatus {
            phase: ShutdownPhase::Stopped.into(),
            result: Some(StopResult {
                outcome: stop_result::Outcome::Stopped.into(),
                evidence: Evidence::GroupEmpty.into(),
                exit_code: Some(0),
                ..StopResult::default()
            }),
            ..ShutdownStatus::default()
        }),
        attempt: 1,
        verified: true,
        ..InstanceShutdown::default()
    }];
    // Older than what the events have said.
    whole.revision = -1;
    board.fill(whole);
    let shown = screen(&mut board, heard);
    for part in ["\u{2500} op-1 ", "shop-0", "flushing", "shop-1", "GROUP_EMPTY", "quiesce extend op-1 --by 30s"] {
        assert!(shown.contains(part), "{part:?}: {shown}");
    }
    press(&mut board, KeyCode::Esc);
    assert!(screen(&mut board, heard).contains("-> quiesce retry op-2"));
}

#[test]
fn advice_that_is_longer_than_the_screen_still_shows_its_commands() {
    let heard = Instant::now();
    let mut board = Board::new("x");
    let mut degraded = operation("op-06h1vt1w232x6j4m", "db", operation::State::Degraded, 0);
    degraded.advice = "Nothing has been told to stop in this attempt. Mend what the check found, then: quiesce retry \
                       op-06h1vt1w232x6j4m. To kill it: quiesce retry op-06h1vt1w232x6j4m --force"
        .to_owned();
    board.event(&event(operation_event::Type::Snapshot, 20, degraded), heard);
    assert!(screen(&mut board, heard).contains("    -> quiesce retry op-06h1vt1w232x6j4m\n"));
    press(&mut board, KeyCode::Enter);
    let shown = text(&drawn(&mut board, heard, 60, 24, true));
    for row in [
        "Mend what the check found, then:",
        "    quiesce retry op-06h1vt1w232x6j4m",
        "To kill it: quiesce retry op-06h1vt1w232x6j4m --force",
    ] {
        assert!(shown.lines().any(|line| line == row || line.ends_with(row)), "{row:?}: {shown}");
    }
}

#[test]
fn the_selection_stays_with_its_operation_wherever_it_goes() {
    let heard = Instant::now();
    let mut board = board(heard);
    assert!(selected(&mut board, heard).starts_with("migrate db"));
    type_in(&mut board, "jj");
    assert!(selected(&mut board, heard).starts_with("migrate shop"));
    let mut degraded = operation("op-1", "shop", operation::State::Degraded, 0);
    degraded.failure = Some(Failure::default());
    board.event(&event(operation_event::Type::StateChanged, 21, degraded), heard);
    assert!(selected(&mut board, heard).starts_with("migrate shop"));
    let shown = screen(&mut board, heard);
    assert!(shown.find("migrate shop") < shown.find("migrate db"), "the longer it waits, the higher: {shown}");
    type_in(&mut board, "G");
    assert!(selected(&mut board, heard).starts_with("migrate web"));
    type_in(&mut board, "g");
    assert!(selected(&mut board, heard).starts_with("migrate shop"));
}

#[test]
fn a_filter_keeps_what_holds_every_word_and_escape_takes_it_away() {
    let heard = Instant::now();
    let mut board = board(heard);
    type_in(&mut board, "/stopping SHOP");
    let shown = screen(&mut board, heard);
    assert!(shown.contains("migrate shop") && !shown.contains("migrate db"), "{shown}");
    assert!(shown.ends_with("/stopping SHOP\n"), "{shown}");
    // What it was for is over, and is not shown any more; letters are no commands meanwhile.
    board.event(
        &event(operation_event::Type::StateChanged, 21, operation("op-1", "shop", operation::State::Finalizing, 0)),
        heard,
    );
    type_in(&mut board, "q");
    assert!(screen(&mut board, heard).contains("nothing matches the filter"));
    press(&mut board, KeyCode::Enter);
    assert!(screen(&mut board, heard).contains("only: stopping SHOPq"));
    press(&mut board, KeyCode::Esc);
    assert!(screen(&mut board, heard).contains("migrate db"));
}

#[test]
fn a_stream_that_begins_anew_forgets_what_is_not_told_again() {
    let heard = Instant::now();
    let mut board = board(heard);
    board.notice("watch interrupted (gone); reconnecting".to_owned());
    assert!(screen(&mut board, heard).contains("watch interrupted (gone); reconnecting"));
    board.anew();
    board.event(
        &event(operation_event::Type::Snapshot, 30, operation("op-2", "db", operation::State::Stopping, 5)),
        heard,
    );
    assert!(screen(&mut board, heard).contains("migrate shop"), "until the first bookmark there may be more to come");
    board.event(&bookmark(), heard);
    let shown = screen(&mut board, heard);
    assert!(shown.contains("migrate db") && !shown.contains("migrate shop") && !shown.contains("cache"), "{shown}");
    assert!(shown.contains("1 going on  1 over") && shown.contains("watching"), "{shown}");
}

#[test]
fn nothing_has_a_colour_where_colours_are_not_welcome() {
    let heard = Instant::now();
    let mut board = board(heard);
    let colored =
        |buffer: &Buffer| buffer.content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
    assert!(colored(&drawn(&mut board, heard, 80, 24, true)));
    for keys in ["", "j", "?", "x"] {
        type_in(&mut board, keys);
        assert!(!colored(&drawn(&mut board, heard, 80, 24, false)), "after {keys:?}");
    }
    assert_eq!(text(&drawn(&mut board, heard, 80, 24, false)), screen(&mut board, heard), "the words are the same");
}

#[test]
fn every_view_fits_every_terminal() {
    let heard = Instant::now();
    let mut board = board(heard);
    board.instances(vec![Instance { name: "applications/db/instances/db-0".to_owned(), ..Instance::default() }], true);
    for keys in ["", "?", "/\u{6f22}\u{5b57}", "\t", "\t", "\t", "\n"] {
        for c in keys.chars() {
            press(
                &mut board,
                match c {
                    '\t' => KeyCode::Tab,
                    '\n' => KeyCode::Enter,
                    c => KeyCode::Char(c),
                },
            );
        }
        for (columns, rows) in [(1, 1), (3, 2), (20, 5), (40, 10), (80, 24), (200, 60)] {
            drawn(&mut board, heard, columns, rows, true);
        }
        press(&mut board, KeyCode::Esc);
    }
}

#[test]
fn a_narrow_terminal_still_says_what_it_is_and_how_it_stands() {
    let heard = Instant::now();
    let mut board = board(heard);
    for (columns, parts) in [
        (45, &["migrate shop a -> b", "STOPPING", "#2  1/2"][..]),
        (60, &["migrate shop a -> b", "STOPPING", "20s/1m30s +30s", "#2  1/2"]),
        (120, &["op-1 ", "migrate shop a -> b", "STOPPING", "\u{2588}", "20s/1m30s +30s", "#2  1/2"]),
    ] {
        let shown = text(&drawn(&mut board, heard, columns, 24, true));
        let line = shown.lines().find(|line| line.contains("migrate shop")).expect("it is in sight");
        assert!(parts.iter().all(|part| line.contains(part)), "{columns}: {line}");
    }
}

#[test]
fn instances_that_need_somebody_come_first_and_say_why() {
    let heard = Instant::now();
    let mut board = board(heard);
    press(&mut board, KeyCode::Tab);
    assert_eq!(board.tab(), Tab::Instances);
    let one = |name: &str, state: instance::State| Instance {
        name: format!("applications/db/instances/{name}"),
        cluster: "a".to_owned(),
        state: state.into(),
        hook: Some(HookInfo { app_message: "Ready".to_owned(), ..HookInfo::default() }),
        ..Instance::default()
    };
    let mut down = one("db-1", instance::State::Unreachable);
    down.unreachable_reason = "nobody answers\nat all".to_owned();
    board.instances(vec![one("db-0", instance::State::Ready), down], false);
    let shown = screen(&mut board, heard);
    assert!(shown.contains("2 instances"), "{shown}");
    assert!(shown.find("db-1").unwrap() < shown.find("db-0").unwrap(), "{shown}");
    assert!(shown.contains("nobody answers at all"), "{shown}");
}

#[test]
fn q_and_control_c_end_it_and_other_keys_do_not() {
    let mut board = Board::new("x");
    assert_eq!(press(&mut board, KeyCode::Char('q')), Flow::Quit);
    assert_eq!(press(&mut board, KeyCode::Enter), Flow::Go, "there is nothing to open");
    type_in(&mut board, "/");
    assert_eq!(press(&mut board, KeyCode::Char('q')), Flow::Go);
    assert_eq!(board.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Flow::Quit);
}

/// A frame walks through what is in sight, however many there are: the rows asked for tell.
#[test]
fn ten_thousand_operations_cost_a_frame_no_more_than_a_screenful() {
    let heard = Instant::now();
    let mut board = Board::new("x");
    for n in 0..10_000 {
        let operation = operation(&format!("op-{n}"), &format!("app-{n}"), operation::State::Stopping, n);
        board.event(&event(operation_event::Type::Snapshot, 20_000, operation), heard);
    }
    for keys in ["", "jjj", "G", "kkkk", "g"] {
        type_in(&mut board, keys);
        let asked = std::cell::Cell::new(0);
        let count = |_: &Operation| {
            asked.set(asked.get() + 1);
            1
        };
        let sight = board.operations.in_sight(15, count).len();
        assert!(
            (1..=15).contains(&sight) && asked.get() <= 3 * 15,
            "{keys:?}: {sight} shown, {} looked at",
            asked.get()
        );
    }
    type_in(&mut board, "G");
    assert!(selected(&mut board, heard).starts_with("migrate app-9999"));
    assert!(screen(&mut board, heard).contains("10000 going on"));
}

#[test]
fn what_is_over_is_forgotten_in_the_end() {
    let heard = Instant::now();
    let mut board = Board::new("x");
    for n in 0..300 {
        let mut done = operation(&format!("op-{n}"), "app", operation::State::Succeeded, n);
        done.end_time = at(n);
        board.event(&event(operation_event::Type::StateChanged, n, done), heard);
    }
    let shown = screen(&mut board, heard);
    assert!(shown.contains("100 over"), "{shown}");
    press(&mut board, KeyCode::Tab);
    press(&mut board, KeyCode::Tab);
    assert!(screen(&mut board, heard).contains("op-299"));
}
