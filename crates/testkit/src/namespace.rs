//! Network namespaces and the cables between them: real links that are unplugged, or lose what goes one way.
//!
//! Nothing of this touches the network of the machine. A namespace lives as long as somebody has it open, so nothing is
//! left behind, however a test ends. It takes root and `iproute2`; where they are not to be had, [`Namespace::new`] says
//! why, and a test says that it was skipped.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::oneshot;

/// Longest wait for a connection; over a cable that works it takes no time.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// An address of nobody: what is sent there is on the wire, and whoever gets it does not take it.
const NOBODY: &str = "02:00:00:00:00:01";

/// A network of its own, in which nothing but the loopback is up.
#[derive(Debug)]
pub struct Namespace {
    /// Keeps it in being.
    open: File,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// Why this machine has none to give, for people.
    pub async fn new() -> Result<Self, String> {
        let cannot = |error: io::Error| format!("cannot run unshare: {error}");
        let mut child = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "ip link set dev lo up && echo $$ && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(cannot)?;
        let mut stdout = child.stdout.take().expect("standard output is piped");
        let mut said = String::new();
        // It is there, and stays until its input ends.
        while !said.ends_with('\n') {
            let mut byte = [0];
            if stdout.read(&mut byte).await.map_err(cannot)? == 0 {
                let output = child.wait_with_output().await.map_err(cannot)?;
                return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
            }
            said.push(char::from(byte[0]));
        }
        let open = File::open(format!("/proc/{}/ns/net", said.trim())).map_err(|error| error.to_string())?;
        let mut stdin = child.stdin.take().expect("standard input is piped");
        stdin.shutdown().await.map_err(cannot)?;
        drop(stdin);
        child.wait().await.map_err(cannot)?;
        Ok(Self { open })
    }

    /// The words to put before a command that is to run in here.
    pub fn entrance(&self) -> [String; 3] {
        ["nsenter".to_owned(), format!("--net={}", self.path()), "--".to_owned()]
    }

    /// A connection that is made in here.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = self.within(move || std::net::TcpStream::connect_timeout(&to, CONNECT_LIMIT)).await?;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }

    /// Makes a socket in here: it belongs where it was made.
    async fn within<T: Send + 'static>(&self, make: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let open = self.open.try_clone()?;
        let (sender, made) = oneshot::channel();
        // A thread that has moved does not come back, so it is one of its own.
        std::thread::spawn(move || {
            let moved = move_into_link_name_space(open.as_fd(), Some(LinkNameSpaceType::Network));
            // Nobody may wait for it any more.
            let _gone = sender.send(moved.map_err(io::Error::from).and_then(|()| make()));
        });
        made.await.map_err(io::Error::other)?
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.open.as_raw_fd())
    }

    async fn ip(&self, words: &str) {
        let [enter, which, rest] = self.entrance();
        let output = Command::new(enter).args([which, rest, "ip".to_owned()]).args(words.split(' ')).output().await;
        let output = output.expect("nsenter runs");
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A cable between two namespaces, each of which has an address on it.
#[derive(Debug)]
pub struct Cable {
    number: u8,
    ends: [Arc<Namespace>; 2],
}

/// An end of a cable, as the caller of [`Cable::lay`] named them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The first one.
    Near,
    /// The second one.
    Far,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Near => Self::Far,
            Self::Far => Self::Near,
        }
    }
}

impl Cable {
    /// Lays a cable and plugs it in.
    pub async fn lay(near: &Arc<Namespace>, far: &Arc<Namespace>) -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cable = Self { number, ends: [Arc::clone(near), Arc::clone(far)] };
        let [here, there] = [End::Near, End::Far].map(|end| cable.device(end));
        near.ip(&format!("link add name {here} type veth peer name {there} netns {}", far.path())).await;
        for end in [End::Near, End::Far] {
            let (device, address) = (cable.device(end), cable.address(end));
            cable.namespace(end).ip(&format!("address add {address}/30 dev {device}")).await;
            cable.namespace(end).ip(&format!("link set dev {device} up")).await;
        }
        cable
    }

    /// The address of one end.
    pub fn address(&self, end: End) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, if end == End::Near { 1 } else { 2 })
    }

    /// Takes the cable out. To either end the other one is silent.
    pub async fn unplug(&self) {
        self.namespace(End::Far).ip(&format!("link set dev {} down", self.device(End::Far))).await;
    }

    /// Puts it in again.
    pub async fn plug(&self) {
        self.namespace(End::Far).ip(&format!("link set dev {} up", self.device(End::Far))).await;
    }

    /// From now on everything that is sent to this end is lost on the way; the other direction works.
    pub async fn lose_what_goes_to(&self, end: End) {
        let (device, address) = (self.device(end.other()), self.address(end));
        let neighbour = format!("neighbour replace {address} lladdr {NOBODY} dev {device} nud permanent");
        self.namespace(end.other()).ip(&neighbour).await;
    }

    /// Ends [`Cable::lose_what_goes_to`].
    pub async fn deliver_to(&self, end: End) {
        let (device, address) = (self.device(end.other()), self.address(end));
        self.namespace(end.other()).ip(&format!("neighbour delete {address} dev {device}")).await;
    }

    fn namespace(&self, end: End) -> &Namespace {
        match end {
            End::Near => &self.ends[0],
            End::Far => &self.ends[1],
        }
    }

    /// The name of the device at one end.
    fn device(&self, end: End) -> String {
        let end = if end == End::Near { "near" } else { "far" };
        format!("{end}{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use tokio::time::timeout;

    use super::*;
    use crate::eventually;

    const LIMIT: Duration = Duration::from_secs(20);

    /// What has not arrived by then does not; a test that believed so too early would fail at the next step.
    const SILENCE: Duration = Duration::from_secs(1);

    async fn two() -> Option<[Arc<Namespace>; 2]> {
        match (Namespace::new().await, Namespace::new().await) {
            (Ok(near), Ok(far)) => Some([Arc::new(near), Arc::new(far)]),
            (Err(why), _) | (_, Err(why)) => {
                println!("skipped, no network namespaces here: {why}");
                None
            }
        }
    }

    /// Greets whoever connects, until the process ends.
    async fn greeter(at: &Namespace) -> u16 {
        let listener = at.within(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // Who does not want to be greeted is gone.
                let _gone = stream.and_then(|mut stream| stream.write_all(b"hello"));
            }
        });
        port
    }

    async fn is_greeted(from: &Namespace, to: SocketAddr) -> bool {
        let greeting = async {
            let mut hello = [0; 5];
            from.connect(to).await?.read_exact(&mut hello).await?;
            io::Result::Ok(hello == *b"hello")
        };
        // No answer is one answer.
        timeout(SILENCE, greeting).await.is_ok_and(|greeting| greeting.unwrap_or(false))
    }

    #[tokio::test]
    async fn what_is_sent_arrives_unless_the_cable_is_out_or_loses_it() {
        let Some([near, far]) = two().await else { return };
        let cable = Cable::lay(&near, &far).await;
        let to = SocketAddr::from((cable.address(End::Far), greeter(&far).await));
        eventually("the cable to work", LIMIT, || is_greeted(&near, to)).await;
        cable.unplug().await;
        assert!(!is_greeted(&near, to).await);
        cable.plug().await;
        eventually("the cable to work again", LIMIT, || is_greeted(&near, to)).await;
        for end in [End::Near, End::Far] {
            cable.lose_what_goes_to(end).await;
            assert!(!is_greeted(&near, to).await, "{end:?}");
            cable.deliver_to(end).await;
            eventually("what is sent to arrive again", LIMIT, || is_greeted(&near, to)).await;
        }
    }
}
