//! Nothing of one tenant is found from another, by any cmdlet, under any form of identity.

use super::world::{World, json, run_in};
use crate::registry;
use rehome_command::{Declaration, Effect, Parameter, ParameterType, Secrets, Value};
use rehome_domain::{
    error_id::ErrorId,
    id::{ApplicationId, AttemptId, ExchangeGuid, MoveId, TenantId},
};
use rehome_store::{ReceiptRow, ReceiptSide};
use serde_json::{Map, Value as Json, json};

/// Everything that Contoso has, under every name it has.
async fn contoso(world: &World) -> Vec<String> {
    let csv = Value::Octets(b"EmailAddress\nmike@contoso.example\n".to_vec()).to_json(Secrets::Keep);
    let app = world
        .one(
            "New-MgApplication",
            json!({"DisplayName": "contoso mover", "RedirectUris": ["https://office.com"]}),
        )
        .await;
    world.consent(ApplicationId::from_u128(0xa1)).await;
    let mut objects = vec![app.clone()];
    for (name, parameters) in [
        (
            "New-Mailbox",
            json!({"Name": "contoso lara", "Alias": "contoso.lara", "MicrosoftOnlineServicesID": "lara@contoso.example"}),
        ),
        (
            "New-MailUser",
            json!({"Name": "contoso mike", "ExternalEmailAddress": "mike@partner.example", "PrimarySmtpAddress": "mike@contoso.example"}),
        ),
        (
            "New-DistributionGroup",
            json!({"Name": "contoso leaving", "Type": "Security", "Members": ["contoso lara"]}),
        ),
        (
            "New-OrganizationRelationship",
            json!({"Name": "contoso partner", "DomainNames": ["partner.example"]}),
        ),
        (
            "New-MigrationEndpoint",
            json!({
                "Name": "contoso endpoint", "ExchangeRemoteMove": true, "RemoteServer": "mail.partner.example", "RemoteTenant": "partner.example",
                "Credentials": {"UserName": app["AppId"], "Password": "geheim"}, "SkipVerification": true,
            }),
        ),
        (
            "New-MigrationBatch",
            json!({"Name": "contoso wave", "SourceEndpoint": "contoso endpoint", "CSVData": csv, "TargetDeliveryDomain": "contoso.example"}),
        ),
        ("Get-MigrationUser", json!({"Identity": "mike@contoso.example"})),
        (
            "Get-MgServicePrincipal",
            json!({"AppId": ApplicationId::from_u128(0xa1).to_string()}),
        ),
        ("Get-OrganizationConfig", json!({})),
    ] {
        objects.push(world.one(name, parameters).await);
    }
    objects.push(json!({"Name": "contoso.example"}));
    plant_receipt(world, "lara@contoso.example").await;
    let mut names: Vec<String> = Vec::new();
    for object in &objects {
        for property in [
            "Name",
            "Identity",
            "Alias",
            "PrimarySmtpAddress",
            "Guid",
            "ExchangeGuid",
            "LegacyExchangeDN",
            "UserPrincipalName",
            "BatchGuid",
            "RequestGuid",
            "AppId",
            "Id",
            "ServicePrincipalId",
            "ExternalEmailAddress",
        ] {
            if let Some(text) = object[property].as_str().filter(|t| !t.starts_with("00000000-")) {
                names.push(text.to_owned());
            }
        }
    }
    names.extend([
        "*".into(),
        "%".into(),
        "$null".into(),
        "contoso*".into(),
        "smtp:lara@contoso.example".into(),
        "contoso.example".into(),
    ]);
    names.sort();
    names.dedup();
    names
}

