//! The source's MRS proxy, asked by a mover: control verbs on one connection, streams on another.

use super::believed::{Believed, late_items};
use super::exchange::{Answer, Bounds, Call, Lane, StreamKind, Streamed, TransportError};
use super::known::{Known, Lanes};
use super::partner::transport_problem;
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use http::{HeaderName, HeaderValue, StatusCode, header};
use rehome_domain::error_id::{ErrorId, Problem};
use rehome_domain::id::{AttemptId, CorrelationId};
use rehome_migrate::protocol::{
    AbortAnswer, AttemptRequest, CommitAnswer, ErrorAnswer, FoldersAnswer, FoldersRequest, ItemsRequest, LeaseAnswer,
    ListingRequest, OpenAnswer, PairsAnswer, PairsRequest, PrepareAnswer, PrepareRequest, ReceiptAnswer,
    ReceiptRequest, StatusAnswer, SweepAnswer, TakeBackAnswer,
};
use rehome_migrate::target::partner::{MailboxRef, PartnerError, SourceProxy, Traffic};
use rehome_replicate::link::{LinkError, OctetStream, SourceLink};
use rehome_replicate::{ErrorScope, Folder, FolderPath, Retry};
use rehome_wire::uid_set::UidSet;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time for one control verb; Prepare tries the routing address meanwhile.
const VERB_TIME: Duration = Duration::from_secs(120);
/// Longest answer of a control verb, octets.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Names the move in requests.
const MOVE_HEADER: HeaderName = HeaderName::from_static("rehome-move-id");

/// The proxy of one source tenant for one mover.
pub(super) struct ProxyClient(Arc<Inner>);

struct Inner {
    known: Arc<Known>,
    /// Given back when this is dropped.
    lanes: Option<Lanes>,
    octets: Arc<AtomicU64>,
    octets_before: u64,
    requests: AtomicU64,
    /// What is known comes from an earlier mover, and no refusal was looked into yet.
    unproven: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(lanes) = self.lanes.take() {
            self.known.keep(lanes);
        }
    }
}

/// Why a verb was not answered as asked.
struct Failure {
    problem: Problem,
    retry: Retry,
    correlation: CorrelationId,
}

impl From<Failure> for PartnerError {
    fn from(failure: Failure) -> Self {
        Self {
            problem: failure.problem,
            retry: failure.retry,
            correlation: Some(failure.correlation),
        }
    }
}

impl From<Failure> for LinkError {
    fn from(failure: Failure) -> Self {
        let (scope, retry) = link_reach(failure.problem.id, failure.retry);
        Self {
            id: failure.problem.id.as_str().to_owned(),
            message: failure.problem.message,
            scope,
            retry,
        }
    }
}

/// How far a refusal reaches for the link. A folder that is not there is a folder's matter, and so is what can be
/// asked again at once (another UIDVALIDITY); everything else concerns the whole mailbox.
fn link_reach(id: ErrorId, retry: Retry) -> (ErrorScope, Retry) {
    match (id, retry) {
        (ErrorId::ManagementObjectNotFound, _) => (ErrorScope::Folder, Retry::Never),
        (_, Retry::Now) => (ErrorScope::Folder, Retry::Now),
        (_, Retry::After(_) | Retry::Never) => (ErrorScope::Mailbox, retry),
    }
}

impl ProxyClient {
    /// A proxy on connections of its own. `before` says that the partner was found for an earlier mover: a refusal may then
    /// come of what has changed since.
    pub(super) fn new(known: Arc<Known>, before: bool) -> Self {
        let lanes = known.lanes(known.tokens.connector());
        let octets = Arc::clone(&lanes.octets);
        Self(Arc::new(Inner {
            known,
            lanes: Some(lanes),
            octets_before: octets.load(Ordering::Relaxed),
            octets,
            requests: AtomicU64::new(0),
            unproven: AtomicBool::new(before),
        }))
    }
}

