//! The listener: accepts, starts TLS, serves HTTP/2 and HTTP/1.1, stops cleanly; everything with a limit.

use crate::pace::Link;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// What one listener takes on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the system's queue.
    pub connections: usize,
    /// Of them, from one address (IPv6: one /64); more are closed at once, so that no stranger takes all.
    pub connections_per_address: usize,
    /// Time for the TLS handshake, and for the headers of a request.
    pub handshake: Duration,
    /// An HTTP/2 connection without requests for so long is closed.
    pub idle: Duration,
    /// Time for running requests after a stop was asked for.
    pub drain: Duration,
}

impl Default for Limits {
    /// 512 connections, 128 from one address, 10 s, 5 min, 10 s.
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_address: 128,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            drain: Duration::from_secs(10),
        }
    }
}

/// Why no listener came about.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// Plain HTTP on an address that others reach.
    #[error(
        "{address} can be reached from other machines: without a certificate only a loopback address may be listened on"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
}

/// A bound listener, not serving yet.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    limits: Limits,
}

impl Listener {
    /// Binds `address`; with TLS settings HTTPS is served, without them plain HTTP, on loopback only.
    ///
    /// # Errors
    /// When the address cannot be bound, or has no TLS and is not loopback.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        limits: Limits,
    ) -> Result<Self, ListenError> {
        if tls.is_none() && !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback { address });
        }
        let bind = |source| ListenError::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(bind)?;
        let address = socket.local_addr().map_err(bind)?;
        Ok(Self {
            socket,
            address,
            tls: tls.map(TlsAcceptor::from),
            limits,
        })
    }

    /// The address bound, with the port that the system chose where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` until `shutdown`; then takes no more connections, lets running requests end for
    /// [`Limits::drain`], and returns.
    pub async fn serve(self, router: Router, shutdown: CancellationToken) {
        let (connections, stop) = (TaskTracker::new(), CancellationToken::new());
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let cut = CancellationToken::new();
        let guests = Guests::default();
        loop {
            let next = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, self.socket.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                next = next => next,
            };
            let Ok(slot) = slot else { break };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely; connections that end give some back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(guest) = guests.enter(peer.ip(), self.limits.connections_per_address) else {
                tracing::debug!(%peer, "too many connections from one address");
                continue;
            };
            let one = OneConnection {
                peer,
                _guest: guest,
                tls: self.tls.clone(),
                limits: self.limits,
                router: router.clone(),
                stop: stop.clone(),
                _slot: slot,
            };
            let cut = cut.clone();
            connections.spawn(async move {
                tokio::select! {
                    () = one.serve(socket) => {}
                    () = cut.cancelled() => {}
                }
            });
        }
        drop(self.socket);
        stop.cancel();
        connections.close();
        if timeout(self.limits.drain, connections.wait()).await.is_err() {
            tracing::info!("requests still running at the end of the time for stopping are cut");
        }
        cut.cancel();
    }
}

/// Who is connected how often.
#[derive(Clone, Default)]
struct Guests(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place; given back when it is dropped.
struct Guest {
    guests: Guests,
    who: IpAddr,
}

/// What counts as one address: of IPv6 the network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Guests {
    fn enter(&self, address: IpAddr, most: usize) -> Option<Guest> {
        let who = network(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(who).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Guest {
            guests: self.clone(),
            who,
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.who);
            }
        }
    }
}

struct OneConnection {
    peer: SocketAddr,
    _guest: Guest,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    router: Router,
    /// Asks for a graceful end.
    stop: CancellationToken,
    _slot: OwnedSemaphorePermit,
}

impl OneConnection {
    async fn serve(self, socket: TcpStream) {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
        match self.tls.clone() {
            None => self.serve_http(socket, false).await,
            Some(tls) => match timeout(self.limits.handshake, tls.accept(socket)).await {
                Ok(Ok(stream)) => {
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    self.serve_http(stream, http2).await;
                }
                Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(peer = %self.peer, "TLS handshake took too long"),
            },
        }
    }

    async fn serve_http(self, socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, http2: bool) {
        // What ALPN agreed on; guessing from the first octets would wait for them without a limit.
        let builder = auto::Builder::new(TokioExecutor::new());
        let mut builder = if http2 {
            builder.http2_only()
        } else {
            builder.http1_only()
        };
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.handshake)
            .max_headers(64)
            .max_buf_size(64 * 1024);
        builder
            .http2()
            .timer(TokioTimer::new())
            // Requests are small and read under their own limits; the windows of moving.md belong to the answers
            // and are the client's to grant.
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(4 * 1024 * 1024)
            .max_concurrent_streams(64)
            .max_header_list_size(32 * 1024)
            .max_send_buf_size(1024 * 1024)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        let (peer, link, busy) = (ConnectInfo(self.peer), Arc::new(Link::default()), Busy::default());
        let (router, counted) = (self.router, busy.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(Arc::clone(&link));
            let (router, at_work) = (router.clone(), counted.begin());
            async move {
                let response = router.oneshot(request.map(Body::new)).await?;
                Ok::<_, Infallible>(response.map(|body| Answer {
                    body,
                    _at_work: at_work,
                }))
            }
        });
        let connection = builder.serve_connection(TokioIo::new(socket), service).into_owned();
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = busy.idle_for(self.limits.idle), if http2 => None,
            () = self.stop.cancelled() => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %self.peer, %error, "a connection ended");
        }
    }
}

/// Requests at work on one connection.
#[derive(Clone)]
struct Busy(watch::Sender<usize>);

impl Default for Busy {
    fn default() -> Self {
        Self(watch::channel(0).0)
    }
}

impl Busy {
    fn begin(&self) -> AtWork {
        self.0.send_modify(|running| *running += 1);
        AtWork(self.clone())
    }

    /// Returns when nothing was at work for so long.
    async fn idle_for(&self, time: Duration) {
        let mut running = self.0.subscribe();
        loop {
            let idle = *running.borrow_and_update() == 0;
            let change = running.changed();
            if idle {
                if timeout(time, change).await.is_err() {
                    return;
                }
            } else if change.await.is_err() {
                return;
            }
        }
    }
}

/// One request at work, until the last octet of its answer.
struct AtWork(Busy);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.0.send_modify(|running| *running -= 1);
    }
}

/// The body of an answer, with its request.
struct Answer {
    body: Body,
    _at_work: AtWork,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_without_requests() {
        let busy = Busy::default();
        let (long, begun) = (Duration::from_secs(1_000), tokio::time::Instant::now());
        let request = busy.begin();
        let other = busy.clone();
        tokio::spawn(async move {
            tokio::time::sleep(long).await;
            drop(request);
            tokio::time::sleep(long / 2).await;
            drop(other.begin());
        });
        busy.idle_for(long).await;
        assert_eq!(begun.elapsed().as_secs(), 2_500);
    }

    #[test]
    fn one_address_does_not_take_all_places() {
        let guests = Guests::default();
        let own: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let first = guests.enter(own, 2);
        let second = guests.enter(neighbour, 2);
        assert!(first.is_some() && second.is_some());
        assert!(guests.enter(own, 2).is_none(), "one /64 is one address");
        assert!(guests.enter("::ffff:192.0.2.1".parse().unwrap(), 1).is_some());
        drop(first);
        assert!(guests.enter(own, 2).is_some());
        drop(second);
        assert!(guests.0.lock().unwrap().is_empty());
    }
}
