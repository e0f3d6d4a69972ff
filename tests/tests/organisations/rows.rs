//! What a batch's file and its rows may get wrong.

use crate::administrator::Administrator;
use crate::pair::{ENDPOINT, GROUP, MOVE, Pair, Plan, SOURCE, TARGET, error_ids, text};
use rehome_testkit::wait;
use serde_json::{Value, json};

/// Files that are wrong as a whole make no batch, and every row at fault is named.
#[test]
fn csv_files() {
    let pair = Pair::ready(&Plan {
        target_top: &["max_users_per_batch = 4"],
        ..Plan::default()
    });
    let batch = |file: &str, more: &[&str]| {
        let line = [
            "New-MigrationBatch",
            "-Name",
            "b",
            "-SourceEndpoint",
            ENDPOINT,
            "-TargetDeliveryDomain",
            TARGET,
            "-CSVData",
            file,
        ];
        pair.target.run(&[&line[..], more].concat())
    };
    let at = |rows: &[&str]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    let unknown = at(&["EmailAddress,Colour", "press@fabrikam.example,red"]);
    for (name, content, named) in [
        ("empty", String::new(), &["empty"][..]),
        ("header alone", at(&["EmailAddress"]), &["no rows"]),
        (
            "column missing",
            at(&["Address", "press@fabrikam.example"]),
            &["EmailAddress"],
        ),
        ("column unknown", unknown.clone(), &["Colour"]),
        (
            "malformed",
            at(&[
                "EmailAddress",
                "press@fabrikam.example",
                "no-address",
                "@x",
                "a b@fabrikam.example",
            ]),
            &["line 3", "line 4", "line 5"],
        ),
        (
            "twice",
            at(&[
                "EmailAddress",
                "press@fabrikam.example",
                "other@fabrikam.example",
                "PRESS@fabrikam.example",
            ]),
            &["line 4"],
        ),
        (
            "too many",
            at(&[
                "EmailAddress",
                "a@x.example",
                "b@x.example",
                "c@x.example",
                "d@x.example",
                "e@x.example",
            ]),
            &["5", "4"],
        ),
        ("no text", "EmailAddress\n\u{0}\n".to_owned(), &["UTF-8"]),
    ] {
        let file = pair.target.file("bad.csv", &content);
        let failure = batch(&file, &[]).expect_err(name);
        assert_eq!(failure.id, "MigrationCsvInvalidException", "{name}: {failure:?}");
        for part in named {
            assert!(failure.message.contains(part), "{name}: {part} in {failure:?}");
        }
    }
    assert!(pair.target.asks("Get-MigrationBatch", &json!({})).is_empty());
    // Fine: a byte order mark, CRLF; an unknown column where it is allowed.
    let file = pair
        .target
        .file("bom.csv", "\u{feff}EmailAddress\r\npress@fabrikam.example\r\n");
    assert_eq!(batch(&file, &[]).expect("it is made").objects.len(), 1);
    pair.target.does(&["Remove-MigrationBatch", "b"]);
    wait::until_true("the batch is gone", MOVE, || {
        pair.target.asks("Get-MigrationBatch", &json!({})).is_empty()
    });
    let file = pair.target.file("unknown.csv", &unknown);
    assert_eq!(
        batch(&file, &["-AllowUnknownColumnsInCsv:true"])
            .expect("it is made")
            .objects
            .len(),
        1
    );
    pair.target.is_refused(
        "NotAcceptedDomainException",
        &[
            "New-MigrationBatch",
            "-Name",
            "c",
            "-SourceEndpoint",
            ENDPOINT,
            "-TargetDeliveryDomain",
            "elsewhere.example",
            "-CSVData",
            &file,
            "-AllowUnknownColumnsInCsv:true",
        ],
    );
    pair.target.is_refused(
        "ManagementObjectNotFoundException",
        &["Complete-MigrationBatch", "no such batch"],
    );
}

