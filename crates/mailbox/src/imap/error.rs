//! What a server's answers and a broken line mean to the engine.

use crate::{ErrorScope, MailboxError, Retry};
use rehome_wire::imap::{Answer, Code, Condition};

/// Longest text of a server in an error, in characters.
const MAX_SHOWN: usize = 300;
/// Seconds to leave a server alone that asks for it without saying how long.
const BACK_OFF: u32 = 60;

/// Why something asked of a server did not happen.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// What the engine is told.
    pub(super) error: MailboxError,
    /// What the driver itself does about it.
    pub(super) kind: Kind,
}

/// What the driver does about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The connection is of no use any more; another may be.
    Lost,
    /// The server refused this and the connection goes on.
    Refused,
    /// The server wants to be left alone for a while, by all.
    Throttled,
    /// The server has as many connections of ours as it wants.
    Crowded,
    /// What was asked for does not exist.
    Missing,
    /// Credentials were refused.
    SignIn,
    /// Found here, before anything was sent.
    Ours,
}

pub(super) type Outcome<T> = Result<T, Failure>;

impl From<Failure> for MailboxError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl Failure {
    /// Found before anything was sent.
    pub(super) fn ours(what: impl Into<String>, cause: impl Into<String>, scope: ErrorScope, retry: Retry) -> Self {
        let error = MailboxError {
            what: what.into(),
            cause: cause.into(),
            scope,
            retry,
        };
        let kind = Kind::Ours;
        Self { error, kind }
    }

    /// The line is broken, silent, or what came over it makes no sense.
    pub(super) fn lost(what: impl Into<String>, cause: impl Into<String>) -> Self {
        let error = MailboxError {
            what: what.into(),
            cause: cause.into(),
            scope: ErrorScope::Mailbox,
            retry: Retry::Now,
        };
        let kind = Kind::Lost;
        Self { error, kind }
    }

    /// The same, with another name for what was tried.
    pub(super) fn during(mut self, what: impl Into<String>) -> Self {
        self.error.what = what.into();
        self
    }

    /// The same with the harm of a lost connection limited to one folder.
    pub(super) fn in_folder(mut self) -> Self {
        if self.kind == Kind::Lost && self.error.scope == ErrorScope::Mailbox {
            self.error.scope = ErrorScope::Folder;
        }
        self
    }

    /// The same, so that it is not taken for a folder that is not there ([`Mailbox::list`](crate::Mailbox::list)): one that
    /// is refused for good is the mailbox's trouble, or it would look removed.
    pub(super) fn unless_missing(mut self) -> Self {
        if self.kind != Kind::Missing && self.error.scope <= ErrorScope::Folder && self.error.retry == Retry::Never {
            self.error.scope = ErrorScope::Mailbox;
        }
        self
    }

    /// Whether a new connection is worth a try.
    pub(super) fn is_lost(&self) -> bool {
        self.kind == Kind::Lost
    }
}

/// What an answer that is not OK means for something whose harm reaches as far as `scope`.
pub(super) fn refused(what: impl Into<String>, answer: &Answer, scope: ErrorScope) -> Failure {
    let (scope, retry, kind) = classify(answer, scope);
    let error = MailboxError {
        what: what.into(),
        cause: shown(&answer.to_string()),
        scope,
        retry,
    };
    Failure { error, kind }
}

