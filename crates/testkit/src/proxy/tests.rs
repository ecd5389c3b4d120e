//! The proxy between a client and an echo server.

use std::io::ErrorKind;
use std::time::Duration;

use super::*;
use crate::eventually;

const LIMIT: Duration = Duration::from_secs(10);

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
                to.shutdown().await.ok();
            });
        }
    });
    address
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn hear(stream: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), text);
}

async fn hear_reset(stream: &mut TcpStream) {
    let error = tokio::time::timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof), "{error}");
}

/// Whether nothing can be read just now. Bytes on loopback arrive as fast as the other side is scheduled, so silence
/// is asked for only after something that was sent later came through another way.
fn is_silent(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

async fn connected() -> (TcpProxy, TcpStream) {
    let proxy = TcpProxy::start(echo().await).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut stream, "hello").await;
    hear(&mut stream, "hello").await;
    (proxy, stream)
}

#[tokio::test]
async fn passes_bytes_and_the_end_both_ways() {
    let (proxy, mut stream) = connected().await;
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    eventually("the connection to be forgotten", LIMIT, async || proxy.open() == 0).await;
}

#[tokio::test]
async fn held_bytes_arrive_later_and_in_order() {
    let (proxy, mut stream) = connected().await;
    proxy.set_mode(Mode::Hold);
    say(&mut stream, "one ").await;
    let mut late = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut late, "late").await;
    eventually("both connections to be accepted", LIMIT, async || proxy.accepted() == 2).await;
    say(&mut stream, "two").await;
    assert!(is_silent(&stream) && is_silent(&late));
    proxy.set_mode(Mode::Pass);
    hear(&mut stream, "one two").await;
    hear(&mut late, "late").await;
}

#[tokio::test]
async fn cut_resets_open_and_new_connections() {
    let (proxy, mut stream) = connected().await;
    proxy.set_mode(Mode::Cut);
    hear_reset(&mut stream).await;
    let mut next = TcpStream::connect(proxy.address()).await.unwrap();
    hear_reset(&mut next).await;
    proxy.set_mode(Mode::Pass);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut stream, "again").await;
    hear(&mut stream, "again").await;
}

#[tokio::test]
async fn cutting_what_is_open_leaves_new_connections_alone() {
    let (proxy, mut stream) = connected().await;
    proxy.cut_connections();
    hear_reset(&mut stream).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut stream, "again").await;
    hear(&mut stream, "again").await;
}

#[tokio::test]
async fn a_black_hole_swallows_and_the_connection_does_not_survive_it() {
    let (proxy, mut stream) = connected().await;
    proxy.set_mode(Mode::BlackHole);
    say(&mut stream, "lost").await;
    stream.shutdown().await.unwrap();
    assert!(is_silent(&stream));
    assert_eq!(proxy.open(), 1);
    proxy.set_mode(Mode::Pass);
    hear_reset(&mut stream).await;
}

#[tokio::test]
async fn a_new_upstream_serves_new_connections() {
    let proxy = TcpProxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))).await;
    let mut nobody = TcpStream::connect(proxy.address()).await.unwrap();
    hear_reset(&mut nobody).await;
    proxy.set_upstream(echo().await);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut stream, "hello").await;
    hear(&mut stream, "hello").await;
}

#[tokio::test]
async fn dropping_the_proxy_takes_its_connections_along() {
    let (proxy, mut stream) = connected().await;
    drop(proxy);
    let ended = tokio::time::timeout(LIMIT, stream.read(&mut [0])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn a_stranded_connection_is_silent_while_a_new_one_passes() {
    let (proxy, mut stranded) = connected().await;
    proxy.strand_connections();
    say(&mut stranded, "lost").await;
    let mut other = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut other, "kept").await;
    hear(&mut other, "kept").await;
    proxy.set_mode(Mode::Pass);
    say(&mut other, "again").await;
    hear(&mut other, "again").await;
    assert!(is_silent(&stranded));
    assert_eq!(proxy.open(), 2);
}
