//! The way back: the old source's contents and the inverted ledger, so that only what changed is copied.

use crate::common::{Chunks, World, contents, flags, folders, path, poor, populate, with_uids};
use async_trait::async_trait;
use rehome_mailbox::{FolderPath, FolderRef, Mailbox, NewFolder, memory::MemoryMailbox};
use rehome_replicate::{
    ChunkStorage, Kept, LinkError, PairSource, PairsFrom, PairsPage, PassKind, PassOutcome, begin_return, pairs_page,
};
use rehome_wire::digest::Digest;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

type Twist = Box<dyn Fn(&mut PairsPage) + Send + Sync>;

/// The ledger of the move there, told page by page, as it is or twisted.
struct Told {
    ledger: Arc<Chunks>,
    most: usize,
    twist: Mutex<Option<Twist>>,
    pages: AtomicU64,
}

#[async_trait]
impl PairSource for Told {
    async fn pairs(&self, from: PairsFrom) -> Result<PairsPage, LinkError> {
        self.pages.fetch_add(1, Ordering::SeqCst);
        let ledger = Arc::clone(&self.ledger) as Arc<dyn ChunkStorage>;
        let mut page = pairs_page(ledger, from, self.most).await.unwrap();
        if let Some(twist) = &*self.twist.lock().unwrap() {
            twist(&mut page);
        }
        Ok(page)
    }
}

/// A mailbox that moved, and is about to come back.
struct Journey {
    told: Told,
    /// The organisation that has it now is the source, the old one the target.
    back: World,
    /// What the old organisation kept.
    origin: MemoryMailbox,
}

impl Journey {
    async fn there(keeps_uids: bool) -> Self {
        let make = || {
            if keeps_uids {
                MemoryMailbox::new()
            } else {
                MemoryMailbox::with_capabilities(poor())
            }
        };
        let (origin, owner) = (make(), make());
        let there = World::new(origin.clone(), Arc::new(owner.clone()));
        folders(&origin).await;
        populate(&origin);
        there.pass(PassKind::Initial).await;
        there.pass(PassKind::Final).await;
        there.assert_equal("there").await;
        let mut back = World::new(owner, Arc::new(origin.clone()));
        back.settings.move_id = 0xbac;
        let told = Told {
            ledger: Arc::clone(&there.ledger),
            most: 1_000,
            twist: Mutex::default(),
            pages: AtomicU64::default(),
        };
        Self { told, back, origin }
    }

    fn owner(&self) -> &MemoryMailbox {
        &self.back.source
    }

    async fn begin(&self) -> Kept {
        let ledger = Arc::clone(&self.back.ledger) as Arc<dyn ChunkStorage>;
        begin_return(ledger, &self.origin, &self.told, &|| true).await.unwrap()
    }

    /// Begins, and brings everything back; both sides are equal then.
    async fn return_home(&self) -> (Kept, PassOutcome) {
        let kept = self.begin().await;
        let outcome = self.back.pass(PassKind::Initial).await;
        self.back.assert_equal("back").await;
        let again = self.back.pass(PassKind::Final).await;
        assert_eq!(
            (again.items_appended, again.items_removed, again.flags_changed),
            (0, 0, 0)
        );
        self.back.assert_equal("back, finally").await;
        (kept, outcome)
    }
}

/// 50 new messages, 20 other flags, some removed, a new folder, a renamed one and one less.
async fn life_goes_on(owner: &MemoryMailbox) -> u64 {
    let (inbox, many) = (FolderPath::inbox(), path("Projects/Many"));
    let mut octets = 0;
    for number in 0..50 {
        let message = format!("Subject: later {number}\r\n\r\nnew {number}\r\n");
        octets += message.len() as u64;
        let folder = if number < 45 { &inbox } else { &path("Brand new") };
        owner.deliver(folder, message, flags(&["New"]), 2_000_000_000 + number);
    }
    let listed = owner.list(&many, None).await.unwrap();
    let flagged: Vec<_> = listed
        .items
        .iter()
        .take(10)
        .map(|item| (item.uid, flags(&["\\Flagged"])))
        .collect();
    owner.set_flags(FolderRef::any(&many), &flagged).await.unwrap();
    let listed = owner.list(&inbox, None).await.unwrap();
    let flagged: Vec<_> = listed
        .items
        .iter()
        .take(10)
        .map(|item| (item.uid, flags(&["Mine"])))
        .collect();
    owner.set_flags(FolderRef::any(&inbox), &flagged).await.unwrap();
    owner
        .remove(FolderRef::any(&inbox), &[listed.items[1].uid])
        .await
        .unwrap();
    owner.rename_folder(&many, &path("Projects/Few")).await.unwrap();
    owner.remove_folder(&path("Projects/Übersicht")).await.unwrap();
    octets
}

