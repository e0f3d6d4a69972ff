//! Partners who lie, ask too much, or lose what they were given.

use crate::deployment::LONG;
use crate::https::percent;
use crate::interceptor::{Action, Gate, Interceptor};
use crate::jose::{Key, claims, now};
use crate::pair::{ENDPOINT, GROUP, MOVE, Pair, Plan, REDIRECT, SOURCE, TARGET, TO_TARGET, error_ids, text};
use crate::rogue::{Rogue, asks_with_assertion};
use rehome_testkit::wait;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

fn intercepted() -> Plan<'static> {
    Plan {
        between: "interceptor",
        ..Plan::default()
    }
}

fn guid(pair: &Pair, name: &str) -> String {
    text(&pair.mailbox(name), "ExchangeGuid")
}

/// A source that lies about itself gets neither secret nor key, and what it gets is of no use at another source.
#[test]
fn hostile_source() {
    let mut pair = Pair::strangers(&Plan::default());
    pair.registers();
    pair.consents();
    // It has a certificate that the target believes, and no more.
    let hostile = Interceptor::alone(&pair.source_server().path("tls"));
    let (own, victim) = (
        format!("https://localhost:{}", hostile.address().port()),
        format!("https://{}", pair.source.server),
    );
    let (own_tenant, victims_tenant) = (uuid::Uuid::new_v4().to_string(), pair.source.tenant.clone());
    let says = |issuer: (&str, &str), token: (&str, &str), mrs: (&str, &str)| {
        json!({
            "issuer": format!("{}/{}/v2.0", issuer.0, issuer.1),
            "token_endpoint": format!("{}/{}/oauth2/v2.0/token", token.0, token.1),
            "jwks_uri": format!("{}/{}/discovery/v2.0/keys", token.0, token.1),
            "rehome_mrs_endpoint": format!("{}/mrs/{}", mrs.0, mrs.1),
            "rehome_protocol_versions": [1],
        })
    };
    let mine = (own.as_str(), own_tenant.as_str());
    let theirs = (victim.as_str(), victims_tenant.as_str());
    let mixed = (own.as_str(), victims_tenant.as_str());
    let words = pair.endpoint_words("hostile", "contoso.example", &pair.secret);
    let words: Vec<String> = words
        .into_iter()
        .map(|word| {
            if word == pair.source.server {
                own["https://".len()..].to_owned()
            } else {
                word
            }
        })
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let tries = |action: Action| {
        hostile.rule(move |seen| {
            if seen.path.contains("/.well-known/") {
                action.clone()
            } else {
                Action::Answer(500, Value::Null)
            }
        });
        pair.target
            .run(&words)
            .expect_err("a liar is not taken for an endpoint")
    };
    // Lies that show at once: nothing else is asked then.
    for (what, document) in [
        ("another's token endpoint", says(mine, theirs, mine)),
        ("another's issuer", says(theirs, mine, mine)),
        ("another's proxy", says(mine, mine, theirs)),
        ("all of another", says(theirs, theirs, theirs)),
        ("another tenant's token endpoint here", says(mine, mixed, mine)),
    ] {
        let before = hostile.seen().len();
        let failure = tries(Action::Answer(200, document));
        assert_eq!(failure.id, "PartnerIdentityChangedException", "{what}: {failure:?}");
        assert_eq!(
            hostile.seen().len(),
            before + 1,
            "{what}: only the document was asked for"
        );
    }
    tries(Action::Redirect(format!(
        "{victim}/{victims_tenant}/v2.0/.well-known/openid-configuration"
    )));
    tries(Action::Text("x".repeat(1_000_000)));
    // A lie that does not show: another tenant's GUID under its own name. It gets an assertion, for itself alone.
    let document = says(mixed, mixed, mixed);
    let taken = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&taken);
    hostile.rule(move |seen| match () {
        () if seen.path.contains("/.well-known/") => Action::Answer(200, document.clone()),
        () if seen.asks_token() => {
            *keep.lock().expect("no one panics here") = seen.field("client_assertion");
            Action::Answer(
                200,
                json!({ "token_type": "Bearer", "expires_in": 600, "access_token": "a.b.c" }),
            )
        }
        () => Action::Answer(500, Value::Null),
    });
    pair.target
        .run(&words)
        .expect_err("a token that is not bound to the mover's key is not taken");
    let assertion = taken
        .lock()
        .expect("no one panics here")
        .take()
        .expect("an assertion came");
    assert_eq!(
        claims(&assertion)["aud"],
        format!("{own}/{victims_tenant}/oauth2/v2.0/token"),
        "for the address it was posted to"
    );
    let answer = asks_with_assertion(
        pair.source.client(),
        &victim,
        &victims_tenant,
        &pair.app,
        &assertion,
        &Key::generate(),
    );
    assert!(matches!(answer.status, 400 | 401), "{}", answer.text());
    // Nothing that it ever saw holds the secret or a private key.
    for seen in hostile.seen() {
        let everything = format!("{seen:?}{}", String::from_utf8_lossy(&seen.body));
        assert!(
            !everything.contains(&pair.secret) && !everything.contains("client_secret"),
            "{} {}",
            seen.method,
            seen.path
        );
        let proof = seen.header("dpop");
        if let Some(header) = proof.split('.').next().filter(|header| !header.is_empty()) {
            use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
            let header: Value =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).expect("base64url")).expect("JSON");
            assert!(
                header["jwk"]["x"].is_string() && header["jwk"]["d"].is_null(),
                "the public part alone: {header}"
            );
        }
    }
    assert!(pair.target.asks("Get-MigrationEndpoint", &json!({})).is_empty());
}

