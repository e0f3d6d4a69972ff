use super::world::{FABRIKAM, World, json, run_in};
use rehome_domain::{
    error_id::ErrorId,
    recipient::{MailboxState, RecipientKind},
};
use serde_json::{Value as Json, json};

#[tokio::test]
async fn a_mailbox_from_making_to_showing() {
    let world = World::new().await;
    let made = world
        .one(
            "New-Mailbox",
            json!({"Name": "Lara Newton", "MicrosoftOnlineServicesID": "lara@contoso.example"}),
        )
        .await;
    assert_eq!(made["Alias"], "lara");
    assert_eq!(made["PrimarySmtpAddress"], "lara@contoso.example");
    assert_eq!(made["RecipientTypeDetails"], "UserMailbox");
    assert_eq!(made["Platform"], "main");
    let dn = made["LegacyExchangeDN"].as_str().unwrap();
    assert!(
        dn.starts_with("/o=contoso.example/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn="),
        "{dn}"
    );
    assert!(
        world
            .platform
            .join(made["Location"].as_str().unwrap())
            .join("cur")
            .is_dir()
    );

    world
        .ok("Set-Mailbox", json!({
            "Identity": "lara",
            "EmailAddresses": {"Add": ["smtp:lara.newton@mail.contoso.example", "x500:/o=Old/ou=x/cn=Recipients/cn=lara"]},
            "CustomAttribute1": "Cross-Tenant-Project",
            "LitigationHoldEnabled": true,
            "HiddenFromAddressListsEnabled": "$true",
        }))
        .await;
    world
        .ok(
            "Set-Mailbox",
            json!({"Identity": dn, "WindowsEmailAddress": "l.newton@contoso.example"}),
        )
        .await;
    let guid = made["ExchangeGuid"].as_str().unwrap();
    for identity in [
        "Lara Newton",
        "LARA",
        "lara.newton@mail.contoso.example",
        dn,
        guid,
        made["Guid"].as_str().unwrap(),
    ] {
        let shown = world.one("Get-Mailbox", json!({"Identity": identity})).await;
        assert_eq!(shown["ExchangeGuid"], guid, "{identity}");
        assert_eq!(
            shown["EmailAddresses"],
            json!([
                "SMTP:l.newton@contoso.example",
                "smtp:lara@contoso.example",
                "smtp:lara.newton@mail.contoso.example",
                "x500:/o=Old/ou=x/cn=Recipients/cn=lara"
            ])
        );
        assert_eq!(
            (&shown["LitigationHoldEnabled"], &shown["CustomAttribute1"]),
            (&json!(true), &json!("Cross-Tenant-Project"))
        );
    }
    world
        .ok("Set-Mailbox", json!({"Identity": "lara", "CustomAttribute1": null}))
        .await;
    assert_eq!(
        world.one("Get-Mailbox", json!({"Identity": "lara"})).await["CustomAttribute1"],
        ""
    );
    let missing = world
        .ok(
            "Set-Mailbox",
            json!({"Identity": "lara", "EmailAddresses": {"Remove": "gone@contoso.example"}}),
        )
        .await;
    assert!(missing.warnings[0].contains("gone@contoso.example"));
}

