use super::world::{CONTOSO, FABRIKAM, PARTNER, World};
use rehome_domain::{error_id::ErrorId, id::ApplicationId};
use serde_json::{Value as Json, json};

#[tokio::test]
async fn application_secret_consent_and_link() {
    let world = World::new().await;
    let app = world
        .one(
            "New-MgApplication",
            json!({"DisplayName": "Mover", "RedirectUris": ["https://office.com"]}),
        )
        .await;
    assert_eq!(app["SignInAudience"], "AzureADMultipleOrgs");
    assert_eq!(app["RequiredPermissions"], json!(["Mailbox.Migration", "User.Read"]));
    let id = app["AppId"].as_str().unwrap();
    let secret = world
        .ok("Add-MgApplicationPassword", json!({"ApplicationId": id}))
        .await;
    assert!(secret.warnings[0].contains("shown this once"));
    let secret = secret.objects[0].to_json(rehome_command::Secrets::Blank);
    let text = secret["SecretText"].as_str().unwrap();
    assert_eq!(text.len(), 43);
    let listed = world.one("Get-MgApplication", json!({"ApplicationId": id})).await;
    assert_eq!(listed["PasswordCredentials"][0]["KeyId"], secret["KeyId"]);
    assert!(!listed.to_string().contains(text));

    let half = world
        .refused(
            "New-MgServicePrincipalAppRoleAssignment",
            json!({"AppId": id, "RemoteServer": "mail.partner.example"}),
        )
        .await;
    assert_eq!(half.id, ErrorId::ParameterBinding);
    let granted = world
        .one(
            "New-MgServicePrincipalAppRoleAssignment",
            json!({"AppId": id, "RemoteServer": "mail.partner.example:8443", "RemoteTenant": "partner.example"}),
        )
        .await;
    let link = granted["ConsentLink"].as_str().unwrap();
    assert!(
        link.starts_with("https://mail.partner.example:8443/partner.example/adminconsent?client_id="),
        "{link}"
    );
    assert!(
        link.contains(id)
            && link.contains("redirect_uri=https%3A%2F%2Foffice.com")
            && link.contains("authority=https%3A%2F%2Fmail.contoso.example"),
        "{link}"
    );
    assert_eq!(
        world.one("Get-MgApplication", json!({})).await["GrantedRoles"],
        json!(["Mailbox.Migration"])
    );
    let own = world
        .one("Get-MgServicePrincipal", json!({"ServicePrincipalId": id}))
        .await;
    assert_eq!(
        (&own["AccountEnabled"], &own["AppRoleAssignments"]),
        (&json!(true), &json!(["Mailbox.Migration"]))
    );
    world
        .ok("Remove-MgServicePrincipal", json!({"ServicePrincipalId": own["Id"]}))
        .await;
    assert_eq!(
        world.one("Get-MgApplication", json!({})).await["GrantedRoles"],
        json!([])
    );
    assert_eq!(
        world
            .refused("Remove-MgServicePrincipal", json!({"AppId": id}))
            .await
            .id,
        ErrorId::InvalidOperation
    );

    let narrow = world
        .one(
            "New-MgApplication",
            json!({"DisplayName": "x", "RedirectUris": ["https://office.com"], "RequiredPermissions": ["User.Read"]}),
        )
        .await;
    let refused = world
        .refused(
            "New-MgServicePrincipalAppRoleAssignment",
            json!({"AppId": narrow["AppId"]}),
        )
        .await;
    assert!(
        refused.message.contains("does not ask for the role"),
        "{}",
        refused.message
    );
    let unsafe_uri = world
        .refused(
            "New-MgApplication",
            json!({"DisplayName": "x", "RedirectUris": ["http://office.com"]}),
        )
        .await;
    assert_eq!(unsafe_uri.id, ErrorId::ParameterBinding);
    let resource = world
        .one(
            "Get-MgServicePrincipal",
            json!({"AppId": "00000002-0000-0ff1-ce00-000000000000"}),
        )
        .await;
    assert_eq!(resource["AppRoles"][0]["Value"], "Mailbox.Migration");
}

