//! Two organisations with several mailboxes to move, on one clock that stands until it is set.

use super::{
    network::{Line, Network},
    post::{Post, Side},
};
use crate::{
    link::{InProcess, Lost},
    world::{platforms, recipient, routing, tenant},
};
use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    consent::{PinnedKeys, ROLE_MAILBOX_MIGRATION, ServicePrincipal},
    endpoint::{EndpointKind, MigrationEndpoint, RemoteMove},
    gate::Caller,
    id::{ApplicationId, EndpointId, ExchangeGuid, RecipientId, RelationshipId, ServicePrincipalId, TenantId},
    moves::Move,
    recipient::{Group, GroupType, MailUser, Mailbox, MailboxState, Recipient, RecipientKind},
    relationship::{MailboxMoveCapability, OrganizationRelationship},
};
use rehome_identity::SealKey;
use rehome_mailbox::{FolderPath, FolderRef, ReadEvent, Uid};
use rehome_migrate::{
    Clock,
    source::{Source, SourceSettings},
    target::{Target, TargetSettings, control},
};
use rehome_platform::Place;
use rehome_routing::Routing;
use rehome_store::Store;
use rehome_wire::flags::Flags;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};
use tokio::{net::TcpListener, task::JoinHandle};

pub const SOURCE_DOMAIN: &str = "contoso.example";
pub const TARGET_DOMAIN: &str = "fabrikam.example";

/// The length of a worker's lease.
pub const LEASE: SignedDuration = SignedDuration::from_secs(60);

const ENDPOINT: EndpointId = EndpointId::from_u128(41);
const PRINCIPAL: ServicePrincipalId = ServicePrincipalId::from_u128(10);
const GROUP: RecipientId = RecipientId::from_u128(21);

