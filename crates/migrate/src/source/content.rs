//! The verbs that show facts and contents: open, folders, listing, items, sweep.

use super::{ProxyError, Source, VerbContext, admit::Admitted, returning::right_told};
use crate::{
    ledger::Chunks,
    protocol::{
        FoldersAnswer, FoldersRequest, ItemsRequest, ListingRequest, OpenAnswer, SweepAnswer, SweepFolder,
        TEST_OF_AVAILABILITY,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use rehome_domain::{
    address::ProxyAddress,
    cutover::SourcePhase,
    error_id::ErrorId,
    gate::Verb,
    id::AttemptId,
    recipient::{Mailbox as MailboxRow, Recipient},
};
use rehome_mailbox::{FolderPath, Retry};
use rehome_platform::{Driver, Place};
use rehome_replicate::{
    ChunkStorage,
    exporter::{ExportError, Exporter},
    link::OctetStream,
};
use rehome_wire::uid_set::UidSet;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A running stream asks the gate again after this time.
const ASK_GATE_EVERY: Duration = Duration::from_secs(10);

/// Deepest folder that is asked for.
const MAX_FOLDER_DEPTH: usize = 200;

/// A body of frames on its way to the partner. An error ends the body in the middle, so that nothing is concluded from it.
pub type FrameStream = stream::BoxStream<'static, Result<Bytes, ProxyError>>;

pub(super) fn export_error(error: &ExportError) -> ProxyError {
    let link = error.link_error();
    let retry_after = match link.retry {
        Retry::Now => Some(0),
        Retry::After(seconds) => Some(seconds),
        Retry::Never => None,
    };
    tracing::warn!(
        error = crate::error_chain(error),
        "a mailbox could not be read for a partner"
    );
    ProxyError {
        id: link.id.parse().unwrap_or(ErrorId::MailboxPlatform),
        message: link.message,
        retry_after,
    }
}

pub(super) fn mailbox_of(recipient: &Recipient) -> Result<&MailboxRow, ProxyError> {
    recipient.mailbox().ok_or_else(|| {
        ProxyError::refused(
            ErrorId::InvalidOperation,
            "The mailbox has become a mail user meanwhile.",
        )
    })
}

fn folder_path(names: Vec<String>) -> Result<FolderPath, ProxyError> {
    let good = (1..=MAX_FOLDER_DEPTH).contains(&names.len()) && names.iter().all(|n| n.len() <= 4096);
    if good {
        Ok(FolderPath(names))
    } else {
        Err(ProxyError::refused(
            ErrorId::ParameterBinding,
            "That is not a folder's path.",
        ))
    }
}

impl Source {
    /// The exporter over the mailbox as it is served.
    pub(super) async fn exporter(&self, ctx: &VerbContext, recipient: &Recipient) -> Result<Exporter, ProxyError> {
        let place = Place::from(mailbox_of(recipient)?);
        if let Some(known) = self.inner.exporters.get(&(ctx.tenant, ctx.move_id, place.clone())) {
            return Ok(known);
        }
        let mailbox = self.inner.platforms.open(&place).await?;
        let key = (ctx.tenant, ctx.move_id, place);
        Ok(self.inner.exporters.keep(mailbox, self.notes(ctx), key))
    }

    /// The exporter over the closed content, for sweeps.
    async fn closed_exporter(&self, ctx: &VerbContext, admitted: &Admitted) -> Result<Exporter, ProxyError> {
        let gone = || ProxyError::refused(ErrorId::StaleAttempt, "The old content is not kept any more.");
        let row = admitted.facts.newest.as_ref().ok_or_else(gone)?;
        let (Some(platform), Some(location)) = (&row.platform, &row.location) else {
            return Err(gone());
        };
        let place = Place {
            exchange_guid: ctx.mailbox,
            platform: platform.clone(),
            location: location.clone(),
        };
        // Contents that lie where they always lay may be another mailbox's by now, which is none of this move's business.
        let stayed = !row.closed || self.inner.platforms.driver(platform)? == Driver::Imap;
        if stayed && self.place_in_use(&place).await? {
            return Err(gone());
        }
        let mailbox = if row.closed {
            self.inner
                .platforms
                .open_closed(platform, ctx.mailbox, row.attempt.move_id)
                .await?
        } else {
            self.inner.platforms.open(&place).await?
        };
        Ok(Exporter::new(mailbox, self.notes(ctx)))
    }

    fn notes(&self, ctx: &VerbContext) -> Arc<dyn ChunkStorage> {
        Arc::new(Chunks::notes(self.inner.store.clone(), ctx.tenant, ctx.move_id))
    }

    /// Facts of the mailbox.
    ///
    /// # Errors
    /// [`ProxyError`] when the gate refuses or the mailbox cannot be opened.
    pub async fn open(&self, ctx: &VerbContext) -> Result<OpenAnswer, ProxyError> {
        let admitted = self.admit(ctx, Verb::Open).await?;
        let recipient = admitted.recipient()?;
        let mailbox = mailbox_of(recipient)?;
        self.log_allowed(ctx, "Open", 0, 0).await?;
        Ok(OpenAnswer {
            exchange_guid: ctx.mailbox.to_string(),
            legacy_exchange_dn: recipient.legacy_exchange_dn.to_string(),
            x500_addresses: recipient
                .email_addresses
                .iter()
                .filter_map(|p| match p {
                    ProxyAddress::X500(dn) => Some(dn.clone()),
                    ProxyAddress::Primary(_) | ProxyAddress::Smtp(_) | ProxyAddress::X400(_) => None,
                })
                .collect(),
            smtp_addresses: recipient.smtp_addresses().map(ToString::to_string).collect(),
            archive_guid: None,
            max_receive_size: mailbox.max_receive_size,
            source_time: admitted.now.as_millisecond(),
            lock_method: self.lock_method(&mailbox.platform)?.into(),
            return_right: right_told(&admitted.facts),
        })
    }

    /// The mailbox's folders, a page of them.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub async fn folders(&self, ctx: &VerbContext, request: &FoldersRequest) -> Result<FoldersAnswer, ProxyError> {
        if ctx.move_id == TEST_OF_AVAILABILITY {
            return Err(ProxyError::refused(
                ErrorId::ParameterBinding,
                "The nil move only tests availability.",
            ));
        }
        let admitted = self.admit(ctx, Verb::Open).await?;
        let exporter = self.exporter(ctx, admitted.recipient()?).await?;
        let all = exporter.folders().await.map_err(|e| export_error(&e))?;
        let locked = admitted
            .facts
            .newest
            .as_ref()
            .is_some_and(|newest| newest.attempt.phase == SourcePhase::Locked);
        if locked && request.after == 0 {
            // A final pass begins, and Prepare will ask for the root.
            let exporter = exporter.clone();
            tokio::spawn(async move { exporter.prepare_root().await });
        }
        Ok(FoldersAnswer {
            streams_at_once: u32::try_from(exporter.folders_at_once()).ok(),
            ..FoldersAnswer::page(&all, request.after)
        })
    }

    /// What a folder holds, as listing frames. A sweep has no listings: it is told the late uids by [`Source::sweep`].
    ///
    /// # Errors
    /// As [`Source::open`].
    pub async fn listing(&self, ctx: &VerbContext, request: ListingRequest) -> Result<FrameStream, ProxyError> {
        let admitted = self.admit(ctx, Verb::Read).await?;
        let exporter = self.exporter(ctx, admitted.recipient()?).await?;
        let folder = folder_path(request.folder)?;
        let token = match request.token {
            None => None,
            Some(text) => Some(
                STANDARD
                    .decode(text)
                    .map_err(|_| ProxyError::refused(ErrorId::ParameterBinding, "The token is not base64."))?,
            ),
        };
        let frames = exporter
            .listing(&folder, token.as_deref(), request.fresh)
            .await
            .map_err(|e| export_error(&e))?;
        Ok(self.guarded(ctx, Verb::Read, frames, 0))
    }

    /// The contents of items, as body frames; with an attempt, of the closed content (verb Sweep).
    ///
    /// # Errors
    /// As [`Source::open`]; too many uids are refused.
    pub async fn items(&self, ctx: &VerbContext, request: ItemsRequest) -> Result<FrameStream, ProxyError> {
        let asked: u64 = request
            .uids
            .iter()
            .map(|(from, to)| u64::from(to.saturating_sub(*from)) + 1)
            .sum();
        if !(1..=1_000).contains(&asked) {
            return Err(ProxyError::refused(
                ErrorId::ParameterBinding,
                "A request for items names 1 to 1,000 uids.",
            ));
        }
        let (exporter, verb) = self.reader(ctx).await?;
        let folder = folder_path(request.folder)?;
        let uids: UidSet = request.uids.iter().flat_map(|(from, to)| *from..=*to).collect();
        // Written down before the first octet leaves, while the platform is asked already; what was served follows when
        // the stream ends, however it ends.
        let written = async { self.log_allowed(ctx, "Read", 0, 0).await.map_err(ProxyError::from) };
        let begun = async {
            let frames = match verb {
                Verb::Sweep => exporter.sweep_items(&folder, request.uid_validity, &uids).await,
                Verb::Open | Verb::Read | Verb::Lock | Verb::Prepare | Verb::Commit | Verb::Abort | Verb::Status => {
                    exporter.items(&folder, request.uid_validity, &uids).await
                }
            };
            frames.map_err(|e| export_error(&e))
        };
        let (frames, ()) = tokio::try_join!(begun, written)?;
        Ok(self.guarded(ctx, verb, frames, asked))
    }

    /// What came after the listing behind Prepare's root.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub async fn sweep(&self, ctx: &VerbContext) -> Result<SweepAnswer, ProxyError> {
        let admitted = self.admit(ctx, Verb::Sweep).await?;
        let exporter = self.closed_exporter(ctx, &admitted).await?;
        let late = exporter.additions_since_root().await.map_err(|e| export_error(&e))?;
        let folders: Vec<SweepFolder> = late
            .into_iter()
            .filter_map(|f| {
                let uid_validity = f.folder.status?.uid_validity;
                Some(SweepFolder {
                    path: f.folder.path.0,
                    uid_validity,
                    uids: f.uids.ranges().to_vec(),
                })
            })
            .collect();
        self.log_allowed(ctx, "Sweep", folders.iter().map(|f| f.uids.len() as u64).sum(), 0)
            .await?;
        Ok(SweepAnswer { folders })
    }

    async fn reader(&self, ctx: &VerbContext) -> Result<(Exporter, Verb), ProxyError> {
        let verb = if ctx.attempt.is_some() { Verb::Sweep } else { Verb::Read };
        let admitted = self.admit(ctx, verb).await?;
        let exporter = match ctx.attempt {
            Some(AttemptId(_)) => self.closed_exporter(ctx, &admitted).await?,
            None => self.exporter(ctx, admitted.recipient()?).await?,
        };
        Ok((exporter, verb))
    }

    /// Passes frames on, asks the gate every ten seconds, and records what was served.
    fn guarded(&self, ctx: &VerbContext, verb: Verb, frames: OctetStream, items: u64) -> FrameStream {
        let served = Served {
            source: self.clone(),
            ctx: ctx.clone(),
            items,
            octets: 0,
        };
        let state = Guarded {
            verb,
            frames,
            served,
            asked: Instant::now(),
            done: false,
        };
        guarded_stream(state).boxed()
    }
}

