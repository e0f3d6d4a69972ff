//! Requests and bounded answers over a connection.

use super::connector::{ConnectError, Connection, HttpsConnector, RequestBody, STREAMS_PER_CONNECTION};
use super::origin::{Origin, OriginError};
use crate::compression::{self, Decompressor, ZSTD};
use crate::pace::{Link, OnLink};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use url::Url;

/// A stream without progress for so long is cancelled.
pub(crate) const STREAM_STALL: Duration = Duration::from_secs(60);
/// How long the head of a stream's answer is waited for while other streams of its connection get on: at the source they
/// may hold what it needs.
const QUEUED: Duration = Duration::from_secs(600);
/// Streams of listings that are open at once.
const LISTINGS: usize = 16;
/// Octets that are progress.
const PROGRESS: usize = 1024;

/// How long a stream may still be waited for. Only waiting counts: a reader that takes its time costs the stream nothing.
#[derive(Debug)]
struct Pace {
    left: Duration,
    octets: usize,
}

impl Pace {
    fn new() -> Self {
        Self {
            left: STREAM_STALL,
            octets: 0,
        }
    }

    /// Octets that came after waiting so long.
    fn took(&mut self, waited: Duration, octets: usize) {
        self.octets += octets;
        if self.octets >= PROGRESS {
            *self = Self::new();
        } else {
            self.left = self.left.saturating_sub(waited);
        }
    }
}

/// Why a request brought no usable answer. Says nothing about whether the server acted on it, unless
/// [`TransportError::Connect`].
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The URL is not one that we talk to.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// No connection; the request was not sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection failed while the request or the answer was under way.
    #[error("{server}: the connection failed: {source}")]
    Broken {
        /// Server as named.
        server: String,
        /// The HTTP library's error.
        #[source]
        source: hyper::Error,
    },
    /// No answer, or no progress of one, in time.
    #[error("{server}: no answer within {seconds} s")]
    Timeout {
        /// Server as named.
        server: String,
        /// The limit.
        seconds: u64,
    },
    /// The answer is longer than anything that it may be.
    #[error("{server}: the answer is longer than {limit} octets")]
    TooLong {
        /// Server as named.
        server: String,
        /// The limit.
        limit: usize,
    },
    /// A redirect where none is followed.
    #[error("{server}: answers with a redirect ({status}), which is not followed")]
    Redirect {
        /// Server as named.
        server: String,
        /// The status.
        status: StatusCode,
    },
    /// The request cannot be written as HTTP.
    #[error("the request cannot be made: {0}")]
    Request(#[source] http::Error),
    /// The answer is not what it should be.
    #[error("{server}: {what}")]
    Unexpected {
        /// Server as named.
        server: String,
        /// What is wrong with it.
        what: String,
    },
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, within the limit asked for.
    pub body: Bytes,
}

/// A request to be made: everything but the connection.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    pub(crate) fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Offers to take a compressed answer.
    pub(crate) fn take_zstd(&mut self) {
        self.headers
            .insert(header::ACCEPT_ENCODING, HeaderValue::from_static(ZSTD));
    }

    fn takes_zstd(&self) -> bool {
        compression::is_offered(&self.headers)
    }

    pub(crate) fn post(url: Url, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        Self {
            method: Method::POST,
            url,
            headers,
            body: body.into(),
        }
    }

    /// The request for one connection: HTTP/2 names the whole URL, HTTP/1.1 path and Host (RFC 9112 §3.2.1).
    fn request(&self, origin: &Origin, http2: bool) -> Result<Request<RequestBody>, TransportError> {
        let path = &self.url[url::Position::BeforePath..url::Position::AfterQuery];
        let uri = if http2 {
            format!("{origin}{path}")
        } else {
            path.to_owned()
        };
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(uri)
            .body(Full::new(self.body.clone()))
            .map_err(TransportError::Request)?;
        *request.headers_mut() = self.headers.clone();
        if !http2 {
            let host = origin.authority();
            let host = host
                .strip_suffix(if origin.tls { ":443" } else { ":80" })
                .unwrap_or(&host);
            let host = HeaderValue::from_str(host).map_err(|error| TransportError::Request(error.into()))?;
            request.headers_mut().insert(header::HOST, host);
        }
        Ok(request)
    }
}

