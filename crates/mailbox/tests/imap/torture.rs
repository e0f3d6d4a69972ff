//! Odd servers, one odd thing at a time. Each row is one thing, in words.

use super::common::{OK, inbox, kind, mailbox_of, meta, scripted};
use super::plain;
use super::script::{SLOW, Script};
use bytes::Bytes;
use futures_util::StreamExt;
use rehome_mailbox::imap::{ImapMailbox, ImapServer, Security, SignIn};
use rehome_mailbox::{
    Appended, Body, ErrorScope, FolderPath, FolderRef, ItemKey, ListingScope, Mailbox, NewFolder, NewItem, ReadEvent,
    Retry, Uid,
};
use rehome_testkit::certificate::Certificate;
use rehome_wire::digest::Digest;
use rehome_wire::flags::Flags;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn path(name: &str) -> FolderPath {
    FolderPath(name.split('/').map(str::to_owned).collect())
}

fn item(flags: &[&str], octets: &'static [u8]) -> NewItem {
    NewItem {
        key: ItemKey {
            move_id: 1,
            folder: 1,
            source_validity: 1,
            source_uid: 1,
        },
        uid: None,
        flags: Flags::from_names(flags),
        received: 1_700_000_000,
        length: octets.len() as u64,
        digest: Digest::of(octets),
        body: Body::Memory(Bytes::from_static(octets)),
    }
}

/// What became of one item, in words.
async fn append(mailbox: &ImapMailbox, item: NewItem) -> String {
    match mailbox.append(FolderRef::any(&inbox()), vec![item]).await {
        Err(error) => format!("error {:?}", kind(&error)),
        Ok(appended) => match &appended[..] {
            [Appended::Uid { uid, keywords_dropped }] => format!("{uid} {}", keywords_dropped.join(" ")),
            [Appended::Refused(error)] => format!("{:?} {}", kind(error), error.cause),
            other => panic!("one answer: {other:?}"),
        },
    }
}

/// Each item that was given whole, and how the reading ended otherwise.
async fn read(mailbox: &ImapMailbox, uids: &[Uid]) -> Vec<String> {
    let inbox = inbox();
    let mut said = Vec::new();
    let mut events = match mailbox.read(FolderRef::any(&inbox), uids).await {
        Ok(events) => events,
        Err(error) => return vec![format!("error {:?}", kind(&error))],
    };
    let mut open = String::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(ReadEvent::Item(_)) => open.clear(),
            Ok(ReadEvent::Octets(octets)) => open.push_str(&String::from_utf8_lossy(&octets)),
            Ok(ReadEvent::End) => said.push(open.clone()),
            Ok(ReadEvent::Gone(uid)) => said.push(format!("gone {uid}")),
            Ok(ReadEvent::Failed { uid, .. }) => said.push(format!("failed {uid}")),
            Err(error) => said.push(format!("error {:?}", kind(&error))),
        }
    }
    said
}

/// What it is called, what else the server offers, the item, its answers, what is said of the item, the last command.
type Refusal<'a> = (&'a str, &'a str, &'static [u8], &'a [&'a str], &'a str, &'a str);

