//! A mailbox on a scripted server, and what is said about its items.

use super::plain;
use super::script::{Script, Scripted};
use rehome_mailbox::imap::{ImapMailbox, ImapServer, SignIn};
use rehome_mailbox::{ErrorScope, FolderPath, MailboxError, Retry, Uid};
use secrecy::SecretString;
use std::time::Duration;

pub fn server(scripted: &Scripted) -> ImapServer {
    let mut settings = plain(scripted.port, SignIn::Password);
    settings.progress_timeout = Duration::from_secs(20);
    ImapServer::new(settings)
}

pub fn mailbox_of(server: &ImapServer) -> ImapMailbox {
    server.mailbox("reception", Some(SecretString::from("secret-secret")))
}

pub async fn scripted(script: Script) -> (Scripted, ImapMailbox) {
    let scripted = script.start().await;
    let mailbox = mailbox_of(&server(&scripted));
    (scripted, mailbox)
}

pub fn inbox() -> FolderPath {
    FolderPath::inbox()
}

pub fn kind(error: &MailboxError) -> (ErrorScope, Retry) {
    (error.scope, error.retry)
}

/// The FETCH response with flags and date of one item.
pub fn meta(uid: Uid) -> String {
    format!("* {uid} FETCH (UID {uid} FLAGS (\\Seen) INTERNALDATE \"01-Jan-2024 00:00:00 +0000\" RFC822.SIZE 5)\r\n")
}

pub const OK: &str = "{tag} OK x\r\n";
