use super::*;

#[tokio::test]
async fn sign_in_from_first_code_to_reset() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    let identity = Identity::new(
        store,
        test_key(),
        IdentityConfig::new("mail.contoso.example".parse().unwrap()),
    )
    .unwrap();
    let tenant = Tenant {
        id: CONTOSO,
        initial_domain: "contoso.example".parse().unwrap(),
        display_name: "Contoso".into(),
    };
    let actor = Actor::operator();
    let name = "Admin@contoso.example";
    assert!(matches!(
        identity.tenant_new(&tenant, "admin", &actor, at(0)).await,
        Err(AccountError::BadName { .. })
    ));
    let code = identity.tenant_new(&tenant, name, &actor, at(0)).await.unwrap();
    assert_eq!(
        identity
            .tenant_new(&tenant, name, &actor, at(0))
            .await
            .unwrap_err()
            .error_id(),
        ErrorId::ObjectAlreadyExists
    );
    let password = SecretString::from("correct horse battery");
    let sign_in = async |password: &SecretString, new: Option<&SecretString>, second: i64| {
        identity
            .sign_in(CONTOSO, "admin@CONTOSO.example", password, new, "192.0.2.1", at(second))
            .await
    };
    assert!(matches!(
        sign_in(&"wrong".into(), Some(&password), 1).await,
        Err(SignInError::Refused)
    ));
    assert!(matches!(
        sign_in(&code, None, 1).await,
        Err(SignInError::NewPasswordRequired)
    ));
    let short = SecretString::from("x".repeat(MINIMUM_PASSWORD_LENGTH - 1));
    assert!(matches!(
        sign_in(&code, Some(&short), 1).await,
        Err(SignInError::BadPassword)
    ));
    assert!(
        matches!(sign_in(&code, Some(&password), DAY).await, Err(SignInError::Refused)),
        "24 hours"
    );
    let session = sign_in(&code, Some(&password), 2).await.unwrap();
    assert!(session.caller.is_member_of(ORGANIZATION_MANAGEMENT));
    assert!(!format!("{session:?}").contains(session.token.expose_secret()));
    assert!(
        matches!(sign_in(&code, Some(&password), 3).await, Err(SignInError::Refused)),
        "single use"
    );
    let caller = identity.check_admin(&session.token, CONTOSO, at(3)).await.unwrap();
    assert_eq!((caller.name.as_str(), caller.account), (name, session.caller.account));
    assert!(matches!(
        identity.check_admin(&session.token, CONTOSO, at(2 + 8 * 3600)).await,
        Err(AdminTokenError::Ended)
    ));
    assert!(
        identity
            .check_admin(&session.token, TenantId::from_u128(1), at(3))
            .await
            .is_err()
    );
    assert!(sign_in(&password, None, 4).await.is_ok());

    // Groups are those of now; the last member stays.
    let last = identity
        .role_group_remove(CONTOSO, ORGANIZATION_MANAGEMENT, name, &actor, at(5))
        .await;
    assert!(matches!(last, Err(AccountError::LastMember { .. })));
    identity
        .admin_new(CONTOSO, "second@contoso.example", &actor, at(5))
        .await
        .unwrap();
    assert!(
        identity
            .role_group_remove(CONTOSO, ORGANIZATION_MANAGEMENT, name, &actor, at(5))
            .await
            .unwrap()
    );
    assert!(
        identity
            .check_admin(&session.token, CONTOSO, at(6))
            .await
            .unwrap()
            .role_groups
            .is_empty()
    );
    assert!(
        identity
            .role_group_add(CONTOSO, ORGANIZATION_MANAGEMENT, name, &actor, at(6))
            .await
            .unwrap()
    );

    // A reset ends password and sessions.
    let code = identity.admin_reset(CONTOSO, name, &actor, at(10)).await.unwrap();
    assert!(matches!(
        identity.check_admin(&session.token, CONTOSO, at(11)).await,
        Err(AdminTokenError::Ended)
    ));
    assert!(matches!(sign_in(&password, None, 11).await, Err(SignInError::Refused)));
    assert!(sign_in(&code, Some(&password), 12).await.is_ok());
    assert!(matches!(
        identity.admin_reset(CONTOSO, "x@y.example", &actor, at(0)).await,
        Err(AccountError::NotFound { .. })
    ));

    // Guessing is slowed before anything is hashed, for known and unknown names alike.
    for (who, address) in [
        ("admin@contoso.example", "192.0.2.7"),
        ("nobody@contoso.example", "192.0.2.8"),
    ] {
        for _ in 0..10 {
            let refused = identity
                .sign_in(CONTOSO, who, &"guess".into(), None, address, at(20))
                .await;
            assert!(matches!(refused, Err(SignInError::Refused)));
        }
        let later = identity
            .sign_in(CONTOSO, who, &"guess".into(), None, "192.0.2.9", at(20))
            .await
            .unwrap_err();
        assert!(matches!(later, SignInError::TryLater { seconds: 1 }));
        assert_eq!(later.http_status(), 429);
    }
    assert!(
        identity
            .0
            .store
            .read()
            .await
            .unwrap()
            .audit_first_break(CONTOSO)
            .await
            .unwrap()
            .is_none()
    );
    let log = identity
        .0
        .store
        .read()
        .await
        .unwrap()
        .audit_list(CONTOSO, 0, 100)
        .await
        .unwrap();
    assert!(
        log.iter()
            .all(|r| !r.body.contains("correct horse") && !r.body.contains(code.expose_secret()))
    );
}

