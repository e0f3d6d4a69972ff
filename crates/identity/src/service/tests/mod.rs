//! Two deployments (fabrikam the target, contoso and a neighbour tenant the sources) over real stores, with a virtual time.

use super::*;
use crate::{
    access::Presented,
    account::{AdminCaller, MINIMUM_PASSWORD_LENGTH, ORGANIZATION_MANAGEMENT, check_admin, sign_admin},
    application::mailbox_migration,
    authority::{PartnerAuthority, check_discovery},
    consent::{ConsentEffect, ConsentRequest},
    description::check_app_description,
    dpop::check_proof,
    error::{
        AccessError, AccountError, AdminTokenError, ConsentError, DpopError, KeySetError, SignInError, TokenError,
    },
    jws::TokenType,
    keyset::{check_key_set, tests::at},
    partner::{assertion_form, secret_form},
    seal::test_key,
    token::{ACCESS_LIFETIME, TokenAnswer, TokenRequest, check_assertion},
};
use rehome_domain::{
    consent::{ROLE_MAILBOX_MIGRATION, ServicePrincipal},
    error_id::{ErrorId, Problem},
    id::ServicePrincipalId,
    tenant::Tenant,
};
use rehome_store::{Application, SignInAudience};
use secrecy::ExposeSecret;

mod accounts;
mod doors;
mod returning;

const FABRIKAM: TenantId = TenantId::from_u128(0xfab);
const CONTOSO: TenantId = TenantId::from_u128(0xc0);
const NEIGHBOUR: TenantId = TenantId::from_u128(0x4e);
const DAY: i64 = 86_400;

struct Deployment {
    identity: Identity,
    _folder: tempfile::TempDir,
}

