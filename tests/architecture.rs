//! The rules of the source tree that no compiler checks: who may depend on whom, what files are called, how long they
//! are, what they begin with. The reasons are in `docs/ARCHITECTURE.md` and `CONTRIBUTING.md`.
//!
//! Every rule collects all of its violations, and every violation says what to do about it. An exception goes into a
//! list below, with its reason; one that is not needed any more fails too.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Own crates each crate may depend on, apart from dev-dependencies. A crate that is missing here fails the test: its
/// place has to be decided first.
const EDGES: &[(&str, &[&str])] = &[
    ("quiesce-protocol", &[]),
    // Switches for bugs, which tests alone turn on: it depends on nothing and does nothing.
    ("quiesce-mutation", &[]),
    ("quiesce-operation", &["quiesce-mutation"]),
    ("quiesce-runtime", &[]),
    // Wire and disk formats evolve separately, and bytes are all a store needs to know of an operation.
    ("quiesce-store", &[]),
    (
        "quiesce-scheduler",
        &["quiesce-mutation", "quiesce-operation", "quiesce-protocol", "quiesce-runtime", "quiesce-store"],
    ),
    ("quiesce-agent", &["quiesce-mutation", "quiesce-protocol", "quiesce-runtime"]),
    ("quiesce-demo", &["quiesce-protocol", "quiesce-runtime"]),
    // Judges hooks and schedulers by the contract alone: it must not know what any of them looks like inside.
    ("quiesce-conformance", &["quiesce-protocol", "quiesce-runtime"]),
    // The binary links scheduler and agent only to start them; everything else goes over the public API.
    ("quiesce-cli", &["quiesce-agent", "quiesce-demo", "quiesce-protocol", "quiesce-runtime", "quiesce-scheduler"]),
    // Calls the functions of bytes that these two keep behind their feature `fuzzing`.
    ("quiesce-fuzz", &["quiesce-agent", "quiesce-scheduler"]),
    // Its library knows figures alone; its programs measure what everybody else made.
    ("quiesce-benches", &[]),
    // Runs all of it on simulated hosts; nothing depends on it.
    (
        "quiesce-simulation",
        &[
            "quiesce-agent",
            "quiesce-mutation",
            "quiesce-operation",
            "quiesce-protocol",
            "quiesce-runtime",
            "quiesce-scheduler",
            "quiesce-store",
        ],
    ),
    (
        "quiesce-testkit",
        &[
            "quiesce-agent",
            "quiesce-operation",
            "quiesce-protocol",
            "quiesce-runtime",
            "quiesce-scheduler",
            "quiesce-store",
        ],
    ),
];

/// Crates whose third-party dependencies are a closed list, because what they are for rules everything else out.
const CLOSED: &[(&str, &[&str], &str)] = &[
    (
        "quiesce-operation",
        // minicbor derives the encoding of a snapshot; it does no IO and needs neither clock nor allocator of its own.
        &["minicbor", "quiesce-mutation", "thiserror", "uuid"],
        "the core is pure: what it needs from outside comes in as an input and goes out as an effect",
    ),
    (
        "quiesce-protocol",
        &["prost", "prost-types", "tonic", "tonic-prost"],
        "the contract is for everybody's programs and brings nothing along but the generated code's runtime",
    ),
];

