//! The partner and its proxy by direct calls.

use async_trait::async_trait;
use futures_util::StreamExt;
use rehome_domain::{
    error_id::Problem,
    gate::Caller,
    id::{AttemptId, CorrelationId, TenantId},
};
use rehome_mailbox::{ErrorScope, Folder, FolderPath, Retry};
use rehome_migrate::{
    protocol::{
        AbortAnswer, CommitAnswer, FoldersRequest, ItemsRequest, LeaseAnswer, ListingRequest, OpenAnswer,
        PrepareAnswer, PrepareRequest, StatusAnswer, SweepAnswer,
    },
    source::{FrameStream, ProxyError, Source, VerbContext},
    target::partner::{Connected, MailboxRef, Partner, PartnerAddress, PartnerError, SourceProxy, Traffic},
};
use rehome_replicate::{LinkError, OctetStream, SourceLink};
use rehome_wire::uid_set::UidSet;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

#[derive(Clone)]
pub struct InProcess {
    pub source: Source,
    pub tenant: TenantId,
    pub caller: Caller,
    pub requests: Arc<AtomicU64>,
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
        self.source
            .prepare(&self.context(m, Some(attempt)), request)
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    async fn commit(&self, m: MailboxRef, a: AttemptId) -> Result<CommitAnswer, PartnerError> {
        self.source
            .commit(&self.context(m, Some(a)))
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    async fn abort(&self, m: MailboxRef, a: AttemptId) -> Result<AbortAnswer, PartnerError> {
        self.source
            .abort(&self.context(m, Some(a)))
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    async fn status(&self, m: MailboxRef, a: AttemptId) -> Result<StatusAnswer, PartnerError> {
        self.source
            .status(&self.context(m, Some(a)))
            .await
            .map_err(|e| partner_error(e, m.correlation))
    }
    async fn sweep(&self, m: MailboxRef, a: AttemptId) -> Result<SweepAnswer, PartnerError> {
        self.source
            .sweep(&self.context(m, Some(a)))
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
