//! `rehome serve`: builds the rooms from the configuration, runs them, stops them.

use crate::{config::Config, failure::Failure, files, imap_endpoints, operator, platforms};
use async_trait::async_trait;
use jiff::SignedDuration;
use rehome_cmdlets::Context;
use rehome_console::{Console, DescriptionFetcher};
use rehome_domain::{cutover::LockLimits, id::CorrelationId};
use rehome_identity::Identity;
use rehome_migrate::{
    Clock,
    source::{Source, SourceSettings},
    target::{Target, TargetSettings},
};
use rehome_platform::Platforms;
use rehome_remote::{
    client::{ConnectorSettings, Fetcher, HttpsConnector, PartnerClient},
    server::{ContextMaker, Limits, Listener, Offer, Services, router},
    tls,
};
use rehome_routing::{Route, Routing, RoutingSettings, Timeouts};
use rehome_store::Store;
use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    future::Future,
    io::{Read, Seek, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How long everything together may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How long requests that are running at a stop may take.
const DRAIN: Duration = Duration::from_secs(6);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start.
pub(crate) async fn serve(config: &Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::of(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::of(&error))?;
    files::private_folder(&config.data_folder).map_err(|error| Failure::while_doing("data_folder", &error))?;
    let _lock = DataLock::take(&config.data_folder)?;
    let store = operator::open_store(config).await?;
    let rooms = Rooms::build(config, store.clone()).await?;
    let stop = CancellationToken::new();
    let source = rooms.source.clone();
    let mut running = rooms.start(config, &stop).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = running.join_next() => {
            // Rooms run until they are told to stop.
            tracing::error!(error = ?ended.and_then(Result::err), "a part of the server has ended; stopping");
        }
    }
    tracing::info!("stopping");
    stop.cancel();
    let ended = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
        tracing::warn!("what did not stop in time is cut; moves resume at the next start");
        running.shutdown().await;
    }
    source.write_records().await;
    store.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// The data folder's lock: held as long as this lives, and given back by the system when the process ends in any way.
struct DataLock(#[expect(dead_code, reason = "the lock is on the open file")] File);

impl DataLock {
    fn take(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("lock");
        let failed = |error: std::io::Error| Failure::while_doing(&path.display().to_string(), &error);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // What cannot be read is not named.
                let _ = file.take(20).read_to_string(&mut holder);
                return Err(
                    Failure::failed(format!("{} is used by process {}", folder.display(), holder.trim()))
                        .advice("One server uses a data folder at a time."),
                );
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self(file))
    }
}

/// All rooms of one deployment, wired.
struct Rooms {
    identity: Identity,
    routing: Routing,
    source: Source,
    target: Target,
    fetcher: Fetcher,
    clock: Clock,
    context: ContextMaker,
    server_tls: Option<Arc<rustls::ServerConfig>>,
}

impl Rooms {
    async fn build(config: &Config, store: Store) -> Result<Self, Failure> {
        let identity = operator::open_identity(config, store.clone())?;
        if config.key_lies_with_the_data() {
            tracing::warn!(key_file = %config.key_file.display(), "the key file lies in the data folder: a copy of the data opens its secrets");
        }
        let clock = Clock::system();
        let platforms = platforms::start(config)?;
        let server_tls = match (&config.tls.certificate, &config.tls.key) {
            (Some(certificate), Some(key)) => {
                Some(tls::server_config(certificate, key).map_err(|error| Failure::of(&error))?)
            }
            _ => None,
        };
        let routing = Routing::new(
            routing_settings(config, server_tls.as_deref())?,
            store.clone(),
            platforms.clone(),
        )
        .map_err(|error| Failure::of(&error))?;
        let connector = connector(config)?;
        let fetcher = Fetcher::new(connector.clone());
        let source = Source::new(
            store.clone(),
            platforms.clone(),
            routing.clone(),
            Arc::new(fetcher.clone()),
            clock.clone(),
            source_settings(config),
        );
        let partner = PartnerClient::new(connector, identity.clone(), clock.clone());
        let target = Target::new(
            store.clone(),
            identity.seal_key().clone(),
            platforms.clone(),
            Arc::new(partner),
            clock.clone(),
            target_settings(config)?,
        );
        target.reach_imap(imap_endpoints::connect(config)?);
        source.sign_receipts(identity.clone());
        target.sign_receipts(identity.clone());
        let context = context_maker(config, store, &identity, &source, &target, platforms, &clock);
        Ok(Self {
            identity,
            routing,
            source,
            target,
            fetcher,
            clock,
            context,
            server_tls,
        })
    }

