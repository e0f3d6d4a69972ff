//! Two deployments on loopback: the token endpoint, the MRS proxy's door, the administrators' interface, consent.

use crate::client::{
    AdminClient, AdminError, Bounds, Call, ConnectorSettings, ConsentAnswer, Fetcher, HttpsConnector, PartnerClient,
    TransportError, once,
};
use crate::server::{Limits, Listener, Offer, Services, router};
use crate::tls;
use crate::transport_tests::{Certificates, certificates};
use async_trait::async_trait;
use axum::Router;
use http::{HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use rehome_cmdlets::Context;
use rehome_console::{Console, DescriptionFetcher};
use rehome_domain::error_id::ErrorId;
use rehome_domain::id::{ApplicationId, AttemptId, CorrelationId, ExchangeGuid, MoveId, TenantId};
use rehome_domain::tenant::Tenant;
use rehome_identity::application::mailbox_migration;
use rehome_identity::dpop::DpopKey;
use rehome_identity::{Actor, Identity, IdentityConfig, SealKey, SignInAudience};
use rehome_migrate::Clock;
use rehome_migrate::protocol::{ExceptionBody, HeldBody, OutcomeRequest, PrepareRequest};
use rehome_migrate::source::{OutcomeAsker, Source, SourceSettings};
use rehome_migrate::target::partner::{MailboxRef, Partner, PartnerAddress};
use rehome_migrate::target::{Target, TargetSettings};
use rehome_platform::Platforms;
use rehome_routing::{Routing, RoutingSettings, Timeouts};
use rehome_store::Store;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

const SOURCE: TenantId = TenantId::from_u128(0x50);
const BYSTANDER: TenantId = TenantId::from_u128(0x51);
const TARGET: TenantId = TenantId::from_u128(0x7a);
const SOURCE_NAME: &str = "mail.contoso.example";
const TARGET_NAME: &str = "mail.fabrikam.example";
const PASSWORD: &str = "a long enough password";
const BOUNDS: Bounds = Bounds {
    time: Duration::from_secs(60),
    octets: 1024 * 1024,
};

struct FetchesDescriptions(Fetcher);

#[async_trait]
impl DescriptionFetcher for FetchesDescriptions {
    async fn fetch(&self, url: &str, correlation: CorrelationId) -> Result<String, String> {
        self.0
            .signed_document(url, correlation)
            .await
            .map_err(|error| error.to_string())
    }
}

/// One deployment's parts.
struct Deployment {
    identity: Identity,
    services: Services,
    console: Router,
    partner: PartnerClient,
    connector: HttpsConnector,
}

fn deployment(folder: &Path, store: Store, name: &str, connector: HttpsConnector) -> Deployment {
    let seal = SealKey::generate_file(&folder.join("key")).unwrap();
    let identity = Identity::new(store.clone(), seal, IdentityConfig::new(name.parse().unwrap())).unwrap();
    let platforms = Platforms::new(BTreeMap::new(), None, folder).unwrap();
    let settings = RoutingSettings {
        server_name: name.to_owned(),
        routes: BTreeMap::new(),
        max_message_size: 1024,
        max_connections: 1,
        max_recipients: 1,
        spool: folder.to_owned(),
        server_tls: None,
        roots: Arc::new(rustls::RootCertStore::empty()),
        timeouts: Timeouts::default(),
    };
    let routing = Routing::new(settings, store.clone(), platforms.clone()).unwrap();
    let clock = Clock::system();
    let fetcher = Fetcher::new(connector.clone());
    let source = Source::new(
        store.clone(),
        platforms.clone(),
        routing,
        Arc::new(fetcher.clone()),
        clock.clone(),
        SourceSettings::default(),
    );
    let partner = PartnerClient::new(connector.clone(), identity.clone(), clock.clone());
    let settings = TargetSettings {
        workers: 1,
        lease: SignedDuration::from_secs(60),
        incremental_sync_interval: SignedDuration::from_hours(24),
        memory_budget: 1024 * 1024,
        spool: folder.to_owned(),
        read_back: true,
        max_receive_size: 1024 * 1024,
        longest_pause: 86_400,
    };
    let seal = identity.seal_key().clone();
    let target = Target::new(
        store.clone(),
        seal,
        platforms.clone(),
        Arc::new(partner.clone()),
        clock.clone(),
        settings,
    );
    let made = (store, identity.clone(), source.clone(), target.clone(), platforms);
    let context = move |caller, origin, correlation| {
        let (store, identity, source, target, platforms) = made.clone();
        let now = Timestamp::now();
        Context {
            store,
            identity,
            source,
            target,
            platforms,
            max_users_per_batch: 100,
            now,
            caller,
            origin,
            correlation,
        }
    };
    let services = Services {
        identity: identity.clone(),
        source,
        target,
        clock,
        context: Arc::new(context),
    };
    let console = Console::new(identity.clone(), Arc::new(FetchesDescriptions(fetcher)), Timestamp::now).router();
    Deployment {
        identity,
        services,
        console,
        partner,
        connector,
    }
}

/// Two deployments that reach each other by override, the source with a second tenant.
struct Scene {
    _folder: tempfile::TempDir,
    _certificates: [Certificates; 2],
    source: Deployment,
    target: Deployment,
    source_code: SecretString,
    bystander_code: SecretString,
}

async fn bind(certificates: &Certificates) -> Listener {
    let tls = tls::server_config(&certificates.chain, &certificates.key).unwrap();
    Listener::bind("127.0.0.1:0".parse().unwrap(), Some(tls), Limits::default())
        .await
        .unwrap()
}

async fn tenant(identity: &Identity, id: TenantId, domain: &str) -> SecretString {
    let tenant = Tenant {
        id,
        initial_domain: domain.parse().unwrap(),
        display_name: domain.to_owned(),
    };
    identity
        .tenant_new(
            &tenant,
            &format!("admin@{domain}"),
            &Actor::operator(),
            Timestamp::now(),
        )
        .await
        .unwrap()
}

async fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let certificates = [certificates(SOURCE_NAME), certificates(TARGET_NAME)];
    let listeners = [bind(&certificates[0]).await, bind(&certificates[1]).await];
    let overrides: BTreeMap<String, SocketAddr> = [(SOURCE_NAME, &listeners[0]), (TARGET_NAME, &listeners[1])]
        .map(|(name, at)| (format!("{name}:443"), at.address()))
        .into();
    let roots = certificates.each_ref().map(|made| made.ca.clone());
    let settings = ConnectorSettings {
        overrides,
        ..ConnectorSettings::new(tls::client_config(&roots).unwrap())
    };
    let connector = HttpsConnector::new(settings);

    let mut made = Vec::new();
    for (listener, name) in listeners.into_iter().zip([SOURCE_NAME, TARGET_NAME]) {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let store = Store::open(&folder).await.unwrap();
        let deployment = deployment(&folder, store, name, connector.clone());
        let routes = router(
            deployment.services.clone(),
            deployment.console.clone(),
            Offer::Everything,
        );
        tokio::spawn(listener.serve(routes, CancellationToken::new()));
        made.push(deployment);
    }
    let target = made.pop().unwrap();
    let source = made.pop().unwrap();
    let source_code = tenant(&source.identity, SOURCE, "contoso.example").await;
    let bystander_code = tenant(&source.identity, BYSTANDER, "bystander.example").await;
    tenant(&target.identity, TARGET, "fabrikam.example").await;
    Scene {
        _folder: folder,
        _certificates: certificates,
        source,
        target,
        source_code,
        bystander_code,
    }
}

