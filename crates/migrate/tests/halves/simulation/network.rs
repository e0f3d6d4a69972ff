//! The way between the organisations: requests get lost before or after they were carried out, come twice or late, and
//! processes end in the middle of them.

use super::{chance::Chance, post::Post};
use crate::link::InProcess;
use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use rehome_domain::{
    error_id::{ErrorId, Problem},
    id::{AttemptId, CorrelationId, TenantId},
};
use rehome_mailbox::{ErrorScope, Folder, FolderPath, Retry};
use rehome_migrate::{
    protocol::{
        AbortAnswer, CommitAnswer, LeaseAnswer, OpenAnswer, OutcomeAnswer, OutcomeRequest, PairsAnswer, PairsRequest,
        PrepareAnswer, PrepareRequest, StatusAnswer, SweepAnswer, TakeBackAnswer,
    },
    source::{OutcomeAsker, Source},
    target::{
        Target,
        partner::{
            Connected, MailboxRef, Partner, PartnerAddress, PartnerDescription, PartnerError, SourceProxy, Traffic,
        },
    },
};
use rehome_replicate::{LinkError, OctetStream, SourceLink};
use rehome_wire::uid_set::UidSet;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{Notify, oneshot};

/// One request of a pass in so many meets a misfortune.
const MISFORTUNE: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    Lost,
    AnswerLost,
    Twice,
    /// Carried out some time later; whoever asked has given up.
    Late,
    /// The target's process ends before, or after, the source has carried it out.
    CrashBefore,
    CrashAfter,
    /// The worker stands still after it was carried out, and goes on when another one has taken over.
    StandsStill,
}

/// What stands between the two, and what is on its way.
pub struct Network {
    seed: u64,
    /// Nothing goes wrong any more.
    calm: AtomicBool,
    counts: Mutex<HashMap<(u64, &'static str), u64>>,
    late: Mutex<Vec<(String, BoxFuture<'static, ()>)>>,
    still: Mutex<Vec<oneshot::Sender<()>>>,
    /// Something happened that the driver must look at.
    pub news: Notify,
    crash: AtomicBool,
    pub post: OnceLock<Arc<Post>>,
    /// The source's process of now.
    pub source: Mutex<Option<InProcess>>,
    /// The target's process of now.
    pub target: Mutex<Option<(Target, TenantId)>>,
}

impl Network {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            seed,
            calm: AtomicBool::new(false),
            counts: Mutex::default(),
            late: Mutex::default(),
            still: Mutex::default(),
            news: Notify::new(),
            crash: AtomicBool::new(false),
            post: OnceLock::new(),
            source: Mutex::default(),
            target: Mutex::default(),
        })
    }

    pub fn set_calm(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    fn source(&self) -> InProcess {
        self.source.lock().unwrap().clone().unwrap()
    }

    pub fn replace_source(&self, source: Source) {
        self.source.lock().unwrap().as_mut().unwrap().source = source;
    }

    /// Whether a worker has met its end; asking forgets it.
    pub fn takes_crash(&self) -> bool {
        self.crash.swap(false, Ordering::SeqCst)
    }

    pub fn standing_still(&self) -> usize {
        self.still.lock().unwrap().iter().filter(|s| !s.is_closed()).count()
    }

    /// Lets a worker that stood still go on. False when none does.
    pub fn wake_one(&self) -> bool {
        let mut still = self.still.lock().unwrap();
        still.retain(|s| !s.is_closed());
        still.pop().is_some_and(|s| s.send(()).is_ok())
    }

    /// A request that was on its way for long arrives.
    pub async fn late_one_arrives(&self, which: usize) -> Option<String> {
        let (name, request) = {
            let mut late = self.late.lock().unwrap();
            if late.is_empty() {
                return None;
            }
            let which = which % late.len();
            late.swap_remove(which)
        };
        request.await;
        Some(name)
    }

    fn chance(&self, about: u64, verb: &'static str) -> Chance {
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry((about, verb)).or_default();
        *count += 1;
        let words: Vec<_> = verb.bytes().map(u64::from).chain([about, *count]).collect();
        Chance::of(self.seed, &words)
    }

    fn fate(&self, about: u64, verb: &'static str) -> Fate {
        if self.is_calm() {
            return Fate::Well;
        }
        let mut chance = self.chance(about, verb);
        // What ends a cutover is rarer than what a pass asks, and matters more.
        let (misfortune, changes) = match verb {
            "prepare" | "commit" => (2, true),
            "lock" | "abort" | "status" | "outcome" => (2, verb != "outcome"),
            _ => (MISFORTUNE, false),
        };
        let strikes = chance.one_in(misfortune) || verb == "commit" && chance.one_in(2);
        if !strikes {
            return Fate::Well;
        }
        match chance.below(9) {
            0 | 1 => Fate::Lost,
            2 => Fate::CrashBefore,
            3 => Fate::CrashAfter,
            _ if !changes => Fate::Lost,
            4 => Fate::Twice,
            5 => Fate::Late,
            6..=8 if matches!(verb, "prepare" | "commit") => Fate::StandsStill,
            _ => Fate::AnswerLost,
        }
    }

    /// Mail does not wait for a good moment.
    async fn mail_comes(&self, about: u64, verb: &'static str) {
        let mut chance = self.chance(about, verb);
        if let Some(post) = self.post.get()
            && !self.is_calm()
            && chance.one_in(4)
        {
            post.try_one(chance.below(64)).await;
        }
    }

    async fn ends_here<T>(&self) -> T {
        self.crash.store(true, Ordering::SeqCst);
        self.news.notify_one();
        std::future::pending().await
    }

    async fn call<T: Send + 'static>(
        &self,
        m: MailboxRef,
        verb: &'static str,
        request: impl Fn(InProcess) -> BoxFuture<'static, Result<T, PartnerError>> + Send + Sync,
    ) -> Result<T, PartnerError> {
        self.mail_comes(about(m), "mail before").await;
        let answer = match self.fate(about(m), verb) {
            Fate::Well => request(self.source()).await,
            Fate::Lost => Err(no_answer(m.correlation)),
            Fate::AnswerLost => {
                let _ = request(self.source()).await;
                Err(no_answer(m.correlation))
            }
            Fate::Twice => {
                let _ = request(self.source()).await;
                request(self.source()).await
            }
            Fate::Late => {
                let late = request(self.source()).map(|_| ()).boxed();
                self.late
                    .lock()
                    .unwrap()
                    .push((format!("{verb} of {}", m.exchange_guid), late));
                Err(no_answer(m.correlation))
            }
            Fate::CrashBefore => self.ends_here().await,
            Fate::CrashAfter => {
                let _ = request(self.source()).await;
                self.ends_here().await
            }
            Fate::StandsStill => {
                let answer = request(self.source()).await;
                let (wake, woken) = oneshot::channel();
                self.still.lock().unwrap().push(wake);
                self.news.notify_one();
                let _ = woken.await;
                answer
            }
        };
        self.mail_comes(about(m), "mail after").await;
        answer
    }
}