#[tokio::test]
async fn what_a_server_says_of_one_item() {
    let regular: &[u8] = b"Subject: x\r\n\r\n";
    let eight_bit: &[u8] = b"Subject: \xfc\r\n\r\n";
    let nul: &[u8] = b"Subject: x\0y\r\n\r\n\0";
    let ok = "OK [APPENDUID 7 100] x";
    let refused = "(Item, Never)";
    let rows: [Refusal<'_>; 9] = [
        ("too large", "", regular, &["NO [TOOBIG] no"], refused, "APPEND"),
        (
            "a limit",
            "",
            regular,
            &["NO [LIMIT] lines are too long"],
            refused,
            "APPEND",
        ),
        (
            "an old server",
            "",
            regular,
            &["NO Message too large"],
            refused,
            "APPEND",
        ),
        (
            "an invalid header",
            "",
            regular,
            &["NO Message contains invalid header"],
            refused,
            "APPEND",
        ),
        ("BAD", "", regular, &["BAD cannot parse this"], refused, "APPEND"),
        ("8 bits refused", "", eight_bit, &["NO 8-bit header"], refused, "APPEND"),
        (
            "8 bits taken as UTF8 only",
            "ENABLE UTF8=ACCEPT BINARY",
            eight_bit,
            &["NO 8-bit header", ok],
            "100 ",
            "APPEND INBOX \"14-Nov-2023 22:13:20 +0000\" UTF8 (~{14",
        ),
        (
            "8 bits refused as UTF8 too",
            "ENABLE UTF8=ACCEPT",
            eight_bit,
            &["NO no", "NO never"],
            refused,
            "APPEND",
        ),
        (
            "NUL where there is BINARY",
            "BINARY",
            nul,
            &[ok],
            "100 ",
            "APPEND INBOX \"14-Nov-2023 22:13:20 +0000\" ~{17",
        ),
    ];
    for (what, capabilities, octets, answers, expected, command) in rows {
        let mut script = Script::new(&format!("LITERAL+ MULTIAPPEND UIDPLUS {capabilities}")).folder(0, "");
        for answer in answers {
            script = script.once("APPEND", &format!("{{tag}} {answer}\r\n"));
        }
        let (scripted, mailbox) = scripted(script).await;
        let said = append(&mailbox, item(&[], octets)).await;
        assert!(said.starts_with(expected), "{what}: {said}");
        let heard = scripted.heard("APPEND");
        assert_eq!(
            heard.len(),
            answers.len(),
            "{what}: refused for good is not tried again"
        );
        assert!(heard.last().unwrap().starts_with(command), "{what}: {heard:?}");
    }
}

#[tokio::test]
async fn keywords_where_new_ones_are_not_allowed() {
    let numbers = "* 1 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 100] x\r\n\
                   * OK [PERMANENTFLAGS (\\Seen \\Flagged Work)] x\r\n{tag} OK [READ-WRITE] x\r\n";
    let script = Script::new("LITERAL+ UIDPLUS")
        .always("SELECT", numbers)
        .always("APPEND", "{tag} OK [APPENDUID 7 100] x\r\n")
        .always("UID STORE", OK);
    let (scripted, mailbox) = scripted(script).await;
    let regular = b"Subject: x\r\n\r\n";
    let said = append(&mailbox, item(&["\\Seen", "\\Draft", "WORK", "other"], regular)).await;
    assert_eq!(said, "100 other");
    assert!(scripted.heard("APPEND")[0].starts_with("APPEND INBOX (\\Seen WORK) "));
    let changes = [(100, Flags::from_names(["work", "$Label1"]))];
    let dropped = mailbox.set_flags(FolderRef::any(&inbox()), &changes).await.unwrap();
    assert_eq!(dropped, [(100, vec!["$Label1".to_owned()])]);
    assert_eq!(scripted.heard("UID STORE"), ["UID STORE 100 FLAGS.SILENT (work)"]);
}

#[tokio::test]
async fn flags_that_are_none() {
    let answer = "* 1 FETCH (UID 1 FLAGS (\\Recent \\FORWARDED \\Indexed \\ATTACHED \\Seen $MDNSent) \
                  INTERNALDATE \"01-Jan-2024 00:00:00 +0000\" RFC822.SIZE 5)\r\n{tag} OK x\r\n";
    let (_scripted, mailbox) = scripted(Script::new("").folder(1, "").always("UID FETCH", answer)).await;
    let listing = mailbox.list(&inbox(), None).await.unwrap();
    assert_eq!(listing.items[0].flags, Flags::from_names(["\\Seen", "$MDNSent"]));
}

