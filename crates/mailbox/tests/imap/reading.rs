//! Items that do not come as they should, and connections that break in between.

use super::common::{OK, inbox, kind, meta, scripted};
use super::script::Script;
use futures_util::StreamExt;
use rehome_mailbox::imap::ImapMailbox;
use rehome_mailbox::{ErrorScope, FolderRef, Mailbox, ReadEvent, Uid};

fn body(uid: Uid) -> String {
    format!("* {uid} FETCH (UID {uid} BODY[] {{5}}\r\nitem{uid})\r\n")
}

const META: &str = "UID FETCH 1:3 (UID FLAGS INTERNALDATE)";
const BODIES: &str = "UID FETCH 1:3 (UID BODY.PEEK[])";

/// What reading gives, in words.
async fn read(mailbox: &ImapMailbox, uids: &[Uid]) -> Vec<String> {
    let inbox = inbox();
    let mut events = match mailbox.read(FolderRef::any(&inbox), uids).await {
        Ok(events) => events,
        Err(error) => return vec![format!("error {:?} {error}", kind(&error))],
    };
    let mut said: Vec<String> = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(ReadEvent::Item(meta)) => said.push(format!("{}: ", meta.uid)),
            Ok(ReadEvent::Octets(octets)) => said.last_mut().unwrap().push_str(&String::from_utf8_lossy(&octets)),
            Ok(ReadEvent::End) => said.last_mut().unwrap().push('.'),
            Ok(ReadEvent::Gone(uid)) => said.push(format!("gone {uid}")),
            Ok(ReadEvent::Failed { uid, error }) => {
                assert_eq!(error.scope, ErrorScope::Item);
                said.push(format!("failed {uid}"));
            }
            Err(error) => said.push(format!("error {:?}", kind(&error))),
        }
    }
    said
}

#[tokio::test]
async fn items_that_do_not_come_as_they_should() {
    let metas = format!("{}{}{}{OK}", meta(1), meta(2), meta(3));
    let bodies = |list: &[&str]| format!("{}{OK}", list.concat());
    let (one, two, three) = (body(1), body(2), body(3));
    let whole = ["1: item1.", "2: item2.", "3: item3."];
    let alone = format!("{}{OK}", meta(2));
    let nil = "* 2 FETCH (UID 2 BODY[] NIL)\r\n";
    let empty = "* 2 FETCH (UID 2 BODY[] {0}\r\n)\r\n";
    let rows: Vec<(&str, String, Vec<String>, Vec<&str>)> = vec![
        ("in order", bodies(&[&one, &two, &three]), vec![], whole.to_vec()),
        (
            "out of order",
            bodies(&[&two, &one, &three]),
            vec![],
            vec!["2: item2.", "1: item1.", "3: item3."],
        ),
        ("twice", bodies(&[&one, &two, &two, &three]), vec![], whole.to_vec()),
        (
            "not asked for",
            bodies(&[&one, &body(9), &two, &three]),
            vec![],
            whole.to_vec(),
        ),
        (
            "one missing",
            bodies(&[&one, &three]),
            vec![bodies(&[&two])],
            vec!["1: item1.", "3: item3.", "2: item2."],
        ),
        (
            "one missing for good",
            bodies(&[&one, &three]),
            vec![bodies(&[])],
            vec!["1: item1.", "3: item3.", "failed 2"],
        ),
        (
            "NIL once",
            bodies(&[&one, nil, &three]),
            vec![bodies(&[&two])],
            vec!["1: item1.", "3: item3.", "2: item2."],
        ),
        (
            "NIL for good",
            bodies(&[&one, nil, &three]),
            vec![bodies(&[nil])],
            vec!["1: item1.", "3: item3.", "failed 2"],
        ),
        (
            "empty once",
            bodies(&[&one, empty, &three]),
            vec![bodies(&[empty]), bodies(&[&two])],
            vec!["1: item1.", "3: item3.", "2: item2."],
        ),
        (
            "empty for good",
            bodies(&[&one, empty, &three]),
            vec![bodies(&[empty])],
            vec!["1: item1.", "3: item3.", "failed 2"],
        ),
        (
            "refused",
            format!("{one}{{tag}} NO Some messages could not be fetched\r\n"),
            vec![bodies(&[&two])],
            vec!["1: item1.", "2: item2.", "failed 3"],
        ),
        (
            "uid after the body",
            bodies(&[&one, "* 2 FETCH (BODY[] {5}\r\nitem2 UID 2)\r\n", &three]),
            vec![bodies(&["* 2 FETCH (BODY[] {5}\r\nitem2 UID 2)\r\n"])],
            vec!["1: item1.", "3: item3.", "2: item2."],
        ),
        (
            "news between",
            bodies(&[
                "* 5 EXISTS\r\n* 1 EXPUNGE\r\n",
                &one,
                "* 2 FETCH (FLAGS ())\r\n",
                &two,
                &three,
            ]),
            vec![],
            whole.to_vec(),
        ),
    ];
    for (what, answer, again, expected) in rows {
        let mut script = Script::new("").folder(3, "").once(META, &metas).once(BODIES, &answer);
        for (at, answer) in again.iter().enumerate() {
            script = if at + 1 == again.len() {
                script.always("UID FETCH 2 (UID BODY.PEEK[])", answer)
            } else {
                script.once("UID FETCH 2 (UID BODY.PEEK[])", answer)
            };
        }
        let script = script
            .always("UID FETCH 2 (UID FLAGS", &alone)
            .always("UID FETCH 3 (UID FLAGS", &format!("{}{OK}", meta(3)))
            .always("UID FETCH 3 (UID BODY", "{tag} NO [SERVERBUG] no\r\n");
        let (_scripted, mailbox) = scripted(script).await;
        assert_eq!(read(&mailbox, &[1, 2, 3]).await, expected, "{what}");
    }
}

