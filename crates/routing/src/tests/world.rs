//! A deployment with a listener, and a client that says exactly what it is told.

use crate::{Route, Routing, RoutingSettings, Timeouts, TlsPolicy};
use jiff::Timestamp;
use rehome_domain::{
    address::{DomainName, LegacyExchangeDn, SmtpAddress},
    batch::{BatchIntent, MigrationBatch},
    cutover::TargetPhase,
    id::{AttemptId, BatchId, EndpointId, ExchangeGuid, Fence, MoveId, RecipientId, TenantId},
    moves::{Move, MoveFigures, UserStatus},
    recipient::{Group, GroupType, MailUser, Mailbox, MailboxState, Recipient, RecipientKind},
    tenant::Tenant,
};
use rehome_platform::{Place, PlatformConfig, Platforms};
use rehome_store::{Store, TargetAttempt};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

pub(super) struct World {
    folder: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) platforms: Platforms,
    pub(super) routing: Routing,
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    pub(super) served: Option<JoinHandle<()>>,
}

/// What may differ between deployments.
#[derive(Default)]
pub(super) struct Options {
    pub(super) routes: Vec<(String, Route)>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) roots: Option<RootCertStore>,
    pub(super) max_connections: Option<usize>,
    /// How long locks are held while a next hop thinks.
    pub(super) locked: Option<Duration>,
}

pub(super) fn tenant_id(domain: &str) -> TenantId {
    let mut bits = [0; 16];
    for (at, octet) in domain.bytes().enumerate() {
        bits[at % 16] ^= octet;
    }
    TenantId::from_u128(u128::from_be_bytes(bits))
}