/// The length that counts is that of the octets; and reading leaves no trace, so that no receipt is sent.
#[tokio::test]
async fn lengths_that_are_told_wrongly_and_reading_without_a_trace() {
    for size in ["0", "3", "5000000000", "18446744073709551615"] {
        let flags = "UID 1 FLAGS () INTERNALDATE \"01-Jan-2024 00:00:00 +0000\"";
        let script = Script::new("")
            .folder(1, "")
            .always(
                "UID FETCH 1 (UID BODY.PEEK[])",
                &format!("* 1 FETCH (UID 1 BODY[] {{5}}\r\nitem1)\r\n{OK}"),
            )
            .always("UID FETCH", &format!("* 1 FETCH ({flags} RFC822.SIZE {size})\r\n{OK}"));
        let (scripted, mailbox) = scripted(script).await;
        assert_eq!(mailbox.list(&inbox(), None).await.unwrap().items.len(), 1);
        assert_eq!(read(&mailbox, &[1]).await, ["item1"], "{size}");
        assert!(scripted.heard("SELECT").is_empty() && scripted.heard("UID STORE").is_empty());
        let heard = scripted.heard("UID FETCH");
        assert!(heard.iter().all(|command| !command.contains("BODY[")), "{heard:?}");
    }
}

#[tokio::test]
async fn numbers_that_are_missing() {
    let last = format!("* 2 FETCH (UID 9)\r\n{OK}");
    let numbers = "* 2 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n{tag} OK [READ-WRITE] x\r\n";
    let script = Script::new("")
        .always("LIST", &format!("* LIST () \"/\" INBOX\r\n{OK}"))
        .always("LSUB", OK)
        .always("STATUS", &format!("* STATUS INBOX (MESSAGES 2 UIDVALIDITY 7)\r\n{OK}"))
        .always("EXAMINE", numbers)
        .always("SELECT", numbers)
        .always("UID FETCH 4294967295:*", &last)
        .always("UID FETCH 10:*", &format!("* 3 FETCH (UID 10)\r\n{OK}"))
        .always("UID FETCH 1:*", &format!("{}{}{OK}", meta(4), meta(9)))
        .always("APPEND", OK);
    let (_scripted, mailbox) = scripted(script).await;
    let status = mailbox.folders().await.unwrap()[0].status.unwrap();
    assert_eq!((status.uid_validity, status.uid_next, status.exists), (7, 10, 2));
    let listing = mailbox.list(&inbox(), None).await.unwrap();
    assert_eq!((listing.items.len(), listing.status.uid_next), (2, 10));
    assert_eq!(append(&mailbox, item(&[], b"Subject: x\r\n\r\n")).await, "10 ");
}

/// Uids that name other messages tomorrow would let some be taken for copied that are not: such a folder is refused,
/// and is not taken for a missing or an empty one.
#[tokio::test]
async fn uids_that_do_not_last() {
    let rows = [
        ("* OK [UIDVALIDITY 7] x\r\n* NO [UIDNOTSTICKY] x\r\n", "UIDNOTSTICKY"),
        ("* OK [UIDVALIDITY 0] x\r\n", "no UIDVALIDITY"),
        ("", "no UIDVALIDITY"),
    ];
    for (numbers, word) in rows {
        let numbers = format!("* 2 EXISTS\r\n* OK [UIDNEXT 10] x\r\n{numbers}{{tag}} OK [READ-WRITE] x\r\n");
        let script = Script::new("LITERAL+ UIDPLUS")
            .always("LIST", &format!("* LIST () \"/\" INBOX\r\n{OK}"))
            .always("LSUB", OK)
            .always("STATUS", &format!("* STATUS INBOX (MESSAGES 2 UIDNEXT 10)\r\n{OK}"))
            .always("EXAMINE", &numbers)
            .always("SELECT", &numbers)
            .always("UID FETCH", &format!("{}{}{OK}", meta(4), meta(9)));
        let (scripted, mailbox) = scripted(script).await;
        let inbox = inbox();
        for error in [
            mailbox.folders().await.unwrap_err(),
            mailbox.list(&inbox, None).await.unwrap_err(),
            mailbox.read(FolderRef::any(&inbox), &[4]).await.map(drop).unwrap_err(),
            mailbox
                .append(FolderRef::any(&inbox), vec![item(&[], b"Subject: x\r\n\r\n")])
                .await
                .unwrap_err(),
        ] {
            assert_eq!(kind(&error), (ErrorScope::Mailbox, Retry::Never), "{error}");
            assert!(error.cause.contains(word) && error.what.contains("INBOX"), "{error}");
        }
        assert!(scripted.heard("APPEND").is_empty());
    }
}

