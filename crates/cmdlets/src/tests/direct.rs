//! IMAP servers as source: what is refused, what is shown, and that no password is told.

use super::world::{CONTOSO, World};
use rehome_command::{Secrets, Value};
use rehome_domain::error_id::ErrorId;
use serde_json::{Value as Json, json};

/// Stands in every secret that these tests give.
const SESAME: &str = "sesame";

fn file(text: &str) -> Json {
    Value::Octets(text.as_bytes().to_vec()).to_json(Secrets::Keep)
}

fn with(mut one: Json, more: &Json) -> Json {
    one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    one
}

fn credentials(user: &str) -> Json {
    json!({"UserName": user, "Password": format!("{SESAME} for {user}")})
}

fn endpoint(name: &str, more: Json) -> Json {
    let base = json!({"Name": name, "IMAP": true, "RemoteServer": "imap.partner.example", "SkipVerification": true});
    with(base, &more)
}

fn batch(name: &str, endpoint: &str, csv: &str, more: Json) -> Json {
    let base = json!({"Name": name, "SourceEndpoint": endpoint, "CSVData": file(csv)});
    with(base, &more)
}

async fn silent_about_secrets(world: &World) {
    let audit = world.audit().await;
    assert!(!audit.is_empty() && !format!("{audit:?}").contains(SESAME));
}

#[tokio::test]
async fn endpoints_are_shown_as_they_were_made() {
    let world = World::new().await;
    let token_url = "https://login.partner.example/token";
    for (name, more, expected) in [
        (
            "Plain",
            json!({}),
            json!({"Port": 993, "Security": "Ssl", "SignIn": "Users", "Username": null}),
        ),
        (
            "Start",
            json!({"Security": "tls", "Credentials": credentials("mover")}),
            json!({"Port": 143, "Security": "Tls", "SignIn": "Master", "Username": "mover", "MasterUserSeparator": "*"}),
        ),
        (
            "Near",
            json!({"RemoteServer": "LOCALHOST", "Security": "None", "Port": 1143, "Credentials": credentials("mover"), "MasterUserSeparator": "%"}),
            json!({"RemoteServer": "localhost", "Port": 1143, "Security": "None", "MasterUserSeparator": "%"}),
        ),
        (
            "Proxy",
            json!({"SignIn": "authorization", "Credentials": credentials("mover"), "MaxConcurrentMigrations": 3}),
            json!({"SignIn": "Authorization", "MasterUserSeparator": null, "MaxConcurrentMigrations": 3}),
        ),
        (
            "Cloud",
            json!({"SignIn": "OAuth", "Credentials": credentials("client"), "OAuthTokenUrl": token_url, "OAuthScope": "mail"}),
            json!({"SignIn": "OAuth", "Username": "client", "OAuthTokenUrl": token_url, "OAuthScope": "mail"}),
        ),
    ] {
        let made = world.one("New-MigrationEndpoint", endpoint(name, more)).await;
        let shown = world.one("Get-MigrationEndpoint", json!({"Identity": name})).await;
        assert_eq!(made, shown);
        assert_eq!(
            (&shown["EndpointType"], &shown["RemoteTenant"]),
            (&json!("IMAP"), &Json::Null)
        );
        for (property, value) in expected.as_object().unwrap() {
            assert_eq!(&shown[property], value, "{name}: {property}");
        }
        assert!(!shown.to_string().contains(SESAME));
    }
    assert_eq!(
        world
            .ok("Get-MigrationEndpoint", json!({"Type": "imap"}))
            .await
            .objects
            .len(),
        5
    );
    let others = world
        .ok("Get-MigrationEndpoint", json!({"Type": "ExchangeRemoteMove"}))
        .await;
    assert!(others.objects.is_empty());
    silent_about_secrets(&world).await;
}

