//! TLS as OpenSSL sees it, a library of somebody else: what is agreed on, who is let in and who is not.
//!
//! An agent that dials in is answered by one line, and hung up on when its token is wrong. That line is how it is seen
//! here that a handshake was good to its end: a client of TLS 1.3 learns nothing of it otherwise.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use quiesce_protocol::v1::instance;
use quiesce_testkit::namespace::Namespace;
use quiesce_testkit::port::FreePort;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::secured::{ANN, Authority, Maker, Secured};
use crate::stack::SOON;

/// What an agent says first, with a token that nobody has made.
const DIAL_IN: &str = "QUIESCE/1 ATTACH qat1.nobody\r\n";
/// What it is answered with, where it got as far as that.
pub(crate) const HEARD: &str = "QUIESCE/1 ERROR UNAUTHENTICATED CREDENTIALS_INVALID";

/// What `openssl s_client` said and did.
#[derive(Debug)]
struct Seen {
    good: bool,
    /// All it said, and all it was sent.
    text: String,
}

/// Runs `openssl s_client` against a port, with `input` as all there is to say.
async fn s_client(namespace: Option<&Namespace>, port: u16, ca: &Path, args: &[&str], input: &str) -> Seen {
    let entrance = namespace.into_iter().flat_map(Namespace::entrance);
    let mut words = entrance.chain(["openssl".to_owned()]);
    let mut command = Command::new(words.next().expect("there is a word"));
    let mut child = command
        .args(words)
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-verify_ip", "127.0.0.1", "-verify_return_error"])
        .args(["-ign_eof", "-CAfile"])
        .arg(ca)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("openssl is installed");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    // Somebody who was hung up on does not listen any more.
    let _gone = stdin.write_all(input.as_bytes()).await;
    let output =
        timeout(SOON, child.wait_with_output()).await.expect("the scheduler hangs up").expect("it is waited for");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Seen { good: output.status.success(), text }
}

/// What an agent that dials in with this token is answered, with all that OpenSSL says about it.
pub(crate) async fn dial_in(port: u16, ca: &Path, token: &str) -> String {
    s_client(None, port, ca, &["-alpn", "quiesce-attach/1"], &format!("QUIESCE/1 ATTACH {token}\r\n")).await.text
}

/// The certificate that the scheduler shows, in PEM.
pub(crate) async fn shown_certificate(port: u16, ca: &Path) -> String {
    let seen = s_client(None, port, ca, &[], DIAL_IN).await;
    let (begin, end) = ("-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n");
    let from = seen.text.find(begin).unwrap_or_else(|| panic!("no certificate in {}", seen.text));
    let length = seen.text[from..].find(end).expect("it has an end");
    seen.text[from..from + length + end.len()].to_owned()
}

impl Seen {
    #[track_caller]
    fn says(&self, text: &str) {
        assert!(self.text.contains(text), "{text:?} is not in {}", self.text);
    }

    /// That there was a handshake, and that the scheduler went on with it.
    #[track_caller]
    fn was_heard(&self) {
        self.says(HEARD);
        self.says("Verify return code: 0 (ok)");
        self.says("TLSv1.3");
    }

    #[track_caller]
    fn was_refused(&self, alert: &str) {
        assert!(!self.good && !self.text.contains(HEARD), "{}", self.text);
        self.says(alert);
    }
}

async fn what_openssl_sees(maker: Maker) {
    let stack = Secured::start(maker).await;
    let ca = stack.file("ca.pem");
    let see = async |args: &[&str]| s_client(None, stack.port(), &ca, args, DIAL_IN).await;

    for protocol in ["h2", "quiesce-attach/1"] {
        let seen = see(&["-alpn", protocol]).await;
        seen.was_heard();
        seen.says(&format!("ALPN protocol: {protocol}"));
    }
    let both = see(&["-alpn", "quiesce-attach/1,h2"]).await;
    both.was_heard();
    both.says("ALPN protocol: ");
    see(&[]).await.was_heard();
    see(&["-alpn", "imap"]).await.was_refused("no application protocol");
    see(&["-tls1_2", "-alpn", "h2"]).await.was_refused("alert protocol version");

    let certificate = |at: &str| [format!("{at}.pem"), format!("{at}.key")];
    let [cert, key] = certificate(&stack.file_text("ann"));
    see(&["-cert", &cert, "-key", &key]).await.was_heard();
    // One that is called as ours is told from it by its signature alone.
    let foreign = Authority::called("stranger", maker, stack.path("foreign")).await;
    let namesake = Authority::new(maker, stack.path("namesake")).await;
    for (authority, alert) in [(&foreign, "alert unknown ca"), (&namesake, "alert decrypt error")] {
        let pair = authority.issue(ANN).await;
        let [cert, key] = [pair.certificate.to_str().unwrap(), pair.key.to_str().unwrap()];
        see(&["-cert", cert, "-key", key]).await.was_refused(alert);
    }

    // And the other way round: who trusts another CA does not take our scheduler for the right one.
    let other = s_client(None, stack.port(), &foreign.certificate(), &[], DIAL_IN).await;
    other.was_refused("Verify return code: ");
}

