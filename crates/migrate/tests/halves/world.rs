//! Two organisations ready to move one mailbox.

mod trouble;
mod way_back;

use crate::link::{InProcess, Lost};
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    address::{DomainName, LegacyExchangeDn},
    consent::{PinnedKeys, ROLE_MAILBOX_MIGRATION, ServicePrincipal},
    endpoint::{EndpointKind, MigrationEndpoint, RemoteMove},
    error_id::Problem,
    gate::Caller,
    id::{
        ApplicationId, AttemptId, BatchId, CorrelationId, EndpointId, ExchangeGuid, MoveId, RecipientId,
        RelationshipId, ServicePrincipalId, TenantId,
    },
    moves::{Move, UserStatus},
    recipient::{Group, GroupType, MailUser, Mailbox, MailboxState, Recipient, RecipientKind},
    relationship::{MailboxMoveCapability, OrganizationRelationship},
    tenant::Tenant,
};
use rehome_identity::SealKey;
use rehome_mailbox::ReadEvent;
use rehome_migrate::{
    Clock,
    protocol::{OutcomeAnswer, OutcomeRequest},
    source::{OutcomeAsker, Source, SourceSettings, VerbContext},
    target::{Target, TargetSettings, control},
};
use rehome_platform::{Place, PlatformConfig, Platforms};
use rehome_routing::{Route, Routing, RoutingSettings, Timeouts, TlsPolicy};
use rehome_store::{Store, Tx};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// The target's outcome address: silent unless it was told what to say.
#[derive(Clone, Default)]
struct OutcomeAddress(Arc<Mutex<Option<&'static str>>>);

#[async_trait::async_trait]
impl OutcomeAsker for OutcomeAddress {
    async fn ask(&self, _endpoint: &str, _request: &OutcomeRequest) -> Result<OutcomeAnswer, String> {
        let said = *self.0.lock().unwrap();
        let outcome = said.ok_or("nobody")?.to_owned();
        Ok(OutcomeAnswer { outcome })
    }
}

pub struct World {
    pub source: Source,
    pub source_tenant: TenantId,
    pub target_tenant: TenantId,
    pub exchange_guid: ExchangeGuid,
    caller: Caller,
    source_store: Store,
    target_store: Store,
    source_platforms: Platforms,
    target_platforms: Platforms,
    target_routing: Routing,
    /// Milliseconds by which both sides' clocks are ahead.
    ahead: Arc<AtomicI64>,
    /// Verbs that do not reach the source.
    lost: Lost,
    outcomes: OutcomeAddress,
    batch: Mutex<Option<BatchId>>,
    delivered: Mutex<Vec<Vec<u8>>>,
    group: RecipientId,
    mailbox: RecipientId,
    mail_user: RecipientId,
    source_routing: Routing,
    clock: Clock,
    /// What the target was made of, so that it can be made again.
    target_parts: (SealKey, InProcess, TargetSettings),
    target_stop: Mutex<watch::Sender<bool>>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    folder: tempfile::TempDir,
}

pub fn platforms(folder: &Path) -> Platforms {
    std::fs::create_dir_all(folder).unwrap();
    let config = PlatformConfig::Maildir {
        root: folder.to_owned(),
    };
    let state = folder.join(".state");
    Platforms::new(BTreeMap::from([("mail".to_owned(), config)]), None, &state).unwrap()
}

pub fn routing(folder: &Path, store: &Store, platforms: &Platforms, name: &str, other: (&str, u16)) -> Routing {
    let route = Route::parse(&format!("127.0.0.1:{}", other.1), TlsPolicy::None).unwrap();
    let settings = RoutingSettings {
        server_name: name.to_owned(),
        routes: BTreeMap::from([(other.0.to_owned(), route)]),
        max_message_size: 1 << 20,
        max_connections: 20,
        max_recipients: 10,
        spool: folder.join("spool"),
        server_tls: None,
        roots: Arc::new(tokio_rustls::rustls::RootCertStore::empty()),
        timeouts: Timeouts::default(),
    };
    Routing::new(settings, store.clone(), platforms.clone()).unwrap()
}

pub fn recipient(tenant: TenantId, id: u128, name: &str, domain: &str, kind: RecipientKind) -> Recipient {
    let id = RecipientId::from_u128(id);
    let domain: DomainName = domain.parse().unwrap();
    Recipient {
        id,
        tenant,
        name: name.into(),
        alias: name.into(),
        display_name: name.into(),
        user_principal_name: None,
        email_addresses: vec![format!("SMTP:{name}@{domain}").parse().unwrap()],
        legacy_exchange_dn: LegacyExchangeDn::for_recipient(&domain, id, name),
        kind,
        hidden: false,
        custom_attributes: vec![],
        created: Timestamp::UNIX_EPOCH,
        changed: Timestamp::UNIX_EPOCH,
    }
}

pub async fn tenant(store: &Store, id: u128, domain: &str) -> TenantId {
    let tenant = Tenant {
        id: TenantId::from_u128(id),
        initial_domain: domain.parse().unwrap(),
        display_name: domain.into(),
    };
    let mut tx = store.write().await.unwrap();
    tx.tenant_insert(&tenant, Timestamp::UNIX_EPOCH).await.unwrap();
    tx.commit("test").await.unwrap();
    tenant.id
}

impl World {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let (source_store, target_store) = (
            Store::open(&at("s")).await.unwrap(),
            Store::open(&at("t")).await.unwrap(),
        );
        let source_tenant = tenant(&source_store, 1, "contoso.example").await;
        let target_tenant = tenant(&target_store, 2, "fabrikam.example").await;
        let (source_platforms, target_platforms) = (platforms(&at("s/mail")), platforms(&at("t/mail")));
        let source_smtp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target_smtp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (source_port, target_port) = (
            source_smtp.local_addr().unwrap().port(),
            target_smtp.local_addr().unwrap().port(),
        );
        let source_routing = routing(
            &at("s"),
            &source_store,
            &source_platforms,
            "mx.contoso.example",
            ("fabrikam.example", target_port),
        );
        let target_routing = routing(
            &at("t"),
            &target_store,
            &target_platforms,
            "mx.fabrikam.example",
            ("contoso.example", source_port),
        );

        let exchange_guid = ExchangeGuid::from_u128(77);
        let caller = Caller {
            service_principal: ServicePrincipalId::from_u128(10),
            app_id: ApplicationId::from_u128(11),
            home_issuer: format!("https://fabrikam.example/{target_tenant}/v2.0"),
            home_tenant: target_tenant,
            roles: vec![ROLE_MAILBOX_MIGRATION.into()],
        };
        let group = RecipientId::from_u128(21);
        let mailbox = Self::fill_source(
            &source_store,
            source_tenant,
            &source_platforms,
            exchange_guid,
            &caller,
            group,
        )
        .await;
        let (outcomes, lost, ahead) = (OutcomeAddress::default(), Lost::default(), Arc::new(AtomicI64::new(0)));
        let clock = Clock::from_fn({
            let ahead = Arc::clone(&ahead);
            move || Timestamp::now() + SignedDuration::from_millis(ahead.load(Ordering::SeqCst))
        });
        let source = Source::new(
            source_store.clone(),
            source_platforms.clone(),
            source_routing.clone(),
            Arc::new(outcomes.clone()),
            clock.clone(),
            SourceSettings::default(),
        );
        let partner = InProcess {
            source: source.clone(),
            tenant: source_tenant,
            caller: caller.clone(),
            requests: Arc::default(),
            lost: lost.clone(),
            issuer: "https://contoso.example/1/v2.0".into(),
            home_domains: vec!["contoso.example".into()],
        };
        let key_file = folder.path().join("seal.key");
        let seal = SealKey::generate_file(&key_file).unwrap();
        let settings = TargetSettings {
            workers: 2,
            lease: SignedDuration::from_secs(60),
            incremental_sync_interval: SignedDuration::from_hours(24),
            memory_budget: 16 << 20,
            spool: at("t/spool-items"),
            read_back: true,
            max_receive_size: 1 << 27,
            longest_pause: 86_400,
        };
        let target = Target::new(
            target_store.clone(),
            seal.clone(),
            target_platforms.clone(),
            Arc::new(partner.clone()),
            clock.clone(),
            settings.clone(),
        );
        let mail_user = Self::fill_target(
            &target_store,
            target_tenant,
            &target,
            exchange_guid,
            &source_store,
            source_tenant,
            mailbox,
        )
        .await;

        let kept_routing = target_routing.clone();
        let kept_source_routing = source_routing.clone();
        let (target_stop, target_stopped) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let until = |mut stopped: watch::Receiver<bool>| async move {
            let _ = stopped.wait_for(|s| *s).await;
        };
        let tasks = vec![
            tokio::spawn({
                let (r, s) = (source_routing, until(stopped.clone()));
                async move { r.serve(source_smtp, s).await }
            }),
            tokio::spawn({
                let (r, s) = (target_routing, until(stopped.clone()));
                async move { r.serve(target_smtp, s).await }
            }),
            tokio::spawn({
                let (x, s) = (source.clone(), until(stopped.clone()));
                async move { x.run(s).await }
            }),
            tokio::spawn({
                let (x, s) = (target, until(target_stopped));
                async move { x.run(s).await }
            }),
        ];
        Self {
            source,
            source_tenant,
            target_tenant,
            exchange_guid,
            caller,
            source_store,
            target_store,
            source_platforms,
            target_platforms,
            target_routing: kept_routing,
            source_routing: kept_source_routing,
            clock,
            target_parts: (seal, partner, settings),
            target_stop: Mutex::new(target_stop),
            ahead,
            lost,
            outcomes,
            batch: Mutex::default(),
            delivered: Mutex::default(),
            group,
            mailbox,
            mail_user,
            stop,
            tasks: Mutex::new(tasks),
            folder,
        }
    }

    async fn fill_source(
        store: &Store,
        tenant: TenantId,
        platforms: &Platforms,
        guid: ExchangeGuid,
        caller: &Caller,
        group: RecipientId,
    ) -> RecipientId {
        let kind = RecipientKind::Mailbox(Mailbox {
            exchange_guid: guid,
            platform: "mail".into(),
            location: "user1".into(),
            state: MailboxState::Open,
            litigation_hold: false,
            max_receive_size: 1 << 27,
        });
        let mailbox = recipient(tenant, 20, "user1", "contoso.example", kind);
        platforms
            .create(&Place::from(mailbox.mailbox().unwrap()))
            .await
            .unwrap();
        let scope = recipient(
            tenant,
            21,
            "leaving",
            "contoso.example",
            RecipientKind::Group(Group {
                group_type: GroupType::Security,
            }),
        );
        let mut tx = store.write().await.unwrap();
        tx.recipient_insert(tenant, &mailbox).await.unwrap();
        tx.recipient_insert(tenant, &scope).await.unwrap();
        tx.group_member_add(tenant, group, mailbox.id).await.unwrap();
        let now = Timestamp::now();
        let principal = ServicePrincipal {
            id: caller.service_principal,
            tenant,
            issuer: caller.home_issuer.clone(),
            home_tenant: caller.home_tenant,
            app_id: caller.app_id,
            display_name: "Mover".into(),
            home_domains: vec!["fabrikam.example".into()],
            outcome_endpoint: Some("https://fabrikam.example/outcome".into()),
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
        };
        tx.service_principal_put(tenant, &principal).await.unwrap();
        let relationship = OrganizationRelationship {
            id: RelationshipId::from_u128(30),
            tenant,
            name: "fabrikam".into(),
            domain_names: vec![caller.home_tenant.to_string()],
            enabled: true,
            mailbox_move_enabled: true,
            mailbox_move_capability: MailboxMoveCapability {
                remote_outbound: true,
                ..Default::default()
            },
            mailbox_move_published_scopes: vec![group],
            oauth_application_id: Some(caller.app_id),
            service_principal: Some(caller.service_principal),
            max_lock_attempts_per_day: 3,
            content_retention_days: None,
            mailbox_return_without_approval: false,
        };
        tx.relationship_insert(tenant, &relationship).await.unwrap();
        tx.commit("test").await.unwrap();
        mailbox.id
    }

    async fn fill_target(
        store: &Store,
        tenant: TenantId,
        target: &Target,
        guid: ExchangeGuid,
        source_store: &Store,
        source_tenant: TenantId,
        mailbox: RecipientId,
    ) -> RecipientId {
        let source = source_store
            .read()
            .await
            .unwrap()
            .recipient_get(source_tenant, mailbox)
            .await
            .unwrap()
            .unwrap();
        let kind = RecipientKind::MailUser(MailUser {
            external_email_address: Some("user1@contoso.example".parse().unwrap()),
            exchange_guid: Some(guid),
            archive_guid: None,
        });
        let mut user = recipient(tenant, 40, "user1", "fabrikam.example", kind);
        user.email_addresses.push(source.legacy_exchange_dn.as_x500());
        let id = EndpointId::from_u128(41);
        let endpoint = MigrationEndpoint {
            id,
            tenant,
            name: "contoso".into(),
            kind: EndpointKind::ExchangeRemoteMove(RemoteMove {
                remote_tenant: "contoso.example".into(),
                remote_tenant_id: None,
                application_id: ApplicationId::from_u128(11),
            }),
            remote_server: "contoso.example".into(),
            sealed_secret: Some(target.seal_secret(tenant, id, &"secret".to_owned().into()).unwrap()),
            max_concurrent_migrations: None,
            max_concurrent_incremental_syncs: None,
        };
        let mut tx = store.write().await.unwrap();
        tx.recipient_insert(tenant, &user).await.unwrap();
        tx.endpoint_insert(tenant, &endpoint).await.unwrap();
        tx.commit("test").await.unwrap();
        user.id
    }

    pub async fn new_batch(&self, auto_start: bool) {
        let new = control::NewBatch {
            tenant: self.target_tenant,
            name: "wave 1".into(),
            endpoint: EndpointId::from_u128(41),
            target_delivery_domain: Some("fabrikam.example".parse().unwrap()),
            addresses: vec!["user1@fabrikam.example".into()],
            auto_start,
            auto_complete: false,
            complete_after: None,
            start_after: None,
            accept_unlocked: false,
            submitted_by: "admin".into(),
        };
        let mut tx = self.target_store.write().await.unwrap();
        let batch = control::batch_create(&mut tx, &new, Timestamp::now()).await.unwrap();
        tx.commit("test").await.unwrap();
        *self.batch.lock().unwrap() = Some(batch.id);
    }

    pub async fn request(&self, ask: impl AsyncFnOnce(&mut Tx, TenantId, BatchId, Timestamp) -> Result<(), Problem>) {
        let batch = self.batch.lock().unwrap().unwrap();
        let mut tx = self.target_store.write().await.unwrap();
        ask(&mut tx, self.target_tenant, batch, Timestamp::now()).await.unwrap();
        tx.commit("test").await.unwrap();
    }

    async fn user(&self) -> Option<Move> {
        let mut tx = self.target_store.read().await.unwrap();
        tx.move_list(self.target_tenant, None).await.unwrap().pop()
    }

    pub async fn wait_for(&self, status: UserStatus) -> Move {
        let started = Instant::now();
        loop {
            let user = self.user().await.expect("the migration user is there");
            if user.status == status && user.lease.is_none() && !user.sync_now {
                return user;
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "waited for {status}, found {user:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn wait_until_removed(&self) {
        let started = Instant::now();
        while let Some(user) = self.user().await {
            assert!(started.elapsed() < Duration::from_secs(60), "not removed: {user:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn deliver_at_source(&self, count: usize) {
        let place = Place {
            exchange_guid: self.exchange_guid,
            platform: "mail".into(),
            location: "user1".into(),
        };
        for n in 0..count {
            let message = format!("Subject: {n} {}\r\n\r\nbody\r\n", uuid::Uuid::new_v4()).into_bytes();
            let mut delivery = self.source_platforms.deliver_begin(&place).await.unwrap();
            delivery.write(&message).await.unwrap();
            let whole = delivery.finish().await.unwrap();
            let lock = self
                .source_platforms
                .deliver_lock(&place, Duration::from_secs(5))
                .await
                .unwrap();
            whole.publish(&lock).await.unwrap();
            self.delivered.lock().unwrap().push(message);
        }
    }

    pub fn octets_delivered(&self) -> Vec<Vec<u8>> {
        let mut all = self.delivered.lock().unwrap().clone();
        all.sort();
        all
    }

    pub async fn octets_at_target(&self) -> Vec<Vec<u8>> {
        use futures_util::StreamExt;
        let recipient = self.target_recipient().await;
        let mailbox = self
            .target_platforms
            .open(&Place::from(recipient.mailbox().unwrap()))
            .await
            .unwrap();
        let mut all = Vec::new();
        for folder in mailbox.folders().await.unwrap() {
            let listing = mailbox.list(&folder.path, None).await.unwrap();
            let uids: Vec<_> = listing.items.iter().map(|i| i.uid).collect();
            let mut events = mailbox
                .read(rehome_mailbox::FolderRef::any(&folder.path), &uids)
                .await
                .unwrap();
            while let Some(event) = events.next().await {
                match event.unwrap() {
                    ReadEvent::Item(_) => all.push(Vec::new()),
                    ReadEvent::Octets(octets) => all.last_mut().unwrap().extend_from_slice(&octets),
                    ReadEvent::End => {}
                    ReadEvent::Gone(uid) => panic!("{uid} is gone"),
                    ReadEvent::Failed { uid, error } => panic!("{uid}: {error}"),
                }
            }
        }
        all.sort();
        all
    }

    pub async fn source_recipient(&self) -> Recipient {
        self.source_store
            .read()
            .await
            .unwrap()
            .recipient_get(self.source_tenant, self.mailbox)
            .await
            .unwrap()
            .unwrap()
    }

    pub async fn target_recipient(&self) -> Recipient {
        self.target_store
            .read()
            .await
            .unwrap()
            .recipient_get(self.target_tenant, self.mail_user)
            .await
            .unwrap()
            .unwrap()
    }

    /// A request of the mover, as it reaches the source.
    pub fn context(&self, attempt: Option<AttemptId>) -> VerbContext {
        VerbContext {
            tenant: self.source_tenant,
            caller: self.caller.clone(),
            mailbox: self.exchange_guid,
            move_id: MoveId::from_u128(60),
            attempt,
            correlation: CorrelationId::from_u128(1),
            origin: "test".into(),
        }
    }

    pub async fn take_out_of_scope(&self) {
        let mut tx = self.source_store.write().await.unwrap();
        tx.group_member_remove(self.source_tenant, self.group, self.mailbox)
            .await
            .unwrap();
        tx.commit("test").await.unwrap();
    }

    /// Writes the state of the source's mailbox.
    pub async fn set_source_state(&self, state: MailboxState) {
        let recipient = self.source_recipient().await;
        let changed = rehome_domain::conversion::with_mailbox_state(&recipient, state, Timestamp::now()).unwrap();
        let mut tx = self.source_store.write().await.unwrap();
        tx.recipient_update(self.source_tenant, &changed).await.unwrap();
        tx.commit("test").await.unwrap();
    }

    pub async fn put_in_scope(&self) {
        let mut tx = self.source_store.write().await.unwrap();
        tx.group_member_add(self.source_tenant, self.group, self.mailbox)
            .await
            .unwrap();
        tx.commit("test").await.unwrap();
    }

    pub async fn stop(&self) {
        self.stop.send(true).unwrap();
        self.target_stop.lock().unwrap().send(true).unwrap();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        for task in tasks {
            task.await.unwrap();
        }
    }
}
