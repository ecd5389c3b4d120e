//! An application that brings a script which speaks Krake's shutdown interface.
//!
//! The script blocks, as it does in Python, and so do the tests that speak for it: the agent has a thread of its own.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use quiesce_agent::{
    application::{AppState, Application, Evidence, StopError, StopOrder},
    delegate::StopUrl,
    host::Host,
    journal::Journal,
    supervise::{Config, StopMethod, Supervisor},
};
use quiesce_testkit::{eventually, port::FreePort};

use crate::ground::{Ended, Ground, LIMIT, again, lives, now, role, start, stop, until};

/// Shows what it was given, counts SIGTERM, and ends with the file `end`, or with the directory.
const APPLICATION: &str = r#"
    trap 'echo term >>$0/terms; [ ! -e $0/obeys ] || exit 0' TERM
    echo "$KRAKE_SHUTDOWN_URL" >$0/url
    echo "$KRAKE_SHUTDOWN_TOKEN" >$0/token
    echo $$ >$0/up
    while [ -e $0/up ] && [ ! -e $0/end ]; do sleep 0.02; done
"#;

/// A script in the shape of Krake's: one thread, which takes a request, answers it, does its work and reports, in the order
/// that `work` says, and hears nothing else meanwhile.
struct Service {
    url: StopUrl,
    /// What was sent, byte for byte.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn start(work: impl FnMut(TcpStream) + Send + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), work)
    }

    fn on(listener: TcpListener, mut work: impl FnMut(TcpStream) + Send + 'static) -> Self {
        let url = url(listener.local_addr().unwrap().port());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        // It ends with the process, as the script ends with its container.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read_head(&mut stream);
                // Somebody looked whether anybody listens.
                if request.is_empty() {
                    continue;
                }
                log.lock().unwrap().push(request);
                work(stream);
            }
        });
        Self { url, requests }
    }

    fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    async fn is_asked(&self, times: usize) {
        eventually(format!("the script to be asked {times} times"), LIMIT, async || self.asked() >= times).await;
    }
}