#[tokio::test]
async fn openssl_agrees_with_a_scheduler_whose_certificates_quiesce_made() {
    what_openssl_sees(Maker::Quiesce).await;
}

#[tokio::test]
async fn openssl_agrees_with_a_scheduler_whose_certificates_openssl_made() {
    what_openssl_sees(Maker::Openssl).await;
}

#[tokio::test]
async fn who_speaks_in_the_clear_to_the_port_is_hung_up_on() {
    let mut stack = Secured::start(Maker::Quiesce).await;
    for said in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", DIAL_IN, "GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", stack.port())).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        // A reset is an end as well.
        let _ended = timeout(SOON, stream.read_to_end(&mut heard)).await.expect("the scheduler hangs up");
        let heard = String::from_utf8_lossy(&heard);
        assert!(!heard.contains("QUIESCE") && !heard.contains("HTTP"), "{heard}");
    }
    stack.scheduler().wait_for_line("a connection was closed", SOON).await;
}

/// On loopback the admin address is in the clear; on any other it takes the certificate of the scheduler.
#[tokio::test]
async fn the_admin_address_speaks_tls_beyond_loopback() {
    let mut stack = Secured::unstarted(Maker::Quiesce).await;
    let namespace = Arc::new(Namespace::new().await.expect("takes root and iproute2"));
    stack.put_into(&namespace);
    stack.start_scheduler().await;
    let request = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let ca = stack.file("ca.pem");
    let seen = s_client(Some(&namespace), stack.admin_port(), &ca, &[], request).await;
    seen.says("HTTP/1.1 200 OK");
    seen.says("Verify return code: 0 (ok)");
    let old = s_client(Some(&namespace), stack.admin_port(), &ca, &["-tls1_2"], request).await;
    assert!(!old.text.contains("200 OK"), "{}", old.text);

    let mut plain = namespace.connect(([127, 0, 0, 1], stack.admin_port()).into()).await.unwrap();
    plain.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let _ended = timeout(SOON, plain.read_to_end(&mut heard)).await.expect("the scheduler hangs up");
    assert!(!String::from_utf8_lossy(&heard).contains("200 OK"));

    // The loopback of everybody else, without a word of TLS.
    let local = Secured::start(Maker::Quiesce).await;
    assert!(local.admin("/healthz").await.contains("200 OK"));
}

/// A hook that listens lets in whom its CA has signed, and nobody else.
#[tokio::test]
async fn openssl_reaches_a_hook_that_listens_with_a_certificate_alone() {
    let stack = Secured::start(Maker::Openssl).await;
    stack.apply("kind: Application\nname: db\ncluster: a\nplacement: {agents: {}}\n").await;
    let join = stack.path("join.token");
    let join = join.to_str().unwrap();
    let create = ["token", "create", "--role", "agent", "--application", "db", "--out", join];
    stack.quiesce(&create).await.expect(0);
    let port = FreePort::claim();
    let (ca, listens) = (stack.file_text("ca.pem"), format!("127.0.0.1:{}", port.number()));
    let (cert, key) = (stack.file_text("127.0.0.1.pem"), stack.file_text("127.0.0.1.key"));
    let agent = stack.agent("a", "a-0").with(&["--ca", &ca, "--cert", &cert, "--key", &key, "--join-token-file", join]);
    let agent = agent.with(&["--listen", &listens, "--hook-client-ca", &ca, "--standby"]).running(["true"]);
    let _agent = agent.start();
    stack.instance_is("a-0", instance::State::Held).await;

    let nonsense = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let see = async |args: &[&str]| s_client(None, port.number(), Path::new(&ca), args, nonsense).await;
    let ann = (stack.file_text("ann.pem"), stack.file_text("ann.key"));
    let known = ["-alpn", "h2", "-cert", &ann.0, "-key", &ann.1];
    let seen = see(&known).await;
    seen.says("ALPN protocol: h2");
    seen.says("TLSv1.3");
    seen.says("Verify return code: 0 (ok)");
    assert!(!seen.text.contains("alert"), "{}", seen.text);
    see(&["-alpn", "h2"]).await.was_refused("alert certificate required");
    see(&[&known[..], &["-tls1_2"]].concat()).await.was_refused("alert protocol version");
    let foreign = Authority::called("stranger", Maker::Openssl, stack.path("foreign")).await.issue(ANN).await;
    let [cert, key] = [foreign.certificate.to_str().unwrap(), foreign.key.to_str().unwrap()];
    see(&["-alpn", "h2", "-cert", cert, "-key", key]).await.was_refused("alert unknown ca");
}
