//! Answers that real servers rarely give: to connections, folder lists, listings and changes.

use super::common::{OK, inbox, kind, mailbox_of, meta, scripted, server};
use super::plain;
use super::script::Script;
use bytes::Bytes;
use futures_util::StreamExt;
use rehome_mailbox::imap::{ImapServer, Security, SignIn};
use rehome_mailbox::{
    Body, ErrorScope, FolderPath, FolderRef, ItemKey, ListingScope, Mailbox, NewFolder, NewItem, Removed, Retry,
    SpecialUse, Uid,
};
use rehome_wire::digest::Digest;
use rehome_wire::flags::Flags;
use secrecy::SecretString;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[tokio::test]
async fn connections_that_must_not_be_trusted() {
    let starttls = "* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] ready\r\n";
    let injected = "{tag} OK begin\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n";
    let rows: [(Security, &str, &str, ErrorScope); 8] = [
        (Security::StartTls, starttls, injected, ErrorScope::Endpoint),
        (
            Security::StartTls,
            starttls,
            "{tag} NO not now\r\n",
            ErrorScope::Endpoint,
        ),
        (
            Security::StartTls,
            "* OK [CAPABILITY IMAP4rev1] ready\r\n",
            OK,
            ErrorScope::Endpoint,
        ),
        (
            Security::StartTls,
            "* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] hello\r\n",
            OK,
            ErrorScope::Endpoint,
        ),
        (Security::Plain, "* PREAUTH hello\r\n", OK, ErrorScope::Endpoint),
        (Security::Plain, "* BYE go away\r\n{close}", OK, ErrorScope::Endpoint),
        (
            Security::Plain,
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            OK,
            ErrorScope::Endpoint,
        ),
        (
            Security::Plain,
            "* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] ready\r\n",
            OK,
            ErrorScope::Endpoint,
        ),
    ];
    for (security, greeting, answer, scope) in rows {
        let scripted = Script::new("")
            .greeting(greeting)
            .once("STARTTLS", answer)
            .start()
            .await;
        let mut settings = plain(scripted.port, SignIn::Password);
        settings.security = security;
        let mailbox = mailbox_of(&ImapServer::new(settings));
        let error = mailbox.connect().await.expect_err(greeting);
        assert_eq!(error.scope, scope, "{greeting}: {error}");
        assert!(
            scripted.heard("AUTHENTICATE").is_empty() && scripted.heard("LOGIN").is_empty(),
            "{greeting}"
        );
        assert!(!error.to_string().contains("secret-secret"));
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_without_end() {
    let scripted = Script::new("")
        .once("CAPABILITY", "{stall}")
        .greeting("* OK hello\r\n")
        .start()
        .await;
    let mut settings = plain(scripted.port, SignIn::Password);
    settings.progress_timeout = Duration::from_millis(200);
    let error = mailbox_of(&ImapServer::new(settings)).connect().await.unwrap_err();
    assert!(error.cause.contains("nothing moved"), "{error}");
}

#[tokio::test]
async fn a_server_that_only_chats_is_not_waited_for_without_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = plain(listener.local_addr().unwrap().port(), SignIn::Password);
    settings.progress_timeout = Duration::from_millis(200);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while stream.write_all(b"* OK still here\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let error = mailbox_of(&ImapServer::new(settings)).connect().await.unwrap_err();
    assert_eq!(error.scope, ErrorScope::Endpoint, "{error}");
    assert!(error.cause.contains("no answer in time"), "{error}");
}

#[tokio::test]
async fn an_open_folder_is_not_taken_for_another_that_got_its_name() {
    let script = Script::new("")
        .folder(1, "")
        .always("UID FETCH 1 (UID FLAGS", &format!("{}{OK}", meta(1)))
        .always(
            "UID FETCH 1 (UID BODY",
            &format!("* 1 FETCH (UID 1 BODY[] {{1}}\r\nx)\r\n{OK}"),
        )
        .always("LIST", &format!("* LIST () \"/\" INBOX\r\n* LIST () \"/\" a\r\n{OK}"))
        .always("LSUB", OK)
        .always("RENAME", OK);
    let (scripted, mailbox) = scripted(script).await;
    let path = |name: &str| FolderPath(vec![name.to_owned()]);
    let (one, two) = (path("a"), path("b"));
    let reading = mailbox.read(FolderRef::new(&one, 7), &[1]).await.unwrap();
    mailbox.rename_folder(&one, &two).await.unwrap();
    assert_eq!(reading.count().await, 3);
    assert_eq!(scripted.heard("EXAMINE a").len(), 1);
    // The name may be another folder's now, whose UIDVALIDITY may be the same.
    let reading = mailbox.read(FolderRef::new(&one, 7), &[1]).await.unwrap();
    assert_eq!(reading.count().await, 3);
    assert_eq!(scripted.heard("EXAMINE a").len(), 2);
    assert_eq!(scripted.connections(), 2);
}

#[tokio::test]
async fn throttling_rests_the_whole_server() {
    let answer = "{tag} NO Request is throttled. Suggested Backoff Time: 299961 milliseconds\r\n";
    let scripted = Script::new("").once("EXAMINE", answer).start().await;
    let server = server(&scripted);
    let error = mailbox_of(&server).list(&inbox(), None).await.unwrap_err();
    assert_eq!(kind(&error), (ErrorScope::Endpoint, Retry::After(300)), "{error}");
    let other = server.mailbox("press", Some(SecretString::from("x")));
    let error = other.folders().await.unwrap_err();
    assert_eq!(error.scope, ErrorScope::Endpoint, "{error}");
    assert!(matches!(error.retry, Retry::After(200..=300)));
    assert_eq!(scripted.connections(), 1, "the other account did not even try");
}

#[tokio::test]
async fn refusals_to_open_a_folder() {
    let rows = [
        ("NO [NONEXISTENT] no", ErrorScope::Folder, Retry::Never),
        ("NO Mailbox does not exist", ErrorScope::Folder, Retry::Never),
        ("NO [INUSE] busy", ErrorScope::Folder, Retry::After(30)),
        ("NO [UNAVAILABLE] later", ErrorScope::Mailbox, Retry::After(60)),
        // Refused for good is not missing: it would look removed.
        ("NO [NOPERM] no", ErrorScope::Mailbox, Retry::Never),
        ("NO [CANNOT] no", ErrorScope::Mailbox, Retry::Never),
        ("BAD what?", ErrorScope::Mailbox, Retry::Never),
        (
            "BAD User is authenticated but not connected.",
            ErrorScope::Mailbox,
            Retry::After(60),
        ),
    ];
    for (answer, scope, retry) in rows {
        let (_scripted, mailbox) = scripted(Script::new("").always("EXAMINE", &format!("{{tag}} {answer}\r\n"))).await;
        let error = mailbox.list(&inbox(), None).await.unwrap_err();
        assert_eq!(kind(&error), (scope, retry), "{answer}: {error}");
    }
}

#[tokio::test]
async fn folders_of_all_kinds() {
    let list = concat!(
        "* LIST (\\HasNoChildren) \"/\" inbox\r\n",
        "* LIST (\\Sent \\Subscribed) \"/\" \"Sent b\"\r\n",
        "* LIST (\\Sent) \"/\" {6}\r\nSent a\r\n",
        "* LIST (\\NoSelect) \"/\" parent\r\n",
        "* LIST (\\NonExistent \\Subscribed) \"/\" ghost\r\n",
        "* LIST () \"/\" deep/er/est\r\n",
        "* LIST () \"/\" 2024\r\n",
        "* LIST () \"/\" \"&Jjo-!\"\r\n",
        "* LIST () \"/\" bad&zz\r\n",
        "* LIST () \"/\" \"Other Users/press\"\r\n",
    );
    let mut answer = list.to_owned();
    for (name, numbers) in [
        ("INBOX", "MESSAGES 1 UIDNEXT 2 UIDVALIDITY 3"),
        ("\"Sent a\"", "MESSAGES 0 UIDNEXT 1 UIDVALIDITY 3"),
        ("\"Sent b\"", "MESSAGES 0 UIDNEXT 1 UIDVALIDITY 3"),
        ("deep/er/est", "MESSAGES 0 UIDVALIDITY 0"),
        ("\"&Jjo-!\"", "MESSAGES 0 UIDNEXT 1 UIDVALIDITY 3"),
        ("bad&zz", "MESSAGES 4294967296 UIDNEXT 1 UIDVALIDITY 3"),
    ] {
        answer.push_str(&format!("* STATUS {name} ({numbers})\r\n"));
    }
    answer.push_str(OK);
    let namespaces = "* NAMESPACE ((\"\" \"/\")) ((\"Other Users/\" \"/\")) NIL\r\n{tag} OK x\r\n";
    let script = Script::new("LIST-EXTENDED LIST-STATUS SPECIAL-USE")
        .once("NAMESPACE", namespaces)
        .always("LIST", &answer)
        .always("STATUS \"bad&zz\"", "* STATUS bad&zz (UIDNEXT 1)\r\n{tag} OK x\r\n")
        .always(
            "STATUS 2024",
            "* STATUS 2024 (MESSAGES 2 UIDNEXT 9 UIDVALIDITY 3)\r\n{tag} OK x\r\n",
        )
        .folder(3, "");
    let (scripted, mailbox) = scripted(script).await;
    let folders = mailbox.folders().await.unwrap();
    let shown: Vec<String> = folders
        .iter()
        .map(|folder| {
            let numbers = folder
                .status
                .map(|status| (status.uid_validity, status.uid_next, status.exists));
            format!(
                "{} {:?}{}",
                folder.path,
                numbers,
                if folder.subscribed { " subscribed" } else { "" }
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "INBOX Some((3, 2, 1))",
            "2024 Some((3, 9, 2))",
            "Sent a Some((3, 1, 0))",
            "Sent b Some((3, 1, 0)) subscribed",
            "deep None",
            "deep/er None",
            "deep/er/est Some((7, 100, 3))",
            "parent None",
            "\u{263a}! Some((3, 1, 0))",
            "\u{fffd}bad&zz Some((7, 100, 3))",
        ]
    );
    let sent = |path: &str| {
        folders
            .iter()
            .find(|folder| folder.path.to_string() == path)
            .unwrap()
            .special_use
    };
    assert_eq!(
        (sent("Sent a"), sent("Sent b")),
        (Some(SpecialUse::Sent), None),
        "the first by path has the use"
    );
    // A name that does not decode is opened by its octets.
    let odd = FolderPath(vec!["\u{fffd}bad&zz".to_owned()]);
    mailbox.list(&odd, None).await.unwrap_err();
    assert!(
        scripted
            .heard("EXAMINE")
            .iter()
            .any(|command| command.contains("bad&zz"))
    );
}

#[tokio::test]
async fn folder_lists_that_cannot_be_trusted() {
    let one = "* LIST () \"/\" INBOX\r\n* STATUS INBOX (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 3)\r\n";
    let rows = [
        format!("{one}* LIST () \"/\r\n{OK}"),
        format!("{one}* LIST () \"/\" x\r\n{OK}"),
        format!("{one}* LIST () \"/\" {}\r\n{OK}", "x".repeat(3_000_000)),
        format!("{one}* LIST () \"/\" {{99999999999999999999}}\r\n{OK}"),
        format!("{one}* LIST () \"/\" {{-1}}\r\n{OK}"),
        format!("{one}* BYE shutting down\r\n{{close}}"),
        format!("{one}B77 OK of another command\r\n{OK}"),
        "{tag} NO [SERVERBUG] broken\r\n".to_owned(),
    ];
    for answer in rows {
        let script = Script::new("LIST-EXTENDED LIST-STATUS")
            .always("LIST", &answer)
            .always("LSUB", OK)
            .always("STATUS x", "{tag} NO [NOPERM] no\r\n");
        let (_scripted, mailbox) = scripted(script).await;
        let error = mailbox.folders().await.expect_err(&answer[..answer.len().min(200)]);
        assert!(error.scope >= ErrorScope::Mailbox, "{error}");
        assert!(error.to_string().len() < 2000);
    }
}

#[tokio::test]
async fn listings_must_be_whole() {
    let two = format!("{}{}{OK}", meta(1), meta(2));
    let three = format!("{}{}{}{OK}", meta(3), meta(1), meta(2));
    // Fewer than the server counts: asked again.
    let script = Script::new("")
        .folder(3, "")
        .once("UID FETCH", &two)
        .always("UID FETCH", &three);
    let (scripted_one, mailbox) = scripted(script).await;
    let listing = mailbox.list(&inbox(), None).await.unwrap();
    assert_eq!(listing.items.iter().map(|item| item.uid).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((listing.scope, listing.token), (ListingScope::Whole, None));
    assert_eq!(scripted_one.heard("UID FETCH").len(), 2);
    // And never believed.
    let (_scripted, mailbox) = scripted(Script::new("").folder(3, "").always("UID FETCH", &two)).await;
    let error = mailbox.list(&inbox(), None).await.unwrap_err();
    assert_eq!(kind(&error), (ErrorScope::Folder, Retry::After(60)), "{error}");
}

#[tokio::test]
async fn what_happens_during_a_listing() {
    // Doubles, news of flags with and without uid, an arrival, a removal, a later item of the same answer.
    let answer = format!(
        "{}* 4 EXISTS\r\n* 2 FETCH (FLAGS (\\Flagged))\r\n{}{}* 2 FETCH (UID 2 FLAGS (\\Answered))\r\n\
         * 9 FETCH (UID 9 FLAGS (\\Flagged))\r\n* VANISHED 3\r\n{}* 3 RECENT\r\n{OK}",
        meta(1),
        meta(2),
        meta(2),
        meta(100),
    );
    let (_scripted, mailbox) = scripted(Script::new("").folder(3, "").always("UID FETCH", &answer)).await;
    let listing = mailbox.list(&inbox(), None).await.unwrap();
    let listed: Vec<_> = listing
        .items
        .iter()
        .map(|item| (item.uid, item.flags.names().join(" ")))
        .collect();
    assert_eq!(listed, [(1, "\\Seen".to_owned()), (2, "\\Answered".to_owned())]);
    assert_eq!((listing.status.exists, listing.status.uid_next), (2, 100));
}

#[tokio::test]
async fn changes_and_when_they_are_not_believed() {
    let all = format!("{}{}{}{OK}", meta(1), meta(2), meta(3));
    let some = |changes: &str| format!("{changes}{OK}");
    let seq = |number: u32| format!("* OK [HIGHESTMODSEQ {number}] x\r\n");
    // QRESYNC names what vanished.
    let script = Script::new("ENABLE CONDSTORE QRESYNC")
        .folder(3, &seq(50))
        .once("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)", &all)
        .always(
            "UID FETCH",
            &some(&format!("* VANISHED (EARLIER) 4:6,200\r\n{}", meta(2))),
        );
    let (scripted_one, mailbox) = scripted(script).await;
    let token = mailbox.list(&inbox(), None).await.unwrap().token;
    let listing = mailbox.list(&inbox(), token.as_ref()).await.unwrap();
    let ListingScope::Changes {
        removed: Removed::Vanished(vanished),
    } = &listing.scope
    else {
        panic!("changes")
    };
    assert_eq!(vanished.iter().collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(listing.items.len(), 1);
    assert!(scripted_one.heard("UID FETCH")[1].ends_with("(CHANGEDSINCE 50 VANISHED)"));

    // CONDSTORE: who is there is asked; a SEARCH that leaves out some is not believed.
    for (search, fetches) in [("* SEARCH 1 2 3\r\n", 0), ("* SEARCH 1\r\n", 1), ("", 1)] {
        let script = Script::new("ENABLE CONDSTORE")
            .folder(3, &seq(50))
            .once("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)", &all)
            .always("UID SEARCH", &some(search))
            .always(
                "UID FETCH 1:* (UID)",
                &some("* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 2)\r\n* 3 FETCH (UID 3)\r\n"),
            )
            .always("UID FETCH", &some(""));
        let (scripted, mailbox) = scripted(script).await;
        let token = mailbox.list(&inbox(), None).await.unwrap().token;
        let listing = mailbox.list(&inbox(), token.as_ref()).await.unwrap();
        let ListingScope::Changes {
            removed: Removed::Present(present),
        } = &listing.scope
        else {
            panic!("changes")
        };
        assert_eq!(present.len(), 3);
        assert_eq!(scripted.heard("UID FETCH 1:* (UID)").len(), fetches, "{search}");
    }

    // Numbers that go backwards, none at all, another validity: everything is listed.
    for later in [
        seq(49),
        "* OK [NOMODSEQ] x\r\n".to_owned(),
        format!("* OK [UIDVALIDITY 8] x\r\n{}", seq(60)),
    ] {
        let first = format!(
            "* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 100] x\r\n{}{{tag}} OK x\r\n",
            seq(50)
        );
        let script = Script::new("ENABLE CONDSTORE QRESYNC")
            .once("EXAMINE", &first)
            .folder(3, &later)
            .always("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)", &all);
        let (_scripted, mailbox) = scripted(script).await;
        let token = mailbox.list(&inbox(), None).await.unwrap().token;
        assert!(token.is_some());
        let listing = mailbox.list(&inbox(), token.as_ref()).await.unwrap();
        assert_eq!(
            (listing.scope, listing.items.len()),
            (ListingScope::Whole, 3),
            "{later}"
        );
    }
}

#[tokio::test]
async fn removal_without_uidplus_takes_nothing_else() {
    let script = Script::new("")
        .folder(3, "")
        .always(
            "UID FETCH 1:* (UID FLAGS)",
            "* 2 FETCH (UID 2 FLAGS (\\Deleted))\r\n* 3 FETCH (UID 3 FLAGS (\\Seen))\r\n\
             * 4 FETCH (UID 4 FLAGS (\\Deleted \\Seen))\r\n{tag} OK x\r\n",
        )
        .always("UID STORE", OK)
        .always("EXPUNGE", OK);
    let (scripted, mailbox) = scripted(script).await;
    let inbox = inbox();
    mailbox.remove(FolderRef::new(&inbox, 7), &[1, 2]).await.unwrap();
    let changes: Vec<String> = scripted
        .heard("")
        .into_iter()
        .skip_while(|command| !command.starts_with("UID FETCH"))
        .collect();
    assert_eq!(
        changes,
        [
            "UID FETCH 1:* (UID FLAGS)",
            "UID STORE 4 -FLAGS.SILENT (\\Deleted)",
            "UID STORE 1:2 +FLAGS.SILENT (\\Deleted)",
            "EXPUNGE",
            "UID STORE 4 +FLAGS.SILENT (\\Deleted)",
        ]
    );
}

#[tokio::test]
async fn removal_without_uidplus_that_is_refused_leaves_the_marks_of_others() {
    let script = Script::new("")
        .folder(2, "")
        .always(
            "UID FETCH 1:* (UID FLAGS)",
            "* 1 FETCH (UID 1 FLAGS ())\r\n* 2 FETCH (UID 2 FLAGS (\\Deleted))\r\n{tag} OK x\r\n",
        )
        .once("UID STORE", "{tag} NO [INUSE] some were not changed\r\n")
        .always("UID STORE", OK);
    let (scripted, mailbox) = scripted(script).await;
    let error = mailbox.remove(FolderRef::new(&inbox(), 7), &[1]).await.unwrap_err();
    assert_eq!(kind(&error), (ErrorScope::Folder, Retry::After(30)), "{error}");
    assert_eq!(
        scripted.heard("UID STORE"),
        [
            "UID STORE 2 -FLAGS.SILENT (\\Deleted)",
            "UID STORE 2 +FLAGS.SILENT (\\Deleted)"
        ]
    );
    assert!(scripted.heard("EXPUNGE").is_empty());
}

#[tokio::test]
async fn removal_without_uidplus_needs_a_whole_list_of_marks() {
    let script = Script::new("")
        .folder(3, "")
        .always(
            "UID FETCH 1:* (UID FLAGS)",
            "* 1 FETCH (UID 1 FLAGS ())\r\n* 3 FETCH (UID 3 FLAGS (\\Seen))\r\n{tag} OK x\r\n",
        )
        .always("UID STORE", OK)
        .always("EXPUNGE", OK);
    let (scripted, mailbox) = scripted(script).await;
    let error = mailbox.remove(FolderRef::new(&inbox(), 7), &[1]).await.unwrap_err();
    assert_eq!(kind(&error), (ErrorScope::Folder, Retry::After(60)), "{error}");
    assert!(
        scripted.heard("EXPUNGE").is_empty(),
        "the one that was left out may be marked"
    );
}

#[tokio::test]
async fn a_folder_that_became_empty_is_listed_whole_where_changes_are_refused() {
    let all = format!("{}{}{OK}", meta(1), meta(2));
    let numbers = |exists: u32, mod_seq: u32| {
        format!(
            "* {exists} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 100] x\r\n\
             * OK [HIGHESTMODSEQ {mod_seq}] x\r\n{OK}"
        )
    };
    let script = Script::new("ENABLE CONDSTORE QRESYNC")
        .once("EXAMINE", &numbers(2, 50))
        .always("EXAMINE", &numbers(0, 60))
        .once("UID FETCH", &all)
        .always("UID FETCH", "{tag} BAD no messages\r\n");
    let (_scripted, mailbox) = scripted(script).await;
    let token = mailbox.list(&inbox(), None).await.unwrap().token;
    let listing = mailbox.list(&inbox(), token.as_ref()).await.unwrap();
    assert_eq!((listing.scope, listing.items.len()), (ListingScope::Whole, 0));
}

#[tokio::test]
async fn two_folders_never_become_one() {
    let numbers = "MESSAGES 0 UIDNEXT 1 UIDVALIDITY";
    let script = Script::new("LIST-EXTENDED")
        .always(
            "LIST",
            &format!("* LIST () \"/\" INBOX\r\n* LIST () \"/\" Plans\r\n{OK}"),
        )
        .always("CREATE plans", "{tag} NO [ALREADYEXISTS] there is Plans\r\n")
        .always("CREATE Plans", "{tag} NO [ALREADYEXISTS] there is Plans\r\n")
        .always("STATUS plans", &format!("* STATUS plans ({numbers} 3)\r\n{OK}"))
        .always("STATUS Plans", &format!("* STATUS Plans ({numbers} 3)\r\n{OK}"))
        .always("STATUS =70lans", &format!("* STATUS =70lans ({numbers} 4)\r\n{OK}"));
    let (scripted, mailbox) = scripted(script).await;
    let path = |name: &str| FolderPath(vec![name.to_owned()]);
    let new = NewFolder::default();
    let one = mailbox.create_folder(&path("Plans"), &new).await.unwrap();
    let two = mailbox.create_folder(&path("plans"), &new).await.unwrap();
    assert_eq!((one.uid_validity, two.uid_validity), (3, 4));
    assert_eq!(
        scripted.heard("CREATE"),
        ["CREATE Plans", "CREATE plans", "CREATE =70lans"]
    );
}

#[tokio::test]
async fn a_copy_that_is_not_named_may_be_there() {
    let script = Script::new("UIDPLUS")
        .folder(1, "")
        .always("UID FETCH", &format!("{}{OK}", meta(1)))
        .always("UID COPY", OK);
    let (_scripted, mailbox) = scripted(script).await;
    let item = NewItem {
        key: ItemKey {
            move_id: 1,
            folder: 1,
            source_validity: 1,
            source_uid: 1,
        },
        uid: None,
        flags: Flags::from_names(["\\Seen"]),
        received: 1_704_067_200,
        length: 1,
        digest: Digest::of(b"x"),
        body: Body::Memory(Bytes::from_static(b"x")),
    };
    let (from, to) = (inbox(), FolderPath(vec!["a".to_owned()]));
    let copied = mailbox
        .copy(FolderRef::any(&from), &[1], FolderRef::any(&to), &[item])
        .await;
    assert_eq!(kind(&copied.unwrap_err()), (ErrorScope::Folder, Retry::Now));
}

#[tokio::test]
async fn long_sets_are_split() {
    let script = Script::new("UIDPLUS")
        .folder(5, "")
        .always("UID STORE", OK)
        .always("UID EXPUNGE", OK);
    let (scripted, mailbox) = scripted(script).await;
    let inbox = inbox();
    let uids: Vec<Uid> = (1..=5000).map(|number| number * 7919).collect();
    mailbox.remove(FolderRef::any(&inbox), &uids).await.unwrap();
    let changes: Vec<(Uid, Flags)> = uids.iter().map(|uid| (*uid, Flags::default())).collect();
    mailbox.set_flags(FolderRef::any(&inbox), &changes).await.unwrap();
    let heard = scripted.heard("UID ");
    assert!(heard.len() > 10 && heard.iter().all(|command| command.len() < 8000));
}

#[tokio::test]
async fn a_held_connection_that_died_is_replaced() {
    let all = format!("{}{OK}", meta(1));
    let script = Script::new("")
        .folder(1, "")
        .once("UID FETCH", &format!("{all}* BYE idle for too long\r\n{{close}}"))
        .always("UID FETCH", &all);
    let (scripted, mailbox) = scripted(script).await;
    mailbox.list(&inbox(), None).await.unwrap();
    mailbox.list(&inbox(), None).await.unwrap();
    assert_eq!(scripted.connections(), 2);
    mailbox.renew().await;
    mailbox.list(&inbox(), None).await.unwrap();
    assert_eq!(scripted.connections(), 3, "a renewed mailbox has a new connection");
}

#[tokio::test]
async fn connections_are_limited_shared_and_kept_alive() {
    let all = format!("{}{OK}", meta(1));
    let scripted = Script::new("").folder(1, "").always("UID FETCH", &all).start().await;
    let mut settings = plain(scripted.port, SignIn::Password);
    (settings.connections, settings.connections_per_account) = (2, 1);
    settings.keep_alive = Duration::from_millis(200);
    let server = ImapServer::new(settings);
    let inbox = inbox();
    for account in ["a", "b", "c", "a"] {
        let mailbox = server.mailbox(account, Some(SecretString::from("x")));
        let (one, two) = tokio::join!(mailbox.list(&inbox, None), mailbox.list(&inbox, None));
        assert!(one.is_ok() && two.is_ok());
    }
    assert_eq!(
        scripted.connections(),
        4,
        "one for each account, two at once, so that one was made again"
    );
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while scripted.heard("NOOP").is_empty() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "an idle connection is kept alive"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn fewer_connections_where_the_server_wants_fewer() {
    let all = format!("{}{OK}", meta(1));
    let ok = "{tag} OK [CAPABILITY IMAP4rev1] x\r\n";
    let script = Script::new("")
        .folder(1, "")
        .always("UID FETCH", &all)
        .once("AUTHENTICATE", ok)
        .always(
            "AUTHENTICATE",
            "{tag} NO [LIMIT] Maximum number of connections from user+IP exceeded\r\n",
        );
    let (scripted, mailbox) = scripted(script).await;
    let inbox = inbox();
    let lists = (0..8).map(|_| mailbox.list(&inbox, None));
    for listing in futures_util::future::join_all(lists).await {
        assert_eq!(listing.unwrap().items.len(), 1);
    }
    assert!(scripted.connections() <= 4, "each refusal is remembered");
}

#[tokio::test]
async fn a_session_that_lost_its_back_end_is_not_used_again() {
    let script = Script::new("")
        .folder(1, "")
        .once("EXAMINE", "{tag} BAD User is authenticated but not connected.\r\n")
        .always("UID FETCH", &format!("{}{OK}", meta(1)));
    let (scripted, mailbox) = scripted(script).await;
    let error = mailbox.list(&inbox(), None).await.unwrap_err();
    assert_eq!(kind(&error), (ErrorScope::Mailbox, Retry::After(60)));
    mailbox.list(&inbox(), None).await.unwrap();
    assert_eq!(scripted.connections(), 2);
}
