use super::world::{World, json};
use rehome_command::{Secrets, Value};
use rehome_domain::error_id::ErrorId;
use serde_json::{Value as Json, json};

fn file(text: &str) -> Json {
    Value::Octets(text.as_bytes().to_vec()).to_json(Secrets::Keep)
}

async fn world() -> World {
    let world = World::new().await;
    let app = world
        .one(
            "New-MgApplication",
            json!({"DisplayName": "Mover", "RedirectUris": ["https://office.com"]}),
        )
        .await;
    world
        .ok("New-MigrationEndpoint", json!({
            "Name": "Partner", "ExchangeRemoteMove": true, "RemoteServer": "mail.partner.example", "RemoteTenant": "partner.example",
            "Credentials": {"UserName": app["AppId"], "Password": "geheim"}, "SkipVerification": true,
        }))
        .await;
    world
}

fn batch(name: &str, csv: &str, more: Json) -> Json {
    let mut parameters = json!({"Name": name, "SourceEndpoint": "partner", "CSVData": file(csv), "TargetDeliveryDomain": "contoso.example"});
    parameters
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    parameters
}

#[tokio::test]
async fn a_wrong_file_makes_no_batch() {
    let world = world().await;
    for (csv, text) in [
        ("Address\na@contoso.example\n", "column EmailAddress is missing"),
        ("EmailAddress,Colour\na@contoso.example,red\n", "'Colour' is not known"),
        (
            "EmailAddress\na@contoso.example\nnone\nA@contoso.example\n\"\"\n",
            "line 3: 'none' is not an e-mail address",
        ),
        (
            "EmailAddress\na@contoso.example\nnone\nA@contoso.example\n",
            "line 4: A@contoso.example is already in line 2",
        ),
        (
            "EmailAddress\na@b.example\nb@b.example\nc@b.example\nd@b.example\n",
            "at most 3 are allowed",
        ),
        ("", "the file is empty"),
    ] {
        let error = world
            .refused("New-MigrationBatch", batch("Wave 1", csv, json!({})))
            .await;
        assert_eq!(error.id, ErrorId::MigrationCsvInvalid, "{csv}");
        assert!(error.message.contains(text), "{csv}: {}", error.message);
    }
    let good = "EmailAddress\na@contoso.example\n";
    for (more, id) in [
        (json!({"SourceEndpoint": "nobody"}), ErrorId::ManagementObjectNotFound),
        (
            json!({"TargetDeliveryDomain": "partner.example"}),
            ErrorId::NotAcceptedDomain,
        ),
        (json!({"TargetDeliveryDomain": "no domain"}), ErrorId::ParameterBinding),
        (json!({"CompleteAfter": "5/6/2026"}), ErrorId::ParameterBinding),
        (json!({"Name": " "}), ErrorId::ParameterBinding),
        (json!({"BadItemLimit": 10}), ErrorId::ParameterBinding),
    ] {
        assert_eq!(
            world
                .refused("New-MigrationBatch", batch("Wave 1", good, more.clone()))
                .await
                .id,
            id,
            "{more}"
        );
    }
    assert!(world.ok("Get-MigrationBatch", json!({})).await.objects.is_empty());
    let unknown = "\u{feff}Colour,EmailAddress\r\nred,a@contoso.example\r\n";
    world
        .ok(
            "New-MigrationBatch",
            batch("Wave 1", unknown, json!({"AllowUnknownColumnsInCsv": true})),
        )
        .await;
}

