//! A receipt from both stores to a file, and the file alone against keys.

use super::{keep::Parts, *};
use crate::Clock;
use jiff::Timestamp;
use rehome_domain::{
    error_id::Problem,
    id::{AttemptId, ExchangeGuid, MoveId, TenantId},
    tenant::Tenant,
};
use rehome_identity::{
    Identity, IdentityConfig, SealKey,
    receipt_keys::{SignedBy, TrustedKeys},
};
use rehome_platform::{PlatformConfig, Platforms};
use rehome_replicate::receipt::PartSink;
use rehome_store::{ReceiptRow, ReceiptSide, Store};
use rehome_wire::{
    flags::Flags,
    proof::{TopLeaf, TreeHasher, hash_of_leaf_octets, top_leaf_octets},
    receipt::{Part, ReceiptLeaf, write_end, write_folder_end, write_folder_head},
};
use std::{collections::BTreeMap, path::PathBuf, time::Instant};

const SOURCE: TenantId = TenantId::from_u128(1);
const TARGET: TenantId = TenantId::from_u128(2);
const ATTEMPT: AttemptId = AttemptId::from_u128(7);
/// Of the digest at the end of a file.
const END: usize = 35;

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

/// One organisation.
struct Side {
    store: Store,
    identity: Identity,
    receipts: Receipts,
    tenant: TenantId,
    _folder: tempfile::TempDir,
}

impl Side {
    async fn new(tenant: TenantId, domain: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let row = Tenant {
            id: tenant,
            initial_domain: domain.parse().unwrap(),
            display_name: domain.into(),
        };
        tx.tenant_insert(&row, now()).await.unwrap();
        tx.commit("test").await.unwrap();
        let seal = SealKey::generate_file(&folder.path().join("seal.key")).unwrap();
        let config = IdentityConfig::new(format!("mail.{domain}").parse().unwrap());
        let identity = Identity::new(store.clone(), seal, config).unwrap();
        let mail = folder.path().join("mail");
        std::fs::create_dir_all(&mail).unwrap();
        let platform = PlatformConfig::Maildir { root: mail };
        let platforms = BTreeMap::from([("mail".to_owned(), platform)]);
        let platforms = Platforms::new(platforms, None, &folder.path().join("state")).unwrap();
        let receipts = Receipts::new(store.clone(), identity.clone(), platforms, Clock::from_fn(now));
        Self {
            store,
            identity,
            receipts,
            tenant,
            _folder: folder,
        }
    }

    async fn keys(&self) -> String {
        self.identity.jwks(self.tenant, now()).await.unwrap().to_string()
    }

    /// Stores a section as a move does.
    async fn put(&self, number: u32, contents: &Made, exceptions: &str) -> ReceiptRow {
        let (side, partner) = if self.tenant == SOURCE {
            (ReceiptSide::Source, TARGET)
        } else {
            (ReceiptSide::Target, SOURCE)
        };
        let mut parts = Parts::begin(&self.store, self.tenant, (ATTEMPT, number), "test")
            .await
            .unwrap();
        for part in contents.octets.chunks(1 << 20) {
            parts.part(part.to_vec()).await.unwrap();
        }
        let row = ReceiptRow {
            tenant: self.tenant,
            attempt: ATTEMPT,
            number,
            side,
            move_id: MoveId::from_u128(8),
            exchange_guid: ExchangeGuid::from_u128(9),
            address: "reception@contoso.example".into(),
            partner_tenant: partner,
            root: contents.root.0,
            folders: contents.folders,
            items: contents.items,
            octets: contents.length,
            exceptions: exceptions.into(),
            made: Some(now()),
            own_statement: None,
            partner_statement: None,
        };
        parts.finish(&row).await.unwrap();
        self.receipts.sign(row).await.unwrap()
    }

    async fn file(&self) -> Vec<u8> {
        let mut file = Vec::new();
        loop {
            let chunk = self
                .receipts
                .chunk(self.tenant, ATTEMPT, file.len() as u64, 300_000)
                .await
                .unwrap();
            file.extend(&chunk.octets);
            if file.len() as u64 >= chunk.length {
                return file;
            }
        }
    }
}

/// Folders and leaves with what they make.
struct Made {
    octets: Vec<u8>,
    root: Digest,
    folders: u64,
    items: u64,
    length: u64,
}

