//! The listener, and what all its sessions share.

use crate::{
    asking::Asking, handed_over::HandedOver, link::ClientTls, next_hop::NextHops, relay::Caller, session,
    settings::RoutingSettings,
};
use rehome_platform::Platforms;
use rehome_store::Store;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::rustls;

/// How long sessions in the middle of a message may go on when the service stops.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Mail flow cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// TLS as client cannot be set up.
    #[error("TLS for next hops cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Mail flow of one deployment. Cheap to clone.
#[derive(Clone)]
pub struct Routing {
    pub(crate) shared: Arc<Shared>,
}

/// What every session and probe uses.
pub(crate) struct Shared {
    pub(crate) settings: RoutingSettings,
    pub(crate) store: Store,
    pub(crate) platforms: Platforms,
    pub(crate) next_hops: NextHops,
    pub(crate) caller: Caller,
    pub(crate) asking: Asking,
    pub(crate) handed_over: HandedOver,
    /// Random name of this process, told in every greeting, by which it knows itself as a next hop.
    pub(crate) instance: String,
}

impl Routing {
    /// Mail flow over this state and these platforms. Nothing runs until [`Routing::serve`].
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(settings: RoutingSettings, store: Store, platforms: Platforms) -> Result<Self, RoutingError> {
        let tls = ClientTls::new(Arc::clone(&settings.roots)).map_err(RoutingError::Tls)?;
        let shared = Shared {
            next_hops: NextHops::new(settings.routes.clone()),
            caller: Caller {
                server_name: settings.server_name.clone(),
                tls,
                timeouts: settings.timeouts,
            },
            asking: Asking::default(),
            handed_over: HandedOver::default(),
            instance: format!("rehome-{}", uuid::Uuid::new_v4().simple()),
            settings,
            store,
            platforms,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Serves SMTP on `listener` until `shutdown` is done. Then idle sessions end at once, and those in the middle of a
    /// message get 20 seconds.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        let (stop, stopped) = watch::channel(false);
        let permits = Arc::new(Semaphore::new(self.shared.settings.max_connections));
        let mut sessions = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                _ = sessions.join_next(), if !sessions.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Usually too many open files; some will be closed soon.
                    tracing::warn!(%error, "an SMTP connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match Arc::clone(&permits).try_acquire_owned() {
                Ok(permit) => {
                    let (shared, stopped) = (Arc::clone(&self.shared), stopped.clone());
                    sessions.spawn(async move {
                        session::run(shared, stream, peer.ip(), stopped).await;
                        drop(permit);
                    });
                }
                Err(_) => {
                    sessions.spawn(turn_away(stream));
                }
            }
        }
        drop(listener);
        // The receivers see this also if every session is busy.
        let _ = stop.send(true);
        let ended = async { while sessions.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, ended).await.is_err() {
            tracing::warn!(
                sessions = sessions.len(),
                "SMTP sessions were cut at stop; their senders repeat"
            );
            sessions.shutdown().await;
        }
    }
}

async fn turn_away(mut stream: TcpStream) {
    let said = stream.write_all(b"421 4.3.2 Too many connections, try again later\r\n");
    let _ = tokio::time::timeout(Duration::from_secs(5), said).await;
}
