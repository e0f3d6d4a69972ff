//! Someone on the line who holds a server's own certificate: sees every request, and holds, answers, repeats or drops it.

use crate::deployment::Deployment;
use crate::https::client_config;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A request as it passed.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body, whole.
    pub body: Vec<u8>,
}

/// An answer as the server gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The request's path.
    pub path: String,
    /// The request's body as JSON.
    pub asked: Value,
    /// The status.
    pub status: u16,
    /// The body as JSON; null if it is none.
    pub body: Value,
    /// When the request came, and when the server had answered it.
    pub time: (Instant, Instant),
}

impl Answered {
    /// Its verb of the MRS proxy; empty if it is none.
    pub fn verb(&self) -> &str {
        let path = self.path.strip_prefix("/mrs/").unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }
}

impl Seen {
    /// A header's value, empty if it is not there.
    pub fn header(&self, name: &str) -> String {
        self.headers
            .iter()
            .find(|(one, _)| one == name)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    }

    /// Whether it is this verb of the MRS proxy.
    pub fn is_verb(&self, verb: &str) -> bool {
        self.path.starts_with("/mrs/") && self.path.ends_with(&format!("/{verb}"))
    }

    /// Whether it asks for a token.
    pub fn asks_token(&self) -> bool {
        self.path.ends_with("/oauth2/v2.0/token")
    }

    /// A field of its form.
    pub fn field(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        text.split('&').find_map(|pair| {
            pair.split_once('=')
                .filter(|(one, _)| *one == name)
                .map(|(_, value)| crate::https::from_percent(value))
        })
    }

    /// Its body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// A gate that requests or answers wait at.
#[derive(Clone)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
    came: Arc<AtomicUsize>,
}

impl Gate {
    /// A closed one.
    pub fn closed() -> Self {
        Self {
            open: Arc::new(watch::channel(false).0),
            came: Arc::default(),
        }
    }

    /// Lets everything pass, now and later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Whether anyone has come to it.
    pub fn someone_waits(&self) -> bool {
        self.came.load(Ordering::SeqCst) > 0
    }

    async fn pass(&self) {
        self.came.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.subscribe();
        // The sender lives in `self`, so waiting ends by the gate's opening alone.
        let _ = open.wait_for(|open| *open).await;
    }
}

/// What becomes of a request.
#[derive(Clone)]
pub enum Action {
    /// It goes on to the server.
    Forward,
    /// It goes on once the gate opens.
    Hold(Gate),
    /// It goes on after this time, as over a distance.
    Late(Duration),
    /// It goes on at once, and its answer once the gate opens.
    HoldAnswer(Gate),
    /// It goes on, and its answer is lost.
    LoseAnswer,
    /// It never arrives; this is the answer.
    Answer(u16, Value),
    /// It never arrives; this text is the answer.
    Text(String),
    /// It never arrives; the client is led elsewhere.
    Redirect(String),
}

type Rule = Box<dyn FnMut(&Seen) -> Action + Send>;

/// The line. It ends with the test.
pub struct Interceptor {
    address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

struct Shared {
    rule: Mutex<Rule>,
    seen: Mutex<Vec<Seen>>,
    answered: Mutex<Vec<Answered>>,
    acceptor: TlsAcceptor,
    /// The server behind; none for a server that is all our own.
    server: Option<(TlsConnector, SocketAddr)>,
}

impl Interceptor {
    /// A line to a deployment, under that deployment's own certificate.
    pub fn before(deployment: &Deployment) -> Self {
        let connector = TlsConnector::from(Arc::new(client_config(&deployment.authority())));
        Self::start(&deployment.path("tls"), Some((connector, deployment.address())))
    }

    /// A server of our own with the certificate of this folder, with nothing behind it.
    pub fn alone(tls: &Path) -> Self {
        let interceptor = Self::start(tls, None);
        interceptor.rule(|_| Action::Answer(404, Value::Null));
        interceptor
    }