#[tokio::test]
async fn what_a_recipient_may_not_be() {
    let world = World::new().await;
    world
        .ok(
            "New-Mailbox",
            json!({"Name": "Lara", "MicrosoftOnlineServicesID": "lara@contoso.example"}),
        )
        .await;
    let rows: &[(&str, Json, ErrorId, &str)] = &[
        (
            "New-Mailbox",
            json!({"Name": "x", "MicrosoftOnlineServicesID": "x@elsewhere.example"}),
            ErrorId::NotAcceptedDomain,
            "You can't use the domain because it's not an accepted domain for your organization.",
        ),
        (
            "New-Mailbox",
            json!({"Name": "LARA", "MicrosoftOnlineServicesID": "x@contoso.example"}),
            ErrorId::ObjectAlreadyExists,
            "Name 'LARA'",
        ),
        (
            "New-Mailbox",
            json!({"Name": "x", "MicrosoftOnlineServicesID": "LARA@contoso.example"}),
            ErrorId::ObjectAlreadyExists,
            "already used by 'Lara' (UserMailbox)",
        ),
        (
            "New-Mailbox",
            json!({"Name": "x", "MicrosoftOnlineServicesID": "no address"}),
            ErrorId::ParameterBinding,
            "not an e-mail address",
        ),
        (
            "New-Mailbox",
            json!({"Name": "x", "MicrosoftOnlineServicesID": "x@contoso.example", "Platform": "other"}),
            ErrorId::MailboxPlatform,
            "no platform 'other'",
        ),
        (
            "New-Mailbox",
            json!({"Name": "x", "Password": "geheim", "MicrosoftOnlineServicesID": "x@contoso.example"}),
            ErrorId::ParameterBinding,
            "parameter name 'Password'",
        ),
        (
            "New-Mailbox",
            json!({"Name": "x", "Alias": "a b", "MicrosoftOnlineServicesID": "x@contoso.example"}),
            ErrorId::ParameterBinding,
            "Alias 'a b'",
        ),
        (
            "Set-Mailbox",
            json!({"Identity": "lara", "EmailAddresses": ["SMTP:lara@elsewhere.example"]}),
            ErrorId::NotAcceptedDomain,
            "elsewhere.example",
        ),
        (
            "Set-Mailbox",
            json!({"Identity": "lara", "EmailAddresses": ["x500:/o=a"]}),
            ErrorId::ParameterBinding,
            "needs an SMTP address",
        ),
        (
            "Set-Mailbox",
            json!({"Identity": "lara", "EmailAddresses": ["a@contoso.example"], "WindowsEmailAddress": "b@contoso.example"}),
            ErrorId::ParameterBinding,
            "cannot be used together",
        ),
        (
            "Set-Mailbox",
            json!({"Identity": "lara", "EmailAddresses": {"Remove": "lara@contoso.example"}}),
            ErrorId::ParameterBinding,
            "is the primary address",
        ),
        (
            "Set-Mailbox",
            json!({"Identity": "nobody"}),
            ErrorId::ManagementObjectNotFound,
            "The operation couldn't be performed because object 'nobody' couldn't be found on 'contoso.example'.",
        ),
        (
            "Set-Mailbox",
            json!({"Identity": "*"}),
            ErrorId::ManagementObjectNotFound,
            "object '*'",
        ),
        (
            "Get-Mailbox",
            json!({"Identity": null}),
            ErrorId::ParameterBinding,
            "null",
        ),
        (
            "Get-Mailbox",
            json!({"Identity": ""}),
            ErrorId::ParameterBinding,
            "empty string",
        ),
        (
            "Get-MailUser",
            json!({"Identity": "lara"}),
            ErrorId::ManagementObjectNotFound,
            "object 'lara'",
        ),
        (
            "Get-AcceptedDomain",
            json!({"Identity": "fabrikam.example"}),
            ErrorId::ManagementObjectNotFound,
            "fabrikam.example",
        ),
    ];
    for (name, parameters, id, text) in rows {
        let error = world.refused(name, parameters.clone()).await;
        assert_eq!(error.id, *id, "{name} {parameters}: {error}");
        assert!(error.message.contains(text), "{name} {parameters}: {}", error.message);
    }
    let advice = world.refused("Get-MailUser", json!({"Identity": "lara"})).await.advice;
    assert!(advice.contains("UserMailbox"), "{advice}");
}

