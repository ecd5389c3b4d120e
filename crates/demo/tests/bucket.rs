//! The S3 server and the client against each other, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use bytes::Bytes;
use quiesce_demo::bucket::{Bucket, BucketError, BucketOptions, PutError, RequestError};
use quiesce_demo::s3::S3Server;
use rusty_s3::Credentials;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

async fn server() -> (tempfile::TempDir, S3Server, Bucket) {
    let root = tempfile::tempdir().unwrap();
    let server = S3Server::start(root.path()).await.unwrap();
    let bucket = Bucket::new(&server.bucket_options()).unwrap();
    (root, server, bucket)
}

fn body(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn objects_come_back_and_survive_the_server() {
    let (root, server, bucket) = server().await;
    assert!(bucket.get("state/1").await.unwrap().is_none());
    let etag = bucket.put_if_absent("state/1", body("one")).await.unwrap();
    let object = bucket.get("state/1").await.unwrap().unwrap();
    assert_eq!((object.body, object.etag), (body("one"), etag));
    server.stop().await;
    assert!(matches!(bucket.get("state/1").await, Err(RequestError::Send { .. })));

    let server = S3Server::start(root.path()).await.unwrap();
    let again = Bucket::new(&server.bucket_options()).unwrap();
    assert_eq!(again.get("state/1").await.unwrap().unwrap().body, body("one"));
    assert!(matches!(bucket.get("state/1").await, Err(RequestError::Send { .. })), "the old server is gone");
    server.stop().await;
}

#[tokio::test]
async fn conditions_are_enforced() {
    let (_root, server, bucket) = server().await;
    let first = bucket.put_if_absent("current", body("1")).await.unwrap();
    let refused = bucket.put_if_absent("current", body("2")).await;
    assert!(matches!(refused, Err(PutError::Precondition { .. })), "{refused:?}");
    let second = bucket.put_if_match("current", body("2"), &first).await.unwrap();
    let refused = bucket.put_if_match("current", body("3"), &first).await;
    assert!(matches!(refused, Err(PutError::Precondition { .. })), "{refused:?}");
    let refused = bucket.put_if_match("nothing", body("3"), &second).await;
    assert!(matches!(refused, Err(PutError::Precondition { .. })), "{refused:?}");
    assert_eq!(bucket.get("current").await.unwrap().unwrap().body, body("2"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_at_once_exactly_one_wins() {
    let (_root, server, bucket) = server().await;
    let mut etag = bucket.put_if_absent("current", body("start")).await.unwrap();
    for round in 0..10 {
        let mut writers = JoinSet::new();
        for writer in 0..8 {
            let (bucket, etag) = (bucket.clone(), etag.clone());
            writers.spawn(async move {
                let text = format!("round {round}, writer {writer}");
                bucket.put_if_match("current", Bytes::from(text), &etag).await
            });
        }
        let mut winners = Vec::new();
        for result in writers.join_all().await {
            match result {
                Ok(etag) => winners.push(etag),
                Err(PutError::Precondition { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(winners.len(), 1);
        etag = winners.remove(0);
        assert_eq!(bucket.get("current").await.unwrap().unwrap().etag, etag);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_secret_a_wrong_key_and_no_signature_are_refused() {
    let (_root, server, bucket) = server().await;
    bucket.put_if_absent("current", body("1")).await.unwrap();
    let right = server.bucket_options();
    for wrong in
        [Credentials::new(right.credentials.key(), "wrong"), Credentials::new("wrong", right.credentials.secret())]
    {
        let bucket = Bucket::new(&BucketOptions { credentials: wrong, ..right.clone() }).unwrap();
        for key in ["current", "nothing"] {
            let refused = bucket.get(key).await;
            assert!(matches!(refused, Err(RequestError::Refused { status, .. }) if status == 403), "{refused:?}");
        }
        let refused = bucket.put_if_absent("new", body("2")).await.unwrap_err();
        assert!(
            matches!(refused, PutError::Request(RequestError::Refused { status, .. }) if status == 403),
            "{refused:?}"
        );
    }
    assert!(bucket.get("new").await.unwrap().is_none());

    let address = right.endpoint.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /ledger/current HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn secrets_do_not_show_and_odd_endpoints_are_refused() {
    let (_root, server, bucket) = server().await;
    let options = server.bucket_options();
    let secret = options.credentials.secret();
    for shown in [format!("{options:?}"), format!("{server:?}"), format!("{bucket:?}")] {
        assert!(!shown.contains(secret));
    }
    for endpoint in ["", "127.0.0.1:9", "https://127.0.0.1:9", "http://"] {
        let options = BucketOptions { endpoint: endpoint.to_owned(), ..options.clone() };
        assert!(matches!(Bucket::new(&options), Err(BucketError::Endpoint { .. })), "{endpoint}");
    }
    server.stop().await;
}
