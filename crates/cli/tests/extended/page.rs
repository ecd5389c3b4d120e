//! The page on the admin address, in a real browser.

use std::time::Duration;

use quiesce_protocol::v1::instance;
use quiesce_protocol::v1::operation::State;

use crate::browser::{Browser, Key};
use crate::program::Program;
use crate::stack::{SOON, Stack};

/// Pause between two looks at the page, which is drawn a few times in a second.
const LOOK: Duration = Duration::from_millis(50);

/// Turns the page on.
const PAGE: [&str; 2] = ["env", "QUIESCE_SCHEDULER_WEB_PAGE=true"];

impl Browser {
    /// Waits until the script says `true`.
    async fn sees(&mut self, what: &str, script: &str) {
        let until = tokio::time::Instant::now() + SOON;
        while self.run(script).await != true {
            let text = self.run("document.body.innerText").await;
            assert!(tokio::time::Instant::now() < until, "{what} is not on the page: {text}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until there is `text` within `selector`.
    async fn reads(&mut self, selector: &str, text: &str) {
        let (selector, text) = (serde_json::json!(selector), serde_json::json!(text));
        let script = format!("[...document.querySelectorAll({selector})].some((it) => it.innerText.includes({text}))");
        self.sees(&format!("{text} in {selector}"), &script).await;
    }
}

#[tokio::test]
async fn it_says_what_waits_for_whom_and_how_to_help() {
    let stack = Stack::start_within(&PAGE).await;
    let program = Program::new(&stack);
    stack.apply("kind: Application\nname: db\ncluster: a\n").await;
    let _agent = stack.agent("a", "a-0").running(program.command(&["--on-term", "ignore"])).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let mut browser = Browser::open(stack.directory()).await;
    browser.visit(&format!("http://127.0.0.1:{}/", stack.admin_port())).await;
    browser.reads("#status", "0 wait for somebody, 0 in progress, 0 done").await;
    browser.reads("#instances tbody", "READY").await;

    // What others write stays text.
    let name = stack.begin(&["delete", "db", "--attempts", "1", "--reason", "<b>spring cleaning</b>"]).await;
    stack.reaches(&name, State::Degraded, SOON).await;
    browser.reads("#waiting .row", "DEGRADED").await;
    browser.reads("#waiting .why", "CHECK_FAILED").await;
    browser.reads("#events", "DEGRADED").await;
    browser.sees("the title", "document.title === '(1!) Quiesce'").await;

    // With the keyboard alone.
    browser.press(Key::Letter('j')).await;
    browser.press(Key::Enter).await;
    browser.reads(".details", "<b>spring cleaning</b>").await;
    browser.reads(".details tbody", "a-0").await;
    browser.press(Key::Escape).await;
    browser.sees("no details", "document.querySelector('.details') === null").await;
    browser.press(Key::Letter('/')).await;
    browser.sees("the filter", "document.activeElement.id === 'filter'").await;

    // The command that it shows is one that helps.
    let commands = "[...document.querySelectorAll('#waiting code')].map((it) => it.innerText).join('\\n')";
    let commands = browser.run(commands).await;
    let command = commands.as_str().unwrap().lines().find(|line| line.ends_with("--force")).unwrap().to_owned();
    let args: Vec<_> = command.split(' ').skip(1).collect();
    stack.quiesce(&[&args[..], &["--reason", "a test"]].concat()).await.expect(0);
    stack.reaches(&name, State::Succeeded, SOON).await;
    browser.reads("#done .row", "SUCCEEDED").await;
    browser.sees("nothing that waits", "document.querySelectorAll('#waiting .row').length === 0").await;
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn it_says_that_the_scheduler_is_gone_and_goes_on_when_it_is_back() {
    let mut stack = Stack::start_within(&PAGE).await;
    let mut browser = Browser::open(stack.directory()).await;
    browser.visit(&format!("http://127.0.0.1:{}/", stack.admin_port())).await;
    browser.reads("#status", "0 in progress").await;
    stack.stop_scheduler().await;
    browser.reads("#status.lost", "not connected").await;
    stack.start_scheduler_within(&PAGE).await;
    browser.reads("#status:not(.lost)", "0 in progress").await;
}

#[tokio::test]
async fn it_asks_who_you_are_and_forgets_it_with_the_tab() {
    let enforced = [&PAGE[..], &["QUIESCE_SCHEDULER_ACCESS=enforced"]].concat();
    let stack = Stack::start_within(&enforced).await;
    let url = format!("http://127.0.0.1:{}/", stack.admin_port());
    let mut browser = Browser::open(stack.directory()).await;
    browser.visit(&url).await;
    browser.sees("the form", "document.querySelector('#credential:not([hidden])') !== null").await;
    let token = std::fs::read_to_string(stack.data_dir().join("admin.token")).unwrap();
    for (token, selector, says) in [("qt1.wrong", "#refused", "wrong"), (token.trim(), "#status", "0 in progress")] {
        let token = serde_json::json!(token);
        browser.run(&format!("document.querySelector('#token').value = {token}; 1")).await;
        browser.run("document.querySelector('#credential').requestSubmit(); 1").await;
        browser.reads(selector, says).await;
    }
    browser.sees("no token in the form", "document.querySelector('#token').value === ''").await;
    browser.sees("nothing kept for longer", "localStorage.length === 0 && document.cookie === ''").await;
}

#[tokio::test]
async fn ten_thousand_operations_do_not_fill_it() {
    let stack = Stack::start_within(&PAGE).await;
    let mut browser = Browser::open(stack.directory()).await;
    browser.visit(&format!("http://127.0.0.1:{}/", stack.admin_port())).await;
    browser.reads("#status", "0 in progress").await;
    let many = "for (let i = 0; i < 10000; i++) take({ name: `operations/op-${i}`, application: `applications/app-${i}`, \
                kind: 'DELETE', state: i % 10 ? 'STOPPING' : 'DEGRADED', done: false, source: 'a', attempt: 1, attempts: 3, \
                created: now(), updated: now(), deadline: now() + 60000, overrides: [], message: '', revision: 1 }); draw(); 1";
    browser.run(many).await;
    browser.reads("#status", "1000 wait for somebody, 9000 in progress").await;
    browser.reads("#open .more", "and 8800 more").await;
    browser.sees("few rows", "document.querySelectorAll('.row').length === 400").await;
    browser.run("document.querySelector('#filter').value = 'app-9999'; draw(); 1").await;
    browser.reads("#open .row", "app-9999").await;
    browser.sees("one row", "document.querySelectorAll('.row').length === 1").await;
    // By day and by night.
    let colour = "getComputedStyle(document.body).backgroundColor";
    let mut colours = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefers(scheme).await;
        colours.push(browser.run(colour).await);
    }
    assert_ne!(colours[0], colours[1]);
}