/// An authority that gives out another's application id or tenant GUID as its own is refused, with both shown.
#[test]
fn same_ids_from_a_second_authority() {
    let mut pair = Pair::strangers(&Plan::default());
    pair.registers();
    pair.consents();
    let imposter = Interceptor::alone(&pair.target_server().path("tls"));
    let origin = format!("https://localhost:{}", imposter.address().port());
    let real = pair
        .target
        .client()
        .get(&format!("/{}/applications/{}", pair.target.tenant, pair.app), &[])
        .text();
    let (token_key, statement_key) = (Key::generate(), Key::generate());
    let published = |key: &Key, purpose: &str| {
        let mut jwk = key.jwk();
        jwk["kid"] = key.thumbprint().into();
        jwk["rehome_purpose"] = purpose.into();
        jwk
    };
    let consent = |app: &str, tenant: &str| {
        let mut said = claims(&real);
        said["app_id"] = app.into();
        said["home_tid"] = tenant.into();
        said["iss"] = format!("{origin}/{tenant}/v2.0").into();
        said["rehome_outcome_endpoint"] = format!("{origin}/{tenant}/outcome").into();
        said["keys"] = json!([published(&token_key, "token"), published(&statement_key, "statement")]);
        said["home_domains"] = json!(["imposter.example"]);
        (said["iat"], said["exp"]) = (now().into(), (now() + 300).into());
        let document = token_key.token("rehome-app+jwt", &said);
        imposter.rule(move |_| Action::Text(document.clone()));
        let link = format!(
            "https://{}/{SOURCE}/adminconsent?client_id={app}&redirect_uri={}&authority={}",
            pair.source.server,
            percent(REDIRECT),
            percent(&origin)
        );
        pair.source.run(&["consent", &link, "--yes"])
    };
    let fresh = || uuid::Uuid::new_v4().to_string();
    for (what, app, tenant) in [
        ("the application", pair.app.clone(), fresh()),
        ("the tenant", fresh(), pair.target.tenant.clone()),
        ("both", pair.app.clone(), pair.target.tenant.clone()),
        ("the source itself", fresh(), pair.source.tenant.clone()),
    ] {
        let failure = consent(&app, &tenant).expect_err(what);
        let known = if what == "the source itself" {
            &pair.source.server
        } else {
            &pair.target.server
        };
        assert!(
            failure.message.contains(known) && failure.message.contains(&origin),
            "{what}: both are shown: {failure:?}"
        );
    }
    // What is pinned and bound is as it was.
    let principals = pair
        .source
        .asks("Get-MgServicePrincipal", &json!({ "ServicePrincipalId": pair.app }));
    assert_eq!(
        (principals.len(), text(&principals[0], "AppOwnerOrganizationId")),
        (1, pair.target.tenant.clone())
    );
    // That the forgery is well made shows where nothing of another's is claimed.
    let (app, tenant) = (fresh(), fresh());
    consent(&app, &tenant).expect("an organisation of its own");
    let principals = pair
        .source
        .asks("Get-MgServicePrincipal", &json!({ "ServicePrincipalId": app }));
    assert_eq!(text(&principals[0], "AppOwnerOrganizationId"), tenant);
}