#[tokio::test]
async fn names_that_a_server_keeps_for_itself_or_takes_for_another() {
    let numbers = |validity: u32| format!("(MESSAGES 0 UIDNEXT 1 UIDVALIDITY {validity})");
    // Reserved: refused, and not there.
    let script = Script::new("LIST-EXTENDED")
        .always("LIST", &format!("* LIST () \"/\" INBOX\r\n{OK}"))
        .always("CREATE Calendar", "{tag} NO [CANNOT] reserved\r\n")
        .always("STATUS Calendar", "{tag} NO [NONEXISTENT] no\r\n")
        .always(
            "STATUS =43alendar",
            &format!("* STATUS =43alendar {}\r\n{OK}", numbers(4)),
        );
    let (scripted_one, mailbox) = scripted(script).await;
    let made = mailbox
        .create_folder(&path("Calendar"), &NewFolder::default())
        .await
        .unwrap();
    assert_eq!(made.uid_validity, 4);
    assert_eq!(scripted_one.heard("CREATE"), ["CREATE Calendar", "CREATE =43alendar"]);
    // Composed and decomposed are one folder to the server, and two to the source.
    let script = Script::new("LIST-EXTENDED")
        .always(
            "LIST",
            &format!("* LIST () \"/\" INBOX\r\n* LIST () \"/\" &AOk-\r\n{OK}"),
        )
        .always("CREATE e&AwE-", "{tag} NO [ALREADYEXISTS] it is there\r\n")
        .always("CREATE \"e&AwE-\"", "{tag} NO [ALREADYEXISTS] it is there\r\n")
        .always("STATUS", &format!("* STATUS =65&AwE- {}\r\n{OK}", numbers(5)));
    let (scripted_two, mailbox) = scripted(script).await;
    let made = mailbox
        .create_folder(&path("e\u{301}"), &NewFolder::default())
        .await
        .unwrap();
    assert_eq!(made.uid_validity, 5);
    assert!(
        scripted_two.heard("CREATE")[1].contains("=65"),
        "{:?}",
        scripted_two.heard("CREATE")
    );
    // Refused under every name: the folder's end, with the server's words.
    let script = Script::new("")
        .always("CREATE", "{tag} NO [CANNOT] mailbox name too long\r\n")
        .always("STATUS", "{tag} NO no\r\n");
    let (_scripted, mailbox) = scripted(script).await;
    let error = mailbox
        .create_folder(&path("x"), &NewFolder::default())
        .await
        .unwrap_err();
    assert_eq!(kind(&error), (ErrorScope::Folder, Retry::Never));
    assert!(error.cause.contains("mailbox name too long"), "{error}");
}

#[tokio::test]
async fn thousands_of_empty_folders_cost_one_question() {
    let mut answer = "* LIST () \"/\" INBOX\r\n* STATUS INBOX (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 3)\r\n".to_owned();
    for number in 0..10_000 {
        write!(
            answer,
            "* LIST () \"/\" f{number}\r\n* STATUS f{number} (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 3)\r\n"
        )
        .unwrap();
    }
    answer.push_str(OK);
    let (scripted, mailbox) = scripted(Script::new("LIST-EXTENDED LIST-STATUS").always("LIST", &answer)).await;
    assert_eq!(mailbox.folders().await.unwrap().len(), 10_001);
    let asked = ["LIST", "LSUB", "STATUS", "EXAMINE", "SELECT"].map(|command| scripted.heard(command).len());
    assert_eq!(asked, [1, 0, 0, 0, 0]);
}