#[tokio::test]
async fn only_what_changed_comes_back() {
    for keeps_uids in [true, false] {
        for most in [1, 1_000] {
            let mut journey = Journey::there(keeps_uids).await;
            journey.told.most = most;
            let before = with_uids(&journey.origin).await;
            let octets = life_goes_on(journey.owner()).await;
            let (kept, outcome) = journey.return_home().await;
            let context = format!("keeps uids: {keeps_uids}, pages of {most}");
            assert_eq!((kept.paired, kept.unpaired, kept.usable), (19, 0, true), "{context}");
            assert_eq!(outcome.items_appended, 50, "{context}");
            assert_eq!(
                outcome.octets_received, octets,
                "nothing else was on the wire; {context}"
            );
            // One of the 20 was removed again.
            assert_eq!((outcome.items_removed, outcome.folders_renamed), (1, 1), "{context}");
            assert!(journey.told.pages.load(Ordering::SeqCst) >= if most == 1 { 4 } else { 1 });
            let after = with_uids(&journey.origin).await;
            if keeps_uids {
                assert_eq!(
                    after,
                    with_uids(journey.owner()).await,
                    "new ones have the owner's uids"
                );
            }
            let kept_ones = before[&FolderPath::inbox()]
                .keys()
                .filter(|uid| after[&FolderPath::inbox()].contains_key(uid));
            assert_eq!(kept_ones.count(), 4, "old ones keep theirs; {context}");
        }
    }
}

#[tokio::test]
async fn unchanged_costs_no_octet() {
    for keeps_uids in [true, false] {
        let journey = Journey::there(keeps_uids).await;
        let before = with_uids(&journey.origin).await;
        let (kept, outcome) = journey.return_home().await;
        assert_eq!(
            (kept.paired, outcome.octets_received, outcome.items_appended),
            (19, 0, 0)
        );
        assert_eq!(with_uids(&journey.origin).await, before);
    }
}

/// Whatever the partner says of our items, both sides are equal in the end, and what he lied about was copied again.
#[tokio::test]
async fn claims_that_do_not_agree_are_copied_again() {
    type Lie = fn(&mut PairsPage);
    let lies: [(&str, Lie); 9] = [
        ("other dates", |page| each(page, |pair| pair.received += 1)),
        ("other digests", |page| {
            each(page, |pair| pair.digest = Digest::of(b"other"))
        }),
        ("other lengths", |page| each(page, |pair| pair.length += 1)),
        ("other items of ours", |page| each(page, |pair| pair.origin += 1)),
        ("other items of his", |page| each(page, |pair| pair.uid += 1)),
        ("one item for all", |page| each(page, |pair| pair.origin = 1)),
        ("no such items", |page| {
            each(page, |pair| (pair.uid, pair.origin) = (0, 999))
        }),
        ("another validity", |page| {
            page.folders
                .iter_mut()
                .for_each(|folder| folder.origin_uid_validity += 1)
        }),
        ("everything twice", |page| {
            for folder in &mut page.folders {
                folder.pairs.extend(folder.pairs.clone());
            }
        }),
    ];
    for keeps_uids in [true, false] {
        for (name, lie) in &lies {
            let journey = Journey::there(keeps_uids).await;
            let lie = *lie;
            *journey.told.twist.lock().unwrap() = Some(Box::new(lie));
            life_goes_on(journey.owner()).await;
            let kept = journey.begin().await;
            if !kept.usable {
                // Then the caller begins with empty contents.
                assert!(keeps_uids && *name == "another validity", "{name}");
                continue;
            }
            let outcome = journey.back.pass(PassKind::Initial).await;
            if !keeps_uids && *name == "other items of his" {
                // Ours are as he says; that his are others only he knows, and the roots show it.
                let (source, target) = journey.back.roots().await;
                assert_ne!(source.root, target.root);
                continue;
            }
            journey.back.assert_equal(name).await;
            journey.back.pass(PassKind::Final).await;
            journey.back.assert_equal(name).await;
            if keeps_uids {
                assert_eq!(
                    with_uids(&journey.origin).await,
                    with_uids(journey.owner()).await,
                    "{name}"
                );
            }
            if *name == "other digests" {
                assert_eq!(kept.paired, 0);
                assert!(outcome.octets_received > 1_500, "{outcome:?}");
                // Without kept uids what is there is recognised when it comes.
                assert_eq!(outcome.items_paired, if keeps_uids { 0 } else { 5 }, "{outcome:?}");
            }
        }
    }
}

