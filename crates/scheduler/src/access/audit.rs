//! The audit log: a line for every call that changes something and for every refusal.
//!
//! Owns the lines, the file they are appended to, and what happens when it cannot be written. A line holds names and
//! reasons, never a token: it is made of what requests are about, not of requests.
//!
//! A change that could not be recorded is not begun: while lines wait to be written, callers who want to change something
//! are sent away. What agents say of their instances is heard all the same, since a full disk here must not make anybody
//! doubt an end that was proven; those lines wait, up to [`WAITING_MAX`].

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use quiesce_runtime::telemetry::chain;
use serde::Serialize;
use tracing::{error, info};

use super::need::Need;
use super::principal::{Means, Principal};

/// Size from which on the file is put aside and another begun: large enough that this is rare, small enough to be read
/// with the usual tools.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most lines that wait while they cannot be written; about a hundred bytes to a few KiB each.
const WAITING_MAX: usize = 10_000;
/// How long a call waits for its line. Longer than a busy disk takes; then the line is one that waits.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nowhere.
    Off,
    /// To the standard output.
    Stdout,
    /// To a file.
    File(PathBuf),
}

/// Why the audit log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the audit log {path}")]
pub struct OpenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What is known of a call by its end.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    caller: OnceLock<Principal>,
    subject: OnceLock<Subject>,
    made: OnceLock<String>,
}

/// The name of what came of a call that made something; an extension of its answer.
#[derive(Debug, Clone)]
pub(crate) struct Made(pub(crate) String);

/// What a request was about.
#[derive(Debug)]
struct Subject {
    resource: String,
    request_id: String,
    reason: String,
    overrides: Option<&'static str>,
    dry_run: bool,
}

impl Entry {
    pub(crate) fn caller(&self, caller: &Principal) {
        // The first one is who called.
        let _known = self.caller.set(caller.clone());
    }

    pub(crate) fn made(&self, Made(name): Made) {
        let _known = self.made.set(name);
    }

    pub(crate) fn subject(&self, need: &Need<'_>) {
        let _known = self.subject.set(Subject {
            resource: need.about.name().to_owned(),
            request_id: need.request_id.to_owned(),
            reason: need.reason.unwrap_or_default().to_owned(),
            overrides: need.overrides,
            dry_run: need.dry_run,
        });
    }
}

/// How a call came out.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    pub(crate) time: SystemTime,
    pub(crate) service: &'a str,
    pub(crate) method: &'a str,
    pub(crate) from: Option<IpAddr>,
    pub(crate) code: &'a str,
    pub(crate) error: &'a str,
}

/// A line. Its keys are documented in `docs/operations.md`; they are only ever added to.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    who: &'a str,
    by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<IpAddr>,
    service: &'a str,
    method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    resource: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    overrides: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

/// The audit log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Audit {
    /// Whoever has it writes; the others wait for their turn and not on a thread, or a disk that hangs would take them all.
    log: Option<Arc<tokio::sync::Mutex<Log>>>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    lost: u64,
}

impl Audit {
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn open(target: &Target) -> Result<Self, OpenError> {
        let log = match target {
            Target::Off => None,
            Target::Stdout => Some(Log::Stdout),
            Target::File(path) => {
                let failed = |source| OpenError { path: path.clone(), source };
                Some(Log::File(LogFile::open(path, FILE_BYTES_MAX).map_err(failed)?))
            }
        };
        Ok(Self { log: log.map(|log| Arc::new(tokio::sync::Mutex::new(log))), waiting: Arc::default() })
    }

