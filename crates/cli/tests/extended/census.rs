//! Asking the operating system which processes there are.
//!
//! A process belongs to a test by its working directory. Unlike command line and environment, which Redis overwrites,
//! nobody changes it by accident.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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
    counted: Arc<Mutex<Counted>>,
    thread: Option<JoinHandle<()>>,
}

/// What a census found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    /// How often it looked.
    pub(crate) looks: usize,
    /// Every process seen, in the order of appearance.
    pub(crate) seen: Vec<u32>,
    /// Most processes found in one look.
    pub(crate) at_once: usize,
    /// Looks that found more than one process, or more than one of the ports in use.
    pub(crate) double: Vec<String>,
}

impl Census {
    pub(crate) fn start(program: &'static str, directory: PathBuf, ports: Vec<u16>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let counted = Arc::new(Mutex::new(Counted::default()));
        let thread = std::thread::spawn({
            let (over, counted) = (Arc::clone(&over), Arc::clone(&counted));
            move || count(program, &directory, &ports, &over, &counted)
        });
        Self { over, counted, thread: Some(thread) }
    }

    /// What was found so far.
    pub(crate) fn so_far(&self) -> Counted {
        self.counted.lock().expect("counting does not panic").clone()
    }

    pub(crate) fn end(mut self) -> Counted {
        self.over.store(true, Ordering::Release);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("counting does not panic");
        self.so_far()
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

fn count(program: &str, directory: &Path, ports: &[u16], over: &AtomicBool, counted: &Mutex<Counted>) {
    // A copy is started by an agent in its own directory, so what was outside once is none; most processes are, and
    // looking at them again and again would take most of the time.
    let mut others = HashSet::new();
    while !over.load(Ordering::Acquire) {
        let mut found = Vec::new();
        let there: HashSet<u32> = pids().collect();
        // What is gone gives its number back, and a copy may get it: there are only so many.
        others.retain(|other| there.contains(other));
        for pid in there.difference(&others).copied().collect::<Vec<_>>() {
            if !is_below(pid, directory) {
                others.insert(pid);
            } else if runs(pid, program) {
                found.push(pid);
            }
        }
        let open = listening(ports);
        let mut counted = counted.lock().expect("who reads does not panic");
        counted.looks += 1;
        counted.at_once = counted.at_once.max(found.len());
        if found.len() > 1 || open.len() > 1 {
            counted.double.push(format!("processes {found:?}, ports {open:?}"));
        }
        for pid in found {
            if !counted.seen.contains(&pid) {
                counted.seen.push(pid);
            }
        }
        drop(counted);
        std::thread::park_timeout(PAUSE);
    }
}
