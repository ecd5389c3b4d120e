//! A real S3 server on loopback, over a directory: `s3s-fs` as a library.
//!
//! It checks SigV4 signatures against credentials made at the start and refuses everybody else. It owns the listening
//! socket and the objects below its root. Not for production: `s3s-fs` does not sync what it writes.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rusty_s3::Credentials;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpError, HttpResponse};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{RwLock, Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::bucket::BucketOptions;

/// The one bucket the server is born with.
const BUCKET: &str = "ledger";

/// The demonstration opens a handful; the rest is room for a person's own S3 tools.
const CONNECTIONS_MAX: usize = 64;

/// Longest time for one request. A writer holds the lock below for as long as it sends, so it must come to an end.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// How long the stop waits for requests under way.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// Pause after a failed accept, so that running out of descriptors does not become a busy loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory for the bucket could not be made.
    #[error("cannot create the directory {}", path.display())]
    Directory {
        /// What was to be created.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The directory exists, but the file system behind the server refused it.
    #[error("cannot serve S3 from {}: {reason}", path.display())]
    Storage {
        /// The root of the server.
        path: PathBuf,
        /// What the library said; its error type has no source to keep.
        reason: String,
    },
    /// No socket on loopback.
    #[error("cannot listen on loopback")]
    Listen(#[source] io::Error),
}

/// A running S3 server. It stops when dropped, too, but only [`S3Server::stop`] waits for that.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    credentials: Credentials,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl S3Server {
    /// Starts a server with fresh credentials and one empty bucket, or with what `root` already holds.
    pub async fn start(root: &Path) -> Result<Self, StartError> {
        let directory = root.join(BUCKET);
        fs::create_dir_all(&directory).map_err(|source| StartError::Directory { path: directory, source })?;
        let storage = s3s_fs::FileSystem::new(root)
            .map_err(|error| StartError::Storage { path: root.to_owned(), reason: format!("{error:?}") })?;
        let credentials = generate_credentials();
        let mut builder = S3ServiceBuilder::new(storage);
        builder.set_auth(SimpleAuth::from_single(credentials.key(), credentials.secret()));
        let service = Arc::new(Serialized { service: builder.build(), lock: RwLock::new(()) });

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(StartError::Listen)?;
        let address = listener.local_addr().map_err(StartError::Listen)?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(listener, service, stopped));
        Ok(Self { address, credentials, stop, task })
    }

    /// Everything a client needs to use the bucket, the secret included.
    #[must_use]
    pub fn bucket_options(&self) -> BucketOptions {
        BucketOptions {
            endpoint: format!("http://{}", self.address),
            bucket: BUCKET.to_owned(),
            region: "us-east-1".to_owned(),
            credentials: self.credentials.clone(),
        }
    }

    /// Takes no more connections and waits a few seconds at most for the requests under way.
    pub async fn stop(self) {
        // Fails only when the task is gone already, which is what is asked for.
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            warn!(%error, "the S3 server ended badly");
        }
    }
}

/// `s3s-fs` checks `If-Match` and then writes, and stores an object before its ETag: two writers at once could both
/// pass the check, and a reader could see new bytes under an old ETag. Fencing rests on neither happening, so writes
/// are alone.
struct Serialized {
    service: S3Service,
    lock: RwLock<()>,
}

impl Serialized {
    async fn call(&self, request: http::Request<Incoming>) -> Result<HttpResponse, HttpError> {
        let answer = async {
            if matches!(*request.method(), Method::GET | Method::HEAD) {
                let _reading = self.lock.read().await;
                self.service.call(request.map(s3s::Body::from)).await
            } else {
                let _writing = self.lock.write().await;
                self.service.call(request.map(s3s::Body::from)).await
            }
        };
        tokio::time::timeout(REQUEST_TIME_MAX, answer).await.unwrap_or_else(|late| Err(HttpError::new(Box::new(late))))
    }
}

async fn accept(listener: TcpListener, service: Arc<Serialized>, mut stop: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = next_connection(&listener, &places) => accepted,
            // A dropped handle means stop, too.
            _ = &mut stop => break,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection to the S3 server");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let service = Arc::clone(&service);
        let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| {
                let service = Arc::clone(&service);
                async move { service.call(request).await }
            }),
        );
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection to the S3 server broke");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(STOP_TIME_MAX, graceful.shutdown()).await.is_err() {
        warn!("requests to the S3 server were cut off");
    }
}

/// Waits for a free place first, so that too many connections queue in the kernel's bounded backlog.
async fn next_connection(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// Two random UUIDs make a secret of 244 bits; a new one for every server, so there is none to leak.
fn generate_credentials() -> Credentials {
    let key = format!("DEMO{}", &Uuid::new_v4().simple().to_string().to_uppercase()[..16]);
    Credentials::new(key, format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))
}