#[tokio::test]
async fn an_identity_of_two_is_neither() {
    let world = World::new().await;
    world
        .ok(
            "New-Mailbox",
            json!({"Name": "lara", "Alias": "one", "MicrosoftOnlineServicesID": "one@contoso.example"}),
        )
        .await;
    world
        .ok(
            "New-Mailbox",
            json!({"Name": "two", "Alias": "lara", "MicrosoftOnlineServicesID": "two@contoso.example"}),
        )
        .await;
    let error = world
        .refused(
            "Set-Mailbox",
            json!({"Identity": "lara", "LitigationHoldEnabled": true}),
        )
        .await;
    assert_eq!(error.id, ErrorId::ManagementObjectAmbiguous);
    assert!(error.message.contains("matches multiple entries"), "{}", error.message);
    let all = json(&world.ok("Get-Mailbox", json!({})).await.objects);
    assert!(all.iter().all(|m| m["LitigationHoldEnabled"] == false));
}

#[tokio::test]
async fn a_mail_user_is_prepared_and_removed() {
    let world = World::new().await;
    world
        .ok(
            "New-Mailbox",
            json!({"Name": "Lara", "MicrosoftOnlineServicesID": "lara@contoso.example"}),
        )
        .await;
    let made = world
        .one("New-MailUser", json!({"Name": "Mike", "ExternalEmailAddress": "SMTP:mike@partner.example", "MicrosoftOnlineServicesID": "mike@contoso.example"}))
        .await;
    assert_eq!(made["PrimarySmtpAddress"], "mike@partner.example");
    assert_eq!(made["ExternalEmailAddress"], "SMTP:mike@partner.example");
    assert_eq!(made["ExchangeGuid"], "00000000-0000-0000-0000-000000000000");
    let guid = "0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d";
    world
        .ok("Set-MailUser", json!({
            "Identity": "mike",
            "ExchangeGuid": guid,
            "EmailAddresses": {"Add": ["SMTP:mike@contoso.example", "x500:/o=Partner/ou=x/cn=Recipients/cn=mike"], "Remove": "mike@partner.example"},
        }))
        .await;
    let shown = world.one("Get-MailUser", json!({"Identity": guid})).await;
    assert_eq!(
        shown["EmailAddresses"],
        json!([
            "SMTP:mike@contoso.example",
            "x500:/o=Partner/ou=x/cn=Recipients/cn=mike"
        ])
    );

    let lara = world.one("Get-Mailbox", json!({"Identity": "lara"})).await;
    for (parameters, text) in [
        (
            json!({"Identity": "mike", "ExchangeGuid": lara["ExchangeGuid"]}),
            "already used by 'Lara'",
        ),
        (
            json!({"Identity": "mike", "EmailAddresses": {"Add": "smtp:lara@contoso.example"}}),
            "already used by 'Lara'",
        ),
        (
            json!({"Identity": "mike", "EmailAddresses": {"Add": format!("x500:{}", lara["LegacyExchangeDN"].as_str().unwrap())}}),
            "already used by 'Lara'",
        ),
    ] {
        let error = world.refused("Set-MailUser", parameters).await;
        assert_eq!(error.id, ErrorId::ObjectAlreadyExists, "{error}");
        assert!(error.message.contains(text), "{}", error.message);
    }
    world
        .ok(
            "Set-MailUser",
            json!({"Identity": "mike", "ExchangeGuid": "00000000-0000-0000-0000-000000000000"}),
        )
        .await;
    let shown = world.one("Get-MailUser", json!({"Identity": "mike"})).await;
    assert_eq!(shown["ExchangeGuid"], "00000000-0000-0000-0000-000000000000");
    world.ok("Remove-MailUser", json!({"Identity": "mike"})).await;
    assert_eq!(
        world.refused("Get-MailUser", json!({"Identity": "mike"})).await.id,
        ErrorId::ManagementObjectNotFound
    );
}