/// What a partner may make the source promise: nothing that sends mail elsewhere, and nothing unproven.
#[test]
fn what_prepare_refuses() {
    let mut pair = Pair::ready(&Plan {
        mailboxes: &["press", "board"],
        ..intercepted()
    });
    pair.source.does(&[
        "Remove-DistributionGroupMember",
        GROUP,
        "-Member",
        &format!("board@{SOURCE}"),
    ]);
    let rogue = Rogue::with_stolen_assertion(&pair);
    let (press, board) = (guid(&pair, "press"), guid(&pair, "board"));
    let boards_name = text(&pair.mailbox("board"), "LegacyExchangeDN");
    let mail_user = &pair
        .target
        .asks("Get-MailUser", &json!({ "Identity": format!("press@{TARGET}") }))[0];
    let (good_address, good_name) = (format!("press@{TARGET}"), text(mail_user, "LegacyExchangeDN"));

    let attempt = uuid::Uuid::new_v4().to_string();
    let answer = rogue.prepare(&press, &attempt, &good_address, &good_name);
    assert_ne!(answer.status, 200, "not locked: {}", answer.text());
    let answer = rogue.attempt(&press, "lock", &attempt);
    assert!(
        answer.status == 200 && answer.json()["lease_milliseconds"].as_u64() > Some(0),
        "{}",
        answer.text()
    );
    for (id, address, name) in [
        (
            "RoutingAddressNotAcceptedException",
            "press@elsewhere.example",
            good_name.as_str(),
        ),
        (
            "RoutingAddressNotAcceptedException",
            "press@sub.fabrikam.example",
            &good_name,
        ),
        (
            "RoutingAddressNotAcceptedException",
            "board@contoso.example",
            &good_name,
        ),
        (
            "RoutingAddressNotAcceptedException",
            "nobody@fabrikam.example",
            &good_name,
        ),
        ("RoutingAddressNotAcceptedException", "press", &good_name),
        ("LegacyExchangeDnNotAcceptedException", &good_address, &boards_name),
        (
            "LegacyExchangeDnNotAcceptedException",
            &good_address,
            &boards_name.to_uppercase(),
        ),
        ("LegacyExchangeDnNotAcceptedException", &good_address, "no name at all"),
        ("RootMismatchException", &good_address, &good_name),
    ] {
        let answer = rogue.prepare(&press, &attempt, address, name);
        assert_eq!(answer.error_id(), id, "{address} {name}: {}", answer.text());
    }
    let mut unread = json!({ "attempt": attempt, "root": "0".repeat(64), "exceptions": [], "read_back": false, "routing_address": good_address,
        "legacy_exchange_dn": good_name, "outcome_key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=" });
    assert_eq!(
        rogue.verb(&press, "prepare", &unread).error_id(),
        "ReadBackRequiredException"
    );
    unread["read_back"] = true.into();
    unread["exceptions"] = json!([{ "folder": ["INBOX"], "uid": 1, "kind": "skipped", "approved": false, "held": {} }]);
    assert_eq!(
        rogue.verb(&press, "prepare", &unread).error_id(),
        "SkippedItemsNotApprovedException"
    );
    assert_eq!(
        pair.outbound("press").map(|row| text(&row, "State")),
        Some("Locked".to_owned())
    );
    assert_ne!(
        rogue.attempt(&press, "commit", &attempt).status,
        200,
        "nothing was promised"
    );

    // While another move holds it, no one else gets it.
    let test = &pair.target.does(&[
        "Test-MigrationServerAvailability",
        "-Endpoint",
        ENDPOINT,
        "-TestMailbox",
        &good_address,
    ])[0];
    assert_eq!(
        error_ids(&test["ErrorIds"]),
        ["SourceMailboxAlreadyBeingMovedPermanentException"],
        "{test}"
    );
    let other = uuid::Uuid::new_v4().to_string();
    assert_ne!(rogue.attempt(&press, "commit", &other).status, 200);
    assert_eq!(rogue.attempt(&press, "abort", &attempt).status, 200);
    assert_eq!(pair.outbound_is("press", "Open")["LockMilliseconds"], Value::Null);

    // A mailbox out of scope, by its right GUID, at every verb.
    let rogue = Rogue {
        move_id: uuid::Uuid::new_v4().to_string(),
        ..rogue
    };
    for verb in [
        "open", "folders", "listing", "items", "lock", "renew", "prepare", "commit", "abort", "status", "sweep",
    ] {
        let body = json!({ "attempt": attempt, "folder": ["INBOX"], "uid_validity": 1, "uids": [[1, 1]], "root": "0".repeat(64), "exceptions": [],
            "read_back": true, "routing_address": good_address, "legacy_exchange_dn": good_name, "outcome_key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=" });
        let body = if verb == "listing" || verb == "items" {
            json!({ "folder": ["INBOX"], "uid_validity": 1, "uids": [[1, 1]] })
        } else {
            body
        };
        let answer = rogue.verb(&board, verb, &body);
        let wanted = if verb == "sweep" {
            "StaleAttemptException"
        } else {
            "MailboxNotInCrossTenantMigrationScopeException"
        };
        assert_eq!(answer.error_id(), wanted, "{verb}: {}", answer.text());
    }
    pair.has_stayed("press");
    pair.has_stayed("board");
}

