//! Calls with grpcurl: grpc-go with Go's own TLS, and reflection.

use std::path::Path;

use quiesce_protocol::{ERROR_DOMAIN, FILE_DESCRIPTOR_SET};
use tokio::process::Command;
use tokio::time::timeout;

use crate::secured::{ANN, Authority, Maker, Secured};
use crate::stack::{Ran, SOON, Stack};
use crate::tools;

const LIST: &str = "quiesce.v1.Scheduler/ListApplications";

/// grpcurl exits with 64 and the code of gRPC.
const NOT_FOUND: i32 = 64 + 5;
const UNAUTHENTICATED: i32 = 64 + 16;

/// Runs grpcurl against the scheduler of this stack.
pub(crate) async fn grpcurl(stack: &Stack, ca: &Path, flags: &[&str], what: &[&str]) -> Ran {
    let mut command = Command::new(tools::grpcurl());
    command.args(["-connect-timeout", "5", "-max-time", "20", "-cacert"]).arg(ca).args(flags);
    command.arg(format!("127.0.0.1:{}", stack.port())).args(what).kill_on_drop(true);
    let output = timeout(2 * SOON, command.output()).await.expect("grpcurl ends").expect("grpcurl runs");
    let text = |bytes| String::from_utf8(bytes).expect("output is text");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

async fn what_go_sees(maker: Maker) {
    let stack = &Secured::start(maker).await;
    stack.apply("kind: Application\nname: db\ncluster: a\nplacement: {agents: {}}\n").await;
    let ca = stack.file("ca.pem");
    let token = std::fs::read_to_string(stack.token("viewer").await).unwrap();
    let authorization = format!("authorization: Bearer {}", token.trim());
    let (cert, key) = (stack.file_text("ann.pem"), stack.file_text("ann.key"));
    let (bearer, certificate) = (["-H", &authorization], ["-cert", &cert, "-key", &key]);

    for flags in [&bearer[..], &certificate] {
        let services = grpcurl(stack, &ca, flags, &["list"]).await.expect(0);
        for service in ["quiesce.v1.Scheduler", "quiesce.v1.Access", "grpc.health.v1.Health"] {
            assert!(services.stdout.lines().any(|line| line == service), "{}", services.stdout);
        }
        let described =
            grpcurl(stack, &ca, flags, &["describe", "quiesce.v1.Scheduler.MigrateApplication"]).await.expect(0);
        assert!(described.stdout.contains(".quiesce.v1.MigrateApplicationRequest"), "{}", described.stdout);
        let listed = grpcurl(stack, &ca, flags, &[LIST]).await.expect(0);
        assert_eq!(listed.json()["applications"][0]["name"], "applications/db", "{}", listed.stdout);
    }

    // With the contract at hand, so that the call itself is what is refused, and not the reflection before it.
    let contract = stack.path("contract.protoset");
    std::fs::write(&contract, FILE_DESCRIPTOR_SET).unwrap();
    let errors = stack.path("errors.protoset");
    std::fs::write(&errors, tonic_types::pb::FILE_DESCRIPTOR_SET).unwrap();
    let known = ["-protoset", contract.to_str().unwrap(), "-protoset", errors.to_str().unwrap()];
    let nobody = grpcurl(stack, &ca, &known, &[LIST]).await.expect(UNAUTHENTICATED);
    says_in_details(&nobody, "CREDENTIALS_INVALID");
    let get = "quiesce.v1.Scheduler/GetApplication";
    let request = ["-d", r#"{"name": "applications/nobody"}"#];
    let absent = grpcurl(stack, &ca, &[&bearer[..], &request].concat(), &[get]).await.expect(NOT_FOUND);
    says_in_details(&absent, "APPLICATION_NOT_FOUND");

    let foreign = Authority::new(maker, stack.path("foreign")).await;
    let distrusted = grpcurl(stack, &foreign.certificate(), &bearer, &["list"]).await.expect(1);
    assert!(distrusted.stderr.contains("certificate signed by unknown authority"), "{}", distrusted.stderr);
    let pair = foreign.issue(ANN).await;
    let certificate = ["-cert", pair.certificate.to_str().unwrap(), "-key", pair.key.to_str().unwrap()];
    let refused = grpcurl(stack, &ca, &certificate, &["list"]).await.expect(1);
    assert!(refused.stderr.contains("remote error: tls: "), "{}", refused.stderr);
}

/// grpcurl prints the details of an error, decoded, with what it exits with.
#[track_caller]
fn says_in_details(ran: &Ran, reason: &str) {
    for text in ["google.rpc.ErrorInfo", reason, ERROR_DOMAIN] {
        assert!(ran.stderr.contains(text), "{text:?} is not in {}", ran.stderr);
    }
}

#[tokio::test]
async fn go_gets_in_with_what_quiesce_made_and_with_nothing_else() {
    what_go_sees(Maker::Quiesce).await;
}

#[tokio::test]
async fn go_gets_in_with_what_openssl_made_and_with_nothing_else() {
    what_go_sees(Maker::Openssl).await;
}
