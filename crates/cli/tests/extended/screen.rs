//! `quiesce top` in a real terminal, of which tmux keeps the screen: it is drawn, resized, survives the scheduler, and leaves
//! the terminal as it was.

use std::path::{Path, PathBuf};
use std::process::Command;

use quiesce_protocol::v1::instance;
use quiesce_protocol::v1::operation::State;
use quiesce_testkit::eventually;

use crate::program::Program;
use crate::stack::{SOON, Stack, touch};

/// A terminal with a shell in it.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    fn open(stack: &Stack) -> Self {
        let terminal = Self { socket: stack.path("tmux") };
        let mut command = terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sh"]);
        command.env("QUIESCE_SCHEDULER", stack.url()).env("LC_ALL", "C.UTF-8").env("PS1", "ready$ ");
        command.env("QUIESCE", env!("CARGO_BIN_EXE_quiesce"));
        let output = command.output().expect("tmux is installed");
        assert!(output.status.success(), "{output:?}");
        terminal
    }

    fn tmux(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(&self.socket).args(args);
        command
    }

    /// Types a line.
    fn type_line(&self, line: &str) {
        self.does(&["send-keys", "-l", line]);
        self.press("Enter");
    }

    /// Presses a key, by tmux's name of it.
    fn press(&self, key: &str) {
        self.does(&["send-keys", key]);
    }

    fn does(&self, args: &[&str]) -> String {
        let output = self.tmux(args).output().expect("tmux runs");
        assert!(output.status.success(), "tmux {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What is on the screen, once all of it is.
    async fn shows(&self, parts: &[&str]) -> String {
        let what = format!("{parts:?} on the screen");
        eventually(&what, SOON, async || {
            let screen = self.does(&["capture-pane", "-p"]);
            if parts.iter().all(|part| screen.contains(part)) { Ok(screen) } else { Err(screen) }
        })
        .await
    }

    /// The shell has the terminal back: what was on the screen before, and lines that are edited and echoed.
    async fn is_as_before(&self, code: i32) {
        // Until then keys are still those of the one that ends.
        eventually("the shell to be back", SOON, async || {
            let screen = self.does(&["capture-pane", "-p"]);
            if screen.contains("before-top") { Ok(()) } else { Err(screen) }
        })
        .await;
        self.type_line("echo exit=$?; stty -a | tr ' ;' '\\n\\n' | grep -x -e -icanon -e -echo; echo looked");
        let screen = self.shows(&["before-top", &format!("exit={code}"), "\nlooked"]).await;
        assert!(!screen.contains("\n-icanon") && !screen.contains("\n-echo"), "{screen}");
        assert!(!screen.contains("[operations]"), "{screen}");
        self.type_line("clear");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It ends the shell and what runs in it, too. There may be nothing left to end.
        drop(self.tmux(&["kill-server"]).output());
    }
}

async fn pid_in(file: &Path) -> i32 {
    eventually("a pid to be written", SOON, async || {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        text.trim().parse().map_err(|_| text)
    })
    .await
}

#[tokio::test]
async fn a_migration_is_seen_as_it_goes_on_through_resizing_and_a_crash_of_the_scheduler() {
    let mut stack = Stack::start().await;
    let program = Program::new(&stack);
    let command = program.command(&["--until", stack.path("release").to_str().unwrap()]);
    let _source = stack.agent("a", "a-0").running(command.clone()).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = stack.agent("b", "b-0").standby().running(command).start();
    stack.instance_is("b-0", instance::State::Held).await;

    let terminal = Terminal::open(&stack);
    terminal.type_line("echo before-top");
    terminal.type_line("$QUIESCE top");
    terminal.shows(&["nothing is going on", "watching", "q quit"]).await;
    let operation = stack.begin(&["migrate", "db", "--to", "b"]).await;
    program.reaches("term", 1).await;
    terminal.shows(&["migrate db a -> b", "STOPPING", "\u{2591}", "1 going on"]).await;
    terminal.press("Enter");
    terminal.shows(&["a-0", "waiting for 1 of 1 instances to end", "quiesce extend"]).await;
    terminal.press("Escape");
    terminal.does(&["resize-window", "-x", "60", "-y", "12"]);
    terminal.shows(&["migrate db", "STOPPING", "q quit"]).await;
    terminal.does(&["resize-window", "-x", "120", "-y", "30"]);
    terminal.shows(&["heard last", "migrate db", "q quit"]).await;

    stack.crash_scheduler().await;
    terminal.shows(&["reconnecting", "migrate db"]).await;
    stack.start_scheduler().await;
    terminal.shows(&["watching", "migrate db", "STOPPING"]).await;
    touch(&stack.path("release"));
    stack.reaches(&operation, State::Succeeded, SOON).await;
    terminal.shows(&["migrate db", "SUCCEEDED", "1 over"]).await;
    terminal.press("Tab");
    terminal.shows(&["2 instances", "db/b-0", "READY"]).await;
    terminal.press("q");
    terminal.does(&["resize-window", "-x", "80", "-y", "24"]);
    terminal.is_as_before(0).await;
}

#[tokio::test]
async fn the_terminal_is_given_back_however_it_ends() {
    let stack = Stack::start().await;
    let terminal = Terminal::open(&stack);
    for signal in ["TERM", "INT", "HUP"] {
        let file = stack.path(signal);
        terminal.type_line("echo before-top");
        terminal.type_line(&format!("sh -c 'echo $$ > {}; exec $QUIESCE top'", file.display()));
        terminal.shows(&["[operations]", "watching"]).await;
        let pid = pid_in(&file).await.to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        assert!(sent.success());
        terminal.is_as_before(0).await;
    }
    terminal.type_line("echo before-top");
    terminal.type_line("$QUIESCE top");
    terminal.shows(&["[operations]"]).await;
    terminal.press("C-c");
    terminal.is_as_before(0).await;
    // What is wrong is said where it can be read.
    terminal.type_line("echo before-top");
    terminal.type_line("$QUIESCE top --filter state=DEGRADED");
    terminal.shows(&["INVALID_FILTER"]).await;
    terminal.is_as_before(1).await;
}
