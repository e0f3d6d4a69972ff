//! The exporter's notes follow folders that get another name, and are never taken for another folder's.

use crate::common::{Chunks, Faulty, World, flags, path, poor, populate};
use rehome_mailbox::{Capabilities, FolderPath, FolderRef, Mailbox, memory::MemoryMailbox};
use rehome_replicate::{ChunkStorage, Exporter, PassKind};
use std::sync::Arc;

/// A world whose source counts what is read of it, with what a platform may or may not tell.
fn world(numbers_changes: bool, ids: bool) -> (World, Arc<Faulty>) {
    let mut source = MemoryMailbox::with_capabilities(Capabilities {
        changes: numbers_changes,
        ..poor()
    });
    if ids {
        source = source.with_mailbox_ids();
    }
    let served = Arc::new(Faulty::new(Arc::new(source.clone()), &Arc::default()));
    let target = Arc::new(MemoryMailbox::with_capabilities(poor()));
    (
        World::over(source, Arc::clone(&served) as Arc<dyn Mailbox>, target),
        served,
    )
}

fn reads(served: &Faulty) -> usize {
    let commands = served.take_commands().into_iter();
    commands.filter(|command| command == "read").count()
}

/// Makes the source's root; what it reads for that. The root is that of an exporter without any notes.
async fn root_reads(world: &World, served: &Faulty, context: &str) -> usize {
    served.take_commands();
    let root = world.link.exporter.source_root(&[], true).await.unwrap();
    let read = reads(served);
    let notes = Arc::new(Chunks::default()) as Arc<dyn ChunkStorage>;
    let fresh = Exporter::new(Arc::new(world.source.clone()), notes);
    assert_eq!(root, fresh.source_root(&[], true).await.unwrap(), "{context}");
    read
}

/// As after a restart, between two folder lists.
async fn restart(world: &mut World, served: &Arc<Faulty>) {
    let mailbox = Arc::clone(served) as Arc<dyn Mailbox>;
    let exporter = Exporter::new(mailbox, Arc::clone(&world.notes) as Arc<dyn ChunkStorage>);
    exporter.folders().await.unwrap();
    world.link = Arc::new(crate::common::DirectLink::new(exporter));
}

struct Scenario {
    what: &'static str,
    /// Renamings; an empty name is a list of folders and a restart.
    renames: &'static [(&'static str, &'static str)],
    /// A folder that is made anew.
    new: Option<&'static str>,
    /// Folders read for the root without a pass before it, with ids and without.
    read: (usize, usize),
}

const SCENARIOS: [Scenario; 7] = [
    Scenario {
        what: "a new name",
        renames: &[("Projects/Many", "Archive/Old")],
        new: None,
        read: (0, 0),
    },
    Scenario {
        what: "one name after the other, each listed",
        renames: &[
            ("Sent", "A"),
            ("", ""),
            ("A", "B"),
            ("", ""),
            ("B", "C/d"),
            ("", ""),
            ("C/d", "Sent"),
        ],
        new: None,
        read: (0, 0),
    },
    Scenario {
        what: "one name after the other, unseen",
        renames: &[("Sent", "A"), ("A", "B"), ("Projects/Many", "A")],
        new: None,
        read: (0, 0),
    },
    Scenario {
        what: "two that change places",
        renames: &[("Sent", "X"), ("Projects/Many", "Sent"), ("X", "Projects/Many")],
        new: None,
        // The names are there all the time: without ids nothing tells that they changed places.
        read: (0, 2),
    },
    Scenario {
        what: "two that change places, one list after the other",
        renames: &[
            ("Sent", "X"),
            ("", ""),
            ("Projects/Many", "Sent"),
            ("", ""),
            ("X", "Projects/Many"),
        ],
        new: None,
        read: (0, 0),
    },
    Scenario {
        what: "a new folder of the old name",
        renames: &[("Sent", "Elsewhere")],
        new: Some("Sent"),
        read: (1, 2),
    },
    Scenario {
        what: "a parent with what is below it",
        renames: &[("Projects", "Work/New")],
        new: None,
        read: (0, 0),
    },
];

