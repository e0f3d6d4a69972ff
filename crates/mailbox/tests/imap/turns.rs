//! Callers of one account take turns where there are fewer connections than callers.

use super::common::{OK, inbox, kind, mailbox_of, meta};
use super::plain;
use super::script::{Script, Scripted};
use futures_util::{FutureExt, StreamExt};
use rehome_mailbox::imap::{ImapMailbox, ImapServer, SignIn};
use rehome_mailbox::{ErrorScope, FolderRef, Mailbox, ReadEvent, Retry, Uid};
use std::time::Duration;

const ITEMS: Uid = 5000;
/// As many as are asked for with one command.
const STRETCH: Uid = 500;

/// A mailbox of many items, with one connection.
async fn one_connection(script: Script, patience: Duration) -> (Scripted, ImapMailbox) {
    let scripted = script.start().await;
    let mut settings = plain(scripted.port, SignIn::Password);
    settings.connections_per_account = 1;
    settings.progress_timeout = patience;
    let mailbox = mailbox_of(&ImapServer::new(settings));
    (scripted, mailbox)
}

fn many() -> Script {
    let all: String = (1..=ITEMS).map(meta).collect();
    let numbers = format!("* {ITEMS} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 9000] x\r\n{OK}");
    let mut script = Script::new("")
        .always("EXAMINE", &numbers)
        .always("UID FETCH 1:* ", &format!("{all}{OK}"));
    for first in (1..=ITEMS).step_by(STRETCH as usize) {
        let uids = first..first + STRETCH;
        let metas: String = uids.clone().map(meta).collect();
        let bodies: String = uids
            .map(|uid| format!("* {uid} FETCH (UID {uid} BODY[] {{5}}\r\nabcde)\r\n"))
            .collect();
        let set = format!("UID FETCH {first}:{}", first + STRETCH - 1);
        let command: &'static str = format!("{set} (UID FLAGS").leak();
        script = script.always(command, &format!("{metas}{OK}"));
        let command: &'static str = format!("{set} (UID BODY").leak();
        script = script.always(command, &format!("{bodies}{OK}"));
    }
    script
}

/// A stream that goes on gives its connection to whoever waits, between what it has asked for, and comes back to it.
#[tokio::test]
async fn a_stream_that_goes_on_lets_others_in_between() {
    let (scripted, mailbox) = one_connection(many(), Duration::from_secs(30)).await;
    let inbox = inbox();
    let uids: Vec<Uid> = (1..=ITEMS).collect();
    let mut reading = mailbox.read(FolderRef::any(&inbox), &uids).await.unwrap();
    assert!(matches!(reading.next().await, Some(Ok(ReadEvent::Item(_)))));
    let other = mailbox.clone();
    let (read, listing) = tokio::join!(
        async {
            let mut read = 0;
            while let Some(event) = reading.next().await {
                read += usize::from(matches!(event.unwrap(), ReadEvent::End));
            }
            read
        },
        other.list(&inbox, None)
    );
    assert_eq!((read, listing.unwrap().items.len()), (ITEMS as usize, ITEMS as usize));
    let heard = scripted.heard("UID FETCH");
    let listed = heard.iter().position(|command| command.contains("1:* ")).unwrap();
    assert!(
        listed < heard.len() - 1,
        "the listing did not wait for the end of the stream"
    );
    assert_eq!(scripted.connections(), 1);
}

/// A stream that nobody reads keeps its connection; whoever waits is told so, after a time that has an end.
#[tokio::test]
async fn a_stream_that_stands_still_is_not_waited_for_without_end() {
    let (_scripted, mailbox) = one_connection(many(), Duration::from_millis(200)).await;
    let inbox = inbox();
    let uids: Vec<Uid> = (1..=ITEMS).collect();
    let mut reading = mailbox.read(FolderRef::any(&inbox), &uids).await.unwrap();
    assert!(reading.next().await.is_some());
    let error = mailbox.list(&inbox, None).await.unwrap_err();
    assert_eq!(kind(&error), (ErrorScope::Mailbox, Retry::After(30)), "{error}");
    assert!(error.cause.contains("nothing moved"), "{error}");
    drop(reading);
    assert_eq!(mailbox.list(&inbox, None).await.unwrap().items.len(), ITEMS as usize);
}

/// Whoever gives up waiting is no longer in the way.
#[tokio::test]
async fn who_gives_up_leaves_the_line() {
    let (_scripted, mailbox) = one_connection(many(), Duration::from_secs(30)).await;
    let inbox = inbox();
    let reading = mailbox.read(FolderRef::any(&inbox), &[1, 2]).await.unwrap();
    let waiting = mailbox.list(&inbox, None);
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
    drop(reading);
    mailbox.list(&inbox, None).await.unwrap();
}

/// Whoever asked first and is not polled any more does not keep the others from what is free: it may be them that his
/// reader waits for.
#[tokio::test]
async fn who_is_not_polled_loses_his_place() {
    let (_scripted, mailbox) = one_connection(many(), Duration::from_secs(30)).await;
    let inbox = inbox();
    let reading = mailbox.read(FolderRef::any(&inbox), &[1, 2]).await.unwrap();
    let mut first = mailbox.list(&inbox, None);
    assert!((&mut first).now_or_never().is_none());
    let second = mailbox.list(&inbox, None);
    drop(reading);
    let listing = tokio::time::timeout(Duration::from_secs(20), second).await;
    assert_eq!(listing.expect("it has its turn").unwrap().items.len(), ITEMS as usize);
    assert_eq!(first.await.unwrap().items.len(), ITEMS as usize);
}
