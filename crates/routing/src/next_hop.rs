//! Which servers take mail for a domain: the operator's route, else MX (RFC 5321 §5.1).

use crate::settings::{Route, TlsPolicy};
use hickory_resolver::{TokioResolver, proto::rr::RData};
use rehome_domain::address::DomainName;
use std::{collections::BTreeMap, time::Duration};

/// Most servers of one domain that are tried.
const MAX_SERVERS: usize = 5;

/// Longest wait for the DNS.
const DNS_PATIENCE: Duration = Duration::from_secs(20);

/// Servers that take the same mail, in the order in which to try them. Equal hops can share a transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NextHop {
    /// Host and port.
    pub(crate) servers: Vec<(String, u16)>,
    /// Whether to encrypt.
    pub(crate) tls: TlsPolicy,
}

impl std::fmt::Display for NextHop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self
            .servers
            .iter()
            .map(|(host, port)| format!("{host}:{port}"))
            .collect();
        f.write_str(&names.join(", "))
    }
}

/// Why a domain has no next hop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NextHopError {
    /// The domain says that it takes no mail (RFC 7505).
    #[error("{0} takes no mail (null MX)")]
    NullMx(DomainName),
    /// The DNS has no such name. Mail waits: a mistake in a zone must not bounce mail that is on the move.
    #[error("{0} is not in the DNS")]
    NoSuchDomain(DomainName),
    /// The DNS did not answer.
    #[error("the DNS lookup for {domain} failed: {cause}")]
    Lookup {
        /// Asked for.
        domain: DomainName,
        /// What happened.
        cause: String,
    },
}

/// Finds next hops.
pub(crate) struct NextHops {
    routes: BTreeMap<String, Route>,
    dns: Result<TokioResolver, String>,
}

impl NextHops {
    /// Uses the operator's routes and the system's name servers. A host without name servers is no error until
    /// a domain without a route is asked for.
    pub(crate) fn new(routes: BTreeMap<String, Route>) -> Self {
        let dns = TokioResolver::builder_tokio()
            .and_then(|b| b.build())
            .map_err(|e| e.to_string());
        let routes = routes
            .into_iter()
            .map(|(domain, route)| (domain.to_ascii_lowercase(), route))
            .collect();
        Self { routes, dns }
    }

    /// The next hop of a domain.
    pub(crate) async fn of(&self, domain: &DomainName) -> Result<NextHop, NextHopError> {
        if let Some(route) = self.routes.get(domain.as_str()) {
            return Ok(NextHop {
                servers: vec![(route.host.clone(), route.port)],
                tls: route.tls,
            });
        }
        let failed = |cause: String| NextHopError::Lookup {
            domain: domain.clone(),
            cause,
        };
        let dns = self.dns.as_ref().map_err(|e| failed(e.clone()))?;
        let answer = tokio::time::timeout(DNS_PATIENCE, dns.mx_lookup(format!("{domain}.")))
            .await
            .map_err(|_| failed("no answer in time".to_owned()))?;
        let records = match answer {
            Ok(lookup) => lookup
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
                    _ => None,
                })
                .collect(),
            Err(e) if e.is_nx_domain() => return Err(NextHopError::NoSuchDomain(domain.clone())),
            Err(e) if e.is_no_records_found() => Vec::new(),
            Err(e) => return Err(failed(e.to_string())),
        };
        by_preference(domain, records)
    }
}

/// Orders MX records: lowest preference first; none at all means the domain itself (RFC 5321 §5.1).
fn by_preference(domain: &DomainName, mut records: Vec<(u16, String)>) -> Result<NextHop, NextHopError> {
    if records.is_empty() {
        records.push((0, domain.to_string()));
    }
    records.sort();
    let servers: Vec<_> = records
        .into_iter()
        .map(|(_, host)| host.trim_end_matches('.').to_ascii_lowercase())
        .filter(|host| !host.is_empty())
        .take(MAX_SERVERS)
        .map(|host| (host, 25))
        .collect();
    if servers.is_empty() {
        return Err(NextHopError::NullMx(domain.clone()));
    }
    Ok(NextHop {
        servers,
        tls: TlsPolicy::Opportunistic,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mx(records: &[(u16, &str)]) -> Result<Vec<String>, NextHopError> {
        let domain = "fabrikam.example".parse().unwrap();
        let records = records.iter().map(|(p, h)| (*p, (*h).to_owned())).collect();
        Ok(by_preference(&domain, records)?
            .servers
            .into_iter()
            .map(|(host, _)| host)
            .collect())
    }

    #[test]
    fn preference_implicit_and_null() {
        assert_eq!(
            mx(&[(20, "b.example."), (10, "A.example.")]).unwrap(),
            ["a.example", "b.example"]
        );
        assert_eq!(mx(&[]).unwrap(), ["fabrikam.example"]);
        assert_eq!(
            mx(&[(0, ".")]),
            Err(NextHopError::NullMx("fabrikam.example".parse().unwrap()))
        );
    }

    #[tokio::test]
    async fn a_route_goes_before_the_dns() {
        let route = Route::parse("127.0.0.1:2525", TlsPolicy::None).unwrap();
        let hops = NextHops::new(BTreeMap::from([("fabrikam.example".to_owned(), route)]));
        let hop = hops.of(&"Fabrikam.Example".parse().unwrap()).await.unwrap();
        assert_eq!(hop.to_string(), "127.0.0.1:2525");
    }
}
