//! Calls with grpcio: gRPC's C core with BoringSSL, as Python has it, and every credential there is.

use std::path::Path;

use quiesce_protocol::{ERROR_DOMAIN, FILE_DESCRIPTOR_SET};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::secured::{ANN, Authority, Maker, Secured};
use crate::stack::SOON;
use crate::tools;

const LIST: &str = "quiesce.v1.Scheduler/ListApplications";

struct Grpcio {
    stack: Secured,
}

impl Grpcio {
    async fn start(maker: Maker) -> Self {
        let stack = Secured::start(maker).await;
        std::fs::write(stack.path("descriptors"), FILE_DESCRIPTOR_SET).unwrap();
        // Something to be listed.
        stack.apply("kind: Application\nname: db\ncluster: a\nplacement: {agents: {}}\n").await;
        Self { stack }
    }

    /// What came of a call.
    async fn call(&self, method: &str, request: &Value, flags: &[(&str, &Path)]) -> Value {
        let mut command = Command::new(tools::python_with_grpcio());
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/extended/grpcio_client.py"))
            .args([&format!("127.0.0.1:{}", self.stack.port()), method, "--request", &request.to_string()])
            .arg("--descriptors")
            .arg(self.stack.path("descriptors"))
            .kill_on_drop(true);
        for (flag, value) in flags {
            command.arg(flag).arg(value);
        }
        // The C core tells on standard error what it thinks of certificates.
        let output = timeout(2 * SOON, command.output()).await.expect("the call ends").expect("Python runs");
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    async fn list(&self, flags: &[(&str, &Path)]) -> Value {
        self.call(LIST, &json!({}), flags).await
    }
}

#[track_caller]
fn is_the_list(outcome: &Value) {
    assert_eq!(outcome["code"], "OK", "{outcome:#}");
    assert_eq!(outcome["answer"]["applications"][0]["name"], "applications/db", "{outcome:#}");
}

#[track_caller]
fn is_refused(outcome: &Value, code: &str, reason: &str) {
    assert_eq!(outcome["code"], code, "{outcome:#}");
    let info = &outcome["details"]["ErrorInfo"];
    assert_eq!((info["reason"].as_str(), info["domain"].as_str()), (Some(reason), Some(ERROR_DOMAIN)), "{outcome:#}");
}

async fn what_grpcio_sees(maker: Maker) {
    let world = Grpcio::start(maker).await;
    let file = |name: &str| world.stack.file(name);
    let (ca, cert, key) = (file("ca.pem"), file("ann.pem"), file("ann.key"));
    let token = world.stack.token("viewer").await;

    is_the_list(&world.list(&[("--ca", &ca), ("--token-file", &token)]).await);
    is_the_list(&world.list(&[("--ca", &ca), ("--cert", &cert), ("--key", &key)]).await);
    is_refused(&world.list(&[("--ca", &ca)]).await, "UNAUTHENTICATED", "CREDENTIALS_INVALID");
    let wrong = world.stack.path("wrong.token");
    std::fs::write(&wrong, "qbt1.t00.nobody").unwrap();
    let refused = world.list(&[("--ca", &ca), ("--token-file", &wrong)]).await;
    is_refused(&refused, "UNAUTHENTICATED", "CREDENTIALS_INVALID");

    // What goes wrong behind the door is told in the same way.
    let absent = json!({"name": "applications/nobody"});
    let get = "quiesce.v1.Scheduler/GetApplication";
    let absent = world.call(get, &absent, &[("--ca", &ca), ("--token-file", &token)]).await;
    is_refused(&absent, "NOT_FOUND", "APPLICATION_NOT_FOUND");

    // Neither a wrong CA on either side nor a wrong certificate gets as far as an answer.
    let foreign = Authority::new(maker, world.stack.path("foreign")).await;
    let pair = foreign.issue(ANN).await;
    let not_ours = foreign.certificate();
    let unreached: [&[(&str, &Path)]; 3] = [
        &[("--ca", &not_ours), ("--token-file", &token)],
        &[("--ca", &ca), ("--cert", &pair.certificate), ("--key", &pair.key)],
        &[],
    ];
    for flags in unreached {
        let outcome = world.list(flags).await;
        assert_eq!(outcome["code"], "UNAVAILABLE", "{flags:?}: {outcome:#}");
    }
}

#[tokio::test]
async fn grpcio_gets_in_with_what_quiesce_made_and_with_nothing_else() {
    what_grpcio_sees(Maker::Quiesce).await;
}

#[tokio::test]
async fn grpcio_gets_in_with_what_openssl_made_and_with_nothing_else() {
    what_grpcio_sees(Maker::Openssl).await;
}
