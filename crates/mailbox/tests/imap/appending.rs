//! Refusals, lost answers and unnamed uids while appending.

use super::common::{OK, inbox, kind, scripted};
use super::script::{Script, Scripted};
use bytes::Bytes;
use rehome_mailbox::{Appended, Body, ErrorScope, FolderRef, ItemKey, Mailbox, MailboxError, NewItem, Retry, Uid};
use rehome_wire::digest::Digest;
use rehome_wire::flags::Flags;

fn item(uid: Uid, flags: &[&str], octets: &'static [u8]) -> NewItem {
    NewItem {
        key: ItemKey {
            move_id: 1,
            folder: 1,
            source_validity: 1,
            source_uid: uid,
        },
        uid: None,
        flags: Flags::from_names(flags),
        received: 1_700_000_000,
        length: octets.len() as u64,
        digest: Digest::of(octets),
        body: Body::Memory(Bytes::from_static(octets)),
    }
}

const REGULAR: &[u8] = b"Subject: x\r\n\r\n";
const ALL: &str = "LITERAL+ MULTIAPPEND UIDPLUS";

async fn append(script: Script, items: Vec<NewItem>) -> (Scripted, Result<Vec<String>, MailboxError>) {
    let (scripted, mailbox) = scripted(script).await;
    let inbox = inbox();
    let appended = mailbox.append(FolderRef::new(&inbox, 7), items).await;
    let said = appended.map(|appended| {
        let words = appended.iter().map(|appended| match appended {
            Appended::Uid { uid, keywords_dropped } if keywords_dropped.is_empty() => uid.to_string(),
            Appended::Uid { uid, keywords_dropped } => format!("{uid} without {}", keywords_dropped.join(" ")),
            Appended::Refused(error) => {
                assert_eq!(error.scope, ErrorScope::Item);
                format!("refused {}", error.cause)
            }
        });
        words.collect()
    });
    (scripted, said)
}

#[tokio::test]
async fn one_bad_item_of_a_batch() {
    let script = Script::new(ALL)
        .folder(0, "")
        .once("APPEND", "{tag} NO Message contains bare newlines\r\n")
        .once("APPEND", "{tag} OK [APPENDUID 7 100] x\r\n")
        .once("APPEND", "{tag} NO Message contains bare newlines\r\n")
        .once("APPEND", "{tag} OK [APPENDUID 7 101] x\r\n");
    let (scripted, said) = append(script, (1..=3).map(|uid| item(uid, &[], REGULAR)).collect()).await;
    assert_eq!(
        said.unwrap(),
        ["100", "refused NO Message contains bare newlines", "101"]
    );
    assert_eq!(scripted.heard("APPEND").len(), 4);
}

#[tokio::test]
async fn what_is_refused_before_it_is_sent() {
    let script = || Script::new("LITERAL+ MULTIAPPEND UIDPLUS APPENDLIMIT=100").folder(0, "");
    let long: &[u8] = &[b'x'; 101];
    let items = vec![
        item(1, &[], b""),
        item(2, &[], b"Subject: x\r\n\r\n\0"),
        item(3, &[], long),
        NewItem {
            length: 3,
            ..item(4, &[], REGULAR)
        },
        item(5, &["gr\u{fc}n", "fine"], REGULAR),
    ];
    let (scripted, said) = append(script().once("APPEND", "{tag} OK [APPENDUID 7 100] x\r\n"), items).await;
    let said = said.unwrap();
    for (said, word) in said.iter().zip(["empty", "NUL", "[TOOBIG]", "octets"]) {
        assert!(said.starts_with("refused") && said.contains(word), "{said}");
    }
    assert_eq!(said[4], "100 without gr\u{fc}n");
    assert_eq!(scripted.heard("APPEND").len(), 1);
}

