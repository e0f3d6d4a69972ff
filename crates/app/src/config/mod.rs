//! The configuration of `rehome serve`: one TOML file, declared once with its manual.

mod manual;
mod platform;
mod reader;
mod values;

pub(crate) use manual::manual;
pub(crate) use platform::{Platform, PlatformDriver, PlatformImap, PlatformSignIn};
pub(crate) use reader::Mistakes;
pub(crate) use values::{HostAndPort, HostName, LogFormat, LogLevel, NextHopName, PlatformName, ReadBack, Whole};

use reader::settings;
use rehome_domain::address::DomainName;
use rehome_identity::authority::Origin;
use rehome_routing::TlsPolicy;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

settings! {
    /// The whole file.
    Config {
        /// Folder for the state of this deployment. Made with mode 0700 if it is missing; one server uses it at a time.
        data_folder: PathBuf, like "\"/var/lib/rehome\"";
        /// Address on which HTTPS is served: administration, consent, tokens and the MRS proxy. Without a certificate in
        /// `[tls]` it must be a loopback address, and partners cannot use it.
        listen: SocketAddr = SocketAddr::from(([0, 0, 0, 0], 443)), like "\"0.0.0.0:443\"";
        /// The name by which partners and administrators reach this server. It stands in every token, so choose it once.
        public_name: Origin, like "\"rehome.contoso.example\"";
        /// The key that seals stored secrets; `rehome key new` makes one. Keep it out of the data folder, so that a copy of
        /// the data folder alone opens no secret. Without it the secrets of a restored backup are lost.
        key_file: PathBuf = PathBuf::from("/etc/rehome/seal.key"), like "\"/etc/rehome/seal.key\"";
        /// Most rows of one batch's CSV file.
        max_users_per_batch: Whole<1, 100_000> = Whole::of(2000), like "2000";
        /// Platform of new mailboxes; needed when there are several platforms.
        default_platform: Option<PlatformName>, like "\"mail\"";
        /// The operator's log on standard error.
        log: Log, like "";
        /// Certificate of this server, and whom it believes.
        tls: Tls, like "";
        /// Connections to partners.
        connections: Connections, like "";
        /// Where mailboxes live; one table for each platform, under a name of your choice.
        platform: BTreeMap<PlatformName, Platform>, like "mail";
        /// Arriving mail: the pass-through that delivers to mailboxes here and passes on the mail of those who have moved.
        mailflow: MailFlow, like "";
        /// The last phase of a move, as source and as target.
        cutover: Cutover, like "";
        /// Copying of mailboxes, as target.
        replication: Replication, like "";
        /// Consent that administrators here give to applications of others.
        consent: Consent, like "";
    }
}

settings! {
    /// The operator's log.
    Log {
        /// Lines for people, or one JSON object a line.
        format: LogFormat = LogFormat::Text, like "\"text\"";
        /// How much it says. The environment variable REHOME_LOG overrides it.
        level: LogLevel = LogLevel::Info, like "\"info\"";
    }
}

settings! {
    /// TLS.
    Tls {
        /// PEM file with the server's certificate first, then the authorities between it and a root. For a trial,
        /// `rehome certificate new` makes one.
        certificate: Option<PathBuf>, like "\"/etc/rehome/tls/leaf.pem\"";
        /// PEM file with the certificate's private key.
        key: Option<PathBuf>, like "\"/etc/rehome/tls/leaf.key\"";
        /// PEM files with root certificates that are believed besides the system's: partners' private authorities.
        extra_roots: Vec<PathBuf>, like "[\"/etc/rehome/partner-ca.pem\"]";
    }
}

settings! {
    /// Connections to partners.
    Connections {
        /// Where connections to a name really go. Certificate, origin checks and audience stay those of the name. Printed at
        /// start and in errors.
        r#override: BTreeMap<HostAndPort, SocketAddr>, like "{ \"outlook.office.com:443\" = \"127.0.0.1:18443\" }";
        /// Whether partners' names may lead to private or loopback addresses.
        allow_private_addresses: bool = false, like "false";
        /// Seconds for looking a name up, for connecting, and for the TLS handshake, each.
        timeout_seconds: Whole<1, 120> = Whole::of(10), like "10";
    }
}