#[tokio::test]
async fn endpoints_that_make_no_sense() {
    let world = World::new().await;
    let oauth = |url: &str| json!({"SignIn": "OAuth", "Credentials": credentials("c"), "OAuthTokenUrl": url});
    for (more, text) in [
        (json!({"RemoteServer": "imap.partner.example:993"}), "-Port"),
        (
            json!({"RemoteServer": "https://imap.partner.example"}),
            "host name alone",
        ),
        (json!({"RemoteServer": ""}), "RemoteServer"),
        (json!({"Port": 0}), "1 to 65535"),
        (json!({"Port": 65536}), "1 to 65535"),
        (json!({"Security": "None"}), "localhost"),
        (json!({"Security": "Plain"}), "Security"),
        (json!({"SignIn": "Master"}), "-Credentials"),
        (json!({"MasterUserSeparator": "*"}), "-Credentials"),
        (json!({"SignIn": "Users", "Credentials": credentials("c")}), "SignIn"),
        (json!({"Credentials": credentials(" ")}), "user name"),
        (json!({"Credentials": credentials("a\nb")}), "user name"),
        (
            json!({"Credentials": credentials("c"), "MasterUserSeparator": "**"}),
            "one character",
        ),
        (
            json!({"Credentials": credentials("c"), "MasterUserSeparator": "a"}),
            "one character",
        ),
        (
            json!({"Credentials": credentials("c"), "OAuthScope": "x"}),
            "-SignIn OAuth",
        ),
        (
            json!({"Credentials": credentials("c"), "SignIn": "OAuth"}),
            "OAuthTokenUrl",
        ),
        (
            with(oauth("https://login.example/t"), &json!({"MasterUserSeparator": "*"})),
            "-SignIn Master",
        ),
        (oauth("http://login.example/token"), "https://"),
        (oauth("https://user@login.example/token"), "https://"),
        (oauth("https://login.example/to ken"), "https://"),
        (oauth("https://"), "https://"),
        (oauth("ftp://login.example"), "https://"),
        (json!({"RemoteTenant": "partner.example"}), "Parameter set"),
        (json!({"ExchangeRemoteMove": true}), "Parameter set"),
        (json!({"SkipVerification": false}), "not told how to reach"),
        (
            json!({"SkipVerification": false, "TestMailbox": "reception"}),
            "no credentials",
        ),
    ] {
        let error = world
            .refused("New-MigrationEndpoint", endpoint("Old", more.clone()))
            .await;
        let said = format!("{} {} {}", error.target, error.message, error.advice);
        assert!(said.contains(text), "{more}: {said}");
        assert!(!said.contains(SESAME), "{said}");
    }
    assert!(world.ok("Get-MigrationEndpoint", json!({})).await.objects.is_empty());
    silent_about_secrets(&world).await;
}

#[tokio::test]
async fn a_secret_is_not_sent_to_another_server_unasked() {
    let world = World::new().await;
    world
        .ok(
            "New-MigrationEndpoint",
            endpoint("Master", json!({"Credentials": credentials("mover")})),
        )
        .await;
    world.ok("New-MigrationEndpoint", endpoint("Users", json!({}))).await;
    let set = |name: &str, more: Json| with(json!({"Identity": name, "SkipVerification": true}), &more);
    let elsewhere = json!({"RemoteServer": "imap.elsewhere.example"});
    let refused = world
        .refused("Set-MigrationEndpoint", set("Master", elsewhere.clone()))
        .await;
    assert!(refused.message.contains("another server"), "{}", refused.message);
    for more in [
        json!({"Port": 1993}),
        json!({"Security": "Tls"}),
        json!({"SignIn": "Authorization"}),
        with(elsewhere.clone(), &json!({"Credentials": credentials("mover")})),
        json!({"MaxConcurrentMigrations": 7}),
    ] {
        world.ok("Set-MigrationEndpoint", set("Master", more)).await;
    }
    let shown = world.one("Get-MigrationEndpoint", json!({"Identity": "Master"})).await;
    for (property, value) in [
        ("RemoteServer", json!("imap.elsewhere.example")),
        ("Port", json!(1993)),
        ("Security", json!("Tls")),
        ("SignIn", json!("Authorization")),
        ("MaxConcurrentMigrations", json!(7)),
    ] {
        assert_eq!(shown[property], value, "{property}");
    }

    // Rows bring passwords for the server that they were given for.
    world.ok("Set-MigrationEndpoint", set("Users", elsewhere.clone())).await;
    let csv = format!("EmailAddress,UserName,Password\na@contoso.example,a,{SESAME}\n");
    world
        .ok("New-MigrationBatch", batch("Wave 1", "Users", &csv, json!({})))
        .await;
    let other = json!({"RemoteServer": "imap.third.example"});
    let refused = world.refused("Set-MigrationEndpoint", set("Users", other)).await;
    assert_eq!(refused.id, ErrorId::InvalidOperation);
    assert!(refused.message.contains("passwords of its rows"), "{}", refused.message);

    for (name, more) in [
        (
            "Users",
            json!({"ApplicationId": "0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d"}),
        ),
        ("Users", json!({"Security": "None"})),
        ("Users", json!({"OAuthScope": "x"})),
    ] {
        let refused = world.refused("Set-MigrationEndpoint", set(name, more.clone())).await;
        assert_eq!(refused.id, ErrorId::ParameterBinding, "{more}");
    }
    let refused = world
        .refused("Remove-MigrationEndpoint", json!({"Identity": "Users"}))
        .await;
    assert_eq!(refused.id, ErrorId::InvalidOperation);
    silent_about_secrets(&world).await;
}