#[tokio::test]
async fn a_mailbox_in_a_cutover_stays_as_it_is() {
    let world = World::new().await;
    world
        .ok(
            "New-Mailbox",
            json!({"Name": "Lara", "MicrosoftOnlineServicesID": "lara@contoso.example"}),
        )
        .await;
    let store = &world.context.store;
    let tenant = world.context.caller.tenant;
    let mut tx = store.write().await.unwrap();
    let mut lara = tx.recipient_find(tenant, "lara").await.unwrap().remove(0);
    let RecipientKind::Mailbox(m) = &mut lara.kind else {
        unreachable!()
    };
    m.state = MailboxState::InCutover(rehome_domain::id::MoveId::from_u128(1));
    tx.recipient_update(tenant, &lara).await.unwrap();
    tx.commit("test").await.unwrap();
    let error = world
        .refused(
            "Set-Mailbox",
            json!({"Identity": "lara", "LitigationHoldEnabled": true}),
        )
        .await;
    assert_eq!(error.id, ErrorId::InvalidOperation);
    assert_eq!(
        world.one("Get-Mailbox", json!({"Identity": "lara"})).await["MailboxState"],
        "InCutover"
    );
}

#[tokio::test]
async fn groups_and_the_record_of_scope_changes() {
    let world = World::new().await;
    world
        .ok(
            "New-Mailbox",
            json!({"Name": "Lara", "MicrosoftOnlineServicesID": "lara@contoso.example"}),
        )
        .await;
    let group = world
        .one(
            "New-DistributionGroup",
            json!({"Name": "Leaving for Fabrikam", "Type": "security"}),
        )
        .await;
    assert_eq!(group["GroupType"], "Universal, SecurityEnabled");
    assert_eq!(group["PrimarySmtpAddress"], "LeavingforFabrikam@contoso.example");
    assert_eq!(group["MemberDepartRestriction"], "Closed");
    world
        .ok("New-DistributionGroup", json!({"Name": "Inner", "Members": ["lara"]}))
        .await;
    let pair = json!({"Identity": "Leaving for Fabrikam", "Member": "lara"});
    world.ok("Add-DistributionGroupMember", pair.clone()).await;
    let again = world.refused("Add-DistributionGroupMember", pair.clone()).await;
    assert_eq!(again.id, ErrorId::MemberAlreadyExists);
    assert_eq!(
        again.message,
        "The recipient \"Lara\" is already a member of the group \"Leaving for Fabrikam\"."
    );
    let members = world
        .ok(
            "Get-DistributionGroupMember",
            json!({"Identity": "Leaving for Fabrikam"}),
        )
        .await;
    assert_eq!(json(&members.objects)[0]["Name"], "Lara");

    world
        .ok(
            "New-OrganizationRelationship",
            json!({
                "Name": "Fabrikam", "DomainNames": [FABRIKAM.to_string()], "MailboxMoveEnabled": true,
                "MailboxMoveCapability": "RemoteOutbound", "MailboxMovePublishedScopes": ["leaving for fabrikam"],
            }),
        )
        .await;
    world.ok("Remove-DistributionGroupMember", pair.clone()).await;
    assert_eq!(
        world.refused("Remove-DistributionGroupMember", pair).await.id,
        ErrorId::MemberNotFound
    );
    let nested = world
        .ok(
            "Add-DistributionGroupMember",
            json!({"Identity": "Leaving for Fabrikam", "Member": "Inner"}),
        )
        .await;
    assert!(
        nested.warnings[0].contains("nested groups do not count"),
        "{:?}",
        nested.warnings
    );
    let own = world
        .refused(
            "Add-DistributionGroupMember",
            json!({"Identity": "Inner", "Member": "Inner"}),
        )
        .await;
    assert_eq!(own.id, ErrorId::ParameterBinding);

    let changes: Vec<(String, String, Json)> = world
        .audit()
        .await
        .into_iter()
        .filter(|(action, ..)| action.ends_with("DistributionGroupMember"))
        .collect();
    let results: Vec<&str> = changes.iter().map(|(_, result, _)| result.as_str()).collect();
    assert_eq!(
        results,
        [
            "ok",
            "MemberAlreadyExistsException",
            "ok",
            "MemberNotFoundException",
            "ok",
            "ParameterBindingException"
        ]
    );
    assert!(changes[0].2["parameters"].get("ScopeChangeOf").is_none());
    assert_eq!(changes[2].2["parameters"]["ScopeChangeOf"], json!(["Fabrikam"]));
}

