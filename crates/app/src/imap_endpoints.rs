//! How migration endpoints that are IMAP servers are reached: the operator's roots, overrides and address rules, and
//! tokens where an OAuth client signs in.

use crate::{
    config::Config,
    failure::Failure,
    platforms::{TokensOfClient, bracketed, imap_tls},
    serve::connector,
};
use futures_util::FutureExt;
use rehome_domain::{
    endpoint::{EndpointKind, ImapSecurity, ImapServer, ImapSignIn, MigrationEndpoint},
    error_id::{ErrorId, Problem},
};
use rehome_migrate::target::direct::ImapConnect;
use rehome_platform::{CachedTokens, OAuthMechanism, Security, ServerSettings, SignIn};
use rehome_remote::client::{Fetcher, OAuthClient, is_public};
use secrecy::SecretString;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Connections that one account is worth.
const PER_ACCOUNT: usize = 4;

/// What the operator sets.
struct Rules {
    tls: Arc<rustls::ClientConfig>,
    overrides: BTreeMap<String, SocketAddr>,
    allow_private_addresses: bool,
    look_up_within: Duration,
    /// Moves that this process works on at once.
    workers: usize,
    fetcher: Fetcher,
}

/// How endpoints are reached by this configuration.
///
/// # Errors
/// When its roots cannot be read.
pub(crate) fn connect(config: &Config) -> Result<ImapConnect, Failure> {
    let overrides = config.connections.r#override.iter();
    let rules = Arc::new(Rules {
        tls: imap_tls(config)?,
        overrides: overrides.map(|(name, to)| (name.0.to_ascii_lowercase(), *to)).collect(),
        allow_private_addresses: config.connections.allow_private_addresses,
        look_up_within: Duration::from_secs(config.connections.timeout_seconds.get()),
        workers: config.replication.workers.size(),
        fetcher: Fetcher::new(connector(config)?),
    });
    Ok(Arc::new(move |endpoint, secret| {
        let rules = Arc::clone(&rules);
        async move { rules.settings(&endpoint, secret).await }.boxed()
    }))
}

impl Rules {
    async fn settings(
        &self,
        endpoint: &MigrationEndpoint,
        secret: Option<SecretString>,
    ) -> Result<ServerSettings, Problem> {
        let EndpointKind::Imap(imap) = &endpoint.kind else {
            return Err(Problem::new(ErrorId::Unexpected, "The endpoint is no IMAP server.", ""));
        };
        let host = &endpoint.remote_server;
        let security = match imap.security {
            ImapSecurity::Ssl => Security::Tls,
            ImapSecurity::Tls => Security::StartTls,
            ImapSecurity::None => Security::Plain,
        };
        let sign_in = self.sign_in(imap, secret)?;
        let mut settings = ServerSettings::new(host, imap.port, security, Arc::clone(&self.tls), sign_in);
        settings.connect_to = self.connect_to(host, imap.port).await?;
        let moves = endpoint.max_concurrent_migrations.map_or(usize::MAX, |n| n as usize);
        settings.connections = moves.min(self.workers).max(1) * PER_ACCOUNT;
        settings.connections_per_account = PER_ACCOUNT;
        Ok(settings)
    }

    /// Where the socket goes, where that is not for the driver to find out. A tenant's administrator names the server,
    /// so that his names lead to private addresses only where the operator allows it; the address that was looked at is
    /// the one that is used.
    async fn connect_to(&self, host: &str, port: u16) -> Result<Option<(String, u16)>, Problem> {
        if let Some(to) = self.overrides.get(&format!("{}:{port}", bracketed(host))) {
            return Ok(Some((to.ip().to_string(), to.port())));
        }
        if self.allow_private_addresses {
            return Ok(None);
        }
        let looked_up: Vec<IpAddr> = match host.parse() {
            Ok(address) => vec![address],
            Err(_) => {
                let found = tokio::time::timeout(self.look_up_within, tokio::net::lookup_host((host, port))).await;
                let found = found.map_err(|_| not_found(host, "no answer in time"))?;
                found
                    .map_err(|error| not_found(host, &error.to_string()))?
                    .map(|address| address.ip())
                    .collect()
            }
        };
        match looked_up.into_iter().find(|address| is_public(*address)) {
            Some(address) => Ok(Some((address.to_string(), port))),
            None => Err(Problem::new(
                ErrorId::MigrationServerConnectionFailed,
                format!("{host} leads only to private or loopback addresses, which this server does not connect to."),
                "The operator of this deployment allows it with allow_private_addresses or an override in [connections].",
            )),
        }
    }