#[tokio::test]
async fn a_partners_consent_is_shown_and_withdrawn() {
    let world = World::new().await;
    let app = ApplicationId::from_u128(0xa1);
    let principal = world.consent(app).await;
    let shown = world
        .one(
            "Get-MgServicePrincipal",
            json!({"ServicePrincipalId": principal.to_string()}),
        )
        .await;
    assert_eq!(
        (&shown["AppOwnerOrganizationId"], &shown["AccountEnabled"]),
        (&json!(PARTNER.to_string()), &json!(true))
    );
    let granted = world
        .refused(
            "New-MgServicePrincipalAppRoleAssignment",
            json!({"AppId": app.to_string()}),
        )
        .await;
    assert_eq!(granted.id, ErrorId::InvalidOperation);
    world
        .ok("Remove-MgServicePrincipal", json!({"AppId": app.to_string()}))
        .await;
    assert_eq!(
        world
            .one("Get-MgServicePrincipal", json!({"AppId": app.to_string()}))
            .await["AccountEnabled"],
        false
    );
}

#[tokio::test]
async fn a_relationship_is_bound_to_one_consent() {
    let world = World::new().await;
    let app = ApplicationId::from_u128(0xa1);
    world
        .ok("New-DistributionGroup", json!({"Name": "Leaving", "Type": "Security"}))
        .await;
    world.ok("New-DistributionGroup", json!({"Name": "News"})).await;
    let source = |name: &str| {
        json!({
            "Name": name, "DomainNames": [PARTNER.to_string()], "Enabled": true, "MailboxMoveEnabled": true,
            "MailboxMoveCapability": "RemoteOutbound", "OAuthApplicationId": app.to_string(), "MailboxMovePublishedScopes": ["leaving"],
        })
    };
    let refused = world.refused("New-OrganizationRelationship", source("Partner")).await;
    assert_eq!(refused.id, ErrorId::ApplicationNotConsented);
    assert!(
        refused.advice.contains(&format!(
            "https://mail.contoso.example/contoso.example/adminconsent?client_id={app}"
        )),
        "{}",
        refused.advice
    );

    let principal = world.consent(app).await;
    let output = world.ok("New-OrganizationRelationship", source("Partner")).await;
    assert_eq!(output.warnings, Vec::<String>::new());
    let made = output.objects[0].to_json(rehome_command::Secrets::Blank);
    assert_eq!(made["ServicePrincipalId"], principal.to_string());
    assert_eq!(
        (&made["MailboxMovePublishedScopes"], &made["MailboxMoveCapability"]),
        (&json!(["Leaving"]), &json!("RemoteOutbound"))
    );

    let rows: &[(&str, Json, ErrorId, &str)] = &[
        (
            "New-OrganizationRelationship",
            source("Again"),
            ErrorId::ObjectAlreadyExists,
            "DomainNames of the organization relationship 'Partner'",
        ),
        (
            "New-OrganizationRelationship",
            json!({"Name": "PARTNER", "DomainNames": ["other.example"]}),
            ErrorId::ObjectAlreadyExists,
            "'PARTNER'",
        ),
        (
            "New-OrganizationRelationship",
            json!({"Name": "x", "DomainNames": [CONTOSO.to_string()]}),
            ErrorId::SameTenant,
            "itself",
        ),
        (
            "New-OrganizationRelationship",
            json!({"Name": "x", "DomainNames": ["mail.contoso.example"]}),
            ErrorId::SameTenant,
            "itself",
        ),
        (
            "New-OrganizationRelationship",
            json!({"Name": "x", "DomainNames": ["not a domain"]}),
            ErrorId::ParameterBinding,
            "nor a tenant GUID",
        ),
        (
            "New-OrganizationRelationship",
            json!({"Name": "x", "DomainNames": []}),
            ErrorId::ParameterBinding,
            "entries are needed",
        ),
        (
            "Set-OrganizationRelationship",
            json!({"Identity": "partner", "MailboxMovePublishedScopes": ["News"]}),
            ErrorId::ParameterBinding,
            "not a mail-enabled security group",
        ),
        (
            "Set-OrganizationRelationship",
            json!({"Identity": "partner", "MailboxMovePublishedScopes": ["nobody"]}),
            ErrorId::ManagementObjectNotFound,
            "nobody",
        ),
        (
            "Set-OrganizationRelationship",
            json!({"Identity": "partner", "OAuthApplicationId": "x"}),
            ErrorId::ParameterBinding,
            "not a GUID",
        ),
        (
            "Set-OrganizationRelationship",
            json!({"Identity": "partner", "MaxLockAttemptsPerDay": 0}),
            ErrorId::ParameterBinding,
            "between 1 and 100",
        ),
        (
            "Set-OrganizationRelationship",
            json!({"Identity": "nobody"}),
            ErrorId::ManagementObjectNotFound,
            "nobody",
        ),
        (
            "Remove-OrganizationRelationship",
            json!({}),
            ErrorId::ParameterBinding,
            "missing mandatory parameters: Identity",
        ),
    ];
    for (name, parameters, id, text) in rows {
        let error = world.refused(name, parameters.clone()).await;
        assert_eq!(error.id, *id, "{name} {parameters}: {error}");
        assert!(error.message.contains(text), "{name} {parameters}: {}", error.message);
    }

    // A later consent to another application does not widen what was saved.
    world.consent(ApplicationId::from_u128(0xa2)).await;
    world
        .ok(
            "Set-OrganizationRelationship",
            json!({"Identity": "Partner", "MailboxMoveCapability": "Inbound, RemoteOutbound"}),
        )
        .await;
    let shown = world
        .one("Get-OrganizationRelationship", json!({"Identity": "Partner"}))
        .await;
    assert_eq!(
        (&shown["ServicePrincipalId"], &shown["MailboxMoveCapability"]),
        (&json!(principal.to_string()), &json!("Inbound, RemoteOutbound"))
    );
    let warned = world
        .ok(
            "Set-OrganizationRelationship",
            json!({"Identity": "Partner", "OAuthApplicationId": null, "MailboxMovePublishedScopes": null}),
        )
        .await;
    assert_eq!(warned.warnings.len(), 2, "{:?}", warned.warnings);
    world
        .ok("Remove-OrganizationRelationship", json!({"Identity": "Partner"}))
        .await;
    assert!(
        world
            .ok("Get-OrganizationRelationship", json!({}))
            .await
            .objects
            .is_empty()
    );
}

