//! `quiesce token`: made, listed, revoked.
//!
//! A token is shown once, on the standard output or in a file for its owner only; everything about it goes elsewhere.

use std::io::{self, Write as _};
use std::time::SystemTime;

use quiesce_protocol::v1::token::Role;
use quiesce_protocol::v1::{CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, Token};
use quiesce_runtime::clock::wall_now;
use quiesce_runtime::secret_file;

use super::{Ending, Session, get, note};
use crate::args::{Common, Format, TokenArgs, TokenCommand, TokenCreateArgs, TokenRevokeArgs, TokenRole};
use crate::error::Error;
use crate::name;
use crate::output::json::Document;
use crate::output::table::{Cell, Table};
use crate::output::text::{self, Style};

pub(super) async fn run(session: &impl Fn(&Common) -> Session, args: TokenArgs) -> Result<Ending, Error> {
    match args.command {
        TokenCommand::Create(args) => create(&session(&args.common), args).await,
        TokenCommand::List(args) => list(&session(&args.common)).await,
        TokenCommand::Revoke(args) => revoke(&session(&args.common), args).await,
    }
}

async fn create(session: &Session, args: TokenCreateArgs) -> Result<Ending, Error> {
    let (role, word) = match args.role {
        TokenRole::Viewer => (Role::Viewer, "viewer"),
        TokenRole::Operator => (Role::Operator, "operator"),
        TokenRole::Admin => (Role::Admin, "admin"),
        TokenRole::Agent => (Role::Agent, "agent"),
    };
    let out = args.out.as_deref();
    if let Some(path) = out.filter(|path| path.exists()) {
        // Better now than with a token that nobody has seen.
        return Err(Error::Input { problem: format!("{} exists already", path.display()), advice: Vec::new() });
    }
    let token = Token {
        display_name: args.name.unwrap_or_else(|| word.to_owned()),
        role: role.into(),
        applications: args.applications.iter().map(|one| name::application(one)).collect(),
        max_uses: args.uses,
        ..Default::default()
    };
    let lifetime = args.lifetime.and_then(|lifetime| prost_types::Duration::try_from(lifetime).ok());
    let request = CreateTokenRequest { token: Some(token), lifetime };
    let client = session.connect().await?;
    // Not asked again when the answer is lost: there would be two, and one of them nobody has.
    let answer = client.access().create_token(request).await;
    let mut answer = answer.map_err(|status| Error::rpc("create the token", status))?.into_inner();
    let made = answer.token.clone().unwrap_or_default();
    let short = name::leaf(&made.name).to_owned();
    if let Some(path) = out {
        if let Err(error) = secret_file::create(path, &answer.bearer_token) {
            return Err(Error::Input {
                problem: format!("the token was made, but cannot be written to {}: {error}", path.display()),
                advice: vec![format!("quiesce token revoke {short}")],
            });
        }
        answer.bearer_token.clear();
    }
    match session.format {
        Format::Table => {
            match out {
                Some(path) => note(format!("token {short} is in {}", path.display())),
                None => {
                    let mut stdout = io::stdout().lock();
                    writeln!(stdout, "{}", answer.bearer_token)?;
                    stdout.flush()?;
                    note(format!("this is token {short}; it is not shown again"));
                }
            }
            if role == Role::Agent {
                let file = out.map_or_else(|| "FILE".to_owned(), |path| path.display().to_string());
                note(format!("use it with: quiesce agent --join-token-file {file} ..."));
            }
        }
        Format::Json | Format::Yaml => session.show(&Document::of(&answer), Vec::new)?,
    }
    Ok(Ending::Done)
}

async fn list(session: &Session) -> Result<Ending, Error> {
    let client = session.connect().await?;
    let listing = client
        .pages("list tokens", async |_, page_size, page_token| {
            let request = ListTokensRequest { page_size, page_token };
            let page = client.access().list_tokens(request).await?.into_inner();
            Ok((page.tokens, page.next_page_token))
        })
        .await?;
    let now = wall_now();
    get::list(session, "tokens", listing, |tokens| table(tokens, now))?;
    Ok(Ending::Done)
}

fn table(tokens: &[Token], now: SystemTime) -> Table {
    let mut table = Table::new(["NAME", "WHO", "ROLE", "APPLICATIONS", "USES", "AGE", "EXPIRES"]);
    for token in tokens {
        let applications: Vec<String> = token.applications.iter().map(|one| name::short(one)).collect();
        let role = token.role().as_str_name().trim_start_matches("ROLE_").to_lowercase();
        table.row([
            Cell::styled(name::leaf(&token.name), Style::Bold),
            token.display_name.clone().into(),
            role.into(),
            if applications.is_empty() { "all".to_owned() } else { applications.join(",") }.into(),
            token.max_uses.map_or_else(|| "-".to_owned(), |most| format!("{}/{most}", token.uses)).into(),
            text::age(token.create_time.as_ref(), now).into(),
            expiry(token, now).into(),
        ]);
    }
    table
}

/// In how many days or hours, or that it has.
fn expiry(token: &Token, now: SystemTime) -> String {
    const HOUR: u64 = 60 * 60;
    let time = token.expire_time.and_then(|time| SystemTime::try_from(time).ok());
    match time.map(|time| time.duration_since(now)) {
        None => "-".to_owned(),
        Some(Err(_)) => "expired".to_owned(),
        Some(Ok(left)) if left.as_secs() >= 48 * HOUR => format!("in {}d", left.as_secs() / (24 * HOUR)),
        Some(Ok(left)) if left.as_secs() >= HOUR => format!("in {}h", left.as_secs() / HOUR),
        Some(Ok(left)) => format!("in {}m", left.as_secs() / 60),
    }
}

async fn revoke(session: &Session, args: TokenRevokeArgs) -> Result<Ending, Error> {
    // Somebody who gives the token itself has put it where others can read it: into the list of processes.
    let id = args.token.strip_prefix("tokens/").unwrap_or(&args.token);
    if id.starts_with("qbt1.") || id.starts_with("qjt1.") {
        let id = id.split('.').nth(1).unwrap_or_default();
        return Err(Error::Input {
            problem: "that is the token itself; its name is enough, and no secret".to_owned(),
            advice: vec![format!("quiesce token revoke {id}")],
        });
    }
    let client = session.connect().await?;
    let request = RevokeTokenRequest { name: format!("tokens/{id}"), reason: args.reason };
    let what = format!("revoke token {}", text::clean(id));
    client.call(&what, async |_| client.access().revoke_token(request.clone()).await).await?;
    note(format!("token {id} is worthless"));
    Ok(Ending::Done)
}