#[tokio::test]
async fn a_renamed_folder_is_not_read_for_the_root() {
    for (numbers_changes, ids) in [(true, true), (true, false), (false, true), (false, false)] {
        for scenario in &SCENARIOS {
            for with_pass in [false, true] {
                let what = scenario.what;
                let context = format!("{what}; changes numbered {numbers_changes}, ids {ids}, with a pass {with_pass}");
                let (mut world, served) = world(numbers_changes, ids);
                populate(&world.source);
                world.pass(PassKind::Initial).await;
                assert_eq!(root_reads(&world, &served, &context).await, 0, "{context}: before");
                for (from, to) in scenario.renames {
                    if from.is_empty() {
                        restart(&mut world, &served).await;
                    } else {
                        world.source.rename_folder(&path(from), &path(to)).await.unwrap();
                    }
                }
                if let Some(new) = scenario.new {
                    world.source.deliver(&path(new), "another", flags(&[]), 5);
                }
                let expected = match (with_pass, ids) {
                    (true, _) => 0,
                    (false, true) => scenario.read.0,
                    (false, false) => scenario.read.1,
                };
                if with_pass {
                    world.pass(PassKind::Final).await;
                }
                assert_eq!(root_reads(&world, &served, &context).await, expected, "{context}");
                if with_pass {
                    world.assert_equal(&context).await;
                }
                // What was read once is noted.
                assert_eq!(root_reads(&world, &served, &context).await, 0, "{context}: again");
            }
        }
    }
}

/// A folder that is gone, and another one that has its UIDVALIDITY: the notes are never taken for the other's items.
#[tokio::test]
async fn a_false_friend_is_read() {
    type Make = fn(i64) -> (String, i64);
    let text = |number: i64, more: &str| format!("Subject: {number}\r\n\r\n{more}\r\n");
    let friends: [(&str, Make); 3] = [
        ("other lengths", |n| (format!("Subject: {n}\r\n\r\nanother one\r\n"), n)),
        ("other times", |n| (format!("Subject: {n}\r\n\r\nfab\r\n"), 77 + n)),
        ("one looks the same", |n| {
            (format!("Subject: {n}\r\n\r\nabc\r\n"), if n == 3 { 3 } else { 1_000 })
        }),
    ];
    for numbers_changes in [true, false] {
        for (what, make) in friends {
            for with_pass in [false, true] {
                let context = format!("{what}, with a pass {with_pass}, changes numbered {numbers_changes}");
                let (world, served) = world(numbers_changes, false);
                let many = path("Projects/Many");
                populate(&world.source);
                world.source.remove_folder(&many).await.unwrap();
                for number in 0..12 {
                    world.source.deliver(&many, text(number, "abc"), flags(&[]), number);
                }
                world.pass(PassKind::Initial).await;
                assert_eq!(root_reads(&world, &served, &context).await, 0);
                let validity = world.source.list(&many, None).await.unwrap().status.uid_validity;
                world.source.remove_folder(&many).await.unwrap();
                let friend = path("Friend");
                for number in 0..12 {
                    let (text, received) = make(number);
                    world.source.deliver(&friend, text, flags(&[]), received);
                }
                world.source.renumber(&friend, validity);
                if with_pass {
                    world.pass(PassKind::Final).await;
                }
                let read = root_reads(&world, &served, &context).await;
                assert_eq!(read, usize::from(!with_pass), "{context}");
                if with_pass {
                    world.assert_equal(&context).await;
                }
            }
        }
    }
}

/// What came to be late is never judged by a folder that was followed by its numbers: all of it is told.
#[tokio::test]
async fn a_sweep_does_not_rely_on_numbers() {
    for (ids, expected) in [(true, 1), (false, 13)] {
        let (world, _) = world(true, ids);
        populate(&world.source);
        world.pass(PassKind::Final).await;
        world.roots().await;
        world
            .source
            .rename_folder(&path("Projects/Many"), &path("Friend"))
            .await
            .unwrap();
        world.source.deliver(&path("Friend"), "late", flags(&[]), 5);
        let late = world.link.exporter.additions_since_root().await.unwrap();
        let late: usize = late.iter().map(|folder| folder.uids.len()).sum();
        assert_eq!(late, expected, "ids {ids}");
    }
}

/// The same validity at another name with the old name still there is another folder; so is one under its id with another
/// validity.
#[tokio::test]
async fn a_reset_is_read() {
    let (world, served) = world(true, true);
    populate(&world.source);
    world.pass(PassKind::Initial).await;
    assert_eq!(root_reads(&world, &served, "before").await, 0);
    world
        .source
        .rename_folder(&path("Projects/Many"), &path("Other"))
        .await
        .unwrap();
    world.source.remove(FolderRef::any(&path("Other")), &[1]).await.unwrap();
    world.source.renumber(&path("Other"), 4_000);
    assert_eq!(root_reads(&world, &served, "reset").await, 1);
    world.source.renumber(&FolderPath::inbox(), 4_001);
    assert_eq!(root_reads(&world, &served, "inbox").await, 1);
}