impl Deployment {
    async fn new(name: &str, tenants: &[(TenantId, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let identity = Identity::new(store, test_key(), IdentityConfig::new(name.parse().unwrap())).unwrap();
        for (id, domain) in tenants {
            let tenant = Tenant {
                id: *id,
                initial_domain: domain.parse().unwrap(),
                display_name: (*domain).into(),
            };
            identity
                .tenant_new(&tenant, &format!("admin@{domain}"), &Actor::operator(), at(0))
                .await
                .unwrap();
        }
        Self {
            identity,
            _folder: folder,
        }
    }

    /// The administrator of a tenant, as if signed in.
    async fn admin(&self, tenant: TenantId) -> AdminCaller {
        let account = self.identity.admin_list(tenant).await.unwrap().remove(0);
        AdminCaller {
            tenant,
            account: account.id,
            name: account.name,
            role_groups: vec![ORGANIZATION_MANAGEMENT.into()],
        }
    }

    fn partner(&self, tenant: TenantId) -> PartnerAuthority {
        let document = self.identity.discovery(tenant).to_string();
        check_discovery(self.identity.public_name(), document.as_bytes()).unwrap()
    }
}

struct World {
    target: Deployment,
    source: Deployment,
    app: Application,
    secret: SecretString,
}

fn from() -> TokenOrigin {
    TokenOrigin {
        address: "192.0.2.1".into(),
        correlation_id: CorrelationId::from_u128(7),
    }
}

fn request(app: &Application) -> ConsentRequest {
    ConsentRequest {
        client_id: app.app_id,
        redirect_uri: "https://office.com".into(),
        state: None,
        authority: None,
    }
}

const GRANT: ConsentGrant = ConsentGrant {
    days: None,
    return_right: true,
};

impl World {
    /// Application with secret in the target, nothing consented yet.
    async fn new() -> Self {
        let target = Deployment::new("mx.fabrikam.example", &[(FABRIKAM, "fabrikam.example")]).await;
        let source = Deployment::new(
            "mail.contoso.example:8443",
            &[(CONTOSO, "contoso.example"), (NEIGHBOUR, "neighbour.example")],
        )
        .await;
        let (app, secret) = register(&target.identity, FABRIKAM).await;
        Self {
            target,
            source,
            app,
            secret,
        }
    }

    /// The source's consent, through link and description as in life.
    async fn consent(&self, tenant: TenantId, second: i64) -> Result<Consented, ConsentError> {
        let link =
            self.target
                .identity
                .consent_link(&self.app, self.source.identity.public_name(), &tenant.to_string(), None);
        let request = ConsentRequest::parse(link.split_once('?').unwrap().1).unwrap();
        let DescriptionSource::Remote { url, authority } = self
            .source
            .identity
            .description_source(&request, at(second))
            .await
            .unwrap()
        else {
            panic!("the home is elsewhere")
        };
        assert_eq!(
            url,
            format!(
                "https://mx.fabrikam.example/{FABRIKAM}/applications/{}",
                self.app.app_id
            )
        );
        let document = self
            .target
            .identity
            .app_description(Some(FABRIKAM), self.app.app_id, at(second))
            .await
            .unwrap();
        let description = check_app_description(&document, &authority, request.client_id, at(second)).unwrap();
        let admin = self.source.admin(tenant).await;
        let identity = &self.source.identity;
        identity
            .consent_accept(
                tenant,
                &request,
                &description,
                &admin,
                GRANT,
                &Actor::operator(),
                at(second),
            )
            .await
    }

    async fn grant(&self) {
        let identity = &self.target.identity;
        identity
            .grant_at_home(
                FABRIKAM,
                self.app.app_id,
                ROLE_MAILBOX_MIGRATION,
                &Actor::operator(),
                at(0),
            )
            .await
            .unwrap();
    }

    async fn ready() -> Self {
        let world = Self::new().await;
        world.grant().await;
        world.consent(CONTOSO, 0).await.unwrap();
        world
    }

    async fn assertion(&self, second: i64) -> Result<SecretString, TokenError> {
        let partner = self.source.partner(CONTOSO);
        self.target
            .identity
            .assertion_for(FABRIKAM, self.app.app_id, &self.secret, &partner, at(second))
            .await
    }

    fn proof(&self, second: i64) -> String {
        let endpoint = self.source.partner(CONTOSO).token_endpoint;
        self.target
            .identity
            .dpop_key()
            .proof("POST", &endpoint, None, at(second), Uuid::new_v4())
            .unwrap()
    }

    async fn present(
        &self,
        tenant: TenantId,
        assertion: &SecretString,
        second: i64,
    ) -> Result<TokenAnswer, TokenError> {
        let form = assertion_form(self.app.app_id, assertion);
        let request = TokenRequest::parse(form.expose_secret().as_bytes()).unwrap();
        self.source
            .identity
            .token(tenant, &request, Some(&self.proof(second)), &from(), at(second))
            .await
    }

    async fn token(&self, second: i64) -> Result<SecretString, TokenError> {
        let assertion = self.assertion(second).await?;
        Ok(self.present(CONTOSO, &assertion, second).await?.access_token)
    }
}

async fn register(identity: &Identity, tenant: TenantId) -> (Application, SecretString) {
    let actor = Actor::operator();
    let app = identity
        .application_new(
            tenant,
            "Fabrikam mover",
            SignInAudience::AzureADMultipleOrgs,
            vec!["https://office.com".into()],
            Some(vec![mailbox_migration()]),
            &actor,
            at(0),
        )
        .await
        .unwrap();
    let secret = identity
        .secret_add(tenant, app.app_id, "first", None, &actor, at(0))
        .await
        .unwrap();
    assert_eq!(secret.stored.hint.len(), 3);
    assert!(!format!("{secret:?}").contains(secret.value.expose_secret()));
    (app, secret.value)
}

async fn open_door(
    world: &World,
    token: &str,
    tenant: TenantId,
    second: i64,
) -> Result<crate::access::AccessCaller, AccessError> {
    let url = format!("https://mail.contoso.example:8443/mrs/{tenant}/open?mailbox=1");
    let key = world.target.identity.dpop_key();
    let proof = key
        .proof("POST", &url, Some(&token.into()), at(second), Uuid::new_v4())
        .unwrap();
    let presented = Presented {
        token,
        proof: &proof,
        method: "POST",
        url: &url,
    };
    world.source.identity.check_access(&presented, tenant, at(second)).await
}

#[tokio::test]
async fn from_link_to_open_door_over_two_authorities() {
    let world = World::ready().await;
    let token = world.token(10).await.unwrap();
    let caller = open_door(&world, token.expose_secret(), CONTOSO, 20).await.unwrap();
    let principal = world
        .source
        .identity
        .service_principal_by_app(CONTOSO, world.app.app_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(caller.service_principal, principal.id);
    assert_eq!((caller.home_tenant, caller.tenant), (FABRIKAM, CONTOSO));
    assert!(caller.has_role(ROLE_MAILBOX_MIGRATION));
    assert_eq!(
        principal.outcome_endpoint,
        Some(format!("https://mx.fabrikam.example/{FABRIKAM}/outcome"))
    );
    assert_eq!(principal.expires_at, at(180 * DAY));
    assert_eq!(principal.home_domains, ["fabrikam.example"]);
    // It ends with its ten minutes.
    assert!(matches!(
        open_door(&world, token.expose_secret(), CONTOSO, 10 + ACCESS_LIFETIME).await,
        Err(AccessError::Expired)
    ));
    // Another tenant of the same deployment does not know it.
    let error = open_door(&world, token.expose_secret(), NEIGHBOUR, 20)
        .await
        .unwrap_err();
    assert_eq!(error.error_id(), ErrorId::InvalidAccessToken);
    // Copied by someone with another key, or with a recorded proof, it is useless.
    let url = format!("https://mail.contoso.example:8443/mrs/{CONTOSO}/open");
    let thief = DpopKey::generate().unwrap();
    let proof = thief.proof("POST", &url, Some(&token), at(20), Uuid::new_v4()).unwrap();
    let presented = Presented {
        token: token.expose_secret(),
        proof: &proof,
        method: "POST",
        url: &url,
    };
    let refused = world.source.identity.check_access(&presented, CONTOSO, at(20)).await;
    assert!(matches!(refused, Err(AccessError::Proof(DpopError::OtherKey))));
    let proof = world
        .target
        .identity
        .dpop_key()
        .proof("POST", &url, Some(&token), at(20), Uuid::new_v4())
        .unwrap();
    let presented = Presented {
        token: token.expose_secret(),
        proof: &proof,
        method: "POST",
        url: &url,
    };
    world
        .source
        .identity
        .check_access(&presented, CONTOSO, at(20))
        .await
        .unwrap();
    let refused = world.source.identity.check_access(&presented, CONTOSO, at(21)).await;
    assert!(matches!(refused, Err(AccessError::Proof(DpopError::Replayed))));
}

#[tokio::test]
async fn each_missing_step_has_its_own_refusal() {
    let world = World::new().await;
    let identity = &world.target.identity;
    let partner = world.source.partner(CONTOSO);
    let id = |e: TokenError| (e.aadsts(), e.error_id());
    let ask = async |secret: &SecretString, second: i64| {
        identity
            .assertion_for(FABRIKAM, world.app.app_id, secret, &partner, at(second))
            .await
            .map_err(id)
    };
    assert_eq!(
        ask(&"wrong".into(), 0).await.unwrap_err(),
        (Some(7_000_215), ErrorId::InvalidClientSecret)
    );
    assert_eq!(
        ask(&world.secret, 200 * DAY).await.unwrap_err(),
        (Some(7_000_222), ErrorId::ExpiredClientSecret)
    );
    assert_eq!(
        ask(&world.secret, 0).await.unwrap_err(),
        (Some(65_001), ErrorId::HomeConsentMissing)
    );
    world.grant().await;
    let assertion = ask(&world.secret, 0).await.unwrap();
    let nobody = rehome_domain::id::ApplicationId::from_u128(1);
    let unknown = identity
        .assertion_for(FABRIKAM, nobody, &world.secret, &partner, at(0))
        .await
        .map_err(id)
        .unwrap_err();
    assert_eq!(unknown.0, Some(700_016));

    // At the source: not consented, revoked and ended sound the same.
    let not_consented = world.present(CONTOSO, &assertion, 1).await.unwrap_err();
    world.consent(CONTOSO, 1).await.unwrap();
    let principal = world
        .source
        .identity
        .service_principal_by_app(CONTOSO, world.app.app_id)
        .await
        .unwrap()
        .unwrap();
    assert!(world.token(2).await.is_ok());
    assert!(
        world
            .source
            .identity
            .service_principal_revoke(CONTOSO, principal.id, &Actor::operator(), at(3))
            .await
            .unwrap()
    );
    assert!(
        !world
            .source
            .identity
            .service_principal_revoke(CONTOSO, principal.id, &Actor::operator(), at(3))
            .await
            .unwrap()
    );
    let revoked = world.token(4).await.unwrap_err();
    world.consent(CONTOSO, 5).await.unwrap();
    let renewed = world
        .source
        .identity
        .service_principal_by_app(CONTOSO, world.app.app_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        renewed.id, principal.id,
        "the same triple is the same service principal"
    );
    assert!(world.token(6).await.is_ok());
    let rest = identity
        .secret_add(
            FABRIKAM,
            world.app.app_id,
            "long",
            Some(at(400 * DAY)),
            &Actor::operator(),
            at(0),
        )
        .await
        .unwrap();
    let late = identity
        .assertion_for(FABRIKAM, world.app.app_id, &rest.value, &partner, at(190 * DAY))
        .await
        .unwrap();
    let ended = world.present(CONTOSO, &late, 190 * DAY).await.unwrap_err();
    for error in [&not_consented, &revoked, &ended] {
        assert_eq!(
            (error.aadsts(), error.error_id()),
            (Some(700_016), ErrorId::ApplicationNotConsented)
        );
        assert_eq!(error.to_string(), not_consented.to_string());
    }
    // What the caller is not told is in the source's log.
    let log = world
        .source
        .identity
        .0
        .store
        .read()
        .await
        .unwrap()
        .audit_list(CONTOSO, 0, 100)
        .await
        .unwrap();
    for reason in [
        "\"Consent\":\"revoked\"",
        "\"Consent\":\"ended\"",
        "\"action\":\"Consent\"",
        "Remove-MgServicePrincipal",
    ] {
        assert!(log.iter().any(|r| r.body.contains(reason)), "{reason}");
    }
    assert!(log.iter().all(|r| !r.body.contains(assertion.expose_secret())));
}

#[tokio::test]
async fn assertions_serve_once_one_tenant_and_five_minutes() {
    let world = World::ready().await;
    let assertion = world.assertion(0).await.unwrap();
    let why = |e: TokenError| (e.aadsts(), e.to_string());
    // Made for contoso, posted by a hostile contoso to its neighbour, which also consented.
    world.consent(NEIGHBOUR, 0).await.unwrap();
    let form = assertion_form(world.app.app_id, &assertion);
    let request = TokenRequest::parse(form.expose_secret().as_bytes()).unwrap();
    let endpoint = world.source.partner(NEIGHBOUR).token_endpoint;
    let proof = DpopKey::generate()
        .unwrap()
        .proof("POST", &endpoint, None, at(0), Uuid::new_v4())
        .unwrap();
    let stolen = world
        .source
        .identity
        .token(NEIGHBOUR, &request, Some(&proof), &from(), at(0))
        .await
        .map_err(why)
        .unwrap_err();
    assert!(stolen.1.contains("another token endpoint"), "{stolen:?}");

    assert!(world.present(CONTOSO, &assertion, 299).await.is_ok());
    let replayed = world.present(CONTOSO, &assertion, 299).await.unwrap_err();
    assert!(matches!(replayed, TokenError::AssertionReplayed));
    let late = world.assertion(0).await.unwrap();
    assert!(matches!(
        world.present(CONTOSO, &late, 300).await,
        Err(TokenError::AssertionInvalid { .. })
    ));
    let early = world.assertion(1000).await.unwrap();
    assert!(matches!(
        world.present(CONTOSO, &early, 879).await,
        Err(TokenError::AssertionInvalid { .. })
    ));

    // Without a proof, or with one for another place, there is no token.
    let fresh = world.assertion(0).await.unwrap();
    let form = assertion_form(world.app.app_id, &fresh);
    let request = TokenRequest::parse(form.expose_secret().as_bytes()).unwrap();
    let none = world
        .source
        .identity
        .token(CONTOSO, &request, None, &from(), at(0))
        .await;
    assert!(matches!(none, Err(TokenError::ProofMissing)));
    let wrong = world
        .source
        .identity
        .token(CONTOSO, &request, Some(&proof), &from(), at(0))
        .await;
    assert!(matches!(wrong, Err(TokenError::Proof(DpopError::OtherUrl { .. }))));
    let mut scoped = request.clone();
    scoped.scope = "https://graph.microsoft.com/.default".into();
    let scope = world
        .source
        .identity
        .token(CONTOSO, &scoped, Some(&world.proof(0)), &from(), at(0))
        .await;
    assert_eq!(scope.unwrap_err().aadsts(), Some(70_011));
}

#[tokio::test]
async fn an_unknown_key_stops_work_until_consent_is_renewed() {
    let world = World::ready().await;
    // The target lost its data folder and made new keys under the same name and GUID.
    let again = Deployment::new("mx.fabrikam.example", &[(FABRIKAM, "fabrikam.example")]).await;
    let keys = again.identity.keys(FABRIKAM, at(0)).await.unwrap();
    let endpoint = world.source.partner(CONTOSO).token_endpoint;
    let issuer = again.identity.issuer(FABRIKAM);
    let forged = crate::token::sign_assertion(&keys.token, &issuer, world.app.app_id, &endpoint, at(0)).unwrap();
    let error = world.present(CONTOSO, &forged, 0).await.unwrap_err();
    assert!(matches!(error, TokenError::KeyNotPinned { .. }));
    assert_eq!(Problem::from(&error).id, ErrorId::KeyNotPinned);
    let principal = world
        .source
        .identity
        .service_principal_by_app(CONTOSO, world.app.app_id)
        .await
        .unwrap()
        .unwrap();
    let set = again.identity.signed_key_set(FABRIKAM, at(0)).await.unwrap();
    let adopt = async |document: &str| {
        world
            .source
            .identity
            .adopt_key_set(CONTOSO, principal.id, document, &Actor::operator(), at(1))
            .await
    };
    assert!(matches!(adopt(&set).await, Err(KeySetError::NotPinned { .. })));
    // The true set has no higher number; after the target added a key it has.
    let set = world.target.identity.signed_key_set(FABRIKAM, at(0)).await.unwrap();
    assert!(matches!(adopt(&set).await, Err(KeySetError::SequenceDidNotGrow { .. })));
    let mut tx = world.target.identity.0.store.write().await.unwrap();
    let mut row = new_key_row(&test_key(), FABRIKAM, KeyPurpose::Token, at(0)).unwrap();
    row.retired = Some(at(1));
    tx.signing_key_insert(FABRIKAM, &row).await.unwrap();
    tx.commit("test").await.unwrap();
    world.target.identity.0.keys.write().unwrap().clear();
    let set = world.target.identity.signed_key_set(FABRIKAM, at(0)).await.unwrap();
    assert_eq!(adopt(&set).await.unwrap().pinned_keys.keys.len(), 3);
    assert!(world.token(5).await.is_ok());
}

#[tokio::test]
async fn both_tenants_under_one_authority() {
    let one = Deployment::new(
        "mail.contoso.example",
        &[(CONTOSO, "contoso.example"), (FABRIKAM, "fabrikam.example")],
    )
    .await;
    let identity = &one.identity;
    let (app, secret) = register(identity, FABRIKAM).await;
    let link = identity.consent_link(&app, identity.public_name(), "contoso.example", Some("s".into()));
    assert!(!link.contains("authority"), "{link}");
    let request = ConsentRequest::parse(link.split_once('?').unwrap().1).unwrap();
    let DescriptionSource::Local(description) = identity.description_source(&request, at(0)).await.unwrap() else {
        panic!("the home is here")
    };
    // The target's own administrator opens the same link at home.
    let home = one.admin(FABRIKAM).await;
    let granted = identity
        .consent_accept(
            FABRIKAM,
            &request,
            &description,
            &home,
            GRANT,
            &Actor::operator(),
            at(0),
        )
        .await
        .unwrap();
    assert_eq!(granted, Consented::AtHome);
    assert_eq!(identity.grants_at_home(FABRIKAM, app.app_id).await.unwrap().len(), 1);
    let admin = one.admin(CONTOSO).await;
    let actor = Actor::operator();
    assert_eq!(
        identity.consent_effect(CONTOSO, &request, &description).await.unwrap(),
        ConsentEffect::Create
    );
    // Only an administrator of this tenant, and not for longer than allowed.
    for (who, grant, code) in [
        (&home, GRANT, Some(90_094)),
        (
            &AdminCaller {
                role_groups: vec![],
                ..admin.clone()
            },
            GRANT,
            Some(90_094),
        ),
        (
            &admin,
            ConsentGrant {
                days: Some(181),
                ..GRANT
            },
            None,
        ),
        (&admin, ConsentGrant { days: Some(0), ..GRANT }, None),
    ] {
        let error = identity
            .consent_accept(CONTOSO, &request, &description, who, grant, &actor, at(0))
            .await
            .unwrap_err();
        assert_eq!(error.aadsts(), code, "{error}");
    }
    let form = secret_form(app.app_id, &secret);
    let token_request = TokenRequest::parse(form.expose_secret().as_bytes()).unwrap();
    let ask = async |request: &TokenRequest| {
        let endpoint = identity.public_name().token_endpoint(CONTOSO);
        let proof = identity
            .dpop_key()
            .proof("POST", &endpoint, None, at(1), Uuid::new_v4())
            .unwrap();
        identity.token(CONTOSO, request, Some(&proof), &from(), at(1)).await
    };
    assert_eq!(ask(&token_request).await.unwrap_err().aadsts(), Some(700_016));
    identity
        .consent_accept(CONTOSO, &request, &description, &admin, GRANT, &actor, at(0))
        .await
        .unwrap();
    let answer = ask(&token_request).await.unwrap();
    let url = format!("{}/x", identity.public_name().mrs_endpoint(CONTOSO));
    let proof = identity
        .dpop_key()
        .proof("GET", &url, Some(&answer.access_token), at(1), Uuid::new_v4())
        .unwrap();
    let presented = Presented {
        token: answer.access_token.expose_secret(),
        proof: &proof,
        method: "GET",
        url: &url,
    };
    assert_eq!(
        identity
            .check_access(&presented, CONTOSO, at(1))
            .await
            .unwrap()
            .home_tenant,
        FABRIKAM
    );
    let wrong = secret_form(app.app_id, &"wrong".into());
    let wrong = TokenRequest::parse(wrong.expose_secret().as_bytes()).unwrap();
    assert_eq!(ask(&wrong).await.unwrap_err().aadsts(), Some(7_000_215));
    identity
        .revoke_at_home(FABRIKAM, app.app_id, &actor, at(1))
        .await
        .unwrap();
    assert_eq!(
        ask(&token_request).await.unwrap_err().error_id(),
        ErrorId::HomeConsentMissing
    );
    // The assertion way works here too.
    identity
        .grant_at_home(FABRIKAM, app.app_id, ROLE_MAILBOX_MIGRATION, &actor, at(1))
        .await
        .unwrap();
    let assertion = identity
        .assertion_for(FABRIKAM, app.app_id, &secret, &one.partner(CONTOSO), at(1))
        .await
        .unwrap();
    let form = assertion_form(app.app_id, &assertion);
    assert!(
        ask(&TokenRequest::parse(form.expose_secret().as_bytes()).unwrap())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn the_same_ids_from_a_second_authority_are_refused() {
    let world = World::ready().await;
    // An attacker's deployment claims fabrikam's GUID, with another application.
    let evil = Deployment::new("evil.example", &[(FABRIKAM, "evil.example")]).await;
    let (app, _) = register(&evil.identity, FABRIKAM).await;
    let document = evil.identity.app_description(None, app.app_id, at(0)).await.unwrap();
    let description = check_app_description(&document, evil.identity.public_name(), app.app_id, at(0)).unwrap();
    let admin = world.source.admin(CONTOSO).await;
    let identity = &world.source.identity;
    let accept = async |request: &ConsentRequest, description| {
        identity
            .consent_accept(CONTOSO, request, description, &admin, GRANT, &Actor::operator(), at(0))
            .await
    };
    let error = accept(&request(&app), &description).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("mx.fabrikam.example") && text.contains("evil.example"),
        "{text}"
    );
    // The same app id under another authority.
    let mut same_app = description.clone();
    same_app.app_id = world.app.app_id;
    same_app.home_tenant = TenantId::from_u128(0xe);
    same_app.issuer = evil.identity.issuer(same_app.home_tenant);
    let error = accept(&request(&world.app), &same_app).await.unwrap_err();
    assert!(matches!(error, ConsentError::Conflict { .. }), "{error}");
    // A GUID of a tenant of the source's own deployment.
    let mut ours = description.clone();
    ours.home_tenant = NEIGHBOUR;
    ours.issuer = evil.identity.issuer(NEIGHBOUR);
    assert!(matches!(
        accept(&request(&app), &ours).await,
        Err(ConsentError::Conflict { .. })
    ));
    // A description asked of one server about an application of another home.
    assert!(
        evil.identity
            .app_description(Some(CONTOSO), app.app_id, at(0))
            .await
            .is_err()
    );
}