pub struct Organisations {
    pub network: Arc<Network>,
    pub post: Arc<Post>,
    pub source: Source,
    pub target: Target,
    pub mailboxes: usize,
    now: Arc<AtomicI64>,
    clock: Clock,
    source_routing: Routing,
    servers: Vec<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

fn name(mailbox: usize) -> String {
    format!("user{mailbox}")
}

pub fn address(mailbox: usize, domain: &str) -> String {
    format!("{}@{domain}", name(mailbox))
}

fn guid(mailbox: usize) -> ExchangeGuid {
    ExchangeGuid::from_u128(77 + mailbox as u128)
}

fn caller(tenant: TenantId) -> Caller {
    Caller {
        service_principal: PRINCIPAL,
        app_id: ApplicationId::from_u128(11),
        home_issuer: format!("https://{TARGET_DOMAIN}/{tenant}/v2.0"),
        home_tenant: tenant,
        roles: vec![ROLE_MAILBOX_MIGRATION.into()],
    }
}

fn principal(side: &Side, caller: &Caller, now: Timestamp) -> ServicePrincipal {
    ServicePrincipal {
        id: PRINCIPAL,
        tenant: side.tenant,
        issuer: caller.home_issuer.clone(),
        home_tenant: caller.home_tenant,
        app_id: caller.app_id,
        display_name: "Mover".into(),
        home_domains: vec![TARGET_DOMAIN.into()],
        outcome_endpoint: Some(format!("https://{TARGET_DOMAIN}/outcome")),
        pinned_keys: PinnedKeys {
            sequence: 1,
            keys: vec![],
        },
        roles: caller.roles.clone(),
        return_right: true,
        accepted_by: "admin".into(),
        accepted_at: now,
        expires_at: now + SignedDuration::from_hours(24 * 180),
        revoked_at: None,
    }
}

fn relationship(side: &Side, caller: &Caller) -> OrganizationRelationship {
    OrganizationRelationship {
        id: RelationshipId::from_u128(30),
        tenant: side.tenant,
        name: "fabrikam".into(),
        domain_names: vec![caller.home_tenant.to_string()],
        enabled: true,
        mailbox_move_enabled: true,
        mailbox_move_capability: MailboxMoveCapability {
            remote_outbound: true,
            ..Default::default()
        },
        mailbox_move_published_scopes: vec![GROUP],
        oauth_application_id: Some(caller.app_id),
        service_principal: Some(PRINCIPAL),
        // Many attempts fail here, and none is to wait for the next day.
        max_lock_attempts_per_day: 1000,
        content_retention_days: None,
        mailbox_return_without_approval: false,
    }
}

async fn fill_source(side: &Side, mailboxes: usize, caller: &Caller, now: Timestamp) {
    let scope = RecipientKind::Group(Group {
        group_type: GroupType::Security,
    });
    let scope = recipient(side.tenant, 21, "leaving", SOURCE_DOMAIN, scope);
    let mut all = Vec::new();
    for number in 0..mailboxes {
        let kind = RecipientKind::Mailbox(Mailbox {
            exchange_guid: guid(number),
            platform: "mail".into(),
            location: name(number),
            state: MailboxState::Open,
            litigation_hold: false,
            max_receive_size: 1 << 27,
        });
        let mailbox = recipient(side.tenant, 100 + number as u128, &name(number), SOURCE_DOMAIN, kind);
        side.platforms
            .create(&Place::from(mailbox.mailbox().unwrap()))
            .await
            .unwrap();
        all.push(mailbox);
    }
    let mut tx = side.store.write().await.unwrap();
    tx.recipient_insert(side.tenant, &scope).await.unwrap();
    for mailbox in all {
        tx.recipient_insert(side.tenant, &mailbox).await.unwrap();
        tx.group_member_add(side.tenant, GROUP, mailbox.id).await.unwrap();
    }
    tx.service_principal_put(side.tenant, &principal(side, caller, now))
        .await
        .unwrap();
    tx.relationship_insert(side.tenant, &relationship(side, caller))
        .await
        .unwrap();
    tx.commit("test").await.unwrap();
}

async fn fill_target(post: &Post, target: &Target, mailboxes: usize) {
    let mut users = Vec::new();
    let side = &post.target;
    for number in 0..mailboxes {
        let source = post
            .source
            .recipient(&address(number, SOURCE_DOMAIN).parse().unwrap())
            .await
            .unwrap();
        let kind = RecipientKind::MailUser(MailUser {
            external_email_address: Some(address(number, SOURCE_DOMAIN).parse().unwrap()),
            exchange_guid: Some(guid(number)),
            archive_guid: None,
        });
        let mut user = recipient(side.tenant, 200 + number as u128, &name(number), TARGET_DOMAIN, kind);
        user.email_addresses.push(source.legacy_exchange_dn.as_x500());
        users.push(user);
    }
    let endpoint = MigrationEndpoint {
        id: ENDPOINT,
        tenant: side.tenant,
        name: "contoso".into(),
        kind: EndpointKind::ExchangeRemoteMove(RemoteMove {
            remote_tenant: SOURCE_DOMAIN.into(),
            remote_tenant_id: None,
            application_id: ApplicationId::from_u128(11),
        }),
        remote_server: SOURCE_DOMAIN.into(),
        sealed_secret: Some(
            target
                .seal_secret(side.tenant, ENDPOINT, &"secret".to_owned().into())
                .unwrap(),
        ),
        max_concurrent_migrations: None,
        max_concurrent_incremental_syncs: None,
    };
    let mut tx = side.store.write().await.unwrap();
    for user in users {
        tx.recipient_insert(side.tenant, &user).await.unwrap();
    }
    tx.endpoint_insert(side.tenant, &endpoint).await.unwrap();
    tx.commit("test").await.unwrap();
}

impl Organisations {
    pub async fn new(seed: u64, mailboxes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let now = Arc::new(AtomicI64::new(1_800_000_000_000));
        let clock = Clock::from_fn({
            let now = Arc::clone(&now);
            move || Timestamp::from_millisecond(now.load(Ordering::SeqCst)).unwrap()
        });
        let side = async |folder: PathBuf, id: u128, domain: &str| {
            let store = Store::open(&folder).await.unwrap();
            Side {
                tenant: tenant(&store, id, domain).await,
                store,
                platforms: platforms(&folder.join("mail")),
            }
        };
        let post = Arc::new(Post::new(
            side(at("s"), 1, SOURCE_DOMAIN).await,
            side(at("t"), 2, TARGET_DOMAIN).await,
        ));
        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (source_smtp, target_smtp) = (listen().await, listen().await);
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let route =
            |folder: PathBuf, side: &Side, name, other| routing(&folder, &side.store, &side.platforms, name, other);
        let source_routing = route(
            at("s"),
            &post.source,
            "mx.contoso.example",
            (TARGET_DOMAIN, port(&target_smtp)),
        );
        let target_routing = route(
            at("t"),
            &post.target,
            "mx.fabrikam.example",
            (SOURCE_DOMAIN, port(&source_smtp)),
        );
        let caller = caller(post.target.tenant);
        fill_source(&post.source, mailboxes, &caller, clock.now()).await;
        let network = Network::new(seed);
        let source = source(&network, &post, &source_routing, &clock);
        *network.source.lock().unwrap() = Some(InProcess {
            source: source.clone(),
            tenant: post.source.tenant,
            caller,
            requests: Arc::default(),
            lost: Lost::default(),
            issuer: "https://contoso.example/1/v2.0".into(),
            home_domains: vec![SOURCE_DOMAIN.into()],
        });
        SealKey::generate_file(&folder.path().join("seal.key")).unwrap();
        let target = target(&network, &post, folder.path(), &clock);
        *network.target.lock().unwrap() = Some((target.clone(), post.target.tenant));
        fill_target(&post, &target, mailboxes).await;
        assert!(network.post.set(Arc::clone(&post)).is_ok());
        let served = |routing: Routing, listener| {
            tokio::spawn(async move { routing.serve(listener, std::future::pending::<()>()).await })
        };
        let servers = vec![
            served(source_routing.clone(), source_smtp),
            served(target_routing, target_smtp),
        ];
        let organisations = Self {
            network,
            post,
            source,
            target,
            mailboxes,
            now,
            clock,
            source_routing,
            servers,
            folder,
        };
        for number in 0..mailboxes {
            organisations.new_batch(number).await;
        }
        organisations
    }

