//! The application's S3 client: get, put if absent, put if unchanged. Nothing unconditional, so nothing is overwritten
//! by accident.
//!
//! Signing is `rusty-s3` (sans-IO, kept up to date, three crates more than the S3 server needs anyway); the requests
//! go out through `hyper-util`, which the project has already. `object_store` was the other candidate: its feature
//! `aws` brings reqwest with a second rustls provider (aws-lc-rs), and without reqwest it still needs an HTTP connector
//! of our own. Plain HTTP only: this client is for a bucket on loopback.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rusty_s3::{Credentials, S3Action, UrlStyle};

/// Longest time for one request, body included; a loopback bucket answers in milliseconds.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// Largest object read: more than a full ledger (200,000 entries of 320 bytes, every character escaped).
const OBJECT_BYTES_MAX: usize = 128 * 1024 * 1024;

/// An error answer is a short XML document; what is longer is cut off.
const ERROR_BYTES_MAX: usize = 16 * 1024;

/// How long a signature holds: longer than the request may take, not much longer.
const SIGNATURE_LIFETIME: Duration = Duration::from_secs(60);

/// Where the bucket is and how to get in. `Debug` shows the access key, never the secret.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// URL of the S3 endpoint, `http://` only; the bucket is addressed by path.
    pub endpoint: String,
    /// Name of the bucket, which must exist.
    pub bucket: String,
    /// Region, as the signature needs one.
    pub region: String,
    /// Access key and secret.
    pub credentials: Credentials,
}

/// An object and the tag that names this very content.
#[derive(Clone, Debug)]
pub struct Object {
    /// The content.
    pub body: Bytes,
    /// Its tag, for [`Bucket::put_if_match`].
    pub etag: ETag,
}

/// The entity tag of one version of an object, opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(HeaderValue);

/// The bucket cannot be used with these options.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// Not a URL, or not one with `http` and a host.
    #[error("{endpoint:?} is not an http:// URL of an S3 endpoint")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
}

/// A request that got no usable answer. For a put this does not tell whether it took effect.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The signed request was not a valid one.
    #[error("cannot build the request for {key}")]
    Build {
        /// The object.
        key: String,
        /// What was wrong with it.
        #[source]
        source: http::Error,
    },
    /// No connection, or it broke before the answer.
    #[error("the bucket cannot be reached for {key}")]
    Send {
        /// The object.
        key: String,
        /// What happened.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// The answer broke off or was larger than allowed.
    #[error("the bucket's answer for {key} broke off or is too large: {reason}")]
    Body {
        /// The object.
        key: String,
        /// What happened.
        reason: String,
    },
    /// No complete answer in time.
    #[error("the bucket did not answer for {key} within {} s", REQUEST_TIME_MAX.as_secs())]
    Timeout {
        /// The object.
        key: String,
    },
    /// The bucket refused: wrong credentials, no such bucket, a fault of its own.
    #[error("the bucket refused {key}: {status} {code}")]
    Refused {
        /// The object.
        key: String,
        /// The HTTP status.
        status: StatusCode,
        /// The S3 error code, as far as there is one.
        code: String,
    },
    /// A success without an entity tag, or a tag that cannot be sent back.
    #[error("the bucket gave no entity tag for {key}")]
    NoTag {
        /// The object.
        key: String,
    },
}

/// Why a conditional put did not (or perhaps did) take effect.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The condition did not hold; the object is untouched.
    #[error("{key} is not what the writer thought it was")]
    Precondition {
        /// The object.
        key: String,
    },
    /// Anything else; the put may have taken effect.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// A client for one bucket; cheap to clone.
#[derive(Clone, Debug)]
pub struct Bucket {
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Bucket {
    /// A client for the bucket; connects when it is first used.
    pub fn new(options: &BucketOptions) -> Result<Self, BucketError> {
        let wrong = || BucketError::Endpoint { endpoint: options.endpoint.clone() };
        if !options.endpoint.starts_with("http://") {
            return Err(wrong());
        }
        // The parser's own words add nothing to the URL itself.
        let endpoint = options.endpoint.parse().map_err(|_| wrong())?;
        let bucket = rusty_s3::Bucket::new(endpoint, UrlStyle::Path, options.bucket.clone(), options.region.clone())
            .map_err(|_| wrong())?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { bucket, credentials: options.credentials.clone(), client })
    }

