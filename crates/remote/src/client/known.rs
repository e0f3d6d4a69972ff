//! Partners that were reached before: what was found of them, their tokens and their connections, so that a pass that has
//! nothing to carry costs no more round trips than it has questions.

use super::connector::HttpsConnector;
use super::exchange::Lane;
use super::origin::Origin;
use super::partner::TokenSource;
use rehome_migrate::target::partner::PartnerAddress;
use secrecy::ExposeSecret;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What was found of a partner is looked up again after this time.
const FOUND_LASTS: Duration = Duration::from_secs(600);
/// Connections that nobody uses are kept so long; the other side closes them a little later.
const IDLE: Duration = Duration::from_secs(240);
/// Unused connections that are kept of one partner.
const MOST_IDLE: usize = 16;
/// Partners that are remembered.
const MOST: usize = 64;

/// The connections of one mover to a source: control verbs on one, streams on another.
pub(super) struct Lanes {
    pub(super) control: Lane,
    pub(super) streams: Lane,
    /// Octets received on both.
    pub(super) octets: Arc<AtomicU64>,
}

impl Lanes {
    fn new(connector: &HttpsConnector, origin: &Origin) -> Self {
        let octets = Arc::new(AtomicU64::new(0));
        let lane = || Lane::counted(connector.clone(), origin.clone(), Arc::clone(&octets));
        Self {
            control: lane(),
            streams: lane(),
            octets: Arc::clone(&octets),
        }
    }
}

/// A partner that was reached.
pub(super) struct Known {
    pub(super) tokens: TokenSource,
    pub(super) endpoint: String,
    pub(super) origin: Origin,
    found: Instant,
    /// Refused something since: everything is found out anew for the next mover.
    doubted: AtomicBool,
    idle: Mutex<Vec<(Lanes, Instant)>>,
}

impl Known {
    pub(super) fn new(tokens: TokenSource, endpoint: String, origin: Origin) -> Self {
        Self {
            tokens,
            endpoint,
            origin,
            found: Instant::now(),
            doubted: AtomicBool::new(false),
            idle: Mutex::default(),
        }
    }

    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    fn is_good(&self) -> bool {
        !self.doubted.load(Ordering::Relaxed) && self.found.elapsed() < FOUND_LASTS
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Lanes, Instant)>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        idle
    }

    /// Connections for one mover: kept ones, the last used first, or new ones.
    pub(super) fn lanes(&self, connector: &HttpsConnector) -> Lanes {
        let kept = self.idle().pop();
        kept.map_or_else(|| Lanes::new(connector, &self.origin), |(lanes, _)| lanes)
    }

    /// Takes connections back.
    pub(super) fn keep(&self, lanes: Lanes) {
        let mut idle = self.idle();
        if self.is_good() && idle.len() < MOST_IDLE {
            idle.push((lanes, Instant::now()));
        }
    }
}

/// Partners by the address under which they were reached.
type ByAddress = Vec<(PartnerAddress, Arc<Known>)>;

/// All partners that were reached in the last minutes.
#[derive(Clone, Default)]
pub(super) struct KnownPartners(Arc<Mutex<ByAddress>>);

fn same(one: &PartnerAddress, two: &PartnerAddress) -> bool {
    let PartnerAddress {
        home_tenant,
        remote_server,
        remote_tenant,
        remote_tenant_id,
        application_id,
        secret,
        returning,
    } = one;
    *home_tenant == two.home_tenant
        && *remote_server == two.remote_server
        && *remote_tenant == two.remote_tenant
        && *remote_tenant_id == two.remote_tenant_id
        && *application_id == two.application_id
        && *returning == two.returning
        && secret.expose_secret() == two.secret.expose_secret()
}

impl KnownPartners {
    fn good(&self) -> MutexGuard<'_, ByAddress> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, known)| known.is_good());
        known
    }

    pub(super) fn get(&self, address: &PartnerAddress) -> Option<Arc<Known>> {
        let known = self.good();
        let found = known.iter().find(|(other, _)| same(other, address))?;
        Some(Arc::clone(&found.1))
    }

    /// Remembers a partner in place of what was known under the same address.
    pub(super) fn put(&self, address: &PartnerAddress, new: &Arc<Known>) {
        let mut known = self.good();
        known.retain(|(other, _)| !same(other, address));
        if known.len() == MOST {
            known.remove(0);
        }
        known.push((address.clone(), Arc::clone(new)));
    }
}