/// Third-party crates that belong to certain crates alone, dev-dependencies included.
const EXCLUSIVE: &[(&str, &[&str], &str)] = &[
    ("redb", &["quiesce-store"], "the engine is the store's secret"),
    ("fjall", &["quiesce-store"], "the engine is the store's secret"),
    ("etcd-client", &["quiesce-store-etcd"], "the engine is the store's secret"),
    ("rustls", &["quiesce-runtime"], "runtime::tls is the one place where TLS is set up"),
    ("tokio-rustls", &["quiesce-runtime"], "runtime::tls is the one place where TLS is set up"),
    ("x509-parser", &["quiesce-runtime"], "runtime::tls is the one place where certificates are read"),
    (
        "clap",
        // The testkit parses the examples in the help of the others.
        &["quiesce-agent", "quiesce-cli", "quiesce-conformance", "quiesce-scheduler", "quiesce-testkit"],
        "only what has flags of its own parses any",
    ),
    ("clap_complete", &["quiesce-cli"], "the small programs do not carry what installers need once"),
    ("clap_mangen", &["quiesce-cli"], "the small programs do not carry what installers need once"),
    ("ratatui", &["quiesce-cli"], "the full screen belongs to quiesce top"),
    ("crossterm", &["quiesce-cli"], "the full screen belongs to quiesce top"),
    ("libfuzzer-sys", &["quiesce-fuzz"], "everything else is built without a C++ compiler"),
    ("kube", &["quiesce-kubernetes"], "only the placement driver knows Kubernetes"),
    ("s3s", &["quiesce-demo"], "S3 stays out of production binaries"),
    ("s3s-fs", &["quiesce-demo"], "S3 stays out of production binaries"),
    ("rusty-s3", &["quiesce-demo"], "S3 stays out of production binaries"),
    ("object_store", &["quiesce-demo"], "S3 stays out of production binaries"),
    ("tracing-subscriber", &["quiesce-demo", "quiesce-runtime"], "logging is set up by runtime::telemetry"),
    ("turmoil", &["quiesce-simulation"], "simulated hosts are for the simulation alone"),
];

/// Crates that know neither the wire nor gRPC.
const OFF_THE_WIRE: &[&str] = &["quiesce-operation", "quiesce-runtime", "quiesce-store"];
const WIRE: &[&str] = &["prost", "prost-types", "tonic", "tonic-prost"];

/// Crates that need more than Rust to build, and so stay out of `default-members`.
const NOT_BY_DEFAULT: &[&str] = &[
    // libFuzzer is C++.
    "fuzz",
];

const LINES_MAX: usize = 800;

/// Files above [`LINES_MAX`], each with the reason why splitting would make it worse.
const LONG_FILES: &[(&str, &str)] = &[];

/// Names that say where something was put instead of what it is, so that everything ends up there.
const DUMPING_GROUNDS: &[&str] = &["common", "helpers", "misc", "util", "utils"];

/// Where the paths of somebody's machine begin. Split, so that this file does not contain them.
const MACHINE_PATHS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];

/// What the pure core does not name: each of these is an input or an effect instead.
const IMPURE: &[&str] =
    &["async fn", "Instant", "SystemTime", "std::env", "std::fs", "std::io", "std::net", "std::process", "std::thread"];

#[test]
fn crates_depend_on_each_other_in_one_direction_only() {
    let mut problems = Problems::default();
    for manifest in manifests() {
        let name = manifest.name.as_str();
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
            problems.add(&manifest.path, format!("decide what {name} may depend on, and add it to EDGES"));
            continue;
        };
        for dependency in manifest.dependencies(&["dependencies", "build-dependencies"]) {
            if dependency == "quiesce-testkit" {
                problems.add(&manifest.path, "move quiesce-testkit to [dev-dependencies]: it is for tests only");
            } else if dependency.starts_with("quiesce-") && !allowed.contains(&dependency.as_str()) {
                problems.add(
                    &manifest.path,
                    format!("remove {dependency}: {name} may depend on {allowed:?} only, see docs/ARCHITECTURE.md"),
                );
            }
        }
    }
    problems.assert_none();
}

#[test]
fn closed_crates_bring_nothing_else_along() {
    let mut problems = Problems::default();
    let manifests = manifests();
    for (name, allowed, reason) in CLOSED {
        let manifest = manifests.iter().find(|manifest| manifest.name == *name).expect("closed crates exist");
        for dependency in manifest.dependencies(&["dependencies"]) {
            if !allowed.contains(&dependency.as_str()) {
                problems.add(&manifest.path, format!("remove {dependency}: {reason}; allowed are {allowed:?}"));
            }
        }
    }
    problems.assert_none();
}