#[tokio::test]
async fn a_dns_name_for_moves_is_answered_with_the_guid() {
    let world = World::new().await;
    let plain = world
        .ok(
            "New-OrganizationRelationship",
            json!({"Name": "Sharing", "DomainNames": ["partner.example"]}),
        )
        .await;
    assert!(plain.warnings.is_empty());
    let moves = world
        .ok(
            "Set-OrganizationRelationship",
            json!({"Identity": "Sharing", "MailboxMoveEnabled": true}),
        )
        .await;
    assert!(
        moves.warnings[0].contains("/partner.example/v2.0/.well-known/openid-configuration"),
        "{:?}",
        moves.warnings
    );
    world.consent(ApplicationId::from_u128(0xa1)).await;
    let known = world
        .ok(
            "Set-OrganizationRelationship",
            json!({"Identity": "Sharing", "MailboxMoveCapability": "Inbound"}),
        )
        .await;
    assert!(known.warnings[0].contains(&PARTNER.to_string()), "{:?}", known.warnings);
    // What another tenant of the deployment is called is not told.
    world
        .ok(
            "Set-OrganizationRelationship",
            json!({"Identity": "Sharing", "DomainNames": {"Add": "fabrikam.example"}}),
        )
        .await;
    let other = world
        .ok(
            "Set-OrganizationRelationship",
            json!({"Identity": "Sharing", "Enabled": true}),
        )
        .await;
    assert!(
        !other.warnings.join(" ").contains(&FABRIKAM.to_string()),
        "{:?}",
        other.warnings
    );
}

async fn application(world: &World) -> String {
    let app = world
        .one(
            "New-MgApplication",
            json!({"DisplayName": "Mover", "RedirectUris": ["https://office.com"]}),
        )
        .await;
    app["AppId"].as_str().unwrap().to_owned()
}