    /// Binds and starts everything; what runs ends when `stop` is cancelled.
    async fn start(self, config: &Config, stop: &CancellationToken) -> Result<JoinSet<()>, Failure> {
        let offer = if self.server_tls.is_some() {
            Offer::Everything
        } else {
            Offer::CommandLineOnly
        };
        let limits = Limits {
            drain: DRAIN,
            ..Limits::default()
        };
        let listener = Listener::bind(config.listen, self.server_tls, limits)
            .await
            .map_err(|error| Failure::of(&error))?;
        let smtp = match config.mailflow.smtp_listen {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|error| {
                    Failure::while_doing(&format!("[mailflow] smtp_listen = \"{address}\""), &error)
                })?)
            }
            None => None,
        };
        announce(config, offer, listener.address(), smtp.as_ref());
        let now = self.clock.clone();
        let console = Console::new(self.identity.clone(), Arc::new(Descriptions(self.fetcher)), move || {
            now.now()
        });
        let services = Services {
            identity: self.identity,
            source: self.source.clone(),
            target: self.target.clone(),
            clock: self.clock,
            context: self.context,
        };
        let routes = router(services, console.router(), offer);
        let mut running = JoinSet::new();
        let stopped = || {
            let stop = stop.clone();
            async move { stop.cancelled().await }
        };
        let (source, target, routing) = (self.source, self.target, self.routing);
        running.spawn(run(stopped(), |stop| async move { source.run(stop).await }));
        running.spawn(run(stopped(), |stop| async move { target.run(stop).await }));
        if let Some(smtp) = smtp {
            running.spawn(run(stopped(), |stop| async move { routing.serve(smtp, stop).await }));
        }
        running.spawn(listener.serve(routes, stop.clone()));
        rehome_fault::step("app.serving");
        Ok(running)
    }
}

/// A room's future over its stop signal.
fn run<S, F: Future<Output = ()>>(stop: S, room: impl FnOnce(S) -> F) -> F {
    room(stop)
}

/// The first lines of the log: where this server is reached, and what is not as the names say.
fn announce(config: &Config, offer: Offer, listening: std::net::SocketAddr, smtp: Option<&TcpListener>) {
    let smtp = smtp
        .and_then(|listener| listener.local_addr().ok())
        .map(|address| address.to_string());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        public_name = %config.public_name,
        %listening,
        smtp = smtp.as_deref().unwrap_or("none"),
        data_folder = %config.data_folder.display(),
        "starting"
    );
    match offer {
        Offer::Everything => {}
        Offer::CommandLineOnly => {
            tracing::warn!(
                "no certificate: only the command line on this machine is served; partners are answered 503"
            );
        }
    }
    for (name, address) in &config.connections.r#override {
        tracing::warn!(%address, "connections to {} go elsewhere ([connections] override)", name.0);
    }
    if config.connections.allow_private_addresses {
        tracing::warn!("partners' names may lead to private addresses ([connections] allow_private_addresses)");
    }
}

/// Connections to others, by the operator's rules.
///
/// # Errors
/// When the roots cannot be read.
pub(crate) fn connector(config: &Config) -> Result<HttpsConnector, Failure> {
    let client = tls::client_config(&config.tls.extra_roots).map_err(|error| Failure::of(&error))?;
    let mut settings = ConnectorSettings::new(client);
    settings.overrides = config
        .connections
        .r#override
        .iter()
        .map(|(name, address)| (name.0.clone(), *address))
        .collect();
    settings.allow_private_addresses = config.connections.allow_private_addresses;
    settings.own_origins = vec![config.public_name.host_and_port()];
    settings.connect_timeout = Duration::from_secs(config.connections.timeout_seconds.get());
    Ok(HttpsConnector::new(settings))
}

