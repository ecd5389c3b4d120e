//! What every request needs: the one table of who may do what.
//!
//! A request type without a row does not compile into a handler, since handlers get their requests by way of
//! `Service::open`, which asks for its [`Need`].

use quiesce_protocol::v1;

use super::principal::Role;

/// The least a caller has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Least {
    Viewer,
    Operator,
    Admin,
    /// An agent that may join, the instance itself, or an admin who registers a hook that only listens.
    Joining,
    /// The instance itself, or an admin.
    Leaving,
    /// The instance itself and nobody else: what it says is evidence.
    Instance,
    /// Anybody: the request carries its own proof.
    Proof,
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About<'r> {
    /// The scheduler itself.
    Server,
    /// Applications, instances or operations, as many as the caller sees.
    Several,
    Application(&'r str),
    Instance(&'r str),
    Operation(&'r str),
    Cluster(&'r str),
    Clusters,
    Token(&'r str),
    Tokens,
}

impl<'r> About<'r> {
    /// Its name; empty for what has none.
    pub(crate) fn name(self) -> &'r str {
        match self {
            Self::Application(name)
            | Self::Instance(name)
            | Self::Operation(name)
            | Self::Cluster(name)
            | Self::Token(name) => name,
            Self::Server | Self::Several | Self::Clusters | Self::Tokens => "",
        }
    }
}

/// What a request needs, and what is noted of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need<'r> {
    pub(crate) least: Least,
    pub(crate) about: About<'r>,
    /// The field by which the request sets a rule of safety aside: then it takes an admin, and a reason.
    pub(crate) overrides: Option<&'static str>,
    /// Why, where a request can say so.
    pub(crate) reason: Option<&'r str>,
    pub(crate) request_id: &'r str,
    /// It only asks what would happen.
    pub(crate) dry_run: bool,
}

/// What it takes to ask for a description of the services.
pub(crate) const LOOKING: Need<'static> =
    Need { least: Least::Viewer, about: About::Server, overrides: None, reason: None, request_id: "", dry_run: false };

impl<'r> Need<'r> {
    fn new(least: Least, about: About<'r>) -> Self {
        Self { least, about, overrides: None, reason: None, request_id: "", dry_run: false }
    }

    fn named(self, request_id: &'r str) -> Self {
        Self { request_id, ..self }
    }

    fn dry(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    fn because(self, reason: &'r str) -> Self {
        Self { reason: Some(reason), ..self }
    }

    fn overriding(self, overrides: Option<&'static str>) -> Self {
        Self { overrides, ..self }
    }

    /// The role it takes; none where no role is enough.
    pub(crate) fn role(&self) -> Option<Role> {
        match self.least {
            Least::Instance => None,
            Least::Admin | Least::Joining | Least::Leaving => Some(Role::Admin),
            _ if self.overrides.is_some() => Some(Role::Admin),
            Least::Operator => Some(Role::Operator),
            Least::Viewer | Least::Proof => Some(Role::Viewer),
        }
    }
}

/// A request that says what it needs.
pub(crate) trait Ask {
    fn need(&self) -> Need<'_>;
}

macro_rules! table {
    ($($request:ident: |$r:pat_param| $need:expr;)+) => {$(
        impl Ask for v1::$request {
            fn need(&self) -> Need<'_> {
                let $r = self;
                $need
            }
        }
    )+};
}

use About as A;
use Least::{Admin, Instance, Joining, Leaving, Operator, Proof, Viewer};

table! {
    GetServerInfoRequest: |_| Need::new(Viewer, A::Server);
    GetApplicationRequest: |r| Need::new(Viewer, A::Application(&r.name));
    ListApplicationsRequest: |_| Need::new(Viewer, A::Several);
    GetClusterRequest: |r| Need::new(Viewer, A::Cluster(&r.name));
    ListClustersRequest: |_| Need::new(Viewer, A::Clusters);
    GetInstanceRequest: |r| Need::new(Viewer, A::Instance(&r.name));
    ListInstancesRequest: |r| match r.parent.as_str() {
        "applications/-" => Need::new(Viewer, A::Several),
        parent => Need::new(Viewer, A::Application(parent)),
    };
    GetOperationRequest: |r| Need::new(Viewer, A::Operation(&r.name));
    ListOperationsRequest: |_| Need::new(Viewer, A::Several);
    WatchOperationRequest: |r| Need::new(Viewer, A::Operation(&r.name));
    WatchOperationsRequest: |_| Need::new(Viewer, A::Several);

    MigrateApplicationRequest: |r| Need::new(Operator, A::Application(&r.name))
        .overriding(override_in(r.policy.as_ref())).because(&r.reason).named(&r.request_id).dry(r.validate_only);
    DeleteApplicationRequest: |r| Need::new(Operator, A::Application(&r.name))
        .overriding(forcing(r.force).or(override_in(r.policy.as_ref()))).because(&r.reason).named(&r.request_id).dry(r.validate_only);
    CancelOperationRequest: |r| Need::new(Operator, A::Operation(&r.name)).because(&r.reason);
    RetryOperationRequest: |r| Need::new(Operator, A::Operation(&r.name))
        .overriding(forcing(r.force).or(override_in(r.policy.as_ref()))).because(&r.reason).named(&r.request_id);
    ExtendOperationRequest: |r| Need::new(Operator, A::Operation(&r.name)).because(&r.reason);
    ConfirmOperationRequest: |r| Need::new(Operator, A::Operation(&r.name)).because(&r.reason);

    CreateApplicationRequest: |r| Need::new(Admin, A::Application(named(r.application.as_ref(), |one| &one.name)))
        .named(&r.request_id).dry(r.validate_only);
    UpdateApplicationRequest: |r| Need::new(Admin, A::Application(named(r.application.as_ref(), |one| &one.name)))
        .named(&r.request_id).dry(r.validate_only);
    CreateClusterRequest: |r| Need::new(Admin, A::Cluster(named(r.cluster.as_ref(), |one| &one.name)))
        .named(&r.request_id).dry(r.validate_only);
    UpdateClusterRequest: |r| Need::new(Admin, A::Cluster(named(r.cluster.as_ref(), |one| &one.name)))
        .named(&r.request_id).dry(r.validate_only);
    DeleteClusterRequest: |r| Need::new(Admin, A::Cluster(&r.name));
    CreateTokenRequest: |_| Need::new(Admin, A::Tokens);
    ListTokensRequest: |_| Need::new(Admin, A::Tokens);
    RevokeTokenRequest: |r| Need::new(Admin, A::Token(&r.name)).because(&r.reason);

    // A policy that an agent brings along would set the rules for everybody's operations on that application.
    RegisterInstanceRequest: |r| Need::new(Joining, A::Instance(named(r.instance.as_ref(), |one| &one.name)))
        .overriding(r.default_application.as_ref().and_then(|one| override_in(one.policy.as_ref())));
    DeregisterInstanceRequest: |r| Need::new(Leaving, A::Instance(&r.name));
    AdmitStartRequest: |r| Need::new(Instance, A::Instance(&r.instance));
    ReportEndRequest: |r| Need::new(Instance, A::Instance(&r.instance));
    CompleteShutdownRequest: |_| Need::new(Proof, A::Several);
    ExtendDeadlineRequest: |_| Need::new(Proof, A::Several);
}

fn named<T>(resource: Option<&T>, name: impl Fn(&T) -> &String) -> &str {
    resource.map(name).map_or("", String::as_str)
}

fn forcing(force: bool) -> Option<&'static str> {
    force.then_some("force")
}

/// The field of `policy` that sets a rule of safety aside. A `min_evidence` counts whatever it is: whether it is lower
/// than that of the application is known only after looking at the application.
fn override_in(policy: Option<&v1::ShutdownPolicy>) -> Option<&'static str> {
    let policy = policy?;
    if policy.allow_unverified == Some(true) {
        return Some("policy.allow_unverified");
    }
    if policy.failure_strategy == i32::from(v1::FailureStrategy::Force) {
        return Some("policy.failure_strategy");
    }
    if policy.hold_on_unclean_exit == Some(false) {
        return Some("policy.hold_on_unclean_exit");
    }
    (policy.min_evidence != i32::from(v1::Evidence::Unspecified)).then_some("policy.min_evidence")
}
