//! How one call travels: there, handled, and back, each step with what can go wrong on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::{KEEPALIVE, Party, Served, Wire};

/// A message was not delivered.
struct Broken(&'static str);

impl From<Broken> for Status {
    fn from(Broken(why): Broken) -> Self {
        Self::unavailable(why)
    }
}

impl Wire {
    pub(super) async fn call(
        &self,
        from: Party,
        name: &str,
        closed: CancellationToken,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let limit = time_limit(request.headers());
        let call = self.exchange(from, name, request);
        tokio::select! {
            biased;
            () = closed.cancelled() => Err(Status::unavailable("connection closed by us")),
            answer = async {
                match limit {
                    // As tonic reports its own timeouts.
                    Some(limit) => timeout(limit, call).await.unwrap_or(Err(Status::cancelled("Timeout expired"))),
                    None => call.await,
                }
            } => answer,
        }
    }

    async fn exchange(&self, from: Party, name: &str, request: Request<Body>) -> Result<Response<Body>, Status> {
        let served = {
            let state = self.state();
            state.served.get(name).filter(|served| !served.closed.is_cancelled()).cloned()
        };
        let served = served.ok_or_else(|| Status::unavailable("connection refused"))?;
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let (tap, streaming) = {
            let state = self.state();
            (state.tap.clone(), state.streaming.contains(parts.uri.path()))
        };
        if let Some(tap) = tap {
            tap(parts.uri.path(), &bytes);
        }
        self.travel(from, served.party).await?;
        let mut request = Request::new(Body::new(Full::new(bytes.clone())));
        *request.uri_mut() = parts.uri;
        *request.method_mut() = parts.method;
        *request.headers_mut() = parts.headers;
        if !streaming && self.strikes(|weather| weather.doubles) {
            let mut twin = Request::new(Body::new(Full::new(bytes)));
            *twin.uri_mut() = request.uri().clone();
            *twin.method_mut() = request.method().clone();
            *twin.headers_mut() = request.headers().clone();
            let (again, pause) = (Arc::clone(&served), self.inner.chance.millis(0..=500));
            // Whoever repeats a call does so behind the caller's back: the first answer counts.
            drop(tokio::spawn(async move {
                sleep(pause).await;
                let _unheard = handle(again, twin).await;
            }));
        }
        // The server goes on when its caller has gone, unless it hears of that.
        let handling = tokio::spawn(handle(Arc::clone(&served), request));
        let abandon = Abandon { handle: handling.abort_handle(), heard: self.inner.chance.percent(50) };
        let answer = handling.await.map_err(|_| Status::unavailable("connection reset"))??;
        drop(abandon);
        if streaming && !answer.headers().contains_key("grpc-status") {
            self.travel(served.party, from).await?;
            return Ok(self.carry_stream(from, served, answer));
        }
        let (parts, body) = answer.into_parts();
        let collected = body.collect().await?;
        self.travel(served.party, from).await?;
        Ok(Response::from_parts(parts, Body::new(collected)))
    }

    /// One message on its way.
    async fn travel(&self, from: Party, to: Party) -> Result<(), Broken> {
        if self.strikes(|weather| weather.breaks) {
            return Err(Broken("connection reset"));
        }
        let late = self.strikes(|weather| weather.late);
        let delay = if late { self.inner.chance.millis(50..=2000) } else { self.inner.chance.millis(0..=8) };
        if !delay.is_zero() {
            sleep(delay).await;
        }
        self.passable(from, to).await
    }

    /// Waits while the way is cut, as long as a connection survives that.
    async fn passable(&self, from: Party, to: Party) -> Result<(), Broken> {
        let mut changes = self.inner.changes.subscribe();
        loop {
            let Some(since) = self.cut_since(from, to) else { return Ok(()) };
            let dead = since + KEEPALIVE;
            if dead <= Instant::now() {
                return Err(Broken("keepalive timed out"));
            }
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = sleep_until(dead) => {}
            }
        }
    }

    fn cut_since(&self, from: Party, to: Party) -> Option<Instant> {
        self.state().cut.get(&(from, to)).copied()
    }

    /// Resolves when a connection between the two has been cut, in either direction, for longer than it survives.
    async fn dead(&self, one: Party, other: Party) {
        let mut changes = self.inner.changes.subscribe();
        loop {
            let since = [self.cut_since(one, other), self.cut_since(other, one)].into_iter().flatten().min();
            match since {
                Some(since) if since + KEEPALIVE <= Instant::now() => return,
                Some(since) => tokio::select! {
                    biased;
                    _ = changes.changed() => {}
                    () = sleep_until(since + KEEPALIVE) => {}
                },
                None => {
                    // The network lives as long as whoever waits here.
                    let _changed = changes.changed().await;
                }
            }
        }
    }

    fn strikes(&self, of: impl Fn(&super::Weather) -> u64) -> bool {
        let permille = of(&self.state().weather);
        permille > 0 && self.inner.chance.permille(permille)
    }

    fn carry_stream(&self, to: Party, served: Arc<Served>, answer: Response<Body>) -> Response<Body> {
        let (parts, body) = answer.into_parts();
        let wire = self.clone();
        let frames = stream::unfold(Some((wire, served, body)), move |state| async move {
            let (wire, served, mut body) = state?;
            let frame = tokio::select! {
                biased;
                () = served.closed.cancelled() => Some(Err(Status::unknown("connection reset by peer"))),
                () = wire.dead(served.party, to) => Some(Err(Status::unknown("keepalive timed out"))),
                frame = body.frame() => frame,
            };
            match frame? {
                Ok(frame) if frame.is_data() => match wire.travel(served.party, to).await {
                    Ok(()) => Some((Ok(frame), Some((wire, served, body)))),
                    Err(Broken(why)) => Some((Err(Status::unknown(why)), None)),
                },
                Ok(frame) => Some((Ok(frame), Some((wire, served, body)))),
                Err(status) => Some((Err(status), None)),
            }
        });
        let frames: futures::stream::BoxStream<'static, Result<Frame<Bytes>, Status>> = Box::pin(frames);
        Response::from_parts(parts, Body::new(StreamBody::new(frames)))
    }
}

/// Has the call handled, as long as the server lives.
async fn handle(served: Arc<Served>, request: Request<Body>) -> Result<Response<Body>, Status> {
    let (service, closed) = (served.service.clone(), served.closed.clone());
    // Whatever handles the call is held by the call alone: a server that is gone ends with its last handle.
    drop(served);
    tokio::select! {
        biased;
        () = closed.cancelled() => Err(Status::unavailable("connection reset")),
        answer = service.oneshot(request) => Ok(answer.unwrap_or_else(|never| match never {})),
    }
}

/// When dropped before the answer came: the caller has gone.
struct Abandon {
    handle: tokio::task::AbortHandle,
    heard: bool,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if self.heard {
            self.handle.abort();
        }
    }
}

/// What the client allows the call to take: the header `grpc-timeout`.
fn time_limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        _ => Duration::from_nanos(number),
    })
}
