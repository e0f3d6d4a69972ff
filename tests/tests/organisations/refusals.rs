//! Every refusal by its error id, with what the other side's administrator can see of it.

use crate::administrator::Answer;
use crate::deployment::LONG;
use crate::pair::{ENDPOINT, GROUP, Pair, Plan, SOURCE, TARGET, TO_TARGET, error_ids, text};
use rehome_testkit::{process::free_port, wait};
use serde_json::{Value, json};
use std::process::Command;

fn words(pair: &Pair, name: &str, remote_tenant: &str, secret: &str) -> Vec<String> {
    pair.endpoint_words(name, remote_tenant, secret)
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// The same words with another value after `-NAME`.
fn with(words: &[String], name: &str, value: &str) -> Vec<String> {
    let at = 1 + words
        .iter()
        .position(|word| word == name)
        .expect("the parameter is there");
    let mut words = words.to_vec();
    value.clone_into(&mut words[at]);
    words
}

/// An endpoint is tried before it is made: whatever is wrong but the partner's consent makes none.
#[test]
fn endpoints() {
    let mut pair = Pair::strangers(&Plan::default());
    pair.registers();
    let good = words(&pair, "one", SOURCE, &pair.secret);
    let none = |pair: &Pair| {
        assert_eq!(
            pair.target.asks("Get-MigrationEndpoint", &json!({})),
            Vec::<Value>::new()
        )
    };

    // The target's own consent is missing.
    pair.target.does(&["Remove-MgServicePrincipal", &pair.app]);
    pair.target.is_refused("HomeConsentMissingException", &borrowed(&good));
    pair.target.does(&[
        "New-MgServicePrincipalAppRoleAssignment",
        "-ServicePrincipalId",
        &pair.app,
    ]);
    // What is wrong with the words.
    for (id, wrong) in [
        (
            "InvalidTenantException",
            words(&pair, "one", "nobody.example", &pair.secret),
        ),
        ("SameTenantException", words(&pair, "one", TARGET, &pair.secret)),
        (
            "SameTenantException",
            words(&pair, "one", &pair.target.tenant, &pair.secret),
        ),
        (
            "InvalidClientSecretException",
            words(&pair, "one", SOURCE, "not-the-secret"),
        ),
        (
            "MigrationServerConnectionFailedException",
            with(&good, "-RemoteServer", &format!("localhost:{}", free_port())),
        ),
    ] {
        let failure = pair.target.is_refused(id, &borrowed(&wrong));
        assert!(!failure.correlation.is_empty() && failure.exit == 1, "{failure:?}");
        if id == "InvalidTenantException" {
            let log = pair.source_server().log();
            assert!(
                log.contains(&failure.correlation),
                "the source's log has {}",
                failure.correlation
            );
        }
    }
    let vault = [
        &good[..],
        &["-AppSecretKeyVaultUrl".to_owned(), "https://vault.example".to_owned()],
    ]
    .concat();
    let failure = pair.target.is_refused("ParameterBindingException", &borrowed(&vault));
    assert!(
        failure.message.contains("superseded") && (failure.message.clone() + &failure.advice).contains("-Credentials"),
        "{failure:?}"
    );
    none(&pair);

    // A secret past its end.
    let end = Command::new("date")
        .args(["-u", "-d", "+5 seconds", "+%FT%TZ"])
        .output()
        .expect("date runs");
    let end = String::from_utf8_lossy(&end.stdout).trim().to_owned();
    let short = text(
        &pair.target.does(&[
            "Add-MgApplicationPassword",
            "-ApplicationId",
            &pair.app,
            "-EndDateTime",
            &end,
        ])[0],
        "SecretText",
    );
    let expired = words(&pair, "one", SOURCE, &short);
    wait::until("the secret has ended", LONG, || {
        match pair.target.run(&borrowed(&expired)) {
            Err(failure) if failure.id == "ExpiredClientSecretException" => Ok(()),
            Ok(_) => {
                pair.target.does(&["Remove-MigrationEndpoint", "one"]);
                Err("it is valid still".to_owned())
            }
            Err(failure) => panic!("{failure:?}"),
        }
    });
    none(&pair);

    // Only the source's consent is missing: made, with the link to be sent.
    let good = words(&pair, ENDPOINT, SOURCE, &pair.secret);
    let Answer { objects, said } = pair.target.run(&borrowed(&good)).expect("it is made");
    assert_eq!(objects.len(), 1);
    assert!(
        said.contains(&format!("https://{}/", pair.source.server))
            && said.contains("/adminconsent?")
            && said.contains(&pair.app),
        "{said}"
    );
    let test = &pair
        .target
        .does(&["Test-MigrationServerAvailability", "-Endpoint", ENDPOINT])[0];
    assert_eq!(
        (text(test, "Result"), error_ids(&test["ErrorIds"])),
        ("Failed".to_owned(), vec!["ApplicationNotConsentedException".to_owned()])
    );
    assert!(test.to_string().contains("AADSTS700016"), "{test}");
    assert!(text(test, "ConsentLink").contains("/adminconsent?"), "{test}");
    assert!(
        pair.source_server().log().contains(&text(test, "CorrelationId")),
        "the source's log has the correlation id"
    );
    // The link that was printed is the one that works.
    pair.source.does(&["consent", &text(test, "ConsentLink"), "--yes"]);
    let test = &pair
        .target
        .does(&["Test-MigrationServerAvailability", "-Endpoint", ENDPOINT])[0];
    assert_eq!(text(test, "Result"), "Success", "{test}");

    pair.target.is_refused("ObjectAlreadyExistsException", &borrowed(&good));
    let skipped = [
        &words(&pair, "two", SOURCE, "not-the-secret")[..],
        &["-SkipVerification".to_owned()],
    ]
    .concat();
    pair.target.does(&borrowed(&skipped));
    let test = &pair
        .target
        .does(&["Test-MigrationServerAvailability", "-Endpoint", "two"])[0];
    assert_eq!(error_ids(&test["ErrorIds"]), ["InvalidClientSecretException"], "{test}");
    assert!(test.to_string().contains("AADSTS7000215"), "{test}");
    // The source is away.
    pair.source_server().stop();
    let test = &pair
        .target
        .does(&["Test-MigrationServerAvailability", "-Endpoint", ENDPOINT])[0];
    assert_eq!(
        error_ids(&test["ErrorIds"]),
        ["MigrationServerConnectionFailedException"],
        "{test}"
    );
}

/// What the command line refuses by itself, with nothing done.
#[test]
fn command_lines() {
    let pair = Pair::strangers(&Plan::default());
    for (wanted, line) in [
        (
            "removed $true",
            &[
                "New-OrganizationRelationship",
                "x",
                "-DomainNames",
                "a.example",
                "-Enabled:",
            ][..],
        ),
        (
            "",
            &[
                "New-MigrationEndpoint",
                "-Name",
                "x",
                "-ExchangeRemoteMove",
                "-RemoteServer",
                "a",
                "-RemoteTenant",
                "b",
                "-Credentials",
                "secret",
            ],
        ),
        ("", &["Get-Mailboxx"]),
        ("", &["Get-Mailbox", "-NoSuchParameter", "1"]),
        (
            "",
            &[
                "New-MigrationBatch",
                "-Name",
                "x",
                "-SourceEndpoint",
                "y",
                "-CSVData",
                "/nonexistent.csv",
                "-TargetDeliveryDomain",
                TARGET,
            ],
        ),
    ] {
        let failure = pair.source.run(line).expect_err("it is refused");
        assert_eq!(failure.exit, 2, "{line:?}: {failure:?}");
        assert!(failure.message.contains(wanted), "{line:?}: {failure:?}");
    }
    // A parameter that is not built is unknown, over REST too.
    let answer = pair.source.invoke("Get-Mailbox", &json!({ "NoSuchParameter": 1 }));
    assert_eq!(
        (answer.status, answer.error_id().as_str()),
        (400, "ParameterBindingException"),
        "{}",
        answer.text()
    );
    let answer = pair.source.invoke("Format-Everything", &json!({}));
    assert_eq!(answer.error_id(), "CommandNotFoundException", "{}", answer.text());
}

/// What the source's administrator sees of the last refusal, beside what the target was told.
fn seen_on_both_sides(pair: &mut Pair, id: &str, reason: &str) -> Value {
    let test = pair.target.does(&[
        "Test-MigrationServerAvailability",
        "-Endpoint",
        ENDPOINT,
        "-TestMailbox",
        &format!("press@{TARGET}"),
    ])[0]
        .clone();
    assert_eq!(
        (text(&test, "Result"), error_ids(&test["ErrorIds"])),
        ("Failed".to_owned(), vec![id.to_owned()]),
        "{test}"
    );
    assert!(!text(&test, "ErrorDetail").is_empty(), "{test}");
    let correlation = text(&test, "CorrelationId");
    let log = pair.source_server().log();
    assert!(
        log.lines().any(|line| line.contains(&correlation) && line.contains(id)),
        "{id} under {correlation} in the source's log"
    );
    let rows = pair.source.asks("Get-OutboundMigration", &json!({}));
    let row = rows.iter().find(|row| text(row, "CorrelationId") == correlation);
    let row = row.unwrap_or_else(|| panic!("{id}: no row with {correlation}: {rows:?}"));
    assert!(
        text(row, "LastRefusal").contains(id) && text(row, "LastRefusal").contains(reason),
        "{id}, {reason}: {row}"
    );
    let own = pair.source.does(&["Test-OutboundMigration", "press"]);
    assert_eq!(own.len(), 1, "{own:?}");
    assert_eq!(text(&own[0], "ErrorId"), id, "{own:?}");
    assert!(text(&own[0], "Reason").contains(reason), "{reason}: {own:?}");
    // The exact reason stays at home.
    assert!(!test.to_string().contains(&text(&own[0], "Reason")), "{test}");
    test
}

/// The table of refusals at the source, from the first check to the last; each is told apart in the source's own view.
#[test]
fn the_sources_gate() {
    let mut pair = Pair::strangers(&Plan {
        mailboxes: &["press", "board"],
        ..Plan::default()
    });
    pair.registers();
    // The documented order: the target first.
    pair.makes_endpoint();
    pair.makes_mail_user("press");
    let (app, target_tenant) = (pair.app.clone(), pair.target.tenant.clone());
    let relationship = [
        "New-OrganizationRelationship",
        TO_TARGET,
        "-DomainNames",
        &target_tenant,
        "-MailboxMoveEnabled:true",
        "-OAuthApplicationId",
        &app,
    ];
    let failure = pair
        .source
        .is_refused("ApplicationNotConsentedException", &relationship);
    assert!(failure.advice.contains("/adminconsent?client_id="), "{failure:?}");
    pair.consents();
    let ok = |pair: &Pair| {
        let test = &pair.target.does(&[
            "Test-MigrationServerAvailability",
            "-Endpoint",
            ENDPOINT,
            "-TestMailbox",
            &format!("press@{TARGET}"),
        ])[0];
        assert_eq!(text(test, "Result"), "Success", "{test}");
        let own = &pair.source.does(&["Test-OutboundMigration", "press"])[0];
        assert_eq!(text(own, "Result"), "Success", "{own}");
    };
    let set = |pair: &Pair, more: &[&str]| {
        pair.source
            .does(&[&["Set-OrganizationRelationship", TO_TARGET], more].concat())
    };

    let first = seen_on_both_sides(
        &mut pair,
        "SourceTenantNotAuthorizedException",
        "no organization relationship",
    );
    // DomainNames is for GUIDs; a DNS name is taken with a warning that gives the GUID.
    let by_name = [&relationship[..3], &[TARGET], &relationship[4..]].concat();
    let answer = pair.source.run(&by_name).expect("it is made");
    assert!(answer.said.contains(&target_tenant), "{answer:?}");
    let second = seen_on_both_sides(&mut pair, "SourceTenantNotAuthorizedException", "DomainNames");
    assert_eq!(text(&first, "Message"), text(&second, "Message"), "one text");
    set(&pair, &["-DomainNames", &target_tenant, "-Enabled:false"]);
    seen_on_both_sides(&mut pair, "OrganizationRelationshipDisabledException", "Enabled false");
    set(&pair, &["-Enabled", "-MailboxMoveEnabled:false"]);
    seen_on_both_sides(
        &mut pair,
        "OrganizationRelationshipDisabledException",
        "MailboxMoveEnabled false",
    );
    set(&pair, &["-MailboxMoveEnabled:true"]);
    seen_on_both_sides(&mut pair, "MailboxMoveCapabilityException", "MailboxMoveCapability");
    set(&pair, &["-MailboxMoveCapability", "Inbound"]);
    seen_on_both_sides(&mut pair, "MailboxMoveCapabilityException", "Inbound");
    set(&pair, &["-MailboxMoveCapability", "RemoteOutbound"]);
    seen_on_both_sides(
        &mut pair,
        "MailboxMovePublishedScopesMissingException",
        "MailboxMovePublishedScopes",
    );

    let out = "MailboxNotInCrossTenantMigrationScopeException";
    pair.source.does(&["New-DistributionGroup", GROUP, "-Type", "Security"]);
    pair.source
        .does(&["New-DistributionGroup", "inner", "-Type", "Security"]);
    set(&pair, &["-MailboxMovePublishedScopes", GROUP]);
    let in_none = seen_on_both_sides(&mut pair, out, "");
    pair.source.does(&[
        "Add-DistributionGroupMember",
        "inner",
        "-Member",
        &format!("press@{SOURCE}"),
    ]);
    pair.source
        .does(&["Add-DistributionGroupMember", GROUP, "-Member", "inner"]);
    let nested = seen_on_both_sides(&mut pair, out, "nested");
    assert_eq!(text(&in_none, "Message"), text(&nested, "Message"), "one text");
    assert!(
        text(&nested, "Message").contains("nested"),
        "it always says that nested groups do not count: {nested}"
    );
    pair.source.does(&[
        "Add-DistributionGroupMember",
        GROUP,
        "-Member",
        &format!("press@{SOURCE}"),
    ]);
    ok(&pair);
    // A mailbox that is not there, by a GUID that nobody has.
    pair.target.does(&[
        "New-MailUser",
        "ghost",
        "-ExternalEmailAddress",
        &format!("board@{SOURCE}"),
        "-PrimarySmtpAddress",
        &format!("ghost@{TARGET}"),
    ]);
    pair.target.does(&[
        "Set-MailUser",
        "ghost",
        "-EmailAddresses",
        "@{Add=\"x500:/o=x/cn=y\"}",
        "-ExchangeGuid",
        &uuid::Uuid::new_v4().to_string(),
    ]);
    let test = &pair.target.does(&[
        "Test-MigrationServerAvailability",
        "-Endpoint",
        ENDPOINT,
        "-TestMailbox",
        &format!("ghost@{TARGET}"),
    ])[0];
    assert_eq!(error_ids(&test["ErrorIds"]), [out], "{test}");
    assert_eq!(
        text(test, "Message"),
        text(&nested, "Message"),
        "a mailbox that is missing looks like one out of scope"
    );

    pair.source
        .does(&["Set-Mailbox", "press", "-LitigationHoldEnabled:true"]);
    seen_on_both_sides(&mut pair, "MailboxOnHoldException", "LitigationHoldEnabled");
    pair.source
        .does(&["Set-Mailbox", "press", "-LitigationHoldEnabled:false"]);
    ok(&pair);

    // Withdrawn consent, and consent given again: the relationship does not widen by itself.
    pair.source.does(&["Remove-MgServicePrincipal", &app]);
    let test = &pair.target.does(&[
        "Test-MigrationServerAvailability",
        "-Endpoint",
        ENDPOINT,
        "-TestMailbox",
        &format!("press@{TARGET}"),
    ])[0];
    assert_eq!(
        error_ids(&test["ErrorIds"]),
        ["ApplicationNotConsentedException"],
        "{test}"
    );
    assert!(test.to_string().contains("AADSTS700016"), "{test}");
    assert!(pair.source_server().log().contains(&text(test, "CorrelationId")));
    let own = &pair.source.does(&["Test-OutboundMigration", "press"])[0];
    assert!(
        text(own, "ErrorId") == "ApplicationNotConsentedException" && text(own, "Reason").contains("revoked"),
        "{own}"
    );

    // Which mail user is meant?
    for address in [format!("nobody@{TARGET}"), format!("nobody@{SOURCE}")] {
        let failure = pair.target.is_refused(
            "ManagementObjectNotFoundException",
            &[
                "Test-MigrationServerAvailability",
                "-Endpoint",
                ENDPOINT,
                "-TestMailbox",
                &address,
            ],
        );
        assert!(
            failure.advice.contains("primary address") && failure.advice.contains("ExternalEmailAddress"),
            "both forms: {failure:?}"
        );
    }
}