impl Inner {
    fn control(&self) -> &Lane {
        &self
            .lanes
            .as_ref()
            .expect("the connections are there until this is dropped")
            .control
    }

    fn streams(&self) -> &Lane {
        &self
            .lanes
            .as_ref()
            .expect("the connections are there until this is dropped")
            .streams
    }

    /// Looks into a refusal: where the partner was found for an earlier mover, he may be another one now, or take our
    /// application no more, which its authority tells better. True when all is as it was, so that asking again may help.
    async fn is_as_before(&self, refusal: &Failure) -> Result<bool, Failure> {
        if refusal.retry != Retry::Never || !self.unproven.swap(false, Ordering::Relaxed) {
            return Ok(false);
        }
        self.known.doubt();
        let proven = self.known.tokens.prove(refusal.correlation).await;
        proven.map(|()| true).map_err(|error| Failure {
            problem: error.problem,
            retry: error.retry,
            correlation: error.correlation.unwrap_or(refusal.correlation),
        })
    }

    /// A request for a verb with a token and a fresh proof.
    async fn call<T: Serialize + Sync>(
        &self,
        mailbox: MailboxRef,
        verb: &str,
        body: &T,
        zstd: bool,
    ) -> Result<(Call, SecretString), Failure> {
        let failed = |id: ErrorId, message: String| Failure {
            problem: Problem::new(id, message, ""),
            retry: Retry::Never,
            correlation: mailbox.correlation,
        };
        let token = self
            .known
            .tokens
            .token(mailbox.correlation)
            .await
            .map_err(|error| Failure {
                problem: error.problem,
                retry: error.retry,
                correlation: mailbox.correlation,
            })?;
        let text = format!("{}/mailboxes/{}/{verb}", self.known.endpoint, mailbox.exchange_guid);
        let url = url::Url::parse(&text).map_err(|error| failed(ErrorId::Unexpected, format!("{text}: {error}")))?;
        let proof = self
            .known
            .tokens
            .proof("POST", url.as_str(), Some(&token))
            .map_err(|error| failed(ErrorId::Unexpected, error.to_string()))?;
        let body = serde_json::to_vec(body).map_err(|error| failed(ErrorId::Unexpected, error.to_string()))?;
        let mut call = Call::post(url, "application/json", body);
        if zstd {
            call.take_zstd();
        }
        call.correlate(mailbox.correlation);
        let secret = [
            (header::AUTHORIZATION, format!("DPoP {}", token.expose_secret())),
            (HeaderName::from_static("dpop"), proof),
        ];
        for (name, value) in secret {
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                failed(
                    ErrorId::Unexpected,
                    "the token cannot be written as a header".to_owned(),
                )
            })?;
            value.set_sensitive(true);
            call.headers.insert(name, value);
        }
        if let Ok(value) = HeaderValue::from_str(&mailbox.move_id.to_string()) {
            call.headers.insert(MOVE_HEADER, value);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        Ok((call, token))
    }

    fn transport(&self, error: &TransportError, mailbox: MailboxRef) -> Failure {
        let (problem, retry) = transport_problem(ErrorId::CommunicationErrorTransient, error);
        Failure {
            problem,
            retry,
            correlation: mailbox.correlation,
        }
    }

    /// Asks a control verb. An access token that the source no longer takes is renewed once.
    async fn verb<T, A>(&self, mailbox: MailboxRef, verb: &str, body: &T) -> Result<A, Failure>
    where
        T: Serialize + Sync,
        A: DeserializeOwned,
    {
        let mut renewed = false;
        loop {
            let (call, token) = self.call(mailbox, verb, body, true).await?;
            let bounds = Bounds {
                time: VERB_TIME,
                octets: MAX_ANSWER,
            };
            let answer = self
                .control()
                .whole(&call, bounds)
                .await
                .map_err(|error| self.transport(&error, mailbox))?;
            if answer.status == StatusCode::UNAUTHORIZED && !renewed {
                renewed = true;
                self.known.tokens.forget(&token).await;
                continue;
            }
            if !answer.status.is_success() {
                let refused = refusal(&self.control().server(), &answer, mailbox.correlation);
                if self.is_as_before(&refused).await? {
                    continue;
                }
                return Err(refused);
            }
            return serde_json::from_slice(&answer.body).map_err(|error| {
                let what = format!("the answer to '{verb}' is malformed: {error}");
                self.transport(
                    &TransportError::Unexpected {
                        server: self.control().server(),
                        what,
                    },
                    mailbox,
                )
            });
        }
    }

    /// Asks for a stream. What goes wrong later ends the stream with an error of retry *now*: the pass goes on from
    /// what is complete.
    async fn stream<T: Serialize + Sync>(
        &self,
        mailbox: MailboxRef,
        verb: &str,
        body: &T,
        kind: StreamKind,
    ) -> Result<OctetStream, Failure> {
        // Listings always shrink; contents are compressed where the link is what they wait for.
        let zstd = match kind {
            StreamKind::Listing => true,
            StreamKind::Contents => self.streams().is_narrow(),
        };
        let mut renewed = false;
        loop {
            let (call, token) = self.call(mailbox, verb, body, zstd).await?;
            let answer = match self
                .streams()
                .stream(&call, kind)
                .await
                .map_err(|error| self.transport(&error, mailbox))?
            {
                Streamed::Body { headers, body } => {
                    let media = headers
                        .get(header::CONTENT_TYPE)
                        .and_then(|value| value.to_str().ok())
                        .unwrap_or_default();
                    if media != rehome_wire::frames::MEDIA_TYPE {
                        let what = format!("the answer to '{verb}' has type '{}'", media.escape_debug());
                        let server = self.streams().server();
                        return Err(self.transport(&TransportError::Unexpected { server, what }, mailbox));
                    }
                    return Ok(body
                        .into_stream()
                        .map(|piece| piece.map_err(|error| broken_stream(&error)))
                        .boxed());
                }
                Streamed::Refused(answer) => answer,
            };
            if answer.status == StatusCode::UNAUTHORIZED && !renewed {
                renewed = true;
                self.known.tokens.forget(&token).await;
                continue;
            }
            let refused = refusal(&self.streams().server(), &answer, mailbox.correlation);
            if !self.is_as_before(&refused).await? {
                return Err(refused);
            }
        }
    }
}