#[tokio::test]
async fn the_life_of_a_batch() {
    let world = world().await;
    let csv = "EmailAddress\na@contoso.example\nb@contoso.example\n";
    let made = world
        .one(
            "New-MigrationBatch",
            batch("Wave 1", csv, json!({"StartAfter": "2026-05-02"})),
        )
        .await;
    assert_eq!((&made["Status"], &made["TotalCount"]), (&json!("Created"), &json!(2)));
    assert_eq!(
        (&made["StartAfterUTC"], &made["SourceEndpoint"]),
        (&json!("2026-05-02T00:00:00Z"), &json!("Partner"))
    );
    assert_eq!(
        world
            .refused("New-MigrationBatch", batch("WAVE 1", csv, json!({})))
            .await
            .id,
        ErrorId::ObjectAlreadyExists
    );

    let early = world
        .refused("Complete-MigrationBatch", json!({"Identity": "wave 1"}))
        .await;
    assert_eq!(early.id, ErrorId::InvalidOperation);
    assert!(
        early.advice.contains("Start-MigrationBatch 'Wave 1'"),
        "{}",
        early.advice
    );
    assert_eq!(
        world
            .refused("Stop-MigrationBatch", json!({"Identity": "wave 1"}))
            .await
            .id,
        ErrorId::InvalidOperation
    );
    world
        .ok(
            "Set-MigrationBatch",
            json!({"Identity": "Wave 1", "CompleteAfter": "2026-06-01T10:00+02:00"}),
        )
        .await;
    world
        .ok("Start-MigrationBatch", json!({"Identity": made["BatchGuid"]}))
        .await;
    let shown = world.one("Get-MigrationBatch", json!({"Identity": "wave 1"})).await;
    assert_eq!(
        (&shown["Status"], &shown["CompleteAfterUTC"]),
        (&json!("Waiting"), &json!("2026-06-01T08:00:00Z"))
    );
    for (filter, count) in [
        (json!({"Status": "waiting"}), 1),
        (json!({"Status": "Synced"}), 0),
        (json!({"Endpoint": "partner"}), 1),
    ] {
        assert_eq!(
            world.ok("Get-MigrationBatch", filter.clone()).await.objects.len(),
            count,
            "{filter}"
        );
    }
    let both = world
        .refused(
            "Get-MigrationBatch",
            json!({"Identity": "wave 1", "Endpoint": "partner"}),
        )
        .await;
    assert_eq!(
        both.message,
        "Parameter set cannot be resolved using the specified named parameters."
    );
    let used = world
        .refused("Remove-MigrationEndpoint", json!({"Identity": "partner"}))
        .await;
    assert!(
        used.message.contains("used by the migration batch 'Wave 1'"),
        "{}",
        used.message
    );
    world
        .ok(
            "Set-MigrationBatch",
            json!({"Identity": "Wave 1", "SyncNow": true, "ApproveSkippedItems": true}),
        )
        .await;
    world.ok("Stop-MigrationBatch", json!({"Identity": "Wave 1"})).await;
    assert_eq!(
        world.one("Get-MigrationBatch", json!({"Identity": "Wave 1"})).await["Status"],
        "Stopped"
    );
    world.ok("Remove-MigrationBatch", json!({"Identity": "Wave 1"})).await;
    assert_eq!(
        world
            .refused("Get-MigrationBatch", json!({"Identity": "nobody"}))
            .await
            .message,
        "The migration batch 'nobody' couldn't be found."
    );
}