/// Limits of one whole exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// From sending the request to the last octet of the answer.
    pub(crate) time: Duration,
    /// Longest answer, octets.
    pub(crate) octets: usize,
}

/// Makes one request over a connection of its own and reads the whole answer. Redirects are returned, not followed.
pub(crate) async fn once(connector: &HttpsConnector, call: &Call, bounds: Bounds) -> Result<Answer, TransportError> {
    let origin = Origin::of(&call.url)?;
    let server = connector.describe(&origin);
    let work = async {
        let broken = |source| TransportError::Broken {
            server: server.clone(),
            source,
        };
        let response = match connector.connect(&origin, &Arc::default()).await? {
            Connection::Http1(mut sender) => sender
                .send_request(call.request(&origin, false)?)
                .await
                .map_err(broken)?,
            Connection::Http2(mut sender) => sender
                .send_request(call.request(&origin, true)?)
                .await
                .map_err(broken)?,
        };
        read_whole(&server, response, bounds.octets).await
    };
    timeout(bounds.time, work).await.map_err(|_| TransportError::Timeout {
        server: server.clone(),
        seconds: bounds.time.as_secs(),
    })?
}

/// As [`once`], and a redirect is an error.
pub(crate) async fn once_without_redirect(
    connector: &HttpsConnector,
    call: &Call,
    bounds: Bounds,
) -> Result<Answer, TransportError> {
    let answer = once(connector, call, bounds).await?;
    if answer.status.is_redirection() {
        let server = Origin::of(&call.url).map(|origin| connector.describe(&origin))?;
        return Err(TransportError::Redirect {
            server,
            status: answer.status,
        });
    }
    Ok(answer)
}

async fn read_whole(server: &str, response: Response<Incoming>, limit: usize) -> Result<Answer, TransportError> {
    let (parts, mut body) = response.into_parts();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| TransportError::Broken {
            server: server.to_owned(),
            source,
        })?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > limit {
                return Err(TransportError::TooLong {
                    server: server.to_owned(),
                    limit,
                });
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: whole.freeze(),
    })
}

/// Whether an answer is compressed; only where that was offered.
fn is_compressed(server: &str, call: &Call, headers: &HeaderMap) -> Result<bool, TransportError> {
    match headers.get(header::CONTENT_ENCODING) {
        None => Ok(false),
        Some(coding) if call.takes_zstd() && coding.as_bytes().eq_ignore_ascii_case(ZSTD.as_bytes()) => Ok(true),
        Some(coding) => Err(TransportError::Unexpected {
            server: server.to_owned(),
            what: format!("the answer is coded as {coding:?}, which was not asked for"),
        }),
    }
}

fn not_zstd(server: &str, error: &std::io::Error) -> TransportError {
    TransportError::Unexpected {
        server: server.to_owned(),
        what: format!("the answer cannot be decompressed: {error}"),
    }
}

/// One kept HTTP/2 connection to one origin, opened when needed and again when it has broken.
pub(crate) struct Lane {
    connector: HttpsConnector,
    origin: Origin,
    sender: Mutex<Option<http2::SendRequest<RequestBody>>>,
    /// Streams of contents.
    streams: Arc<Semaphore>,
    /// How many of them may be open at once.
    allowed: std::sync::Mutex<usize>,
    /// Other streams, which hold nothing at the source while they are read.
    listings: Arc<Semaphore>,
    progress: Arc<Progress>,
    link: Arc<Link>,
    octets: Arc<AtomicU64>,
}

/// When a stream of a lane got on last.
struct Progress(std::sync::Mutex<Instant>);

