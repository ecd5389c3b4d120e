//! Access: who calls, and whether he may.
//!
//! A call passes here twice. Before its message is read [`Access::gate`] finds out who calls, from the token it brings or
//! the certificate of its connection; then the handler's request is held against the one table ([`need`]), before
//! anything is looked up. Owns tokens ([`tokens`]) and the credentials of instances. It keeps no secret: tokens are known
//! by their digest, credentials of instances are derived (see [`crate::secrets`]).

mod audit;
mod config;
mod need;
mod principal;
mod throttle;
mod tokens;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap};
use quiesce_operation::OperationId;
use quiesce_protocol::v1;
use quiesce_runtime::clock::Clock;
use quiesce_store::Store;
use tonic::Code;
use tracing::info;

use crate::convert;
use crate::identity::{self, Certificate};
use crate::metrics::{Barred, Metrics};
use crate::records::{InstanceRecord, OperationRecord, TokenRecord, TokenRole, instance_key, load, operation_key};
use crate::secrets::{Entropy, HeldCredential, InstanceToken, Secrets};
use crate::status::{Problem, reason_name};
pub(crate) use audit::{Audit, Entry, Made, Outcome};
pub use audit::{OpenError, Target};
pub use config::{Config, Mode, Named, NamedRole};
pub(crate) use need::{About, Ask, LOOKING, Need};
pub(crate) use principal::{Applications, Means, Principal, Rights, Role};
use throttle::Throttle;
pub use tokens::FirstTokenError;
pub(crate) use tokens::{Draft, first_admin};

/// What a caller without credential is told; the way to one is the next thing he needs.
const NO_CREDENTIAL: &str = "no credential; people: `quiesce --token-file FILE` (the first one is admin.token in the \
                             scheduler's data directory), agents: `--join-token-file FILE` (made by `quiesce token \
                             create --role agent`)";
/// What everybody is told whose credential is no good. Why it is not would help only those who guess.
pub(crate) const BAD_CREDENTIAL: &str = "the credential is wrong, expired, used up or revoked";

/// How dialling in is called in the audit log, where services of gRPC are called by their names.
const ATTACH_SERVICE: &str = "quiesce-attach/1";

/// What they are told whose certificate was good when they connected.
const CERTIFICATE_EXPIRED: &str = "the client certificate has expired; connect anew with the next one";

/// Methods whose requests carry their own proof, so that anybody may send one.
const PROVEN: [&str; 2] = ["CompleteShutdown", "ExtendDeadline"];

/// A call that was answered.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) service: &'a str,
    pub(crate) method: &'a str,
    pub(crate) from: Option<IpAddr>,
    pub(crate) code: Code,
    /// The reason of an error.
    pub(crate) error: &'a str,
}

impl Call<'_> {
    /// Whether whoever made it has not proven what he had to.
    fn proves_nothing(&self) -> bool {
        match self.code {
            Code::Unauthenticated => true,
            Code::PermissionDenied | Code::NotFound => PROVEN.contains(&self.method),
            _ => false,
        }
    }

    /// Whether it belongs into the audit log: it was to change something, or was refused. What is not even a request, and
    /// comes from anybody, does not: lines are kept for ever.
    fn is_recorded(&self) -> bool {
        let refused = matches!(self.code, Code::Unauthenticated | Code::PermissionDenied);
        let gibberish = self.code == Code::InvalidArgument && PROVEN.contains(&self.method);
        refused || (self.service.starts_with("quiesce.") && changes(self.method) && !gibberish)
    }
}

/// Whether a method is to change something.
fn changes(method: &str) -> bool {
    !["Get", "List", "Watch", "Check", "ServerReflection", "unknown"].iter().any(|start| method.starts_with(start))
        && !method.is_empty()
}

/// What [`Access`] works with.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) entropy: Entropy,
    pub(crate) audit: Audit,
    pub(crate) metrics: Metrics,
}

/// Decides about callers.
pub(crate) struct Access {
    config: Config,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    secrets: Arc<Secrets>,
    entropy: Mutex<Entropy>,
    audit: Audit,
    throttle: Throttle,
    metrics: Metrics,
}