fn each(page: &mut PairsPage, change: impl Fn(&mut rehome_replicate::Pair)) {
    page.folders
        .iter_mut()
        .flat_map(|folder| &mut folder.pairs)
        .for_each(change);
}

/// What became of our own contents counts, not what they were when they left.
#[tokio::test]
async fn kept_contents_that_changed_are_mended() {
    for keeps_uids in [true, false] {
        let journey = Journey::there(keeps_uids).await;
        let inbox = FolderPath::inbox();
        let held = journey.origin.list(&inbox, None).await.unwrap();
        let sent = journey.origin.list(&path("Sent"), None).await.unwrap();
        journey
            .origin
            .remove(FolderRef::any(&inbox), &[held.items[0].uid])
            .await
            .unwrap();
        journey
            .origin
            .deliver(&inbox, "Subject: came late\r\n\r\n", flags(&[]), 6);
        journey
            .origin
            .set_flags(
                FolderRef::any(&path("Sent")),
                &[(sent.items[0].uid, flags(&["\\Draft"]))],
            )
            .await
            .unwrap();
        let foreign = path("Ours alone");
        journey
            .origin
            .create_folder(&foreign, &NewFolder::default())
            .await
            .unwrap();
        journey.origin.deliver(&foreign, "kept by nobody", flags(&[]), 1);
        let (kept, outcome) = journey.return_home().await;
        assert_eq!(kept.paired, 18);
        assert_eq!((outcome.items_appended, outcome.flags_changed), (1, 1));
        assert!(!contents(&journey.origin).await.contains_key(&foreign));
    }
}

#[tokio::test]
async fn without_a_ledger_nothing_is_taken_for_granted() {
    for keeps_uids in [true, false] {
        let mut journey = Journey::there(keeps_uids).await;
        journey.told.ledger = Arc::default();
        life_goes_on(journey.owner()).await;
        let kept = journey.begin().await;
        assert_eq!((kept.paired, kept.usable), (0, !keeps_uids));
        if keeps_uids {
            continue;
        }
        let outcome = journey.back.pass(PassKind::Initial).await;
        assert_eq!(outcome.items_paired, 5, "{outcome:?}");
        journey.back.assert_equal("paired by digest").await;
    }
}

#[tokio::test]
async fn pages_that_do_not_go_forward_and_a_lost_lease_end_it() {
    let journey = Journey::there(true).await;
    *journey.told.twist.lock().unwrap() = Some(Box::new(|page| page.next = Some(PairsFrom::default())));
    let begin = async |journey: &Journey, lease: bool| {
        let ledger = Arc::clone(&journey.back.ledger) as Arc<dyn ChunkStorage>;
        begin_return(ledger, &journey.origin, &journey.told, &move || lease).await
    };
    assert!(begin(&journey, true).await.is_err());
    let journey = Journey::there(true).await;
    assert!(begin(&journey, false).await.is_err());
    assert!(journey.back.ledger.keys().is_empty());
}
