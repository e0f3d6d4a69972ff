//! IMAP servers in use: one pool of connections for each endpoint, shared by all its moves.

use rehome_domain::{endpoint::MigrationEndpoint, id::EndpointId};
use rehome_mailbox::imap::ImapServer;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Most servers that are remembered; beyond, the one asked for longest ago is forgotten. A move keeps its own.
const MOST: usize = 64;

struct Known {
    /// As it was when the server was made.
    endpoint: MigrationEndpoint,
    server: ImapServer,
    used: Instant,
}

/// Servers by endpoint.
#[derive(Default)]
pub(in crate::target) struct Servers(Mutex<HashMap<EndpointId, Known>>);

impl Servers {
    /// The server of an endpoint, if it was made for the endpoint as it is now.
    pub(super) fn get(&self, endpoint: &MigrationEndpoint) -> Option<ImapServer> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get_mut(&endpoint.id).filter(|known| known.endpoint == *endpoint)?;
        known.used = Instant::now();
        Some(known.server.clone())
    }

    /// Remembers a server; where another move was quicker, its one is returned and used.
    pub(super) fn keep(&self, endpoint: &MigrationEndpoint, server: ImapServer) -> ImapServer {
        if let Some(earlier) = self.get(endpoint) {
            return earlier;
        }
        let known = Known {
            endpoint: endpoint.clone(),
            server: server.clone(),
            used: Instant::now(),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(endpoint.id, known);
        while all.len() > MOST {
            let oldest = all.iter().min_by_key(|(_, known)| known.used).map(|(id, _)| *id);
            let Some(oldest) = oldest else { break };
            all.remove(&oldest);
        }
        server
    }

    /// Forgets a server that could not be used: it may be at another address by now.
    pub(super) fn forget(&self, endpoint: EndpointId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&endpoint);
    }
}
