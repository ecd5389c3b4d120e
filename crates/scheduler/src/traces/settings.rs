//! Where spans go: what the usual variables of OpenTelemetry say.
//!
//! Read here are those that switch it on and say how to connect. Headers, resource attributes, sampler, span limits and the batch
//! variables (`OTEL_BSP_*`) are read by the library. <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_QUEUE_SIZE_DEFAULT};
use quiesce_runtime::machine::Machine;
use quiesce_runtime::tls::{Connector, ConnectorFiles, ConnectorSettings, LoadError};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// What has made the spans.
pub(super) const SCOPE: &str = "quiesce";

/// What a scheduler is called where nobody calls it otherwise.
const SERVICE_NAME: &str = "quiesce-scheduler";

/// Before the particular name of a variable, and before the general one.
const PREFIXES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"];

/// What OTLP exporters wait for an answer by default.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Of OTLP in HTTP/2.
const PROTOCOL: &[u8] = b"h2";

/// What people call the files of a collector with TLS.
const FILES: ConnectorSettings = ConnectorSettings {
    authorities: "OTEL_EXPORTER_OTLP_CERTIFICATE",
    certificate: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    key: "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    without: "set OTEL_EXPORTER_OTLP_ENDPOINT to an address with http://",
};

/// Whether there are traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TraceSettings {
    /// There are none: for tests and simulations.
    #[default]
    Off,
    /// As the variables of this process say. Without an endpoint there are none.
    Environment,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A variable makes no sense.
    #[error("{name} {problem}")]
    Variable {
        /// Its name. Values may be secrets.
        name: String,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
    /// Files of the collector cannot be used.
    #[error(transparent)]
    Files(#[from] LoadError),
    /// The library refuses.
    #[error("traces cannot be exported")]
    Exporter(#[from] ExporterBuildError),
}

impl TraceSettings {
    /// Where spans go; `None`: nowhere.
    pub(super) fn collector(self) -> Result<Option<Collector>, OpenError> {
        match self {
            Self::Off => Ok(None),
            Self::Environment => Collector::read(|name| env::var(name).ok().filter(|value| !value.is_empty())),
        }
    }
}

/// Who takes the spans.
#[derive(Debug)]
pub(super) struct Collector {
    endpoint: Uri,
    timeout: Duration,
    files: ConnectorFiles,
}

impl Collector {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, OpenError> {
        let of_traces = |rest: &str| {
            PREFIXES.iter().find_map(|prefix| {
                let name = format!("{prefix}{rest}");
                variable(&name).map(|value| (name, value))
            })
        };
        let is = |name: &str, word: &str| variable(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
        let Some((name, endpoint)) = of_traces("ENDPOINT") else { return Ok(None) };
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        if let Some((name, _)) = of_traces("PROTOCOL").filter(|(_, protocol)| protocol != "grpc") {
            return Err(OpenError::Variable { name, problem: "has to be grpc, the one protocol spoken here" });
        }
        let endpoint: Option<Uri> = endpoint.parse().ok();
        let good = endpoint.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
        let endpoint =
            good.ok_or(OpenError::Variable { name, problem: "has to be http://HOST:PORT or https://HOST:PORT" })?;
        let timeout = match of_traces("TIMEOUT") {
            None => TIMEOUT_DEFAULT,
            Some((name, text)) => {
                let millis = text.parse().ok().filter(|millis| *millis > 0);
                let problem = "has to be a number of milliseconds above 0";
                Duration::from_millis(millis.ok_or(OpenError::Variable { name, problem })?)
            }
        };
        let file = |rest: &str| of_traces(rest).map(|(_, path)| PathBuf::from(path));
        let own = match (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                let name = format!("{}CLIENT_CERTIFICATE", PREFIXES[1]);
                return Err(OpenError::Variable { name, problem: "and OTEL_EXPORTER_OTLP_CLIENT_KEY belong together" });
            }
        };
        let files = ConnectorFiles { authorities: file("CERTIFICATE"), own, settings: FILES };
        Ok(Some(Self { endpoint, timeout, files }))
    }

    pub(super) fn exporter(self, machine: &Machine) -> Result<SpanExporter, OpenError> {
        let timeout = self.timeout;
        Ok(SpanExporter::builder().with_tonic().with_channel(self.channel(machine)?).with_timeout(timeout).build()?)
    }

    /// Connects when something is sent, and again whenever that is needed.
    fn channel(self, machine: &Machine) -> Result<Channel, OpenError> {
        let endpoint = Endpoint::from(self.endpoint.clone()).timeout(self.timeout).connect_timeout(self.timeout);
        if self.endpoint.scheme_str() == Some("http") {
            return Ok(endpoint.connect_lazy());
        }
        let tls = Connector::load(self.files, Arc::clone(&machine.clocks))?;
        let host: Arc<str> = self.endpoint.host().unwrap_or_default().trim_matches(['[', ']']).into();
        let port = self.endpoint.port_u16().unwrap_or(443);
        let address: Arc<str> = format!("{}:{port}", self.endpoint.host().unwrap_or_default()).into();
        let network = Arc::clone(&machine.network);
        Ok(endpoint.connect_with_connector_lazy(service_fn(move |_authority| {
            let (tls, host, address, network) =
                (tls.clone(), Arc::clone(&host), Arc::clone(&address), Arc::clone(&network));
            async move {
                let socket = network.connect(&address, None).await?;
                let secured = Box::pin(tls.connect(socket, &host, PROTOCOL)).await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(TokioIo::new(secured))
            }
        })))
    }
}

/// Who we are: by the environment, and by ourselves where it says nothing.
pub(super) fn resource() -> Resource {
    let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let is_set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let is_named = is_set("OTEL_SERVICE_NAME").is_some()
        || is_set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|attributes| attributes.contains("service.name="));
    if is_named { resource.build() } else { resource.with_service_name(SERVICE_NAME).build() }
}

/// Spans that may wait, or be under way, at a time; beyond them they are dropped.
pub(super) fn queue_size() -> usize {
    let said = env::var(OTEL_BSP_MAX_QUEUE_SIZE).ok().and_then(|size| size.parse().ok()).filter(|size| *size > 0);
    said.unwrap_or(OTEL_BSP_MAX_QUEUE_SIZE_DEFAULT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Collector>, OpenError> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Collector::read(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn nothing_is_sent_unless_there_is_an_endpoint() {
        assert!(read(&[]).unwrap().is_none());
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
        assert_eq!(read(&[endpoint]).unwrap().unwrap().timeout, TIMEOUT_DEFAULT);
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert!(read(&[endpoint, off]).unwrap().is_none(), "{off:?}");
        }
    }

    #[test]
    fn what_is_said_of_traces_goes_before_what_is_said_of_everything() {
        let collector = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://everything:4317"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces:4317"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ]);
        let collector = collector.unwrap().unwrap();
        assert_eq!(collector.endpoint.host(), Some("traces"));
        assert_eq!(collector.timeout, Duration::from_millis(500));
        assert_eq!(collector.files.authorities, Some("/ca.pem".into()));
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
        for (variables, named) in [
            (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4317")], "OTEL_EXPORTER_OTLP_ENDPOINT"),
            (vec![("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "unix:/run/x")], "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
            (vec![endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], "OTEL_EXPORTER_OTLP_PROTOCOL"),
            (vec![endpoint, ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon")], "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"),
            (vec![endpoint, ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k")], "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
        ] {
            let error = read(&variables).unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
    }
}
