//! Import-Mailbox -Discover.

use super::{
    recipients::base64,
    world::{World, json, run_in},
};
use rehome_domain::error_id::ErrorId;
use serde_json::{Value as Json, json};

/// Address, location, action and the beginning of the reason of each row.
fn shown(rows: &[Json]) -> Vec<(&str, &str, &str)> {
    rows.iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default();
            (text("EmailAddress"), text("Location"), text("Action"))
        })
        .collect()
}

#[tokio::test]
async fn folders_by_their_names() {
    let world = World::new().await;
    for location in [
        "contoso.example/press",
        "contoso.example/orders@contoso.example",
        "contoso.example/hidden@fabrikam.example",
        "mail.contoso.example/press",
        "fabrikam.example/secret",
        "reception",
    ] {
        world.maildir(location);
    }
    std::fs::create_dir(world.platform.join("contoso.example/empty")).unwrap();
    std::os::unix::fs::symlink("/etc", world.platform.join("contoso.example/link")).unwrap();
    std::fs::write(
        world.platform.join("contoso.example/press/cur/1:2,S"),
        "Subject: x\n\nx",
    )
    .unwrap();
    let template = format!("{}/{{domain}}/{{user}}", world.platform.display());
    let parameters =
        |what_if: bool| json!({"Platform": "main", "Discover": true, "Template": template, "WhatIf": what_if});
    let preview = world.ok("Import-Mailbox", parameters(true)).await;
    let rows = json(&preview.objects);
    assert_eq!(
        shown(&rows),
        [
            ("empty@contoso.example", "contoso.example/empty", "Refuse"),
            (
                "orders@contoso.example",
                "contoso.example/orders@contoso.example",
                "Adopt"
            ),
            ("press@contoso.example", "contoso.example/press", "Adopt"),
            // A name once in the organisation; the other domain's needs a CSV file.
            ("press@mail.contoso.example", "mail.contoso.example/press", "Refuse"),
            ("", "contoso.example/hidden@fabrikam.example", "Refuse"),
            ("", "contoso.example/link", "Refuse"),
        ]
    );
    assert_eq!((&rows[2]["Items"], &rows[2]["Octets"]), (&json!(1), &json!(13)));
    assert!(rows[3]["Reason"].as_str().unwrap().contains("already used"));
    assert!(rows[4]["Reason"].as_str().unwrap().contains("names the domains"));
    assert!(rows[5]["Reason"].as_str().unwrap().contains("symbolic link"));
    assert!(preview.warnings[0].contains("4 of 6 rows"), "{:?}", preview.warnings);
    assert!(world.ok("Get-Mailbox", json!({})).await.objects.is_empty());

    world.ok("Import-Mailbox", parameters(false)).await;
    let press = world
        .one("Get-Mailbox", json!({"Identity": "press@contoso.example"}))
        .await;
    assert_eq!(press["Location"], "contoso.example/press");
    let again = json(&world.ok("Import-Mailbox", parameters(false)).await.objects);
    assert_eq!(again[2]["Action"], "Unchanged");

    // Another tenant sees his own folders alone, by the same template.
    let theirs = run_in(&world.fabrikam(), "Import-Mailbox", parameters(true))
        .await
        .unwrap();
    assert_eq!(
        shown(&json(&theirs.objects)),
        [("secret@fabrikam.example", "fabrikam.example/secret", "Adopt")]
    );
}

#[tokio::test]
async fn a_domain_for_folders_that_name_none() {
    let world = World::new().await;
    world.maildir("contoso.example/press");
    let parameters = |domain: &str| json!({"Platform": "main", "Discover": true, "Template": "contoso.example/{user}", "Domain": domain, "WhatIf": true});
    let rows = json(
        &world
            .ok("Import-Mailbox", parameters("mail.contoso.example"))
            .await
            .objects,
    );
    assert_eq!(
        shown(&rows),
        [("press@mail.contoso.example", "contoso.example/press", "Adopt")]
    );
    let wrong = world.refused("Import-Mailbox", parameters("no domain")).await;
    assert_eq!((wrong.id, wrong.target.as_str()), (ErrorId::ParameterBinding, "Domain"));
    for template in [
        "/etc/{user}",
        "{domain}",
        "../{user}",
        "contoso.example/{user}@{domain}",
    ] {
        let parameters = json!({"Platform": "main", "Discover": true, "Template": template});
        let wrong = world.refused("Import-Mailbox", parameters).await;
        assert_eq!(
            (wrong.id, wrong.target.as_str()),
            (ErrorId::ParameterBinding, "Template"),
            "{template}"
        );
    }
}

#[tokio::test]
async fn accounts_of_a_list() {
    let world = World::new().await;
    world.maildir("contoso.example/u0017");
    let list = base64(
        "# what the server printed\ncontoso.example/u0017 press@contoso.example\nnobody@contoso.example\na b c d\n",
    );
    let parameters = json!({"Platform": "main", "Discover": true, "UserList": list});
    let rows = json(&world.ok("Import-Mailbox", parameters).await.objects);
    assert_eq!(
        shown(&rows),
        [
            ("press@contoso.example", "contoso.example/u0017", "Adopt"),
            ("nobody@contoso.example", "nobody@contoso.example", "Refuse"),
            ("", "a", "Refuse"),
        ]
    );
    let wrong = json!({"Platform": "main", "Discover": true, "UserList": base64("# nobody\n")});
    assert_eq!(world.refused("Import-Mailbox", wrong).await.target, "UserList");
}

#[tokio::test]
async fn discovery_is_asked_for() {
    let world = World::new().await;
    for parameters in [
        json!({"Platform": "main"}),
        json!({"Platform": "main", "Discover": true}),
        json!({"Platform": "main", "Template": "{user}"}),
        json!({"Platform": "main", "Discover": true, "Template": "{user}", "CSVData": base64("x")}),
    ] {
        let error = world.refused("Import-Mailbox", parameters.clone()).await;
        assert_eq!(error.id, ErrorId::ParameterBinding, "{parameters}");
    }
}
