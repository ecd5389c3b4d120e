//! The page on the admin address, as a browser asks for its parts: HTTP/1.1 over a bare socket.

use std::net::SocketAddr;

use quiesce_protocol::v1;
use quiesce_scheduler::Config;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use v1::operation::State;
use v1::token::Role;

use crate::access::callers::House;
use crate::hook::Stop;
use crate::world::{LIMIT, World};

/// Looks at a page.
struct Browser {
    admin: SocketAddr,
    /// By what name it knows the address.
    host: String,
    token: Option<String>,
}

/// An answer as far as it was read.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Browser {
    fn of(admin: SocketAddr) -> Self {
        Self { admin, host: admin.to_string(), token: None }
    }

    fn with(admin: SocketAddr, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..Self::of(admin) }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    /// What comes until `text` has come; streams have no end.
    async fn until(&self, path: &str, text: &str) -> Answer {
        self.ask("GET", path, Some(text)).await
    }

    async fn ask(&self, verb: &str, path: &str, until: Option<&str>) -> Answer {
        let token = self.token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        // HTTP/1.0, so that bodies come as they are, not in chunks.
        let request = format!("{verb} {path} HTTP/1.0\r\nhost: {}\r\n{token}\r\n", self.host);
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        let whole = async {
            while stream.read_buf(&mut read).await.unwrap() > 0 {
                if until.is_some_and(|text| String::from_utf8_lossy(&read).contains(text)) {
                    break;
                }
            }
        };
        timeout(LIMIT, whole).await.unwrap_or_else(|_| panic!("{path}: {until:?} has not come"));
        let text = String::from_utf8(read).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{} {}", self.head, self.body))
    }

    fn lines(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

async fn world() -> World {
    World::with(Config { page: true, ..Config::ephemeral() }).await
}

/// The values of `key`.
fn all<'v>(lines: &'v [Value], key: &str) -> Vec<&'v str> {
    lines.iter().filter_map(|line| line[key].as_str()).collect()
}

#[tokio::test]
async fn the_page_is_off_unless_it_is_turned_on() {
    let world = World::start().await;
    let browser = Browser::of(world.admin);
    for path in ["/", "/overview.js", "/overview/operations", "/overview/events"] {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains("--web-page"), "{}", answer.body);
    }
    world.stop().await;
}

#[tokio::test]
async fn its_files_name_nothing_from_elsewhere() {
    let world = world().await;
    let browser = Browser::of(world.admin);
    for (path, kind) in [("/", "text/html"), ("/overview.css", "text/css"), ("/overview.js", "text/javascript")] {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains(&format!("content-type: {kind}")), "{}", answer.head);
        assert!(answer.head.contains("content-security-policy: default-src 'none'"), "{}", answer.head);
        assert!(!answer.body.contains("//cdn") && !answer.body.contains("https://"), "{path}");
    }
    assert_eq!(browser.ask("POST", "/overview/operations", None).await.status, 405);
    assert_eq!(browser.get("/overview/nothing").await.status, 404);
    world.stop().await;
}

#[tokio::test]
async fn it_shows_what_was_done_and_goes_on_where_it_was() {
    let mut world = world().await;
    let browser = Browser::of(world.admin);
    assert_eq!(browser.get("/overview/operations").await.lines(), Vec::<Value>::new());
    let _hook = world.populated("shop", Stop::AtOnce).await;
    let instances = browser.get("/overview/instances").await.lines();
    assert_eq!(all(&instances, "state"), ["READY"], "{instances:#?}");
    let operation = world.migrate("shop", "b", "").await.unwrap();
    world.operation_is(&operation.name, State::Succeeded).await;

    let listed = browser.get("/overview/operations").await.lines();
    assert_eq!(all(&listed, "name"), [operation.name.as_str()]);
    assert_eq!((&listed[0]["state"], &listed[0]["kind"]), (&"SUCCEEDED".into(), &"MIGRATE".into()));
    let whole = browser.get(&format!("/overview/{}", operation.name)).await.json();
    assert_eq!(whole["instances"][0]["outcome"], "STOPPED", "{whole:#}");
    assert_eq!(whole["instances"][0]["verified"], true);

    // All of it lies behind, and comes all the same.
    let events = browser.until("/overview/events", "\"SUCCEEDED\"").await.lines();
    let states: Vec<_> = events.iter().filter(|event| event["type"] == "STATE_CHANGED").collect();
    assert_eq!(states.first().unwrap()["previous"], "PENDING");
    assert_eq!(states.last().unwrap()["operation"]["state"], "SUCCEEDED");
    let middle = &events[events.len() / 2];
    let path = format!("/overview/events?resume={}", middle["resume"].as_str().unwrap());
    let rest = browser.until(&path, "\"SUCCEEDED\"").await.lines();
    assert_eq!(all(&rest, "resume"), all(&events[events.len() / 2 + 1..], "resume"));

    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_shown_is_said_as_json() {
    let world = world().await;
    let browser = Browser::of(world.admin);
    let unknown = browser.get("/overview/operations/op-unknown").await;
    assert_eq!((unknown.status, &unknown.json()["reason"]), (404, &"OPERATION_NOT_FOUND".into()));
    let token = browser.get("/overview/events?resume=nonsense").await;
    assert_eq!((token.status, &token.json()["reason"]), (400, &"INVALID_RESUME_TOKEN".into()));
    world.stop().await;
}

#[tokio::test]
async fn a_name_that_others_have_given_the_address_shows_nothing() {
    let world = world().await;
    for (host, status) in
        [("127.0.0.1", 200), ("localhost:7601", 200), ("[::1]:7601", 200), ("evil.example", 421), ("", 421)]
    {
        let browser = Browser { host: host.to_owned(), ..Browser::of(world.admin) };
        assert_eq!(browser.get("/overview/operations").await.status, status, "{host}");
    }
    world.stop().await;
}

#[tokio::test]
async fn where_access_is_enforced_it_takes_a_viewer_who_sees_what_is_his() {
    let house = House::open().await;
    let admin = house.world.admin;
    for application in ["shop", "bank"] {
        house.application(application).await;
        house.instance(application, "one").await;
    }
    let nobody = Browser::of(admin);
    assert_eq!(nobody.get("/").await.status, 200, "the page itself holds nothing");
    for path in ["/overview/operations", "/overview/instances", "/overview/events", "/overview/operations/op-x"] {
        for browser in [&nobody, &Browser::with(admin, "qt1.wrong")] {
            let refused = browser.get(path).await;
            assert_eq!((refused.status, &refused.json()["reason"]), (401, &"CREDENTIALS_INVALID".into()), "{path}");
        }
        let agent = Browser::with(admin, &house.person(Role::Agent, &["shop"]).await);
        assert_eq!(agent.get(path).await.status, 403, "{path}");
    }
    let viewer = Browser::with(admin, &house.person(Role::Viewer, &[]).await);
    assert_eq!(viewer.get("/overview/instances").await.lines().len(), 2);
    let narrow = Browser::with(admin, &house.person(Role::Viewer, &["shop"]).await);
    let seen = narrow.get("/overview/instances").await.lines();
    assert_eq!(all(&seen, "name"), ["applications/shop/instances/one"]);
    // Refusals are recorded as those of every other caller.
    let audit = std::fs::read_to_string(house.path("audit.jsonl")).unwrap();
    assert!(audit.lines().any(|line| line.contains("WatchOperations") && line.contains("127.0.0.1")), "{audit}");
    house.close().await;
}
