//! The platforms of the configuration, with their secrets read.

use crate::{
    config::{Config, PlatformDriver, PlatformImap, PlatformSignIn},
    failure::{Failure, chain},
    files,
};
use async_trait::async_trait;
use rehome_platform::{
    AccessCommand, AccessConfig, CachedTokens, FreshToken, ImapConfig, PlatformConfig, Platforms, ServerSettings,
    SignIn, TokenFetcher, TokenRefusal,
};
use rehome_remote::{
    client::{ConnectorSettings, Fetcher, HttpsConnector, OAuthClient},
    tls,
};
use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

/// Folder of what is remembered of IMAP accounts, below the data folder.
const STATE: &str = "platforms";

/// The platforms of a configuration, ready for use. Nothing is connected to, and nothing is made.
///
/// # Errors
/// When a secret cannot be read, or a program not run.
pub(crate) fn configured(config: &Config) -> Result<BTreeMap<String, PlatformConfig>, Failure> {
    let of = |(name, platform): (&crate::config::PlatformName, &crate::config::Platform)| {
        let read = match &platform.driver {
            PlatformDriver::Maildir { root } => Ok(PlatformConfig::Maildir { root: root.clone() }),
            PlatformDriver::Imap(imap) => imap_config(config, imap).map(|imap| PlatformConfig::Imap(Box::new(imap))),
        };
        match read {
            Ok(read) => Ok((name.0.clone(), read)),
            Err(mut failure) => {
                failure.message = format!("[platform.{}] {}", name.0, failure.message);
                Err(failure)
            }
        }
    };
    config.platform.iter().map(of).collect()
}

/// The platforms of a server, each tried once.
///
/// # Errors
/// As [`configured`].
pub(crate) fn start(config: &Config) -> Result<Platforms, Failure> {
    let configured = configured(config)?;
    let default = config.default_platform.as_ref().map(|name| name.0.as_str());
    let state = config.data_folder.join(STATE);
    let platforms = Platforms::new(configured, default, &state).map_err(|error| Failure::of(&error))?;
    for name in platforms.names().map(str::to_owned).collect::<Vec<_>>() {
        let platforms = platforms.clone();
        // The server starts all the same: its tenants' other business does not wait for a disk or a server.
        tokio::spawn(async move {
            if let Err(error) = platforms.check(&name).await {
                tracing::error!(error = chain(&error), "the platform '{name}' cannot be used now");
            }
        });
    }
    Ok(platforms)
}

fn imap_config(config: &Config, imap: &PlatformImap) -> Result<ImapConfig, Failure> {
    let tls = imap_tls(config)?;
    let sign_in = sign_in(config, &imap.sign_in)?;
    let mut server = ServerSettings::new(&imap.host, imap.port, imap.security, tls, sign_in);
    let named = format!("{}:{}", bracketed(&imap.host), imap.port);
    let elsewhere = config.connections.r#override.iter().find(|(name, _)| name.0 == named);
    server.connect_to = elsewhere.map(|(_, to)| (to.ip().to_string(), to.port()));
    server.connections = imap.connections;
    server.connections_per_account = imap.connections_per_account;
    server.compress = imap.compress;
    let access = match &imap.access {
        None => AccessConfig::None,
        Some(access) => {
            if let Some(program) = access.command.first() {
                runnable(Path::new(program))?;
            }
            AccessConfig::Command(AccessCommand {
                program: access.command.clone(),
                call_within: Duration::from_secs(access.command_seconds),
                drain_within: Duration::from_secs(access.drain_seconds),
            })
        }
    };
    Ok(ImapConfig {
        server,
        account: imap.account.clone(),
        access,
    })
}

/// TLS to IMAP servers by the operator's roots.
///
/// # Errors
/// When they cannot be read.
pub(crate) fn imap_tls(config: &Config) -> Result<Arc<rustls::ClientConfig>, Failure> {
    let client = tls::client_config(&config.tls.extra_roots).map_err(|error| Failure::of(&error))?;
    let mut tls = client.as_ref().clone();
    // The protocols offered there are HTTP's.
    tls.alpn_protocols.clear();
    Ok(Arc::new(tls))
}

/// A host as it stands before a port.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