#[test]
fn third_party_crates_stay_where_they_belong() {
    let mut problems = Problems::default();
    for manifest in manifests() {
        for dependency in manifest.dependencies(&["dependencies", "build-dependencies", "dev-dependencies"]) {
            for (_, owners, reason) in EXCLUSIVE.iter().filter(|(exclusive, ..)| *exclusive == dependency) {
                if !owners.contains(&manifest.name.as_str()) {
                    problems.add(&manifest.path, format!("remove {dependency}, it belongs to {owners:?}: {reason}"));
                }
            }
            if OFF_THE_WIRE.contains(&manifest.name.as_str()) && WIRE.contains(&dependency.as_str()) {
                problems.add(&manifest.path, format!("remove {dependency}: only scheduler, agent and cli speak gRPC"));
            }
        }
    }
    problems.assert_none();
}

#[test]
fn the_demo_is_linked_by_its_feature_alone() {
    let mut problems = Problems::default();
    let manifests = manifests();
    let cli = manifests.iter().find(|manifest| manifest.name == "quiesce-cli").expect("the cli exists");
    if let Some(demo) = cli.table(&["dependencies", "quiesce-demo"])
        && demo.get("optional").and_then(Value::as_bool) != Some(true)
    {
        problems.add(&cli.path, "make quiesce-demo optional: production binaries are built without it");
    }
    for (feature, enables) in cli.table(&["features"]).into_iter().flatten() {
        let enables: Vec<_> = enables.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if feature != "demo" && enables.contains(&"dep:quiesce-demo") {
            problems
                .add(&cli.path, format!("feature {feature} must not enable quiesce-demo; that is what demo is for"));
        }
    }
    problems.assert_none();
}

#[test]
fn only_the_fuzz_targets_see_what_is_there_for_them() {
    let mut problems = Problems::default();
    for manifest in manifests().into_iter().filter(|manifest| manifest.name != "quiesce-fuzz") {
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for (dependency, requirement) in manifest.table(&[kind]).into_iter().flatten() {
                let features = requirement.get("features").and_then(Value::as_array).into_iter().flatten();
                if features.filter_map(Value::as_str).any(|feature| feature == "fuzzing") {
                    problems
                        .add(&manifest.path, format!("take feature fuzzing from {dependency}: it opens its inside"));
                }
            }
        }
    }
    problems.assert_none();
}

#[test]
fn every_fuzz_target_is_built_and_has_a_corpus() {
    let fuzz = root().join("fuzz");
    let listed = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz.join(directory)).expect("the directory exists");
        let names =
            entries.map(|entry| entry.expect("an entry can be read").file_name().to_string_lossy().into_owned());
        names.map(|name| name.trim_end_matches(".rs").to_owned()).collect()
    };
    let manifest = read_toml(&fuzz.join("Cargo.toml"));
    let programs = manifest["bin"].as_array().into_iter().flatten();
    let built: BTreeSet<String> = programs.filter_map(|bin| Some(bin.get("name")?.as_str()?.to_owned())).collect();
    assert_eq!(listed("targets"), built, "fuzz/targets and the programs of fuzz/Cargo.toml");
    assert_eq!(listed("corpus"), built, "fuzz/corpus and the programs of fuzz/Cargo.toml");
    // Everything in it has to be an input of some target, or nobody would look at it.
    assert!(listed("regressions").is_subset(&built), "fuzz/regressions holds a target that does not exist");
}

