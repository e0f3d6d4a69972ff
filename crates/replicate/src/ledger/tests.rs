use super::*;
use crate::{
    notes::Notes,
    report::{Heading, ReportClass, ReportKind, Side},
};
use proptest::prelude::*;
use rehome_mailbox::{FolderPath, SpecialUse};
use rehome_wire::{digest::Digest, flags::Flags};
use std::collections::BTreeSet;

fn record(uid: u32, keywords: &[String], seed: u64) -> Record {
    Record {
        uid,
        length: seed,
        digest: Digest::of(&seed.to_le_bytes()),
        flags: Flags::from_parts((seed % 32) as u8, keywords.to_vec()),
        received: seed as i64 - 500,
        read_back: [ReadBack::Open, ReadBack::Equal, ReadBack::Altered][seed as usize % 3],
        line_ends_only: seed.is_multiple_of(2),
    }
}

/// A whole chunk of records costs at most 64 octets an item: the limit that the design sets.
#[test]
fn an_item_takes_at_most_64_octets() {
    let names: Vec<String> = (0..64).map(|number| format!("keyword{number}")).collect();
    let records: Vec<Record> = (0..4096)
        .map(|low| record(7 << CHUNK_SHIFT | low, &names, u64::MAX - u64::from(low)))
        .collect();
    let mut table = KeywordTable::default();
    let octets = encode_records(&mut table, records.iter());
    assert!(octets.len() <= 64 * records.len(), "{} octets", octets.len());
    assert_eq!(table.names().len(), 64);
    assert_eq!(decode_records(7, &table, &octets).unwrap(), records);
}

#[test]
fn the_stored_form_of_a_record_is_frozen() {
    let mut table = KeywordTable::default();
    table.bit("other");
    let record = Record {
        uid: 0x1003,
        length: 0x0102,
        digest: Digest([0xab; 32]),
        flags: Flags::from_names(["\\Seen", "Work"]),
        received: -2,
        read_back: ReadBack::Equal,
        line_ends_only: true,
    };
    let mut expected = vec![
        1, 1, 0, 0, 0, 3, 0, 5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0xfe,
    ];
    expected.extend([0xff; 7]);
    expected.extend([0xab; 32]);
    expected.extend([0; 4]);
    assert_eq!(encode_records(&mut table, [record].iter()), expected);
    assert_eq!(table.names(), ["other", "Work"]);
}

#[test]
fn keywords_beyond_the_table_are_kept_beside_it() {
    let mut table = KeywordTable::default();
    let many: Vec<Vec<String>> = (0..5)
        .map(|item| (0..20).map(|n| format!("k{item}-{n}")).collect())
        .collect();
    let records: Vec<Record> = many
        .iter()
        .zip(1..)
        .map(|(names, uid)| record(uid, names, u64::from(uid)))
        .collect();
    let octets = encode_records(&mut table, records.iter());
    assert_eq!(table.names().len(), MAX_TABLE);
    assert_eq!(decode_records(0, &table, &octets).unwrap(), records);
    assert_eq!(table.bit("K0-0"), Some(0), "case does not count");
}

fn window(items: Vec<Record>, uid_next: u32) -> Window {
    Window {
        given_uids: uid_next.is_multiple_of(2),
        by_position: uid_next.is_multiple_of(3),
        target_validity: 9,
        uid_next,
        items,
    }
}

#[test]
fn suspect_windows_are_bounded() {
    let mut intents = Intents::default();
    for number in 0..40 {
        intents.open = Some(window(vec![record(number + 1, &[], 3)], 1_000 - number));
        intents.close_as_suspect();
    }
    assert_eq!(intents.suspects.len(), MAX_SUSPECTS);
    let items: BTreeSet<u32> = intents
        .suspects
        .iter()
        .flat_map(|window| &window.items)
        .map(|item| item.uid)
        .collect();
    assert_eq!(items.len(), 40, "no item is forgotten");
    assert_eq!(intents.suspects[0].uid_next, 1_000 - 24);
    assert_eq!(Intents::decode(&intents.encode()).unwrap(), intents);
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set("[a-zA-Zäß$]{1,10}", 0..70).prop_map(|names| {
        let mut seen = BTreeSet::new();
        names
            .into_iter()
            .filter(|name| seen.insert(name.to_ascii_lowercase()))
            .collect()
    })
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::btree_map(1u32..4096, (texts(), any::<u32>()), 0..12).prop_map(|items| {
        items
            .into_iter()
            .map(|(uid, (names, seed))| record(uid, &names, u64::from(seed)))
            .collect()
    })
}

