use super::*;

/// Every kind of token at every door: only its own opens, whoever's key signed it.
#[tokio::test]
async fn every_token_at_every_door() {
    let world = World::ready().await;
    let identity = &world.source.identity;
    let keys = identity.keys(CONTOSO, at(0)).await.unwrap();
    let target_keys = world.target.identity.keys(FABRIKAM, at(0)).await.unwrap();
    let principal = identity
        .service_principal_by_app(CONTOSO, world.app.app_id)
        .await
        .unwrap()
        .unwrap();
    let admin = world.source.admin(CONTOSO).await;
    let dpop = world.target.identity.dpop_key();
    let endpoint = identity.public_name().token_endpoint(CONTOSO);
    let url = identity.public_name().mrs_endpoint(CONTOSO);
    let home = identity.issuer(CONTOSO);
    let target_home = world.target.identity.issuer(FABRIKAM);
    let make = async |kind: TokenType| -> String {
        match kind {
            TokenType::Access => world.token(0).await.unwrap().expose_secret().to_owned(),
            TokenType::Admin => sign_admin(&keys.token, identity.public_name(), &admin, at(0))
                .unwrap()
                .0
                .expose_secret()
                .to_owned(),
            TokenType::ClientAssertion => world.assertion(0).await.unwrap().expose_secret().to_owned(),
            TokenType::DpopProof => dpop.proof("POST", &url, None, at(0), Uuid::new_v4()).unwrap(),
            TokenType::AppDescription => world
                .target
                .identity
                .app_description(None, world.app.app_id, at(0))
                .await
                .unwrap(),
            TokenType::KeySet => {
                let grown = TenantKeysView {
                    keys: &target_keys,
                    sequence: 99,
                };
                grown.sign(&world.target.identity)
            }
            TokenType::Outcome => crate::statement::tests::outcome()
                .sign(&target_keys.statement, &target_home, at(0))
                .unwrap(),
            TokenType::Receipt => crate::statement::tests::receipt()
                .sign(&target_keys.statement, (&target_home, "https://keys.example"), at(0))
                .unwrap(),
        }
    };
    for door in TokenType::ALL {
        for kind in TokenType::ALL {
            let token = make(kind).await;
            let pinned = &principal.pinned_keys;
            let all: Vec<_> = crate::keyset::pinned_for(pinned, KeyPurpose::Token);
            let opened = match door {
                TokenType::Access => open_door(&world, &token, CONTOSO, 1).await.is_ok(),
                TokenType::Admin => identity
                    .check_admin(&token.as_str().into(), CONTOSO, at(1))
                    .await
                    .is_ok(),
                TokenType::ClientAssertion => check_assertion(&token, &all, &principal, &endpoint, at(1)).is_ok(),
                TokenType::DpopProof => {
                    check_proof(&token, "POST", &url, None, None, at(1), &ProofMemory::default()).is_ok()
                }
                TokenType::AppDescription => {
                    check_app_description(&token, world.target.identity.public_name(), world.app.app_id, at(1)).is_ok()
                }
                TokenType::KeySet => check_key_set(pinned, &target_home, &token, at(1)).is_ok(),
                TokenType::Outcome => OutcomeStatement::verify(&token, pinned, &target_home, at(1)).is_ok(),
                TokenType::Receipt => ReceiptStatement::verify(&token, pinned, &target_home, at(1)).is_ok(),
            };
            assert_eq!(opened, door == kind, "{kind:?} at the door for {door:?}");
        }
    }
    // The right claims under the wrong type, and the wrong claims under the right type, signed by the right key.
    let disguised = keys
        .token
        .sign(TokenType::Access, &serde_json::json!({ "iss": home, "aud": "x" }))
        .unwrap();
    assert!(open_door(&world, &disguised, CONTOSO, 1).await.is_err());
    // The statement key signs no tokens.
    let by_statement = sign_admin(&keys.statement, identity.public_name(), &admin, at(0))
        .unwrap()
        .0;
    assert!(identity.check_admin(&by_statement, CONTOSO, at(1)).await.is_err());
    assert!(
        check_admin(
            by_statement.expose_secret(),
            keys.token_keys(),
            identity.public_name(),
            CONTOSO,
            at(1)
        )
        .is_err()
    );
}

/// A key set with a chosen number.
struct TenantKeysView<'a> {
    keys: &'a TenantKeys,
    sequence: u64,
}

impl TenantKeysView<'_> {
    fn sign(&self, identity: &Identity) -> String {
        let claims = serde_json::json!({
            "iss": identity.issuer(FABRIKAM),
            "sequence": self.sequence,
            "keys": crate::keyset::publish(self.keys),
            "iat": at(0).as_second(),
            "exp": at(DAY).as_second(),
        });
        self.keys.token.sign(TokenType::KeySet, &claims).unwrap()
    }
}

/// Each claim of an access token is required and exact.
#[tokio::test]
async fn access_claims_one_by_one() {
    let world = World::ready().await;
    let identity = &world.source.identity;
    let keys = identity.keys(CONTOSO, at(0)).await.unwrap();
    let good = serde_json::json!({
        "iss": identity.issuer(CONTOSO), "aud": identity.public_name().mrs_audience(CONTOSO),
        "exp": at(600).as_second(), "iat": at(0).as_second(), "jti": "1", "tid": CONTOSO.to_string(),
        "oid": ServicePrincipalId::from_u128(1).to_string(), "sub": ServicePrincipalId::from_u128(1).to_string(),
        "azp": world.app.app_id.to_string(), "home_iss": world.target.identity.issuer(FABRIKAM),
        "home_tid": FABRIKAM.to_string(), "roles": ["Mailbox.Migration"], "idtyp": "app",
        "cnf": { "jkt": world.target.identity.dpop_key().thumbprint() }, "unknown": 1,
    });
    let open = async |claims: &serde_json::Value| {
        let token = keys.token.sign(TokenType::Access, claims).unwrap();
        open_door(&world, &token, CONTOSO, 1).await
    };
    assert!(open(&good).await.is_ok());
    for claim in good.as_object().unwrap().keys().filter(|k| *k != "unknown") {
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove(claim);
        assert!(open(&without).await.is_err(), "without {claim}");
        let mut changed = good.clone();
        changed[claim] = match claim.as_str() {
            "exp" => at(601).as_second().into(),
            "iat" => at(122).as_second().into(),
            "roles" => "Mailbox.Migration".into(),
            "cnf" => serde_json::json!({ "jkt": "other" }),
            "jti" => "".into(),
            "aud" => "https://outlook.office365.com".into(),
            _ => TenantId::from_u128(0x999).to_string().into(),
        };
        let taken = open(&changed).await;
        // Any GUID may stand in azp; the service principal is what the gate looks up.
        assert_eq!(taken.is_ok(), claim == "azp", "changed {claim}");
    }
}