#[tokio::test]
async fn users_by_address_guid_and_status() {
    let world = world().await;
    world
        .ok(
            "New-MigrationBatch",
            batch(
                "One",
                "EmailAddress\na@contoso.example\nb@contoso.example\n",
                json!({"AutoStart": true}),
            ),
        )
        .await;
    world
        .ok(
            "New-MigrationBatch",
            batch("Two", "EmailAddress\na@contoso.example\n", json!({})),
        )
        .await;
    let all = json(&world.ok("Get-MigrationUser", json!({})).await.objects);
    assert_eq!(all.len(), 3);
    assert!(
        all.iter().all(|u| !u["WaitingFor"].as_str().unwrap().is_empty()),
        "a waiting user says for what"
    );
    let double = world
        .refused("Stop-MigrationUser", json!({"Identity": "A@contoso.example"}))
        .await;
    assert_eq!(double.id, ErrorId::ManagementObjectAmbiguous);
    let in_two = json(&world.ok("Get-MigrationUser", json!({"BatchId": "two"})).await.objects);
    assert_eq!((in_two.len(), &in_two[0]["Status"]), (1, &json!("Starting")));
    assert!(double.message.contains(in_two[0]["Guid"].as_str().unwrap()));
    assert_eq!(
        world
            .refused("Start-MigrationUser", json!({"Identity": in_two[0]["Guid"]}))
            .await
            .id,
        ErrorId::InvalidOperation
    );

    world
        .ok(
            "Set-MigrationUser",
            json!({"Identity": "b@contoso.example", "CompleteAfter": "2026-06-01"}),
        )
        .await;
    let b = world
        .one("Get-MigrationUser", json!({"EmailAddress": "B@contoso.example"}))
        .await;
    assert_eq!(
        (&b["Status"], &b["BatchId"], &b["CompleteAfter"]),
        (&json!("Validating"), &json!("One"), &json!("2026-06-01T00:00:00Z"))
    );
    assert_eq!(
        world
            .refused(
                "Set-MigrationUser",
                json!({"Identity": "b@contoso.example", "SyncNow": true})
            )
            .await
            .id,
        ErrorId::InvalidOperation
    );
    world
        .ok("Stop-MigrationUser", json!({"Identity": "b@contoso.example"}))
        .await;
    for (filter, count) in [
        (json!({"Status": "Stopped"}), 1),
        (json!({"StatusSummary": "active"}), 2),
        (json!({"StatusSummary": "Active", "BatchId": "One"}), 1),
    ] {
        assert_eq!(
            world.ok("Get-MigrationUser", filter.clone()).await.objects.len(),
            count,
            "{filter}"
        );
    }
    let figures = world
        .one("Get-MigrationUserStatistics", json!({"Identity": "b@contoso.example"}))
        .await;
    assert_eq!(
        (&figures["Status"], &figures["SyncedItemCount"]),
        (&json!("Stopped"), &json!(0))
    );
    world
        .ok("Start-MigrationUser", json!({"Identity": "b@contoso.example"}))
        .await;
    world
        .ok("Remove-MigrationUser", json!({"Identity": "b@contoso.example"}))
        .await;
    for (name, parameters) in [
        ("Get-MigrationUser", json!({"Identity": "nobody@contoso.example"})),
        (
            "Get-MigrationUser",
            json!({"MailboxGuid": "0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d"}),
        ),
        (
            "Get-MigrationUserStatistics",
            json!({"Identity": "nobody@contoso.example"}),
        ),
    ] {
        assert_eq!(
            world.refused(name, parameters).await.id,
            ErrorId::ManagementObjectNotFound,
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_sources_view() {
    let world = world().await;
    world
        .ok(
            "New-Mailbox",
            json!({"Name": "Lara", "MicrosoftOnlineServicesID": "lara@contoso.example"}),
        )
        .await;
    world.ok("New-DistributionGroup", json!({"Name": "News"})).await;
    assert!(world.ok("Get-OutboundMigration", json!({})).await.objects.is_empty());
    let nobody = world.ok("Test-OutboundMigration", json!({"Identity": "lara"})).await;
    assert!(
        nobody.objects.is_empty() && nobody.warnings[0].contains("not consented"),
        "{:?}",
        nobody.warnings
    );
    world.consent(rehome_domain::id::ApplicationId::from_u128(0xa1)).await;
    let tested = world.one("Test-OutboundMigration", json!({"Identity": "lara"})).await;
    assert_eq!(
        (&tested["Result"], &tested["ErrorId"]),
        (&json!("Failed"), &json!("SourceTenantNotAuthorizedException"))
    );
    assert_eq!(
        world
            .refused("Test-OutboundMigration", json!({"Identity": "News"}))
            .await
            .id,
        ErrorId::InvalidOperation
    );
    assert_eq!(
        world
            .refused("Get-OutboundMigration", json!({"Identity": "nobody"}))
            .await
            .id,
        ErrorId::ManagementObjectNotFound
    );
}

#[tokio::test]
async fn every_change_is_recorded_with_who_and_what() {
    let world = world().await;
    world
        .ok(
            "New-MailUser",
            json!({"Name": "Mike", "ExternalEmailAddress": "mike@partner.example"}),
        )
        .await;
    world.refused("Remove-MailUser", json!({"Identity": "nobody"})).await;
    world.refused("Get-MailUser", json!({"Identity": "nobody"})).await;
    let rows = world.audit().await;
    let last: Vec<(&str, &str)> = rows
        .iter()
        .rev()
        .take(2)
        .map(|(a, r, _)| (a.as_str(), r.as_str()))
        .collect();
    assert_eq!(
        last,
        [
            ("Remove-MailUser", "ManagementObjectNotFoundException"),
            ("New-MailUser", "ok")
        ]
    );
    let body = &rows[rows.len() - 2].2;
    assert_eq!(
        (&body["caller"], &body["origin"], &body["object"]),
        (&json!("admin@contoso.example"), &json!("127.0.0.1"), &json!("Mike"))
    );
    assert_eq!(body["correlation_id"], world.context.correlation.to_string());
    assert_eq!(body["parameters"]["ExternalEmailAddress"], "mike@partner.example");
}