fn url(port: u16) -> StopUrl {
    format!("http://127.0.0.1:{port}/shutdown").parse().unwrap()
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// As Python's `http.server` answers for the script in Krake's documentation.
fn answer(stream: &mut TcpStream, status: &str) {
    let text = "Graceful shutdown requested!";
    let head = format!("HTTP/1.0 {status}\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n", text.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
}

/// Where and with what the application was told to report.
#[derive(Clone)]
struct Way {
    port: u16,
    path: String,
    token: String,
}

impl Way {
    async fn of(ground: &Ground) -> Self {
        let (url, token) = (ground.written("url").await, ground.written("token").await);
        Self::parse(&url, token)
    }

    /// The same for the thread of a script, once the application runs.
    fn read(ground: &str) -> Self {
        let read = |name: &str| fs::read_to_string(format!("{ground}/{name}")).unwrap().trim().to_owned();
        Self::parse(&read("url"), read("token"))
    }

    fn parse(url: &str, token: String) -> Self {
        let (port, path) = url.strip_prefix("http://127.0.0.1:").unwrap().split_once('/').unwrap();
        Self { port: port.parse().unwrap(), path: format!("/{path}"), token }
    }

    /// Reports as `requests` does, and returns the whole answer.
    fn report(&self) -> String {
        self.report_with(&self.token)
    }

    fn report_with(&self, token: &str) -> String {
        self.put(&format!("{{\"token\": \"{token}\"}}"))
    }

    fn put(&self, body: &str) -> String {
        self.send("PUT", &self.path, body)
    }

    fn send(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUser-Agent: python-requests/2.31.0\r\n\
             Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

fn counted(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(r#""status":{"state":"READY_FOR_ACTION"}"#)
}

fn config(ground: &Ground, url: &StopUrl) -> Config {
    Config { stop: StopMethod::Script(url.clone()), ..ground.script(APPLICATION) }
}

async fn running(ground: &Ground, url: &StopUrl) -> Supervisor {
    let supervisor = ground.open(config(ground, url)).await;
    start(&supervisor, 1).await.unwrap();
    ground.written("up").await;
    supervisor
}

fn terms(ground: &Ground) -> usize {
    fs::read_to_string(ground.file("terms")).unwrap_or_default().lines().count()
}

fn path(ground: &Ground) -> String {
    ground.file("").to_str().unwrap().to_owned()
}

const DONE: &str = "the application's script reports that it is done; waiting for its processes to end";

/// A script that answers, and works until it is told to go on.
fn slow(ground: &Ground) -> (Service, mpsc::SyncSender<()>, mpsc::Receiver<String>) {
    let (go, gone) = mpsc::sync_channel(8);
    let (answers, answered) = mpsc::sync_channel(8);
    let ground = path(ground);
    let service = Service::start(move |mut stream| {
        answer(&mut stream, "200 OK");
        if gone.recv().is_ok() {
            answers.send(Way::read(&ground).report()).ok();
        }
    });
    (service, go, answered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_script_that_ends_the_application_and_reports_is_all_that_is_needed() {
    let ground = Ground::new();
    fs::write(ground.file("obeys"), "").unwrap();
    let directory = path(&ground);
    let (answers, answered) = mpsc::sync_channel(1);
    let service = Service::start(move |mut stream| {
        answer(&mut stream, "200 OK");
        let way = Way::read(&directory);
        answers.send(way.report()).unwrap();
        fs::write(format!("{directory}/end"), "").unwrap();
    });
    let supervisor = running(&ground, &service.url).await;
    stop(&supervisor, "s-1").await;
    let status = until(&supervisor, "the end", |status| status.end.is_some()).await;
    let end = status.end.unwrap();
    assert_eq!((end.evidence, end.exit_code, end.clean), (Evidence::GroupEmpty, Some(0), Some(true)));
    assert!(counted(&answered.recv_timeout(LIMIT).unwrap()));
    stop(&supervisor, "s-1").await;
    let requests = service.requests.lock().unwrap().clone();
    let port = service.url.to_string().replace("http://", "").replace("/shutdown", "");
    let expected = format!(
        "PUT /shutdown HTTP/1.1\r\nHost: {port}\r\nUser-Agent: quiesce-agent/{}\r\nAccept: */*\r\n\
         Connection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(requests, [expected], "as Krake asks, and once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_report_is_no_proof_and_what_lives_on_is_told_to_end_once() {
    let ground = Ground::new();
    let (service, go, answered) = slow(&ground);
    let supervisor = running(&ground, &service.url).await;
    stop(&supervisor, "s-1").await;
    until(&supervisor, "the wait", |status| status.message.contains("waiting for the application's script")).await;
    assert_eq!(now(&supervisor).state, AppState::Stopping);
    go.send(()).unwrap();
    assert!(counted(&answered.recv_timeout(LIMIT).unwrap()));
    let status = until(&supervisor, "the report", |status| status.message == DONE).await;
    assert_eq!((status.state, status.end), (AppState::Stopping, None), "its word is a claim");
    assert_eq!(ground.written("terms").await, "term");

    let way = Way::of(&ground).await;
    assert!(counted(&way.report()), "who repeats himself is told the same");
    stop(&supervisor, "s-1").await;
    assert_eq!(now(&supervisor).end, None);
    fs::write(ground.file("end"), "").unwrap();
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!((end.evidence, end.exit_code), (Evidence::GroupEmpty, Some(0)));
    assert_eq!((service.asked(), terms(&ground)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_a_report_nobody_is_signalled() {
    let ground = Ground::new();
    let (service, _go, _answered) = slow(&ground);
    let supervisor = running(&ground, &service.url).await;
    stop(&supervisor, "s-1").await;
    until(&supervisor, "the wait", |status| status.message.contains("waiting for the application's script")).await;
    // A ladder, or the patience with those who outlive their leader, would have got this far by then.
    until(&supervisor, "settled", |status| status.ready.is_some()).await;
    assert_eq!((now(&supervisor).state, terms(&ground)), (AppState::Stopping, 0));
    supervisor.kill().await.unwrap();
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!((end.killed, terms(&ground)), (true, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn those_who_outlive_the_first_process_are_told_after_the_report_as_well() {
    let ground = Ground::new();
    let (service, go, answered) = slow(&ground);
    let script = r#"
        echo "$KRAKE_SHUTDOWN_URL" >$0/url
        echo "$KRAKE_SHUTDOWN_TOKEN" >$0/token
        setsid sh -c 'trap "echo term >>$0/terms; exit 0" TERM; echo $$ >$0/up; while :; do sleep 0.02; done' $0 &
        while [ ! -e $0/leave ]; do sleep 0.02; done
    "#;
    let config = Config { stop: StopMethod::Script(service.url.clone()), ..ground.script(script) };
    let supervisor = ground.open(config).await;
    start(&supervisor, 1).await.unwrap();
    ground.written("up").await;
    stop(&supervisor, "s-1").await;
    fs::write(ground.file("leave"), "").unwrap();
    let status = until(&supervisor, "the straggler", |status| status.message.contains("the first process")).await;
    assert!(status.message.contains("waiting for the application's script"), "{}", status.message);
    go.send(()).unwrap();
    assert!(counted(&answered.recv_timeout(LIMIT).unwrap()));
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!((end.evidence, terms(&ground)), (Evidence::GroupEmpty, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn only_the_token_of_this_start_is_heard() {
    let ground = Ground::new();
    fs::write(ground.file("obeys"), "").unwrap();
    let (service, _go, _answered) = slow(&ground);
    let supervisor = running(&ground, &service.url).await;
    let way = Way::of(&ground).await;
    assert_eq!(way.path, "/kubernetes/namespaces/system:admin/applications/db/shutdown");
    assert_eq!(way.token.len(), 43);
    stop(&supervisor, "s-1").await;
    for (body, status) in [
        (r#"{"token": "wrong"}"#, "401"),
        (r#"{"token": ""}"#, "401"),
        (r#"{"token": null}"#, "401"),
        (r#"{"token": 7}"#, "401"),
        ("{}", "401"),
        ("", "415"),
        ("token", "415"),
        ("[]", "415"),
        (&format!(r#"{{"token": "{}", "x": "{}"}}"#, way.token, "x".repeat(5000)), "413"),
    ] {
        let answer = way.put(body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{body}: {answer}");
    }
    for (method, path, status) in [
        ("GET", way.path.as_str(), "405"),
        ("POST", way.path.as_str(), "405"),
        ("PUT", "/shutdown", "404"),
        ("PUT", "/kubernetes/namespaces/system:admin/applications/other/shutdown", "404"),
    ] {
        let answer = way.send(method, path, &format!("{{\"token\": \"{}\"}}", way.token));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
        assert_eq!(answer.to_ascii_lowercase().contains("\r\nallow: put\r\n"), status == "405", "{answer}");
    }
    let status = now(&supervisor);
    assert!(status.message.contains("waiting for the application's script"), "{}", status.message);
    assert!(counted(&way.report()));
    until(&supervisor, "the end", |status| status.end.is_some()).await;

    fs::remove_file(ground.file("token")).unwrap();
    start(&supervisor, 2).await.unwrap();
    let next = Way::of(&ground).await;
    assert_ne!(next.token, way.token);
    assert!(next.report_with(&way.token).starts_with("HTTP/1.1 401 "));
    let journal = fs::read_to_string(ground.state().join("journal.json")).unwrap();
    let shown = format!("{journal} {:?} {:?}", supervisor.journal().contents(), now(&supervisor));
    assert!(journal.contains("callback") && !shown.contains(&next.token), "{shown}");
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_report_that_nobody_asked_for_changes_nothing() {
    let ground = Ground::new();
    fs::write(ground.file("obeys"), "").unwrap();
    let (service, go, _answered) = slow(&ground);
    let supervisor = running(&ground, &service.url).await;
    let answer = Way::of(&ground).await.report();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(r#""state":"RUNNING""#), "{answer}");
    stop(&supervisor, "s-1").await;
    let status = until(&supervisor, "the wait", |status| status.message.contains("waiting for the app")).await;
    assert_eq!(status.end, None, "it does not count for later");
    go.send(()).unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!(terms(&ground), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whatever_is_answered_the_script_has_been_told() {
    for (status, says) in [
        (Some("500 Internal Server Error"), "which answered with an error (500"),
        (Some("302 Found"), "which answered with an error (302"),
        (None, "which gave no answer that can be read"),
    ] {
        let ground = Ground::new();
        fs::write(ground.file("obeys"), "").unwrap();
        let (go, gone) = mpsc::sync_channel::<()>(1);
        let directory = path(&ground);
        let service = Service::start(move |mut stream| {
            match status {
                Some(status) => answer(&mut stream, status),
                None => drop(stream),
            }
            gone.recv().unwrap();
            assert!(counted(&Way::read(&directory).report()));
        });
        let supervisor = running(&ground, &service.url).await;
        stop(&supervisor, "s-1").await;
        until(&supervisor, says, |status| status.message.contains(says)).await;
        stop(&supervisor, "s-1").await;
        go.send(()).unwrap();
        until(&supervisor, "the end", |status| status.end.is_some()).await;
        assert_eq!((service.asked(), terms(&ground)), (1, 1), "{says}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_script_may_report_before_it_answers() {
    let ground = Ground::new();
    fs::write(ground.file("obeys"), "").unwrap();
    let (go, gone) = mpsc::sync_channel::<()>(1);
    let directory = path(&ground);
    let service = Service::start(move |mut stream| {
        gone.recv().unwrap();
        assert!(counted(&Way::read(&directory).report()));
        answer(&mut stream, "200 OK");
    });
    let supervisor = running(&ground, &service.url).await;
    stop(&supervisor, "s-1").await;
    until(&supervisor, "no answer yet", |status| status.message.contains("which has not answered yet")).await;
    go.send(()).unwrap();
    until(&supervisor, "the report", |status| status.message == DONE || status.end.is_some()).await;
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!((service.asked(), terms(&ground)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_busy_script_is_asked_again_by_the_next_attempt_and_may_report_for_the_first() {
    let ground = Ground::new();
    let (service, go, answered) = slow(&ground);
    let supervisor = running(&ground, &service.url).await;
    stop(&supervisor, "s-1").await;
    service.is_asked(1).await;
    stop(&supervisor, "s-2").await;
    go.send(()).unwrap();
    assert!(counted(&answered.recv_timeout(LIMIT).unwrap()));
    service.is_asked(2).await;
    go.send(()).unwrap();
    assert!(counted(&answered.recv_timeout(LIMIT).unwrap()));
    ground.written("terms").await;
    fs::write(ground.file("end"), "").unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!((service.asked(), terms(&ground)), (2, 1), "two reports, one signal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn where_nothing_listens_nobody_was_told_and_the_next_attempt_tries_again() {
    let ground = Ground::new();
    fs::write(ground.file("obeys"), "").unwrap();
    let port = FreePort::claim();
    let supervisor = running(&ground, &url(port.number())).await;
    let findings = supervisor.check().await;
    assert!(!findings.ok);
    assert!(findings.findings.iter().any(|finding| finding.starts_with("nothing listens at the stop URL http://")));
    let order = StopOrder { shutdown_id: "s-1".into(), ..StopOrder::default() };
    let error = supervisor.stop(order).await.unwrap_err();
    assert!(
        matches!(&error, StopError::NotTold { reason } if reason.contains("nothing listens at the stop URL")
            && reason.contains("refused")),
        "{error}"
    );
    let status = now(&supervisor);
    assert_ne!(status.state, AppState::Stopping);
    assert!(!Way::of(&ground).await.report().contains("READY_FOR_ACTION"), "nobody has asked");

    let directory = path(&ground);
    let listener = TcpListener::bind(("127.0.0.1", port.number())).unwrap();
    let service = Service::on(listener, move |mut stream| {
        answer(&mut stream, "200 OK");
        assert!(counted(&Way::read(&directory).report()));
    });
    let findings = supervisor.check().await;
    assert!(findings.ok && findings.findings.is_empty(), "{findings:?}");
    stop(&supervisor, "s-2").await;
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!((service.asked(), terms(&ground)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_application_that_will_not_take_the_last_signal_is_remarked_on() {
    let ground = Ground::new();
    let (service, _go, _answered) = slow(&ground);
    let script = "trap '' TERM; echo up >$0/up; while [ -e $0/up ]; do sleep 0.02; done";
    let config = Config { stop: StopMethod::Script(service.url.clone()), ..ground.script(script) };
    let supervisor = ground.open(config).await;
    assert_eq!(supervisor.check().await.findings, ["the application is not running"]);
    start(&supervisor, 1).await.unwrap();
    ground.written("up").await;
    let findings = supervisor.check().await;
    assert!(findings.ok, "its script may end it");
    assert!(findings.findings[0].contains("ignores SIGTERM, which is what comes after"), "{findings:?}");
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn strangers_who_hold_connections_open_use_up_nothing_but_their_share() {
    let ground = Ground::new();
    fs::write(ground.file("obeys"), "").unwrap();
    let (service, _go, _answered) = slow(&ground);
    let supervisor = running(&ground, &service.url).await;
    let way = Way::of(&ground).await;
    stop(&supervisor, "s-1").await;
    let strangers: Vec<_> = (0..64).map(|_| TcpStream::connect(("127.0.0.1", way.port)).unwrap()).collect();
    // Whoever comes over the bound is hung up on, while the first still have their time.
    let mut last = strangers.last().unwrap();
    last.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(matches!(last.read(&mut [0]).map_err(|error| error.kind()), Ok(0) | Err(ErrorKind::ConnectionReset)));
    let mut first = strangers.first().unwrap();
    first.set_nonblocking(true).unwrap();
    assert_eq!(first.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(strangers);
    let reported = || async {
        let way = way.clone();
        let answer = tokio::task::spawn_blocking(move || std::panic::catch_unwind(|| way.report()).unwrap_or_default());
        counted(&answer.await.unwrap())
    };
    eventually("the script to be heard", LIMIT, reported).await;
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

/// Not a test: an agent that starts the application, asks its script, and waits to be killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn agent() {
    let Some(directory) = role() else { return };
    let ground = Ground::at(&directory);
    let url = fs::read_to_string(ground.file("stop-url")).unwrap().parse().unwrap();
    let supervisor = running(&ground, &url).await;
    stop(&supervisor, "s-1").await;
    fs::write(ground.file("agent"), "ready\n").unwrap();
    std::future::pending().await
}

/// An agent that has asked the script.
async fn agent_that_asked(ground: &Ground, url: &StopUrl) -> Ended {
    fs::write(ground.file("stop-url"), url.to_string()).unwrap();
    let mut command = again("script::agent", ground.file("").to_str().unwrap());
    let agent = Ended(command.stdout(Stdio::null()).spawn().unwrap());
    ground.written("agent").await;
    agent
}

fn kill(mut agent: Ended) {
    agent.0.kill().unwrap();
    agent.0.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_agent_killed_before_the_report_asks_nobody_twice_and_hears_it() {
    let ground = Ground::new();
    let (service, go, answered) = slow(&ground);
    let agent = agent_that_asked(&ground, &service.url).await;
    service.is_asked(1).await;
    kill(agent);

    let supervisor = ground.reopen_with(config(&ground, &service.url)).await;
    let status = now(&supervisor);
    assert_eq!(status.state, AppState::Stopping);
    assert!(status.message.contains("waiting for the application's script"), "{}", status.message);
    stop(&supervisor, "s-1").await;
    go.send(()).unwrap();
    assert!(counted(&answered.recv_timeout(LIMIT).unwrap()), "the same place, the same token");
    ground.written("terms").await;
    fs::write(ground.file("end"), "").unwrap();
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!(end.evidence, Evidence::ExitObserved);
    assert_eq!((service.asked(), terms(&ground)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_agent_killed_after_the_report_leaves_the_signal_to_the_next_one() {
    let ground = Ground::new();
    let (service, go, answered) = slow(&ground);
    let agent = agent_that_asked(&ground, &service.url).await;
    go.send(()).unwrap();
    assert!(counted(&answered.recv_timeout(LIMIT).unwrap()));
    kill(agent);

    let supervisor = ground.reopen_with(config(&ground, &service.url)).await;
    until(&supervisor, "the report", |status| status.message == DONE).await;
    assert_eq!(ground.written("terms").await, "term");
    fs::write(ground.file("end"), "").unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!((service.asked(), terms(&ground)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_agent_killed_between_the_signal_and_the_end_signals_nobody_twice() {
    let ground = Ground::new();
    let (service, go, answered) = slow(&ground);
    let agent = agent_that_asked(&ground, &service.url).await;
    go.send(()).unwrap();
    assert!(counted(&answered.recv_timeout(LIMIT).unwrap()));
    ground.written("terms").await;
    kill(agent);
    let pid = ground.written("up").await;
    assert!(lives(&pid));

    let supervisor = ground.reopen_with(config(&ground, &service.url)).await;
    stop(&supervisor, "s-1").await;
    assert!(counted(&Way::of(&ground).await.report()));
    assert_eq!(now(&supervisor).message, DONE);
    // A signal that is owed is sent a second after the agent came back, and this proof takes a second too.
    until(&supervisor, "settled", |status| status.ready.is_some()).await;
    fs::write(ground.file("end"), "").unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!((service.asked(), terms(&ground)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn where_the_port_is_lost_that_is_said_and_the_end_is_seen_all_the_same() {
    let ground = Ground::new();
    let (service, go, answered) = slow(&ground);
    let agent = agent_that_asked(&ground, &service.url).await;
    service.is_asked(1).await;
    kill(agent);
    let way = Way::of(&ground).await;
    let squatter = TcpListener::bind(("127.0.0.1", way.port)).unwrap();

    let supervisor = ground.reopen_with(config(&ground, &service.url)).await;
    let message = now(&supervisor).message;
    assert!(message.contains("its report cannot be heard: cannot listen on 127.0.0.1:"), "{message}");
    let findings = supervisor.check().await;
    assert!(findings.ok, "{findings:?}");
    assert!(findings.findings.iter().any(|finding| finding.contains("could not be heard")), "{findings:?}");

    // Once it is free again whoever looks finds that out.
    drop(squatter);
    let mended = || async { supervisor.check().await.findings.is_empty() };
    eventually("the port to be ours again", LIMIT, mended).await;
    go.send(()).unwrap();
    assert!(counted(&answered.recv_timeout(LIMIT).unwrap()));
    ground.written("terms").await;
    fs::write(ground.file("end"), "").unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!(service.asked(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_run_without_a_way_back_is_watched_to_its_end() {
    let ground = Ground::new();
    let supervisor = ground.started(APPLICATION).await;
    ground.written("up").await;
    assert_eq!(ground.written("token").await, "", "without a script there is nothing to report");
    drop(supervisor);
    let directory = path(&ground);
    let service = Service::start(move |mut stream| {
        answer(&mut stream, "200 OK");
        fs::write(format!("{directory}/end"), "").unwrap();
    });
    let supervisor = ground.reopen_with(config(&ground, &service.url)).await;
    let findings = supervisor.check().await;
    assert!(findings.ok);
    assert!(findings.findings[0].contains("started without KRAKE_SHUTDOWN_URL"), "{findings:?}");
    stop(&supervisor, "s-1").await;
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    let journal = Journal::open(&Host::linux(), &ground.state()).await;
    assert!(journal.is_err(), "the agent is still there");
    assert_eq!(terms(&ground), 0);
}
