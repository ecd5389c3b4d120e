//! `quiesce forget`: an instance that was scaled down, or whose host is gone, no longer counts.
//!
//! Whether it may be forgotten is for the scheduler to say: not during an operation, and not while its hook says that a
//! copy runs.

use quiesce_protocol::v1::DeregisterInstanceRequest;

use super::{Ending, Session, get, note};
use crate::args::{ForgetArgs, Format};
use crate::error::Error;
use crate::name;
use crate::output::json::Document;

pub(super) async fn run(session: &Session, args: ForgetArgs) -> Result<Ending, Error> {
    let client = session.connect().await?;
    // Read first: forgetting what is not there is fine for agents, but a typing error of a person.
    let instance = get::instance(&client, &args.instance).await?;
    let request = DeregisterInstanceRequest { name: instance.name.clone() };
    let short = name::short(&instance.name);
    let what = format!("forget {short}");
    client.call(&what, async |_| client.gateway().deregister_instance(request.clone()).await).await?;
    match session.format {
        Format::Table => note(format!("{short} is forgotten; its agent, if it comes back, registers it anew")),
        Format::Json | Format::Yaml => session.show(&Document::of(&instance), Vec::new)?,
    }
    Ok(Ending::Done)
}