fn endpoint(app: &str, more: Json) -> Json {
    let mut parameters = json!({
        "Name": "Partner", "ExchangeRemoteMove": true, "RemoteServer": "mail.partner.example", "RemoteTenant": "partner.example",
        "ApplicationId": app, "Credentials": {"UserName": app, "Password": "geheim"},
    });
    parameters
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    parameters
}

#[tokio::test]
async fn an_endpoint_is_tried_before_it_is_made() {
    let world = World::new().await;
    let app = application(&world).await;
    for id in [
        ErrorId::MigrationServerConnectionFailed,
        ErrorId::InvalidTenant,
        ErrorId::InvalidClientSecret,
        ErrorId::ExpiredClientSecret,
        ErrorId::HomeConsentMissing,
        ErrorId::SameTenant,
        ErrorId::ProtocolVersion,
    ] {
        world.partner_plays(id);
        assert_eq!(
            world
                .refused("New-MigrationEndpoint", endpoint(&app, json!({})))
                .await
                .id,
            id
        );
    }
    let rows: &[(Json, ErrorId, &str)] = &[
        (
            json!({"AppSecretKeyVaultUrl": "https://vault.example"}),
            ErrorId::ParameterBinding,
            "superseded",
        ),
        (
            json!({"RemoteTenant": "contoso.example"}),
            ErrorId::SameTenant,
            "ASSERT: The resource tenant and the accessing tenant cannot be equal",
        ),
        (
            json!({"RemoteTenant": CONTOSO.to_string()}),
            ErrorId::SameTenant,
            "ASSERT",
        ),
        (
            json!({"RemoteServer": "https://mail.partner.example/path"}),
            ErrorId::ParameterBinding,
            "not a server name",
        ),
        (
            json!({"ApplicationId": "0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d"}),
            ErrorId::ParameterBinding,
            "user name of -Credentials",
        ),
        (
            json!({"MaxConcurrentIncrementalSyncs": 21, "MaxConcurrentMigrations": 20}),
            ErrorId::ParameterBinding,
            "must not be more",
        ),
        (
            json!({"MaxConcurrentMigrations": 0}),
            ErrorId::ParameterBinding,
            "at least 1",
        ),
        (json!({"ExchangeRemoteMove": null}), ErrorId::ParameterBinding, "null"),
    ];
    for (more, id, text) in rows {
        let error = world
            .refused("New-MigrationEndpoint", endpoint(&app, more.clone()))
            .await;
        assert_eq!(error.id, *id, "{more}: {error}");
        assert!(error.message.contains(text), "{more}: {}", error.message);
        assert!(!error.message.contains("geheim"));
    }
    assert!(
        world.ok("Get-MigrationEndpoint", json!({})).await.objects.is_empty(),
        "nothing was made"
    );

    world.partner_plays(ErrorId::ApplicationNotConsented);
    let made = world
        .ok(
            "New-MigrationEndpoint",
            endpoint(&app, json!({"MaxConcurrentMigrations": 10})),
        )
        .await;
    assert!(
        made.warnings[0].contains("https://mail.partner.example/partner.example/adminconsent?client_id="),
        "{:?}",
        made.warnings
    );
    let shown = world.one("Get-MigrationEndpoint", json!({"Identity": "partner"})).await;
    assert_eq!(
        (
            &shown["MaxConcurrentMigrations"],
            &shown["MaxConcurrentIncrementalSyncs"]
        ),
        (&json!(10), &json!(10))
    );
    assert_eq!(
        (&shown["RemoteTenantId"], &shown["EndpointType"]),
        (&json!(PARTNER.to_string()), &json!("ExchangeRemoteMove"))
    );
    assert_eq!(
        world
            .refused("New-MigrationEndpoint", endpoint(&app, json!({})))
            .await
            .id,
        ErrorId::ObjectAlreadyExists
    );
    for (_, _, body) in world.audit().await {
        assert!(!body.to_string().contains("geheim"), "{body}");
    }
}

