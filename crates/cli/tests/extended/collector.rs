//! A collector of traces, by OTLP over gRPC: keeps every span it is sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use quiesce_testkit::eventually;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::stack::SOON;

/// Dropping it ends it.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Kept {
    spans: Vec<Span>,
    resource: BTreeMap<String, String>,
    authorization: Option<String>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, kept) = (listener.local_addr().unwrap(), Arc::<Mutex<Kept>>::default());
        let service = TraceServiceServer::new(Keeper(Arc::clone(&kept)));
        let serving = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        Self { address, kept, task: tokio::spawn(async { serving.await.unwrap() }) }
    }

    /// Every span of a trace, by its id; one that came twice has to be the same.
    pub(crate) fn trace(&self, trace_id: u128) -> BTreeMap<u64, Span> {
        let mut spans = BTreeMap::new();
        for span in &self.kept.lock().unwrap().spans {
            if span.trace_id == trace_id.to_be_bytes() {
                let before = spans.insert(id(&span.span_id), span.clone());
                assert!(before.is_none_or(|before| before == *span), "two spans have one id: {span:#?}");
            }
        }
        spans
    }

    /// Waits for a span of this name.
    pub(crate) async fn has(&self, trace_id: u128, name: &str) -> Span {
        eventually(format!("a span {name:?}"), SOON, || async {
            let spans = self.trace(trace_id);
            let found = spans.values().find(|span| span.name == name).cloned();
            found.ok_or_else(|| format!("{:?}", spans.values().map(|span| &span.name).collect::<Vec<_>>()))
        })
        .await
    }

    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        self.kept.lock().unwrap().resource.clone()
    }

    pub(crate) fn authorization(&self) -> Option<String> {
        self.kept.lock().unwrap().authorization.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeper(Arc<Mutex<Kept>>);

#[tonic::async_trait]
impl TraceService for Keeper {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap();
        let header = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        kept.authorization = header;
        for resource in request.into_inner().resource_spans {
            kept.resource = attributes(&resource.resource.unwrap_or_default().attributes);
            kept.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Of a span or a parent; 0: none.
pub(crate) fn id(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

/// As text, whatever they are.
pub(crate) fn attributes(of: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(is)) => is.to_string(),
        other => format!("{other:?}"),
    };
    of.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}