#[test]
fn versions_and_lints_are_set_for_the_whole_workspace() {
    let mut problems = Problems::default();
    for manifest in manifests() {
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for (dependency, requirement) in manifest.table(&[kind]).into_iter().flatten() {
                let shared = requirement.get("workspace").and_then(Value::as_bool) == Some(true);
                let by_path = requirement.get("path").is_some() && requirement.get("version").is_none();
                if !shared && !by_path {
                    problems.add(
                        &manifest.path,
                        format!("say `{dependency}.workspace = true`; its version belongs in the workspace Cargo.toml"),
                    );
                }
            }
        }
        if manifest.table(&["lints"]).and_then(|lints| lints.get("workspace")) != Some(&Value::Boolean(true)) {
            problems.add(&manifest.path, "say `[lints] workspace = true`");
        }
    }
    problems.assert_none();
}

#[test]
fn bare_cargo_commands_cover_every_crate() {
    let mut problems = Problems::default();
    let path = root().join("Cargo.toml");
    let workspace = read_toml(&path);
    let listed: Vec<_> = workspace["workspace"]["default-members"].as_array().into_iter().flatten().collect();
    for manifest in manifests() {
        let directory = manifest.path.parent().expect("a manifest is in a directory");
        let member = relative(directory);
        let member = if member.is_empty() { "." } else { &member };
        if !NOT_BY_DEFAULT.contains(&member) && !listed.iter().any(|known| known.as_str() == Some(member)) {
            problems.add(&path, format!("add {member:?} to default-members, or to NOT_BY_DEFAULT with a reason"));
        }
    }
    problems.assert_none();
}

#[test]
fn the_core_names_no_clock_and_no_io() {
    let mut problems = Problems::default();
    for file in rust_files().into_iter().filter(|file| file.starts_with(root().join("crates/operation/src"))) {
        for (number, line) in read(&file).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in IMPURE.iter().filter(|word| mentions(code, word)) {
                problems.add_line(&file, number, format!("{word} has no place here: make it an input or an effect"));
            }
        }
    }
    problems.assert_none();
}

#[test]
fn files_are_named_after_what_is_in_them() {
    let mut problems = Problems::default();
    for file in rust_files() {
        if file.file_name().is_some_and(|name| name == "mod.rs") {
            problems.add(&file, "rename it: foo.rs beside foo/, never foo/mod.rs");
        }
        for part in relative(&file).split('/') {
            let stem = part.trim_end_matches(".rs");
            if DUMPING_GROUNDS.contains(&stem) {
                problems
                    .add(&file, format!("{stem} says nothing: name it after its subject, or move the content there"));
            }
        }
    }
    problems.assert_none();
}

#[test]
fn files_stay_short() {
    let mut problems = Problems::default();
    for file in rust_files() {
        let lines = read(&file).lines().count();
        let name = relative(&file);
        let excused = LONG_FILES.iter().any(|(known, _)| *known == name);
        if lines > LINES_MAX && !excused {
            problems.add(
                &file,
                format!("{lines} lines: split it by subject, or move tests to a file of their own (limit {LINES_MAX})"),
            );
        }
        if lines <= LINES_MAX && excused {
            problems.add(&file, "it is short enough now: remove it from LONG_FILES");
        }
    }
    for (name, _) in LONG_FILES.iter().filter(|(name, _)| !root().join(name).exists()) {
        problems.add(&root().join(name), "it does not exist: remove it from LONG_FILES");
    }
    problems.assert_none();
}

#[test]
fn every_file_says_what_it_is() {
    let mut problems = Problems::default();
    for file in rust_files() {
        if !read(&file).starts_with("//! ") {
            problems.add(&file, "begin with `//!`: what it is, what it owns, what it must not do");
        }
    }
    problems.assert_none();
}

#[test]
fn exceptions_to_lints_have_a_reason() {
    let mut problems = Problems::default();
    // Split for the same reason as the paths above.
    let attributes = [concat!("[al", "low("), concat!("[ex", "pect(")];
    for file in rust_files() {
        let text = read(&file);
        for attribute in attributes {
            for (start, _) in text.match_indices(attribute).filter(|(start, _)| text[..*start].ends_with(['#', '!'])) {
                let end = text[start..].find(")]").map_or(text.len(), |length| start + length);
                if !text[start..end].contains("reason") {
                    let number = text[..start].lines().count().saturating_sub(1);
                    problems.add_line(&file, number, "add `reason = \"...\"` that says why the lint is wrong here");
                }
            }
        }
    }
    problems.assert_none();
}