impl Progress {
    fn made(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn since(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Lane {
    /// A lane that adds the octets it receives to `octets`: all of the connection's, framing and TLS included.
    pub(crate) fn counted(connector: HttpsConnector, origin: Origin, octets: Arc<AtomicU64>) -> Self {
        let most = STREAMS_PER_CONNECTION as usize;
        Self {
            connector,
            origin,
            sender: Mutex::new(None),
            streams: Arc::new(Semaphore::new(most)),
            allowed: std::sync::Mutex::new(most),
            listings: Arc::new(Semaphore::new(LISTINGS)),
            progress: Arc::new(Progress(std::sync::Mutex::new(Instant::now()))),
            link: Arc::default(),
            octets,
        }
    }

    /// How many streams of contents are open at once from now on: 1 to [`STREAMS_PER_CONNECTION`]. Those that are open stay.
    pub(crate) fn allow_streams(&self, wanted: usize) {
        let wanted = wanted.clamp(1, STREAMS_PER_CONNECTION as usize);
        let mut allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted >= *allowed {
            self.streams.add_permits(wanted - *allowed);
            *allowed = wanted;
        } else {
            *allowed -= self.streams.forget_permits(*allowed - wanted);
        }
    }

    /// Whether the last long stream waited for the link most of its time, so that compressing may help.
    pub(crate) fn is_narrow(&self) -> bool {
        self.link.is_narrow()
    }

    /// Lets go of the connection; the next request opens a new one. Streams that still run on the old one go on.
    pub(crate) async fn renew(&self) {
        *self.sender.lock().await = None;
    }

    /// The server for messages.
    pub(crate) fn server(&self) -> String {
        self.connector.describe(&self.origin)
    }

    async fn sender(&self) -> Result<http2::SendRequest<RequestBody>, TransportError> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let sender = self.connector.connect_http2(&self.origin, &self.octets).await?;
        *kept = Some(sender.clone());
        Ok(sender)
    }

    /// Opens the connection if there is none, so that the next request finds one. What goes wrong, that request will say.
    pub(crate) async fn open_ahead(&self) {
        if let Err(error) = self.sender().await {
            tracing::debug!(%error, "a connection could not be opened ahead");
        }
    }

    /// Sends `call` and waits for the answer's head. A request that a dying connection did not send at all is sent
    /// once more on a new one.
    async fn send(&self, call: &Call, time: Duration) -> Result<Response<Incoming>, TransportError> {
        let work = async {
            let broken = |source| TransportError::Broken {
                server: self.server(),
                source,
            };
            let mut sender = self.sender().await?;
            match sender.try_send_request(call.request(&self.origin, true)?).await {
                Ok(response) => Ok(response),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => self.sender().await?.send_request(unsent).await.map_err(broken),
                    None => Err(broken(error.into_error())),
                },
            }
        };
        timeout(time, work).await.map_err(|_| TransportError::Timeout {
            server: self.server(),
            seconds: time.as_secs(),
        })?
    }

    /// Sends `call` and reads the whole answer.
    pub(crate) async fn whole(&self, call: &Call, bounds: Bounds) -> Result<Answer, TransportError> {
        let work = async {
            let response = self.send(call, bounds.time).await?;
            self.refuse_redirect(response.status())?;
            let server = self.server();
            let compressed = is_compressed(&server, call, response.headers())?;
            let mut answer = read_whole(&server, response, bounds.octets).await?;
            if compressed {
                let limit = bounds.octets;
                let undone = compression::undo_whole(answer.body, limit).map_err(|error| not_zstd(&server, &error))?;
                answer.body = undone.ok_or(TransportError::TooLong { server, limit })?;
            }
            Ok(answer)
        };
        timeout(bounds.time, work).await.map_err(|_| TransportError::Timeout {
            server: self.server(),
            seconds: bounds.time.as_secs(),
        })?
    }

    /// Sends `call`; a good answer's body is streamed, any other is read whole (at most 64 KiB).
    pub(crate) async fn stream(&self, call: &Call, kind: StreamKind) -> Result<Streamed, TransportError> {
        let places = match kind {
            StreamKind::Contents => &self.streams,
            StreamKind::Listing => &self.listings,
        };
        // As long as the streams before it take; each of them ends, or is given up when it gets nowhere.
        let permit = Arc::clone(places).acquire_owned().await;
        let permit = permit.map_err(|_| self.stalled())?;
        let response = self.head(call).await?;
        self.refuse_redirect(response.status())?;
        if response.status().is_success() {
            let (parts, body) = response.into_parts();
            let server = self.server();
            let mut on_link = self.link.begin();
            let mut undo = None;
            if is_compressed(&server, call, &parts.headers)? {
                on_link.compressed = true;
                undo = Some(Decompressor::new().map_err(|error| not_zstd(&server, &error))?);
            }
            return Ok(Streamed::Body {
                headers: parts.headers,
                body: AnswerBody {
                    server,
                    body,
                    pace: Pace::new(),
                    undo,
                    on_link,
                    progress: Arc::clone(&self.progress),
                    _permit: permit,
                },
            });
        }
        let refused = timeout(STREAM_STALL, read_whole(&self.server(), response, 64 * 1024))
            .await
            .map_err(|_| TransportError::Timeout {
                server: self.server(),
                seconds: STREAM_STALL.as_secs(),
            })??;
        Ok(Streamed::Refused(refused))
    }

    /// The head of a stream's answer.
    async fn head(&self, call: &Call) -> Result<Response<Incoming>, TransportError> {
        let begun = Instant::now();
        let mut sent = std::pin::pin!(self.send(call, QUEUED));
        loop {
            match timeout(STREAM_STALL, sent.as_mut()).await {
                Ok(response) => return response,
                Err(_) if self.progress.since() < STREAM_STALL && begun.elapsed() < QUEUED => {}
                Err(_) => return Err(self.stalled()),
            }
        }
    }

    fn stalled(&self) -> TransportError {
        TransportError::Timeout {
            server: self.server(),
            seconds: STREAM_STALL.as_secs(),
        }
    }

    fn refuse_redirect(&self, status: StatusCode) -> Result<(), TransportError> {
        if status.is_redirection() {
            Err(TransportError::Redirect {
                server: self.server(),
                status,
            })
        } else {
            Ok(())
        }
    }
}

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// Items with their octets.
    Contents,
    /// What a folder holds.
    Listing,
}

