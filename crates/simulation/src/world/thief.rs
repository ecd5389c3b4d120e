//! A thief: listens on the wire, keeps the tokens of shutdowns that are over, makes up others, and reports ends that
//! never were.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message as _;
use quiesce_protocol::v1;
use quiesce_protocol::v1::agent_gateway_client::AgentGatewayClient;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{GATEWAY, THIEF};
use crate::chance::Chance;
use crate::laws::{Law, Laws};
use crate::story::Story;
use crate::wire::{Channel, Wire};

/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was overheard: shutdown id, attempt, instance, token.
type Loot = Vec<(String, i32, String, String)>;

pub(super) struct Thief {
    channel: Channel,
    story: Story,
    laws: Laws,
    chance: Chance,
    loot: Arc<Mutex<Loot>>,
}

impl Thief {
    pub(super) fn new(wire: &Wire, story: Story, laws: Laws, chance: Chance) -> Self {
        let loot: Arc<Mutex<Loot>> = Arc::default();
        let heard = Arc::clone(&loot);
        wire.set_tap(Arc::new(move |path, bytes| {
            // Behind the five bytes in front of every gRPC message.
            if path == "/quiesce.v1.ShutdownHook/Shutdown"
                && let Some(Ok(request)) = bytes.get(5..).map(v1::ShutdownRequest::decode)
            {
                let v1::ShutdownRequest { shutdown_id, attempt, instance, completion_token, .. } = request;
                let mut loot = heard.lock().unwrap_or_else(PoisonError::into_inner);
                if !loot.iter().any(|(known, ..)| *known == shutdown_id) {
                    loot.push((shutdown_id, attempt, instance, completion_token));
                }
            }
        }));
        let channel = wire.channel(THIEF, GATEWAY, CancellationToken::new());
        Self { channel, story, laws, chance, loot }
    }

    pub(super) async fn steal(self) -> std::convert::Infallible {
        loop {
            sleep(self.chance.millis(200..=4_000)).await;
            let Some((shutdown_id, token)) = self.pick() else { continue };
            let request = v1::CompleteShutdownRequest {
                shutdown_id: shutdown_id.clone(),
                completion_token: token,
                result: Some(v1::StopResult {
                    outcome: v1::stop_result::Outcome::Stopped.into(),
                    evidence: v1::Evidence::GroupEmpty.into(),
                    message: "says a thief".to_owned(),
                    ..Default::default()
                }),
            };
            let mut gateway = AgentGatewayClient::new(self.channel.clone());
            if let Ok(Ok(_)) = timeout(PATIENCE, gateway.complete_shutdown(request)).await {
                self.story.tell("thief", || format!("was believed about {shutdown_id}"));
                self.laws.broken(Law::TokensCount, format!("a thief was believed about {shutdown_id}"));
            }
        }
    }

    /// The newest shutdown of an instance with a token that was made up, or an older one with its own.
    fn pick(&self) -> Option<(String, String)> {
        let loot = self.loot.lock().unwrap_or_else(PoisonError::into_inner);
        let place = usize::try_from(self.chance.next()).unwrap_or(0) % loot.len().max(1);
        let (id, _, instance, token) = loot.get(place)?;
        let newest = loot.iter().rfind(|(_, _, other, _)| other == instance).is_some_and(|(newest, ..)| newest == id);
        let token = if newest { format!("qct1.1.{:043x}", self.chance.next()) } else { token.clone() };
        Some((id.clone(), token))
    }
}