    /// A batch for one mailbox, so that no two moves are due at the same moment: their ids, which would say who is first,
    /// are new in each run.
    async fn new_batch(&self, number: usize) {
        self.advance(SignedDuration::from_millis(1));
        let new = control::NewBatch {
            tenant: self.post.target.tenant,
            name: format!("wave {number}"),
            endpoint: ENDPOINT,
            target_delivery_domain: Some(TARGET_DOMAIN.parse().unwrap()),
            addresses: vec![address(number, TARGET_DOMAIN)],
            auto_start: true,
            auto_complete: false,
            complete_after: None,
            start_after: None,
            accept_unlocked: false,
            submitted_by: "admin".into(),
        };
        let mut tx = self.post.target.store.write().await.unwrap();
        control::batch_create(&mut tx, &new, self.now()).await.unwrap();
        tx.commit("test").await.unwrap();
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn advance(&self, by: SignedDuration) {
        self.now
            .fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// The source's process ends and another one begins over the same folder.
    pub fn restart_source(&mut self) {
        self.source = source(&self.network, &self.post, &self.source_routing, &self.clock);
        self.network.replace_source(self.source.clone());
    }

    /// As for the source; whoever drives it has ended its workers.
    pub fn restart_target(&mut self) {
        self.target = target(&self.network, &self.post, self.folder.path(), &self.clock);
        *self.network.target.lock().unwrap() = Some((self.target.clone(), self.post.target.tenant));
    }

    pub async fn set_consent(&self, given: bool) {
        let side = &self.post.source;
        let mut tx = side.store.write().await.unwrap();
        let mut principal = tx.service_principal_get(side.tenant, PRINCIPAL).await.unwrap().unwrap();
        principal.revoked_at = (!given).then(|| self.now());
        tx.service_principal_put(side.tenant, &principal).await.unwrap();
        tx.commit("test").await.unwrap();
    }

    pub async fn users(&self) -> Vec<Move> {
        let side = &self.post.target;
        let mut users = side
            .store
            .read()
            .await
            .unwrap()
            .move_list(side.tenant, None)
            .await
            .unwrap();
        users.sort_by(|a, b| a.email_address.cmp(&b.email_address));
        users
    }

    /// How many moves ended with a catch-up attempt.
    pub async fn catch_ups(&self) -> usize {
        let side = &self.post.source;
        let mut tx = side.store.read().await.unwrap();
        let mut count = 0;
        for mailbox in 0..self.mailboxes {
            let newest = tx.source_attempt_newest(side.tenant, guid(mailbox)).await.unwrap();
            count += usize::from(newest.is_some_and(|row| row.attempt.catches_up.is_some()));
        }
        count
    }

    pub async fn at_source(&self, mailbox: usize) -> Recipient {
        let address = address(mailbox, SOURCE_DOMAIN).parse().unwrap();
        self.post.source.recipient(&address).await.unwrap()
    }

    pub async fn at_target(&self, mailbox: usize) -> Recipient {
        let address = address(mailbox, TARGET_DOMAIN).parse().unwrap();
        self.post.target.recipient(&address).await.unwrap()
    }

    pub fn guid(&self, mailbox: usize) -> ExchangeGuid {
        guid(mailbox)
    }

    /// Everything that a mailbox holds: uid, flags and octets.
    pub async fn items(&self, side: &Side, recipient: &Recipient) -> Vec<(Uid, Flags, Vec<u8>)> {
        let place = Place::from(recipient.mailbox().unwrap());
        let mailbox = side.platforms.open(&place).await.unwrap();
        let mut all = Vec::new();
        for folder in mailbox.folders().await.unwrap() {
            let listing = mailbox.list(&folder.path, None).await.unwrap();
            let uids: Vec<_> = listing.items.iter().map(|i| i.uid).collect();
            if uids.is_empty() {
                continue;
            }
            let mut events = mailbox.read(FolderRef::any(&folder.path), &uids).await.unwrap();
            while let Some(event) = events.next().await {
                match event.unwrap() {
                    ReadEvent::Item(meta) => all.push((meta.uid, meta.flags, Vec::new())),
                    ReadEvent::Octets(octets) => all.last_mut().unwrap().2.extend_from_slice(&octets),
                    ReadEvent::End => {}
                    ReadEvent::Gone(uid) => panic!("{uid} is gone"),
                    ReadEvent::Failed { uid, error } => panic!("{uid}: {error}"),
                }
            }
        }
        all
    }

    pub async fn set_flags(&self, side: &Side, recipient: &Recipient, uid: Uid, flags: Flags) {
        let place = Place::from(recipient.mailbox().unwrap());
        let mailbox = side.platforms.open(&place).await.unwrap();
        let inbox = FolderPath::inbox();
        mailbox
            .set_flags(FolderRef::any(&inbox), &[(uid, flags)])
            .await
            .unwrap();
    }
}

impl Drop for Organisations {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

fn source(network: &Arc<Network>, post: &Post, routing: &Routing, clock: &Clock) -> Source {
    Source::new(
        post.source.store.clone(),
        post.source.platforms.clone(),
        routing.clone(),
        Arc::new(Line(Arc::clone(network))),
        clock.clone(),
        SourceSettings::default(),
    )
}

fn target(network: &Arc<Network>, post: &Post, folder: &std::path::Path, clock: &Clock) -> Target {
    let settings = TargetSettings {
        workers: 1,
        lease: LEASE,
        incremental_sync_interval: SignedDuration::from_hours(24),
        memory_budget: 16 << 20,
        spool: folder.join("t/spool-items"),
        read_back: true,
        max_receive_size: 1 << 27,
        longest_pause: 86_400,
    };
    Target::new(
        post.target.store.clone(),
        SealKey::load(&folder.join("seal.key")).unwrap(),
        post.target.platforms.clone(),
        Arc::new(Line(Arc::clone(network))),
        clock.clone(),
        settings,
    )
}
