//! The examples in `--help`: every command has some, and each of them can be typed as it stands.

use clap::Command;

/// What the section begins with.
const HEADING: &str = "Examples:";
/// More than that nobody reads.
const MOST: usize = 3;
/// What ends a command for the shell.
const SHELL: [&str; 5] = ["&&", "|", ">", "&", ";"];
/// What clap puts on a line at most; the rest would stand below, and not be copied.
const COLUMNS: usize = 98;

/// Walks through `root` and its commands, hidden ones aside, and returns how many there are.
///
/// # Panics
/// One of them has no examples, or an example that is refused by the parser or is one of another command.
pub fn check(root: &Command) -> usize {
    let mut root = root.clone();
    // Fills in what flags are inherited; done once here, since `clone` keeps it.
    root.build();
    let mut problems = Vec::new();
    let count = walk(&root, &root, &[root.get_name().to_owned()], &mut problems);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    count
}

fn walk(root: &Command, command: &Command, path: &[String], problems: &mut Vec<String>) -> usize {
    let name = path.join(" ");
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let examples = examples(&help);
    if examples.is_empty() || examples.len() > MOST {
        problems.push(format!("{name}: {} examples instead of 1 to {MOST} under {HEADING:?}", examples.len()));
    }
    problems
        .extend(examples.iter().filter(|line| line.len() > COLUMNS).map(|line| format!("{name}: too long: {line}")));
    for example in examples {
        let typed = words(example);
        match root.clone().try_get_matches_from(&typed) {
            Ok(mut matches) => {
                let mut said = vec![root.get_name().to_owned()];
                while let Some((name, inner)) = matches.remove_subcommand() {
                    said.push(name);
                    matches = inner;
                }
                // A command that has commands shows those.
                if typed.first() != path.first() || !said.starts_with(path) {
                    problems.push(format!("{name}: an example of another command: {example}"));
                }
            }
            Err(error) => problems.push(format!("{name}: {example}: {error}")),
        }
    }
    let shown = command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help");
    1 + shown.map(|inner| walk(root, inner, &[path, &[inner.get_name().to_owned()]].concat(), problems)).sum::<usize>()
}

/// The lines under the heading.
fn examples(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != HEADING).skip(1);
    lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect()
}

/// What a shell makes of the line, up to what is for the shell itself.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, left) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("a quotation ends"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        if SHELL.contains(&word) {
            break;
        }
        words.push(word.to_owned());
        rest = left.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(after: &'static str) -> Command {
        Command::new("x")
            .subcommand_required(true)
            .after_help("Examples:\n  x run")
            .subcommand(Command::new("run").arg(clap::Arg::new("file").long("file").num_args(1)).after_help(after))
    }

    fn problems(after: &'static str) -> Vec<String> {
        let (root, mut problems) = (said(after), Vec::new());
        walk(&root, &root, &["x".to_owned()], &mut problems);
        problems
    }

    #[test]
    fn comments_quotations_and_what_is_for_the_shell_are_told_apart() {
        assert_eq!(words("x run --file 'a b'   # why"), ["x", "run", "--file", "a b"]);
        assert_eq!(words("x run > file"), ["x", "run"]);
        assert_eq!(examples("Examples:\n  x run\n\nMore:\n  y"), ["x run"]);
    }

    #[test]
    fn what_is_missing_wrong_or_of_another_command_is_found() {
        assert_eq!(problems("Examples:\n  x run --file 'a b'"), Vec::<String>::new());
        for wrong in
            ["", "Examples:\n  x run --flie y", "Examples:\n  y run", "Examples:\n  x run\n  x run\n  x run\n  x run"]
        {
            assert_eq!(problems(wrong).len(), 1, "{wrong}");
        }
    }
}