/// Offered, and not done: it goes on without.
#[tokio::test]
async fn servers_that_offer_what_they_cannot_do() {
    // LIST-EXTENDED, with SPECIAL-USE and numbers.
    let status = format!("* STATUS INBOX (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 3)\r\n{OK}");
    let script = Script::new("LIST-EXTENDED LIST-STATUS SPECIAL-USE CONDSTORE ENABLE")
        .once("ENABLE", "{tag} NO not really\r\n")
        .once("LIST", "{tag} BAD what is RETURN?\r\n")
        .always("LIST \"\" \"*\"", &format!("* LIST () \"/\" INBOX\r\n{OK}"))
        .always("LIST \"\" *", &format!("* LIST () \"/\" INBOX\r\n{OK}"))
        .always("LSUB", OK)
        .always("STATUS", &status);
    let (_scripted_one, mailbox) = scripted(script).await;
    assert_eq!(mailbox.folders().await.unwrap().len(), 1);

    // LIST-STATUS without numbers, and CREATE-SPECIAL-USE.
    let script = Script::new("LIST-EXTENDED LIST-STATUS CREATE-SPECIAL-USE")
        .always("LIST", &format!("* LIST () \"/\" INBOX\r\n{OK}"))
        .always("CREATE Sent (USE", "{tag} NO [USEATTR] no\r\n")
        .always("STATUS INBOX", &status)
        .always(
            "STATUS Sent",
            &format!("* STATUS Sent (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 8)\r\n{OK}"),
        );
    let (scripted_two, mailbox) = scripted(script).await;
    assert_eq!(mailbox.folders().await.unwrap()[0].status.unwrap().uid_validity, 3);
    let new = NewFolder {
        special_use: Some(rehome_mailbox::SpecialUse::Sent),
        ..NewFolder::default()
    };
    assert_eq!(
        mailbox.create_folder(&path("Sent"), &new).await.unwrap().uid_validity,
        8
    );
    assert_eq!(scripted_two.heard("CREATE").len(), 2);

    // MULTIAPPEND.
    let script = Script::new("LITERAL+ MULTIAPPEND UIDPLUS")
        .folder(0, "")
        .once("APPEND", "{tag} BAD junk behind the literal\r\n")
        .once("APPEND", "{tag} OK [APPENDUID 7 100] x\r\n")
        .once("APPEND", "{tag} OK [APPENDUID 7 101] x\r\n");
    let (scripted_three, mailbox) = scripted(script).await;
    let items = vec![item(&[], b"Subject: x\r\n\r\n"), item(&[], b"Subject: y\r\n\r\n")];
    let appended = mailbox.append(FolderRef::any(&inbox()), items).await.unwrap();
    assert!(matches!(
        appended[..],
        [Appended::Uid { uid: 100, .. }, Appended::Uid { uid: 101, .. }]
    ));
    assert_eq!(scripted_three.heard("APPEND").len(), 3);

    // QRESYNC: changes are refused.
    let all = format!("{}{}{}{OK}", meta(1), meta(2), meta(3));
    let script = Script::new("ENABLE CONDSTORE QRESYNC")
        .folder(3, "* OK [HIGHESTMODSEQ 50] x\r\n")
        .always(
            "UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE) (CHANGEDSINCE",
            "{tag} BAD what?\r\n",
        )
        .always("UID FETCH", &all);
    let (_scripted_four, mailbox) = scripted(script).await;
    let token = mailbox.list(&inbox(), None).await.unwrap().token;
    let listing = mailbox.list(&inbox(), token.as_ref()).await.unwrap();
    assert_eq!((listing.scope, listing.items.len()), (ListingScope::Whole, 3));

    // Offered before sign-in only.
    let (less, more) = (
        "IMAP4rev1",
        "IMAP4rev1 AUTH=PLAIN UIDPLUS MULTIAPPEND LITERAL+ CONDSTORE",
    );
    let script = Script::new("")
        .greeting(&format!("* OK [CAPABILITY {more}] ready\r\n"))
        .once("AUTHENTICATE", &format!("{{tag}} OK [CAPABILITY {less}] x\r\n"));
    let (scripted_five, mailbox) = scripted(script).await;
    // Without SASL-IR the name comes alone; the empty challenge is answered.
    let _ = (mailbox.connect().await, scripted_five.heard("AUTHENTICATE"));
    assert!(!mailbox.capabilities().copy && !mailbox.capabilities().changes);
}