/// An application with its own organisation's consent and a secret, and the link for the partner.
async fn application(home: &Identity, tenant: TenantId) -> (ApplicationId, SecretString, Url) {
    let (operator, now) = (Actor::operator(), Timestamp::now());
    let redirects = vec!["https://office.com".to_owned()];
    let audience = SignInAudience::AzureADMultipleOrgs;
    let permissions = Some(vec![mailbox_migration()]);
    let made = home
        .application_new(tenant, "mover", audience, redirects, permissions, &operator, now)
        .await
        .unwrap();
    home.grant_at_home(tenant, made.app_id, "Mailbox.Migration", &operator, now)
        .await
        .unwrap();
    let secret = home
        .secret_add(tenant, made.app_id, "moves", None, &operator, now)
        .await
        .unwrap();
    let link = format!(
        "https://{SOURCE_NAME}/contoso.example/adminconsent?client_id={}&redirect_uri=https%3A%2F%2Foffice.com&authority={}",
        made.app_id,
        home.public_name()
    );
    (made.app_id, secret.value, Url::parse(&link).unwrap())
}

impl Scene {
    fn admin(&self) -> AdminClient {
        AdminClient::new(self.source.connector.clone(), SOURCE_NAME, "contoso.example").unwrap()
    }

    async fn session(&self) -> SecretString {
        let new = SecretString::from(PASSWORD);
        let signed_in = self
            .admin()
            .sign_in("admin@contoso.example", &self.source_code, Some(&new))
            .await
            .unwrap();
        assert_eq!(signed_in.tenant_id, SOURCE.to_string());
        signed_in.access_token
    }

