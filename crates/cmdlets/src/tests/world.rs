//! A deployment with two tenants, and a partner that says what the test wants.

use crate::{CommandError, Context, Output, invoke_json, registry};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rehome_command::{Object, Secrets};
use rehome_domain::{
    consent::{PinnedKeys, ROLE_MAILBOX_MIGRATION, ServicePrincipal},
    error_id::{ErrorId, Problem},
    id::{AccountId, ApplicationId, CorrelationId, ServicePrincipalId, TenantId},
    tenant::{AcceptedDomain, Tenant},
};
use rehome_identity::{AdminCaller, Identity, IdentityConfig, ORGANIZATION_MANAGEMENT, SealKey};
use rehome_migrate::{
    Clock,
    protocol::{OutcomeAnswer, OutcomeRequest},
    source::{OutcomeAsker, Source, SourceSettings},
    target::{
        Target, TargetSettings,
        partner::{Connected, Partner, PartnerAddress, PartnerDescription, PartnerError},
    },
};
use rehome_platform::{PlatformConfig, Platforms, Retry};
use rehome_routing::{Routing, RoutingSettings, Timeouts};
use rehome_store::Store;
use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

pub(super) const CONTOSO: TenantId = TenantId::from_u128(0xc0);
pub(super) const FABRIKAM: TenantId = TenantId::from_u128(0xfa);
/// A tenant elsewhere.
pub(super) const PARTNER: TenantId = TenantId::from_u128(0xbb);

/// Answers every request of a mover with one error id.
pub(super) struct PlayedPartner(Mutex<ErrorId>);

#[async_trait]
impl Partner for PlayedPartner {
    async fn connect(&self, _: &PartnerAddress, correlation: CorrelationId) -> Result<Connected, PartnerError> {
        let id = *self.0.lock().unwrap();
        let problem = Problem::new(id, format!("The partner plays {id}."), "Mend it.");
        Err(PartnerError {
            problem,
            retry: Retry::Never,
            correlation: Some(correlation),
        })
    }

    async fn describe(
        &self,
        address: &PartnerAddress,
        correlation: CorrelationId,
    ) -> Result<PartnerDescription, PartnerError> {
        match self.connect(address, correlation).await {
            Err(error) => Err(error),
            Ok(_) => unreachable!("it refuses every request"),
        }
    }

    async fn find_tenant(&self, _: &PartnerAddress, _: CorrelationId) -> Result<TenantId, PartnerError> {
        Ok(PARTNER)
    }
}

struct NobodyAsks;

#[async_trait]
impl OutcomeAsker for NobodyAsks {
    async fn ask(&self, _: &str, _: &OutcomeRequest) -> Result<OutcomeAnswer, String> {
        Err("nobody asks in this test".to_owned())
    }
}

pub(super) struct World {
    pub(super) context: Context,
    pub(super) platform: PathBuf,
    partner: Arc<PlayedPartner>,
    _folder: tempfile::TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let now: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
        let mut tx = store.write().await.unwrap();
        for (id, domain) in [(CONTOSO, "contoso.example"), (FABRIKAM, "fabrikam.example")] {
            let tenant = Tenant {
                id,
                initial_domain: domain.parse().unwrap(),
                display_name: domain.into(),
            };
            tx.tenant_insert(&tenant, now).await.unwrap();
            let second = AcceptedDomain {
                name: format!("mail.{domain}").parse().unwrap(),
                default: false,
            };
            tx.accepted_domain_insert(id, &second).await.unwrap();
        }
        tx.commit("test").await.unwrap();