    fn start(tls: &Path, server: Option<(TlsConnector, SocketAddr)>) -> Self {
        let chain: Vec<_> = CertificateDer::pem_file_iter(tls.join("leaf.pem"))
            .expect("the certificate is there")
            .map(|one| one.expect("it is PEM"))
            .collect();
        let key = PrivateKeyDer::from_pem_file(tls.join("leaf.key")).expect("the key is there");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3 are there")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("key and certificate fit");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared {
            rule: Mutex::new(Box::new(|_| Action::Forward)),
            seen: Mutex::default(),
            answered: Mutex::default(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            server,
        });
        let accepting = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(connection(Arc::clone(&accepting), socket));
            }
        });
        Self {
            address,
            shared,
            _runtime: runtime,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Decides by this from now on.
    pub fn rule(&self, rule: impl FnMut(&Seen) -> Action + Send + 'static) {
        *self.shared.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }

    /// Everything passes.
    pub fn forward_all(&self) {
        self.rule(|_| Action::Forward);
    }

    /// Every answer of the server to this verb so far, also those that were held or lost.
    pub fn answers(&self, verb: &str) -> Vec<Answered> {
        let answered = self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered
            .iter()
            .filter(|one| one.path.ends_with(&format!("/{verb}")))
            .cloned()
            .collect()
    }

    /// Every answer of the server so far, in the order in which they came.
    pub fn all_answers(&self) -> Vec<Answered> {
        let answered = self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.clone()
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn connection(shared: Arc<Shared>, socket: TcpStream) {
    let Ok(stream) = shared.acceptor.accept(socket).await else {
        return;
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move { answer(&shared, request).await }
    });
    // A client that goes away ends its connection; there is nothing to be said about it.
    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let lost = |error: &dyn std::fmt::Display| std::io::Error::other(error.to_string());
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|error| lost(&error))?.to_bytes();
    let arrived = Instant::now();
    let headers = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned()));
    let path = parts
        .uri
        .path_and_query()
        .map_or_else(|| "/".to_owned(), ToString::to_string);
    let seen = Seen {
        method: parts.method.to_string(),
        path,
        headers: headers.collect(),
        body: body.to_vec(),
    };
    shared
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(seen.clone());
    let action = (shared.rule.lock().unwrap_or_else(PoisonError::into_inner))(&seen);
    match action {
        Action::Forward => forward(shared, &seen, arrived).await,
        Action::Hold(gate) => {
            gate.pass().await;
            forward(shared, &seen, arrived).await
        }
        Action::Late(time) => {
            tokio::time::sleep(time).await;
            forward(shared, &seen, arrived).await
        }
        Action::HoldAnswer(gate) => {
            let answer = forward(shared, &seen, arrived).await;
            gate.pass().await;
            answer
        }
        Action::LoseAnswer => {
            forward(shared, &seen, arrived).await?;
            Err(std::io::Error::other("the answer is lost"))
        }
        Action::Answer(status, body) => Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| lost(&error)),
        Action::Text(body) => Response::builder()
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| lost(&error)),
        Action::Redirect(to) => Response::builder()
            .status(302)
            .header(header::LOCATION, to)
            .body(Full::default())
            .map_err(|error| lost(&error)),
    }
}

async fn forward(shared: &Shared, seen: &Seen, arrived: Instant) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let lost = |error: &dyn std::fmt::Display| std::io::Error::other(error.to_string());
    let (connector, address) = shared
        .server
        .as_ref()
        .ok_or_else(|| std::io::Error::other("there is no server behind"))?;
    let name = ServerName::try_from("localhost").map_err(|error| lost(&error))?;
    let stream = connector.connect(name, TcpStream::connect(address).await?).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| lost(&error))?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(seen.method.as_str())
        .uri(&seen.path)
        .header(header::HOST, format!("localhost:{}", address.port()));
    for (name, value) in &seen.headers {
        if !["host", "content-length", "connection", "transfer-encoding"].contains(&name.as_str()) {
            request = request.header(name, value);
        }
    }
    let request = request
        .body(Full::new(Bytes::from(seen.body.clone())))
        .map_err(|error| lost(&error))?;
    let (mut parts, body) = sender
        .send_request(request)
        .await
        .map_err(|error| lost(&error))?
        .into_parts();
    let body = body.collect().await.map_err(|error| lost(&error))?.to_bytes();
    let answered = Answered {
        path: seen.path.clone(),
        asked: seen.json(),
        status: parts.status.as_u16(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        time: (arrived, Instant::now()),
    };
    shared
        .answered
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(answered);
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    parts.version = hyper::Version::default();
    Ok(Response::from_parts(parts, Full::new(body)))
}