fn leaf(uid: u32) -> ReceiptLeaf {
    let flags: [&[&str]; 3] = [&[], &["\\Seen"], &["\\Seen", "$Forwarded"]];
    ReceiptLeaf {
        uid,
        length: 1_000 + u64::from(uid % 977),
        digest: Digest::of(format!("message {uid}\r\n").as_bytes()),
        flags: Flags::from_names(flags[uid as usize % 3]),
        received: 1_700_000_000 + i64::from(uid),
    }
}

fn made(folders: &[(&str, std::ops::Range<u32>)]) -> Made {
    let mut made = Made {
        octets: Vec::new(),
        root: Digest::of(b""),
        folders: folders.len() as u64,
        items: 0,
        length: 0,
    };
    let mut top = TreeHasher::new();
    for (name, uids) in folders {
        let path = [(*name).to_owned()];
        write_folder_head(&path, 5, &mut made.octets);
        let mut tree = TreeHasher::new();
        for uid in uids.clone() {
            let leaf = leaf(uid);
            let octets = leaf.octets();
            tree.push(hash_of_leaf_octets(&octets));
            made.octets.extend(octets);
            made.items += 1;
            made.length += leaf.length;
        }
        write_folder_end(tree.count(), tree.root(), &mut made.octets);
        top.push(hash_of_leaf_octets(&top_leaf_octets(&TopLeaf {
            path: &path,
            uid_validity: 5,
            count: tree.count(),
            root: tree.root(),
        })));
    }
    made.root = top.root();
    made
}

const EXCEPTIONS: &str = r#"[{"folder":["INBOX"],"uid":2,"kind":"flags","approved":true,"held":{"flags":["\\seen"]},"reason":"the server keeps no such keyword"},{"folder":["INBOX"],"uid":900,"kind":"skipped","approved":true,"held":{}}]"#;

/// Two organisations with a receipt that both have signed, and what a sweep brought later at the target.
async fn both(contents: &Made, late: Option<&Made>) -> (Side, Side) {
    let source = Side::new(SOURCE, "contoso.example").await;
    let target = Side::new(TARGET, "fabrikam.example").await;
    let mut at_source = source.put(0, contents, EXCEPTIONS).await;
    let mut at_target = target.put(0, contents, EXCEPTIONS).await;
    at_source.partner_statement.clone_from(&at_target.own_statement);
    at_target.partner_statement.clone_from(&at_source.own_statement);
    for (side, row) in [(&source, &at_source), (&target, &at_target)] {
        let mut tx = side.store.write().await.unwrap();
        tx.receipt_put(row).await.unwrap();
        tx.commit("test").await.unwrap();
    }
    if let Some(late) = late {
        target.put(1, late, "[]").await;
    }
    (source, target)
}

fn trusting(keys: &[&str]) -> TrustedKeys {
    let mut trusted = TrustedKeys::default();
    for text in keys {
        trusted.add_document(text).unwrap();
    }
    trusted
}

fn check(file: &[u8], trusted: &TrustedKeys) -> Result<Verdict, VerifyError> {
    verify(&mut &*file, trusted, &mut |_: &Part| {})
}

#[tokio::test]
async fn both_sides_give_a_receipt_that_verifies_with_their_keys_alone() {
    let contents = made(&[("Sent", 1..4), ("INBOX", 1..30), ("Work ä", 0..0)]);
    let (source, target) = both(&contents, Some(&made(&[("INBOX", 40..42)]))).await;
    let (source_keys, target_keys) = (source.keys().await, target.keys().await);
    let both_keys = trusting(&[&source_keys, &target_keys]);
    let (at_source, at_target) = (source.file().await, target.file().await);
    let verdict = check(&at_target, &both_keys).unwrap();
    assert!(verdict.is_signed());
    let shown: Vec<_> = verdict
        .sections
        .iter()
        .map(|section| {
            (
                section.number,
                section.totals.items,
                section.totals.exceptions,
                section.statements.len(),
            )
        })
        .collect();
    assert_eq!(shown, [(0, 32, 2, 2), (1, 2, 0, 1)]);
    let bodies: Vec<&ReceiptBody> = verdict.sections[0]
        .statements
        .iter()
        .map(|statement| &statement.body)
        .collect();
    assert_eq!((bodies[0].side.as_str(), bodies[1].side.as_str()), ("source", "target"));
    assert_eq!(
        (bodies[0].organisation.as_str(), bodies[1].organisation.as_str()),
        ("contoso.example", "fabrikam.example")
    );
    assert_eq!((bodies[0].exceptions.flags, bodies[0].exceptions.skipped), (1, 1));
    // The receipt itself is the same on both sides; the addition is the target's.
    let verdict = check(&at_source, &both_keys).unwrap();
    assert_eq!((verdict.sections.len(), verdict.is_signed()), (1, true));
    assert!(at_target.starts_with(&at_source[..at_source.len() - END]));

    // Without keys, with those of one side, or of someone else, it is consistent and no more.
    let other = Side::new(SOURCE, "contoso.example").await.keys().await;
    let (source_keys, target_keys, other) = (source_keys.as_str(), target_keys.as_str(), other.as_str());
    for keys in [vec![], vec![source_keys], vec![other, target_keys]] {
        assert!(!check(&at_target, &trusting(&keys)).unwrap().is_signed());
    }
    // A fingerprint that the organisation told is as good as its document.
    let mut told = TrustedKeys::default();
    for statement in &verdict.sections[0].statements {
        told.add_fingerprint(&statement.kid).unwrap();
    }
    assert!(check(&at_source, &told).unwrap().is_signed());
}

