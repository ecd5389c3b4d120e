//! The commands on the pages.

use std::path::Path;

/// Pages with commands for users.
const PAGES: &[&str] = &["README.md", "docs/operations.md", "docs/protocol.md"];
/// What commands of ours begin with, in blocks that are indented only.
const OURS: &str = "    quiesce ";

/// Commands that have not been on the tour yet, each with its page.
#[derive(Debug)]
pub(super) struct Pages {
    left: Vec<(&'static str, String)>,
}

impl Pages {
    pub(super) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let left = PAGES.iter().flat_map(|page| {
            let text = std::fs::read_to_string(root.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
            commands(&text).into_iter().map(|command| (*page, command))
        });
        Self { left: left.collect() }
    }

    /// The first command that begins so, as it stands on the page, comment and all.
    #[track_caller]
    pub(super) fn take(&mut self, begin: &str) -> String {
        let exact = self.left.iter().position(|(_, line)| without_comment(line) == begin);
        let found = exact.or_else(|| self.left.iter().position(|(_, line)| line.starts_with(begin)));
        let Some(found) = found else { panic!("no page shows {begin:?} (any more); left: {:#?}", self.left) };
        self.left.remove(found).1
    }

    #[track_caller]
    pub(super) fn all_taken(&self) {
        assert!(self.left.is_empty(), "commands that nobody has tried, put them on the tour: {:#?}", self.left);
    }
}

/// The lines of `sh` blocks, and indented lines with commands of ours; those that go on in the next line in one.
fn commands(page: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut in_block = false;
    let mut goes_on = false;
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = line == "```sh";
            continue;
        }
        let shown = if in_block { !line.trim().is_empty() && !line.starts_with('#') } else { line.starts_with(OURS) };
        if !shown && !goes_on {
            continue;
        }
        let (text, more) = line.strip_suffix('\\').map_or((line, false), |text| (text, true));
        match found.last_mut() {
            Some(last) if goes_on => last.push_str(text.trim_start()),
            _ => found.push(text.trim_start().to_owned()),
        }
        goes_on = more;
    }
    found
}

fn without_comment(line: &str) -> &str {
    line.split_once("  #").map_or(line, |(command, _)| command).trim_end()
}

#[test]
fn blocks_and_indented_commands_are_found_and_nothing_else() {
    let page =
        "text\n```sh\na \\\n  b   # why\n# only a comment\n\nc\n```\n    quiesce d\n    listing\n```toml\ne\n```\n";
    assert_eq!(commands(page), ["a b   # why", "c", "quiesce d"]);
    assert_eq!(without_comment("a b   # why"), "a b");
}
