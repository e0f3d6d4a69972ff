//! The token with which an old source takes its mailboxes back.

use super::*;
use crate::keyset::read_tenant_description;
use rehome_domain::{
    consent::{ROLE_MAILBOX_RETURN, return_client},
    id::ApplicationId,
};

/// A world in which Fabrikam has noted who Contoso is.
async fn noted() -> World {
    let world = World::ready().await;
    let document = world.source.identity.signed_key_set(CONTOSO, at(0)).await.unwrap();
    let said = read_tenant_description(&world.source.partner(CONTOSO), &document, at(0)).unwrap();
    assert_eq!(said.home_domains, ["contoso.example"]);
    let principal = ServicePrincipal {
        id: ServicePrincipalId::from_u128(0xbac),
        tenant: FABRIKAM,
        issuer: world.source.identity.issuer(CONTOSO),
        home_tenant: CONTOSO,
        app_id: return_client(CONTOSO),
        display_name: "Return to contoso.example".into(),
        home_domains: said.home_domains,
        outcome_endpoint: Some(said.outcome_endpoint),
        pinned_keys: said.keys,
        roles: vec![ROLE_MAILBOX_RETURN.into()],
        return_right: false,
        accepted_by: "admin@fabrikam.example".into(),
        accepted_at: at(0),
        expires_at: at(DAY),
        revoked_at: None,
    };
    put(&world, &principal).await;
    world
}

async fn put(world: &World, principal: &ServicePrincipal) {
    let mut tx = world.target.identity.0.store.write().await.unwrap();
    tx.service_principal_put(FABRIKAM, principal).await.unwrap();
    tx.commit("test").await.unwrap();
}

/// Presents an assertion to Fabrikam's token endpoint.
async fn present(
    world: &World,
    client: ApplicationId,
    assertion: &SecretString,
    second: i64,
) -> Result<TokenAnswer, TokenError> {
    let endpoint = world.target.partner(FABRIKAM).token_endpoint;
    let dpop = world.source.identity.dpop_key();
    let proof = dpop.proof("POST", &endpoint, None, at(second), Uuid::new_v4()).unwrap();
    let form = assertion_form(client, assertion);
    let request = TokenRequest::parse(form.expose_secret().as_bytes()).unwrap();
    world
        .target
        .identity
        .token(FABRIKAM, &request, Some(&proof), &from(), at(second))
        .await
}

async fn own_word(world: &World, tenant: TenantId) -> SecretString {
    let partner = world.target.partner(FABRIKAM);
    world
        .source
        .identity
        .return_assertion_for(tenant, &partner, at(0))
        .await
        .unwrap()
}

#[tokio::test]
async fn an_authority_speaks_for_itself() {
    let world = noted().await;
    let assertion = own_word(&world, CONTOSO).await;
    let token = present(&world, return_client(CONTOSO), &assertion, 0)
        .await
        .unwrap()
        .access_token;
    let url = format!("https://mx.fabrikam.example/mrs/{FABRIKAM}/open");
    let dpop = world.source.identity.dpop_key();
    let proof = dpop.proof("POST", &url, Some(&token), at(1), Uuid::new_v4()).unwrap();
    let presented = Presented {
        token: token.expose_secret(),
        proof: &proof,
        method: "POST",
        url: &url,
    };
    let caller = world
        .target
        .identity
        .check_access(&presented, FABRIKAM, at(1))
        .await
        .unwrap();
    assert_eq!(caller.roles, [ROLE_MAILBOX_RETURN]);
    assert_eq!((caller.home_tenant, caller.app_id), (CONTOSO, return_client(CONTOSO)));
    let again = present(&world, return_client(CONTOSO), &assertion, 2)
        .await
        .unwrap_err();
    assert!(matches!(again, TokenError::AssertionReplayed), "{again:?}");
}

#[tokio::test]
async fn nobody_else_speaks_for_it() {
    let world = noted().await;
    let client = return_client(CONTOSO);
    // A tenant beside it, of the same deployment.
    let beside = own_word(&world, NEIGHBOUR).await;
    let error = present(&world, client, &beside, 0).await.unwrap_err();
    assert!(matches!(error, TokenError::KeyNotPinned { .. }), "{error:?}");
    let error = present(&world, return_client(NEIGHBOUR), &beside, 0).await.unwrap_err();
    assert!(matches!(error, TokenError::NotFoundInTenant { .. }), "{error:?}");
    // Its own keys, but about an application; and about an application with the client's id.
    let keys = world.source.identity.keys(CONTOSO, at(0)).await.unwrap();
    let (issuer, endpoint) = (
        world.source.identity.issuer(CONTOSO),
        world.target.partner(FABRIKAM).token_endpoint,
    );
    for about in [world.app.app_id, client] {
        let assertion = crate::token::sign_assertion(&keys.token, &issuer, about, &endpoint, at(0)).unwrap();
        let error = present(&world, client, &assertion, 0).await.unwrap_err();
        assert!(matches!(error, TokenError::AssertionInvalid { .. }), "{error:?}");
    }
    // Made for another token endpoint.
    let elsewhere = world.source.partner(NEIGHBOUR);
    let astray = world
        .source
        .identity
        .return_assertion_for(CONTOSO, &elsewhere, at(0))
        .await
        .unwrap();
    let error = present(&world, client, &astray, 0).await.unwrap_err();
    assert!(matches!(error, TokenError::AssertionInvalid { .. }), "{error:?}");
}

/// An application's authority does not get its application's rights by speaking for itself, nor a token for returns.
#[tokio::test]
async fn an_authority_is_no_application() {
    let world = World::ready().await;
    let partner = world.source.partner(CONTOSO);
    let itself = world
        .target
        .identity
        .return_assertion_for(FABRIKAM, &partner, at(0))
        .await
        .unwrap();
    let error = world.present(CONTOSO, &itself, 0).await.unwrap_err();
    assert!(matches!(error, TokenError::AssertionInvalid { .. }), "{error:?}");
    let unknown = present(&world, return_client(CONTOSO), &own_word(&world, CONTOSO).await, 0).await;
    assert!(matches!(unknown, Err(TokenError::NotFoundInTenant { .. })));
}

#[tokio::test]
async fn a_withdrawn_or_ended_right_gives_no_token() {
    let world = noted().await;
    let client = return_client(CONTOSO);
    let ended = present(&world, client, &own_word(&world, CONTOSO).await, DAY)
        .await
        .unwrap_err();
    assert!(matches!(
        ended,
        TokenError::NotFoundInTenant { .. } | TokenError::AssertionInvalid { .. }
    ));
    let id = ServicePrincipalId::from_u128(0xbac);
    let target = &world.target.identity;
    assert!(
        target
            .service_principal_revoke(FABRIKAM, id, &Actor::operator(), at(1))
            .await
            .unwrap()
    );
    let revoked = present(&world, client, &own_word(&world, CONTOSO).await, 2)
        .await
        .unwrap_err();
    assert!(matches!(revoked, TokenError::NotFoundInTenant { .. }), "{revoked:?}");
}