#[tokio::test]
async fn a_receipt_that_one_side_has_signed_says_so() {
    let target = Side::new(TARGET, "fabrikam.example").await;
    target.put(0, &made(&[("INBOX", 1..3)]), "[]").await;
    let verdict = check(&target.file().await, &trusting(&[&target.keys().await])).unwrap();
    assert!(verdict.is_signed());
    let sides: Vec<&str> = verdict.sections[0]
        .statements
        .iter()
        .map(|s| s.body.side.as_str())
        .collect();
    assert_eq!(sides, ["target"]);
}

/// The last item of a file made right again, as whoever alters one on purpose would.
fn mended(mut file: Vec<u8>) -> Vec<u8> {
    file.truncate(file.len() - END);
    let digest = Digest::of(&file);
    write_end(digest, &mut file);
    file
}

/// Every octet of a receipt and of the proof of a message, altered by accident and altered on purpose.
#[tokio::test]
async fn every_flip_is_detected() {
    let (source, target) = both(
        &made(&[("Sent", 1..2), ("INBOX", 1..4)]),
        Some(&made(&[("INBOX", 9..10)])),
    )
    .await;
    let trusted = trusting(&[&source.keys().await, &target.keys().await]);
    let is_proven = |file: &[u8]| check(file, &trusted).is_ok_and(|verdict| verdict.is_signed());
    let file = target.file().await;
    assert!(is_proven(&file));
    let found = target.receipts.find(TARGET, ATTEMPT, leaf(2).digest).await.unwrap();
    let single = found[0].proof.octets();
    let is_single_proven = |octets: &[u8]| {
        let verdict = verify_single(octets, &trusted);
        verdict.is_ok_and(|verdict| {
            verdict
                .section
                .statements
                .iter()
                .all(|s| s.signature == SignedBy::Trusted)
        })
    };
    assert!(is_single_proven(&single));
    for at in 0..file.len() - END {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(
            check(&flipped, &TrustedKeys::default()).is_err(),
            "octet {at} by accident"
        );
        assert!(!is_proven(&mended(flipped)), "octet {at} on purpose");
    }
    for at in 0..single.len() - END {
        let mut flipped = single.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(
            verify_single(&flipped, &TrustedKeys::default()).is_err(),
            "octet {at} by accident"
        );
        assert!(!is_single_proven(&mended(flipped)), "octet {at} on purpose");
    }
}