fn synced() -> impl Strategy<Value = Option<Synced>> {
    let numbers = (
        any::<u32>(),
        any::<u32>(),
        prop::option::of(any::<u64>()),
        prop::option::of(any::<Vec<u8>>()),
    );
    prop::option::of(numbers.prop_map(|(uid_next, exists, highest_mod_seq, token)| Synced {
        uid_next,
        exists,
        highest_mod_seq,
        token,
    }))
}

fn entries() -> impl Strategy<Value = Vec<FolderEntry>> {
    let states = [
        FolderState::Creating,
        FolderState::Active,
        FolderState::Retired,
        FolderState::Removing,
    ];
    let uses = [
        SpecialUse::Archive,
        SpecialUse::Drafts,
        SpecialUse::Junk,
        SpecialUse::Sent,
        SpecialUse::Trash,
    ];
    let entry = (
        prop::collection::vec("\\PC{0,8}", 1..4).prop_map(FolderPath),
        any::<([u32; 2], bool, bool)>(),
        texts(),
        synced(),
        prop::sample::select(states.to_vec()),
        prop::option::of(prop::sample::select(uses.to_vec())),
    );
    let entry = entry.prop_map(
        |(path, (numbers, given_uids, subscribed), names, synced, state, special_use)| {
            let mut keywords = KeywordTable::default();
            for name in names.iter().take(MAX_TABLE) {
                keywords.bit(name);
            }
            FolderEntry {
                number: 0,
                state,
                source_path: path.clone(),
                target_path: path,
                source_validity: numbers[0],
                target_validity: numbers[1],
                given_uids,
                special_use,
                subscribed,
                keywords,
                synced,
                unread: numbers[0].is_multiple_of(2),
                octets: [Octets::Unknown, Octets::Kept, Octets::Rewritten][numbers[1] as usize % 3],
                skipped: numbers[0],
                reported: numbers[1],
                verified: subscribed.then(|| Verified {
                    status: rehome_mailbox::FolderStatus {
                        uid_validity: 1,
                        uid_next: 2,
                        exists: 3,
                        highest_mod_seq: given_uids.then_some(4),
                    },
                    token: rehome_mailbox::ChangeToken(vec![numbers[0] as u8; 3]),
                }),
                source_mailbox_id: names.first().cloned(),
                renaming_to: given_uids.then(|| FolderPath(vec!["away".into()])),
                other_name: numbers[0].is_multiple_of(3),
            }
        },
    );
    prop::collection::vec(entry, 0..6).prop_map(|entries| {
        (0..)
            .zip(entries)
            .map(|(number, entry)| FolderEntry { number, ..entry })
            .collect()
    })
}