#[tokio::test]
async fn existing_mailboxes_are_taken_in_once() {
    let world = World::new().await;
    for location in ["anna", "bert", "gone/for/ever", "orphan"]
        .map(|l| format!("contoso.example/{l}"))
        .iter()
        .map(String::as_str)
        .chain(["fabrikam.example/carl", "dave"])
    {
        world.maildir(location);
    }
    std::fs::create_dir(world.platform.join("contoso.example/empty")).unwrap();
    std::fs::write(world.platform.join("contoso.example/anna/cur/1:2,S"), "Subject: x\n\nx").unwrap();
    let file = base64(
        "EmailAddress,Location,Name,ExchangeGuid\r\n\
        anna@contoso.example,contoso.example/anna,Anna B,\r\n\
        bert@contoso.example,contoso.example/bert,,0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d\r\n\
        dora@contoso.example,contoso.example/nowhere,,\r\n\
        emil@contoso.example,contoso.example/empty,,\r\n\
        finn@elsewhere.example,contoso.example/gone/for/ever,,\r\n\
        carl@contoso.example,fabrikam.example/carl,,\r\n\
        greg@contoso.example,contoso.example/anna,,\r\n\
        hans@contoso.example,contoso.example/../etc,,\r\n\
        ines@contoso.example,dave,,\r\n",
    );
    let parameters = json!({"Platform": "main", "CSVData": file, "WhatIf": true});
    let preview = world.ok("Import-Mailbox", parameters.clone()).await;
    let expected = [
        ("anna@contoso.example", "Adopt", ""),
        ("bert@contoso.example", "Adopt", ""),
        (
            "dora@contoso.example",
            "Refuse",
            "There is no mailbox at 'contoso.example/nowhere'.",
        ),
        ("emil@contoso.example", "Refuse", "is not a Maildir"),
        ("finn@elsewhere.example", "Refuse", "not an accepted domain"),
        (
            "carl@contoso.example",
            "Refuse",
            "not below a folder of this organisation",
        ),
        ("greg@contoso.example", "Refuse", "already the place of 'Anna B'"),
        ("hans@contoso.example", "Refuse", "is not a location"),
        (
            "ines@contoso.example",
            "Refuse",
            "not below a folder of this organisation",
        ),
        ("", "Orphan", "owns this folder"),
    ];
    let rows = json(&preview.objects);
    assert_eq!(rows.len(), expected.len(), "{rows:?}");
    for (row, (address, action, reason)) in rows.iter().zip(expected) {
        assert_eq!(
            (row["EmailAddress"].as_str(), row["Action"].as_str()),
            (Some(address), Some(action)),
            "{row}"
        );
        assert!(row["Reason"].as_str().unwrap().contains(reason), "{row}");
    }
    assert_eq!(rows[0]["Items"], 1);
    assert_eq!(
        rows[5]["Items"],
        serde_json::Value::Null,
        "nothing is said of another's folder"
    );
    assert_eq!(rows[9]["Location"], "contoso.example/orphan");
    assert!(
        world.ok("Get-Mailbox", json!({})).await.objects.is_empty(),
        "a preview changes nothing"
    );

    let parameters = json!({"Platform": "main", "CSVData": file});
    let done = world.ok("Import-Mailbox", parameters.clone()).await;
    assert!(
        done.warnings[0].contains("7 of 9 rows were refused"),
        "{:?}",
        done.warnings
    );
    let anna = world.one("Get-Mailbox", json!({"Identity": "anna"})).await;
    assert_eq!(
        (anna["Name"].as_str(), anna["Location"].as_str()),
        (Some("Anna B"), Some("contoso.example/anna"))
    );
    assert_eq!(anna["ExchangeGuid"], json(&done.objects)[0]["ExchangeGuid"]);
    let bert = world.one("Get-Mailbox", json!({"Identity": "bert"})).await;
    assert_eq!(bert["ExchangeGuid"], "0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d");

    let again = json(&world.ok("Import-Mailbox", parameters).await.objects);
    assert_eq!(
        (&again[0]["Action"], &again[1]["Action"]),
        (&json!("Unchanged"), &json!("Unchanged"))
    );
    assert_eq!(again[0]["ExchangeGuid"], anna["ExchangeGuid"]);
    let other = base64(
        "EmailAddress,Location,ExchangeGuid\nbert@contoso.example,contoso.example/bert,11111111-8a51-4f7a-9d0c-1d2f3a4b5c6d\n",
    );
    let rows = json(
        &world
            .ok("Import-Mailbox", json!({"Platform": "main", "CSVData": other}))
            .await
            .objects,
    );
    assert!(
        rows[0]["Reason"].as_str().unwrap().contains("keeps for ever"),
        "{}",
        rows[0]
    );

    let wrong = base64("EmailAddress,Place\nbert@contoso.example,bert\n");
    let error = world
        .refused("Import-Mailbox", json!({"Platform": "main", "CSVData": wrong}))
        .await;
    assert_eq!(error.id, ErrorId::MigrationCsvInvalid);
    assert!(
        error.message.contains("'Place' is not known") && error.message.contains("column Location is missing"),
        "{}",
        error.message
    );
    // The other tenant does not get at what is taken in here.
    let stolen = base64("EmailAddress,Location\nthief@fabrikam.example,contoso.example/anna\n");
    let theirs = run_in(
        &world.fabrikam(),
        "Import-Mailbox",
        json!({"Platform": "main", "CSVData": stolen}),
    )
    .await
    .unwrap();
    assert!(
        json(&theirs.objects)[0]["Reason"]
            .as_str()
            .unwrap()
            .contains("not below a folder of this organisation")
    );
}