fn broken_stream(error: &TransportError) -> LinkError {
    LinkError {
        id: ErrorId::CommunicationErrorTransient.as_str().to_owned(),
        message: super::chain(error),
        scope: ErrorScope::Mailbox,
        retry: Retry::Now,
    }
}

/// What a refusal says. Its text comes from outside: bounded, without control characters.
fn refusal(server: &str, answer: &Answer, sent: CorrelationId) -> Failure {
    let Ok(ErrorAnswer { error }) = serde_json::from_slice(&answer.body) else {
        let message = format!(
            "{server} answered with status {} and something that is no answer of its MRS proxy.",
            answer.status.as_u16()
        );
        let retry = if answer.status.is_client_error() {
            Retry::Never
        } else {
            Retry::After(5)
        };
        let problem = Problem::new(ErrorId::MigrationServerConnectionFailed, message, "");
        return Failure {
            problem,
            retry,
            correlation: sent,
        };
    };
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(1_000).collect::<String>();
    let correlation = error.correlation_id.parse().unwrap_or(sent);
    let (id, message) = match error.id.parse::<ErrorId>() {
        Ok(id) => (id, plain(&error.message)),
        Err(_) => (
            ErrorId::Unexpected,
            format!("{}: {}", plain(&error.id), plain(&error.message)),
        ),
    };
    let retry = match error.retry_after {
        Some(0) => Retry::Now,
        Some(seconds) => Retry::After(seconds.min(24 * 3600)),
        // The proxy itself says so, whatever the status.
        None => Retry::Never,
    };
    let advice = format!(
        "The source's administrator finds the exact reason with Test-OutboundMigration, or in the source's log under correlation id {correlation}."
    );
    Failure {
        problem: Problem::new(id, message, advice),
        retry,
        correlation,
    }
}

