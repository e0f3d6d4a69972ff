//! Opens connections: name look-up, override, address rules, TLS, HTTP.

use super::origin::{Origin, is_public};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Receive window of one stream, octets (the design's 8 MiB).
pub const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
/// Streams that one connection carries at once; its window is the sum of theirs.
pub const STREAMS_PER_CONNECTION: u32 = 8;
/// Largest frame taken, octets: the pieces that streams are sent in fit into one.
const FRAME: u32 = 256 * 1024;

/// How connections to others are made; set by the operator, never by a tenant.
#[derive(Clone)]
pub struct ConnectorSettings {
    /// `host:port` as named → where the socket goes instead. Name, certificate and origin checks stay those of the name.
    pub overrides: BTreeMap<String, SocketAddr>,
    /// TLS settings with the trusted roots, from [`crate::tls::client_config`].
    pub tls: Arc<rustls::ClientConfig>,
    /// Whether names may lead to private or loopback addresses. Overrides and own origins always may.
    pub allow_private_addresses: bool,
    /// This deployment's own origins, `host:port`.
    pub own_origins: Vec<String>,
    /// Limit for name look-up, connecting and the TLS handshake, each.
    pub connect_timeout: Duration,
}

impl ConnectorSettings {
    /// Settings with a limit of 10 s, without overrides; private addresses refused.
    #[must_use]
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        Self {
            overrides: BTreeMap::new(),
            tls,
            allow_private_addresses: false,
            own_origins: Vec::new(),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// Why no connection came about. The texts name the server, and the override where one applies.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("{server}: the name cannot be looked up: {source}")]
    Resolve {
        /// Server as named.
        server: String,
        /// The resolver's error.
        #[source]
        source: io::Error,
    },
    /// The name leads only to addresses that are not allowed.
    #[error("{server}: leads only to private or loopback addresses, which this server does not connect to")]
    PrivateAddress {
        /// Server as named.
        server: String,
    },
    /// No address answered.
    #[error("{server}: cannot be reached: {source}")]
    Unreachable {
        /// Server as named, with the override where one applies.
        server: String,
        /// The last address's error.
        #[source]
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("{server}: no answer within {seconds} s while {doing}")]
    Timeout {
        /// Server as named, with the override where one applies.
        server: String,
        /// What was being done.
        doing: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// TLS failed; most often the certificate is not trusted or not for this name.
    #[error("{server}: TLS failed: {source}")]
    Tls {
        /// Server as named, with the override where one applies.
        server: String,
        /// The TLS library's error.
        #[source]
        source: io::Error,
    },
    /// HTTP could not begin.
    #[error("{server}: HTTP failed: {source}")]
    Http {
        /// Server as named, with the override where one applies.
        server: String,
        /// The HTTP library's error.
        #[source]
        source: hyper::Error,
    },
    /// The server does not offer HTTP/2, which the MRS proxy needs.
    #[error("{server}: does not offer HTTP/2")]
    NoHttp2 {
        /// Server as named, with the override where one applies.
        server: String,
    },
}

/// What a request's body is: whole, in memory.
pub(crate) type RequestBody = Full<Bytes>;

/// An open connection, by the protocol that both sides agreed on.
pub(crate) enum Connection {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// Opens HTTPS connections by the operator's rules. Cheap to clone.
#[derive(Clone)]
pub struct HttpsConnector {
    settings: Arc<ConnectorSettings>,
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl HttpsConnector {
    /// A connector with these settings.
    #[must_use]
    pub fn new(mut settings: ConnectorSettings) -> Self {
        settings.overrides = settings
            .overrides
            .into_iter()
            .map(|(name, to)| (name.to_ascii_lowercase(), to))
            .collect();
        for name in &mut settings.own_origins {
            name.make_ascii_lowercase();
        }
        Self {
            settings: Arc::new(settings),
        }
    }

    /// `origin` for messages, with the override that applies.
    #[must_use]
    pub fn describe(&self, origin: &Origin) -> String {
        match self.settings.overrides.get(&origin.authority()) {
            Some(address) => format!("{origin} (connection override: {address})"),
            None => origin.to_string(),
        }
    }

    async fn limited<T>(
        &self,
        origin: &Origin,
        doing: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, ConnectError> {
        timeout(self.settings.connect_timeout, work)
            .await
            .map_err(|_| ConnectError::Timeout {
                server: self.describe(origin),
                doing,
                seconds: self.settings.connect_timeout.as_secs(),
            })
    }

    /// The addresses that the socket may go to. The addresses checked are the ones dialled, so that a second answer
    /// of the name server cannot slip another one in.
    async fn addresses(&self, origin: &Origin) -> Result<Vec<SocketAddr>, ConnectError> {
        let authority = origin.authority();
        if let Some(address) = self.settings.overrides.get(&authority) {
            return Ok(vec![*address]);
        }
        let looked_up = self
            .limited(
                origin,
                "looking up the name",
                tokio::net::lookup_host((origin.host.as_str(), origin.port)),
            )
            .await?
            .map_err(|source| ConnectError::Resolve {
                server: origin.to_string(),
                source,
            })?;
        // Plain HTTP exists for this machine's own loopback alone, which its user named himself.
        let any =
            !origin.tls || self.settings.allow_private_addresses || self.settings.own_origins.contains(&authority);
        let allowed: Vec<SocketAddr> = looked_up
            .filter(|address| any || is_public(address.ip()))
            .filter(|address| origin.tls || address.ip().is_loopback())
            .take(8)
            .collect();
        if allowed.is_empty() {
            return Err(ConnectError::PrivateAddress {
                server: origin.to_string(),
            });
        }
        Ok(allowed)
    }

    async fn dial(&self, origin: &Origin) -> Result<TcpStream, ConnectError> {
        let mut last = None;
        for address in self.addresses(origin).await? {
            match self.limited(origin, "connecting", TcpStream::connect(address)).await {
                Ok(Ok(socket)) => {
                    // Requests are small and complete; waiting to fill a packet only costs time.
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY cannot be set");
                    }
                    return Ok(socket);
                }
                Ok(Err(source)) => {
                    last = Some(ConnectError::Unreachable {
                        server: self.describe(origin),
                        source,
                    })
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ConnectError::PrivateAddress {
            server: origin.to_string(),
        }))
    }

    /// Opens a connection to `origin`; the octets that arrive on it are added to `octets`.
    pub(crate) async fn connect(&self, origin: &Origin, octets: &Arc<AtomicU64>) -> Result<Connection, ConnectError> {
        let socket = Counted {
            socket: self.dial(origin).await?,
            octets: Arc::clone(octets),
        };
        if !origin.tls {
            return self.begin_http1(origin, socket).await;
        }
        let name = ServerName::try_from(origin.host.clone()).map_err(|error| ConnectError::Tls {
            server: self.describe(origin),
            source: io::Error::new(io::ErrorKind::InvalidInput, error),
        })?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.settings.tls));
        let stream = self
            .limited(origin, "starting TLS", connector.connect(name, socket))
            .await?
            .map_err(|source| ConnectError::Tls {
                server: self.describe(origin),
                source,
            })?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.begin_http2(origin, stream).await
        } else {
            self.begin_http1(origin, stream).await
        }
    }

    async fn begin_http1(&self, origin: &Origin, socket: impl Socket + 'static) -> Result<Connection, ConnectError> {
        let (sender, connection) = self
            .limited(
                origin,
                "starting HTTP/1.1",
                http1::Builder::new()
                    .max_buf_size(64 * 1024)
                    .handshake(TokioIo::new(socket)),
            )
            .await?
            .map_err(|source| ConnectError::Http {
                server: self.describe(origin),
                source,
            })?;
        drive(connection);
        Ok(Connection::Http1(sender))
    }

    async fn begin_http2(&self, origin: &Origin, socket: impl Socket + 'static) -> Result<Connection, ConnectError> {
        let (sender, connection) = self
            .limited(
                origin,
                "starting HTTP/2",
                http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(STREAM_WINDOW * STREAMS_PER_CONNECTION)
                    .max_frame_size(FRAME)
                    .max_header_list_size(32 * 1024)
                    // A peer that vanished without a word is noticed within 40 s.
                    .keep_alive_interval(Duration::from_secs(20))
                    .keep_alive_timeout(Duration::from_secs(20))
                    .keep_alive_while_idle(true)
                    .handshake(TokioIo::new(socket)),
            )
            .await?
            .map_err(|source| ConnectError::Http {
                server: self.describe(origin),
                source,
            })?;
        drive(connection);
        Ok(Connection::Http2(sender))
    }

    /// Opens a connection that must speak HTTP/2.
    pub(crate) async fn connect_http2(
        &self,
        origin: &Origin,
        octets: &Arc<AtomicU64>,
    ) -> Result<http2::SendRequest<RequestBody>, ConnectError> {
        match self.connect(origin, octets).await? {
            Connection::Http2(sender) => Ok(sender),
            Connection::Http1(_) => Err(ConnectError::NoHttp2 {
                server: self.describe(origin),
            }),
        }
    }
}

/// A socket that counts what arrives.
struct Counted {
    socket: TcpStream,
    octets: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.socket).poll_read(context, buffer);
        self.octets
            .fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

/// Runs a connection until its sender and every body on it is gone; what ends it also ends the requests on it, which report it.
fn drive(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an outgoing connection ended");
        }
    });
}