#[tokio::test]
async fn a_wrong_file_makes_no_batch_and_quotes_no_password() {
    let world = World::new().await;
    world.ok("New-MigrationEndpoint", endpoint("Users", json!({}))).await;
    let credentials = json!({"Credentials": credentials("mover")});
    world.ok("New-MigrationEndpoint", endpoint("Master", credentials)).await;
    let good = "EmailAddress,UserName,Password\na@contoso.example,a,sesame\n";
    for (name, csv, text) in [
        (
            "Users",
            "EmailAddress\na@contoso.example\n",
            "column UserName is missing",
        ),
        (
            "Users",
            "EmailAddress,UserName\na@contoso.example,a\n",
            "line 2: Password is empty",
        ),
        (
            "Users",
            "EmailAddress,UserName,Password\na@contoso.example,,sesame\n",
            "line 2: UserName is empty",
        ),
        (
            "Users",
            "EmailAddress,UserName,Password\nsesame,a,a@contoso.example\n",
            "line 2: EmailAddress is no",
        ),
        ("Users", "a@contoso.example,a,sesame\n", "column 3 is not known"),
        (
            "Users",
            "EmailAddress,UserName,Password,sesame\na@contoso.example,a,b,c\n",
            "column 4 is not known",
        ),
        (
            "Users",
            "EmailAddress,UserName,Password\na@contoso.example,a,sesame\nb@contoso.example,b\nA@contoso.example,c,sesame\n",
            "line 3: it has 2 fields",
        ),
        (
            "Users",
            "EmailAddress,UserName,Password\na@contoso.example,a,sesame\nA@contoso.example,c,sesame\n",
            "line 3: A@contoso.example is already in line 2",
        ),
        (
            "Users",
            "EmailAddress,UserName,Password\na@contoso.example,a,\"sesame\nx\"\n",
            "line 2: Password is longer",
        ),
        (
            "Users",
            "EmailAddress,UserName,Password\na@contoso.example,\"a\tb\",sesame\n",
            "line 2: UserName is longer",
        ),
        ("Master", good, "line 2: there is a Password"),
    ] {
        let error = world
            .refused("New-MigrationBatch", batch("Wave 1", name, csv, json!({})))
            .await;
        assert_eq!(error.id, ErrorId::MigrationCsvInvalid, "{csv}");
        assert!(error.message.contains(text), "{csv}: {}", error.message);
        assert!(!format!("{error:?}").contains(SESAME), "{}", error.message);
    }
    let long = format!(
        "EmailAddress,UserName,Password\na@contoso.example,a,{}\n",
        "x".repeat(1025)
    );
    let error = world
        .refused("New-MigrationBatch", batch("Wave 1", "Users", &long, json!({})))
        .await;
    assert!(error.message.contains("1024 octets"), "{}", error.message);
    let many: Vec<String> = (0..101).map(|n| format!("Folder {n}")).collect();
    for (more, target) in [
        (
            json!({"TargetDeliveryDomain": "contoso.example"}),
            "TargetDeliveryDomain",
        ),
        (json!({"ExcludeFolders": ["a//b"]}), "ExcludeFolders"),
        (json!({"ExcludeFolders": ["#Nothing#"]}), "ExcludeFolders"),
        (json!({"ExcludeFolders": many}), "ExcludeFolders"),
    ] {
        let error = world
            .refused("New-MigrationBatch", batch("Wave 1", "Users", good, more))
            .await;
        assert_eq!((error.id, error.target.as_str()), (ErrorId::ParameterBinding, target));
    }
    assert!(world.ok("Get-MigrationBatch", json!({})).await.objects.is_empty());
    silent_about_secrets(&world).await;
}

#[tokio::test]
async fn a_batch_is_imap_and_keeps_sealed_passwords() {
    let world = World::new().await;
    world.ok("New-MigrationEndpoint", endpoint("Users", json!({}))).await;
    let csv = format!(
        "EmailAddress,UserName,Password,Note\na@contoso.example,a,{SESAME} a,x\nb@contoso.example,b,{SESAME} b,x\n"
    );
    let more = json!({"AllowUnknownColumnsInCsv": true, "ExcludeFolders": ["#JunkEmail#", "Projects/*"]});
    let made = world
        .one("New-MigrationBatch", batch("Wave 1", "users", &csv, more))
        .await;
    assert_eq!(
        made,
        world.one("Get-MigrationBatch", json!({"Identity": "Wave 1"})).await
    );
    for (property, value) in [
        ("Type", json!("IMAP")),
        ("MigrationType", json!("IMAP")),
        ("TargetDeliveryDomain", Json::Null),
        ("ExcludeFolders", json!(["#JunkEmail#", "Projects/*"])),
        ("TotalCount", json!(2)),
        ("SourceEndpoint", json!("Users")),
    ] {
        assert_eq!(made[property], value, "{property}");
    }
    let mut tx = world.context.store.read().await.unwrap();
    let users = tx.move_list(CONTOSO, None).await.unwrap();
    let mut sealed = Vec::new();
    for user in users {
        let remote = tx.direct_user_get(CONTOSO, user.id).await.unwrap().unwrap();
        assert_eq!(user.email_address, format!("{}@contoso.example", remote.name));
        sealed.push(remote.sealed_password.unwrap());
    }
    assert_eq!(sealed.len(), 2);
    assert!(sealed[0] != sealed[1] && !sealed.iter().any(|s| s.windows(6).any(|w| w == SESAME.as_bytes())));
    drop(tx);
    for (name, parameters) in [
        ("Get-MigrationUser", json!({"Identity": "a@contoso.example"})),
        ("Get-MigrationUserStatistics", json!({"Identity": "a@contoso.example"})),
    ] {
        assert!(!world.one(name, parameters).await.to_string().contains(SESAME));
    }
    silent_about_secrets(&world).await;
}