/// What chance may depend on: ids of moves and attempts are new in each run, ExchangeGuids are not.
fn about(m: MailboxRef) -> u64 {
    u64::try_from(m.exchange_guid.as_u128()).unwrap()
}

fn no_answer(correlation: CorrelationId) -> PartnerError {
    PartnerError {
        problem: Problem::new(ErrorId::MigrationServerConnectionFailed, "There was no answer.", ""),
        retry: Retry::After(1),
        correlation: Some(correlation),
    }
}

fn cut() -> LinkError {
    LinkError {
        id: ErrorId::MigrationServerConnectionFailed.as_str().into(),
        message: "The line is cut.".into(),
        scope: ErrorScope::Mailbox,
        retry: Retry::After(1),
    }
}

/// The source as the target reaches it.
#[derive(Clone)]
pub struct Line(pub Arc<Network>);

/// The target's outcome address as the source reaches it.
#[async_trait]
impl OutcomeAsker for Line {
    async fn ask(&self, _endpoint: &str, request: &OutcomeRequest) -> Result<OutcomeAnswer, String> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let attempt: AttemptId = request.attempt.parse().unwrap();
        if !matches!(self.0.fate(0, "outcome"), Fate::Well) {
            return Err("there was no answer".into());
        }
        let (target, tenant) = self.0.target.lock().unwrap().clone().ok_or("nobody is there")?;
        let key = STANDARD.decode(&request.key).unwrap();
        let outcome = target.outcome(tenant, attempt, &key).await.map_err(|e| e.to_string())?;
        let outcome = outcome.ok_or("the attempt is not known")?.as_str().to_owned();
        Ok(OutcomeAnswer { outcome })
    }
}

#[async_trait]
impl Partner for Line {
    async fn connect(&self, address: &PartnerAddress, correlation: CorrelationId) -> Result<Connected, PartnerError> {
        let tenant = self.0.source().connect(address, correlation).await?.tenant;
        Ok(Connected {
            tenant,
            proxy: Arc::new(self.clone()),
        })
    }

    async fn describe(
        &self,
        address: &PartnerAddress,
        correlation: CorrelationId,
    ) -> Result<PartnerDescription, PartnerError> {
        self.0.source().describe(address, correlation).await
    }

    async fn find_tenant(
        &self,
        address: &PartnerAddress,
        correlation: CorrelationId,
    ) -> Result<TenantId, PartnerError> {
        self.0.source().find_tenant(address, correlation).await
    }
}