/// Locks that come to nothing are counted; beyond the limit the answer is "not now", with the time.
#[test]
fn lock_beyond_the_limit() {
    let mut pair = Pair::ready(&intercepted());
    let rogue = Rogue::with_stolen_assertion(&pair);
    let press = guid(&pair, "press");
    let lock = || {
        let attempt = uuid::Uuid::new_v4().to_string();
        let answer = rogue.attempt(&press, "lock", &attempt);
        if answer.status == 200 {
            // Locking again is resuming; it does not count.
            assert_eq!(rogue.attempt(&press, "lock", &attempt).status, 200);
            assert_eq!(rogue.attempt(&press, "abort", &attempt).status, 200);
        }
        answer
    };
    for number in 0..3 {
        assert_eq!(lock().status, 200, "{number}");
    }
    let refused = lock();
    assert_eq!(refused.error_id(), "CutoverNotNowException", "{}", refused.text());
    assert!(
        refused.json()["error"]["retry_after"].as_u64() > Some(3600),
        "with the time: {}",
        refused.text()
    );
    // The source's administrator may allow more.
    pair.source
        .does(&["Set-OrganizationRelationship", TO_TARGET, "-MaxLockAttemptsPerDay", "4"]);
    assert_eq!(lock().status, 200);
    assert_eq!(lock().error_id(), "CutoverNotNowException");
    // The mailbox itself is as ever.
    let port = pair.source_server().smtp_port;
    pair.written("press").gets_mail(port, &format!("press@{SOURCE}"), false);
    pair.has_stayed("press");
}

/// The target's operator adds a domain after consent was given: the source does not send its mail there until it has seen it.
#[test]
fn routing_address_in_a_third_domain() {
    let mut pair = Pair::ready(&Plan::default());
    let third = "third.example";
    let config = pair.target_server().path("config.toml").display().to_string();
    pair.target_server()
        .operator(&["tenant", "domain", "add", TARGET, third, "--config", &config]);
    pair.target.does(&[
        "Set-MailUser",
        "press",
        "-EmailAddresses",
        &format!("@{{Add=\"smtp:press@{third}\"}}"),
    ]);
    let port = pair.target_server().smtp_port;
    let source = pair.source_server();
    source.settings.routes.insert(third.to_owned(), port);
    source.configure();
    source.stop();
    source.start();
    pair.starts_batch("wave-1", &["press"], &["-TargetDeliveryDomain", third]);
    pair.is_synced("press");
    pair.completes_batch("wave-1");
    let user = pair.reaches("press", &["CompletionFailed"]);
    assert_eq!(
        error_ids(&user["ErrorIds"]),
        ["RoutingAddressNotAcceptedException"],
        "{user}"
    );
    assert!(
        pair.source_server().log().contains(&text(&user, "CorrelationId")),
        "{user}"
    );
    pair.outbound_is("press", "Open");
    pair.has_stayed("press");
    // Consent is renewed: now the source has been told of the domain.
    pair.consents();
    pair.target.does(&["Start-MigrationUser", &format!("press@{TARGET}")]);
    pair.is_completed("press");
    pair.has_moved("press");
    let moved = &pair
        .source
        .asks("Get-MailUser", &json!({ "Identity": format!("press@{SOURCE}") }))[0];
    assert!(
        text(moved, "ExternalEmailAddress")
            .to_lowercase()
            .contains(&format!("press@{third}")),
        "{moved}"
    );
}