#[tokio::test]
async fn tests_of_servers_say_what_is_missing() {
    let world = World::new().await;
    world.ok("New-MigrationEndpoint", endpoint("Users", json!({}))).await;
    let master = endpoint("Master", json!({"Credentials": credentials("mover")}));
    world.ok("New-MigrationEndpoint", master).await;
    for (parameters, text) in [
        (
            json!({"Endpoint": "Users", "TestMailbox": "a"}),
            "password of the account is needed",
        ),
        (
            json!({"Endpoint": "Master", "Credentials": credentials("a")}),
            "credentials of its own",
        ),
        (
            json!({"IMAP": true, "RemoteServer": "imap.partner.example", "Security": "None"}),
            "localhost",
        ),
        (
            json!({"IMAP": true, "RemoteServer": "imap.partner.example/"}),
            "host name alone",
        ),
        (json!({"IMAP": true, "Endpoint": "Users"}), "Parameter set"),
        (json!({"IMAP": true}), "RemoteServer"),
    ] {
        let error = world
            .refused("Test-MigrationServerAvailability", parameters.clone())
            .await;
        let said = format!("{} {} {}", error.target, error.message, error.advice);
        assert!(said.contains(text) && !said.contains(SESAME), "{parameters}: {said}");
    }
    for parameters in [
        json!({"Endpoint": "Users"}),
        json!({"Endpoint": "Users", "Credentials": credentials("a")}),
        json!({"Endpoint": "Master", "TestMailbox": "a"}),
        json!({"IMAP": true, "RemoteServer": "imap.partner.example"}),
    ] {
        let found = world.one("Test-MigrationServerAvailability", parameters).await;
        assert_eq!(found["Result"], "Failed");
        assert!(
            found["ConnectionSettings"]
                .as_str()
                .unwrap()
                .contains("imap.partner.example;Port=993;Security=Ssl")
        );
        assert!(
            found["Message"].as_str().unwrap().contains("not told how to reach"),
            "{found}"
        );
    }
    silent_about_secrets(&world).await;
}

#[tokio::test]
async fn a_partner_needs_the_domain_to_forward_to() {
    let world = World::new().await;
    world
        .ok("New-MigrationEndpoint", json!({
            "Name": "Partner", "ExchangeRemoteMove": true, "RemoteServer": "mail.partner.example", "RemoteTenant": "partner.example",
            "Credentials": {"UserName": "0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d", "Password": SESAME}, "SkipVerification": true,
        }))
        .await;
    let csv = "EmailAddress\na@contoso.example\n";
    let domain = json!({"TargetDeliveryDomain": "contoso.example"});
    for (more, target) in [
        (json!({}), "TargetDeliveryDomain"),
        (
            with(domain.clone(), &json!({"ExcludeFolders": ["a"]})),
            "ExcludeFolders",
        ),
    ] {
        let error = world
            .refused("New-MigrationBatch", batch("Wave 1", "Partner", csv, more))
            .await;
        assert_eq!((error.id, error.target.as_str()), (ErrorId::ParameterBinding, target));
    }
    let made = world
        .one("New-MigrationBatch", batch("Wave 1", "Partner", csv, domain))
        .await;
    assert_eq!(
        (&made["Type"], &made["ExcludeFolders"]),
        (&json!("ExchangeRemoteMove"), &json!([]))
    );
    for (name, parameters) in [
        ("Set-MigrationEndpoint", json!({"Identity": "Partner", "Port": 993})),
        (
            "Set-MigrationEndpoint",
            json!({"Identity": "Partner", "TestMailbox": "a"}),
        ),
        (
            "Test-MigrationServerAvailability",
            json!({"Endpoint": "Partner", "Credentials": credentials("a")}),
        ),
    ] {
        assert_eq!(
            world.refused(name, parameters).await.id,
            ErrorId::ParameterBinding,
            "{name}"
        );
    }
    silent_about_secrets(&world).await;
}