#[tokio::test]
async fn refusals_that_are_about_more_than_one_item() {
    let rows = [
        ("NO [OVERQUOTA] full", ErrorScope::Mailbox, Retry::After(600)),
        ("NO [TRYCREATE] no such mailbox", ErrorScope::Folder, Retry::Never),
        ("NO [THROTTLED] slow down", ErrorScope::Endpoint, Retry::After(60)),
        ("OK [APPENDUID 8 1:2] x", ErrorScope::Folder, Retry::Now),
        ("OK [APPENDUID 7 1:3] x", ErrorScope::Folder, Retry::Now),
        ("OK [APPENDUID 7 1,1] x", ErrorScope::Folder, Retry::Now),
    ];
    for (answer, scope, retry) in rows {
        let script = Script::new(ALL)
            .folder(0, "")
            .always("APPEND", &format!("{{tag}} {answer}\r\n"));
        let (scripted, said) = append(script, vec![item(1, &[], REGULAR), item(2, &[], REGULAR)]).await;
        assert_eq!(kind(&said.expect_err(answer)), (scope, retry), "{answer}");
        assert_eq!(scripted.heard("APPEND").len(), 1, "{answer}");
    }
    for answer in ["{close}", "* BYE shutting down\r\n{close}"] {
        let (scripted, said) = append(
            Script::new(ALL).folder(0, "").always("APPEND", answer),
            vec![item(1, &[], REGULAR)],
        )
        .await;
        assert_eq!(
            kind(&said.unwrap_err()),
            (ErrorScope::Folder, Retry::Now),
            "the outcome is unknown"
        );
        assert_eq!(scripted.heard("APPEND").len(), 1, "it is never sent twice");
    }
    let script = Script::new(ALL).folder(0, "");
    let (scripted, mailbox) = scripted(script).await;
    let inbox = inbox();
    let stale = mailbox
        .append(FolderRef::new(&inbox, 6), vec![item(1, &[], REGULAR)])
        .await;
    assert_eq!(kind(&stale.unwrap_err()), (ErrorScope::Folder, Retry::Now));
    assert!(
        scripted.heard("APPEND").is_empty(),
        "nothing goes into another validity"
    );
}

#[tokio::test]
async fn keywords_that_are_too_many() {
    let script = Script::new(ALL)
        .folder(0, "")
        .once("APPEND", "{tag} NO [LIMIT] Too many keywords\r\n")
        .once("APPEND", "{tag} OK [APPENDUID 7 100] x\r\n");
    let (scripted, said) = append(script, vec![item(1, &["\\Seen", "work"], REGULAR)]).await;
    assert_eq!(said.unwrap(), ["100 without work"]);
    assert!(scripted.heard("APPEND")[1].starts_with("APPEND INBOX (\\Seen) "));
}

#[tokio::test]
async fn literals_that_wait_stay_in_step() {
    let items = || (1..=3).map(|uid| item(uid, &[], REGULAR)).collect::<Vec<_>>();
    let ok = |uid: u32| format!("{{tag}} OK [APPENDUID 7 {uid}] x\r\n");
    let script = Script::new("MULTIAPPEND UIDPLUS")
        .folder(0, "")
        .once("EARLY", "")
        .once("APPEND", "{tag} NO not like this\r\n")
        .once("APPEND", &ok(100))
        .once("APPEND", &ok(101))
        .once("APPEND", &ok(102));
    let (_scripted, said) = append(script, items()).await;
    assert_eq!(said.unwrap(), ["100", "101", "102"]);
    let script = Script::new("UIDPLUS")
        .folder(0, "")
        .once("EARLY", "")
        .once("APPEND", "{tag} NO too big for me\r\n")
        .once("APPEND", &ok(100))
        .once("APPEND", &ok(101));
    let (_scripted, said) = append(script, items()).await;
    assert_eq!(said.unwrap(), ["refused NO too big for me", "100", "101"]);
}

#[tokio::test]
async fn uids_that_the_server_does_not_name() {
    let window = |uids: &[u32]| {
        let fetched: String = uids
            .iter()
            .map(|uid| format!("* {uid} FETCH (UID {uid})\r\n"))
            .collect();
        format!("{fetched}{OK}")
    };
    let items = || vec![item(1, &[], REGULAR), item(2, &["gr\u{fc}n"], REGULAR)];
    let script = |uids: &[u32]| {
        Script::new("LITERAL+ MULTIAPPEND")
            .folder(1, "")
            .always("APPEND", OK)
            .always("UID FETCH 100:*", &window(uids))
    };
    let (_scripted, said) = append(script(&[100, 105]), items()).await;
    assert_eq!(said.unwrap(), ["100", "105 without gr\u{fc}n"]);
    // The last message is named where nothing is above; and somebody else's arrived in between.
    for uids in [&[99][..], &[100], &[100, 101, 102]] {
        let (_scripted, said) = append(script(uids), items()).await;
        assert_eq!(kind(&said.unwrap_err()), (ErrorScope::Folder, Retry::Now), "{uids:?}");
    }
}