fn sign_in(config: &Config, sign_in: &PlatformSignIn) -> Result<SignIn, Failure> {
    let secret = |path: &Path| {
        files::secret(path)
            .map_err(|why| Failure::failed(format!("the secret {} cannot be used: {why}", path.display())))
    };
    Ok(match sign_in {
        PlatformSignIn::Master {
            user,
            password_file,
            separator,
        } => SignIn::Master {
            user: user.clone(),
            password: secret(password_file)?,
            separator: *separator,
        },
        PlatformSignIn::Authzid { user, password_file } => SignIn::Authzid {
            user: user.clone(),
            password: secret(password_file)?,
        },
        PlatformSignIn::OAuth {
            token_url,
            client_id,
            client_secret_file,
            scope,
            mechanism,
        } => {
            let client = OAuthClient {
                token_url: token_url.clone(),
                client_id: client_id.clone(),
                client_secret: secret(client_secret_file)?,
                scope: scope.clone(),
            };
            let fetcher = Fetcher::new(token_connector(config)?);
            SignIn::OAuth {
                tokens: Arc::new(CachedTokens::new(Arc::new(TokensOfClient { fetcher, client }))),
                mechanism: *mechanism,
            }
        }
    })
}

/// Connections to token endpoints: the operator named them, so they may have private addresses.
fn token_connector(config: &Config) -> Result<HttpsConnector, Failure> {
    let client = tls::client_config(&config.tls.extra_roots).map_err(|error| Failure::of(&error))?;
    let mut settings = ConnectorSettings::new(client);
    let overrides = config.connections.r#override.iter();
    settings.overrides = overrides.map(|(name, to)| (name.0.clone(), *to)).collect();
    settings.allow_private_addresses = true;
    settings.connect_timeout = Duration::from_secs(config.connections.timeout_seconds.get());
    Ok(HttpsConnector::new(settings))
}

fn runnable(program: &Path) -> Result<(), Failure> {
    let why = match std::fs::metadata(program) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => return Ok(()),
        Ok(_) => "it is not an executable file".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Failure::failed(format!(
        "the access program {} cannot be run: {why}",
        program.display()
    )))
}

/// A client at its authority.
pub(crate) struct TokensOfClient {
    pub(crate) fetcher: Fetcher,
    pub(crate) client: OAuthClient,
}

#[async_trait]
impl TokenFetcher for TokensOfClient {
    async fn fetch(&self) -> Result<FreshToken, TokenRefusal> {
        match self.fetcher.client_token(&self.client).await {
            Ok(granted) => Ok(FreshToken {
                token: granted.token,
                expires_in: granted.expires_in,
            }),
            Err(error) => Err(TokenRefusal {
                passing: error.is_passing(),
                cause: chain(&error),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    fn config(folder: &Path, more: &str) -> Config {
        let text = format!(
            "data_folder = \"data\"\nlisten = \"127.0.0.1:8443\"\npublic_name = \"localhost:8443\"\nkey_file = \"seal.key\"\n{more}"
        );
        Config::parse(&folder.join("rehome.toml"), &text).unwrap()
    }

    const IMAP: &str = r#"
[connections]
override = { "imap.contoso.example:993" = "127.0.0.1:1993" }
[platform.dovecot]
driver = "imap"
host = "IMAP.contoso.example"
sign_in = "master"
user = "rehome"
password_file = "password"
[platform.dovecot.access]
method = "command"
command = ["/bin/sh", "-c"]
"#;

    #[test]
    fn secrets_come_from_files_of_their_owner() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), IMAP);
        let missing = configured(&config).unwrap_err().message;
        assert!(
            missing.contains("[platform.dovecot] the secret") && missing.contains("No such file"),
            "{missing}"
        );
        let password = folder.path().join("password");
        std::fs::write(&password, "correct horse\n").unwrap();
        std::fs::set_permissions(&password, Permissions::from_mode(0o644)).unwrap();
        assert!(configured(&config).unwrap_err().message.contains("644"));
        std::fs::set_permissions(&password, Permissions::from_mode(0o600)).unwrap();
        let platforms = configured(&config).unwrap();
        let PlatformConfig::Imap(imap) = &platforms["dovecot"] else {
            unreachable!("the configuration says imap")
        };
        assert_eq!(imap.server.host, "imap.contoso.example");
        assert_eq!(imap.server.connect_to, Some(("127.0.0.1".to_owned(), 1993)));
        assert!(!format!("{platforms:?}").contains("horse"));
    }

    #[test]
    fn the_program_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, "x").unwrap();
        std::fs::set_permissions(&password, Permissions::from_mode(0o600)).unwrap();
        for (program, said) in [
            ("/bin/nothing-of-this-name", "No such file"),
            ("/etc/passwd", "not an executable"),
        ] {
            let config = config(folder.path(), &IMAP.replace("/bin/sh", program));
            let told = configured(&config).unwrap_err().message;
            assert!(told.contains(said), "{told}");
        }
    }
}
