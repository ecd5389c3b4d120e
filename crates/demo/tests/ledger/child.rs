//! A ledger as a real process, seen as its supervisor sees it: through signals, notifications and its exit code.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use quiesce_demo::bucket::{Bucket, BucketOptions};
use quiesce_demo::ledger::vars;
use quiesce_demo::load::{Load, LoadOptions, Stats};
use quiesce_demo::s3::S3Server;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, UnixDatagram};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

/// Nothing here takes a second on an idle machine; a busy one gets plenty.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what must come.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("this must not take so long")
}

/// A bucket to keep the state in.
pub(crate) struct Storage {
    pub(crate) server: S3Server,
    pub(crate) options: BucketOptions,
    _root: tempfile::TempDir,
}

impl Storage {
    pub(crate) async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let server = S3Server::start(root.path()).await.unwrap();
        let options = server.bucket_options();
        Self { server, options, _root: root }
    }

    pub(crate) fn bucket(&self) -> Bucket {
        Bucket::new(&self.options).unwrap()
    }
}

/// A port that stays ours, and refuses connections, until a ledger listens there: bound, but not listening.
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    _socket: TcpSocket,
}

impl Place {
    pub(crate) fn reserve() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self { address: socket.local_addr().unwrap(), _socket: socket }
    }
}

/// A ledger process and the socket its notifications come to.
pub(crate) struct Ledger {
    child: Child,
    stderr: ChildStderr,
    notifications: UnixDatagram,
    /// Everything it said so far.
    pub(crate) heard: Vec<String>,
}

impl Ledger {
    /// Starts a ledger; it may be loading still, or failing.
    pub(crate) fn spawn(place: &Place, options: &BucketOptions, epoch: u64, more: &[(&str, &str)]) -> Self {
        let name = format!("quiesce-demo-{}", uuid::Uuid::new_v4());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let socket = std::os::unix::net::UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ledger"))
            .env_clear()
            .envs(options.to_vars())
            .env(vars::LISTEN, place.address.to_string())
            .env(vars::EPOCH, epoch.to_string())
            .env(vars::NOTIFY_SOCKET, format!("@{name}"))
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let notifications = UnixDatagram::from_std(socket).unwrap();
        Self { child, stderr, notifications, heard: Vec::new() }
    }

    /// Starts a ledger and waits until it serves.
    pub(crate) async fn serving(place: &Place, options: &BucketOptions, epoch: u64) -> Self {
        let mut ledger = Self::spawn(place, options, epoch, &[]);
        ledger.says("READY=1").await;
        ledger
    }

    /// Waits for a notification with this text in it, and returns it.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        let mut buffer = vec![0; 4096];
        loop {
            let Ok(received) = timeout(PATIENCE, self.notifications.recv(&mut buffer)).await else {
                panic!("never said {text:?}, but {:#?}", self.heard);
            };
            let message = String::from_utf8(buffer[..received.unwrap()].to_vec()).unwrap();
            self.heard.push(message.clone());
            if message.contains(text) {
                return message;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("still running")).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end and returns how it ended, and its log.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        soon(self.stderr.read_to_string(&mut log)).await.unwrap();
        (soon(self.child.wait()).await.unwrap(), log)
    }

    /// Asks it to stop, waits, and insists on a good end.
    pub(crate) async fn stop(self) {
        self.signal(Signal::TERM);
        let (status, log) = self.ended().await;
        assert!(status.success(), "{status}: {log}");
    }
}

/// A client that writes as fast as it may.
pub(crate) fn load(name: &str, places: &[&Place]) -> Load {
    let candidates = places.iter().map(|place| place.address).collect();
    Load::start(LoadOptions { candidates, interval: Duration::from_millis(1), name: name.to_owned() })
}

/// Waits until the client's statistics are so.
pub(crate) async fn until(load: &Load, condition: impl FnMut(&Stats) -> bool) -> Stats {
    soon(load.stats().wait_for(condition)).await.unwrap().clone()
}
