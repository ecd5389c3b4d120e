//! Every command that the pages show, typed as it stands there.
//!
//! A shell in a machine of its own (network, mounts and processes), with the programs on its path and nothing prepared that
//! the pages do not tell to prepare. What is changed in a command stands in the tour: a placeholder that is filled in, a command
//! that does not end by itself and is ended. A command on a page that is not on the tour is a failure.

mod pages;
mod shell;

use std::path::PathBuf;

use crate::tools;
use pages::Pages;
use shell::Shell;

/// Lines that are run elsewhere, or not by us.
const ELSEWHERE: &[(&str, &str)] = &[
    ("cargo run --release --bin quiesce -- demo", "crates/cli/tests/demo.rs runs the demo"),
    ("cargo test", "the step \"tests\" of .ci/run"),
];

#[test]
fn every_command_on_the_pages_does_what_they_say() {
    let mut pages = Pages::read();
    for (line, _where) in ELSEWHERE {
        pages.take(line);
    }
    let programs = [PathBuf::from(env!("CARGO_BIN_EXE_quiesce")), tools::grpcurl(), tools::buf()];
    let mut shell = Shell::open(&programs);
    five_minutes(&mut pages, &mut shell);
    secured(&mut pages, &mut shell);
    pages.all_taken();
}

/// The README, from the first command to the last.
fn five_minutes(pages: &mut Pages, shell: &mut Shell) {
    shell.starts(&pages.take("quiesce scheduler"), "quiesce get clusters");
    shell.does(&pages.take("mkdir -p /tmp/tour"));
    for copy in
        ["quiesce agent --application db --cluster a --", "quiesce agent --application db --cluster b --standby"]
    {
        shell.does(&pages.take(copy).replace(" &", " >>agents.log 2>&1 &"));
    }
    // A person has seen by then that Redis is up.
    shell.does_at_last(&pages.take("redis-cli -p 7001 set greeting hello"), "OK");
    shell.does_at_last(&pages.take("quiesce get instances"), "HELD");
    let moved = shell.does(&pages.take("quiesce migrate db --to b"));
    assert!(moved.contains("SUCCEEDED"), "{moved}");
    let greeting = shell.does(&pages.take("redis-cli -p 7002 get greeting"));
    assert_eq!(greeting.trim(), "hello");
    shell.does("quiesce migrate db --to a && quiesce migrate db --to b");

    let operations = shell.does(&pages.take("quiesce get operations"));
    let operation =
        operations.split_whitespace().find(|word| word.starts_with("op-")).expect("the name of an operation");
    let described = shell.does(&pages.take("quiesce describe operation OPERATION").replace("OPERATION", operation));
    assert!(described.contains("SUCCEEDED") && described.contains(operation), "{described}");
    let events = shell.interrupted(&pages.take("quiesce watch -o json"));
    let token = events.split("\"resumeToken\":").nth(1).and_then(|rest| rest.split('"').nth(1)).expect("a token");
    shell.interrupted(&pages.take("quiesce watch --since TOKEN").replace("TOKEN", token));

    says(&shell.fails(&pages.take("quiesce top")), "quiesce watch -o json");
    for _page in ["README.md", "docs/operations.md"] {
        says(&shell.does(&pages.take("quiesce doctor")), "it could be moved to a now");
    }
    shell.does("mkdir -p /tmp/tour/pages");
    for script in ["quiesce completions bash > /etc", "quiesce completions bash --program quiesce-agent > /etc"] {
        shell.does(&pages.take(script).replace("/etc/bash_completion.d", "/tmp/tour/pages"));
    }
    shell.does(&pages.take("quiesce man /usr/local").replace("/usr/local/share/man", "/tmp/tour/pages"));

    grpcurl(pages, shell);
    let answer = shell.does(&pages.take("printf 'QUIESCE/1 ATTACH not-a-token"));
    assert!(answer.contains("QUIESCE/1 ERROR UNAUTHENTICATED CREDENTIALS_INVALID"), "{answer}");
    let backup = pages.take("quiesce store backup /backups/2026-11-26.quiesce");
    shell.does(&format!("mkdir backups; {}", here(&backup)));

    // shop is known, and nobody stands beside it.
    let found = shell.fails(&pages.take("quiesce doctor db shop -o json"));
    says(&found, "it has no instance");
    says(&found, "quiesce delete shop --force");

    let deleted = shell.does(&pages.take("quiesce delete db"));
    assert!(deleted.contains("SUCCEEDED"), "{deleted}");
    shell.does("wait %2 %3");

    shell.does("kill %1; wait %1");
    shell.does(&pages.take("quiesce store check"));
    shell.does(&here(&pages.take("quiesce store check --backup /backups/2026-11-26.quiesce")));
    let restore = pages.take("quiesce store restore /backups/2026-11-26.quiesce");
    let refused = shell.fails(&here(&restore));
    assert!(refused.contains("--replace"), "{refused}");
    shell.does(&format!("mv /var/lib/quiesce/scheduler lost; {}", here(&restore)));
}

