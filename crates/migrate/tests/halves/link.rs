//! The partner and its proxy by direct calls.

use async_trait::async_trait;
use futures_util::StreamExt;
use rehome_domain::{
    consent::PinnedKeys,
    error_id::{ErrorId, Problem},
    gate::Caller,
    id::{AttemptId, CorrelationId, TenantId},
};
use rehome_mailbox::{ErrorScope, Folder, FolderPath, Retry};
use rehome_migrate::{
    protocol::{
        AbortAnswer, CommitAnswer, FoldersRequest, ItemsRequest, LeaseAnswer, ListingRequest, OpenAnswer, PairsAnswer,
        PairsRequest, PrepareAnswer, PrepareRequest, StatusAnswer, SweepAnswer, TakeBackAnswer,
    },
    source::{FrameStream, ProxyError, Source, VerbContext},
    target::partner::{
        Connected, MailboxRef, Partner, PartnerAddress, PartnerDescription, PartnerError, SourceProxy, Traffic,
    },
};
use rehome_replicate::{LinkError, OctetStream, SourceLink};
use rehome_wire::{
    frames::{FailureClass, Frame, FrameDecoder, ItemFailure, encode},
    uid_set::UidSet,
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// What the line does: verbs that do not reach the source, and verbs whose answers do not arrive.
#[derive(Clone, Default)]
pub struct Lost {
    pub verbs: Arc<Mutex<Vec<&'static str>>>,
    pub answers: Arc<Mutex<Vec<&'static str>>>,
    /// Uids that the source cannot read.
    pub unreadable: Arc<Mutex<BTreeSet<u32>>>,
    /// The last Prepare that was asked for.
    pub prepared: Arc<Mutex<Option<(VerbContext, PrepareRequest)>>>,
}

impl Lost {
    fn check(&self, verb: &str, correlation: CorrelationId) -> Result<(), PartnerError> {
        Self::cut(&self.verbs, verb, correlation)
    }

    fn check_answer(&self, verb: &str, correlation: CorrelationId) -> Result<(), PartnerError> {
        Self::cut(&self.answers, verb, correlation)
    }

    fn cut(verbs: &Mutex<Vec<&'static str>>, verb: &str, correlation: CorrelationId) -> Result<(), PartnerError> {
        if !verbs.lock().unwrap().contains(&verb) {
            return Ok(());
        }
        Err(PartnerError {
            problem: Problem::new(ErrorId::MigrationServerConnectionFailed, "The line is cut.", ""),
            retry: Retry::After(1),
            correlation: Some(correlation),
        })
    }
}

#[derive(Clone)]
pub struct InProcess {
    pub source: Source,
    pub tenant: TenantId,
    pub caller: Caller,
    pub requests: Arc<AtomicU64>,
    pub lost: Lost,
    /// What the source says of itself.
    pub issuer: String,
    pub home_domains: Vec<String>,
}

fn retry(error: &ProxyError) -> Retry {
    match error.retry_after {
        None => Retry::Never,
        Some(0) => Retry::Now,
        Some(seconds) => Retry::After(seconds),
    }
}

fn partner_error(error: ProxyError, correlation: CorrelationId) -> PartnerError {
    let retry = retry(&error);
    PartnerError {
        problem: Problem::new(error.id, error.message, ""),
        retry,
        correlation: Some(correlation),
    }
}

fn link_error(error: &ProxyError) -> LinkError {
    LinkError {
        id: error.id.as_str().into(),
        message: error.message.clone(),
        scope: ErrorScope::Mailbox,
        retry: retry(error),
    }
}

impl InProcess {
    fn context(&self, mailbox: MailboxRef, attempt: Option<AttemptId>) -> VerbContext {
        self.requests.fetch_add(1, Ordering::SeqCst);
        VerbContext {
            tenant: self.tenant,
            caller: self.caller.clone(),
            mailbox: mailbox.exchange_guid,
            move_id: mailbox.move_id,
            attempt,
            correlation: mailbox.correlation,
            origin: "test".into(),
        }
    }
}

#[async_trait]
impl Partner for InProcess {
    async fn connect(&self, _address: &PartnerAddress, _correlation: CorrelationId) -> Result<Connected, PartnerError> {
        Ok(Connected {
            tenant: self.tenant,
            proxy: Arc::new(self.clone()),
        })
    }

    async fn describe(
        &self,
        _address: &PartnerAddress,
        _correlation: CorrelationId,
    ) -> Result<PartnerDescription, PartnerError> {
        Ok(PartnerDescription {
            tenant: self.tenant,
            issuer: self.issuer.clone(),
            home_domains: self.home_domains.clone(),
            outcome_endpoint: format!("{}/outcome", self.issuer),
            keys: PinnedKeys {
                sequence: 1,
                keys: vec![],
            },
            signer: String::new(),
        })
    }

    async fn find_tenant(
        &self,
        _address: &PartnerAddress,
        _correlation: CorrelationId,
    ) -> Result<TenantId, PartnerError> {
        Ok(self.tenant)
    }
}

#[async_trait]
impl SourceProxy for InProcess {
    async fn open(&self, m: MailboxRef) -> Result<OpenAnswer, PartnerError> {
        self.source
            .open(&self.context(m, None))
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    fn link(&self, mailbox: MailboxRef) -> Arc<dyn SourceLink> {
        Arc::new(Link {
            proxy: self.clone(),
            mailbox,
            attempt: None,
        })
    }
    fn sweep_link(&self, mailbox: MailboxRef, attempt: AttemptId) -> Arc<dyn SourceLink> {
        Arc::new(Link {
            proxy: self.clone(),
            mailbox,
            attempt: Some(attempt),
        })
    }
    async fn lock(&self, m: MailboxRef, a: AttemptId) -> Result<LeaseAnswer, PartnerError> {
        self.lost.check("lock", m.correlation)?;
        self.source
            .lock(&self.context(m, Some(a)))
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    async fn renew(&self, m: MailboxRef, a: AttemptId) -> Result<LeaseAnswer, PartnerError> {
        self.source
            .renew(&self.context(m, Some(a)))
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    async fn prepare(&self, m: MailboxRef, request: &PrepareRequest) -> Result<PrepareAnswer, PartnerError> {
        let attempt = request.attempt.parse().unwrap();
        *self.lost.prepared.lock().unwrap() = Some((self.context(m, Some(attempt)), request.clone()));
        self.lost.check("prepare", m.correlation)?;
        let answer = self.source.prepare(&self.context(m, Some(attempt)), request).await;
        self.lost.check_answer("prepare", m.correlation)?;
        answer.map_err(|e| partner_error(e, m.correlation))
    }
    async fn commit(&self, m: MailboxRef, a: AttemptId) -> Result<CommitAnswer, PartnerError> {
        self.lost.check("commit", m.correlation)?;
        self.source
            .commit(&self.context(m, Some(a)))
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    async fn abort(&self, m: MailboxRef, a: AttemptId) -> Result<AbortAnswer, PartnerError> {
        self.lost.check("abort", m.correlation)?;
        self.source
            .abort(&self.context(m, Some(a)))
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    async fn status(&self, m: MailboxRef, a: AttemptId) -> Result<StatusAnswer, PartnerError> {
        self.lost.check("status", m.correlation)?;
        self.source
            .status(&self.context(m, Some(a)))
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    async fn sweep(&self, m: MailboxRef, a: AttemptId) -> Result<SweepAnswer, PartnerError> {
        self.lost.check("sweep", m.correlation)?;
        self.source
            .sweep(&self.context(m, Some(a)))
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    async fn take_back(&self, m: MailboxRef, a: AttemptId) -> Result<TakeBackAnswer, PartnerError> {
        self.source
            .take_back(&self.context(m, Some(a)))
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    async fn pairs(&self, m: MailboxRef, request: PairsRequest) -> Result<PairsAnswer, PartnerError> {
        self.source
            .pairs(&self.context(m, None), request)
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    fn traffic(&self) -> Traffic {
        Traffic {
            octets_received: 0,
            requests: self.requests.load(Ordering::SeqCst),
        }
    }
}

struct Link {
    proxy: InProcess,
    mailbox: MailboxRef,
    attempt: Option<AttemptId>,
}

fn octets(frames: FrameStream) -> OctetStream {
    frames.map(|part| part.map_err(|e| link_error(&e))).boxed()
}

#[async_trait]
impl SourceLink for Link {
    async fn folders(&self) -> Result<Vec<Folder>, LinkError> {
        let ctx = self.proxy.context(self.mailbox, self.attempt);
        let answer = self
            .proxy
            .source
            .folders(&ctx, &FoldersRequest { after: 0 })
            .await
            .map_err(|e| link_error(&e))?;
        assert!(!answer.more);
        Ok(answer.folders.into_iter().map(Folder::from).collect())
    }

    async fn listing(&self, folder: &FolderPath, token: Option<&[u8]>, fresh: bool) -> Result<OctetStream, LinkError> {
        assert!(token.is_none(), "a Maildir gives no tokens");
        let ctx = self.proxy.context(self.mailbox, self.attempt);
        let request = ListingRequest {
            folder: folder.0.clone(),
            token: None,
            fresh,
        };
        self.proxy
            .source
            .listing(&ctx, request)
            .await
            .map(octets)
            .map_err(|e| link_error(&e))
    }

    async fn items(&self, folder: &FolderPath, uid_validity: u32, uids: &UidSet) -> Result<OctetStream, LinkError> {
        let unreadable = self.proxy.lost.unreadable.lock().unwrap().clone();
        let (failed, rest): (Vec<u32>, Vec<u32>) = uids.iter().partition(|uid| unreadable.contains(uid));
        if !failed.is_empty() {
            let mut answer = Vec::new();
            if !rest.is_empty() {
                let rest = UidSet::from_ascending(rest);
                let mut stream = self.items(folder, uid_validity, &rest).await?;
                while let Some(piece) = stream.next().await {
                    answer.extend_from_slice(&piece?);
                }
            }
            return Ok(futures_util::stream::iter([Ok(with_failures(&answer, &failed))]).boxed());
        }
        let ctx = self.proxy.context(self.mailbox, self.attempt);
        let request = ItemsRequest {
            folder: folder.0.clone(),
            uid_validity,
            uids: uids.ranges().to_vec(),
            attempt: None,
        };
        self.proxy
            .source
            .items(&ctx, request)
            .await
            .map(octets)
            .map_err(|e| link_error(&e))
    }
}

/// An answer that says of these items that they cannot be read.
fn with_failures(answer: &[u8], failed: &[u32]) -> bytes::Bytes {
    let mut decoder = FrameDecoder::new();
    decoder.push(answer);
    let mut frames: Vec<Frame> = std::iter::from_fn(|| decoder.next().unwrap()).collect();
    let (items, gone, before) = match frames.pop() {
        Some(Frame::BodyEnd { items, gone, failed }) => (items, gone, failed),
        Some(other) => panic!("the answer ends with {other:?}"),
        None => (0, 0, 0),
    };
    frames.extend(failed.iter().map(|uid| {
        Frame::Failed(ItemFailure {
            uid: *uid,
            class: FailureClass::Item,
            text: "input/output error".into(),
        })
    }));
    let failed = before + failed.len() as u64;
    frames.push(Frame::BodyEnd { items, gone, failed });
    let mut out = bytes::BytesMut::new();
    for frame in &frames {
        encode(frame, &mut out);
    }
    out.freeze()
}