#[tokio::test]
async fn items_that_are_gone() {
    let metas = format!("{}{}{OK}", meta(1), meta(3));
    let bodies = format!("{}{}{OK}", body(1), body(3));
    let (_scripted, mailbox) = scripted(Script::new("").folder(3, "").once(META, &metas).once(BODIES, &bodies)).await;
    assert_eq!(read(&mailbox, &[1, 2, 3]).await, ["1: item1.", "gone 2", "3: item3."]);
}

#[tokio::test]
async fn connections_that_break_while_reading() {
    let metas = format!("{}{}{}{OK}", meta(1), meta(2), meta(3));
    let rest_metas = format!("{}{OK}", meta(3));
    let rest = format!("{}{OK}", body(3));
    let alone = format!("{}{OK}", meta(2));
    // Between two items: another connection goes on.
    let script = Script::new("")
        .folder(3, "")
        .once(META, &metas)
        .once(BODIES, &format!("{}* BYE shutting down\r\n{{close}}", body(1)))
        .always("UID FETCH 2 (UID FLAGS", &alone)
        .once("UID FETCH 2 (UID BODY", &format!("{}{OK}", body(2)))
        .once("UID FETCH 3 (UID FLAGS", &rest_metas)
        .once("UID FETCH 3 (UID BODY", &rest);
    let (scripted_one, mailbox) = scripted(script).await;
    assert_eq!(
        read(&mailbox, &[1, 2, 3]).await,
        ["1: item1.", "2: item2.", "3: item3."]
    );
    assert_eq!(scripted_one.connections(), 2);

    // Each time at the same item: it fails, the others do not.
    let script = Script::new("")
        .folder(3, "")
        .once(META, &metas)
        .once(BODIES, &format!("{}{{close}}", body(1)))
        .always("UID FETCH 2 (UID FLAGS", &alone)
        .always("UID FETCH 2 (UID BODY", "{close}")
        .always("UID FETCH 3 (UID FLAGS", &rest_metas)
        .always("UID FETCH 3 (UID BODY", &rest);
    let (_scripted, mailbox) = scripted(script).await;
    assert_eq!(read(&mailbox, &[1, 2, 3]).await, ["1: item1.", "failed 2", "3: item3."]);

    // In the middle of an item: it never ends.
    let cut = format!("{}* 2 FETCH (UID 2 BODY[] {{5}}\r\nit{{close}}", body(1));
    let (_scripted, mailbox) = scripted(Script::new("").folder(3, "").once(META, &metas).once(BODIES, &cut)).await;
    let said = read(&mailbox, &[1, 2, 3]).await;
    assert_eq!(said, ["1: item1.", "2: it", "error (Folder, Now)"]);
}

#[tokio::test]
async fn what_nothing_is_known_of_is_not_gone() {
    let bodies = format!("{}{}{}{OK}", body(1), body(2), body(3));
    let two = format!("{}{OK}", meta(2));
    let unreadable = "* 2 FETCH (UID 2 FLAGS NIL INTERNALDATE \"01-Jan-2024 00:00:00 +0000\")\r\n";
    let rows = [
        // The question for flags and dates is refused, in the middle or from the start.
        format!("{}{{tag}} NO [SERVERBUG] broken\r\n", meta(1)),
        // One of them is left out, or cannot be read.
        format!("{}{}{OK}", meta(1), meta(3)),
        format!("{}{unreadable}{}{OK}", meta(1), meta(3)),
    ];
    for metas in rows {
        let script = Script::new("")
            .folder(3, "")
            .once(META, &metas)
            .once(BODIES, &bodies)
            .always("UID FETCH 2 (UID FLAGS", &two)
            .always("UID FETCH 2 (UID BODY", &format!("{}{OK}", body(2)))
            .always("UID FETCH 3 (UID FLAGS", &format!("{}{OK}", meta(3)))
            .always("UID FETCH 3 (UID BODY", &format!("{}{OK}", body(3)));
        let (_scripted, mailbox) = scripted(script).await;
        let mut said = read(&mailbox, &[1, 2, 3]).await;
        said.sort();
        assert_eq!(said, ["1: item1.", "2: item2.", "3: item3."], "{metas}");
    }
    // Nor where it is never told.
    let script = Script::new("")
        .folder(3, "")
        .always("UID FETCH 2 (UID FLAGS", &format!("{unreadable}{OK}"))
        .always("UID FETCH 2 (UID BODY", &format!("{}{OK}", body(2)));
    let (_scripted, mailbox) = scripted(script).await;
    assert_eq!(read(&mailbox, &[2]).await, ["failed 2"]);
}