proptest! {
    #![proptest_config(crate::repeatable::config())]

    #[test]
    fn records_survive(records in records()) {
        let mut table = KeywordTable::default();
        let octets = encode_records(&mut table, records.iter());
        prop_assert_eq!(decode_records(0, &table, &octets).unwrap(), records);
    }

    #[test]
    fn intents_survive(items in records(), suspects in prop::collection::vec(records(), 0..3), open in any::<bool>()) {
        let suspects = suspects.into_iter().zip(5..).map(|(items, uid_next)| window(items, uid_next)).collect();
        let intents = Intents { open: open.then(|| window(items, 4)), suspects };
        prop_assert_eq!(Intents::decode(&intents.encode()).unwrap(), intents);
    }

    #[test]
    fn folders_survive(entries in entries(), next in any::<u32>()) {
        let octets = folder::encode_folders(next, &entries.iter().collect::<Vec<_>>());
        prop_assert_eq!(folder::decode_folders(&octets).unwrap(), (next, entries));
    }

    #[test]
    fn maps_behave_like_a_tree(edits in prop::collection::vec((1u32..40, prop::option::of(1u32..40)), 0..120)) {
        let mut expected = BTreeMap::new();
        let mut map = UidMap::default();
        for (source, target) in edits {
            match target {
                // Ascending together, as it mostly is, and at random.
                Some(target) => {
                    let target = if target % 3 == 0 { target } else { source + 100 };
                    map.insert(source, target);
                    expected.insert(source, target);
                }
                None => {
                    map.remove(source);
                    expected.remove(&source);
                }
            }
        }
        for source in 0..45 {
            prop_assert_eq!(map.get(source), expected.get(&source).copied());
        }
        prop_assert_eq!(map.len(), expected.len());
        let sources: Vec<u32> = expected.keys().copied().collect();
        prop_assert_eq!(map.sample(usize::MAX), sources.clone());
        let some = map.sample(5);
        prop_assert_eq!(some.len(), sources.len().min(5));
        prop_assert!(some.windows(2).all(|pair| pair[0] < pair[1]) && some.iter().all(|uid| sources.contains(uid)));
        for (source, target) in &expected {
            prop_assert!(map.source_of(*target).is_some_and(|found| expected[&found] == *target), "{source}");
        }
        prop_assert_eq!(map.source_of(100_000), None);
        let targets: BTreeSet<u32> = expected.values().copied().collect();
        prop_assert_eq!(map.targets().iter().collect::<Vec<_>>(), targets.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(UidMap::decode(&map.encode()).unwrap(), map);
    }

    #[test]
    fn reports_survive(reason in "\\PC{0,40}", subject in prop::option::of("\\PC{0,20}"), uid in 1u32.., size in prop::option::of(any::<u64>()), held in any::<bool>()) {
        let item = ReportItem {
            folder: vec!["A".into()],
            uid,
            kind: ReportKind::Altered,
            class: ReportClass::Altered,
            reason,
            side: Side::Target,
            size,
            received: Some(-1),
            sender: subject.clone().filter(|text| text.len() > 3),
            date_sent: subject.clone().filter(|text| text.len() > 9),
            subject,
            held: held.then_some((5, Digest::of(b"x"))),
            found: 99,
        };
        let items = vec![item];
        prop_assert_eq!(crate::report::decode(&["A".to_owned()], &crate::report::encode(&items)).unwrap(), items);
    }

    #[test]
    fn damaged_octets_are_errors(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut versioned = vec![1];
        versioned.extend(&octets);
        for octets in [&octets, &versioned] {
            let _ = decode_records(0, &KeywordTable::default(), octets);
            let _ = Intents::decode(octets);
            let _ = UidMap::decode(octets);
            let _ = folder::decode_folders(octets);
            let _ = crate::report::decode(&[], octets);
        }
    }
}

#[test]
fn the_runs_of_a_map_are_few_and_at_the_edge_hold() {
    let mut map = UidMap::default();
    for uid in 1..=100_000 {
        map.insert(uid, uid + 5);
    }
    map.insert(u32::MAX, u32::MAX);
    assert_eq!(map.encode().len(), 1 + 4 + 2 * 12);
    assert_eq!(map.get(u32::MAX), Some(u32::MAX));
    map.remove(u32::MAX);
    assert_eq!(map.len(), 100_000);
}

#[test]
fn a_subject_is_found() {
    let rows: [(&[u8], Option<&str>); 6] = [
        (
            b"From: a\r\nSubject: one\r\n two\r\nTo: b\r\n\r\nSubject: no",
            Some("one two"),
        ),
        (b"SUBJECT:x\nA: b\n", Some("x")),
        (b"A: b\r\n\r\nSubject: body", None),
        (b"Subject: \xff\0\r\n", Some("\u{fffd}")),
        (b"", None),
        (b"Subjects: x", None),
    ];
    for (octets, expected) in rows {
        assert_eq!(
            crate::report::heading(octets).subject.as_deref(),
            expected,
            "{octets:?}"
        );
    }
}

#[test]
fn a_heading_is_found() {
    let heading = |octets: &[u8]| crate::report::heading(octets);
    let found = heading(b"From: \"Press\"\r\n <press@contoso.example>\r\nSender: x\r\nDate : Mon, 1 Jan\r\n\t2024\r\nDate: second\r\nX: y\r\n folded\r\n\r\nSubject: body");
    assert_eq!(
        found,
        Heading {
            subject: None,
            sender: Some("\"Press\" <press@contoso.example>".into()),
            date_sent: Some("Mon, 1 Jan 2024".into()),
        }
    );
    assert_eq!(
        heading(b"Sender: orders\nSubject: s\n").sender.as_deref(),
        Some("orders")
    );
    let long = format!("Subject: {}\r\n {}\r\n", "\u{20ac}".repeat(100), "x".repeat(100_000));
    assert_eq!(heading(long.as_bytes()).subject.unwrap().len(), 198);
    assert!(heading(b"no colon\r\n").is_empty());
}

/// What an earlier version wrote is read; its classes are told by what it says.
#[test]
fn a_report_of_the_first_form_is_read() {
    let rows = [
        (1, 1, "the source cannot read it: x", ReportClass::Bad),
        (
            1,
            2,
            "it is larger than 5 octets, the most that the target takes",
            ReportClass::TooLarge,
        ),
        (1, 2, "the target refused it: NO", ReportClass::Refused),
        (
            1,
            2,
            "the target accepted it, but does not hold it",
            ReportClass::Missing,
        ),
        (
            1,
            1,
            "the source lists it, but says that it is gone",
            ReportClass::Missing,
        ),
        (2, 2, "it is larger than before", ReportClass::Altered),
        (7, 2, "", ReportClass::Double),
    ];
    for (kind, side, reason, expected) in rows {
        let mut writer = Writer::new();
        writer.count(1);
        writer.u32(7);
        writer.u8(kind);
        writer.u8(side);
        writer.i64(99);
        writer.option(Some(5), Writer::u64);
        writer.option(None, Writer::i64);
        writer.text(reason);
        writer.option(Some("s"), |writer, subject| writer.text(subject));
        writer.bool(false);
        let items = crate::report::decode(&["A".to_owned()], &writer.finish()).unwrap();
        assert_eq!(
            (items[0].class, items[0].found, &items[0].sender),
            (expected, 99, &None),
            "{reason}"
        );
    }
}

/// Storage in memory, for the notes.
#[derive(Default)]
struct Chunks(std::sync::Mutex<BTreeMap<ChunkKey, Vec<u8>>>);

#[async_trait::async_trait]
impl ChunkStorage for Chunks {
    async fn get(&self, key: ChunkKey) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.lock().unwrap().get(&key).cloned())
    }

    async fn chunks(&self, kind: ChunkKind, folder: u32) -> Result<Vec<u32>, StorageError> {
        let chunks = self.0.lock().unwrap();
        Ok(chunks
            .keys()
            .filter(|key| (key.kind, key.folder) == (kind, folder))
            .map(|key| key.chunk)
            .collect())
    }

    async fn write(&self, changes: Vec<Change>, _step: &'static str) -> Result<(), StorageError> {
        let mut chunks = self.0.lock().unwrap();
        for (key, octets) in changes {
            match octets {
                Some(octets) => chunks.insert(key, octets),
                None => chunks.remove(&key),
            };
        }
        Ok(())
    }
}