fn classify(answer: &Answer, scope: ErrorScope) -> (ErrorScope, Retry, Kind) {
    use ErrorScope::{Endpoint, Folder, Item, Mailbox};
    let text = answer.text.to_ascii_lowercase();
    let back_off = answer.back_off_seconds();
    if back_off.is_some() || text.contains("throttled") || text.contains("too many requests") {
        return (Endpoint, Retry::After(back_off.unwrap_or(BACK_OFF)), Kind::Throttled);
    }
    if is_unconnected(&text) {
        return (Mailbox, Retry::After(BACK_OFF), Kind::Lost);
    }
    if is_too_many_connections(&text) {
        return (Endpoint, Retry::After(30), Kind::Crowded);
    }
    let refused = |scope, retry| (scope, retry, Kind::Refused);
    match &answer.code {
        Some(Code::Throttled) => (Endpoint, Retry::After(BACK_OFF), Kind::Throttled),
        Some(Code::InUse) => refused(scope, Retry::After(30)),
        Some(Code::Unavailable) => refused(scope.max(Mailbox), Retry::After(BACK_OFF)),
        Some(Code::ServerBug) => refused(scope, Retry::After(30)),
        Some(Code::ExpungeIssued) => refused(scope, Retry::Now),
        Some(Code::Limit) if scope == Item => refused(Item, Retry::Never),
        Some(Code::Limit) => refused(scope, Retry::After(300)),
        Some(Code::OverQuota) => refused(Mailbox, Retry::After(600)),
        Some(Code::TooBig) => refused(Item, Retry::Never),
        Some(Code::NonExistent | Code::TryCreate) => (scope.max(Folder), Retry::Never, Kind::Missing),
        Some(Code::ContactAdmin) => refused(scope.max(Mailbox), Retry::Never),
        Some(Code::AuthenticationFailed | Code::AuthorizationFailed | Code::Expired | Code::PrivacyRequired) => {
            (scope.max(Mailbox), Retry::Never, Kind::SignIn)
        }
        // Another host is not followed to: nobody listed it.
        Some(Code::Referral(_)) => refused(scope, Retry::Never),
        Some(Code::NoPerm | Code::Cannot | Code::Corruption | Code::ClientBug | Code::AlreadyExists) => {
            refused(scope, Retry::Never)
        }
        Some(_) | None => match answer.condition {
            Condition::Bye => (scope.max(Mailbox), Retry::Now, Kind::Lost),
            Condition::Bad => refused(scope, Retry::Never),
            Condition::Ok | Condition::No | Condition::PreAuth if scope == Item => refused(Item, Retry::Never),
            Condition::Ok | Condition::No | Condition::PreAuth if says_missing(&text) => {
                (scope.max(Folder), Retry::Never, Kind::Missing)
            }
            Condition::Ok | Condition::No | Condition::PreAuth => refused(scope, Retry::After(BACK_OFF)),
        },
    }
}

/// Signed in at a front that has lost the server behind it: only another session helps, later.
fn is_unconnected(text: &str) -> bool {
    text.contains("authenticated but not connected")
}

/// Whether nothing more is to be expected of the session that answered so.
pub(super) fn ends_session(answer: &Answer) -> bool {
    answer.condition != Condition::Ok && is_unconnected(&answer.text.to_ascii_lowercase())
}

/// Servers from before RFC 5530 have no code for a folder that is not there.
fn says_missing(text: &str) -> bool {
    [
        "doesn't exist",
        "does not exist",
        "not exist",
        "no such mailbox",
        "unknown mailbox",
        "mailbox not found",
    ]
    .iter()
    .any(|words| text.contains(words))
}

fn is_too_many_connections(text: &str) -> bool {
    text.contains("too many") && text.contains("connection") || text.contains("maximum number of connections")
}

/// A server's words as they may be shown: bounded, on one line, without control characters.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_SHOWN)
        .map(|character| if is_odd(character) { '\u{fffd}' } else { character })
        .collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Control characters, and those that turn the direction of what stands around them.