#[tokio::test]
async fn objects_of_another_tenant_are_not_found() {
    let world = World::ready().await;
    let identity = &world.target.identity;
    let actor = Actor::operator();
    let (other, app) = (CONTOSO, world.app.app_id);
    assert!(identity.application_get(other, app).await.is_err());
    assert!(identity.application_list(other).await.unwrap().is_empty());
    assert!(identity.application_remove(other, app, &actor, at(0)).await.is_err());
    assert!(identity.secret_add(other, app, "", None, &actor, at(0)).await.is_err());
    assert!(identity.secret_list(other, app).await.unwrap().is_empty());
    let secret = identity.secret_list(FABRIKAM, app).await.unwrap().remove(0);
    assert!(
        identity
            .secret_remove(other, app, secret.key_id, &actor, at(0))
            .await
            .is_err()
    );
    assert!(
        identity
            .grant_at_home(other, app, ROLE_MAILBOX_MIGRATION, &actor, at(0))
            .await
            .is_err()
    );
    assert!(!identity.revoke_at_home(other, app, &actor, at(0)).await.unwrap());
    let stolen = Application {
        tenant: other,
        ..world.app.clone()
    };
    assert!(identity.application_update(&stolen, &actor, at(0)).await.is_err());
    let source = &world.source.identity;
    let principal: ServicePrincipal = source.service_principal_by_app(CONTOSO, app).await.unwrap().unwrap();
    assert!(
        source
            .service_principal_get(NEIGHBOUR, principal.id)
            .await
            .unwrap()
            .is_none()
    );
    assert!(source.service_principal_by_app(NEIGHBOUR, app).await.unwrap().is_none());
    assert!(source.service_principal_list(NEIGHBOUR).await.unwrap().is_empty());
    assert!(
        !source
            .service_principal_revoke(NEIGHBOUR, principal.id, &actor, at(0))
            .await
            .unwrap()
    );
    assert!(
        source
            .admin_reset(NEIGHBOUR, "admin@contoso.example", &actor, at(0))
            .await
            .is_err()
    );
    // Unknown tenants have no keys and get none.
    assert!(matches!(
        source.jwks(TenantId::from_u128(5), at(0)).await,
        Err(KeyStoreError::UnknownTenant)
    ));
    let keys = source.jwks(CONTOSO, at(0)).await.unwrap();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    assert!(!keys.to_string().contains("\"d\""));
}

#[tokio::test]
async fn secrets_rotate_and_are_bounded() {
    let world = World::ready().await;
    let (identity, app, actor) = (&world.target.identity, world.app.app_id, Actor::operator());
    let second = identity
        .secret_add(FABRIKAM, app, "second", Some(at(30 * DAY)), &actor, at(0))
        .await
        .unwrap();
    let partner = world.source.partner(CONTOSO);
    for secret in [&world.secret, &second.value] {
        assert!(
            identity
                .assertion_for(FABRIKAM, app, secret, &partner, at(0))
                .await
                .is_ok()
        );
    }
    identity
        .secret_remove(FABRIKAM, app, second.stored.key_id, &actor, at(0))
        .await
        .unwrap();
    let gone = identity
        .assertion_for(FABRIKAM, app, &second.value, &partner, at(0))
        .await
        .unwrap_err();
    assert_eq!(gone.aadsts(), Some(7_000_215));
    for end in [at(0), at(-1), at(740 * DAY)] {
        assert!(
            identity
                .secret_add(FABRIKAM, app, "", Some(end), &actor, at(0))
                .await
                .is_err()
        );
    }
    for _ in 1..crate::application::MAX_SECRETS {
        identity
            .secret_add(FABRIKAM, app, "", None, &actor, at(0))
            .await
            .unwrap();
    }
    let error = identity
        .secret_add(FABRIKAM, app, "", None, &actor, at(0))
        .await
        .unwrap_err();
    assert_eq!(error.error_id(), ErrorId::InvalidOperation);
}