    /// The object, or `None` if there is none.
    pub async fn get(&self, key: &str) -> Result<Option<Object>, RequestError> {
        let url = self.bucket.get_object(Some(&self.credentials), key).sign(SIGNATURE_LIFETIME);
        let request = Request::builder().method(Method::GET).uri(url.as_str()).body(Full::default());
        let answer = self.exchange(key, request).await?;
        if answer.status() == StatusCode::NOT_FOUND && error_code(answer.body()) == "NoSuchKey" {
            return Ok(None);
        }
        let (etag, body) = accepted(key, answer)?;
        Ok(Some(Object { body, etag }))
    }

    /// Creates the object, unless it exists.
    pub async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<ETag, PutError> {
        self.put(key, body, header::IF_NONE_MATCH, HeaderValue::from_static("*")).await
    }

    /// Replaces the object, if it still is the version that `etag` names.
    pub async fn put_if_match(&self, key: &str, body: Bytes, etag: &ETag) -> Result<ETag, PutError> {
        self.put(key, body, header::IF_MATCH, etag.0.clone()).await
    }

    async fn put(
        &self,
        key: &str,
        body: Bytes,
        condition: header::HeaderName,
        value: HeaderValue,
    ) -> Result<ETag, PutError> {
        let no_tag = |_| RequestError::NoTag { key: key.to_owned() };
        let mut action = self.bucket.put_object(Some(&self.credentials), key);
        // The condition is part of what is signed: nothing on the way can take it off.
        action.headers_mut().insert(condition.as_str().to_owned(), value.to_str().map_err(no_tag)?.to_owned());
        let url = action.sign(SIGNATURE_LIFETIME);
        let request =
            Request::builder().method(Method::PUT).uri(url.as_str()).header(condition, value).body(Full::new(body));
        let answer = self.exchange(key, request).await?;
        if answer.status() == StatusCode::PRECONDITION_FAILED {
            return Err(PutError::Precondition { key: key.to_owned() });
        }
        Ok(accepted(key, answer)?.0)
    }

    /// Sends one request and collects its answer, in bounded time and size.
    async fn exchange(
        &self,
        key: &str,
        request: Result<Request<Full<Bytes>>, http::Error>,
    ) -> Result<Response<Bytes>, RequestError> {
        let key = key.to_owned();
        let request = match request {
            Ok(request) => request,
            Err(source) => return Err(RequestError::Build { key, source }),
        };
        let exchange = async {
            let answer = match self.client.request(request).await {
                Ok(answer) => answer,
                Err(source) => return Err(RequestError::Send { key: key.clone(), source }),
            };
            collect(&key, answer).await
        };
        match tokio::time::timeout(REQUEST_TIME_MAX, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(RequestError::Timeout { key }),
        }
    }
}

async fn collect(key: &str, answer: Response<Incoming>) -> Result<Response<Bytes>, RequestError> {
    let (parts, body) = answer.into_parts();
    let limit = if parts.status.is_success() { OBJECT_BYTES_MAX } else { ERROR_BYTES_MAX };
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(Response::from_parts(parts, body.to_bytes())),
        Err(error) => Err(RequestError::Body { key: key.to_owned(), reason: error.to_string() }),
    }
}

fn accepted(key: &str, answer: Response<Bytes>) -> Result<(ETag, Bytes), RequestError> {
    let key = key.to_owned();
    if !answer.status().is_success() {
        return Err(RequestError::Refused { key, status: answer.status(), code: error_code(answer.body()) });
    }
    match answer.headers().get(header::ETAG) {
        Some(etag) => Ok((ETag(etag.clone()), answer.into_body())),
        None => Err(RequestError::NoTag { key }),
    }
}

/// The text of `<Code>` in an S3 error document, or nothing. One element does not need an XML parser.
fn error_code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    code.unwrap_or_default().to_owned()
}