/// What the source withdraws before it has given its word counts; what it withdraws later does not undo its word.
#[test]
fn revocation_before_and_after_prepare() {
    let names = ["after", "before", "group"];
    let mut pair = Pair::ready(&Plan {
        mailboxes: &names,
        ..intercepted()
    });
    for name in names {
        pair.starts_batch(name, &[name], &[]);
        pair.is_synced(name);
    }
    let holds = |pair: &Pair, name: &str, answer: bool| {
        let gate = Gate::closed();
        let (held, guid) = (gate.clone(), guid(pair, name));
        pair.interceptor()
            .rule(move |seen| match seen.is_verb("prepare") && seen.path.contains(&guid) {
                true if answer => Action::HoldAnswer(held.clone()),
                true => Action::Hold(held.clone()),
                false => Action::Forward,
            });
        pair.completes_batch(name);
        wait::until_true(&format!("{name} waits at Prepare"), LONG, || gate.someone_waits());
        gate
    };
    // After: the promise stands.
    let gate = holds(&pair, "after", true);
    pair.outbound_is("after", "Prepared");
    pair.source.does(&["Remove-MgServicePrincipal", &pair.app]);
    pair.source
        .does(&["Set-OrganizationRelationship", TO_TARGET, "-Enabled:false"]);
    gate.open();
    pair.is_completed("after");
    pair.has_moved("after");
    assert_eq!(
        pair.outbound("after").map(|row| text(&row, "State")),
        Some("Moved".to_owned())
    );

    // Before: the mailbox stays, open.
    pair.consents();
    pair.source.does(&[
        "Set-OrganizationRelationship",
        TO_TARGET,
        "-Enabled:true",
        "-OAuthApplicationId",
        &pair.app,
    ]);
    let gate = holds(&pair, "before", false);
    pair.outbound_is("before", "Locked");
    pair.source.does(&["Remove-MgServicePrincipal", &pair.app]);
    gate.open();
    let user = pair.reaches("before", &["CompletionFailed"]);
    assert_eq!(
        error_ids(&user["ErrorIds"]),
        ["ApplicationNotConsentedException"],
        "{user}"
    );
    pair.outbound_is("before", "Open");
    pair.has_stayed("before");

    // The same with the scope alone, and what was withdrawn given back.
    pair.consents();
    pair.source.does(&[
        "Set-OrganizationRelationship",
        TO_TARGET,
        "-OAuthApplicationId",
        &pair.app,
    ]);
    let gate = holds(&pair, "group", false);
    pair.source.does(&[
        "Remove-DistributionGroupMember",
        GROUP,
        "-Member",
        &format!("group@{SOURCE}"),
    ]);
    gate.open();
    let user = pair.reaches("group", &["CompletionFailed"]);
    assert_eq!(
        error_ids(&user["ErrorIds"]),
        ["MailboxNotInCrossTenantMigrationScopeException"],
        "{user}"
    );
    pair.has_stayed("group");
    pair.source.does(&[
        "Add-DistributionGroupMember",
        GROUP,
        "-Member",
        &format!("group@{SOURCE}"),
    ]);
    pair.interceptor().forward_all();
    for name in ["before", "group"] {
        pair.target.does(&["Start-MigrationUser", &format!("{name}@{TARGET}")]);
        pair.is_completed(name);
        pair.has_moved(name);
    }
}

/// Withdrawn between two passes: no content leaves any more, and nothing is lost on either side.
#[test]
fn revocation_between_passes() {
    let mut pair = Pair::ready(&Plan::default());
    pair.starts_batch("wave-1", &["press"], &[]);
    pair.is_synced("press");
    // What was served is written down together, a moment later.
    let synced = pair.user("press")["SyncedItemCount"].as_u64();
    let served = wait::until("what was served is written down", MOVE, || {
        let served = pair.outbound("press").and_then(|row| row["ItemsServed"].as_u64());
        if served.is_some() && served >= synced {
            Ok(served)
        } else {
            Err(format!("{served:?} of {synced:?}"))
        }
    });
    pair.source.does(&["Remove-MgServicePrincipal", &pair.app]);
    pair.written("press").changes(pair.source_server(), 3);
    pair.target.does(&["Set-MigrationBatch", "wave-1", "-SyncNow"]);
    let user = wait::until("the sync is refused", MOVE, || {
        let user = pair.user("press");
        if error_ids(&user["ErrorIds"]) == ["ApplicationNotConsentedException"] {
            Ok(user)
        } else {
            Err(user.to_string())
        }
    });
    assert!(text(&user, "Status").starts_with("Incremental"), "{user}");
    assert_eq!(
        pair.outbound("press").and_then(|row| row["ItemsServed"].as_u64()),
        served
    );
    pair.has_stayed("press");
    pair.consents();
    pair.source.does(&[
        "Set-OrganizationRelationship",
        TO_TARGET,
        "-OAuthApplicationId",
        &pair.app,
    ]);
    pair.target.does(&["Start-MigrationUser", &format!("press@{TARGET}")]);
    pair.is_synced("press");
    pair.completes_batch("wave-1");
    pair.is_completed("press");
    pair.has_moved("press");
}
