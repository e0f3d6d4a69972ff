//! What a driver promises only where its capabilities say so.

use super::{Suite, item, key, path};
use crate::{Appended, FolderIdentity, FolderPath, FolderRef, ListingScope, NewFolder, NewItem, Removed, Uid};
use rehome_wire::flags::Flags;

impl Suite<'_> {
    pub(super) async fn append_twice_is_once(&self) {
        if !self.mailbox.capabilities().append_once {
            return;
        }
        self.create(&["INBOX"]).await;
        let inbox = FolderPath::inbox();
        let items: Vec<NewItem> = (1..=3)
            .map(|uid| item(uid, b"Subject: same\n\n", &["\\Seen"], 9))
            .collect();
        let first = self.append(&inbox, &items[..2]).await;
        let again = self.append(&inbox, &items).await;
        assert_eq!(
            again[..2],
            first,
            "an item appended twice is there once, under its first uid"
        );
        let third = self.append(&inbox, &[items[2].clone(), items[0].clone()]).await;
        assert_eq!(third, [again[2], first[0]]);
        self.assert_holds(&inbox, &again.iter().copied().zip(&items).collect::<Vec<_>>())
            .await;
        let twice = item(9, b"Subject: twice\n\n", &[], 9);
        let both = self.append(&inbox, &[twice.clone(), twice]).await;
        assert_eq!(both[0], both[1], "also within one append");
        assert_eq!(self.list(&inbox).await.items.len(), 4);
    }

    pub(super) async fn given_uids_are_kept_together(&self) {
        let identity = FolderIdentity {
            uid_validity: 1_400_000_001,
            uid_next: 90_001,
        };
        let new = NewFolder {
            identity: Some(identity),
            ..NewFolder::default()
        };
        if !self.mailbox.capabilities().given_uids {
            return;
        }
        for names in [&["INBOX"][..], &["Kept"]] {
            let folder = path(names);
            let status = self
                .mailbox
                .create_folder(&folder, &new)
                .await
                .expect("a folder is made");
            assert_eq!(
                (status.uid_validity, status.uid_next),
                (1_400_000_001, 90_001),
                "both numbers are kept"
            );
            let given = |uid: Uid| NewItem {
                uid: Some(uid),
                ..item(uid, format!("Subject: {uid}\n\n").as_bytes(), &["kept"], 9)
            };
            let items: Vec<NewItem> = [3, 7, 500, 89_999].map(given).to_vec();
            let mut uids = self.append(&folder, &items[..2]).await;
            uids.extend(self.append(&folder, &items[2..]).await);
            assert_eq!(uids, [3, 7, 500, 89_999], "the uids are those that were given");
            let taken = NewItem {
                key: key(1),
                ..given(7)
            };
            let refused = self
                .mailbox
                .append(FolderRef::any(&folder), vec![taken])
                .await
                .expect("others go on");
            assert!(matches!(refused[0], Appended::Refused(_)), "a uid is not given twice");
            let arrived = self.append(&folder, &[item(8, b"Subject: later\n\n", &[], 10)]).await;
            assert_eq!(arrived, [90_001], "what arrives comes after the source's UIDNEXT");
            let above = self.append(&folder, &[given(100_000)]).await;
            assert_eq!(above, [100_000]);
            let listing = self.list(&folder).await;
            assert_eq!(
                (listing.status.uid_validity, listing.status.uid_next),
                (1_400_000_001, 100_001)
            );
            for (uid_validity, given, held) in [
                (1_400_000_001, 100_050, 100_050),
                (1_400_000_001, 5, 100_050),
                (6, 200_000, 100_050),
            ] {
                let identity = Some(FolderIdentity {
                    uid_validity,
                    uid_next: given,
                });
                let raised = NewFolder {
                    identity,
                    ..NewFolder::default()
                };
                let status = self.mailbox.create_folder(&folder, &raised).await.expect("it is there");
                assert_eq!(
                    (status.uid_validity, status.uid_next),
                    (1_400_000_001, held),
                    "UIDNEXT is raised, never lowered"
                );
            }
        }
    }

    pub(super) async fn items_are_copied(&self) {
        if !self.mailbox.capabilities().copy {
            return;
        }
        self.create(&["INBOX"]).await;
        self.create(&["b"]).await;
        let (inbox, other) = (FolderPath::inbox(), path(&["b"]));
        let items: Vec<NewItem> = [&b"Subject: one\n\n"[..], b"Subject: two\n\n"]
            .iter()
            .zip(1..)
            .map(|(raw, uid)| item(uid, raw, &["\\Seen"], 9))
            .collect();
        let uids = self.append(&inbox, &items).await;
        let mut copies: Vec<NewItem> = items
            .iter()
            .zip(11..)
            .map(|(item, uid)| NewItem {
                key: key(uid),
                ..item.clone()
            })
            .collect();
        copies[1].received = 10;
        copies[1].flags = Flags::from_names(["\\Flagged"]);
        let copied = self
            .mailbox
            .copy(FolderRef::any(&inbox), &uids, FolderRef::any(&other), &copies)
            .await
            .expect("items are copied");
        // A platform may refuse a copy that would have another received time; it is appended then.
        let mut uids_of_copies = Vec::new();
        for (copied, item) in copied.iter().zip(&copies) {
            uids_of_copies.push(match copied {
                Appended::Uid { uid, .. } => *uid,
                Appended::Refused(error) => {
                    assert!(item.received != 9, "{error}");
                    self.append(&other, std::slice::from_ref(item)).await[0]
                }
            });
        }
        let copied = uids_of_copies;
        self.assert_holds(&other, &copied.iter().copied().zip(&copies).collect::<Vec<_>>())
            .await;
        self.mailbox
            .set_flags(FolderRef::any(&inbox), &[(uids[0], Flags::default())])
            .await
            .expect("flags are set");
        self.mailbox
            .remove(FolderRef::any(&inbox), &uids)
            .await
            .expect("items are removed");
        self.assert_holds(&other, &copied.iter().copied().zip(&copies).collect::<Vec<_>>())
            .await;
        let gone = self
            .mailbox
            .copy(
                FolderRef::any(&inbox),
                &uids[..1],
                FolderRef::any(&other),
                &[item(30, b"Subject: one\n\n", &[], 9)],
            )
            .await;
        assert!(
            matches!(gone.expect("others go on")[0], Appended::Refused(_)),
            "what is gone is not copied"
        );
    }

    pub(super) async fn changes_are_listed(&self) {
        let inbox = FolderPath::inbox();
        self.create(&["INBOX"]).await;
        let items: Vec<NewItem> = (1..=4).map(|uid| item(uid, b"Subject: x\n\n", &[], 9)).collect();
        let uids = self.append(&inbox, &items).await;
        let token = self.list(&inbox).await.token;
        assert_eq!(
            token.is_some(),
            self.mailbox.capabilities().changes,
            "who lists changes gives tokens"
        );
        let Some(token) = token else { return };
        let quiet = self
            .mailbox
            .list(&inbox, Some(&token))
            .await
            .expect("changes are listed");
        assert_eq!(quiet.items.len(), 0, "where nothing changed nothing is listed");
        assert_removed(&quiet.scope, &[], &uids);
        self.mailbox
            .remove(FolderRef::any(&inbox), &uids[1..2])
            .await
            .expect("items are removed");
        self.mailbox
            .set_flags(FolderRef::any(&inbox), &[(uids[2], Flags::from_names(["\\Seen"]))])
            .await
            .expect("flags are set");
        let added = self.append(&inbox, &[item(9, b"Subject: new\n\n", &[], 9)]).await;
        let changes = self
            .mailbox
            .list(&inbox, Some(&token))
            .await
            .expect("changes are listed");
        assert_eq!(
            changes.items.iter().map(|item| item.uid).collect::<Vec<_>>(),
            [uids[2], added[0]]
        );
        assert_removed(&changes.scope, &[uids[1]], &[uids[0], uids[2], uids[3], added[0]]);
        assert_eq!(changes.status.exists, 4);
    }
}

/// Either way of telling removals is right; the two are never mixed.
fn assert_removed(scope: &ListingScope, vanished: &[Uid], present: &[Uid]) {
    match scope {
        ListingScope::Changes {
            removed: Removed::Vanished(uids),
        } => assert_eq!(uids.iter().collect::<Vec<_>>(), vanished),
        ListingScope::Changes {
            removed: Removed::Present(uids),
        } => assert_eq!(uids.iter().collect::<Vec<_>>(), present),
        ListingScope::Whole => panic!("with a token only changes are listed"),
    }
}