    /// Writes what happened. Returns when it is written, or waits to be.
    pub(crate) async fn record(&self, entry: &Entry, outcome: &Outcome<'_>) {
        if self.log.is_none() {
            return;
        }
        let line = line(entry, outcome);
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.lines.len() >= WAITING_MAX {
                waiting.lost += 1;
                return;
            }
            waiting.lines.push_back(line);
        }
        self.write().await;
    }

    /// Whether every line so far is written; tries once more if not.
    pub(crate) async fn is_good(&self) -> bool {
        self.log.is_none() || self.count() == 0 || self.write().await
    }

    /// How many lines wait to be written.
    pub(crate) fn count(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).lines.len()
    }

    /// Writes what waits; says whether nothing is left. Off the threads of the runtime: a reader of the standard output may
    /// be slow, and a disk as well.
    async fn write(&self) -> bool {
        let Some(log) = self.log.clone() else { return true };
        let waiting = Arc::clone(&self.waiting);
        let writing = async move {
            let mut log = log.lock_owned().await;
            tokio::task::spawn_blocking(move || log.write_all(&waiting)).await
        };
        matches!(tokio::time::timeout(WRITE_LIMIT, writing).await, Ok(Ok(true)))
    }
}

fn line(entry: &Entry, outcome: &Outcome<'_>) -> Vec<u8> {
    let caller = entry.caller.get();
    let subject = entry.subject.get();
    let line = Line {
        time: humantime::format_rfc3339_millis(outcome.time).to_string(),
        who: caller.map_or("", |caller| &caller.name),
        by: caller.map_or("none", |caller| caller.means.as_str()),
        token: caller.and_then(|caller| match &caller.means {
            Means::Token(id) => Some(id.as_str()),
            Means::Nothing | Means::Certificate { .. } | Means::Instance => None,
        }),
        from: outcome.from,
        service: outcome.service,
        method: outcome.method,
        resource: subject.map_or("", |subject| &subject.resource),
        made: entry.made.get().map(String::as_str),
        request_id: subject.map_or("", |subject| &subject.request_id),
        dry_run: subject.is_some_and(|subject| subject.dry_run),
        overrides: subject.and_then(|subject| subject.overrides),
        reason: subject.map_or("", |subject| &subject.reason),
        code: outcome.code,
        error: outcome.error,
    };
    let mut bytes = serde_json::to_vec(&line).expect("texts and numbers are always JSON");
    bytes.push(b'\n');
    bytes
}

enum Log {
    Stdout,
    File(LogFile),
}

impl Log {
    /// Writes what waits, in its order; says whether nothing is left.
    fn write_all(&mut self, waiting: &Mutex<Waiting>) -> bool {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).lines.front().cloned();
            let Some(line) = next else { return true };
            if let Err(error) = self.append(&line) {
                error!(error = %chain(&error), "the audit log cannot be written; changes are refused until it can");
                return false;
            }
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.lines.pop_front();
            if waiting.lines.is_empty() && waiting.lost > 0 {
                error!(lost = waiting.lost, "the audit log can be written again; some lines are lost");
                waiting.lost = 0;
            }
        }
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line)?;
                out.flush()
            }
            Self::File(file) => file.append(line),
        }
    }
}

/// A file that is only ever appended to.
struct LogFile {
    path: PathBuf,
    file: File,
    bytes_max: u64,
    /// A line was written in part, and ends where it broke off.
    broken: bool,
}

