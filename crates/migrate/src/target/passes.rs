//! A pass of the importer, with its figures shown while it runs.

use super::{Target, mover::Turn, trouble::Trouble};
use crate::ledger::Chunks;
use rehome_domain::moves::Move;
use rehome_mailbox::Mailbox;
use rehome_replicate::{ImportSettings, Importer, PassKind, Progress, SkippedItems, SourceLink};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

impl Turn {
    /// The importer of this move into `mailbox`.
    pub(super) fn importer(
        &self,
        link: Arc<dyn SourceLink>,
        mailbox: Arc<dyn Mailbox>,
        progress: Arc<dyn Fn(&Progress) + Send + Sync>,
    ) -> Importer {
        let inner = &self.target.inner;
        let ledger = Chunks::ledger(inner.store.clone(), self.user.tenant, self.user.id, self.user.fence);
        let lease = self.lease.clone();
        let settings = ImportSettings {
            move_id: self.user.id.as_u128(),
            memory_budget: inner.settings.memory_budget,
            spool: inner.settings.spool.join(self.user.id.to_string()),
            given_uids: true,
            read_back: inner.settings.read_back,
            live_target: self.imap.is_some() || self.catches_up,
            progress,
            lease: Arc::new(move || lease.holds()),
            cancel: Arc::clone(&self.lease.cancel),
        };
        Importer::new(link, mailbox, Arc::new(ledger), settings)
    }

    /// One pass, with its figures shown while it runs.
    pub(super) async fn pass(
        &mut self,
        link: Arc<dyn SourceLink>,
        mailbox: Arc<dyn Mailbox>,
        kind: PassKind,
        skipped: SkippedItems,
    ) -> Result<Importer, Trouble> {
        let latest = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&latest);
        let importer = self.importer(
            link,
            mailbox,
            Arc::new(move |progress: &Progress| {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.clone())
            }),
        );
        let base = self.user.figures.clone();
        let saver = tokio::spawn(save_progress(
            self.target.clone(),
            self.user.clone(),
            Arc::clone(&latest),
        ));
        let begun = Instant::now();
        let outcome = importer.pass_with(kind, skipped).await;
        saver.abort();
        // A save that was under way is either whole or undone; the row's own save below comes after it.
        let _ = saver.await;
        if let Some(progress) = latest.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            add_progress(&mut self.user, &base, progress);
        }
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.user.figures.pass_milliseconds = base.pass_milliseconds.saturating_add(took);
        let outcome = outcome?;
        self.user.figures.items_skipped = outcome.items_skipped;
        self.user.figures.items_total = outcome.items_total;
        self.assess(&importer).await?;
        Ok(importer)
    }
}

fn add_progress(user: &mut Move, base: &rehome_domain::moves::MoveFigures, progress: &Progress) {
    user.figures.items_total = progress.items_total;
    user.figures.folders_total = progress.folders_total;
    user.figures.items_synced = base.items_synced + progress.items_done;
    user.figures.bytes_synced = base.bytes_synced + progress.octets_done;
}

/// Shows the figures of a running pass, once a second.
async fn save_progress(target: Target, user: Move, latest: Arc<Mutex<Option<Progress>>>) {
    let base = user.figures.clone();
    let mut shown = user;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let progress = latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(progress) = progress else { continue };
        add_progress(&mut shown, &base, &progress);
        let saved = async {
            let mut tx = target.inner.store.write().await?;
            tx.move_save_work(&shown).await?;
            tx.commit("target.progress").await
        };
        if let Err(error) = saved.await {
            tracing::debug!(error = crate::error_chain(&error), "progress could not be saved");
        }
    }
}