impl Access {
    pub(crate) fn new(config: Config, parts: Parts) -> Self {
        let Parts { store, clock, secrets, entropy, audit, metrics } = parts;
        let throttle = Throttle::default();
        Self { config, store, clock, secrets, entropy: Mutex::new(entropy), audit, throttle, metrics }
    }

    /// Who makes a call of `method`, before its message is read: whoever is nobody is not listened to, unless the
    /// message may prove something by itself. Nobody is let in to change something that could not be recorded.
    ///
    /// # Errors
    /// [`Problem::CredentialsInvalid`], or that something is in the way.
    pub(crate) async fn gate(
        &self,
        method: &str,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Principal, Problem> {
        let caller = self.authenticate(headers, extensions).await?;
        if caller.rights == Rights::Nothing && !PROVEN.contains(&method) {
            return Err(Problem::CredentialsInvalid(NO_CREDENTIAL));
        }
        let speaks_of_itself = matches!(caller.rights, Rights::Instance(_)) || PROVEN.contains(&method);
        if changes(method) && !speaks_of_itself && !self.audit.is_good().await {
            return Err(Problem::NotServing("the audit log cannot be written; nothing was changed"));
        }
        Ok(caller)
    }

    /// The same for an agent that wanted to dial in from there with a token that is no good.
    pub(crate) async fn attach_refused(&self, from: IpAddr) {
        let call = Call {
            service: ATTACH_SERVICE,
            method: "",
            from: Some(from),
            code: Code::Unauthenticated,
            error: reason_name(v1::ErrorReason::CredentialsInvalid),
        };
        // There is one answer on that line; behind the limit it is only not recorded any more.
        let _throttled = self.answered(&Entry::default(), call).await;
    }

    /// Takes note of how a call came out, and writes it down if it was to change something or was refused.
    ///
    /// # Errors
    /// [`Problem::LimitExceeded`], to be said instead, when too many calls from that address proved nothing. They have
    /// been counted; there is no line for each.
    pub(crate) async fn answered(&self, entry: &Entry, call: Call<'_>) -> Result<(), Problem> {
        if call.proves_nothing() {
            let throttled = self.throttle.failed(call.from, self.clock.now());
            self.metrics.authentication_failed(if throttled { Barred::Throttled } else { Barred::Refused });
            if throttled {
                return Err(Problem::LimitExceeded { limit: "failed authentications from this address" });
            }
            info!(
                peer = call.from.map(tracing::field::display),
                method = call.method,
                why = call.error,
                "a caller was not let in"
            );
        }
        if call.is_recorded() {
            self.record(entry, call).await;
        }
        Ok(())
    }

    async fn record(&self, entry: &Entry, call: Call<'_>) {
        let time = self.clock.wall(self.clock.now());
        let Call { service, method, from, error, .. } = call;
        let code = format!("{:?}", call.code);
        self.audit.record(entry, &Outcome { time, service, method, from, code: &code, error }).await;
        self.metrics.audit(self.audit.count());
    }

    /// Whether `caller` may send that request.
    ///
    /// # Errors
    /// Those of [`Principal::permit`], or that the store cannot be read.
    pub(crate) async fn permit(&self, caller: &Principal, need: &Need<'_>) -> Result<(), Problem> {
        caller.permit(need)?;
        let (About::Operation(name), Applications::Only(_)) = (need.about, caller.sees()) else { return Ok(()) };
        // Operations of others and those that never were get the same answer.
        let id = name.strip_prefix("operations/").and_then(|id| OperationId::parse(id).ok());
        let found = match id {
            Some(id) => load::<OperationRecord>(&*self.store, operation_key(&id)).await?,
            None => None,
        };
        match found {
            Some(found) if caller.sees().has(found.record.0.request().application.as_str()) => Ok(()),
            Some(_) | None => Err(Problem::NotAllowed { role: need.role().map_or("agent", Role::as_str) }),
        }
    }

    /// Whether what `caller` proved itself with at first is still good; for streams, which outlive their beginning.
    ///
    /// # Errors
    /// [`Problem::CredentialsInvalid`], or that the store cannot be read.
    pub(crate) async fn still(&self, caller: &Principal) -> Result<(), Problem> {
        let id = match &caller.means {
            Means::Token(id) => id,
            Means::Certificate { until } if !self.is_in_time(*until) => {
                return Err(Problem::CredentialsInvalid(CERTIFICATE_EXPIRED));
            }
            Means::Certificate { .. } | Means::Nothing | Means::Instance => return Ok(()),
        };
        let found = self.token(id).await?;
        if found.is_some_and(|token| token.is_good(convert::now(&*self.clock))) {
            return Ok(());
        }
        Err(Problem::CredentialsInvalid(BAD_CREDENTIAL))
    }

    /// Whether a certificate that expires `until` then is still good. The handshake has looked, long ago perhaps.
    fn is_in_time(&self, until: Option<SystemTime>) -> bool {
        until.is_none_or(|until| self.clock.wall(self.clock.now()) < until)
    }

    async fn authenticate(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Principal, Problem> {
        let peer = identity::of(extensions);
        if self.config.mode == Mode::Open {
            return Ok(Principal::anonymous(peer.address, Rights::Everything));
        }
        let mut sent = headers.get_all(AUTHORIZATION).iter();
        let found = match (sent.next(), sent.next()) {
            (None, _) => {
                let known = peer.certificate.and_then(|certificate| self.by_certificate(&certificate)).transpose()?;
                return Ok(known.unwrap_or_else(|| Principal::anonymous(peer.address, Rights::Nothing)));
            }
            (Some(one), None) => match one.to_str().ok().and_then(bearer) {
                Some(token) => self.by_token(token).await?,
                None => None,
            },
            // Which of two were meant is nothing to guess at.
            (Some(_), Some(_)) => None,
        };
        found.ok_or(Problem::CredentialsInvalid(BAD_CREDENTIAL))
    }

    async fn by_token(&self, sent: &str) -> Result<Option<Principal>, Problem> {
        if let Some(held) = self.secrets.open_instance_token(sent) {
            let found = load::<InstanceRecord>(&*self.store, instance_key(&held.application, &held.instance)).await?;
            // A name that was forgotten, or that another agent has taken over since.
            if found.is_none_or(|found| found.record.credential != Some(held.credential)) {
                return Ok(None);
            }
            let name = convert::instance_name(&held.application, &held.instance);
            return Ok(Some(Principal { name, means: Means::Instance, rights: Rights::Instance(held) }));
        }
        let Some(id) = tokens::id_of(sent) else { return Ok(None) };
        let Some(token) = self.token(id).await? else { return Ok(None) };
        if !tokens::matches(&token, sent) || !token.is_good(convert::now(&*self.clock)) {
            return Ok(None);
        }
        let rights = match token.role {
            TokenRole::Viewer => role(Role::Viewer, token.applications),
            TokenRole::Operator => role(Role::Operator, token.applications),
            TokenRole::Admin => role(Role::Admin, token.applications),
            TokenRole::Agent { .. } => Rights::Join { applications: token.applications, instance: None },
        };
        let name = format!("{} (token {})", token.display_name, token.id);
        Ok(Some(Principal { name, means: Means::Token(token.id), rights }))
    }

    fn by_certificate(&self, Certificate { name, until }: &Certificate) -> Option<Result<Principal, Problem>> {
        let rights = self.config.rights_of(name)?;
        if !self.is_in_time(*until) {
            return Some(Err(Problem::CredentialsInvalid(CERTIFICATE_EXPIRED)));
        }
        Some(Ok(Principal { name: name.to_string(), means: Means::Certificate { until: *until }, rights }))
    }

    async fn token(&self, id: &str) -> Result<Option<TokenRecord>, Problem> {
        Ok(load(&*self.store, crate::records::token_key(id)).await?.map(|stored| stored.record))
    }

    /// What an instance proves itself with from now on.
    pub(crate) fn instance_token(&self, held: &HeldCredential) -> InstanceToken {
        self.secrets.instance_token(held)
    }

    /// A number nobody can guess.
    pub(crate) fn number(&self) -> Result<u64, Problem> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn fill(&self, buffer: &mut [u8]) -> Result<(), Problem> {
        let mut entropy = self.entropy.lock().unwrap_or_else(PoisonError::into_inner);
        (*entropy)(buffer).map_err(|error| Problem::Internal(Box::new(error)))
    }
}

fn role(role: Role, applications: std::collections::BTreeSet<quiesce_operation::ApplicationId>) -> Rights {
    let applications = if applications.is_empty() { Applications::All } else { Applications::Only(applications) };
    Rights::Role { role, applications }
}

/// The token in an `authorization` header.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quiesce_operation::{ApplicationId, Moment};
    use quiesce_runtime::clock::ManualClock;
    use quiesce_runtime::machine::Machine;
    use quiesce_store::memory::MemoryStore;
    use uuid::Uuid;

    use super::*;
    use crate::secrets::{Rotation, entropy_of};

    async fn access(config: Config) -> Access {
        access_at(Arc::new(ManualClock::new(0)), config).await
    }

    async fn access_at(clock: Arc<ManualClock>, config: Config) -> Access {
        let store = Arc::new(MemoryStore::new(Uuid::nil()));
        let mut entropy = entropy_of(&Machine::local());
        let secrets = Secrets::load(&*store, &mut entropy, Moment::from_millis(0), Rotation::WhenDue).await.unwrap();
        let parts = Parts {
            store,
            clock,
            secrets: Arc::new(secrets),
            entropy,
            audit: Audit::open(&Target::Off).unwrap(),
            metrics: Metrics::new(),
        };
        Access::new(config, parts)
    }

    fn named(name: &str, role: NamedRole) -> Named {
        let applications = [ApplicationId::parse("shop").unwrap()].into();
        Named { name: name.to_owned(), role, applications }
    }

    /// The connection of whom a certificate names, which expires 100 s after the beginning of time.
    fn certificate(name: &str) -> Extensions {
        let mut extensions = Extensions::new();
        let until = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(100));
        extensions.insert(Certificate { name: name.into(), until });
        extensions
    }

