//! Nothing of one tenant is found from another, by any cmdlet, under any form of identity.

use super::world::{World, json, run_in};
use crate::registry;
use rehome_command::{Declaration, Effect, Parameter, ParameterType, Secrets, Value};
use rehome_domain::{error_id::ErrorId, id::ApplicationId};
use serde_json::{Map, Value as Json, json};

/// Everything that Contoso has, under every name it has.
async fn contoso(world: &World) -> Vec<String> {
    let csv = Value::Octets(b"EmailAddress\nmike@contoso.example\n".to_vec()).to_json(Secrets::Keep);
    let app = world.one("New-MgApplication", json!({"DisplayName": "contoso mover", "RedirectUris": ["https://office.com"]})).await;
    world.consent(ApplicationId::from_u128(0xa1)).await;
    let mut objects = vec![app.clone()];
    for (name, parameters) in [
        ("New-Mailbox", json!({"Name": "contoso lara", "Alias": "contoso.lara", "MicrosoftOnlineServicesID": "lara@contoso.example"})),
        ("New-MailUser", json!({"Name": "contoso mike", "ExternalEmailAddress": "mike@partner.example", "PrimarySmtpAddress": "mike@contoso.example"})),
        ("New-DistributionGroup", json!({"Name": "contoso leaving", "Type": "Security", "Members": ["contoso lara"]})),
        ("New-OrganizationRelationship", json!({"Name": "contoso partner", "DomainNames": ["partner.example"]})),
        ("New-MigrationEndpoint", json!({
            "Name": "contoso endpoint", "ExchangeRemoteMove": true, "RemoteServer": "mail.partner.example", "RemoteTenant": "partner.example",
            "Credentials": {"UserName": app["AppId"], "Password": "geheim"}, "SkipVerification": true,
        })),
        ("New-MigrationBatch", json!({"Name": "contoso wave", "SourceEndpoint": "contoso endpoint", "CSVData": csv, "TargetDeliveryDomain": "contoso.example"})),
        ("Get-MigrationUser", json!({"Identity": "mike@contoso.example"})),
        ("Get-MgServicePrincipal", json!({"AppId": ApplicationId::from_u128(0xa1).to_string()})),
        ("Get-OrganizationConfig", json!({})),
    ] {
        objects.push(world.one(name, parameters).await);
    }
    let mut names: Vec<String> = Vec::new();
    for object in &objects {
        for property in [
            "Name", "Identity", "Alias", "PrimarySmtpAddress", "Guid", "ExchangeGuid", "LegacyExchangeDN", "UserPrincipalName",
            "BatchGuid", "RequestGuid", "AppId", "Id", "ServicePrincipalId", "ExternalEmailAddress",
        ] {
            if let Some(text) = object[property].as_str().filter(|t| !t.starts_with("00000000-")) {
                names.push(text.to_owned());
            }
        }
    }
    names.extend(["*".into(), "%".into(), "$null".into(), "contoso*".into(), "smtp:lara@contoso.example".into(), "contoso.example".into()]);
    names.sort();
    names.dedup();
    names
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
        ParameterType::Text | ParameterType::Identity | ParameterType::List | ParameterType::EditableList | ParameterType::Flags => {
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

#[tokio::test]
async fn no_identity_of_another_tenant_is_found() {
    let world = World::new().await;
    let names = contoso(&world).await;
    let fabrikam = world.fabrikam();
    let mut tried = 0;
    for cmdlet in registry() {
        let d = &cmdlet.declaration;
        for looked_for in d.parameters.iter().filter(|p| names_an_object(d, p)) {
            for name in &names {
                if looked_for.kind == ParameterType::Guid && name.parse::<ApplicationId>().is_err() {
                    continue;
                }
                let set = looked_for.sets.first().cloned().unwrap_or_default();
                let mut parameters: Map<String, Json> = d
                    .parameters
                    .iter()
                    .filter(|p| p.mandatory && p.name != looked_for.name && p.is_in(&set))
                    .map(|p| (p.name.clone(), filler(p)))
                    .collect();
                parameters.insert(looked_for.name.clone(), json!(name));
                let result = run_in(&fabrikam, &d.name(), Json::Object(parameters)).await;
                tried += 1;
                let allowed = match &result {
                    Err(error) => {
                        assert!(!error.message.contains("contoso") || error.message.contains(name.as_str()), "{}: {error}", d.name());
                        !matches!(error.id, ErrorId::ManagementObjectAmbiguous | ErrorId::InvalidOperation | ErrorId::Unexpected)
                    }
                    Ok(output) => output.objects.is_empty() && d.effect == Effect::Read,
                };
                let shown = result.as_ref().map(|o| json(&o.objects)).map_err(ToString::to_string);
                assert!(allowed, "{} -{} '{name}': {shown:?}", d.name(), looked_for.name);
            }
        }
    }
    assert!(tried > 500, "{tried}");
}

#[tokio::test]
async fn no_list_shows_another_tenants_object() {
    let world = World::new().await;
    contoso(&world).await;
    let fabrikam = world.fabrikam();
    for cmdlet in registry() {
        let d = &cmdlet.declaration;
        if d.effect != Effect::Read || d.parameters.iter().any(|p| p.mandatory && p.sets.is_empty()) {
            continue;
        }
        let output = run_in(&fabrikam, &d.name(), json!({})).await.unwrap();
        // The authority's own name is the deployment's, not the tenant's.
        let text = json!(json(&output.objects)).to_string().replace("https://mail.contoso.example/", "");
        assert!(!text.contains("contoso"), "{}: {text}", d.name());
    }
    let before: Vec<Json> = json(&world.ok("Get-Recipient", json!({})).await.objects);
    assert_eq!(before.len(), 3);
}
