//! Access RPCs: tokens.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt as _;
use quiesce_protocol::v1;
use quiesce_runtime::clock::Clock;
use quiesce_store::{Scan, Space};
use v1::token::Role;

use super::Service;
use crate::access::{Draft, Principal};
use crate::convert::{application_name, duration_from_wire, int, timestamp};
use crate::page::collect;
use crate::records::{Stored, TokenRecord, TokenRole, from_entry};
use crate::status::Problem;
use crate::token::Purpose;
use crate::validate::Violations;

/// Longest name of whom a token belongs to, in bytes: it is part of the identity that records show.
const DISPLAY_NAME_MAX: usize = 64;
/// Most applications of one token.
const APPLICATIONS_MAX: usize = 64;
/// How long a token is good at most: what is forgotten ends by itself.
const LIFETIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The same unless the caller says otherwise.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// The same for joining, which happens soon or not at all.
const LIFETIME_DEFAULT_AGENT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn create(
    service: &Service,
    (by, request): (Principal, v1::CreateTokenRequest),
) -> Result<v1::CreateTokenResponse, Problem> {
    let draft = draft(&request)?;
    let access = service.access.clone();
    let change = async move { access.create_token(draft, &by).await };
    let (record, token) = service.carry_out("create token", change).await?;
    Ok(v1::CreateTokenResponse {
        token: Some(to_wire(&*service.registry.clock, &record)),
        bearer_token: token.reveal().to_owned(),
    })
}

fn draft(request: &v1::CreateTokenRequest) -> Result<Draft, Problem> {
    let mut bad = Violations::new();
    let wanted = request.token.clone().unwrap_or_default();
    let display_name = bad.line("token.display_name", &wanted.display_name, DISPLAY_NAME_MAX);
    if display_name.is_empty() {
        bad.add("token.display_name", "must be set");
    }
    if wanted.applications.len() > APPLICATIONS_MAX {
        bad.add("token.applications", format!("must be at most {APPLICATIONS_MAX}"));
    }
    let applications: BTreeSet<_> = wanted
        .applications
        .iter()
        .take(APPLICATIONS_MAX)
        .filter_map(|name| bad.application("token.applications", name))
        .collect();
    let max_uses = bad.count("token.max_uses", wanted.max_uses);
    if max_uses == Some(0) {
        bad.add("token.max_uses", "must be at least 1");
    }
    let role = match Role::try_from(wanted.role) {
        Ok(Role::Viewer) => Some(TokenRole::Viewer),
        Ok(Role::Operator) => Some(TokenRole::Operator),
        Ok(Role::Admin) => Some(TokenRole::Admin),
        Ok(Role::Agent) => Some(TokenRole::Agent { uses_max: max_uses.unwrap_or(1) }),
        Ok(Role::Unspecified) => {
            bad.add("token.role", "must be set");
            None
        }
        Err(_) => {
            bad.unknown_enum("token.role", wanted.role);
            None
        }
    };
    let joins = matches!(role, Some(TokenRole::Agent { .. }));
    if joins && wanted.applications.is_empty() {
        bad.add("token.applications", "must name the applications that may be joined");
    }
    if !joins && role.is_some() && max_uses.is_some() {
        bad.add("token.max_uses", "is for ROLE_AGENT");
    }
    let usual = if joins { LIFETIME_DEFAULT_AGENT } else { LIFETIME_DEFAULT };
    let lifetime = request.lifetime.as_ref().map_or(Some(usual), duration_from_wire);
    let lifetime = lifetime.filter(|lifetime| !lifetime.is_zero() && *lifetime <= LIFETIME_MAX);
    if lifetime.is_none() {
        bad.add("lifetime", "must be more than 0 and at most 366 days");
    }
    let (role, lifetime) = bad.finish(role.zip(lifetime))?;
    Ok(Draft { display_name, role, applications, lifetime })
}

pub(super) async fn list(service: &Service, request: v1::ListTokensRequest) -> Result<v1::ListTokensResponse, Problem> {
    let mut bad = Violations::new();
    let page = bad.page(request.page_size, &request.page_token, Purpose::of(&["ListTokens"]));
    let page = bad.finish(page)?;
    let clock = &*service.registry.clock;
    let page = collect(&*service.registry.store, page, Scan::all(Space::Tokens), |entry| {
        async move {
            let Stored { record, .. } = from_entry::<TokenRecord>(&entry)?;
            Ok(Some(to_wire(clock, &record)))
        }
        .boxed()
    })
    .await?;
    Ok(v1::ListTokensResponse { tokens: page.items, next_page_token: page.next_page_token })
}

pub(super) async fn revoke(
    service: &Service,
    request: v1::RevokeTokenRequest,
) -> Result<v1::RevokeTokenResponse, Problem> {
    let mut bad = Violations::new();
    let id = bad.token_name("name", &request.name);
    bad.reason(&request.reason);
    let id = bad.finish(id)?;
    let access = service.access.clone();
    service.carry_out("revoke token", async move { access.revoke_token(&id).await }).await?;
    Ok(v1::RevokeTokenResponse {})
}

fn to_wire(clock: &dyn Clock, record: &TokenRecord) -> v1::Token {
    let (role, max_uses) = match record.role {
        TokenRole::Viewer => (Role::Viewer, None),
        TokenRole::Operator => (Role::Operator, None),
        TokenRole::Admin => (Role::Admin, None),
        TokenRole::Agent { uses_max } => (Role::Agent, Some(int(uses_max))),
    };
    v1::Token {
        name: format!("tokens/{}", record.id),
        display_name: record.display_name.clone(),
        role: role.into(),
        applications: record.applications.iter().map(application_name).collect(),
        max_uses,
        uses: int(record.uses),
        creator: record.creator.clone(),
        create_time: Some(timestamp(clock, record.created)),
        expire_time: Some(timestamp(clock, record.expires)),
    }
}