impl World {
    /// A deployment with these tenants, each with its domain of the same name.
    pub(super) async fn new(domains: &[&str], options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        for domain in domains {
            let initial_domain: DomainName = domain.parse().unwrap();
            let tenant = Tenant {
                id: tenant_id(domain),
                initial_domain,
                display_name: (*domain).to_owned(),
            };
            tx.tenant_insert(&tenant, Timestamp::UNIX_EPOCH).await.unwrap();
        }
        tx.commit("test").await.unwrap();
        let root = folder.path().join("mail");
        std::fs::create_dir(&root).unwrap();
        let config = PlatformConfig::Maildir { root };
        let state = folder.path().join("platforms");
        let platforms = Platforms::new(BTreeMap::from([("local".to_owned(), config)]), None, &state).unwrap();
        let settings = RoutingSettings {
            server_name: format!("mx.{}", domains[0]),
            routes: options.routes.into_iter().collect(),
            max_message_size: 2 << 20,
            max_connections: options.max_connections.unwrap_or(20),
            max_recipients: 10,
            spool: folder.path().join("spool"),
            server_tls: options.tls,
            roots: Arc::new(options.roots.unwrap_or_else(RootCertStore::empty)),
            timeouts: Timeouts {
                lock: Duration::ZERO,
                locked: options.locked.unwrap_or(Timeouts::default().locked),
                ..Timeouts::default()
            },
        };
        let routing = Routing::new(settings, store.clone(), platforms.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = routing.clone();
        let served = tokio::spawn(async move {
            serving
                .serve(listener, async { stopped.await.unwrap_or_default() })
                .await;
        });
        Self {
            folder,
            store,
            platforms,
            routing,
            address,
            stop: Some(stop),
            served: Some(served),
        }
    }

    /// A route to this deployment.
    pub(super) fn route(&self, tls: TlsPolicy) -> Route {
        Route {
            host: self.address.ip().to_string(),
            port: self.address.port(),
            tls,
        }
    }

    pub(super) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).unwrap();
        }
    }

    async fn add(&self, address: &str, kind: RecipientKind) -> Recipient {
        let address: SmtpAddress = address.parse().unwrap();
        let id = RecipientId(uuid::Uuid::new_v4());
        let recipient = Recipient {
            id,
            tenant: tenant_id(address.domain().as_str()),
            name: address.local().to_owned(),
            alias: address.local().to_owned(),
            display_name: String::new(),
            user_principal_name: None,
            email_addresses: vec![format!("SMTP:{address}").parse().unwrap()],
            legacy_exchange_dn: LegacyExchangeDn::for_recipient(address.domain(), id, address.local()),
            kind,
            hidden: false,
            custom_attributes: Vec::new(),
            created: Timestamp::UNIX_EPOCH,
            changed: Timestamp::UNIX_EPOCH,
        };
        let mut tx = self.store.write().await.unwrap();
        tx.recipient_insert(recipient.tenant, &recipient).await.unwrap();
        tx.commit("test").await.unwrap();
        recipient
    }

    pub(super) async fn mailbox(&self, address: &str) -> Recipient {
        let guid = ExchangeGuid(uuid::Uuid::new_v4());
        let mailbox = Mailbox {
            exchange_guid: guid,
            platform: "local".to_owned(),
            location: address.replace('@', "-"),
            state: MailboxState::Open,
            litigation_hold: false,
            max_receive_size: 1 << 20,
        };
        self.platforms.create(&Place::from(&mailbox)).await.unwrap();
        self.add(address, RecipientKind::Mailbox(mailbox)).await
    }

    pub(super) async fn mail_user(&self, address: &str, external: Option<&str>) -> Recipient {
        let kind = MailUser {
            external_email_address: external.map(|a| a.parse().unwrap()),
            exchange_guid: None,
            archive_guid: None,
        };
        self.add(address, RecipientKind::MailUser(kind)).await
    }

    pub(super) async fn group(&self, address: &str, members: &[&Recipient]) -> Recipient {
        let group = self
            .add(
                address,
                RecipientKind::Group(Group {
                    group_type: GroupType::Security,
                }),
            )
            .await;
        for member in members {
            self.member(&group, member).await;
        }
        group
    }

    pub(super) async fn member(&self, group: &Recipient, member: &Recipient) {
        let mut tx = self.store.write().await.unwrap();
        tx.group_member_add(group.tenant, group.id, member.id).await.unwrap();
        tx.commit("test").await.unwrap();
    }

    pub(super) async fn set_state(&self, recipient: &Recipient, state: MailboxState) {
        let mut changed = recipient.clone();
        if let RecipientKind::Mailbox(mailbox) = &mut changed.kind {
            mailbox.state = state;
        }
        self.update(changed).await;
    }

    pub(super) async fn update(&self, recipient: Recipient) {
        let mut tx = self.store.write().await.unwrap();
        assert!(tx.recipient_update(recipient.tenant, &recipient).await.unwrap());
        tx.commit("test").await.unwrap();
    }

    /// A move of this address in a batch of its own, with an attempt in this phase.
    pub(super) async fn attempt(&self, address: &str, phase: TargetPhase) {
        let address: SmtpAddress = address.parse().unwrap();
        let tenant = tenant_id(address.domain().as_str());
        let (batch, id) = (BatchId(uuid::Uuid::new_v4()), MoveId(uuid::Uuid::new_v4()));
        let mut tx = self.store.write().await.unwrap();
        let batch_row = MigrationBatch {
            id: batch,
            tenant,
            name: batch.to_string(),
            endpoint: EndpointId::from_u128(1),
            target_delivery_domain: Some(address.domain().clone()),
            intent: BatchIntent::Started,
            auto_complete: false,
            complete_after: None,
            start_after: None,
            skipped_approved_until: None,
            submitted_by: String::new(),
            created: Timestamp::UNIX_EPOCH,
            started: None,
        };
        tx.batch_insert(&batch_row).await.unwrap();
        let user = Move {
            id,
            tenant,
            batch,
            email_address: address.to_string(),
            recipient: None,
            exchange_guid: None,
            status: UserStatus::Completing,
            waiting_for: String::new(),
            problems: Vec::new(),
            problem_correlation: None,
            complete_after: None,
            sync_now: false,
            stop: false,
            skipped_approved_until: None,
            next_run: Timestamp::UNIX_EPOCH,
            failures: 0,
            last_sync: None,
            figures: MoveFigures::default(),
            lease: None,
            fence: Fence(0),
            requests: 0,
        };
        // One active move of an address at a time.
        for old in tx.move_list(tenant, None).await.unwrap() {
            tx.move_delete(tenant, old.id).await.unwrap();
        }
        tx.move_insert(&user).await.unwrap();
        let attempt = TargetAttempt {
            id: AttemptId(uuid::Uuid::new_v4()),
            tenant,
            move_id: id,
            phase,
            fence: Fence(0),
            begun: Timestamp::UNIX_EPOCH,
            root: None,
            exceptions: None,
            routing_address: None,
            legacy_exchange_dn: None,
            outcome_key: vec![0; 32],
            decided: None,
            done: None,
            lock_milliseconds: None,
            platform: None,
            location: None,
        };
        tx.attempt_insert(&attempt).await.unwrap();
        tx.commit("test").await.unwrap();
    }

    /// The platform's root.
    pub(super) fn root(&self) -> PathBuf {
        self.folder.path().join("mail")
    }

    /// The files in a mailbox's inbox; asserts that nothing is left in `tmp`.
    pub(super) fn inbox(&self, address: &str) -> Vec<Vec<u8>> {
        let root = self.root().join(address.replace('@', "-"));
        let files = |sub: &str| match std::fs::read_dir(root.join(sub)) {
            Ok(entries) => entries.map(|e| std::fs::read(e.unwrap().path()).unwrap()).collect(),
            Err(_) => Vec::new(),
        };
        assert!(files("tmp").is_empty(), "{address}");
        files("new")
    }
}