fn routing_settings(config: &Config, server_tls: Option<&rustls::ServerConfig>) -> Result<RoutingSettings, Failure> {
    let flow = &config.mailflow;
    let mut routes = BTreeMap::new();
    for (domain, route) in &flow.routes {
        let next_hop = Route::parse(&route.next_hop.0, route.tls).map_err(|error| Failure::of(&error))?;
        routes.insert(domain.as_str().to_owned(), next_hop);
    }
    let public_host = || {
        let name = config.public_name.host_and_port();
        name.rsplit_once(':').map_or(name.clone(), |(host, _)| host.to_owned())
    };
    let starttls = server_tls.filter(|_| flow.starttls).map(|tls| {
        let mut tls = tls.clone();
        // The protocols offered there are HTTP's.
        tls.alpn_protocols.clear();
        Arc::new(tls)
    });
    Ok(RoutingSettings {
        server_name: flow.host_name.as_ref().map_or_else(public_host, |name| name.0.clone()),
        routes,
        max_message_size: flow.max_message_size.get(),
        max_connections: flow.max_connections.size(),
        max_recipients: flow.max_recipients.size(),
        spool: config.data_folder.join("spool").join("mail"),
        server_tls: starttls,
        roots: Arc::new(tls::roots(&config.tls.extra_roots).map_err(|error| Failure::of(&error))?),
        timeouts: Timeouts::default(),
    })
}

fn source_settings(config: &Config) -> SourceSettings {
    let cutover = &config.cutover;
    SourceSettings {
        limits: LockLimits {
            lease: SignedDuration::from_mins(cutover.lease_minutes.signed()),
            lease_total: SignedDuration::from_mins(cutover.longest_lock_minutes.signed()),
            mailboxes_per_partner: cutover.mailboxes_per_partner.get32(),
            // How many locks a day the relationship itself says.
            ..LockLimits::default()
        },
        retention: SignedDuration::from_hours(24 * cutover.retention_days.signed()),
        ask_outcome_every: SignedDuration::from_secs(cutover.ask_outcome_seconds.signed()),
    }
}

fn target_settings(config: &Config) -> Result<TargetSettings, Failure> {
    let replication = &config.replication;
    let spool = config.data_folder.join("spool").join("items");
    files::private_folder(&spool).map_err(|error| Failure::while_doing(&spool.display().to_string(), &error))?;
    Ok(TargetSettings {
        workers: replication.workers.size(),
        lease: SignedDuration::from_secs(replication.worker_lease_seconds.signed()),
        incremental_sync_interval: SignedDuration::from_hours(replication.incremental_sync_interval_hours.signed()),
        memory_budget: replication.memory_budget.size(),
        spool,
        read_back: match replication.read_back {
            crate::config::ReadBack::On => true,
            crate::config::ReadBack::Off => false,
        },
        max_receive_size: replication.max_receive_size.get(),
        longest_pause: replication.longest_pause_seconds.get32(),
    })
}

fn context_maker(
    config: &Config,
    store: Store,
    identity: &Identity,
    source: &Source,
    target: &Target,
    platforms: Platforms,
    clock: &Clock,
) -> ContextMaker {
    let (identity, source, target, clock) = (identity.clone(), source.clone(), target.clone(), clock.clone());
    let max_users_per_batch = config.max_users_per_batch.size();
    Arc::new(move |caller, origin, correlation| Context {
        store: store.clone(),
        identity: identity.clone(),
        source: source.clone(),
        target: target.clone(),
        platforms: platforms.clone(),
        max_users_per_batch,
        now: clock.now(),
        caller,
        origin,
        correlation,
    })
}

/// Application descriptions of other authorities, for the consent page.
struct Descriptions(Fetcher);

#[async_trait]
impl DescriptionFetcher for Descriptions {
    async fn fetch(&self, url: &str, correlation: CorrelationId) -> Result<String, String> {
        self.0
            .signed_document(url, correlation)
            .await
            .map_err(|error| crate::failure::chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_is_told_who_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataLock::take(folder.path()).unwrap();
        let refused = DataLock::take(folder.path()).err().unwrap();
        assert!(
            refused.message.contains(&format!("process {}", std::process::id())),
            "{}",
            refused.message
        );
        drop(held);
        DataLock::take(folder.path()).unwrap();
    }
}