settings! {
    /// Mail flow.
    MailFlow {
        /// Address on which SMTP is served; left out, no mail is taken.
        smtp_listen: Option<SocketAddr>, like "\"0.0.0.0:25\"";
        /// Name in greetings and Received lines; left out, the host of public_name.
        host_name: Option<HostName>, like "\"mx.contoso.example\"";
        /// Largest message taken, octets.
        max_message_size: Whole<65_536, 1_073_741_824> = Whole::of(157_286_400), like "157286400";
        /// Most SMTP connections at once; further ones are answered 421.
        max_connections: Whole<1, 10_000> = Whole::of(100), like "100";
        /// Most recipients of one transaction.
        max_recipients: Whole<1, 10_000> = Whole::of(100), like "100";
        /// Whether STARTTLS is offered, with the certificate of `[tls]`.
        starttls: bool = true, like "true";
        /// Next hops by domain; every other domain is asked for by MX.
        routes: BTreeMap<DomainName, Route>, like "fabrikam.example";
    }
}

settings! {
    /// One route.
    Route {
        /// Where mail for the domain goes.
        next_hop: NextHopName, like "\"mx.fabrikam.example:25\"";
        /// Whether that is encrypted: never, where it is offered, or always and with a valid certificate for the host.
        tls: TlsPolicy = TlsPolicy::Opportunistic, like "\"required\"";
    }
}

settings! {
    /// Cutover.
    Cutover {
        /// Days for which the old content of a mailbox that has moved away is kept, closed.
        retention_days: Whole<1, 3650> = Whole::of(30), like "30";
        /// Minutes for which a partner may lock a mailbox at a time, and that each renewal adds at most.
        lease_minutes: Whole<1, 60> = Whole::of(10), like "10";
        /// Minutes for which one attempt may lock a mailbox in all.
        longest_lock_minutes: Whole<1, 240> = Whole::of(30), like "30";
        /// Mailboxes that one partner may hold locked at once.
        mailboxes_per_partner: Whole<1, 10_000> = Whole::of(20), like "20";
        /// Seconds between two questions for the outcome of a cutover that the partner has not told.
        ask_outcome_seconds: Whole<1, 3600> = Whole::of(10), like "10";
    }
}

settings! {
    /// Replication.
    Replication {
        /// Moves worked on at once.
        workers: Whole<1, 64> = Whole::of(4), like "4";
        /// Octets of a move that may be in memory at once.
        memory_budget: Whole<1_048_576, 4_294_967_296> = Whole::of(67_108_864), like "67108864";
        /// Hours between two incremental syncs of a mailbox that waits for its completion.
        incremental_sync_interval_hours: Whole<1, 720> = Whole::of(24), like "24";
        /// Seconds after which another worker may take over a move whose worker has died.
        worker_lease_seconds: Whole<2, 3600> = Whole::of(60), like "60";
        /// Largest message that new mailboxes accept, octets.
        max_receive_size: Whole<65_536, 4_294_967_296> = Whole::of(157_286_400), like "157286400";
        /// Whether appended items are read back and compared. Off is for measuring only: then no move completes.
        @hidden read_back: ReadBack = ReadBack::On, like "\"on\"";
        /// Longest pause in seconds before a move is tried again, whatever stopped it. Shorter ones are for tests only.
        @hidden longest_pause_seconds: Whole<1, 86_400> = Whole::of(86_400), like "86400";
    }
}

settings! {
    /// Consent.
    Consent {
        /// Days for which a consent holds unless it is renewed.
        days: Whole<1, 180> = Whole::of(180), like "180";
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The file has mistakes.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// When it cannot be read, or with all its mistakes.
    pub(crate) fn load(file: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable {
            file: file.to_owned(),
            source,
        };
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        let file = std::path::absolute(file).map_err(unreadable)?;
        Ok(Self::parse(&file, &text)?)
    }

    /// Reads a configuration file's text; `file` names it and is where relative paths start.
    ///
    /// # Errors
    /// All its mistakes.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, Mistakes> {
        let config: Self = reader::read_document(file, text)?;
        config.check().map_err(|text| reader::whole_file(file, text))?;
        Ok(config)
    }

    /// What only several keys together tell.
    fn check(&self) -> Result<(), String> {
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return Err("[tls] needs both certificate and key, or neither".to_owned());
        }
        if self.tls.certificate.is_none() && !self.listen.ip().is_loopback() {
            return Err(format!(
                "listen = \"{}\" can be reached by others: give [tls] certificate and key, or listen on a loopback address",
                self.listen
            ));
        }
        let names = || {
            self.platform
                .keys()
                .map(|name| name.0.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        match &self.default_platform {
            Some(default) if !self.platform.contains_key(default) => Err(format!(
                "default_platform = \"{}\" is none of the platforms: {}",
                default.0,
                names()
            )),
            None if self.platform.len() > 1 => Err(format!(
                "there are several platforms: default_platform must name one of {}",
                names()
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the key file lies in the data folder, where every copy of the data holds it too.
    pub(crate) fn key_lies_with_the_data(&self) -> bool {
        values::is_inside(&self.key_file, &self.data_folder)
    }
}

#[cfg(test)]
mod tests;