#[tokio::test]
async fn statements_must_fit_the_file_and_each_other() {
    let contents = made(&[("INBOX", 1..4)]);
    let (source, target) = both(&contents, None).await;
    let trusted = trusting(&[&source.keys().await, &target.keys().await]);
    let row = |side: &Side| {
        let (store, tenant) = (side.store.clone(), side.tenant);
        async move {
            store
                .read()
                .await
                .unwrap()
                .receipt_get(tenant, ATTEMPT, 0)
                .await
                .unwrap()
                .unwrap()
        }
    };
    let right = row(&target).await;
    let with = |changed: ReceiptRow| {
        let (store, receipts, trusted) = (target.store.clone(), target.receipts.clone(), &trusted);
        async move {
            let mut tx = store.write().await.unwrap();
            tx.receipt_put(&changed).await.unwrap();
            tx.commit("test").await.unwrap();
            let file = receipts.chunk(TARGET, ATTEMPT, 0, 1 << 20).await.unwrap().octets;
            check(&file, trusted)
                .map(|verdict| verdict.is_signed())
                .map_err(|error| error.to_string())
        }
    };
    assert_eq!(with(right.clone()).await, Ok(true));
    // Both by the target; the wrong way round; about another move.
    let twice = ReceiptRow {
        partner_statement: right.own_statement.clone(),
        ..right.clone()
    };
    assert!(with(twice).await.unwrap_err().contains("other statements"));
    let swapped = ReceiptRow {
        own_statement: right.partner_statement.clone(),
        partner_statement: right.own_statement.clone(),
        ..right.clone()
    };
    assert!(with(swapped).await.unwrap_err().contains("other statements"));
    let mut other = source.put(0, &contents, EXCEPTIONS).await;
    other.move_id = MoveId::from_u128(99);
    other.own_statement = None;
    let other = source.receipts.sign(other.clone()).await.unwrap();
    let other = {
        let mut tx = source.store.write().await.unwrap();
        let unsigned = ReceiptRow {
            move_id: MoveId::from_u128(99),
            own_statement: None,
            ..other
        };
        tx.receipt_put(&unsigned).await.unwrap();
        tx.commit("test").await.unwrap();
        source.receipts.sign(unsigned).await.unwrap()
    };
    let mixed = ReceiptRow {
        partner_statement: other.own_statement,
        ..right.clone()
    };
    assert!(with(mixed).await.unwrap_err().contains("another move"));
    // Roots of other contents.
    let fewer = target.put(0, &made(&[("INBOX", 1..3)]), EXCEPTIONS).await;
    let mixed = ReceiptRow {
        own_statement: right.own_statement.clone(),
        partner_statement: right.partner_statement.clone(),
        ..fewer
    };
    assert!(with(mixed).await.unwrap_err().contains("roots and counts"));
}