/// Storage whose first write waits until it is let go, and which counts writes.
#[derive(Default)]
struct Gated {
    chunks: Chunks,
    go: tokio::sync::Notify,
    writes: std::sync::Mutex<Vec<(usize, &'static str)>>,
}

#[async_trait::async_trait]
impl ChunkStorage for Gated {
    async fn get(&self, key: ChunkKey) -> Result<Option<Vec<u8>>, StorageError> {
        self.chunks.get(key).await
    }

    async fn chunks(&self, kind: ChunkKind, folder: u32) -> Result<Vec<u32>, StorageError> {
        self.chunks.chunks(kind, folder).await
    }

    async fn write(&self, changes: Vec<Change>, step: &'static str) -> Result<(), StorageError> {
        let first = self.writes.lock().unwrap().is_empty();
        self.writes.lock().unwrap().push((changes.len(), step));
        if first {
            self.go.notified().await;
        }
        if step == "fails" {
            let message = "full".to_owned();
            return Err(StorageError::Failed { message });
        }
        self.chunks.write(changes, step).await
    }
}

/// Writes that wait at the same time become one, each keeps its order, and all learn what became of it.
#[tokio::test]
async fn waiting_writes_become_one() {
    for (step, fails) in [("second", false), ("fails", true)] {
        let storage = Arc::new(Gated::default());
        let ledger = Ledger::load(Arc::clone(&storage) as Arc<dyn ChunkStorage>)
            .await
            .unwrap();
        let make = |number| FolderEntry {
            number,
            ..entry_named("A")
        };
        let (one, two) = (ledger.add_folder(make).unwrap(), ledger.add_folder(make).unwrap());
        let folder = |number| {
            let mut changes = Changes::default();
            changes.folder(number);
            let mut map = UidMap::default();
            map.insert(1, number);
            changes.add(Ledger::map_change(number, &map));
            changes
        };
        let results = tokio::join!(
            ledger.write(folder(one), "first"),
            async {
                let written = ledger.write(folder(one), step);
                // What changes while the write waits goes with it.
                let ((), written) = tokio::join!(
                    async {
                        ledger.edit(two, |entry| entry.skipped = 7).unwrap();
                    },
                    written
                );
                written
            },
            ledger.write(folder(two), "third"),
            async {
                tokio::task::yield_now().await;
                storage.go.notify_one();
            },
        );
        assert!(results.0.is_ok());
        assert_eq!((results.1.is_err(), results.2.is_err()), (fails, fails));
        let writes = storage.writes.lock().unwrap().clone();
        assert_eq!(writes, [(2, "first"), (3, step)]);
        if !fails {
            let again = Ledger::load(storage as Arc<dyn ChunkStorage>).await.unwrap();
            assert_eq!(again.folder(two).unwrap().skipped, 7);
            assert_eq!(again.map(one).await.unwrap().get(1), Some(one));
        }
    }
}

fn entry_named(name: &str) -> FolderEntry {
    let path = FolderPath(vec![name.to_owned()]);
    FolderEntry {
        number: 0,
        state: FolderState::Active,
        source_path: path.clone(),
        target_path: path,
        source_validity: 1,
        target_validity: 1,
        given_uids: false,
        special_use: None,
        subscribed: false,
        keywords: KeywordTable::default(),
        synced: None,
        unread: false,
        octets: Octets::Unknown,
        skipped: 0,
        reported: 0,
        verified: None,
        source_mailbox_id: None,
        renaming_to: None,
        other_name: false,
    }
}

/// A chunk of folders without what came to be kept of the target is read as it was.
#[test]
fn folders_of_the_first_form_are_read() {
    let entry = entry_named("A");
    let mut octets = folder::encode_folders(2, &[&entry]);
    let tail = 1 + 1 + 4 + 4 + 1 + 1 + 1;
    octets.truncate(octets.len() - tail);
    // Version, next number, count; the entry's number and state; then its attributes.
    octets[1 + 4 + 4 + 4 + 1] = 0;
    assert_eq!(folder::decode_folders(&octets).unwrap(), (2, vec![entry]));
}

#[tokio::test]
async fn notes_are_read_again() {
    let storage: Arc<dyn ChunkStorage> = Arc::new(Chunks::default());
    let mut notes = Notes::load(Arc::clone(&storage)).await.unwrap();
    let path = |number: u32| FolderPath(vec![format!("folder {number}")]);
    let note = |uid: u32| crate::notes::Note {
        length: u64::from(uid),
        digest: Digest::of(&uid.to_le_bytes()),
        seen: uid.is_multiple_of(2).then_some(crate::notes::Seen {
            received: -i64::from(uid),
            length_hint: uid.is_multiple_of(4).then_some(5),
        }),
    };
    for number in 0..70 {
        let served = [1, 4095, 4096, u32::MAX]
            .into_iter()
            .map(|uid| (uid, note(uid.wrapping_add(number % 2))))
            .collect();
        notes.put(&path(number), 7, &served).await.unwrap();
    }
    assert!(!notes.root_made());
    let uids = rehome_wire::uid_set::UidSet::from_ascending([1, 2, 3, 9]);
    notes
        .put_root(&[(path(3), 7, uids.clone()), (path(99), 8, uids.clone())])
        .await
        .unwrap();
    let notes = Notes::load(storage).await.unwrap();
    assert!(notes.root_made());
    for number in 0..70 {
        let found = notes.number(&path(number), 7).unwrap();
        let chunk = notes.chunk(found, 0).await.unwrap();
        assert_eq!(
            chunk.into_iter().collect::<Vec<_>>(),
            [(1, note(1 + number % 2)), (4095, note(4095 + number % 2))]
        );
        assert_eq!(notes.chunk(found, u32::MAX >> CHUNK_SHIFT).await.unwrap().len(), 1);
    }
    assert_eq!(notes.root_uids(&path(3), 7).await.unwrap(), uids);
    assert_eq!(notes.root_uids(&path(99), 8).await.unwrap(), uids);
    assert!(notes.root_uids(&path(3), 6).await.unwrap().is_empty());
    assert!(notes.root_uids(&path(4), 7).await.unwrap().is_empty());
}

/// The form is frozen: only chunks with a folder of another name have the second version, which others may not misread.
#[test]
fn other_names_are_of_the_second_form() {
    let entry = FolderEntry {
        other_name: true,
        ..entry_named("A")
    };
    let (first, second) = (
        folder::encode_folders(2, &[&entry_named("A")]),
        folder::encode_folders(2, &[&entry]),
    );
    assert_eq!((first[0], second[0]), (1, 2));
    assert_eq!(first.len(), second.len());
    let differing: Vec<usize> = (1..first.len()).filter(|at| first[*at] != second[*at]).collect();
    assert_eq!(differing, [14], "the attributes");
    assert_eq!((first[14], second[14]), (4, 12));
    assert_eq!(folder::decode_folders(&second).unwrap(), (2, vec![entry]));
}

/// Notes that an earlier version wrote are read, and what is written over them has the second form.
#[tokio::test]
async fn notes_of_the_first_form_are_read() {
    let storage: Arc<dyn ChunkStorage> = Arc::new(Chunks::default());
    let path = FolderPath(vec!["A".into()]);
    let key = |kind, folder| ChunkKey { kind, folder, chunk: 0 };
    let mut folders = Writer::new();
    folders.u32(4);
    folders.bool(true);
    folders.count(1);
    folders.u32(3);
    folders.u32(7);
    folders.path(&path);
    let mut notes = Writer::new();
    notes.count(1);
    notes.u16(9);
    notes.u64(5);
    notes.digest(&Digest::of(b"x"));
    let first = vec![
        (key(ChunkKind::NoteFolders, 0), Some(folders.finish())),
        (key(ChunkKind::Notes, 3), Some(notes.finish())),
    ];
    storage.write(first, "test").await.unwrap();
    let old = crate::notes::Note {
        length: 5,
        digest: Digest::of(b"x"),
        seen: None,
    };
    let new = crate::notes::Note {
        seen: Some(crate::notes::Seen {
            received: -2,
            length_hint: Some(6),
        }),
        ..old
    };
    let mut notes = Notes::load(Arc::clone(&storage)).await.unwrap();
    assert!(notes.root_made() && !notes.is_doubtful(3));
    assert_eq!(notes.number(&path, 7), Some(3));
    assert_eq!(notes.chunk(3, 0).await.unwrap(), [(9, old)]);
    notes.put(&path, 7, &BTreeMap::from([(10, new)])).await.unwrap();
    assert_eq!(notes.chunk(3, 0).await.unwrap(), [(9, old), (10, new)]);
    let stored = storage.get(key(ChunkKind::Notes, 3)).await.unwrap().unwrap();
    assert_eq!((stored.len(), &stored[..7]), (5 + 43 + 60, &[2, 2, 0, 0, 0, 9, 0][..]));
    assert_eq!(stored[48..50], [10, 0]);
    assert_eq!(
        stored[90..],
        [&[1, 254, 255, 255, 255, 255, 255, 255, 255, 1, 6][..], &[0; 7]].concat()
    );
}
