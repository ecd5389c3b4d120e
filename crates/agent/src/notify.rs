//! The language applications already speak: sd_notify.
//!
//! Owns the datagram socket `NOTIFY_SOCKET` points to and the grammar of its messages. The kernel says who sent a
//! message (`SCM_CREDENTIALS`); whether that process belongs to the application is decided by the caller, so the socket
//! may be open to all users: an application often runs under another one than its agent.

use std::{
    fmt,
    fs::{self, DirBuilder},
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::AsFd,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, MetadataExt, PermissionsExt},
            net::UnixDatagram,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use futures::stream::{self, BoxStream, StreamExt as _};
use rustix::{
    cmsg_space,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg, sockopt::set_socket_passcred},
    process::geteuid,
};
use tokio::{io::Interest, net};

use crate::application::SAID_MAX;

/// Longest message; the limit of systemd. What is longer is dropped as a whole: half a message may say the opposite.
const MESSAGE_MAX: usize = 4096;

/// Longest path of a socket in `sockaddr_un`, without the final zero byte.
const PATH_MAX: usize = 107;

/// No application gets more than this by one message; the policy's `max_extension` limits the sum.
const EXTEND_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Descriptors that may come with a message (`FDSTORE`, `BARRIER`). They are closed at once, which is what a barrier
/// waits for.
const DESCRIPTORS_MAX: usize = 4;

/// What one message says. Whatever is not here is ignored: `WATCHDOG`, `FDSTORE`, `X_...`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notice {
    /// It is of use now.
    pub ready: bool,
    /// It has begun to stop.
    pub stopping: bool,
    /// It reads its configuration again.
    pub reloading: bool,
    /// Printable, at most [`SAID_MAX`] bytes. Empty: the application takes its words back.
    pub status: Option<String>,
    /// It wants to be left alone for so long from now on.
    pub extend: Option<Duration>,
    /// The process that is to be told things.
    pub main_pid: Option<i32>,
    /// Why it failed, as an error number.
    pub errno: Option<i32>,
}

impl Notice {
    /// Never fails: what cannot be understood is not there. A later line replaces an earlier one of the same name.
    pub fn parse(message: &[u8]) -> Self {
        let mut notice = Self::default();
        for line in message.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            let Some((name, value)) = line.split_once('=') else { continue };
            match (name, value) {
                ("READY", "1") => notice.ready = true,
                ("STOPPING", "1") => notice.stopping = true,
                ("RELOADING", "1") => notice.reloading = true,
                ("STATUS", text) => notice.status = Some(printable(text)),
                ("EXTEND_TIMEOUT_USEC", usec) => {
                    let extend = usec.parse().ok().map(|usec| Duration::from_micros(usec).min(EXTEND_MAX));
                    notice.extend = extend.or(notice.extend);
                }
                ("MAINPID", pid) => {
                    notice.main_pid = pid.parse().ok().filter(|pid| *pid > 1).or(notice.main_pid);
                }
                ("ERRNO", errno) => notice.errno = errno.parse().ok().or(notice.errno),
                _ => {}
            }
        }
        notice
    }
}

/// One line that is safe to show in a terminal, cut at a character.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::new();
    for character in text.trim().chars() {
        let character = if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
        if printable.len() + character.len_utf8() > SAID_MAX {
            break;
        }
        printable.push(character);
    }
    printable
}

/// Where the application sends its messages.
pub struct NotifySocket {
    /// What it finds in `NOTIFY_SOCKET`.
    pub path: PathBuf,
    /// The messages, each with the pid that sent it. It does not end; an error is the last that comes.
    pub messages: BoxStream<'static, io::Result<(i32, Notice)>>,
}

impl fmt::Debug for NotifySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifySocket").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind the notify socket {}", path.display())]
pub struct BindError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl NotifySocket {
    /// Binds in the state directory, or, where its path is too long for a socket or its file system knows no sockets,
    /// in a directory of our own under `/tmp`. The same directory and agent id give the same path again.
    pub(crate) fn bind(directory: &Path, agent_id: &str) -> Result<Self, BindError> {
        let path = directory.join("notify.sock");
        if path.as_os_str().as_bytes().len() <= PATH_MAX
            && let Ok(socket) = Self::bind_at(&path)
        {
            return Ok(socket);
        }
        let private = PathBuf::from(format!("/tmp/quiesce-{agent_id}"));
        make_private(&private).map_err(|source| BindError { path: private.clone(), source })?;
        Self::bind_at(&private.join("notify.sock"))
    }