struct Guarded {
    verb: Verb,
    frames: OctetStream,
    served: Served,
    asked: Instant,
    done: bool,
}

/// Records what was served when it is dropped: at the end of a stream, or when the partner has gone.
struct Served {
    source: Source,
    ctx: VerbContext,
    /// Items asked for; 0 for a listing, which is not recorded.
    items: u64,
    octets: u64,
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.items > 0 {
            self.source.log_served(&self.ctx, self.items, self.octets);
        }
    }
}

fn guarded_stream(state: Guarded) -> impl Stream<Item = Result<Bytes, ProxyError>> {
    stream::unfold(state, |mut s| async move {
        if s.done {
            return None;
        }
        let step = s.step().await.transpose();
        s.done = !matches!(step, Some(Ok(_)));
        step.map(|item| (item, s))
    })
}

impl Guarded {
    async fn step(&mut self) -> Result<Option<Bytes>, ProxyError> {
        if self.asked.elapsed() >= ASK_GATE_EVERY {
            self.served.source.still_allowed(&self.served.ctx, self.verb).await?;
            self.asked = Instant::now();
        }
        match self.frames.next().await {
            Some(Ok(octets)) => {
                self.served.octets += octets.len() as u64;
                Ok(Some(octets))
            }
            Some(Err(error)) => Err(ProxyError::passing(&error)),
            None => Ok(None),
        }
    }
}
