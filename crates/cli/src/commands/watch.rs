//! `quiesce watch`: one operation to its end, or all of them.

use super::progress::{self, Watched};
use super::{Ending, Session};
use crate::args::WatchArgs;
use crate::error::Error;
use crate::name;

pub(super) async fn run(session: &Session, args: WatchArgs) -> Result<Ending, Error> {
    let client = session.connect().await?;
    let watched = match &args.operation {
        Some(operation) => Watched::One(name::operation(operation)),
        None => Watched::All { filter: args.filter.unwrap_or_default() },
    };
    progress::follow(session, client, watched, args.since, args.timeout).await
}
