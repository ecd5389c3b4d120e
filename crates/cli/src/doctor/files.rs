//! The files of this machine: who else can read them, and how long they are good.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use quiesce_runtime::secret_file;
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{Certificate, NamedFile};

use super::Report;
use crate::client::Target;
use crate::output::text;

/// What others must not have on the scheduler's directory: keys and tokens are in it.
const OTHERS: u32 = 0o077;
/// Below its own reserve the scheduler takes no changes.
const RESERVE_BYTES: u64 = 64 << 20;
/// Somebody should look before it comes to that.
const LITTLE_BYTES: u64 = 512 << 20;

/// The files that say who calls, and whom to trust.
pub(crate) fn of_caller(target: &Target, token: Option<&Path>, now: SystemTime, report: &mut Report) {
    if let Some(path) = token {
        match secret_file::read(path) {
            Ok(_) => report.ok("token", format!("{} can be read by its owner alone", path.display())),
            Err(error) => refused("token", &chain(&error).to_string(), "name the file: --token-file FILE", report),
        }
    }
    if let Some(path) = &target.ca {
        certificates("ca", "--ca", path, now, "get the CA's new certificate, and name it with --ca", report);
    }
    if let Some(path) = &target.cert {
        let renew = "get a new one: quiesce pki issue, with the same names as before";
        certificates("certificate", "--cert", path, now, renew, report);
    }
    if let Some(path) = &target.key {
        match secret_file::open(path) {
            Ok(_) => report.ok("key", format!("{} can be read by its owner alone", path.display())),
            Err(error) => refused("key", &chain(&error).to_string(), "name the file: --key FILE", report),
        }
    }
}

/// The scheduler's own, where they are on this machine. `given` by a person, it has to be there.
pub(crate) fn of_scheduler(directory: &Path, given: bool, report: &mut Report) {
    let shown = directory.display();
    let metadata = match fs::metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if given => {
            let next = "name the directory the scheduler has: --data-dir DIR";
            return report.problem("data", format!("cannot look at {shown}: {error}"), next);
        }
        // Another user's, or another machine's.
        Err(_) => return,
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        let what = format!("others have access to {shown} (mode {mode:04o}), where keys and tokens are");
        report.problem("data", what, format!("chmod 700 {shown}"));
    }
    let Ok(room) = rustix::fs::statvfs(directory) else {
        return report.warning("data", format!("the file system of {shown} does not say how full it is"), "df");
    };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let what = format!("{} MiB are free where the scheduler's store is ({shown})", free >> 20);
    match free {
        0..RESERVE_BYTES => report.problem("data", what, "make room: below 64 MiB the scheduler takes no changes"),
        RESERVE_BYTES..LITTLE_BYTES => report.warning("data", what, "make room: below 64 MiB it takes no changes"),
        LITTLE_BYTES.. => report.ok("data", what),
    }
}

fn certificates(subject: &str, setting: &'static str, path: &Path, now: SystemTime, renew: &str, report: &mut Report) {
    let file = NamedFile { setting, path: PathBuf::from(path) };
    match Certificate::all_in(&file) {
        Ok(found) => {
            for certificate in &found {
                let whose = format!("{} ({})", path.display(), text::clean(&certificate.subject));
                report.validity(subject, &whose, certificate, now, renew);
            }
        }
        Err(error) => refused(subject, &chain(&error).to_string(), &format!("name the file: {setting} FILE"), report),
    }
}

/// An error that says itself what helps, behind its last colon, or does not.
fn refused(subject: &str, error: &str, otherwise: &str, report: &mut Report) {
    match error.rsplit_once(": ").filter(|(_, command)| command.starts_with("chmod ")) {
        Some((what, command)) => report.problem(subject, what, command),
        None => report.problem(subject, error, otherwise),
    }
}
