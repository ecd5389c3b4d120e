//! Asking the operating system which processes there are.
//!
//! A process belongs to a test by its working directory. Unlike command line and environment, which Redis overwrites,
//! nobody changes it by accident.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use quiesce_testkit::process::alive;
use rustix::process::{Pid, Signal, kill_process};

/// Pause between two looks: a copy that lives shorter than this could not even open its data.
const PAUSE: Duration = Duration::from_millis(2);

/// The processes alive whose working directory is this one or below it.
pub(crate) fn pids_below(directory: &Path) -> Vec<u32> {
    pids().filter(|pid| is_below(*pid, directory)).collect()
}

/// Those of them that run this program; one that has ended and was not waited for does not.
pub(crate) fn running(program: &str, directory: &Path) -> Vec<u32> {
    pids_below(directory).into_iter().filter(|pid| runs(*pid, program)).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    // What is no number, or cannot be read, is no process.
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn is_below(pid: u32, directory: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
}

fn runs(pid: u32, program: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == program) && alive(pid)
}

pub(crate) fn kill_9(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("the kernel's process ids are positive");
    // Gone by itself is as good.
    let _gone = kill_process(pid, Signal::KILL);
}

/// Which of these TCP ports somebody listens on.
fn listening(ports: &[u16]) -> Vec<u16> {
    /// Remote address and state of a listening socket.
    const LISTENING: &str = " 00000000:0000 0A ";
    let sockets = fs::read_to_string("/proc/net/tcp").expect("/proc is mounted");
    let is_open = |port: &u16| sockets.contains(&format!(":{port:04X}{LISTENING}"));
    ports.iter().copied().filter(is_open).collect()
}

/// Counts, without pause and on a thread of its own, how many copies of a server are alive.
#[derive(Debug)]
pub(crate) struct Census {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Counted>>,
}

/// What a census found.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// How often it looked.
    pub(crate) looks: usize,
    /// Every process seen, in the order of appearance.
    pub(crate) seen: Vec<u32>,
    /// Looks that found more than one process, or more than one of the ports in use.
    pub(crate) double: Vec<String>,
}

impl Census {
    pub(crate) fn start(program: &'static str, directory: PathBuf, ports: Vec<u16>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let over = Arc::clone(&over);
            move || count(program, &directory, &ports, &over)
        });
        Self { over, thread: Some(thread) }
    }

    pub(crate) fn end(mut self) -> Counted {
        self.over.store(true, Ordering::Release);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("counting does not panic")
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

fn count(program: &str, directory: &Path, ports: &[u16], over: &AtomicBool) -> Counted {
    let mut counted = Counted::default();
    // A copy is started by an agent in its own directory, so what was outside once is none; most processes are, and
    // looking at them again and again would take most of the time.
    let mut others = HashSet::new();
    while !over.load(Ordering::Acquire) {
        counted.looks += 1;
        let mut found = Vec::new();
        for pid in pids().filter(|pid| !others.contains(pid)).collect::<Vec<_>>() {
            if !is_below(pid, directory) {
                others.insert(pid);
            } else if runs(pid, program) {
                found.push(pid);
            }
        }
        let open = listening(ports);
        if found.len() > 1 || open.len() > 1 {
            counted.double.push(format!("processes {found:?}, ports {open:?}"));
        }
        for pid in found {
            if !counted.seen.contains(&pid) {
                counted.seen.push(pid);
            }
        }
        std::thread::park_timeout(PAUSE);
    }
    counted
}