fn attempt_body(attempt: AttemptId) -> AttemptRequest {
    AttemptRequest {
        attempt: attempt.to_string(),
    }
}

#[async_trait]
impl SourceProxy for ProxyClient {
    async fn open(&self, mailbox: MailboxRef) -> Result<OpenAnswer, PartnerError> {
        Ok(self.0.verb(mailbox, "open", &serde_json::json!({})).await?)
    }

    fn link(&self, mailbox: MailboxRef) -> Arc<dyn SourceLink> {
        Arc::new(Link {
            proxy: Arc::clone(&self.0),
            mailbox,
            attempt: None,
            beginning: Mutex::default(),
        })
    }

    fn sweep_link(&self, mailbox: MailboxRef, attempt: AttemptId) -> Arc<dyn SourceLink> {
        Arc::new(Link {
            proxy: Arc::clone(&self.0),
            mailbox,
            attempt: Some(attempt),
            beginning: Mutex::default(),
        })
    }

    async fn lock(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<LeaseAnswer, PartnerError> {
        // Contents come over a connection of their own: opened meanwhile, it costs no round trip under the lock.
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move { inner.streams().open_ahead().await });
        let answer = self.0.verb(mailbox, "lock", &attempt_body(attempt)).await?;
        rehome_fault::step("remote.lock_answered");
        Ok(answer)
    }