fn failed(target: &Administrator, name: &str) -> Value {
    wait::until(&format!("{name} has failed"), MOVE, || {
        let user = target.asks("Get-MigrationUser", &json!({ "Identity": format!("{name}@{TARGET}") }))[0].clone();
        if text(&user, "Status") == "Failed" {
            Ok(user)
        } else {
            Err(user.to_string())
        }
    })
}

/// A row that is not ready fails with all its reasons at once while the others run; mended, it is resumed.
#[test]
fn rows_that_are_not_ready() {
    let names = ["press", "accounts", "board"];
    let mut pair = Pair::strangers(&Plan {
        mailboxes: &names,
        ..Plan::default()
    });
    pair.registers();
    pair.consents();
    pair.makes_endpoint();
    pair.relates();
    pair.prepares("press");
    for name in ["accounts", "board"] {
        pair.source.does(&[
            "Add-DistributionGroupMember",
            GROUP,
            "-Member",
            &format!("{name}@{SOURCE}"),
        ]);
    }
    // The operator adds a domain to the target and takes it away again: its addresses are not accepted then.
    let config = pair.target_server().path("config.toml").display().to_string();
    pair.target_server()
        .operator(&["tenant", "domain", "add", TARGET, "second.example", "--config", &config]);
    pair.target.does(&[
        "New-MailUser",
        "accounts",
        "-ExternalEmailAddress",
        &format!("accounts@{SOURCE}"),
        "-PrimarySmtpAddress",
        "accounts@second.example",
    ]);
    pair.target.does(&[
        "Set-MailUser",
        "accounts",
        "-EmailAddresses",
        &format!("@{{Add=\"smtp:accounts@{TARGET}\"}}"),
    ]);

    pair.starts_batch("wave-1", &names, &["-TargetDeliveryDomain", "second.example"]);
    let board = failed(&pair.target, "board");
    assert_eq!(
        error_ids(&board["ErrorIds"]),
        ["MigrationRecipientNotFoundException"],
        "{board}"
    );
    let accounts = failed(&pair.target, "accounts");
    assert_eq!(
        error_ids(&accounts["ErrorIds"]),
        ["MissingExchangeGuidException", "MissingX500ProxyException"],
        "{accounts}"
    );
    assert!(
        text(&accounts, "ErrorSummary").matches("Set-MailUser").count() >= 2,
        "each with the cmdlet that mends it: {accounts}"
    );
    let press = failed(&pair.target, "press");
    assert_eq!(
        error_ids(&press["ErrorIds"]),
        ["TargetDeliveryDomainMismatchPermanentException"],
        "{press}"
    );

    // Mended, each in its way, and resumed alone or with the batch.
    pair.target.does(&[
        "Set-MailUser",
        "press",
        "-EmailAddresses",
        "@{Add=\"smtp:press@second.example\"}",
    ]);
    pair.target.does(&["Start-MigrationUser", &format!("press@{TARGET}")]);
    pair.is_synced("press");
    assert_eq!(
        text(&pair.user("accounts"), "Status"),
        "Failed",
        "the others wait for their own mending"
    );
    let mailbox = pair.mailbox("accounts");
    pair.target.does(&[
        "Set-MailUser",
        "accounts",
        "-ExchangeGuid",
        &text(&mailbox, "ExchangeGuid"),
    ]);
    pair.target.does(&[
        "Set-MailUser",
        "accounts",
        "-EmailAddresses",
        "@{Add=\"x500:/o=someone/cn=else\"}",
    ]);
    pair.target
        .does(&["Start-MigrationUser", &format!("accounts@{TARGET}")]);
    // Now the source is asked, and it tells which name is missing.
    let accounts = wait::until("the source's name is asked for", MOVE, || {
        let user = pair.user("accounts");
        if text(&user, "ErrorSummary").contains(&text(&mailbox, "LegacyExchangeDN")) {
            Ok(user)
        } else {
            Err(user.to_string())
        }
    });
    assert_eq!(
        error_ids(&accounts["ErrorIds"]),
        ["MissingX500ProxyException"],
        "{accounts}"
    );
    let correlation = text(&accounts, "CorrelationId");
    assert!(
        !correlation.is_empty() && pair.source_server().log().contains(&correlation),
        "{accounts}"
    );
    pair.target.does(&[
        "Set-MailUser",
        "accounts",
        "-EmailAddresses",
        &format!("@{{Add=\"x500:{}\"}}", text(&mailbox, "LegacyExchangeDN")),
    ]);
    let external = format!("board@{SOURCE}");
    pair.target.does(&[
        "New-MailUser",
        "board",
        "-ExternalEmailAddress",
        &external,
        "-PrimarySmtpAddress",
        &format!("board@{TARGET}"),
    ]);
    let mailbox = pair.mailbox("board");
    let proxies = format!(
        "@{{Add=\"x500:{}\",\"smtp:board@second.example\"}}",
        text(&mailbox, "LegacyExchangeDN")
    );
    pair.target.does(&[
        "Set-MailUser",
        "board",
        "-EmailAddresses",
        &proxies,
        "-ExchangeGuid",
        &text(&mailbox, "ExchangeGuid"),
    ]);
    // ExternalEmailAddress that is no address of that mailbox.
    pair.target.does(&[
        "Set-MailUser",
        "board",
        "-ExternalEmailAddress",
        &format!("press-board@{SOURCE}"),
    ]);
    pair.target.does(&["Start-MigrationBatch", "wave-1"]);
    pair.is_synced("accounts");
    let board = failed(&pair.target, "board");
    assert_eq!(
        error_ids(&board["ErrorIds"]),
        ["ExternalEmailAddressInvalidException"],
        "{board}"
    );
    pair.target
        .does(&["Set-MailUser", "board", "-ExternalEmailAddress", &external]);
    pair.target.does(&["Start-MigrationBatch", "wave-1"]);
    pair.is_synced("board");

    // The same row in another batch; and a mail user who lacks everything.
    pair.target.does(&[
        "New-MailUser",
        "guest",
        "-ExternalEmailAddress",
        &format!("guest@{SOURCE}"),
        "-PrimarySmtpAddress",
        &format!("guest@{TARGET}"),
    ]);
    pair.target.does(&[
        "Set-MailUser",
        "guest",
        "-EmailAddresses",
        "@{Add=\"smtp:guest@third.example\"}",
    ]);
    pair.starts_batch("wave-2", &["press", "guest"], &[]);
    let again = wait::until("the double row fails", MOVE, || {
        let users = pair
            .target
            .asks("Get-MigrationUser", &json!({ "BatchId": "wave-2", "Status": "Failed" }));
        users
            .into_iter()
            .find(|user| text(user, "Identity").starts_with("press"))
            .ok_or_else(|| "not yet".to_owned())
    });
    assert_eq!(
        error_ids(&again["ErrorIds"]),
        ["UserDuplicateInOtherBatchException"],
        "{again}"
    );
    assert!(text(&again, "ErrorSummary").contains("wave-1"), "{again}");
    let guest = failed(&pair.target, "guest");
    assert_eq!(
        error_ids(&guest["ErrorIds"]),
        [
            "MissingExchangeGuidException",
            "MissingX500ProxyException",
            "NotAcceptedDomainException"
        ],
        "{guest}"
    );
    // A mailbox is not a mail user, nor is a group.
    pair.target.does(&[
        "New-Mailbox",
        "here",
        "-MicrosoftOnlineServicesID",
        &format!("here@{TARGET}"),
    ]);
    pair.target.does(&[
        "New-DistributionGroup",
        "people",
        "-PrimarySmtpAddress",
        &format!("people@{TARGET}"),
    ]);
    pair.starts_batch("wave-3", &["here", "people"], &[]);
    for name in ["here", "people"] {
        let user = failed(&pair.target, name);
        assert_eq!(error_ids(&user["ErrorIds"]), ["MigrationPermanentException"], "{user}");
    }
    // None of it has touched those who are synced.
    pair.target.does(&["Remove-MigrationBatch", "wave-2"]);
    wait::until_true("the batch is gone", MOVE, || {
        pair.target.asks("Get-MigrationBatch", &json!({})).len() == 2
    });
    for name in names {
        pair.is_synced(name);
    }
}
