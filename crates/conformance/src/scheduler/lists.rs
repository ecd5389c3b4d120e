//! P: lists.

use std::collections::BTreeSet;

use quiesce_protocol::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::stage::{Stage, labels, quick};
use super::{Check, rules};
use crate::check::{Stop, Verdict, expect, refused, tell};

pub(super) const CHECKS: &[Check] = checks! {
    P01 Must "the pages of a list have everything exactly once while nothing changes",
        rules::PAGES, "Go on behind the last name of the page before, not at a number.", [], pages;
    P02 Must "page_size: 0 and 1 work, one above the maximum is cut, a negative one is refused",
        rules::PAGES, "Cut what is too large; refuse what makes no sense.", [], sizes;
    P03 Must "a page token with another filter: INVALID_PAGE_TOKEN",
        rules::PAGE_TOKEN, "Put a digest of the other parameters into the token.", [], other_filter;
    P04 Must "garbage as page token: INVALID_PAGE_TOKEN",
        rules::BAD_FILTER, "Check what comes back before you use it.", [], garbage;
    P05 Must "filters: every operator, quoted strings, enum values with and without prefix, a trailing *, labels",
        rules::FILTER, "Implement the grammar as it stands; it is small.", [], filters;
    P06 Must "a bad filter: INVALID_FILTER, with its position",
        rules::BAD_FILTER, "Say where the filter stops making sense.", [], bad_filter;
    P07 Must "something is deleted between two pages: no error, and the rest comes",
        rules::PAGES, "A token names a place, not a thing that has to be there.", [], deleted_between;
};

async fn page(
    stage: &Stage,
    page_size: i32,
    page_token: &str,
    filter: &str,
) -> Result<v1::ListApplicationsResponse, Status> {
    let request =
        v1::ListApplicationsRequest { page_size, page_token: page_token.to_owned(), filter: filter.to_owned() };
    Ok(stage.calls().scheduler.list_applications(request).await?.into_inner())
}

fn failed(status: Status) -> Stop {
    Stop::failed("ListApplications: OK", tell(&status))
}

/// What is listed of this check.
async fn listed(stage: &Stage, filter: &str) -> Result<BTreeSet<String>, Stop> {
    let mut names = BTreeSet::new();
    let mut token = String::new();
    loop {
        let answer = page(stage, 500, &token, filter).await;
        let answer = answer.map_err(|status| Stop::failed(format!("filter {filter:?}: OK"), tell(&status)))?;
        let of_this = answer.applications.into_iter().map(|application| application.name);
        names.extend(of_this.filter(|name| name.contains(stage.prefix())));
        if answer.next_page_token.is_empty() {
            return Ok(names);
        }
        token = answer.next_page_token;
    }
}

/// A filter for what this check has made.
fn own(stage: &Stage) -> String {
    format!("name = \"applications/{}*\"", stage.prefix())
}

async fn some_of_them(stage: &Stage, number: usize) -> Result<Vec<String>, Stop> {
    let mut names = Vec::new();
    for _ in 0..number {
        names.push(stage.create(stage.unmade(quick())).await?.name);
    }
    Ok(names)
}

async fn pages(stage: &Stage) -> Verdict {
    let made = some_of_them(stage, 7).await?;
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let answer = page(stage, 2, &token, &own(stage)).await.map_err(failed)?;
        expect(answer.applications.len() <= 2, "at most page_size of them", answer.applications.len())?;
        seen.extend(answer.applications.into_iter().map(|application| application.name));
        token = answer.next_page_token;
        if token.is_empty() || seen.len() > made.len() {
            break;
        }
    }
    expect(seen == made, format!("{made:?}, ordered by name"), format!("{seen:?}"))
}

async fn sizes(stage: &Stage) -> Verdict {
    let made = some_of_them(stage, 2).await?;
    let filter = own(stage);
    let all = page(stage, 0, "", &filter).await.map_err(failed)?;
    expect(all.applications.len() == made.len(), "page_size 0 is the default", all.applications.len())?;
    let one = page(stage, 1, "", &filter).await.map_err(failed)?;
    let fits = one.applications.len() == 1 && !one.next_page_token.is_empty();
    expect(fits, "one of them and a next_page_token", format!("{one:?}"))?;
    let most = stage.info.max_page_size;
    for size in [most, most.saturating_add(1), i32::MAX] {
        let all = page(stage, size, "", &filter).await.map_err(failed)?;
        expect(all.applications.len() == made.len(), format!("page_size {size} works"), all.applications.len())?;
    }
    refused(page(stage, -1, "", &filter).await, &[Code::InvalidArgument], "INVALID_FIELD")
}