        let platform = folder.path().join("mail");
        std::fs::create_dir(&platform).unwrap();
        let config = PlatformConfig::Maildir { root: platform.clone() };
        let state = folder.path().join("platforms");
        let platforms = Platforms::new(BTreeMap::from([("main".to_owned(), config)]), None, &state).unwrap();
        let seal = SealKey::generate_file(&folder.path().join("seal.key")).unwrap();
        let origin = "mail.contoso.example".parse().unwrap();
        let identity = Identity::new(store.clone(), seal.clone(), IdentityConfig::new(origin)).unwrap();
        let routing = RoutingSettings {
            server_name: "mail.contoso.example".into(),
            routes: BTreeMap::new(),
            max_message_size: 1 << 20,
            max_connections: 1,
            max_recipients: 1,
            spool: folder.path().join("spool"),
            server_tls: None,
            roots: Arc::new(tokio_rustls::rustls::RootCertStore::empty()),
            timeouts: Timeouts::default(),
        };
        let routing = Routing::new(routing, store.clone(), platforms.clone()).unwrap();
        let clock = Clock::from_fn(move || now);
        let source = Source::new(
            store.clone(),
            platforms.clone(),
            routing,
            Arc::new(NobodyAsks),
            clock.clone(),
            SourceSettings::default(),
        );
        let settings = TargetSettings {
            workers: 1,
            lease: SignedDuration::from_secs(60),
            incremental_sync_interval: SignedDuration::from_hours(24),
            memory_budget: 1 << 20,
            spool: folder.path().join("spool"),
            read_back: true,
            max_receive_size: 1 << 20,
            longest_pause: 86_400,
        };
        let partner = Arc::new(PlayedPartner(Mutex::new(ErrorId::MigrationServerConnectionFailed)));
        let played: Arc<dyn Partner> = Arc::<PlayedPartner>::clone(&partner);
        let target = Target::new(store.clone(), seal, platforms.clone(), played, clock, settings);
        let context = Context {
            store,
            identity,
            source,
            target,
            platforms,
            max_users_per_batch: 3,
            now,
            caller: administrator(CONTOSO, "admin@contoso.example"),
            origin: "127.0.0.1".into(),
            correlation: CorrelationId::from_u128(7),
        };
        Self {
            context,
            platform,
            partner,
            _folder: folder,
        }
    }

    /// What the partner answers from now on.
    pub(super) fn partner_plays(&self, id: ErrorId) {
        *self.partner.0.lock().unwrap() = id;
    }

    /// Runs a cmdlet as an administrator of Contoso.
    pub(super) async fn run(&self, name: &str, parameters: Json) -> Result<Output, CommandError> {
        run_in(&self.context, name, parameters).await
    }

    /// As [`Self::run`], where it must work.
    pub(super) async fn ok(&self, name: &str, parameters: Json) -> Output {
        self.run(name, parameters.clone())
            .await
            .unwrap_or_else(|e| panic!("{name} {parameters}: {e}"))
    }

    /// The one object that a cmdlet returns.
    pub(super) async fn one(&self, name: &str, parameters: Json) -> Json {
        let mut output = self.ok(name, parameters).await;
        assert_eq!(output.objects.len(), 1, "{name}");
        output.objects.remove(0).to_json(Secrets::Blank)
    }

    /// The error id with which a cmdlet fails, and its text.
    pub(super) async fn refused(&self, name: &str, parameters: Json) -> CommandError {
        match self.run(name, parameters.clone()).await {
            Ok(_) => panic!("{name} {parameters} was not refused"),
            Err(error) => error,
        }
    }

    /// A context in which an administrator of Fabrikam runs cmdlets.
    pub(super) fn fabrikam(&self) -> Context {
        Context {
            caller: administrator(FABRIKAM, "admin@fabrikam.example"),
            ..self.context.clone()
        }
    }

    /// Action and result of every audit row of Contoso, oldest first.
    pub(super) async fn audit(&self) -> Vec<(String, String, Json)> {
        let mut tx = self.context.store.read().await.unwrap();
        let rows = tx.audit_list(CONTOSO, 0, 1000).await.unwrap();
        let text = |v: &Json, name: &str| v[name].as_str().unwrap().to_owned();
        rows.iter()
            .map(|r| {
                let body: Json = serde_json::from_str(&r.body).unwrap();
                (text(&body, "action"), text(&body, "result"), body)
            })
            .collect()
    }

    /// Lets Contoso have consented to an application of the partner.
    pub(super) async fn consent(&self, app_id: ApplicationId) -> ServicePrincipalId {
        let principal = ServicePrincipal {
            id: ServicePrincipalId::from_u128(0x5e + app_id.as_u128()),
            tenant: CONTOSO,
            issuer: format!("https://mail.partner.example/{PARTNER}/v2.0"),
            home_tenant: PARTNER,
            app_id,
            display_name: "Partner's mover".into(),
            home_domains: vec!["partner.example".into()],
            outcome_endpoint: None,
            pinned_keys: PinnedKeys {
                sequence: 1,
                keys: Vec::new(),
            },
            roles: vec![ROLE_MAILBOX_MIGRATION.into()],
            return_right: true,
            accepted_by: "admin@contoso.example".into(),
            accepted_at: self.context.now,
            expires_at: self.context.now + SignedDuration::from_hours(24 * 180),
            revoked_at: None,
        };
        let mut tx = self.context.store.write().await.unwrap();
        tx.service_principal_put(CONTOSO, &principal).await.unwrap();
        tx.commit("test").await.unwrap();
        principal.id
    }

    /// Makes an empty Maildir on the platform.
    pub(super) fn maildir(&self, location: &str) {
        for part in ["cur", "new", "tmp"] {
            std::fs::create_dir_all(self.platform.join(location).join(part)).unwrap();
        }
    }
}

pub(super) fn administrator(tenant: TenantId, name: &str) -> AdminCaller {
    AdminCaller {
        tenant,
        account: AccountId::from_u128(1),
        name: name.into(),
        role_groups: vec![ORGANIZATION_MANAGEMENT.into()],
    }
}

/// Runs a cmdlet and checks that its objects have just the properties that are declared.
pub(super) async fn run_in(ctx: &Context, name: &str, parameters: Json) -> Result<Output, CommandError> {
    let output = invoke_json(ctx, name, parameters.as_object().unwrap()).await?;
    let declaration = &registry()
        .iter()
        .find(|c| c.declaration.name() == name)
        .unwrap()
        .declaration;
    let declared: Vec<&str> = declaration.output.iter().map(|p| p.name.as_str()).collect();
    for object in &output.objects {
        let mut returned: Vec<&str> = object.iter().map(|(name, _)| name).collect();
        let mut declared = declared.clone();
        returned.sort_unstable();
        declared.sort_unstable();
        assert_eq!(returned, declared, "{name}");
    }
    Ok(output)
}

pub(super) fn json(objects: &[Object]) -> Vec<Json> {
    objects.iter().map(|o| o.to_json(Secrets::Blank)).collect()
}