#[tokio::test]
async fn an_endpoint_changes_and_goes() {
    let world = World::new().await;
    let app = application(&world).await;
    let made = world
        .one(
            "New-MigrationEndpoint",
            endpoint(
                &app,
                json!({"SkipVerification": true, "RemoteServer": "Mail.Partner.example:8443"}),
            ),
        )
        .await;
    assert_eq!(
        (&made["RemoteTenantId"], &made["RemoteServer"]),
        (&Json::Null, &json!("mail.partner.example:8443"))
    );
    assert_eq!(
        (&made["MaxConcurrentMigrations"], &made["MaxConcurrentIncrementalSyncs"]),
        (&json!(100), &json!(20))
    );
    world
        .ok(
            "Set-MigrationEndpoint",
            json!({"Identity": "Partner", "MaxConcurrentMigrations": "Unlimited"}),
        )
        .await;
    world.partner_plays(ErrorId::InvalidClientSecret);
    let new_secret = json!({"Identity": made["Guid"], "Credentials": {"UserName": app, "Password": "neu"}});
    assert_eq!(
        world.refused("Set-MigrationEndpoint", new_secret.clone()).await.id,
        ErrorId::InvalidClientSecret
    );
    world.partner_plays(ErrorId::ApplicationNotConsented);
    assert_eq!(world.ok("Set-MigrationEndpoint", new_secret).await.warnings.len(), 1);
    let shown = world
        .one("Get-MigrationEndpoint", json!({"Type": "exchangeremotemove"}))
        .await;
    assert_eq!(
        (&shown["MaxConcurrentMigrations"], &shown["RemoteTenantId"]),
        (&json!("Unlimited"), &json!(PARTNER.to_string()))
    );
    let missing = world
        .refused("Remove-MigrationEndpoint", json!({"Identity": "Nobody"}))
        .await;
    assert_eq!(missing.message, "The migration endpoint 'Nobody' couldn't be found.");
    world
        .ok("Remove-MigrationEndpoint", json!({"Identity": "Partner"}))
        .await;
}

#[tokio::test]
async fn availability_names_all_that_is_wrong() {
    let world = World::new().await;
    let app = application(&world).await;
    world
        .ok(
            "New-MigrationEndpoint",
            endpoint(&app, json!({"SkipVerification": true})),
        )
        .await;
    world.ok("New-MailUser", json!({"Name": "Mike", "ExternalEmailAddress": "mike@partner.example", "PrimarySmtpAddress": "mike@contoso.example"})).await;
    world.partner_plays(ErrorId::ApplicationNotConsented);
    let tested = world
        .one("Test-MigrationServerAvailability", json!({"Endpoint": "partner"}))
        .await;
    assert_eq!(
        (&tested["Result"], &tested["ErrorIds"]),
        (&json!("Failed"), &json!(["ApplicationNotConsentedException"]))
    );
    assert!(
        tested["ConsentLink"]
            .as_str()
            .unwrap()
            .contains("adminconsent?client_id=")
    );
    assert_eq!(tested["CorrelationId"], world.context.correlation.to_string());
    for form in ["mike@contoso.example", "MIKE@partner.example"] {
        let tested = world
            .one(
                "Test-MigrationServerAvailability",
                json!({"Endpoint": "partner", "TestMailbox": form}),
            )
            .await;
        assert_eq!(
            tested["ErrorIds"],
            json!([
                "MissingExchangeGuidException",
                "MissingX500ProxyException",
                "ApplicationNotConsentedException"
            ]),
            "{form}"
        );
    }
    world.ok("New-MailUser", json!({"Name": "Twin", "ExternalEmailAddress": "mike@partner.example", "PrimarySmtpAddress": "twin@contoso.example"})).await;
    for form in ["mike@partner.example", "nobody@contoso.example"] {
        let error = world
            .refused(
                "Test-MigrationServerAvailability",
                json!({"Endpoint": "partner", "TestMailbox": form}),
            )
            .await;
        assert_eq!(error.id, ErrorId::ManagementObjectNotFound);
        assert!(
            error.advice.contains("primary address") && error.advice.contains("ExternalEmailAddress"),
            "{}",
            error.advice
        );
    }
    let missing = world
        .refused("Test-MigrationServerAvailability", json!({"Endpoint": "nobody"}))
        .await;
    assert_eq!(missing.message, "The migration endpoint 'nobody' couldn't be found.");
}
