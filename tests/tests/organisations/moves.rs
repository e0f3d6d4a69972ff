//! A whole move, as the two administrators do it: in both authority cases.

use crate::pair::{Pair, Plan, SOURCE, TARGET, error_ids, text};
use serde_json::json;

/// From the first copy to mail for the old address, with late arrivals, `-SyncNow`, and recipients before and after.
fn whole_move(one_authority: bool) {
    let names = ["accounts", "press"];
    let mut pair = Pair::ready(&Plan {
        one_authority,
        mailboxes: &names,
        ..Plan::default()
    });

    for name in names {
        let answer = &pair.target.does(&[
            "Test-MigrationServerAvailability",
            "-Endpoint",
            "contoso",
            "-TestMailbox",
            &format!("{name}@{TARGET}"),
        ])[0];
        assert_eq!(text(answer, "Result"), "Success", "{answer}");
        // The other form: the source address that is one mail user's ExternalEmailAddress.
        let answer = &pair.target.does(&[
            "Test-MigrationServerAvailability",
            "-Endpoint",
            "contoso",
            "-TestMailbox",
            &format!("{name}@{SOURCE}"),
        ])[0];
        assert_eq!(text(answer, "Result"), "Success", "{answer}");
        assert_eq!(
            (Pair::kind(&pair.source, name), Pair::kind(&pair.target, name)),
            ("UserMailbox".into(), "MailUser".into())
        );
    }

    pair.starts_batch("wave-1", &names, &[]);
    let port = pair.source_server().smtp_port;
    for name in names {
        pair.is_synced(name);
        pair.written(name).gets_mail(port, &format!("{name}@{SOURCE}"), false);
    }
    for mailbox in pair.mailboxes.clone() {
        mailbox.changes(pair.source_server(), 7);
    }
    pair.syncs_now("wave-1", names[0]);
    // What comes after the last sync before completion is found by the final pass.
    for mailbox in pair.mailboxes.clone() {
        mailbox.changes(pair.source_server(), 8);
    }
    let old_guid = text(&pair.mailbox("press"), "ExchangeGuid");

    pair.completes_batch("wave-1");
    for name in names {
        pair.is_completed(name);
        let row = pair.outbound_is(name, "Moved");
        assert!(
            row["LockMilliseconds"].is_number() && !row["RetentionUntil"].is_null(),
            "{row}"
        );
    }
    let batch = &pair.target.does(&["Get-MigrationBatch", "wave-1"])[0];
    assert_eq!(
        (text(batch, "Status"), text(batch, "FinalizedCount")),
        ("Completed".to_owned(), "2".to_owned()),
        "{batch}"
    );

    // What the directories say now.
    let moved = &pair
        .source
        .asks("Get-MailUser", &json!({ "Identity": format!("press@{SOURCE}") }))[0];
    assert!(
        text(moved, "ExternalEmailAddress")
            .to_lowercase()
            .contains(&format!("press@{TARGET}")),
        "{moved}"
    );
    assert_eq!(text(moved, "ExchangeGuid"), old_guid, "kept for a move back");
    let arrived = &pair
        .target
        .asks("Get-Mailbox", &json!({ "Identity": format!("press@{TARGET}") }))[0];
    assert_eq!(text(arrived, "ExchangeGuid"), old_guid);
    let own_name = text(arrived, "LegacyExchangeDN").to_lowercase();
    assert!(
        text(moved, "EmailAddresses")
            .to_lowercase()
            .contains(&format!("x500:{own_name}")),
        "replies keep working: {moved}"
    );

    // Mail to the old address and to the new one arrives in the new mailbox.
    let (old_port, new_port) = (pair.source_server().smtp_port, pair.target_server().smtp_port);
    for name in names {
        let mailbox = pair.written(name);
        mailbox.gets_mail(old_port, &format!("{name}@{SOURCE}"), true);
        mailbox.gets_mail(new_port, &format!("{name}@{TARGET}"), true);
        pair.has_moved(name);
    }
    // A restart of both sides changes nothing of it.
    pair.source_server().stop();
    pair.source_server().start();
    if !one_authority {
        pair.target_server().stop();
        pair.target_server().start();
    }
    for name in names {
        pair.has_moved(name);
    }
    pair.target.does(&["Remove-MigrationBatch", "wave-1"]);
    for name in names {
        pair.has_moved(name);
    }
}

#[test]
fn two_authorities() {
    whole_move(false);
}

#[test]
fn one_authority() {
    whole_move(true);
}

/// A user can be stopped, resumed, removed and begun anew, and nothing is doubled by it.
#[test]
fn stopped_resumed_removed_and_begun_anew() {
    let mut pair = Pair::ready(&Plan::default());
    pair.starts_batch("first", &["press"], &[]);
    pair.is_synced("press");
    pair.target.does(&["Stop-MigrationBatch", "first"]);
    pair.reaches("press", &["IncrementalStopped"]);
    pair.target
        .is_refused("InvalidOperationException", &["Complete-MigrationBatch", "first"]);
    pair.target.does(&["Start-MigrationUser", &format!("press@{TARGET}")]);
    pair.is_synced("press");
    pair.target.does(&["Remove-MigrationBatch", "first"]);
    rehome_testkit::wait::until_true("the batch is gone", crate::pair::MOVE, || {
        pair.target.asks("Get-MigrationBatch", &json!({})).is_empty()
    });
    pair.has_stayed("press");
    pair.starts_batch("second", &["press"], &["-AutoComplete"]);
    pair.is_completed("press");
    pair.has_moved("press");
    // The mailbox is where it belongs now: the same row again is refused with the reason.
    pair.starts_batch("third", &["press"], &[]);
    let user = pair.target.asks("Get-MigrationUser", &json!({ "BatchId": "third" }));
    let failed = rehome_testkit::wait::until("the second move is refused", crate::pair::MOVE, || {
        let user = pair.target.asks("Get-MigrationUser", &json!({ "BatchId": "third" }))[0].clone();
        if text(&user, "Status") == "Failed" {
            Ok(user)
        } else {
            Err(user.to_string())
        }
    });
    assert_eq!(user.len(), 1);
    assert!(
        error_ids(&failed).contains(&"MigrationPermanentException".to_owned()),
        "{failed}"
    );
}