async fn other_filter(stage: &Stage) -> Verdict {
    some_of_them(stage, 2).await?;
    let token = page(stage, 1, "", &own(stage)).await.map_err(failed)?.next_page_token;
    let other = format!("{} AND state = ACTIVE", own(stage));
    refused(page(stage, 1, &token, &other).await, &[Code::InvalidArgument], "INVALID_PAGE_TOKEN")
}

async fn garbage(stage: &Stage) -> Verdict {
    some_of_them(stage, 2).await?;
    let token = page(stage, 1, "", &own(stage)).await.map_err(failed)?.next_page_token;
    let mut bent = token.clone();
    bent.truncate(token.len() / 2);
    for wrong in ["garbage", "AAAA", &bent] {
        refused(page(stage, 1, wrong, &own(stage)).await, &[Code::InvalidArgument], "INVALID_PAGE_TOKEN")?;
    }
    Ok(())
}

async fn filters(stage: &Stage) -> Verdict {
    let gold = v1::Application { labels: labels([("tier", "gold")]), ..stage.unmade(quick()) };
    let iron =
        v1::Application { labels: labels([("tier", "iron")]), cluster: stage.cluster("b"), ..stage.unmade(quick()) };
    let (gold, iron) = (stage.create(gold).await?, stage.create(iron).await?);
    let bare = stage.create(stage.unmade(quick())).await?;
    let (g, i, b) = (gold.name.as_str(), iron.name.as_str(), bare.name.as_str());
    let (a_cluster, prefix) = (stage.cluster("a"), stage.prefix());
    let cases: [(String, &[&str]); 16] = [
        (format!("name = {g}"), &[g]),
        (format!("name = \"{g}\""), &[g]),
        (format!("name = applications/{prefix}*"), &[g, i, b]),
        (format!("name = \"applications/{prefix}*\" AND name != \"{g}\""), &[i, b]),
        (format!("name < \"{i}\""), &[g]),
        (format!("name <= \"{i}\""), &[g, i]),
        (format!("name > \"{i}\""), &[b]),
        (format!("name >= \"{i}\""), &[i, b]),
        (format!("cluster = \"{a_cluster}\""), &[g, b]),
        ("state = ACTIVE".to_owned(), &[g, i, b]),
        ("state = STATE_ACTIVE".to_owned(), &[g, i, b]),
        ("state = STOPPING".to_owned(), &[]),
        ("labels.tier = gold".to_owned(), &[g]),
        ("labels.tier = \"ir*\"".to_owned(), &[i]),
        ("labels:tier".to_owned(), &[g, i]),
        ("create_time > 2020-01-01T00:00:00Z AND labels.tier = \"gold\"".to_owned(), &[g]),
    ];
    for (filter, wanted) in cases {
        let found = listed(stage, &filter).await?;
        let wanted: BTreeSet<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
        expect(found == wanted, format!("{filter}: {wanted:?}"), format!("{found:?}"))?;
    }
    Ok(())
}

async fn bad_filter(stage: &Stage) -> Verdict {
    for wrong in
        ["name =", "name = a OR name = b", "(name = a)", "nothing = 1", "state = NO_SUCH_STATE", "name = \"open"]
    {
        let answer = page(stage, 1, "", wrong).await;
        let status = match answer {
            Ok(_) => return Err(Stop::failed(format!("{wrong:?}: INVALID_FILTER"), "OK")),
            Err(status) => status,
        };
        refused::<()>(Err(status.clone()), &[Code::InvalidArgument], "INVALID_FILTER")?;
        let metadata = status.get_details_error_info().map(|info| info.metadata).unwrap_or_default();
        let position = metadata.get("position").and_then(|text| text.parse::<usize>().ok());
        let fits = position.is_some_and(|position| position <= wrong.len());
        expect(fits, format!("{wrong:?}: metadata position"), format!("{metadata:?}"))?;
    }
    Ok(())
}

async fn deleted_between(stage: &Stage) -> Verdict {
    let made = some_of_them(stage, 5).await?;
    let first = page(stage, 2, "", &own(stage)).await.map_err(failed)?;
    for gone in &made[1..3] {
        let request = v1::DeleteApplicationRequest { force: true, ..stage.deletion(gone) };
        let operation = stage.try_delete(request).await;
        let operation = operation.map_err(|status| Stop::failed("a forced deletion: OK", tell(&status)))?;
        stage.until_state(&operation.name, v1::operation::State::Succeeded).await?;
    }
    let mut seen = Vec::new();
    let mut token = first.next_page_token;
    while !token.is_empty() {
        let next = page(stage, 2, &token, &own(stage)).await.map_err(failed)?;
        seen.extend(next.applications.into_iter().map(|application| application.name));
        token = next.next_page_token;
    }
    expect(seen == made[3..], format!("{:?}", &made[3..]), format!("{seen:?}"))
}