/// The same services as others see them.
fn grpcurl(pages: &mut Pages, shell: &mut Shell) {
    shell.does(&pages.take("S=127.0.0.1:7600"));
    let services = shell.does(&pages.take("grpcurl -plaintext $S list"));
    assert!(services.contains("quiesce.v1.Scheduler") && services.contains("quiesce.v1.AgentGateway"), "{services}");
    let described = shell.does(&pages.take("grpcurl -plaintext $S describe quiesce.v1.Scheduler.MigrateApplication"));
    assert!(described.contains("rpc MigrateApplication"), "{described}");
    let created = shell.does(&pages.take("grpcurl -plaintext -d '{\"application\":{\"name\":\"applications/shop\""));
    assert!(created.contains("\"gracePeriod\": \"90s\""), "{created}");
    let planned = shell.does(
        &pages.take("grpcurl -plaintext -d '{\"name\":\"applications/db\",\"target_cluster\":\"a\",\"validate_only\""),
    );
    assert!(planned.contains("\"plan\""), "{planned}");
    let moved = shell.does(
        &pages.take("grpcurl -plaintext -d '{\"name\":\"applications/db\",\"target_cluster\":\"a\",\"request_id\""),
    );
    assert!(moved.contains("\"name\": \"operations/op-"), "{moved}");
    let degraded = shell.does(&pages.take("grpcurl -plaintext -d '{\"filter\":\"state = DEGRADED\"}'"));
    assert_eq!(degraded.trim(), "{}", "nothing rests");
    let watched = shell.interrupted(&pages.take("grpcurl -plaintext -d '{\"bookmark_interval\":\"10s\"}'"));
    assert!(watched.contains("\"resumeToken\""), "{watched}");
    let found = shell.does(&pages.take("buf curl --http2-prior-knowledge --protocol grpc"));
    says(&found, "\"name\": \"applications/db\"");
    // As browsers call.
    let proto = concat!("--schema ", env!("CARGO_MANIFEST_DIR"), "/../../proto");
    let listed = shell.does(&pages.take("buf curl --protocol grpcweb --schema proto").replace("--schema proto", proto));
    assert_eq!(listed.trim(), "{}", "nothing rests");
    descriptor_set(pages, shell);
    // Errors come decoded.
    let missing =
        shell.fails("grpcurl -plaintext -d '{\"name\":\"applications/none\"}' $S quiesce.v1.Scheduler/GetApplication");
    assert!(missing.contains("google.rpc.ErrorInfo") && missing.contains("APPLICATION_NOT_FOUND"), "{missing}");
}

/// The contract in a file.
fn descriptor_set(pages: &mut Pages, shell: &mut Shell) {
    let make = pages.take("cargo run --example descriptor-set quiesce-v1.binpb");
    let example = tools::example("descriptor-set");
    shell.does(&make.replace("cargo run --example descriptor-set", &example.display().to_string()));
    let described = shell.does(&pages.take("grpcurl -protoset quiesce-v1.binpb describe"));
    says(&described, "rpc Shutdown ( .quiesce.v1.ShutdownRequest ) returns ( stream .quiesce.v1.ShutdownResponse )");
    says(&described, "never (a later attempt runs)");
    let known = pages.take("grpcurl -plaintext -protoset quiesce-v1.binpb");
    says(&shell.does(&known), "\"protocolVersion\": \"1.0\"");
    let refused = format!(
        "{} -d '{{\"name\":\"applications/none\"}}' {}",
        "grpcurl -plaintext -protoset quiesce-v1.binpb", "$S quiesce.v1.Scheduler/GetApplication"
    );
    says(&shell.fails(&refused), "APPLICATION_NOT_FOUND");
    says(
        &shell.does(&pages.take("buf curl --protocol grpc --http2-prior-knowledge --schema quiesce-v1.binpb")),
        "\"protocolVersion\"",
    );
}