/// The answer to a request for a stream.
pub(crate) enum Streamed {
    /// The stream begins.
    Body {
        /// The answer's headers.
        headers: HeaderMap,
        /// Its octets.
        body: AnswerBody,
    },
    /// The server refused; the answer is whole.
    Refused(Answer),
}

/// A streamed answer. Dropping it cancels the stream (RST_STREAM) and releases what the server holds for it.
pub(crate) struct AnswerBody {
    server: String,
    body: Incoming,
    pace: Pace,
    undo: Option<Decompressor>,
    on_link: OnLink,
    progress: Arc<Progress>,
    _permit: OwnedSemaphorePermit,
}

impl AnswerBody {
    /// The next octets; none at the end. At most one stream window is buffered ahead of the caller. A stream that brings
    /// less than 1 KiB in 60 s of waiting is given up.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            if let Some(undo) = &mut self.undo
                && let Some(octets) = undo.next().map_err(|error| not_zstd(&self.server, &error))?
            {
                return Ok(Some(octets));
            }
            let data = self.arriving().await?;
            match (data, &mut self.undo) {
                (None, Some(undo)) => {
                    undo.finish().map_err(|error| not_zstd(&self.server, &error))?;
                    return Ok(None);
                }
                (Some(data), Some(undo)) => undo.push(data),
                (data, None) => return Ok(data),
            }
        }
    }

    /// The next octets as they arrive, never none of them; none at the end.
    async fn arriving(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            let asked = Instant::now();
            let frame = timeout(self.pace.left, self.body.frame())
                .await
                .map_err(|_| TransportError::Timeout {
                    server: self.server.clone(),
                    seconds: STREAM_STALL.as_secs(),
                })?;
            match frame {
                None => return Ok(None),
                Some(Err(source)) => {
                    return Err(TransportError::Broken {
                        server: self.server.clone(),
                        source,
                    });
                }
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    let waited = asked.elapsed();
                    self.pace.took(waited, data.len());
                    self.on_link.waited += waited;
                    self.on_link.octets += data.len() as u64;
                    if !data.is_empty() {
                        self.progress.made();
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// As a stream; it ends after the first error.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Bytes, TransportError>> + Send {
        futures_util::stream::try_unfold(self, |mut body| async move {
            Ok(body.next().await?.map(|octets| (octets, body)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_drips_runs_out_of_time() {
        let mut pace = Pace::new();
        for _ in 0..59 {
            pace.took(Duration::from_secs(1), 16);
        }
        assert_eq!(pace.left, Duration::from_secs(1));
        pace.took(Duration::from_secs(1), 16);
        assert_eq!(pace.left, Duration::ZERO);
        let mut pace = Pace::new();
        for _ in 0..1_000 {
            pace.took(Duration::from_secs(59), 512);
            pace.took(Duration::ZERO, 512);
            assert_eq!(pace.left, STREAM_STALL);
        }
    }
}