/// However slow: it is progress that counts. However quiet: it ends.
#[tokio::test]
async fn slow_and_silent_servers() {
    let script = || {
        Script::new("")
            .folder(1, "")
            .always("UID FETCH 1 (UID FLAGS", &format!("{}{OK}", meta(1)))
    };
    let patience = SLOW * 10;
    let mailbox_with = async |script: Script| {
        let scripted = script.start().await;
        let mut settings = plain(scripted.port, SignIn::Password);
        settings.progress_timeout = patience;
        (mailbox_of(&ImapServer::new(settings)), scripted)
    };
    let body = format!("* 1 FETCH (UID 1 BODY[] {{12}}\r\nitem1{{slow}}  {})\r\n{OK}", "slowly");
    let body = body.replace("  slowly", "-slowly");
    let (mailbox, _scripted) = mailbox_with(script().always("UID FETCH 1 (UID BODY", &body)).await;
    assert!((SLOW * 20) > patience, "it takes longer than silence may");
    assert_eq!(read(&mailbox, &[1]).await, ["item1-slowly"]);
    // Half-open: nothing more comes, in the middle of an item or between two answers.
    for rest in ["{stall}", "* 1 FETCH (UID 1 BODY[] {12}\r\nitem1{stall}"] {
        let (mailbox, _scripted) = mailbox_with(script().always("UID FETCH 1 (UID BODY", rest)).await;
        let said = read(&mailbox, &[1]).await;
        assert!(
            said == ["failed 1"] || said == ["error (Folder, Now)"],
            "nothing of it is used: {said:?}"
        );
    }
}