    #[tokio::test]
    async fn a_certificate_is_somebody_by_its_name() {
        let principals = vec![named("spiffe://x/ann", NamedRole::Viewer), named("host.x", NamedRole::Agent)];
        let access = access(Config { mode: Mode::Enforced, principals, ..Config::open() }).await;
        let headers = HeaderMap::new();
        let ann = access.gate("GetApplication", &headers, &certificate("spiffe://x/ann")).await.unwrap();
        assert_eq!((ann.name.as_str(), ann.means.as_str()), ("spiffe://x/ann", "certificate"));
        assert!(ann.sees().has("shop") && !ann.sees().has("bank"));
        let agent = access.gate("RegisterInstance", &headers, &certificate("host.x")).await.unwrap();
        assert!(matches!(agent.rights, Rights::Join { .. }));
        for nobody in [certificate("spiffe://y/ann"), Extensions::new()] {
            let refused = access.gate("GetApplication", &headers, &nobody).await;
            assert!(matches!(refused, Err(Problem::CredentialsInvalid(_))), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn a_token_that_is_no_good_is_not_made_good_by_a_certificate() {
        let principals = vec![named("spiffe://x/ann", NamedRole::Viewer)];
        let access = access(Config { mode: Mode::Enforced, principals, ..Config::open() }).await;
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer qbt1.t0.x".parse().unwrap());
        let refused = access.gate("GetApplication", &headers, &certificate("spiffe://x/ann")).await;
        assert!(matches!(refused, Err(Problem::CredentialsInvalid(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn a_connection_that_outlives_its_certificate_is_nobodys() {
        let principals = vec![named("spiffe://x/ann", NamedRole::Viewer)];
        let clock = Arc::new(ManualClock::new(0));
        let config = Config { mode: Mode::Enforced, principals, ..Config::open() };
        let access = access_at(Arc::clone(&clock), config).await;
        let (headers, connection) = (HeaderMap::new(), certificate("spiffe://x/ann"));
        clock.advance(Duration::from_secs(99));
        let ann = access.gate("WatchOperations", &headers, &connection).await.unwrap();
        access.still(&ann).await.unwrap();
        clock.advance(Duration::from_secs(1));
        for refused in [access.still(&ann).await, access.gate("GetOperation", &headers, &connection).await.map(drop)] {
            assert!(matches!(refused, Err(Problem::CredentialsInvalid(CERTIFICATE_EXPIRED))), "{refused:?}");
        }
    }
}
