//! What goes wrong on the line and after the move: lost verbs, passing time, ends by hand, sweeps, old content.

use super::{World, recipient};
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    cutover::{SourceAttempt, SourcePhase, TargetPhase},
    id::{AttemptId, ExchangeGuid, MoveId},
    moves::{Move, UserStatus},
    recipient::{Mailbox, MailboxState, RecipientKind},
    relationship::OrganizationRelationship,
};
use rehome_migrate::{
    protocol::PrepareRequest,
    source::{Source, SourceSettings, VerbContext},
    target::Target,
};
use rehome_platform::{DeliveryLock, Place, PlatformConfig, Platforms, WholeDelivery};
use rehome_store::{SourceAttemptRow, Sweeps, TargetAttempt, Tx};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::watch;

impl World {
    /// Time passes on both sides at once.
    pub fn passes(&self, time: SignedDuration) {
        let milliseconds = i64::try_from(time.as_millis()).unwrap();
        self.ahead.fetch_add(milliseconds, Ordering::SeqCst);
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_millis(self.ahead.load(Ordering::SeqCst))
    }

    /// These verbs do not reach the source from now on.
    pub fn loses(&self, verbs: &[&'static str]) {
        *self.lost.verbs.lock().unwrap() = verbs.to_vec();
    }

    /// These items cannot be read at the source from now on.
    pub fn cannot_read(&self, uids: impl IntoIterator<Item = u32>) {
        *self.lost.unreadable.lock().unwrap() = uids.into_iter().collect();
    }

    /// The source answers these verbs from now on, and the answers do not arrive.
    pub fn loses_answers(&self, verbs: &[&'static str]) {
        *self.lost.answers.lock().unwrap() = verbs.to_vec();
    }

    pub async fn has_source_attempt(&self) -> bool {
        let mut tx = self.source_store.read().await.unwrap();
        let newest = tx.source_attempt_newest(self.source_tenant, self.exchange_guid).await;
        newest.unwrap().is_some()
    }

    pub async fn revokes_consent(&self) {
        let now = self.now();
        self.at_source(async |tx| {
            let id = self.caller.service_principal;
            let mut principal = tx.service_principal_get(self.source_tenant, id).await.unwrap().unwrap();
            principal.revoked_at = Some(now);
            tx.service_principal_put(self.source_tenant, &principal).await.unwrap();
        })
        .await;
    }

    pub async fn change_relationship(&self, change: impl FnOnce(&mut OrganizationRelationship)) {
        self.at_source(async |tx| {
            let mut relationship = tx.relationship_list(self.source_tenant).await.unwrap().remove(0);
            change(&mut relationship);
            tx.relationship_update(self.source_tenant, &relationship).await.unwrap();
        })
        .await;
    }

    /// Waits until the source's keeper has gone over its lists at the time that it is now: it lapses a lock of an attempt
    /// of no mailbox that is there.
    pub async fn keeper_has_looked(&self) {
        // What it does beside its list may take until its next look.
        for _ in 0..3 {
            self.keeper_looks().await;
        }
    }

    async fn keeper_looks(&self) {
        let guid = ExchangeGuid::from_u128(uuid::Uuid::new_v4().as_u128());
        let now = self.now();
        let attempt = SourceAttempt {
            id: AttemptId(uuid::Uuid::new_v4()),
            move_id: MoveId(uuid::Uuid::new_v4()),
            service_principal: self.caller.service_principal,
            phase: SourcePhase::Locked,
            granted_at: now - SignedDuration::from_hours(1),
            lease_until: now,
            committed_at: None,
            catches_up: None,
        };
        let row = SourceAttemptRow {
            exchange_guid: guid,
            attempt,
            ..self.source_attempt().await
        };
        self.at_source(async |tx| tx.source_attempt_insert(&row).await.unwrap())
            .await;
        self.wait_until("the keeper has looked", async || {
            let mut tx = self.source_store.read().await.unwrap();
            let newest = tx
                .source_attempt_newest(self.source_tenant, guid)
                .await
                .unwrap()
                .unwrap();
            newest.attempt.phase == SourcePhase::Lapsed
        })
        .await;
    }

    /// What the target's outcome address says from now on; nothing: it cannot be asked.
    pub fn outcome_address_says(&self, outcome: Option<&'static str>) {
        *self.outcomes.0.lock().unwrap() = outcome;
    }

    /// Waits for what becomes true.
    pub async fn wait_until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let started = Instant::now();
        while !is_so().await {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "waited until {what}: {:#?}",
                self.user().await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The newest attempt at the source.
    pub async fn source_attempt(&self) -> SourceAttemptRow {
        let mut tx = self.source_store.read().await.unwrap();
        let newest = tx
            .source_attempt_newest(self.source_tenant, self.exchange_guid)
            .await
            .unwrap();
        newest.expect("there is one")
    }

    /// The newest attempt at the target.
    pub async fn target_attempt(&self) -> TargetAttempt {
        let user = self.user().await.expect("the migration user is there");
        let mut tx = self.target_store.read().await.unwrap();
        tx.attempt_newest(self.target_tenant, user.id)
            .await
            .unwrap()
            .expect("there is one")
    }

    pub async fn sweeps(&self) -> Sweeps {
        let user = self.user().await.expect("the migration user is there");
        let mut tx = self.target_store.read().await.unwrap();
        tx.sweeps_get(self.target_tenant, user.id)
            .await
            .unwrap()
            .expect("sweeps are planned")
    }

    /// Runs a change at the source, durably.
    pub async fn at_source<T>(&self, change: impl AsyncFnOnce(&mut Tx) -> T) -> T {
        let mut tx = self.source_store.write().await.unwrap();
        let done = change(&mut tx).await;
        tx.commit("test").await.unwrap();
        done
    }

    /// The actions in the source's audit log, oldest first.
    pub async fn source_actions(&self) -> Vec<String> {
        let mut tx = self.source_store.read().await.unwrap();
        let rows = tx.audit_list(self.source_tenant, 0, 10_000).await.unwrap();
        let action = |body: &str| -> String {
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            body["action"].as_str().unwrap().to_owned()
        };
        rows.iter().map(|row| action(&row.body)).collect()
    }

    /// Folders below the source's platform that hold the closed content of a moved mailbox.
    pub fn closed_folders(&self) -> Vec<PathBuf> {
        let root = self.folder.path().join("s/mail");
        let mut found = Vec::new();
        let mut look = vec![root];
        while let Some(folder) = look.pop() {
            for entry in std::fs::read_dir(&folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    if name.contains(&self.exchange_guid.to_string()) {
                        found.push(entry.path());
                    } else {
                        look.push(entry.path());
                    }
                }
            }
        }
        found
    }

    /// A message that came past every lock, into the closed content.
    pub fn plants_late(&self, number: usize) {
        let closed = self.closed_folders();
        assert_eq!(closed.len(), 1, "{closed:?}");
        let message = format!("Subject: late {number}\r\n\r\nbody\r\n").into_bytes();
        std::fs::write(
            closed[0].join("new").join(format!("170000000{number}.M1P1.late")),
            &message,
        )
        .unwrap();
        self.delivered.lock().unwrap().push(message);
    }

    /// The source as another process finds it, over the same state: it has heard of nothing.
    pub fn source_afresh(&self) -> Source {
        Source::new(
            self.source_store.clone(),
            self.source_platforms.clone(),
            self.source_routing.clone(),
            Arc::new(self.outcomes.clone()),
            self.clock.clone(),
            SourceSettings::default(),
        )
    }

    /// The last Prepare that the target sent, whether or not it arrived.
    pub fn last_prepare(&self) -> Option<(VerbContext, PrepareRequest)> {
        self.lost.prepared.lock().unwrap().clone()
    }

    /// Stops the target, and starts it again with another platform for new mailboxes.
    pub async fn restarts_target_with_another_default(&self) {
        self.target_stop.lock().unwrap().send(true).unwrap();
        let task = self.tasks.lock().unwrap().pop().unwrap();
        task.await.unwrap();
        let at = |name: &str| {
            let root = self.folder.path().join(name);
            std::fs::create_dir_all(&root).unwrap();
            PlatformConfig::Maildir { root }
        };
        let both = BTreeMap::from([("mail".to_owned(), at("t/mail")), ("other".to_owned(), at("t/other"))]);
        let state = self.folder.path().join("t/state");
        let platforms = Platforms::new(both, Some("other"), &state).unwrap();
        let (seal, partner, settings) = self.target_parts.clone();
        let partner = Arc::new(partner);
        let store = self.target_store.clone();
        let target = Target::new(store, seal, platforms, partner, self.clock.clone(), settings);
        let (stop, mut stopped) = watch::channel(false);
        *self.target_stop.lock().unwrap() = stop;
        let task = tokio::spawn(async move {
            let until = async move {
                let _ = stopped.wait_for(|s| *s).await;
            };
            target.run(until).await;
        });
        self.tasks.lock().unwrap().push(task);
    }

    /// A delivery at the source that holds the mailbox and has all its octets.
    pub async fn delivery_under_way(&self) -> (WholeDelivery, DeliveryLock) {
        let place = self.source_place();
        let message = format!("Subject: under way {}\r\n\r\nbody\r\n", uuid::Uuid::new_v4()).into_bytes();
        let mut delivery = self.source_platforms.deliver_begin(&place).await.unwrap();
        delivery.write(&message).await.unwrap();
        let whole = delivery.finish().await.unwrap();
        let lock = self.source_platforms.deliver_lock(&place, Duration::from_secs(5)).await;
        self.delivered.lock().unwrap().push(message);
        (whole, lock.unwrap())
    }

    fn source_place(&self) -> Place {
        Place {
            exchange_guid: self.exchange_guid,
            platform: "mail".into(),
            location: "user1".into(),
        }
    }

    /// Another mailbox of the source is given the place that the moved one had.
    pub async fn gives_the_place_away(&self) {
        let kind = RecipientKind::Mailbox(Mailbox {
            exchange_guid: ExchangeGuid::from_u128(78),
            platform: "mail".into(),
            location: "user1".into(),
            state: MailboxState::Open,
            litigation_hold: false,
            max_receive_size: 1 << 27,
        });
        let other = recipient(self.source_tenant, 22, "user2", "contoso.example", kind);
        let place = Place::from(other.mailbox().unwrap());
        self.source_platforms.create(&place).await.unwrap();
        self.at_source(async |tx| tx.recipient_insert(self.source_tenant, &other).await.unwrap())
            .await;
    }

    /// Items in the mailbox at the place that the moved one had.
    pub async fn items_at_the_old_place(&self) -> usize {
        let place = Place {
            exchange_guid: ExchangeGuid::from_u128(78),
            ..self.source_place()
        };
        let mailbox = self.source_platforms.open(&place).await.unwrap();
        mailbox.folders().await.unwrap().len()
    }

    /// The target's newest attempt is as it was before its end was recorded.
    pub async fn target_forgets_its_outcome(&self) {
        let mut attempt = self.target_attempt().await;
        let from = attempt.phase;
        attempt.phase = TargetPhase::Closing;
        attempt.decided = None;
        let mut user = self.target_user().await;
        user.status = UserStatus::Completing;
        let mut tx = self.target_store.write().await.unwrap();
        tx.attempt_update(&attempt, from).await.unwrap();
        tx.move_save_unleased(&user, self.now()).await.unwrap();
        tx.commit("test").await.unwrap();
    }

    pub async fn target_user(&self) -> Move {
        self.user().await.expect("the migration user is there")
    }

    /// The mailbox's user deletes his oldest message at the target.
    pub async fn deletes_oldest_at_target(&self) {
        let recipient = self.target_recipient().await;
        let place = Place::from(recipient.mailbox().unwrap());
        let mailbox = self.target_platforms.open(&place).await.unwrap();
        let inbox = mailbox.folders().await.unwrap().remove(0).path;
        let oldest = mailbox.list(&inbox, None).await.unwrap().items[0].uid;
        mailbox
            .remove(rehome_mailbox::FolderRef::any(&inbox), &[oldest])
            .await
            .unwrap();
        // The first that was delivered is the first that was copied.
        self.delivered.lock().unwrap().remove(0);
    }
}
