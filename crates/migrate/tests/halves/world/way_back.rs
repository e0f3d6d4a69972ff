//! The other two halves: the old source as target of a move back, the new owner as its source.

use super::World;
use crate::link::{InProcess, Lost};
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    consent::{ROLE_MAILBOX_RETURN, return_client},
    error_id::Problem,
    gate::Caller,
    moves::{Move, UserStatus},
    recipient::Recipient,
};
use rehome_identity::SealKey;
use rehome_mailbox::{FolderPath, FolderRef, ReadEvent};
use rehome_migrate::{
    Clock,
    source::{Source, SourceSettings},
    target::{
        Target, TargetSettings, control,
        returning::{NewReturn, return_approve, return_begin},
    },
};
use rehome_platform::{Place, Platforms};
use rehome_store::{Store, Tx};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

impl World {
    fn clock(&self) -> Clock {
        let ahead = Arc::clone(&self.ahead);
        Clock::from_fn(move || {
            Timestamp::now() + SignedDuration::from_millis(ahead.load(std::sync::atomic::Ordering::SeqCst))
        })
    }

    /// Starts the other two halves; the mailbox has moved.
    pub async fn opens_the_way_back(&self) {
        let mut tx = self.target_store.read().await.unwrap();
        let principal = tx
            .service_principal_by_app(self.target_tenant, return_client(self.source_tenant))
            .await
            .unwrap()
            .expect("the right was noted with the move");
        drop(tx);
        let owner = Source::new(
            self.target_store.clone(),
            self.target_platforms.clone(),
            self.target_routing.clone(),
            Arc::new(self.outcomes.clone()),
            self.clock(),
            SourceSettings::default(),
        );
        let partner = InProcess {
            source: owner.clone(),
            tenant: self.target_tenant,
            caller: Caller {
                service_principal: principal.id,
                app_id: principal.app_id,
                home_issuer: principal.issuer.clone(),
                home_tenant: principal.home_tenant,
                roles: vec![ROLE_MAILBOX_RETURN.into()],
            },
            requests: Arc::default(),
            lost: Lost::default(),
            issuer: self.caller.home_issuer.clone(),
            home_domains: vec!["fabrikam.example".into()],
        };
        let settings = TargetSettings {
            workers: 2,
            lease: SignedDuration::from_secs(60),
            incremental_sync_interval: SignedDuration::from_hours(24),
            memory_budget: 16 << 20,
            spool: self.folder.path().join("s/spool-items"),
            read_back: true,
            max_receive_size: 1 << 27,
            longest_pause: 1,
        };
        let seal = SealKey::generate_file(&self.folder.path().join("s.key")).unwrap();
        let old = Target::new(
            self.source_store.clone(),
            seal,
            self.source_platforms.clone(),
            Arc::new(partner),
            self.clock(),
            settings,
        );
        let until = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
            let _ = stopped.wait_for(|s| *s).await;
        };
        let (one, two) = (until(self.stop.subscribe()), until(self.stop.subscribe()));
        let mut tasks = self.tasks.lock().unwrap();
        tasks.push(tokio::spawn(async move { owner.run(one).await }));
        tasks.push(tokio::spawn(async move { old.run(two).await }));
    }

    /// `Undo-MigrationUser` at the old source.
    pub async fn begins_return(&self) -> Result<Move, Problem> {
        let recipient = self.source_recipient().await;
        let mut tx = self.source_store.write().await.unwrap();
        let new = NewReturn {
            tenant: self.source_tenant,
            complete_after: None,
            accept_unlocked: false,
            submitted_by: "admin".into(),
        };
        let begun = return_begin(&mut tx, &new, &recipient, self.now()).await;
        if begun.is_ok() {
            tx.commit("test").await.unwrap();
        }
        begun
    }

    /// `Undo-MigrationUser` at the new owner.
    pub async fn approves_return(&self) -> Result<(), Problem> {
        let recipient = self.target_recipient().await;
        let mut tx = self.target_store.write().await.unwrap();
        return_approve(&mut tx, self.target_tenant, &recipient, "admin", self.now()).await?;
        tx.commit("test").await.unwrap();
        Ok(())
    }

    /// The migration user of the move back.
    pub async fn returning_user(&self) -> Move {
        let mut tx = self.source_store.read().await.unwrap();
        tx.move_list(self.source_tenant, None).await.unwrap().pop().unwrap()
    }

    /// Waits until the move back is as `is` says.
    pub async fn return_becomes(&self, is: impl Fn(&Move) -> bool) -> Move {
        let started = Instant::now();
        loop {
            let user = self.returning_user().await;
            if is(&user) {
                return user;
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "waited for the move back: {user:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the mailbox is back.
    pub async fn is_back(&self) -> Move {
        self.return_becomes(|user| {
            assert!(!user.status.as_str().ends_with("Failed"), "{user:#?}");
            user.status == UserStatus::Completed && user.lease.is_none()
        })
        .await
    }

    /// Tries the move back again now.
    pub async fn resumes_return(&self) {
        let user = self.returning_user().await;
        let mut tx = self.source_store.write().await.unwrap();
        control::user_start(&mut tx, self.source_tenant, user.id, self.now())
            .await
            .unwrap();
        tx.commit("test").await.unwrap();
    }

    /// Changes the stores of the old source or of the new owner.
    pub async fn changes(&self, owner: bool, change: impl AsyncFnOnce(&mut Tx)) {
        let store = if owner { &self.target_store } else { &self.source_store };
        let mut tx = store.write().await.unwrap();
        change(&mut tx).await;
        tx.commit("test").await.unwrap();
    }

    /// Mail for the mailbox where it is now.
    pub async fn deliver_at_target(&self, count: usize) {
        let recipient = self.target_recipient().await;
        deliver(&self.target_platforms, &recipient, count, &self.delivered).await;
    }

    /// Mail for the mailbox at its old place.
    pub async fn deliver_back_home(&self, count: usize) {
        let recipient = self.source_recipient().await;
        deliver(&self.source_platforms, &recipient, count, &self.delivered).await;
    }

    /// Sets a flag on the first messages of the new mailbox.
    pub async fn flags_at_target(&self, count: usize) {
        let recipient = self.target_recipient().await;
        let place = Place::from(recipient.mailbox().unwrap());
        let mailbox = self.target_platforms.open(&place).await.unwrap();
        let inbox = FolderPath::inbox();
        let listing = mailbox.list(&inbox, None).await.unwrap();
        let flags = rehome_wire::flags::Flags::from_names(["\\Flagged"]);
        let changes: Vec<_> = listing
            .items
            .iter()
            .take(count)
            .map(|i| (i.uid, flags.clone()))
            .collect();
        assert_eq!(changes.len(), count);
        mailbox.set_flags(FolderRef::any(&inbox), &changes).await.unwrap();
    }

    /// Uid, flags and octets of everything in the inbox where the mailbox is: at the old source or at the new owner.
    pub async fn inbox(&self, owner: bool) -> Vec<(u32, Vec<String>, Vec<u8>)> {
        use futures_util::StreamExt;
        let (recipient, platforms) = if owner {
            (self.target_recipient().await, &self.target_platforms)
        } else {
            (self.source_recipient().await, &self.source_platforms)
        };
        let mailbox = platforms
            .open(&Place::from(recipient.mailbox().unwrap()))
            .await
            .unwrap();
        let inbox = FolderPath::inbox();
        let listing = mailbox.list(&inbox, None).await.unwrap();
        let uids: Vec<_> = listing.items.iter().map(|i| i.uid).collect();
        let mut events = mailbox.read(FolderRef::any(&inbox), &uids).await.unwrap();
        let mut all = Vec::new();
        while let Some(event) = events.next().await {
            match event.unwrap() {
                ReadEvent::Item(meta) => all.push((meta.uid, meta.flags.canonical_names(), Vec::new())),
                ReadEvent::Octets(octets) => all.last_mut().unwrap().2.extend_from_slice(&octets),
                ReadEvent::End => {}
                ReadEvent::Gone(uid) | ReadEvent::Failed { uid, .. } => panic!("uid {uid} cannot be read"),
            }
        }
        all
    }

    pub fn store_of_source(&self) -> &Store {
        &self.source_store
    }

    /// Both sides remove what they list as done.
    pub async fn forgets_moves(&self) {
        for (store, tenant) in [
            (&self.source_store, self.source_tenant),
            (&self.target_store, self.target_tenant),
        ] {
            let mut tx = store.write().await.unwrap();
            for batch in tx.batch_list(tenant).await.unwrap() {
                control::batch_remove(&mut tx, tenant, batch.id, self.now())
                    .await
                    .unwrap();
            }
            tx.commit("test").await.unwrap();
            let started = Instant::now();
            while !store.read().await.unwrap().batch_list(tenant).await.unwrap().is_empty() {
                assert!(started.elapsed() < Duration::from_secs(60), "batches are not removed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// One message is another one than it was, under its old uid and length.
    pub async fn rewrites_one_at_target(&self) {
        let recipient = self.target_recipient().await;
        let mailbox = recipient.mailbox().unwrap();
        let root = self.folder.path().join("t/mail").join(&mailbox.location);
        let file = ["cur", "new"]
            .iter()
            .flat_map(|sub| std::fs::read_dir(root.join(sub)).unwrap())
            .next()
            .unwrap()
            .unwrap()
            .path();
        let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
        let octets = std::fs::read(&file).unwrap();
        let body = octets.windows(4).position(|part| part == b"body").unwrap();
        let octets = [&octets[..body], b"BODY", &octets[body + 4..]].concat();
        std::fs::write(&file, octets).unwrap();
        std::fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(modified)
            .unwrap();
    }

    /// The first two items of the inbox change places in the map of the new owner's ledger, digests and all.
    pub async fn swaps_pairs_at_target(&self) {
        use rehome_replicate::ledger::UidMap;
        let mut tx = self.target_store.write().await.unwrap();
        let user = tx.move_list(self.target_tenant, None).await.unwrap().pop().unwrap();
        let key = (rehome_replicate::ChunkKind::Map.number(), 1, 0);
        let octets = tx
            .chunk_get(self.target_tenant, user.id, key.0, key.1, key.2)
            .await
            .unwrap()
            .unwrap();
        let mut map = UidMap::decode(&octets).unwrap();
        let two = map.sample(2);
        let targets = [map.get(two[0]).unwrap(), map.get(two[1]).unwrap()];
        map.insert(two[0], targets[1]);
        map.insert(two[1], targets[0]);
        tx.chunk_put(self.target_tenant, user.id, key, Some(&map.encode()))
            .await
            .unwrap();
        tx.commit("test").await.unwrap();
    }

    pub fn return_client_of_source(&self) -> rehome_domain::id::ApplicationId {
        return_client(self.source_tenant)
    }
}

async fn deliver(
    platforms: &Platforms,
    recipient: &Recipient,
    count: usize,
    delivered: &std::sync::Mutex<Vec<Vec<u8>>>,
) {
    let place = Place::from(recipient.mailbox().unwrap());
    for n in 0..count {
        let message = format!("Subject: {n} {}\r\n\r\nbody\r\n", uuid::Uuid::new_v4()).into_bytes();
        let mut delivery = platforms.deliver_begin(&place).await.unwrap();
        delivery.write(&message).await.unwrap();
        let whole = delivery.finish().await.unwrap();
        let lock = platforms.deliver_lock(&place, Duration::from_secs(5)).await.unwrap();
        whole.publish(&lock).await.unwrap();
        delivered.lock().unwrap().push(message);
    }
}
