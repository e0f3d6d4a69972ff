//! Any history of a source, with passes cut anywhere.

use crate::common::{World, path, poor, with_uids};
use proptest::prelude::*;
use rehome_mailbox::{Capabilities, FolderPath, FolderRef, Mailbox, NewFolder, memory::MemoryMailbox};
use rehome_replicate::PassKind;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Event {
    Deliver {
        folder: u8,
        content: u8,
        flags: u8,
    },
    Remove {
        folder: u8,
        at: prop::sample::Index,
    },
    Flags {
        folder: u8,
        at: prop::sample::Index,
        flags: u8,
    },
    Move {
        from: u8,
        to: u8,
        at: prop::sample::Index,
    },
    Rename {
        from: u8,
        to: u8,
    },
    Renumber {
        folder: u8,
        validity: u32,
    },
    RemoveFolder {
        folder: u8,
    },
    Pass,
    CutPass {
        step: u64,
    },
}

fn folder(number: u8) -> FolderPath {
    [FolderPath::inbox(), path("A"), path("A/b"), path("C")][usize::from(number % 4)].clone()
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let at = any::<prop::sample::Index>;
    let event = prop_oneof![
        6 => (0u8..4, 0u8..6, 0u8..8).prop_map(|(folder, content, flags)| Event::Deliver { folder, content, flags }),
        2 => (0u8..4, at()).prop_map(|(folder, at)| Event::Remove { folder, at }),
        2 => (0u8..4, at(), 0u8..8).prop_map(|(folder, at, flags)| Event::Flags { folder, at, flags }),
        2 => (0u8..4, 0u8..4, at()).prop_map(|(from, to, at)| Event::Move { from, to, at }),
        1 => (1u8..4, 1u8..4).prop_map(|(from, to)| Event::Rename { from, to }),
        1 => (0u8..4, 1_000u32..9_000).prop_map(|(folder, validity)| Event::Renumber { folder, validity }),
        1 => (1u8..4).prop_map(|folder| Event::RemoveFolder { folder }),
        2 => Just(Event::Pass),
        2 => (0u64..60).prop_map(|step| Event::CutPass { step }),
    ];
    prop::collection::vec(event, 0..40)
}

async fn happen(world: &World, event: Event) {
    let source = &world.source;
    let some_uid = async |path: &FolderPath, at: prop::sample::Index| {
        let items = source.list(path, None).await.ok()?.items;
        (!items.is_empty()).then(|| items[at.index(items.len())].uid)
    };
    let flags = |number: u8| {
        rehome_wire::flags::Flags::from_parts(
            number & 3,
            if number & 4 == 0 {
                vec![]
            } else {
                vec!["Word".to_owned()]
            },
        )
    };
    match event {
        Event::Deliver {
            folder: number,
            content,
            flags: set,
        } => {
            source.deliver(
                &folder(number),
                format!("content {content}\n"),
                flags(set),
                i64::from(content),
            );
        }
        Event::Remove { folder: number, at } => {
            if let Some(uid) = some_uid(&folder(number), at).await {
                source.remove(FolderRef::any(&folder(number)), &[uid]).await.unwrap();
            }
        }
        Event::Flags {
            folder: number,
            at,
            flags: set,
        } => {
            if let Some(uid) = some_uid(&folder(number), at).await {
                source
                    .set_flags(FolderRef::any(&folder(number)), &[(uid, flags(set))])
                    .await
                    .unwrap();
            }
        }
        Event::Move { from, to, at } => {
            if let Some(uid) = some_uid(&folder(from), at).await {
                let (octets, _, received) = with_uids(source).await[&folder(from)][&uid].clone();
                source.deliver(&folder(to), octets, flags(0), received);
                source.remove(FolderRef::any(&folder(from)), &[uid]).await.unwrap();
            }
        }
        // What cannot be renamed, as onto a folder that is there, does not happen.
        Event::Rename { from, to } => drop(source.rename_folder(&folder(from), &folder(to)).await),
        Event::Renumber {
            folder: number,
            validity,
        } => source.renumber(&folder(number), validity),
        Event::RemoveFolder { folder: number } => source.remove_folder(&folder(number)).await.unwrap(),
        Event::Pass => {
            world.pass(PassKind::Incremental).await;
        }
        Event::CutPass { step } => {
            world.fuse.arm(step);
            // It may end before the cut.
            let _ = world.importer().pass(PassKind::Incremental).await;
            world.fuse.disarm();
        }
    }
}

proptest! {
    #![proptest_config(crate::repeatable::config())]

    /// Whatever happens at the source between passes, and wherever passes are cut, one last pass makes both equal, with multiplicity and roots.
    #[test]
    fn any_history_ends_equal(events in events(), powers in 0u8..12, numbered in any::<bool>(), ids in any::<bool>(), present in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut source = MemoryMailbox::with_capabilities(Capabilities { changes: numbered, ..poor() });
            if ids {
                source = source.with_mailbox_ids();
            }
            let target = MemoryMailbox::with_capabilities(Capabilities {
                append_once: powers % 2 == 0, copy: powers % 3 == 0, given_uids: powers % 6 >= 3, changes: powers % 4 == 0,
                folders_at_once: if powers >= 6 { 4 } else { 1 }, ..poor()
            });
            let world = if present {
                World::naming_present(source, Arc::new(target))
            } else {
                World::new(source, Arc::new(target))
            };
            world.source.create_folder(&FolderPath::inbox(), &NewFolder::default()).await.unwrap();
            for event in events {
                happen(&world, event).await;
            }
            world.pass(PassKind::Final).await;
            world.assert_equal("the end").await;
        });
    }
}