/// What docs/operations.md says of TLS and tokens, on an address that is not loopback.
fn secured(pages: &mut Pages, shell: &mut Shell) {
    shell.does("ip addr add 10.0.0.7/32 dev lo; rm -r /var/lib/quiesce/*");
    // Three commands more than on loopback, each named by what the one before it says.
    says(&shell.fails("quiesce scheduler --listen 0.0.0.0:7600"), "quiesce pki init DIR");
    says(&shell.does(&pages.take("quiesce pki init pki")), "quiesce pki issue pki HOST");
    let issued = shell.does(&pages.take("quiesce pki issue pki scheduler.example.net 10.0.0.7"));
    says(&issued, "quiesce scheduler --listen 0.0.0.0:7600 --tls-cert pki/scheduler.example.net.pem");
    for line in ["quiesce pki issue pki --agent shop/shop-0", "quiesce pki issue pki spiffe://example.org/people/ann"] {
        shell.does(&pages.take(line));
    }
    let shown = shell.does(&pages.take("quiesce pki show pki/shop-0.pem"));
    assert!(shown.contains("spiffe://quiesce/applications/shop/instances/shop-0"), "{shown}");
    shell.does("cp pki/ca.pem .; for file in pem key; do cp -p pki/scheduler.example.net.$file scheduler.$file; done");
    shell.does("export QUIESCE_SCHEDULER=https://scheduler.example.net:7600 QUIESCE_CA=ca.pem");

    let scheduler = pages.take("quiesce scheduler --listen 0.0.0.0:7600 --tls-cert");
    shell.starts(&scheduler, "QUIESCE_TOKEN_FILE=/var/lib/quiesce/scheduler/admin.token quiesce get clusters");
    let next = shell.does("cat background.log");
    says(&next, "quiesce --ca FILE --token-file FILE token create --role agent --application NAME --out join.token");
    says(&next, "--ca FILE --join-token-file join.token -- COMMAND");
    shell.does(&pages.take("export QUIESCE_TOKEN_FILE=/var/lib/quiesce/scheduler/admin.token"));
    shell.does(&pages.take("quiesce get applications --scheduler https://scheduler.example.net:7600 --ca ca.pem"));
    let ann = shell.does(&pages.take("quiesce token create --role operator --name ann"));
    shell.does(&pages.take("quiesce token create --role agent --application shop"));
    let agent = pages.take("quiesce agent --join-token-file join.token --application shop ...");
    shell.does(&agent.replace("...", "--cluster a --instance shop-0 --ca ca.pem -- sleep 1000 >agent.log 2>&1 &"));
    shell.does_at_last("quiesce get instances", "READY");
    // The code of `sleep`, which ends by the signal.
    shell.fails("kill %2; wait %2");
    shell.does(&pages.take("quiesce pki issue pki --agent shop/shop-0 10.0.0.7"));
    let agent = pages.take("quiesce agent --listen 10.0.0.7:7700");
    shell.does(&agent.replace("COMMAND", "sleep 1000 >agent.log 2>&1 &"));
    shell.does_at_last("quiesce get instances -o json", "https://10.0.0.7:7700");
    shell.does_at_last("quiesce get instances", "READY");
    let tokens = shell.does(&pages.take("quiesce token list"));
    let row = tokens.lines().find(|line| line.contains("ann")).expect("the token of ann");
    let id = row.split_whitespace().next().unwrap();
    assert!(!tokens.contains(ann.trim()), "a token is shown once");
    shell.does(&pages.take("quiesce token revoke t0c1d2...").replace("t0c1d2...", id));
    // The same over TLS for grpcurl: reflection, a call, an error in words.
    let bearer = "-H \"authorization: Bearer $(cat $QUIESCE_TOKEN_FILE)\"";
    let call = |what: &str| format!("grpcurl -cacert ca.pem {bearer} scheduler.example.net:7600 {what}");
    assert!(shell.does(&call("list")).contains("quiesce.v1.Access"));
    assert!(shell.does(&call("quiesce.v1.Scheduler/ListApplications")).contains("applications/shop"));
    let nobody = "grpcurl -cacert ca.pem scheduler.example.net:7600 quiesce.v1.Scheduler/ListApplications";
    let refused = shell.fails(nobody);
    assert!(refused.contains("CREDENTIALS_INVALID") || refused.contains("Unauthenticated"), "{refused}");
    shell.does("kill %1; wait %1");
    let web = pages.take("quiesce scheduler --web-origins https://ops.example.net");
    shell.does(
        "rm -r /var/lib/quiesce/*; export QUIESCE_SCHEDULER=http://127.0.0.1:7600; unset QUIESCE_CA QUIESCE_TOKEN_FILE",
    );
    shell.starts(&web, "quiesce get clusters");
    // Which number it has depends on what still runs.
    shell.does("kill %?web-origins; wait %?web-origins");
    shell.starts(&pages.take("quiesce scheduler --web-page"), "quiesce get clusters");
    let krake = pages.take("quiesce agent --application shop --cluster edge-1 --stop-url");
    shell.does(&krake.replace("/start.sh", "sleep 1000 >krake.log 2>&1 &"));
    shell.does_at_last("quiesce get instances", "READY");
}

/// That a program says what to do next.
#[track_caller]
fn says(printed: &str, what: &str) {
    assert!(printed.contains(what), "{what:?} is not in: {printed}");
}

/// With the directory of backups where there is one.
fn here(line: &str) -> String {
    line.replace("/backups/", "backups/")
}