#[tokio::test]
async fn a_message_is_found_and_proven() {
    let (source, target) = both(
        &made(&[("Work", 2..3), ("INBOX", 1..4)]),
        Some(&made(&[("INBOX", 9..10)])),
    )
    .await;
    let trusted = trusting(&[&source.keys().await, &target.keys().await]);
    // Line ends do not matter, a letter does.
    let digest = |text: &str| digest_of_message(&mut text.as_bytes()).unwrap();
    assert_eq!(digest("message 2\n"), leaf(2).digest);
    let found = target
        .receipts
        .find(TARGET, ATTEMPT, digest("message 2\r\n"))
        .await
        .unwrap();
    let places: Vec<(String, u32)> = found[0]
        .proof
        .entries
        .iter()
        .map(|entry| (entry.path.join("/"), entry.leaf.uid))
        .collect();
    assert_eq!(
        (found.len(), places),
        (1, vec![("Work".to_owned(), 2), ("INBOX".to_owned(), 2)])
    );
    let octets = found[0].proof.octets();
    assert!(is_single(&octets) && !is_single(&target.file().await));
    let verdict = verify_single(&octets, &trusted).unwrap();
    assert_eq!(verdict.proof.exceptions.len(), 2);
    let late = target
        .receipts
        .find(TARGET, ATTEMPT, digest("message 9\n"))
        .await
        .unwrap();
    let verdict = verify_single(&late[0].proof.octets(), &trusted).unwrap();
    assert_eq!((verdict.section.number, verdict.section.statements.len()), (1, 1));
    assert!(
        target
            .receipts
            .find(TARGET, ATTEMPT, digest("message 2!\n"))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn receipts_are_found_by_every_name_of_their_mailbox() {
    let (source, target) = both(&made(&[("INBOX", 1..2)]), Some(&made(&[("INBOX", 9..10)]))).await;
    for name in [
        "RECEPTION@contoso.example".to_owned(),
        ATTEMPT.to_string(),
        MoveId::from_u128(8).to_string(),
        ExchangeGuid::from_u128(9).to_string(),
    ] {
        let found = target.receipts.list(TARGET, Some(&name), None).await.unwrap();
        let numbers: Vec<u32> = found.iter().map(|summary| summary.row.number).collect();
        assert_eq!(numbers, [0, 1], "{name}");
    }
    assert!(
        target
            .receipts
            .list(TARGET, Some("press@contoso.example"), None)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        target.receipts.list(SOURCE, None, None).await.unwrap().is_empty(),
        "another tenant's"
    );
    let listed = &source
        .receipts
        .list(SOURCE, None, Some(ExchangeGuid::from_u128(9)))
        .await
        .unwrap()[0];
    assert_eq!(listed.own.as_ref().unwrap().side, "source");
    assert_eq!(listed.partner.as_ref().unwrap().side, "target");
    assert_eq!(listed.exceptions, 2);
    assert!(
        listed
            .own_keys_at
            .as_ref()
            .unwrap()
            .starts_with("https://mail.contoso.example/")
    );
}

#[tokio::test]
async fn what_is_damaged_in_the_store_is_not_given_out_as_proof() {
    let (_, target) = both(&made(&[("INBOX", 1..4)]), None).await;
    let mut tx = target.store.write().await.unwrap();
    tx.receipt_part_put(TARGET, (ATTEMPT, 0, 0), b"damaged").await.unwrap();
    tx.commit("test").await.unwrap();
    let failure = target.receipts.find(TARGET, ATTEMPT, leaf(1).digest).await.unwrap_err();
    assert!(Problem::from(failure).message.contains("damaged"));
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// What an earlier build made is read by every later one. `UPDATE_GOLDEN=1` makes new ones, which is only right when the
/// format is not released yet.
#[tokio::test]
async fn receipts_of_earlier_builds_verify() {
    let names = [
        "reception.receipt",
        "message.proof",
        "source.keys.json",
        "target.keys.json",
    ];
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let contents = made(&[("Sent", 1..9), ("INBOX", 1..60), ("Work ä", 0..0)]);
        let (source, target) = both(&contents, Some(&made(&[("INBOX", 60..62)]))).await;
        let single = target.receipts.find(TARGET, ATTEMPT, leaf(17).digest).await.unwrap();
        let files = [
            target.file().await,
            single[0].proof.octets(),
            source.keys().await.into_bytes(),
            target.keys().await.into_bytes(),
        ];
        std::fs::create_dir_all(golden("")).unwrap();
        for (name, octets) in names.iter().zip(files) {
            std::fs::write(golden(name), octets).unwrap();
        }
    }
    let [file, single, source, target] = names.map(|name| std::fs::read(golden(name)).unwrap());
    let [source, target] = [source, target].map(|keys| String::from_utf8(keys).unwrap());
    let trusted = trusting(&[&source, &target]);
    let mut contents = Contents::default();
    let verdict = verify(&mut &*file, &trusted, &mut |part| contents.part(part)).unwrap();
    assert!(verdict.is_signed());
    assert_eq!((verdict.sections.len(), contents.items.len()), (2, 69));
    let single = verify_single(&single, &trusted).unwrap();
    assert_eq!(single.proof.entries[0].leaf, leaf(17));
}

/// How long 100,000 items take, and how large they are: printed, not required.
#[tokio::test]
async fn a_large_mailbox() {
    let contents = made(&[("Sent", 1..30_001), ("INBOX", 1..60_001), ("Archive", 1..10_001)]);
    let (source, target) = both(&contents, None).await;
    let mut tx = target.store.read().await.unwrap();
    let (mut stored, mut part) = (0, 0);
    while let Some(body) = tx.receipt_part_get(TARGET, (ATTEMPT, 0, part)).await.unwrap() {
        (stored, part) = (stored + body.len(), part + 1);
    }
    drop(tx);
    let begun = Instant::now();
    let file = target.file().await;
    let exported = begun.elapsed();
    let trusted = trusting(&[&source.keys().await, &target.keys().await]);
    let begun = Instant::now();
    let verdict = check(&file, &trusted).unwrap();
    let verified = begun.elapsed();
    assert!(verdict.is_signed());
    assert_eq!(verdict.sections[0].totals.items, 100_000);
    let begun = Instant::now();
    let found = target
        .receipts
        .find(TARGET, ATTEMPT, leaf(50_000).digest)
        .await
        .unwrap();
    println!(
        "100000 items: {} octets, stored as {stored}; exported in {exported:?}, verified in {verified:?}, one message found in {:?}, its proof {} octets",
        file.len(),
        begun.elapsed(),
        found[0].proof.octets().len()
    );
}