    async fn consent(&self, link: &Url) {
        let (admin, session) = (self.admin(), self.session().await);
        let question = admin.consent_question(&session, link).await.unwrap();
        let led = admin
            .consent_answer(&session, link, &question.csrf, ConsentAnswer::Accept)
            .await
            .unwrap();
        assert!(
            led.starts_with(&format!("https://office.com/?tenant={SOURCE}")),
            "{led}"
        );
    }

    fn address(&self, app: ApplicationId, secret: &SecretString) -> PartnerAddress {
        PartnerAddress {
            home_tenant: TARGET,
            remote_server: SOURCE_NAME.to_owned(),
            remote_tenant: "contoso.example".to_owned(),
            remote_tenant_id: None,
            application_id: app,
            secret: secret.clone(),
            returning: false,
        }
    }
}

fn correlation() -> CorrelationId {
    CorrelationId(Uuid::new_v4())
}

fn mailbox() -> MailboxRef {
    MailboxRef {
        exchange_guid: ExchangeGuid::from_u128(1),
        move_id: MoveId::from_u128(2),
        correlation: correlation(),
    }
}

#[tokio::test]
async fn two_authorities_from_discovery_to_the_gate() {
    let scene = scene().await;
    let (app, secret, link) = application(&scene.target.identity, TARGET).await;
    let address = scene.address(app, &secret);
    assert_eq!(
        scene.target.partner.find_tenant(&address, correlation()).await.unwrap(),
        SOURCE
    );

    let error = scene
        .target
        .partner
        .connect(&address, correlation())
        .await
        .err()
        .unwrap();
    assert_eq!(error.problem.id, ErrorId::ApplicationNotConsented, "{error}");
    scene.consent(&link).await;
    let connected = scene.target.partner.connect(&address, correlation()).await.unwrap();
    assert_eq!(connected.tenant, SOURCE);

    // The token is taken; the gate refuses, because no relationship names this service principal.
    let asked = mailbox();
    let error = connected.proxy.open(asked).await.unwrap_err();
    assert_eq!(error.problem.id, ErrorId::SourceTenantNotAuthorized, "{error}");
    assert_eq!(error.correlation, Some(asked.correlation));
    let error = connected.proxy.link(mailbox()).folders().await.unwrap_err();
    assert_eq!(error.id, ErrorId::SourceTenantNotAuthorized.as_str());
    let inbox = rehome_replicate::FolderPath(vec!["INBOX".to_owned()]);
    let error = connected
        .proxy
        .link(mailbox())
        .listing(&inbox, None, true)
        .await
        .err()
        .unwrap();
    assert_eq!(error.id, ErrorId::SourceTenantNotAuthorized.as_str());
    let error = connected
        .proxy
        .lock(mailbox(), AttemptId::from_u128(7))
        .await
        .unwrap_err();
    assert_eq!(error.problem.id, ErrorId::SourceTenantNotAuthorized);
    let traffic = connected.proxy.traffic();
    assert_eq!(traffic.requests, 4);
    assert!(traffic.octets_received > 500);

    // Another mover asks over the same connections, without looking for the partner again.
    drop(connected);
    let again = scene.target.partner.connect(&address, correlation()).await.unwrap();
    assert_eq!(again.proxy.traffic().octets_received, 0);
    let error = again.proxy.lock(mailbox(), AttemptId::from_u128(7)).await.unwrap_err();
    assert_eq!(error.problem.id, ErrorId::SourceTenantNotAuthorized);
    // The refusal was looked into: once more, after everything was found as before.
    assert_eq!(again.proxy.traffic().requests, 2);
    assert!(again.proxy.traffic().octets_received < traffic.octets_received / 2);
    drop(again);
    let connected = scene.target.partner.connect(&address, correlation()).await.unwrap();

    // Prepare alone may be long: it names every item that differs.
    let exception = ExceptionBody {
        folder: vec!["x".repeat(1_000)],
        uid: 1,
        kind: "skipped".to_owned(),
        approved: true,
        held: HeldBody::default(),
        reason: None,
    };
    let long = PrepareRequest {
        attempt: AttemptId::from_u128(7).to_string(),
        root: String::new(),
        exceptions: vec![exception; 3_000],
        read_back: true,
        routing_address: String::new(),
        legacy_exchange_dn: String::new(),
        outcome_key: String::new(),
    };
    let error = connected.proxy.prepare(mailbox(), &long).await.unwrap_err();
    assert_eq!(error.problem.id, ErrorId::SourceTenantNotAuthorized, "{error}");
    let deep = rehome_replicate::FolderPath(vec!["x".repeat(1_000); 3_000]);
    let link = connected.proxy.link(mailbox());
    let error = link.listing(&deep, None, false).await.err().unwrap();
    assert_eq!(error.id, ErrorId::ParameterBinding.as_str(), "{error}");

    let wrong = PartnerAddress {
        secret: "x".into(),
        ..address.clone()
    };
    let error = scene.target.partner.connect(&wrong, correlation()).await.err().unwrap();
    assert_eq!(error.problem.id, ErrorId::InvalidClientSecret, "{error}");
    let moved = PartnerAddress {
        remote_tenant_id: Some(BYSTANDER),
        ..address.clone()
    };
    let error = scene.target.partner.connect(&moved, correlation()).await.err().unwrap();
    assert_eq!(error.problem.id, ErrorId::PartnerIdentityChanged, "{error}");
    let unknown = PartnerAddress {
        remote_tenant: "nobody.example".to_owned(),
        ..address.clone()
    };
    let error = scene
        .target
        .partner
        .find_tenant(&unknown, correlation())
        .await
        .err()
        .unwrap();
    assert_eq!(error.problem.id, ErrorId::InvalidTenant, "{error}");
    let nowhere = PartnerAddress {
        remote_server: "127.0.0.1:1".to_owned(),
        ..address
    };
    let error = scene
        .target
        .partner
        .find_tenant(&nowhere, correlation())
        .await
        .err()
        .unwrap();
    assert_eq!(error.problem.id, ErrorId::MigrationServerConnectionFailed, "{error}");
}