/// A receipt of a mailbox that once moved here.
async fn plant_receipt(world: &World, address: &str) {
    let row = ReceiptRow {
        tenant: world.context.caller.tenant,
        attempt: AttemptId::from_u128(0x7e),
        number: 0,
        side: ReceiptSide::Target,
        move_id: MoveId::from_u128(0x7f),
        exchange_guid: ExchangeGuid::from_u128(0x80),
        address: address.into(),
        partner_tenant: TenantId::from_u128(0x81),
        root: [0; 32],
        folders: 0,
        items: 0,
        octets: 0,
        exceptions: "[]".into(),
        made: Some(world.context.now),
        own_statement: None,
        partner_statement: None,
    };
    let mut tx = world.context.store.write().await.unwrap();
    tx.receipt_put(&row).await.unwrap();
    tx.commit("test").await.unwrap();
}

/// A value of the parameter's type that binds and names nothing by itself.
fn filler(p: &Parameter) -> Json {
    match p.kind {
        ParameterType::Switch | ParameterType::Boolean => json!(true),
        ParameterType::Integer | ParameterType::Unlimited => json!(1),
        ParameterType::Guid => json!("deadbeef-0000-4000-8000-000000000000"),
        ParameterType::DateTime => json!("2026-06-01"),
        ParameterType::TimeSpan => json!("01:00:00"),
        ParameterType::Octets => Value::Octets(b"EmailAddress\nx@fabrikam.example\n".to_vec()).to_json(Secrets::Keep),
        ParameterType::Credential => json!({"UserName": "deadbeef-0000-4000-8000-000000000000", "Password": "geheim"}),
        ParameterType::Secret => json!("geheim"),
        ParameterType::Text
        | ParameterType::Identity
        | ParameterType::List
        | ParameterType::EditableList
        | ParameterType::Flags => {
            json!(p.allowed_values.first().map_or("fabrikam.example", String::as_str))
        }
    }
}

/// Parameters by which a cmdlet looks for an object.
fn names_an_object(d: &Declaration, p: &Parameter) -> bool {
    let by_type = matches!(p.kind, ParameterType::Identity | ParameterType::Guid);
    by_type && !(d.verb == "Set" && p.name == "ExchangeGuid") && p.name != "AppRoleId"
        || p.name == "MailboxMovePublishedScopes"
        || p.name == "Members"
        || p.name == "OAuthApplicationId"
        || p.name == "EmailAddress"
}

/// Whether an error says no more than that there is no such object.
fn not_found(id: ErrorId) -> bool {
    matches!(id, ErrorId::ManagementObjectNotFound | ErrorId::ApplicationNotConsented)
}

/// The parameters that a call needs beside the one under test.
fn around(d: &Declaration, looked_for: &Parameter) -> Map<String, Json> {
    let set = looked_for.sets.first().cloned().unwrap_or_default();
    let others = d
        .parameters
        .iter()
        .filter(|p| p.mandatory && p.name != looked_for.name && p.is_in(&set));
    let mut around: Map<String, Json> = others.map(|p| (p.name.clone(), filler(p))).collect();
    // The one object that the caller has under this name, so that the look-up of a member is reached.
    if d.noun == "DistributionGroupMember" && looked_for.name == "Member" {
        around.insert("Identity".into(), json!("own group"));
    }
    if d.verb == "Set" && d.noun == "OrganizationRelationship" && looked_for.name != "Identity" {
        around.insert("Identity".into(), json!("own partner"));
    }
    if d.name() == "New-OrganizationRelationship" {
        around.insert("DomainNames".into(), json!(["other.example"]));
    }
    if d.name() == "Test-MigrationServerAvailability" && looked_for.name == "TestMailbox" {
        around.insert("Endpoint".into(), json!("own endpoint"));
    }
    around
}