/// Answers that make no sense end in an error or cost themselves; none ends an item that is not whole, and none hangs.
#[tokio::test]
async fn answers_that_make_no_sense() {
    let long = "x".repeat(3_000_000);
    let rows = [
        "* 1 FETCH (UID 1 BODY[] {-1}\r\n",
        "* 1 FETCH (UID 1 BODY[] {99999999999999999999}\r\n",
        "* 1 FETCH (UID 1 BODY[] {1099511627777}\r\n",
        "* 1 FETCH (UID 1 BODY[] {5000000000}\r\nshort{close}",
        "* 1 FETCH (UID 1 BODY[] {50}\r\nshort)\r\n{tag} OK x\r\n{close}",
        "* 1 FETCH (UID 1 BODY[] {50}\r\nshort{close}",
        "* 1 FETCH (UID 1 BODY[] \"unended\r\n",
        "* 1 FETCH (UID 1 BODY[] {5}\r\nitem1NONSENSE\r\n",
        "* 1 FETCH (BODY[] {5}\r\nitem1)\r\n",
        "* 4294967297 FETCH (UID 1 BODY[] {5}\r\nitem1)\r\n",
        "* 1 FETCH (UID 4294967297 BODY[] {5}\r\nitem1)\r\n",
        "* 1 FETCH (UID 1 BODY[HEADER] {5}\r\nitem1)\r\n",
        "* 1 FETCH (UID 1 BODY[]<0> {5}\r\nitem1)\r\n",
        "* FETCH\r\n* 1\r\n*\r\n\r\n)(\r\n",
        "+ and now?\r\n",
        "B999 OK of nothing\r\n",
        "{tag} OK x\r\n{tag} OK again\r\n",
        "\u{0}\u{0}\u{0}\r\n",
        "* 4294967296 EXISTS\r\n* -1 EXISTS\r\n* 0 EXPUNGE\r\n* VANISHED 0,*:1\r\n",
        "* OK [UIDVALIDITY 4294967296] x\r\n* OK [UIDNEXT x] x\r\n* OK [\r\n",
        "* SEARCH 1 2 x\r\n* ESEARCH (\r\n",
        "* BYE\r\n",
    ];
    let mut texts: Vec<String> = rows.iter().map(|row| (*row).to_owned()).collect();
    texts.push(format!(
        "* 1 FETCH (UID 1 ENVELOPE (\"{long}\") BODY[] {{5}}\r\nitem1)\r\n"
    ));
    texts.push(format!("* OK {long}{long}\r\n"));
    texts.push("(".repeat(100_000) + "\r\n");
    for text in texts {
        let script = Script::new("LITERAL+ UIDPLUS")
            .folder(1, "")
            .always("UID FETCH 1 (UID FLAGS", &format!("{}{OK}", meta(1)))
            .always("UID FETCH 1 (UID BODY", &format!("{text}{OK}"))
            .always("UID FETCH 1:* ", &format!("{text}{}{OK}", meta(1)))
            .always("UID STORE", &format!("{text}{OK}"))
            .always("APPEND", &format!("{text}{OK}"))
            .always("UID FETCH 100:*", OK);
        let scripted = script.start().await;
        let mut settings = plain(scripted.port, SignIn::Password);
        settings.progress_timeout = Duration::from_millis(500);
        let mailbox = mailbox_of(&ImapServer::new(settings));
        let shown = &text[..text.floor_char_boundary(80)];
        let said = read(&mailbox, &[1]).await;
        assert!(
            said.iter()
                .all(|said| *said == "item1" || said.starts_with("failed") || said.starts_with("error")),
            "{shown}: {said:?}"
        );
        assert_eq!(said.len(), 1, "{shown}: {said:?}");
        if let Ok(listing) = mailbox.list(&inbox(), None).await {
            assert_eq!(listing.items.len(), 1, "{shown}");
        }
        let _ = mailbox
            .set_flags(FolderRef::any(&inbox()), &[(1, Flags::default())])
            .await;
        let said = append(&mailbox, item(&[], b"Subject: x\r\n\r\n")).await;
        assert!(said.starts_with("error"), "nobody says where it is: {shown}: {said}");
    }
}

/// TLS that ends without saying so is no end of anything.
#[tokio::test]
async fn tls_that_is_cut_gives_no_short_item() {
    let script = Script::new("")
        .folder(1, "")
        .always("UID FETCH 1 (UID FLAGS", &format!("{}{OK}", meta(1)))
        .always("UID FETCH 1 (UID BODY", "* 1 FETCH (UID 1 BODY[] {5}\r\nit{close}");
    let scripted = script.start().await;
    let certificate = Certificate::for_loopback();
    let (port, roots) = tls_before(scripted.port, &certificate).await;
    let settings = rehome_mailbox::imap::ServerSettings::new(
        "localhost",
        port,
        Security::Tls,
        super::tls_trusting(roots),
        SignIn::Password,
    );
    let said = read(&mailbox_of(&ImapServer::new(settings)), &[1]).await;
    assert_eq!(said, ["error (Folder, Now)"]);
}

/// A port with TLS in front of another one; where that closes, the line is dropped without a word.
async fn tls_before(port: u16, certificate: &Certificate) -> (u16, rustls::RootCertStore) {
    let chain = CertificateDer::pem_slice_iter(certificate.certificate.as_bytes());
    let chain: Vec<_> = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(mut client) = acceptor.accept(client).await else {
                continue;
            };
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (mut up, mut down) = ([0; 4096], [0; 4096]);
                loop {
                    tokio::select! {
                        count = client.read(&mut up) => match count {
                            Ok(count @ 1..) => server.write_all(&up[..count]).await.unwrap(),
                            _ => return,
                        },
                        count = server.read(&mut down) => match count {
                            Ok(count @ 1..) => {
                                client.write_all(&down[..count]).await.unwrap();
                                client.flush().await.unwrap();
                            }
                            _ => return,
                        },
                    }
                }
            });
        }
    });
    let mut roots = rustls::RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(certificate.authority.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    (own, roots)
}