#[tokio::test]
async fn one_authority_for_both_tenants() {
    let scene = scene().await;
    let (app, secret, link) = application(&scene.source.identity, BYSTANDER).await;
    scene.consent(&link).await;
    let address = PartnerAddress {
        home_tenant: BYSTANDER,
        ..scene.address(app, &secret)
    };
    let connected = scene.source.partner.connect(&address, correlation()).await.unwrap();
    let error = connected.proxy.open(mailbox()).await.unwrap_err();
    assert_eq!(error.problem.id, ErrorId::SourceTenantNotAuthorized, "{error}");
}

/// A request to the proxy made by hand.
async fn knock(
    scene: &Scene,
    tenant: &str,
    token: Option<(&str, &SecretString)>,
    proof: Option<String>,
) -> (StatusCode, String) {
    let path = format!("https://{SOURCE_NAME}/mrs/{tenant}/mailboxes/{}/open", Uuid::nil());
    let mut call = Call::post(Url::parse(&path).unwrap(), "application/json", "{}");
    if let Some((scheme, token)) = token {
        let value = HeaderValue::from_str(&format!("{scheme} {}", token.expose_secret())).unwrap();
        call.headers.insert("authorization", value);
    }
    if let Some(proof) = proof {
        call.headers.insert("dpop", HeaderValue::from_str(&proof).unwrap());
    }
    call.headers.insert(
        "rehome-move-id",
        HeaderValue::from_str(&Uuid::nil().to_string()).unwrap(),
    );
    let answer = once(&scene.source.connector, &call, BOUNDS).await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    (answer.status, body["error"]["id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_copied_token_is_useless_and_other_tenants_are_unknown() {
    let scene = scene().await;
    let (app, secret, link) = application(&scene.target.identity, TARGET).await;
    scene.consent(&link).await;
    let here: rehome_identity::authority::Origin = SOURCE_NAME.parse().unwrap();
    let key = DpopKey::generate().unwrap();
    let (now, endpoint) = (Timestamp::now(), here.token_endpoint(SOURCE));
    let found = Fetcher::new(scene.source.connector.clone())
        .find_authority(&here, "contoso.example", correlation())
        .await
        .unwrap();
    let assertion = scene
        .target
        .identity
        .assertion_for(TARGET, app, &secret, &found, now)
        .await
        .unwrap();
    let form = rehome_identity::partner::assertion_form(app, &assertion);
    let mut call = Call::post(
        Url::parse(&endpoint).unwrap(),
        "application/x-www-form-urlencoded",
        form.expose_secret().to_owned(),
    );
    let proof = key.proof("POST", &endpoint, None, now, Uuid::new_v4()).unwrap();
    call.headers.insert("dpop", HeaderValue::from_str(&proof).unwrap());
    let answer = once(&scene.source.connector, &call, BOUNDS).await.unwrap();
    let token = rehome_identity::partner::read_token_answer(answer.status.as_u16(), &answer.body, now)
        .unwrap()
        .token;

    let (source, bystander) = (SOURCE.to_string(), BYSTANDER.to_string());
    let at = |tenant: &str| format!("https://{SOURCE_NAME}/mrs/{tenant}/mailboxes/{}/open", Uuid::nil());
    let proof = |key: &DpopKey, tenant: &str| {
        key.proof("POST", &at(tenant), Some(&token), Timestamp::now(), Uuid::new_v4())
            .unwrap()
    };
    let good = proof(&key, &source);
    let dpop = Some(("DPoP", &token));
    assert_eq!(
        knock(&scene, &source, dpop, Some(good.clone())).await,
        (StatusCode::FORBIDDEN, "SourceTenantNotAuthorizedException".to_owned())
    );
    let stranger = DpopKey::generate().unwrap();
    for (token, proof) in [
        (dpop, Some(good)),
        (dpop, Some(proof(&stranger, &source))),
        (dpop, Some(proof(&key, &bystander))),
        (dpop, None),
        (Some(("Bearer", &token)), Some(proof(&key, &source))),
        (Some(("DPoP", &assertion)), Some(proof(&key, &source))),
        (None, None),
    ] {
        let (status, id) = knock(&scene, &source, token, proof).await;
        assert_eq!(
            (status, id.as_str()),
            (StatusCode::UNAUTHORIZED, "InvalidAccessTokenException")
        );
    }
    // A token of another tenant here gets exactly what an unknown tenant gets.
    let unknown = Uuid::from_u128(0xdead).to_string();
    let other = knock(&scene, &bystander, dpop, Some(proof(&key, &bystander))).await;
    assert_eq!(other, knock(&scene, &unknown, dpop, Some(proof(&key, &unknown))).await);
    assert_eq!(other.1, "InvalidTenantException");
}

#[tokio::test]
async fn administrators_see_their_own_tenant_only() {
    let scene = scene().await;
    let (admin, session) = (scene.admin(), scene.session().await);
    assert!(!admin.commands(&session).await.unwrap().is_empty());
    let invoked = admin
        .invoke(&session, "Get-AcceptedDomain", serde_json::json!({}))
        .await
        .unwrap();
    assert_eq!(invoked.value[0]["DomainName"], "contoso.example");
    let AdminError::Refused(refusal) = admin
        .invoke(&session, "Get-Nothing", serde_json::json!({}))
        .await
        .unwrap_err()
    else {
        panic!("a refusal was expected")
    };
    assert_eq!(
        (refusal.id.as_str(), refusal.category.as_str()),
        ("CommandNotFoundException", "ObjectNotFound")
    );
    assert!(!refusal.correlation_id.is_empty());

    let other = AdminClient::new(scene.source.connector.clone(), SOURCE_NAME, "bystander.example").unwrap();
    let unknown = AdminClient::new(scene.source.connector.clone(), SOURCE_NAME, "nobody.example").unwrap();
    for client in [&other, &unknown] {
        let AdminError::Refused(refusal) = client.commands(&session).await.unwrap_err() else {
            panic!("a refusal was expected")
        };
        assert_eq!(refusal.id, "InvalidTenantException");
    }
    let garbled = SecretString::from("no.token.this");
    assert!(matches!(
        admin.commands(&garbled).await.unwrap_err(),
        AdminError::NotSignedIn(_)
    ));
    let new = SecretString::from(PASSWORD);
    let bystander = other
        .sign_in("admin@bystander.example", &scene.bystander_code, Some(&new))
        .await
        .unwrap();
    assert!(other.commands(&bystander.access_token).await.is_ok());
    assert!(matches!(
        other.sign_in("admin@bystander.example", &"wrong".into(), None).await,
        Err(AdminError::NotSignedIn(_))
    ));
}

#[tokio::test]
async fn delegated_org_must_be_the_sessions_tenant() {
    let scene = scene().await;
    let session = scene.session().await;
    for (org, good) in [
        ("contoso.example", true),
        (&SOURCE.to_string(), true),
        ("bystander.example", false),
        ("x", false),
    ] {
        let url = format!("https://{SOURCE_NAME}/adminapi/beta/{SOURCE}/Commands?DelegatedOrg={org}");
        let mut call = Call::get(Url::parse(&url).unwrap());
        let bearer = HeaderValue::from_str(&format!("Bearer {}", session.expose_secret())).unwrap();
        call.headers.insert("authorization", bearer);
        let answer = once(&scene.source.connector, &call, BOUNDS).await.unwrap();
        assert_eq!(answer.status.is_success(), good, "{org}");
        assert_eq!(answer.status == StatusCode::BAD_REQUEST, !good, "{org}");
    }
}

#[tokio::test]
async fn what_bodies_and_media_types_get() {
    let scene = scene().await;
    let post = async |path: &str, media: &'static str, body: String| {
        let url = Url::parse(&format!("https://{SOURCE_NAME}{path}")).unwrap();
        once(&scene.source.connector, &Call::post(url, media, body), BOUNDS)
            .await
            .unwrap()
    };
    let form = "application/x-www-form-urlencoded";
    let token = format!("/{SOURCE}/oauth2/v2.0/token");
    let long = post(&token, form, format!("client_secret={}", "x".repeat(70_000))).await;
    assert_eq!(long.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        post(&token, "application/json", "{}".to_owned()).await.status,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    let missing = post(&token, form, String::new()).await;
    assert!(
        missing.status == StatusCode::BAD_REQUEST && String::from_utf8_lossy(&missing.body).contains("AADSTS900144")
    );
    let unknown = post("/nobody.example/oauth2/v2.0/token", form, String::new()).await;
    assert!(String::from_utf8_lossy(&unknown.body).contains("invalid_tenant"));
    let sign_in = post(
        "/contoso.example/signin",
        "application/json",
        r#"{"Password":"hidden-secret"}"#.to_owned(),
    )
    .await;
    assert_eq!(sign_in.status, StatusCode::BAD_REQUEST);
    assert!(!String::from_utf8_lossy(&sign_in.body).contains("hidden-secret"));
    let outcome = post(
        &format!("/{SOURCE}/outcome"),
        "application/json",
        r#"{"attempt":"x","key":""}"#.to_owned(),
    )
    .await;
    assert_eq!(outcome.status, StatusCode::NOT_FOUND);
    let command = post(
        &format!("/adminapi/beta/{SOURCE}/InvokeCommand"),
        "application/json",
        "x".repeat(70_000),
    )
    .await;
    assert_eq!(
        command.status,
        StatusCode::UNAUTHORIZED,
        "no body is read before sign-in"
    );

    let mut call = Call::get(Url::parse(&format!("https://{SOURCE_NAME}/healthz")).unwrap());
    let asked = correlation();
    call.correlate(asked);
    let health = once(&scene.source.connector, &call, BOUNDS).await.unwrap();
    assert_eq!(health.headers["client-request-id"], asked.to_string().as_str());
}

#[tokio::test]
async fn the_outcome_of_an_unknown_attempt_is_not_told() {
    let scene = scene().await;
    let fetcher = Fetcher::new(scene.source.connector.clone());
    let request = OutcomeRequest {
        attempt: Uuid::nil().to_string(),
        key: "AAAA".to_owned(),
    };
    let error = fetcher
        .ask(&format!("https://{TARGET_NAME}/{TARGET}/outcome"), &request)
        .await
        .unwrap_err();
    assert!(error.contains("404"), "{error}");
}

#[tokio::test]
async fn cancelled_consent_leaves_the_application_unknown() {
    let scene = scene().await;
    let (app, secret, link) = application(&scene.target.identity, TARGET).await;
    let (admin, session) = (scene.admin(), scene.session().await);
    let question = admin.consent_question(&session, &link).await.unwrap();
    assert_eq!(
        (question.display_name.as_str(), question.app_id),
        ("mover", app.to_string())
    );
    let AdminError::Refused(refusal) = admin
        .consent_answer(&session, &link, "guessed", ConsentAnswer::Accept)
        .await
        .unwrap_err()
    else {
        panic!("a refusal was expected")
    };
    assert_eq!(refusal.id, "AccessDeniedException");
    let led = admin
        .consent_answer(&session, &link, &question.csrf, ConsentAnswer::Cancel)
        .await
        .unwrap();
    assert!(led.contains("error=permission_denied"), "{led}");
    let error = scene
        .target
        .partner
        .connect(&scene.address(app, &secret), correlation())
        .await
        .err()
        .unwrap();
    assert_eq!(error.problem.id, ErrorId::ApplicationNotConsented);
    let elsewhere = Url::parse("https://evil.example/contoso.example/adminconsent").unwrap();
    assert!(matches!(
        admin.consent_question(&session, &elsewhere).await,
        Err(AdminError::OtherPlace { .. })
    ));
}

#[tokio::test]
async fn without_a_certificate_only_command_line_and_health_are_served() {
    let scene = scene().await;
    let services = scene.source.services.clone();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), None, Limits::default())
        .await
        .unwrap();
    let base = format!("http://{}", listener.address());
    let routes = router(services, scene.source.console.clone(), Offer::CommandLineOnly);
    tokio::spawn(listener.serve(routes, CancellationToken::new()));
    let admin = AdminClient::new(scene.source.connector.clone(), &base, "contoso.example").unwrap();
    assert_eq!(admin.health().await.unwrap()["status"], "ok");
    let new = SecretString::from(PASSWORD);
    let signed_in = admin
        .sign_in("admin@contoso.example", &scene.source_code, Some(&new))
        .await
        .unwrap();
    assert!(admin.commands(&signed_in.access_token).await.is_ok());
    for path in [
        format!("/mrs/{SOURCE}/mailboxes/{SOURCE}/open"),
        format!("/{SOURCE}/oauth2/v2.0/token"),
        "/powershell".to_owned(),
        "/contoso.example/adminconsent".to_owned(),
        "/contoso.example/v2.0/.well-known/openid-configuration".to_owned(),
    ] {
        let url = Url::parse(&format!("{base}{path}")).unwrap();
        let answer = once(
            &scene.source.connector,
            &Call::post(url, "application/json", "{}"),
            BOUNDS,
        )
        .await
        .unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(
            String::from_utf8_lossy(&answer.body).contains("no certificate"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_ours_is_named() {
    let certificates = certificates(SOURCE_NAME);
    let listener = bind(&certificates).await;
    let mut settings = ConnectorSettings::new(tls::client_config(std::slice::from_ref(&certificates.ca)).unwrap());
    settings
        .overrides
        .insert(format!("{SOURCE_NAME}:443"), listener.address());
    tokio::spawn(listener.serve(Router::new(), CancellationToken::new()));
    let fetcher = Fetcher::new(HttpsConnector::new(settings));
    let error = fetcher
        .find_authority(&SOURCE_NAME.parse().unwrap(), "contoso.example", correlation())
        .await
        .unwrap_err();
    let crate::client::FindError::Transport(TransportError::Unexpected { server, .. }) = error else {
        panic!("{error}")
    };
    assert!(server.contains(SOURCE_NAME) && server.contains("connection override"));
}