#[tokio::test]
async fn a_server_with_uidplus_that_names_no_uids() {
    let script = Script::new(ALL)
        .folder(0, "")
        .always("APPEND", OK)
        .always("UID FETCH 100:*", &format!("* 1 FETCH (UID 101)\r\n{OK}"));
    let (scripted, mailbox) = scripted(script).await;
    let inbox = inbox();
    let append = || mailbox.append(FolderRef::new(&inbox, 7), vec![item(1, &[], REGULAR)]);
    assert_eq!(
        kind(&append().await.unwrap_err()),
        (ErrorScope::Folder, Retry::Now),
        "it is not known what the first of them is"
    );
    let appended = append().await.unwrap();
    assert!(matches!(appended[..], [Appended::Uid { uid: 101, .. }]), "{appended:?}");
    assert_eq!(scripted.heard("APPEND").len(), 2);
}

#[tokio::test]
async fn an_item_may_be_refused_for_one_reason_after_another() {
    let odd = NewItem {
        received: -5,
        ..item(2, &["work"], REGULAR)
    };
    let script = Script::new(ALL)
        .folder(0, "")
        .once("APPEND", "{tag} NO something\r\n")
        .once("APPEND", "{tag} OK [APPENDUID 7 100] x\r\n")
        .once("APPEND", "{tag} NO [LIMIT] Too many keywords\r\n")
        .once("APPEND", "{tag} NO Invalid date\r\n")
        .once("APPEND", "{tag} OK [APPENDUID 7 101] x\r\n");
    let (_scripted, said) = append(script, vec![item(1, &[], REGULAR), odd]).await;
    assert_eq!(said.unwrap(), ["100", "101 without work"]);
}

#[tokio::test]
async fn octets_that_are_owed_after_an_early_refusal_are_sent() {
    let long: &'static [u8] = [b"Subject: x\r\n\r\n".to_vec(), vec![b'y'; 3_000_000]].concat().leak();
    let script = Script::new(ALL)
        .folder(0, "")
        .once("AT ONCE", "{tag} NO one of them is too long\r\n")
        .once("APPEND", "")
        .once("APPEND", "{tag} OK [APPENDUID 7 100] x\r\n")
        .once("APPEND", "{tag} OK [APPENDUID 7 101] x\r\n")
        .once("APPEND", "{tag} OK [APPENDUID 7 102] x\r\n");
    let (scripted, said) = append(script, (1..=3).map(|uid| item(uid, &[], long)).collect()).await;
    assert_eq!(said.unwrap(), ["100", "101", "102"]);
    assert_eq!(scripted.heard("APPEND").len(), 4);
}

#[tokio::test]
async fn a_folder_that_was_made_anew_is_opened_anew() {
    let numbers = |validity: u32| {
        format!("* 0 EXISTS\r\n* OK [UIDVALIDITY {validity}] x\r\n* OK [UIDNEXT 1] x\r\n{{tag}} OK [READ-WRITE] x\r\n")
    };
    let script = Script::new(ALL)
        .once("SELECT", &numbers(7))
        .always("SELECT", &numbers(8))
        .always("APPEND", "{tag} OK [APPENDUID 8 1] x\r\n");
    let (scripted, mailbox) = scripted(script).await;
    let inbox = inbox();
    mailbox.set_flags(FolderRef::new(&inbox, 7), &[]).await.unwrap();
    let items = || vec![item(1, &[], REGULAR)];
    mailbox.append(FolderRef::new(&inbox, 8), items()).await.unwrap();
    let stale = mailbox.append(FolderRef::new(&inbox, 7), items()).await;
    assert_eq!(kind(&stale.unwrap_err()), (ErrorScope::Folder, Retry::Now));
    assert_eq!(scripted.heard("APPEND").len(), 1);
}