pub(super) fn base64(text: &str) -> String {
    // The JSON form of byte[] as the command line makes it.
    let value = rehome_command::Value::Octets(text.as_bytes().to_vec());
    value
        .to_json(rehome_command::Secrets::Keep)
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn lists_are_cut_with_a_warning() {
    let world = World::new().await;
    for n in 0..4 {
        world
            .ok(
                "New-MailUser",
                json!({"Name": format!("user{n}"), "ExternalEmailAddress": format!("user{n}@partner.example")}),
            )
            .await;
    }
    for (size, shown, warned) in [
        (json!(2), 2, true),
        (json!(4), 4, false),
        (json!("Unlimited"), 4, false),
    ] {
        let output = world.ok("Get-Recipient", json!({"ResultSize": size})).await;
        assert_eq!(
            (output.objects.len(), !output.warnings.is_empty()),
            (shown, warned),
            "{size}"
        );
    }
    let kinds = world
        .ok("Get-Recipient", json!({"RecipientTypeDetails": ["usermailbox"]}))
        .await;
    assert!(kinds.objects.is_empty());
}

#[tokio::test]
async fn the_organisation() {
    let world = World::new().await;
    let config = world.one("Get-OrganizationConfig", json!({})).await;
    assert_eq!(
        (config["IsDehydrated"].as_bool(), config["Name"].as_str()),
        (Some(false), Some("contoso.example"))
    );
    let domains = json(&world.ok("Get-AcceptedDomain", json!({})).await.objects);
    assert_eq!(domains.len(), 2);
    assert_eq!(
        (&domains[0]["DomainName"], &domains[0]["Default"]),
        (&json!("contoso.example"), &json!(true))
    );
    assert_eq!(
        world
            .one("Get-AcceptedDomain", json!({"Identity": "MAIL.contoso.example"}))
            .await["DomainType"],
        "Authoritative"
    );
}
