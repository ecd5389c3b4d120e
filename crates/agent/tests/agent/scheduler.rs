//! A scheduler of straw: the gateway and the other end of dialling in, doing what a test tells it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use hyper_util::rt::TokioIo;
use quiesce_protocol::v1::agent_gateway_server::{AgentGateway, AgentGatewayServer};
use quiesce_protocol::v1::shutdown_hook_client::ShutdownHookClient;
use quiesce_protocol::v1::{self, AdmitStartRequest, RegisterInstanceRequest, ReportEndRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::stage::LIMIT;

pub(crate) type Client = ShutdownHookClient<Channel>;

pub(crate) const HOOK_TOKEN: &str = "hook-token";

/// What it has heard, and how it answers.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) registrations: Vec<RegisterInstanceRequest>,
    pub(crate) admissions: Vec<AdmitStartRequest>,
    pub(crate) ends: Vec<ReportEndRequest>,
    /// Whether applications may start.
    pub(crate) permits: bool,
    /// Whether the application was deleted.
    pub(crate) deleted: bool,
    /// How many attach requests are refused.
    pub(crate) refuse_attach: usize,
    /// Where agents are told to attach.
    pub(crate) attach_endpoint: String,
    pub(crate) epoch: i64,
    token: Option<String>,
}

#[derive(Clone)]
pub(crate) struct Scheduler {
    book: Arc<Mutex<Book>>,
    pub(crate) address: SocketAddr,
    pub(crate) attach_address: SocketAddr,
    attached: watch::Sender<(u64, Option<Client>)>,
}

impl Scheduler {
    pub(crate) async fn start() -> Self {
        let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let attach = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let attach_address = attach.local_addr().unwrap();
        let book = Book { permits: true, attach_endpoint: attach_address.to_string(), ..Book::default() };
        let scheduler = Self {
            book: Arc::new(Mutex::new(book)),
            address: gateway.local_addr().unwrap(),
            attach_address,
            attached: watch::Sender::new((0, None)),
        };
        let service = AgentGatewayServer::new(scheduler.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(gateway)));
        tokio::spawn(scheduler.clone().accept(attach));
        scheduler
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    pub(crate) fn connections(&self) -> u64 {
        self.attached.borrow().0
    }

    /// The hook on a connection later than the first `seen`.
    pub(crate) async fn hook_after(&self, seen: u64) -> Client {
        let mut attached = self.attached.subscribe();
        let found = tokio::time::timeout(LIMIT, attached.wait_for(|(count, _)| *count > seen)).await;
        found.expect("the agent dials in").unwrap().1.clone().unwrap()
    }

    async fn accept(self, listener: TcpListener) {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let scheduler = self.clone();
            tokio::spawn(async move {
                if let Ok(client) = scheduler.attach(connection).await {
                    scheduler.attached.send_modify(|(count, slot)| {
                        *count += 1;
                        *slot = Some(client);
                    });
                }
            });
        }
    }

    async fn attach(&self, mut connection: TcpStream) -> io::Result<Client> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(connection.read_u8().await?);
        }
        let line = String::from_utf8(line).unwrap();
        let token = line.strip_prefix("QUIESCE/1 ATTACH ").expect("the line of the contract").trim_end().to_owned();
        let known = {
            let mut book = self.book();
            let refused = book.refuse_attach > 0;
            book.refuse_attach = book.refuse_attach.saturating_sub(1);
            book.token.take().is_some_and(|known| known == token) && !refused
        };
        if !known {
            connection.write_all(b"QUIESCE/1 ERROR UNAUTHENTICATED CREDENTIALS_INVALID\r\n").await?;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        connection.write_all(b"QUIESCE/1 OK\r\n").await?;
        let mut slot = Some(connection);
        let connector = tower::service_fn(move |_| {
            let connection = slot.take().map(TokioIo::new);
            async move { connection.ok_or(io::Error::from(io::ErrorKind::NotConnected)) }
        });
        let channel = Endpoint::from_static("http://attached").connect_with_connector(connector).await;
        channel.map(ShutdownHookClient::new).map_err(io::Error::other)
    }
}

fn refused(code: Code, reason: &str) -> Status {
    Status::with_error_details(code, "no", ErrorDetails::with_error_info(reason, "quiesce.v1", HashMap::new()))
}

#[tonic::async_trait]
impl AgentGateway for Scheduler {
    async fn register_instance(
        &self,
        request: Request<RegisterInstanceRequest>,
    ) -> Result<Response<v1::RegisterInstanceResponse>, Status> {
        let request = request.into_inner();
        let mut book = self.book();
        let instance = request.instance.clone();
        book.registrations.push(request);
        if book.deleted {
            return Err(refused(Code::FailedPrecondition, "APPLICATION_DELETED"));
        }
        let token = format!("attach-{}", book.registrations.len());
        book.token = Some(token.clone());
        Ok(Response::new(v1::RegisterInstanceResponse {
            instance_token: String::new(),
            instance,
            hook_token: HOOK_TOKEN.to_owned(),
            attach_token: token,
            attach_endpoint: book.attach_endpoint.clone(),
        }))
    }

    async fn deregister_instance(
        &self,
        _: Request<v1::DeregisterInstanceRequest>,
    ) -> Result<Response<v1::DeregisterInstanceResponse>, Status> {
        Err(Status::unimplemented("straw"))
    }

    async fn admit_start(
        &self,
        request: Request<AdmitStartRequest>,
    ) -> Result<Response<v1::AdmitStartResponse>, Status> {
        let mut book = self.book();
        let request = request.into_inner();
        let last = request.last_epoch;
        book.admissions.push(request);
        if !book.permits {
            return Err(refused(Code::FailedPrecondition, "START_NOT_PERMITTED"));
        }
        book.epoch = book.epoch.max(last) + 1;
        Ok(Response::new(v1::AdmitStartResponse { epoch: book.epoch }))
    }

    async fn report_end(&self, request: Request<ReportEndRequest>) -> Result<Response<v1::ReportEndResponse>, Status> {
        self.book().ends.push(request.into_inner());
        Ok(Response::new(v1::ReportEndResponse {}))
    }

    async fn complete_shutdown(
        &self,
        _: Request<v1::CompleteShutdownRequest>,
    ) -> Result<Response<v1::CompleteShutdownResponse>, Status> {
        Err(Status::unimplemented("straw"))
    }

    async fn extend_deadline(
        &self,
        _: Request<v1::ExtendDeadlineRequest>,
    ) -> Result<Response<v1::ExtendDeadlineResponse>, Status> {
        Err(Status::unimplemented("straw"))
    }
}