    async fn renew(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<LeaseAnswer, PartnerError> {
        Ok(self.0.verb(mailbox, "renew", &attempt_body(attempt)).await?)
    }

    async fn prepare(&self, mailbox: MailboxRef, request: &PrepareRequest) -> Result<PrepareAnswer, PartnerError> {
        let answer = self.0.verb(mailbox, "prepare", request).await?;
        rehome_fault::step("remote.prepare_answered");
        Ok(answer)
    }

    async fn commit(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<CommitAnswer, PartnerError> {
        let answer = self.0.verb(mailbox, "commit", &attempt_body(attempt)).await?;
        rehome_fault::step("remote.commit_answered");
        Ok(answer)
    }

    async fn abort(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<AbortAnswer, PartnerError> {
        let answer = self.0.verb(mailbox, "abort", &attempt_body(attempt)).await?;
        rehome_fault::step("remote.abort_answered");
        Ok(answer)
    }

    async fn status(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<StatusAnswer, PartnerError> {
        let answer = self.0.verb(mailbox, "status", &attempt_body(attempt)).await?;
        rehome_fault::step("remote.status_answered");
        Ok(answer)
    }

    async fn sweep(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<SweepAnswer, PartnerError> {
        let answer = self.0.verb(mailbox, "sweep", &attempt_body(attempt)).await?;
        rehome_fault::step("remote.sweep_answered");
        late_items(&answer).map_err(|problem| Failure {
            problem,
            retry: Retry::Never,
            correlation: mailbox.correlation,
        })?;
        Ok(answer)
    }

    async fn receipt(&self, mailbox: MailboxRef, request: &ReceiptRequest) -> Result<ReceiptAnswer, PartnerError> {
        let answer = self.0.verb(mailbox, "receipt", request).await?;
        rehome_fault::step("remote.receipt_answered");
        Ok(answer)
    }

    async fn take_back(&self, mailbox: MailboxRef, attempt: AttemptId) -> Result<TakeBackAnswer, PartnerError> {
        Ok(self.0.verb(mailbox, "takeback", &attempt_body(attempt)).await?)
    }

    async fn pairs(&self, mailbox: MailboxRef, request: PairsRequest) -> Result<PairsAnswer, PartnerError> {
        Ok(self.0.verb(mailbox, "pairs", &request).await?)
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            octets_received: self.0.octets.load(Ordering::Relaxed) - self.0.octets_before,
            requests: self.0.requests.load(Ordering::Relaxed),
        }
    }
}

/// Held while a stream of a folder begins.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// What the importer pulls through: the same proxy, one mailbox.
struct Link {
    proxy: Arc<Inner>,
    mailbox: MailboxRef,
    attempt: Option<AttemptId>,
    /// Folders whose next stream of items begins only after the one before it has begun.
    beginning: Mutex<HashMap<FolderPath, Turn>>,
}

impl Link {
    /// Streams of one folder begin in the order in which they are asked for. The source answers the head of one when its
    /// platform has begun to give it; a later one must not hold the connection that an earlier one, which is read first,
    /// still waits for.
    fn turn(&self, folder: &FolderPath) -> Turn {
        let mut beginning = self.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(beginning.entry(folder.clone()).or_default())
    }
}

#[async_trait]
impl SourceLink for Link {
    async fn folders(&self) -> Result<Vec<Folder>, LinkError> {
        let mut folders: Vec<Folder> = Vec::new();
        let mut believed = Believed::default();
        loop {
            let request = FoldersRequest { after: folders.len() };
            let page: FoldersAnswer = self.proxy.verb(self.mailbox, "folders", &request).await?;
            let more = page.more && !page.folders.is_empty();
            if let Some(streams) = page.streams_at_once {
                // One more for each: it waits at the source, and no round trip passes between two.
                let streams = usize::try_from(streams).unwrap_or(usize::MAX);
                self.proxy.streams().allow_streams(streams.saturating_mul(2));
            }
            believed.page(&page.folders).map_err(|problem| LinkError {
                id: problem.id.as_str().to_owned(),
                message: problem.message,
                scope: ErrorScope::Mailbox,
                retry: Retry::Never,
            })?;
            folders.extend(page.folders.into_iter().map(Folder::from));
            if !more {
                return Ok(folders);
            }
        }
    }

    async fn listing(&self, folder: &FolderPath, token: Option<&[u8]>, fresh: bool) -> Result<OctetStream, LinkError> {
        if fresh {
            self.proxy.streams().renew().await;
        }
        let request = ListingRequest {
            folder: folder.0.clone(),
            token: token.map(|token| STANDARD.encode(token)),
            fresh,
        };
        Ok(self
            .proxy
            .stream(self.mailbox, "listing", &request, StreamKind::Listing)
            .await?)
    }

    async fn items(&self, folder: &FolderPath, uid_validity: u32, uids: &UidSet) -> Result<OctetStream, LinkError> {
        let request = ItemsRequest {
            folder: folder.0.clone(),
            uid_validity,
            uids: uids.ranges().to_vec(),
            attempt: self.attempt.map(|attempt| attempt.to_string()),
        };
        let turn = self.turn(folder);
        let _alone = turn.lock().await;
        Ok(self
            .proxy
            .stream(self.mailbox, "items", &request, StreamKind::Contents)
            .await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[test]
    fn what_a_refusal_says_of_trying_again() {
        let ours = |retry_after: &str| {
            format!(
                r#"{{"error":{{"id":"MailboxPlatformException","message":"m","retry_after":{retry_after},"correlation_id":""}}}}"#
            )
        };
        for (status, body, retry) in [
            (503, ours("null"), Retry::Never),
            (400, ours("null"), Retry::Never),
            (503, ours("0"), Retry::Now),
            (400, ours("7"), Retry::After(7)),
            (503, ours("4000000000"), Retry::After(24 * 3600)),
            (502, "<html>bad gateway</html>".to_owned(), Retry::After(5)),
            (500, String::new(), Retry::After(5)),
            (404, "<html>not here</html>".to_owned(), Retry::Never),
        ] {
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                body: body.clone().into(),
            };
            let failure = refusal("source", &answer, CorrelationId(uuid::Uuid::nil()));
            assert_eq!(failure.retry, retry, "{status} {body}");
        }
    }
}
