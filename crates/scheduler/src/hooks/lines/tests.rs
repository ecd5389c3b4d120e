//! Who shares a line, who is cut off from it, and when it is closed.

use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt as _, StreamBody};
use tower::service_fn;

use super::*;

/// Dials nothing: every call is answered with a stream that goes on for ever.
#[derive(Default)]
struct Exchange {
    dialled: Mutex<Vec<(String, CancellationToken, OnEnd)>>,
}

impl Dial for Exchange {
    fn dial(&self, endpoint: &str, closed: CancellationToken, on_end: OnEnd) -> HookChannel {
        lock(&self.dialled).push((endpoint.to_owned(), closed, on_end));
        HookChannel::new(service_fn(|_: Request<Body>| async {
            Ok::<_, Status>(Response::new(Body::new(StreamBody::new(futures::stream::pending::<Result<_, Status>>()))))
        }))
    }
}

impl Exchange {
    fn dialled(&self) -> usize {
        lock(&self.dialled).len()
    }

    fn is_closed(&self, number: usize) -> bool {
        lock(&self.dialled)[number].1.is_cancelled()
    }

    fn ends(&self, number: usize) {
        let on_end = Arc::clone(&lock(&self.dialled)[number].2);
        on_end();
    }
}

fn lines() -> (Lines, Arc<Exchange>) {
    let exchange = Arc::<Exchange>::default();
    (Lines::new(Arc::clone(&exchange) as Arc<dyn Dial>), exchange)
}

fn join(lines: &Lines, endpoint: &str) -> (HookChannel, CancellationToken) {
    let closed = CancellationToken::new();
    (lines.join(endpoint, closed.clone(), Arc::new(|| ())), closed)
}

async fn call(channel: &HookChannel) -> Body {
    channel.clone().oneshot(Request::new(Body::empty())).await.unwrap().into_body()
}

#[test]
fn hooks_at_one_address_share_a_line_until_it_is_full() {
    let (lines, exchange) = lines();
    let first: Vec<_> = (0..PLACES_MAX).map(|_| join(&lines, "here")).collect();
    let _other = join(&lines, "there");
    assert_eq!(exchange.dialled(), 2, "one line for each address");
    let _more = join(&lines, "here");
    assert_eq!(exchange.dialled(), 3);
    drop(first);
    assert!(exchange.is_closed(0), "nobody is on the full one any more");
    let _one_more = join(&lines, "here");
    assert_eq!(exchange.dialled(), 3, "the line that takes newcomers still has room");
}

#[tokio::test]
async fn whoever_leaves_is_cut_off_and_the_others_go_on() {
    let (lines, exchange) = lines();
    let ((leaves, closed), (stays, _open)) = (join(&lines, "here"), join(&lines, "here"));
    let (mut ended, mut goes_on) = (call(&leaves).await, call(&stays).await);
    closed.cancel();
    let error = ended.frame().await.unwrap().unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable);
    let refused = leaves.clone().oneshot(Request::new(Body::empty())).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(futures::poll!(goes_on.frame()).is_pending());
    assert!(!exchange.is_closed(0));
}

#[tokio::test]
async fn a_line_is_closed_when_the_last_stream_over_it_is_dropped() {
    let (lines, exchange) = lines();
    let (channel, _closed) = join(&lines, "here");
    let stream = call(&channel).await;
    drop(channel);
    assert!(!exchange.is_closed(0));
    drop(stream);
    assert!(exchange.is_closed(0));
    let _again = join(&lines, "here");
    assert_eq!(exchange.dialled(), 2);
}

#[test]
fn a_line_of_ones_own_is_shared_with_nobody() {
    let (lines, exchange) = lines();
    let _shared = join(&lines, "here");
    let _alone = lines.alone("here", CancellationToken::new(), Arc::new(|| ()));
    let _another = join(&lines, "here");
    assert_eq!(exchange.dialled(), 2);
}

#[test]
fn everybody_on_a_line_hears_that_its_connection_is_gone() {
    let (lines, exchange) = lines();
    let heard = Arc::new(AtomicUsize::new(0));
    let hears = || {
        let heard = Arc::clone(&heard);
        Arc::new(move || {
            heard.fetch_add(1, Ordering::Relaxed);
        })
    };
    let _one = lines.join("here", CancellationToken::new(), hears());
    let gone = lines.join("here", CancellationToken::new(), hears());
    drop(gone);
    let _two = lines.join("here", CancellationToken::new(), hears());
    exchange.ends(0);
    assert_eq!(heard.load(Ordering::Relaxed), 2);
}

#[test]
fn nothing_is_kept_of_addresses_that_nobody_uses() {
    let (lines, _exchange) = lines();
    for number in 0..2 * SWEEP_MIN {
        drop(join(&lines, &number.to_string()));
    }
    assert!(lock(&lines.open).lines.len() <= SWEEP_MIN);
}