fn is_odd(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(condition: Condition, code: Option<Code>, text: &str) -> Answer {
        let text = text.to_owned();
        Answer { condition, code, text }
    }

    #[test]
    fn every_kind_of_refusal_is_told_apart() {
        use Condition::{Bad, Bye, No};
        use ErrorScope::{Endpoint, Folder, Item, Mailbox};
        let backoff = "Request is throttled. Suggested Backoff Time: 299961 milliseconds";
        let rows = [
            (No, None, backoff, Item, Endpoint, Retry::After(300), Kind::Throttled),
            (Bad, None, backoff, Folder, Endpoint, Retry::After(300), Kind::Throttled),
            (
                No,
                Some(Code::Throttled),
                "slow down",
                Folder,
                Endpoint,
                Retry::After(60),
                Kind::Throttled,
            ),
            (
                No,
                None,
                "Too many simultaneous connections. (Failure)",
                Mailbox,
                Endpoint,
                Retry::After(30),
                Kind::Crowded,
            ),
            (
                No,
                Some(Code::Referral("imap://elsewhere.example/".to_owned())),
                "there",
                Mailbox,
                Mailbox,
                Retry::Never,
                Kind::Refused,
            ),
            (
                No,
                Some(Code::InUse),
                "busy",
                Folder,
                Folder,
                Retry::After(30),
                Kind::Refused,
            ),
            (
                No,
                Some(Code::Unavailable),
                "down",
                Folder,
                Mailbox,
                Retry::After(60),
                Kind::Refused,
            ),
            (
                No,
                Some(Code::ServerBug),
                "oops",
                Item,
                Item,
                Retry::After(30),
                Kind::Refused,
            ),
            (
                No,
                Some(Code::ExpungeIssued),
                "gone",
                Folder,
                Folder,
                Retry::Now,
                Kind::Refused,
            ),
            (
                No,
                Some(Code::Limit),
                "too many",
                Item,
                Item,
                Retry::Never,
                Kind::Refused,
            ),
            (
                No,
                Some(Code::Limit),
                "too many",
                Folder,
                Folder,
                Retry::After(300),
                Kind::Refused,
            ),
            (
                No,
                Some(Code::OverQuota),
                "full",
                Item,
                Mailbox,
                Retry::After(600),
                Kind::Refused,
            ),
            (No, Some(Code::TooBig), "big", Item, Item, Retry::Never, Kind::Refused),
            (
                No,
                Some(Code::TryCreate),
                "none",
                Item,
                Folder,
                Retry::Never,
                Kind::Missing,
            ),
            (
                No,
                None,
                "Mailbox doesn't exist: x",
                Folder,
                Folder,
                Retry::Never,
                Kind::Missing,
            ),
            (
                No,
                Some(Code::NoPerm),
                "no",
                Folder,
                Folder,
                Retry::Never,
                Kind::Refused,
            ),
            (
                No,
                Some(Code::ContactAdmin),
                "ask",
                Folder,
                Mailbox,
                Retry::Never,
                Kind::Refused,
            ),
            (
                No,
                Some(Code::AuthenticationFailed),
                "no",
                Mailbox,
                Mailbox,
                Retry::Never,
                Kind::SignIn,
            ),
            (
                No,
                Some(Code::Expired),
                "no",
                Mailbox,
                Mailbox,
                Retry::Never,
                Kind::SignIn,
            ),
            (
                Bad,
                None,
                "User is authenticated but not connected.",
                Folder,
                Mailbox,
                Retry::After(60),
                Kind::Lost,
            ),
            (
                Bye,
                None,
                "Server shutting down.",
                Folder,
                Mailbox,
                Retry::Now,
                Kind::Lost,
            ),
            (Bad, None, "what?", Folder, Folder, Retry::Never, Kind::Refused),
            (No, None, "invalid header", Item, Item, Retry::Never, Kind::Refused),
            (No, None, "something", Folder, Folder, Retry::After(60), Kind::Refused),
        ];
        for (condition, code, text, given, scope, retry, kind) in rows {
            let failure = refused("trying", &answer(condition, code.clone(), text), given);
            assert_eq!(
                (failure.error.scope, failure.error.retry, failure.kind),
                (scope, retry, kind),
                "{condition:?} {code:?} {text}"
            );
        }
    }

    #[test]
    fn words_of_a_server_are_bounded_and_printable() {
        let nasty = format!("a\r\nb\u{1b}[31m\u{202e}{}", "x".repeat(1000));
        let shown = shown(&nasty);
        assert!(shown.starts_with("a\u{fffd}\u{fffd}b\u{fffd}[31m\u{fffd}xxx") && shown.ends_with('…'));
        assert_eq!(shown.chars().count(), MAX_SHOWN + 1);
    }
}