/// An SMTP client.
pub(super) struct Talk {
    stream: BufReader<TcpStream>,
}

impl Talk {
    /// Connects and takes the greeting.
    pub(super) async fn to(world: &World) -> Self {
        let mut talk = Self {
            stream: BufReader::new(TcpStream::connect(world.address).await.unwrap()),
        };
        assert!(talk.reply().await.starts_with("220 "));
        talk
    }

    /// Connects and says hello and MAIL.
    pub(super) async fn mail(world: &World) -> Self {
        let mut talk = Self::to(world).await;
        talk.say("EHLO client.example").await;
        assert!(talk.say("MAIL FROM:<sender@client.example>").await.starts_with("250 "));
        talk
    }

    /// One reply, all lines; an empty text at the end of the connection.
    pub(super) async fn reply(&mut self) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            all.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return all;
            }
        }
    }

    pub(super) async fn send(&mut self, octets: &[u8]) {
        self.stream.get_mut().write_all(octets).await.unwrap();
    }

    pub(super) async fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    pub(super) async fn rcpt(&mut self, address: &str) -> String {
        self.say(&format!("RCPT TO:<{address}>")).await
    }

    /// DATA with a message that needs no dots.
    pub(super) async fn data(&mut self, message: &[u8]) -> String {
        assert!(self.say("DATA").await.starts_with("354 "));
        self.send(message).await;
        self.send(b".\r\n").await;
        self.reply().await
    }

    /// Whether the other side has closed.
    pub(super) async fn at_end(&mut self) -> bool {
        self.stream.read(&mut [0; 1]).await.unwrap_or(0) == 0
    }
}

/// A whole transaction for one recipient; the last reply.
pub(super) async fn send(world: &World, to: &str, message: &[u8]) -> String {
    let mut talk = Talk::mail(world).await;
    let reply = talk.rcpt(to).await;
    if reply.starts_with("250 ") {
        talk.data(message).await
    } else {
        reply
    }
}
