//! Stacks where everything is encrypted and everybody has to prove who he is, and the CAs that make the proofs.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use quiesce_testkit::certificates::Pair;
use tokio::process::Command;

use crate::stack::{Agent, Proofs, Stack};

/// A person who may do everything, by her certificate.
pub(crate) const ANN: &str = "spiffe://example.org/people/ann";

/// Who may do what. Agents go by the name that `quiesce pki issue --agent` gives, and by another.
const ACCESS: &str = r#"
[access]
mode = "enforced"

[[access.principals]]
name = "spiffe://example.org/people/ann"
roles = ["admin"]

[[access.principals]]
name = "spiffe://quiesce/applications/db/*"
roles = ["agent"]
applications = ["db"]

[[access.principals]]
name = "spiffe://renewed.example.org/applications/db/*"
roles = ["agent"]
applications = ["db"]
"#;

/// Who makes certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    /// `quiesce pki`.
    Quiesce,
    /// openssl, with RSA keys, as `docs/operations.md` shows.
    Openssl,
}

/// A CA in a directory of its own.
#[derive(Debug)]
pub(crate) struct Authority {
    maker: Maker,
    directory: PathBuf,
}

impl Authority {
    /// One that is called `root`, like every other that nobody gave a name.
    pub(crate) async fn new(maker: Maker, directory: PathBuf) -> Self {
        Self::called("root", maker, directory).await
    }

    pub(crate) async fn called(name: &str, maker: Maker, directory: PathBuf) -> Self {
        let authority = Self { maker, directory };
        match maker {
            Maker::Quiesce => authority.quiesce(&["init", authority.text(), "--name", name]).await,
            Maker::Openssl => {
                fs::create_dir(&authority.directory).unwrap();
                let make = format!("req -x509 -newkey rsa:2048 -nodes -subj /CN={name} -days 365");
                authority.openssl(&format!("{make} -keyout ca.key -out ca.pem")).await;
            }
        }
        authority
    }

    /// Its certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A certificate for one name: an address, or a URI, whose last part is what the files are called.
    pub(crate) async fn issue(&self, name: &str) -> Pair {
        let stem = name.rsplit('/').next().unwrap();
        match self.maker {
            Maker::Quiesce => self.quiesce(&["issue", self.text(), name]).await,
            Maker::Openssl => {
                let kind = if name.contains("://") { "URI" } else { "IP" };
                let extensions = format!("subjectAltName={kind}:{name}\nextendedKeyUsage=serverAuth,clientAuth\n");
                fs::write(self.directory.join("ext"), extensions).unwrap();
                let request = "req -new -newkey rsa:2048 -nodes -subj /CN=scheduler";
                self.openssl(&format!("{request} -keyout {stem}.key -out {stem}.csr")).await;
                let sign = "x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ext";
                self.openssl(&format!("{sign} -in {stem}.csr -out {stem}.pem")).await;
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(self.directory.join(format!("{stem}.key")), mode).unwrap();
            }
        }
        let file = |extension| self.directory.join(format!("{stem}.{extension}"));
        Pair { certificate: file("pem"), key: file("key") }
    }

    fn text(&self) -> &str {
        self.directory.to_str().expect("a path of ours is text")
    }

    async fn quiesce(&self, args: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quiesce"));
        succeeds(command.arg("pki").args(args)).await;
    }

    async fn openssl(&self, args: &str) {
        let mut command = Command::new("openssl");
        succeeds(command.args(args.split(' ')).current_dir(&self.directory)).await;
    }
}

async fn succeeds(command: &mut Command) {
    let output = command.output().await.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A stack whose scheduler has a certificate and asks for one; the files in use are in the directory `tls`.
pub(crate) struct Secured {
    stack: Stack,
    pub(crate) authority: Authority,
}

impl Secured {
    /// With a scheduler that runs.
    pub(crate) async fn start(maker: Maker) -> Self {
        let mut secured = Self::unstarted(maker).await;
        secured.start_scheduler().await;
        secured
    }

    pub(crate) async fn unstarted(maker: Maker) -> Self {
        let mut stack = Stack::unstarted();
        let authority = Authority::new(maker, stack.path("pki")).await;
        let tls = stack.path("tls");
        fs::create_dir(&tls).unwrap();
        fs::copy(authority.certificate(), tls.join("ca.pem")).unwrap();
        let config = stack.path("scheduler.toml");
        fs::write(&config, ACCESS).unwrap();
        let file = |name: &str| tls.join(name).display().to_string();
        let flags = [
            ("--config", config.display().to_string()),
            ("--tls-cert", file("127.0.0.1.pem")),
            ("--tls-key", file("127.0.0.1.key")),
            ("--tls-client-ca", file("ca.pem")),
        ];
        let scheduler = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        let client =
            [("QUIESCE_CA", file("ca.pem")), ("QUIESCE_CERT", file("ann.pem")), ("QUIESCE_KEY", file("ann.key"))];
        stack.secure(Proofs { scheduler, client: client.into() });
        let secured = Self { stack, authority };
        for name in ["127.0.0.1", ANN] {
            secured.install(&secured.authority.issue(name).await);
        }
        secured
    }

    /// A file that is in use.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.stack.path("tls").join(name)
    }

    /// Its path as text.
    pub(crate) fn file_text(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// Puts certificate and key in the place of those in use.
    pub(crate) fn install(&self, pair: &Pair) {
        for file in [&pair.key, &pair.certificate] {
            replace(file, &self.file(file.file_name().and_then(|name| name.to_str()).unwrap()));
        }
    }

    /// The name of an agent, as `quiesce pki issue --agent` writes it.
    pub(crate) fn agent_name(instance: &str) -> String {
        format!("spiffe://quiesce/applications/db/instances/{instance}")
    }

    /// An agent that is known by its certificate.
    pub(crate) async fn certified_agent(&self, cluster: &str, instance: &str) -> Agent {
        self.install(&self.authority.issue(&Self::agent_name(instance)).await);
        let file = |extension| self.file_text(&format!("{instance}.{extension}"));
        let agent = self.stack.agent(cluster, instance).with(&["--ca", &self.file_text("ca.pem")]);
        agent.with(&["--cert", &file("pem"), "--key", &file("key")])
    }

    /// Makes a token for this role, and returns the file it is in.
    pub(crate) async fn token(&self, role: &str) -> PathBuf {
        let file = self.stack.path(&format!("{role}.token"));
        let out = file.to_str().expect("a path of ours is text");
        self.stack.quiesce(&["token", "create", "--role", role, "--out", out]).await.expect(0);
        file
    }
}

/// Puts a copy of one file in the place of another at once, as tools do that renew certificates.
fn replace(from: &Path, to: &Path) {
    let beside = to.with_extension("new");
    fs::copy(from, &beside).unwrap();
    fs::rename(&beside, to).unwrap();
}

impl Deref for Secured {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.stack
    }
}

impl DerefMut for Secured {
    fn deref_mut(&mut self) -> &mut Stack {
        &mut self.stack
    }
}