#[tokio::test]
async fn no_identity_of_another_tenant_is_found() {
    let world = World::new().await;
    let names = contoso(&world).await;
    let fabrikam = world.fabrikam();
    let app = run_in(
        &fabrikam,
        "New-MgApplication",
        json!({"DisplayName": "own", "RedirectUris": ["https://office.com"]}),
    )
    .await
    .unwrap();
    let app = json(&app.objects)[0]["AppId"].clone();
    let endpoint = |name: &str, app: &Json| {
        json!({
            "Name": name, "ExchangeRemoteMove": true, "RemoteServer": "mail.partner.example", "RemoteTenant": "partner.example",
            "Credentials": {"UserName": app, "Password": "geheim"}, "SkipVerification": true,
        })
    };
    run_in(&fabrikam, "New-DistributionGroup", json!({"Name": "own group"}))
        .await
        .unwrap();
    run_in(
        &fabrikam,
        "New-OrganizationRelationship",
        json!({"Name": "own partner", "DomainNames": ["own.example"]}),
    )
    .await
    .unwrap();
    run_in(&fabrikam, "New-MigrationEndpoint", endpoint("own endpoint", &app))
        .await
        .unwrap();

    for cmdlet in registry() {
        let d = &cmdlet.declaration;
        for looked_for in d.parameters.iter().filter(|p| names_an_object(d, p)) {
            let what = format!("{} -{}", d.name(), looked_for.name);
            let mut reached = 0;
            for name in &names {
                if looked_for.kind == ParameterType::Guid && name.parse::<ApplicationId>().is_err() {
                    continue;
                }
                let mut parameters = around(d, looked_for);
                parameters.insert(looked_for.name.clone(), json!(name));
                match run_in(&fabrikam, &d.name(), Json::Object(parameters)).await {
                    Err(error) => {
                        let told = error.message.replace(name.as_str(), "");
                        assert!(!told.contains("contoso"), "{what} '{name}': {error}");
                        // A name that cannot even be read (no GUID, no address) never got to the look-up.
                        assert!(
                            not_found(error.id) || error.id == ErrorId::ParameterBinding,
                            "{what} '{name}': {error}"
                        );
                        reached += usize::from(not_found(error.id));
                    }
                    Ok(output) => panic!("{what} '{name}' found {:?}", json(&output.objects)),
                }
            }
            assert!(reached > 0, "{what}: no name got as far as the look-up");
        }
    }
}

/// The same names, asked for by their owner: the test above would prove nothing if they named nothing.
#[tokio::test]
async fn the_owner_finds_every_kind_of_object() {
    let world = World::new().await;
    let names = contoso(&world).await;
    for cmdlet in registry().iter().filter(|c| c.declaration.verb == "Get") {
        let d = &cmdlet.declaration;
        // Nothing has left, and no move has got as far as a mailbox.
        let looked_for = d.parameters.iter().filter(|p| names_an_object(d, p));
        for looked_for in looked_for.filter(|p| d.noun != "OutboundMigration" && p.name != "MailboxGuid") {
            let mut found = 0;
            for name in &names {
                let mut parameters = around(d, looked_for);
                parameters.insert(looked_for.name.clone(), json!(name));
                let result = run_in(&world.context, &d.name(), Json::Object(parameters)).await;
                found += usize::from(result.is_ok_and(|o| !o.objects.is_empty()));
            }
            assert!(found > 0, "{} -{}", d.name(), looked_for.name);
        }
    }
}

#[tokio::test]
async fn no_list_shows_another_tenants_object() {
    let world = World::new().await;
    contoso(&world).await;
    let fabrikam = world.fabrikam();
    for cmdlet in registry() {
        let d = &cmdlet.declaration;
        let usual = d.default_set.as_deref().unwrap_or_default();
        if d.effect != Effect::Read || d.parameters.iter().any(|p| p.mandatory && p.is_in(usual)) {
            continue;
        }
        let output = run_in(&fabrikam, &d.name(), json!({})).await.unwrap();
        // The authority's own name is the deployment's, not the tenant's.
        let text = json!(json(&output.objects))
            .to_string()
            .replace("https://mail.contoso.example/", "");
        assert!(!text.contains("contoso"), "{}: {text}", d.name());
    }
    let before: Vec<Json> = json(&world.ok("Get-Recipient", json!({})).await.objects);
    assert_eq!(before.len(), 3);
}
