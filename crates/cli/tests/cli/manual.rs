//! What installers need once: completion scripts, manual pages.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::run::quiesce;

/// Asks nobody.
const NOWHERE: &str = "http://127.0.0.1:1";

/// Whether there is such a program here; what it alone can show is left out otherwise, and that is said.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        eprintln!("left out: there is no {program} here");
    }
    found
}

/// What bash offers for the last of these words, with the function that the script has it call.
async fn offered(script: &Path, words: &[&str]) -> Vec<String> {
    let asked = format!(
        "source {script}; COMP_WORDS=({all}) COMP_CWORD={index}
         [[ $(complete -p {program}) =~ -F\\ ([^ ]+) ]] && ${{BASH_REMATCH[1]}} {program} '{last}' {before}
         printf '%s\n' \"${{COMPREPLY[@]}}\"",
        script = script.display(),
        all = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        index = words.len() - 1,
        program = words[0],
        last = words[words.len() - 1],
        before = words[words.len() - 2],
    );
    let output = Command::new("bash").args(["--norc", "-c", &asked]).output().await.expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("bash offers text").lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn bash_completes_commands_flags_and_values_of_both_programs() {
    if !is_installed("bash") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("quiesce");
    fs::write(&script, quiesce(NOWHERE, &["completions", "bash"]).await.expect(0).stdout).unwrap();
    let asked = async |words: &[&str]| offered(&script, words).await;
    assert_eq!(asked(&["quiesce", "mig"]).await, ["migrate"]);
    assert_eq!(asked(&["quiesce", "migrate", "--grace"]).await, ["--grace-period"]);
    assert_eq!(asked(&["quiesce", "get", "-o", "j"]).await, ["json"]);
    assert!(asked(&["quiesce", "token", "create", "--role", ""]).await.contains(&"operator".to_owned()));

    let script = directory.path().join("agent");
    let made = quiesce(NOWHERE, &["completions", "bash", "--program", "quiesce-agent"]).await.expect(0);
    fs::write(&script, made.stdout).unwrap();
    assert_eq!(offered(&script, &["quiesce-agent", "--stand"]).await, ["--standby"]);
}

#[tokio::test]
async fn every_command_has_a_manual_page_that_roff_has_no_objection_to() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    let made = quiesce(NOWHERE, &["man", pages.to_str().unwrap()]).await.expect(0);
    assert!(made.stderr.contains("quiesce.1"), "{}", made.stderr);
    let mut names: Vec<String> =
        fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for page in ["quiesce.1", "quiesce-agent.1", "quiesce-get.1", "quiesce-token-create.1", "quiesce-scheduler.1"] {
        assert!(names.iter().any(|name| name == page), "{page} is not among {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("ledger") || name.contains("help")), "{names:?}");
    for name in &names {
        let page = pages.join(name);
        let text = fs::read_to_string(&page).unwrap();
        let title =
            format!(".TH {} 1 \" \" \"quiesce {}\" Quiesce", name.trim_end_matches(".1"), env!("CARGO_PKG_VERSION"));
        assert!(text.lines().any(|line| line == title), "{name} has no title {title:?}: {text}");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "SEE ALSO"] {
            let begins = |line: &str| line == format!(".SH {section}") || line == format!(".SH \"{section}\"");
            assert!(text.lines().any(begins), "{name} has no {section}: {text}");
        }
        // The other pages that it names are there.
        let near = text.split("SEE ALSO").nth(1).unwrap().replace("\\-", "-").replace("\\fB", "").replace("\\fR", "");
        for other in near.split([',', '\n', '"']).filter_map(|word| word.trim().strip_suffix("(1)")) {
            assert!(names.contains(&format!("{other}.1")), "{name} names {other}(1): {names:?}");
        }
    }
    let all: Vec<_> = names.iter().map(|name| pages.join(name)).collect();
    if is_installed("groff") {
        let output = Command::new("groff").args(["-man", "-ww", "-z", "-Tutf8"]).args(&all).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
    if is_installed("mandoc") {
        // Of less than errors there are the paragraphs that clap_mangen makes, and that there is no date.
        let lint = Command::new("mandoc").args(["-T", "lint", "-W", "error"]).args(&all).stdin(Stdio::null()).output();
        let output = lint.await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