    fn sign_in(&self, imap: &ImapServer, secret: Option<SecretString>) -> Result<SignIn, Problem> {
        let secret = || {
            secret.clone().ok_or_else(|| {
                Problem::new(
                    ErrorId::ImapAuthentication,
                    "The migration endpoint has no password.",
                    "Set-MigrationEndpoint … -Credentials",
                )
            })
        };
        Ok(match &imap.sign_in {
            ImapSignIn::Users => SignIn::Password,
            ImapSignIn::Master { user, separator } => SignIn::Master {
                user: user.clone(),
                password: secret()?,
                separator: *separator,
            },
            ImapSignIn::Authorization { user } => SignIn::Authzid {
                user: user.clone(),
                password: secret()?,
            },
            ImapSignIn::OAuth {
                token_url,
                client_id,
                scope,
            } => {
                let token_url = token_url.parse().map_err(|error| {
                    Problem::new(
                        ErrorId::ParameterBinding,
                        format!("OAuthTokenUrl is no URL: {error}."),
                        "Set-MigrationEndpoint … -OAuthTokenUrl",
                    )
                })?;
                let client = OAuthClient {
                    token_url,
                    client_id: client_id.clone(),
                    client_secret: secret()?,
                    scope: scope.clone(),
                };
                let fetcher = TokensOfClient {
                    fetcher: self.fetcher.clone(),
                    client,
                };
                SignIn::OAuth {
                    tokens: Arc::new(CachedTokens::new(Arc::new(fetcher))),
                    mechanism: OAuthMechanism::Offered,
                }
            }
        })
    }
}

fn not_found(host: &str, why: &str) -> Problem {
    Problem::new(
        ErrorId::MigrationServerConnectionFailed,
        format!("{host}: the name cannot be looked up: {why}."),
        "Compare -RemoteServer with the server's name; look at DNS.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rehome_domain::id::{EndpointId, TenantId};
    use std::path::Path;

    fn connects(more: &str) -> ImapConnect {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "data_folder = \"data\"\nlisten = \"127.0.0.1:8443\"\npublic_name = \"localhost:8443\"\nkey_file = \"seal.key\"\n\
             [platform.mail]\ndriver = \"maildir\"\nroot = \"/srv/mail\"\n{more}"
        );
        connect(&Config::parse(Path::new(&folder.path().join("rehome.toml")), &text).unwrap()).unwrap()
    }

    fn endpoint(host: &str, sign_in: ImapSignIn) -> MigrationEndpoint {
        MigrationEndpoint {
            id: EndpointId::from_u128(1),
            tenant: TenantId::from_u128(2),
            name: "Old".into(),
            kind: EndpointKind::Imap(ImapServer {
                port: 993,
                security: ImapSecurity::Ssl,
                sign_in,
            }),
            remote_server: host.into(),
            sealed_secret: None,
            max_concurrent_migrations: Some(2),
            max_concurrent_incremental_syncs: None,
        }
    }

    #[tokio::test]
    async fn private_addresses_are_for_the_operator_to_allow() {
        let open = "[connections]\nallow_private_addresses = true\n";
        let elsewhere = "[connections]\noverride = { \"10.0.0.1:993\" = \"127.0.0.1:1993\" }\n";
        let there = |address: &str, port| Some((address.to_owned(), port));
        for (more, host, expected) in [
            ("", "10.0.0.1", None),
            ("", "127.0.0.1", None),
            ("", "::1", None),
            ("", "localhost", None),
            ("", "192.0.2.0.example.invalid", None),
            ("", "9.9.9.9", Some(there("9.9.9.9", 993))),
            (open, "10.0.0.1", Some(None)),
            (elsewhere, "10.0.0.1", Some(there("127.0.0.1", 1993))),
        ] {
            let settings = connects(more)(endpoint(host, ImapSignIn::Users), None).await;
            match (settings, expected) {
                (Ok(settings), Some(expected)) => {
                    assert_eq!(settings.connect_to, expected, "{host}");
                    assert_eq!((settings.host.as_str(), settings.connections), (host, 8));
                }
                (Err(problem), None) => assert_eq!(problem.id, ErrorId::MigrationServerConnectionFailed, "{problem}"),
                (settings, expected) => panic!("{host}: {settings:?}, {expected:?}"),
            }
        }
    }

    #[tokio::test]
    async fn whoever_signs_in_needs_a_secret() {
        let open = connects("[connections]\nallow_private_addresses = true\n");
        let client = ImapSignIn::OAuth {
            token_url: "https://login.contoso.example/token".into(),
            client_id: "mover".into(),
            scope: None,
        };
        let (master, authorization) = (
            ImapSignIn::Master {
                user: "mover".into(),
                separator: '*',
            },
            ImapSignIn::Authorization { user: "mover".into() },
        );
        for sign_in in [master, authorization, client] {
            let endpoint = endpoint("imap.contoso.example", sign_in);
            let problem = open(endpoint.clone(), None).await.unwrap_err();
            assert_eq!(problem.id, ErrorId::ImapAuthentication);
            let settings = open(endpoint, Some("sesame".to_owned().into())).await.unwrap();
            assert!(!format!("{settings:?}").contains("sesame"));
        }
    }
}