#[test]
fn nothing_points_into_somebodys_machine() {
    let mut problems = Problems::default();
    for file in files() {
        // What is not text has no paths to check.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            for path in MACHINE_PATHS {
                let absolute = |start: usize| {
                    !line[..start].ends_with(|before: char| before.is_alphanumeric() || "._-}".contains(before))
                };
                if line.match_indices(path).any(|(start, _)| absolute(start)) {
                    problems.add_line(&file, number, format!("replace the path below {path} by a relative one"));
                }
            }
        }
    }
    problems.assert_none();
}

/// Whether `code` contains `word` not as a part of a longer name.
fn mentions(code: &str, word: &str) -> bool {
    let in_a_name = |character: char| character.is_alphanumeric() || character == '_';
    code.match_indices(word)
        .any(|(start, _)| !code[..start].ends_with(in_a_name) && !code[start + word.len()..].starts_with(in_a_name))
}

/// What is wrong, and what to do about it.
#[derive(Default)]
struct Problems {
    text: String,
}

impl Problems {
    fn add(&mut self, file: &Path, advice: impl AsRef<str>) {
        writeln!(self.text, "  {}: {}", relative(file), advice.as_ref()).expect("writing to a string does not fail");
    }

    fn add_line(&mut self, file: &Path, number: usize, advice: impl AsRef<str>) {
        writeln!(self.text, "  {}:{}: {}", relative(file), number + 1, advice.as_ref())
            .expect("writing to a string does not fail");
    }

    #[track_caller]
    fn assert_none(self) {
        assert!(self.text.is_empty(), "\n{}", self.text);
    }
}

struct Manifest {
    path: PathBuf,
    name: String,
    content: Table,
}

impl Manifest {
    fn dependencies(&self, kinds: &[&str]) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for kind in kinds {
            let everywhere = self.table(&["target"]).into_iter().flatten().filter_map(|(_, target)| target.get(*kind));
            let tables = everywhere.filter_map(Value::as_table).chain(self.table(&[kind]));
            for (key, requirement) in tables.flatten() {
                // `package` is what a renamed dependency really is.
                let package = requirement.get("package").and_then(Value::as_str);
                names.insert(package.unwrap_or(key).to_owned());
            }
        }
        // A crate that names itself does so to switch on a feature for its own tests.
        names.remove(&self.name);
        names
    }

    fn table(&self, path: &[&str]) -> Option<&Table> {
        path.iter().try_fold(&self.content, |table, key| table.get(*key)?.as_table())
    }
}

fn manifests() -> Vec<Manifest> {
    let members = files().into_iter().filter(|file| file.file_name().is_some_and(|name| name == "Cargo.toml"));
    members
        .map(|path| {
            let content = read_toml(&path);
            let name = content["package"]["name"].as_str().expect("a package has a name").to_owned();
            Manifest { path, name, content }
        })
        .collect()
}

fn rust_files() -> Vec<PathBuf> {
    files().into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Every file of the tree, without what is built or fetched.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let entry = entry.expect("a directory entry can be read");
            let name = entry.file_name();
            // In a linked work tree `.git` is a file, and names a place of that machine.
            if name == ".git" {
                continue;
            }
            let kind = entry.file_type().expect("the kind of a directory entry is known");
            if kind.is_dir() {
                if !["target", "node_modules", ".venv", "__pycache__"].iter().any(|skipped| name == *skipped) {
                    directories.push(entry.path());
                }
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", relative(path)))
}

fn read_toml(path: &Path) -> Table {
    read(path).parse().unwrap_or_else(|error| panic!("{}: {error}", relative(path)))
}