impl LogFile {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append_to(path)?, bytes_max, broken: false })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.follow()?;
        let before = self.file.metadata()?.len();
        if self.broken {
            self.file.write_all(b"\n")?;
            self.broken = false;
        }
        self.file.write_all(line).inspect_err(|_| {
            // The line is written again; what there is of it is cut off, or at least ended.
            self.broken = self.file.set_len(before).is_err();
        })
    }

    /// Sees to it that the file is the one at its path, and not too large. Somebody may have moved it away: then what has
    /// been written is in what he has, and what follows goes into a new one.
    fn follow(&mut self) -> io::Result<()> {
        let open = self.file.metadata()?;
        let same = match fs::metadata(&self.path) {
            Ok(there) => (there.dev(), there.ino()) == (open.dev(), open.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if same && open.len() >= self.bytes_max {
            let aside = self.aside()?;
            fs::rename(&self.path, &aside)?;
            info!(file = %aside.display(), "the audit log was put aside, another is begun");
        } else if same {
            return Ok(());
        }
        self.file = append_to(&self.path)?;
        self.broken = false;
        Ok(())
    }

    /// A name that is free, and greater than those before it: `audit.jsonl.000001`.
    fn aside(&self) -> io::Result<PathBuf> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let directory = self.path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut last = 0_u64;
        for entry in fs::read_dir(directory)? {
            let found = entry?.file_name().to_string_lossy().into_owned();
            let number = found.strip_prefix(&name).and_then(|rest| rest.strip_prefix('.')?.parse().ok());
            last = last.max(number.unwrap_or(0));
        }
        Ok(directory.join(format!("{name}.{:06}", last + 1)))
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_moved_away_and_what_is_put_aside_hold_every_line_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut log = LogFile::open(&path, 40).unwrap();
        for number in 0..10 {
            log.append(format!("line {number:03}\n").as_bytes()).unwrap();
            if number == 6 {
                fs::rename(&path, directory.path().join("taken")).unwrap();
            }
        }
        let found: Vec<_> = ["audit.jsonl.000001", "taken", "audit.jsonl"]
            .iter()
            .flat_map(|name| lines(&directory.path().join(name)))
            .collect();
        assert_eq!(found, (0..10).map(|number| format!("line {number:03}")).collect::<Vec<_>>());
    }

    #[test]
    fn nobody_else_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        LogFile::open(&path, 40).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_disk_that_hangs_takes_one_thread_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        // A pipe that nobody reads takes no more at some point, like a disk that has gone away.
        let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let audit = Audit::open(&Target::File(path)).unwrap();
        let threads = 2;
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.max_blocking_threads(threads).enable_time().build().unwrap();
        let method = "x".repeat(8 << 10);
        let outcome = || Outcome {
            time: SystemTime::UNIX_EPOCH,
            service: "s",
            method: &method,
            from: None,
            code: "OK",
            error: "",
        };
        let entry = Entry::default();
        let writers = 20;
        runtime.block_on(async {
            let mut records = futures::future::join_all((0..writers).map(|_| {
                let (audit, entry, outcome) = (&audit, &entry, outcome());
                async move { audit.record(entry, &outcome).await }
            }));
            let others = async {
                // Once some lines wait for good, what else is done on threads is still done.
                for _ in 0..threads {
                    tokio::task::spawn_blocking(|| ()).await.unwrap();
                }
            };
            tokio::select! {
                biased;
                _ = &mut records => panic!("more was written than a pipe takes"),
                () = others => {}
            }
            assert!(audit.count() > threads, "{}", audit.count());
            let read = std::thread::spawn(move || {
                let mut bytes = vec![0; writers * (8 << 10)];
                io::Read::read_exact(&mut reader, &mut bytes).unwrap();
                reader
            });
            records.await;
            assert_eq!(audit.count(), 0);
            drop(read.join().unwrap());
        });
    }

    #[tokio::test]
    async fn lines_that_cannot_be_written_wait_and_are_written_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/audit.jsonl");
        let audit = Audit::open(&Target::File(path.clone())).unwrap();
        let outcome =
            |method| Outcome { time: SystemTime::UNIX_EPOCH, service: "s", method, from: None, code: "OK", error: "" };
        audit.record(&Entry::default(), &outcome("A")).await;
        // Where its directory was, there is a file now.
        let logs = path.parent().unwrap();
        fs::rename(logs, directory.path().join("old")).unwrap();
        fs::write(logs, "").unwrap();
        audit.record(&Entry::default(), &outcome("B")).await;
        audit.record(&Entry::default(), &outcome("C")).await;
        assert!(!audit.is_good().await);
        assert_eq!(audit.count(), 2);
        fs::remove_file(logs).unwrap();
        assert!(audit.is_good().await);
        let methods: Vec<_> = lines(&path)
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["method"].to_string())
            .collect();
        assert_eq!(methods, ["\"B\"", "\"C\""]);
    }
}
