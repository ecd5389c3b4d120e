//! gRPC-Web, as a browser or curl speaks it: HTTP/1.1 over a bare socket.

use prost::Message;
use quiesce_protocol::v1;
use quiesce_scheduler::{Config, Origin, access};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::hook::Stop;
use crate::world::{LIMIT, World};

/// Begins a frame that holds trailers instead of a message.
const TRAILERS: u8 = 0x80;

/// An answer whose head has been read.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    socket: BufReader<TcpStream>,
    body: Vec<u8>,
    ended: bool,
}

/// What comes in a frame.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Message(Vec<u8>),
    Trailers(String),
}

async fn ask(world: &World, verb: &str, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut head = format!("{verb} /quiesce.v1.Scheduler/{method} HTTP/1.1\r\nhost: scheduler\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut socket = TcpStream::connect(world.address).await.unwrap();
    socket.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut socket = BufReader::new(socket);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        timeout(LIMIT, socket.read_line(&mut line)).await.unwrap().unwrap();
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let status = lines.remove(0).split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.iter().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Answer { status, headers, socket, body: Vec::new(), ended: false }
}

/// Calls a method by gRPC-Web.
async fn call(world: &World, method: &str, headers: &[(&str, &str)], request: &impl Message) -> Answer {
    let message = request.encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    let headers = [&[("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")], headers].concat();
    ask(world, "POST", method, &headers, &body).await
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// Reads the next chunk of the body.
    async fn more(&mut self) {
        let mut size = String::new();
        timeout(LIMIT, self.socket.read_line(&mut size)).await.unwrap().unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        timeout(LIMIT, self.socket.read_exact(&mut chunk)).await.unwrap().unwrap();
        self.body.extend(&chunk[..size]);
        self.ended = size == 0;
    }

    async fn frame(&mut self) -> Frame {
        while self.body.len() < 5 {
            assert!(!self.ended, "the answer ends without trailers");
            self.more().await;
        }
        let length = u32::from_be_bytes(self.body[1..5].try_into().unwrap()) as usize;
        while self.body.len() < 5 + length {
            self.more().await;
        }
        let frame: Vec<u8> = self.body.drain(..5 + length).collect();
        match frame[0] {
            TRAILERS => Frame::Trailers(String::from_utf8(frame[5..].to_vec()).unwrap()),
            _ => Frame::Message(frame[5..].to_vec()),
        }
    }

    /// The status of a call that gave no message, be it in the head or in trailers.
    async fn error(&mut self) -> String {
        match self.header("grpc-status") {
            "" => match self.frame().await {
                Frame::Trailers(text) => text,
                Frame::Message(_) => panic!("a message instead of an error"),
            },
            code => format!("grpc-status:{code}\r\n"),
        }
    }
}

#[tokio::test]
async fn what_speaks_no_http_2_lists_and_watches() {
    let mut world = World::start().await;
    let _hook = world.populated("shop", Stop::AtOnce).await;
    let mut list = call(&world, "ListApplications", &[], &v1::ListApplicationsRequest::default()).await;
    assert_eq!((list.status, list.header("content-type")), (200, "application/grpc-web+proto"));
    let Frame::Message(message) = list.frame().await else { panic!("no message") };
    let found = v1::ListApplicationsResponse::decode(&*message).unwrap();
    assert_eq!(found.applications[0].name, "applications/shop");
    let Frame::Trailers(trailers) = list.frame().await else { panic!("no trailers") };
    assert!(trailers.contains("grpc-status:0"), "{trailers:?}");

    let mut watch = call(&world, "WatchOperations", &[], &v1::WatchOperationsRequest::default()).await;
    let operation = world.delete("shop", false).await.unwrap();
    loop {
        let Frame::Message(message) = watch.frame().await else { panic!("the watch ended") };
        let event = v1::WatchOperationsResponse::decode(&*message).unwrap().event.unwrap();
        if event.operation.is_some_and(|found| found.name == operation.name && found.done) {
            break;
        }
    }

    let missing = v1::GetApplicationRequest { name: "applications/bank".to_owned() };
    let mut missing = call(&world, "GetApplication", &[], &missing).await;
    assert!(missing.error().await.contains("grpc-status:5"));
    world.stop().await;
}

#[tokio::test]
async fn a_page_calls_only_if_its_origin_is_on_the_list() {
    let web_origins = vec![Origin::parse("https://ops.example.net").unwrap()];
    for (web_origins, known) in [(Vec::new(), false), (web_origins, true)] {
        let mut world = World::with(Config { web_origins, ..Config::ephemeral() }).await;
        world.create("applications/shop", "a").await;
        let cluster = v1::Cluster { name: "clusters/evil".to_owned(), ..Default::default() };
        let request = v1::CreateClusterRequest { cluster: Some(cluster), ..Default::default() };
        // As a page anywhere could make the browser of somebody who reaches the scheduler.
        for origin in ["https://evil.example.net", "http://ops.example.net", "null"] {
            let refused = call(&world, "CreateCluster", &[("origin", origin)], &request).await;
            assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, ""), "{origin}");
        }
        let ours = ("origin", "https://ops.example.net");
        let asked = [ours, ("access-control-request-method", "POST"), ("access-control-request-headers", "x-grpc-web")];
        let before = ask(&world, "OPTIONS", "ListClusters", &asked, b"").await;
        let allowed = if known { ours.1 } else { "" };
        assert_eq!(before.header("access-control-allow-origin"), allowed);
        let mut list = call(&world, "ListClusters", &[ours], &v1::ListClustersRequest::default()).await;
        assert_eq!(list.header("access-control-allow-origin"), allowed);
        if known {
            assert!(before.header("access-control-allow-headers").contains("x-grpc-web"));
            assert!(list.header("access-control-expose-headers").contains("grpc-status"));
            let Frame::Message(message) = list.frame().await else { panic!("no message") };
            let found = v1::ListClustersResponse::decode(&*message).unwrap();
            assert!(found.clusters.iter().all(|cluster| cluster.name != "clusters/evil"), "{found:?}");
        } else {
            assert_eq!((before.status, list.status), (403, 403));
        }
        world.stop().await;
    }
}

#[tokio::test]
async fn it_needs_a_credential_as_everybody_does() {
    let access = access::Config { mode: access::Mode::Enforced, ..access::Config::open() };
    let world = World::with(Config { access, ..Config::ephemeral() }).await;
    for headers in [&[][..], &[("authorization", "Bearer qbt1.t0.x")]] {
        let mut refused = call(&world, "ListApplications", headers, &v1::ListApplicationsRequest::default()).await;
        assert!(refused.error().await.contains("grpc-status:16"));
    }
    world.stop().await;
}

#[tokio::test]
async fn other_http_is_told_that_this_is_no_place_for_it() {
    let world = World::start().await;
    for (verb, kind) in
        [("GET", ""), ("POST", "application/json"), ("POST", "text/plain"), ("POST", "application/grpc")]
    {
        let answer = ask(&world, verb, "DeleteApplication", &[("content-type", kind)], b"{}").await;
        assert_eq!(answer.status, 400, "{verb} {kind}");
    }
    let answer = ask(&world, "GET", "ListApplications", &[("content-type", "application/grpc-web")], b"").await;
    assert_eq!(answer.status, 405);
    world.stop().await;
}