    /// Binds exactly here: where a running application was told to send its messages.
    pub(crate) fn bind_at(path: &Path) -> Result<Self, BindError> {
        let bind = || {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let socket = UnixDatagram::bind(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
            socket.set_nonblocking(true)?;
            set_socket_passcred(&socket, true)?;
            net::UnixDatagram::from_std(socket)
        };
        let socket = bind().map_err(|source| BindError { path: path.to_owned(), source })?;
        let messages = stream::unfold(socket, |socket| async { Some((receive(&socket).await, socket)) });
        Ok(Self { path: path.to_owned(), messages: messages.boxed() })
    }
}

/// The next message and the pid that sent it. Messages without a sender or too long are skipped.
async fn receive(socket: &net::UnixDatagram) -> io::Result<(i32, Notice)> {
    loop {
        match socket.async_io(Interest::READABLE, || receive_now(socket)).await {
            Ok(Some(message)) => return Ok(message),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn receive_now(socket: impl AsFd) -> io::Result<Option<(i32, Notice)>> {
    let mut buffer = [0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let sender = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid.as_raw_nonzero().get()),
        _ => None, // descriptors are closed by dropping them
    });
    if received.flags.contains(ReturnFlags::TRUNC) {
        tracing::warn!(limit = MESSAGE_MAX, "dropped a notification of the application that is too long");
        return Ok(None);
    }
    Ok(sender.map(|pid| (pid, Notice::parse(&buffer[..received.bytes]))))
}

/// A directory that only we can write to; others pass through to the socket. Whoever made it before us is not trusted.
fn make_private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o711).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "it exists and is not ours alone"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_of_real_programs_are_understood() {
        let mariadb =
            Notice::parse(b"STOPPING=1\nSTATUS=Waiting to flush the buffer pool\nEXTEND_TIMEOUT_USEC=30000000");
        assert!(mariadb.stopping && !mariadb.ready);
        assert_eq!(mariadb.status.as_deref(), Some("Waiting to flush the buffer pool"));
        assert_eq!(mariadb.extend, Some(Duration::from_secs(30)));
        let redis = Notice::parse(b"STATUS=Ready to accept connections\nREADY=1\n");
        assert!(redis.ready);
        assert_eq!(Notice::parse(b"MAINPID=42\nERRNO=2\nWATCHDOG=1\nX_FOO=1\nREADY=0").main_pid, Some(42));
    }

    #[test]
    fn a_status_cannot_play_with_the_terminal() {
        let notice = Notice::parse(b"STATUS=\x1b[2Jall gone\x07 \xff");
        assert_eq!(notice.status.as_deref(), Some("\u{fffd}[2Jall gone\u{fffd} \u{fffd}"));
    }

    #[test]
    fn impossible_numbers_are_ignored() {
        let notice = Notice::parse(b"MAINPID=1\nEXTEND_TIMEOUT_USEC=-4\nERRNO=many");
        assert_eq!(notice, Notice::default());
        let kept = Notice::parse(b"MAINPID=42\nMAINPID=1\nEXTEND_TIMEOUT_USEC=5\nEXTEND_TIMEOUT_USEC=soon");
        assert_eq!((kept.main_pid, kept.extend), (Some(42), Some(Duration::from_micros(5))));
        let huge = Notice::parse(b"EXTEND_TIMEOUT_USEC=18446744073709551615");
        assert_eq!(huge.extend, Some(EXTEND_MAX));
    }

    proptest! {
        #[test]
        fn no_message_breaks_the_parser(message in proptest::collection::vec(any::<u8>(), 0..MESSAGE_MAX)) {
            check(&message);
        }

        #[test]
        fn nor_does_one_that_looks_like_a_message(
            lines in proptest::collection::vec(("(STATUS|READY|MAINPID|EXTEND_TIMEOUT_USEC|ERRNO|[A-Z]{0,4})=?", ".{0,600}"), 0..20)
        ) {
            let message = lines.iter().map(|(name, value)| format!("{name}{value}\n")).collect::<String>();
            check(message.as_bytes());
        }
    }

    fn check(message: &[u8]) {
        let notice = Notice::parse(message);
        if let Some(status) = &notice.status {
            assert!(status.len() <= SAID_MAX);
            assert!(!status.chars().any(char::is_control));
        }
        assert!(notice.extend.is_none_or(|extend| extend <= EXTEND_MAX));
        assert!(notice.main_pid.is_none_or(|pid| pid > 1));
    }

    #[tokio::test]
    async fn messages_arrive_with_their_sender() {
        let directory = tempfile::tempdir().unwrap();
        let mut socket = NotifySocket::bind(directory.path(), "unused").unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(&[b'x'; MESSAGE_MAX + 1], &socket.path).unwrap();
        sender.send_to(b"READY=1", &socket.path).unwrap();
        let (pid, notice) = socket.messages.next().await.unwrap().unwrap();
        assert_eq!(u32::try_from(pid).unwrap(), std::process::id());
        assert!(notice.ready, "the message that is too long was skipped");
    }

    #[tokio::test]
    async fn the_path_is_the_same_after_a_restart_and_never_too_long() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("d".repeat(120));
        fs::create_dir(&long).unwrap();
        let id = uuid::Uuid::new_v4().to_string();
        let first = NotifySocket::bind(&long, &id).unwrap().path;
        let second = NotifySocket::bind(&long, &id).unwrap().path;
        assert_eq!(first, second);
        fs::remove_dir_all(first.parent().unwrap()).unwrap();
    }
}