#[async_trait]
impl SourceProxy for Line {
    async fn open(&self, m: MailboxRef) -> Result<OpenAnswer, PartnerError> {
        self.0.call(m, "open", |s| async move { s.open(m).await }.boxed()).await
    }
    fn link(&self, mailbox: MailboxRef) -> Arc<dyn SourceLink> {
        Arc::new(Content {
            network: Arc::clone(&self.0),
            mailbox,
            link: self.0.source().link(mailbox),
        })
    }
    fn sweep_link(&self, mailbox: MailboxRef, attempt: AttemptId) -> Arc<dyn SourceLink> {
        Arc::new(Content {
            network: Arc::clone(&self.0),
            mailbox,
            link: self.0.source().sweep_link(mailbox, attempt),
        })
    }
    async fn lock(&self, m: MailboxRef, a: AttemptId) -> Result<LeaseAnswer, PartnerError> {
        self.0
            .call(m, "lock", |s| async move { s.lock(m, a).await }.boxed())
            .await
    }
    async fn renew(&self, m: MailboxRef, a: AttemptId) -> Result<LeaseAnswer, PartnerError> {
        self.0
            .call(m, "renew", |s| async move { s.renew(m, a).await }.boxed())
            .await
    }
    async fn prepare(&self, m: MailboxRef, request: &PrepareRequest) -> Result<PrepareAnswer, PartnerError> {
        let request = Arc::new(request.clone());
        let prepare = |s: InProcess| {
            let request = Arc::clone(&request);
            async move { s.prepare(m, &request).await }.boxed()
        };
        self.0.call(m, "prepare", prepare).await
    }
    async fn commit(&self, m: MailboxRef, a: AttemptId) -> Result<CommitAnswer, PartnerError> {
        self.0
            .call(m, "commit", |s| async move { s.commit(m, a).await }.boxed())
            .await
    }
    async fn abort(&self, m: MailboxRef, a: AttemptId) -> Result<AbortAnswer, PartnerError> {
        self.0
            .call(m, "abort", |s| async move { s.abort(m, a).await }.boxed())
            .await
    }
    async fn status(&self, m: MailboxRef, a: AttemptId) -> Result<StatusAnswer, PartnerError> {
        self.0
            .call(m, "status", |s| async move { s.status(m, a).await }.boxed())
            .await
    }
    async fn sweep(&self, m: MailboxRef, a: AttemptId) -> Result<SweepAnswer, PartnerError> {
        self.0
            .call(m, "sweep", |s| async move { s.sweep(m, a).await }.boxed())
            .await
    }
    async fn take_back(&self, m: MailboxRef, a: AttemptId) -> Result<TakeBackAnswer, PartnerError> {
        self.0.source().take_back(m, a).await
    }
    async fn pairs(&self, m: MailboxRef, request: PairsRequest) -> Result<PairsAnswer, PartnerError> {
        self.0.source().pairs(m, request).await
    }
    fn traffic(&self) -> Traffic {
        self.0.source().traffic()
    }
}

struct Content {
    network: Arc<Network>,
    mailbox: MailboxRef,
    link: Arc<dyn SourceLink>,
}

impl Content {
    async fn comes_through(&self, verb: &'static str) -> Result<(), LinkError> {
        self.network.mail_comes(about(self.mailbox), "mail between").await;
        match self.network.fate(about(self.mailbox), verb) {
            Fate::CrashBefore | Fate::CrashAfter => self.network.ends_here().await,
            Fate::Lost => Err(cut()),
            Fate::Well | Fate::AnswerLost | Fate::Twice | Fate::Late | Fate::StandsStill => Ok(()),
        }
    }

    /// Some streams end in the middle.
    fn stream(&self, verb: &'static str, stream: OctetStream) -> OctetStream {
        match self.network.fate(about(self.mailbox), verb) {
            Fate::Lost => stream.take(1).chain(futures_util::stream::iter([Err(cut())])).boxed(),
            _ => stream,
        }
    }
}

#[async_trait]
impl SourceLink for Content {
    async fn folders(&self) -> Result<Vec<Folder>, LinkError> {
        self.comes_through("folders").await?;
        self.link.folders().await
    }

    async fn listing(&self, folder: &FolderPath, token: Option<&[u8]>, fresh: bool) -> Result<OctetStream, LinkError> {
        self.comes_through("listing").await?;
        let stream = self.link.listing(folder, token, fresh).await?;
        Ok(self.stream("listing stream", stream))
    }

    async fn items(&self, folder: &FolderPath, uid_validity: u32, uids: &UidSet) -> Result<OctetStream, LinkError> {
        self.comes_through("items").await?;
        let stream = self.link.items(folder, uid_validity, uids).await?;
        Ok(self.stream("item stream", stream))
    }
}
