//! Folders: names, numbers, renaming, removal.

use super::{Suite, item, path};
use crate::{ErrorScope, Folder, FolderPath, FolderRef, MailboxError, NewFolder, Retry, SpecialUse, Uid};
use rehome_wire::flags::Flags;
use std::collections::BTreeMap;

impl Suite<'_> {
    pub(super) async fn folders_are_made_and_listed(&self) {
        assert!(
            self.folders().await.keys().all(FolderPath::is_inbox),
            "the mailbox is new"
        );
        let inbox = self.create(&["INBOX"]).await;
        assert_eq!((inbox.exists, inbox.uid_next), (0, 1));
        let new = NewFolder {
            special_use: Some(SpecialUse::Sent),
            subscribed: true,
            identity: None,
        };
        let sent = self
            .mailbox
            .create_folder(&path(&["Sent"]), &new)
            .await
            .expect("a folder is made");
        let deep = self.create(&["a", "b", "c"]).await;
        assert!(inbox.uid_validity != 0 && deep.uid_validity != 0);
        let again = self
            .mailbox
            .create_folder(&path(&["Sent"]), &NewFolder::default())
            .await
            .expect("made already");
        assert_eq!(again, sent, "a folder that is there keeps its numbers");

        let listed = self.mailbox.folders().await.expect("folders are listed");
        assert!(listed[0].path.is_inbox(), "the inbox is first");
        for (index, folder) in listed.iter().enumerate() {
            assert_eq!(
                folder.selectable,
                folder.status.is_some(),
                "what can be selected has numbers"
            );
            if folder.path.0.len() > 1 {
                let parent = FolderPath(folder.path.0[..folder.path.0.len() - 1].to_vec());
                assert!(
                    listed[..index].iter().any(|other| other.path == parent),
                    "parents come before children"
                );
            }
        }
        let folders = self.folders().await;
        assert!(folders[&path(&["Sent"])].subscribed && !folders[&path(&["a", "b", "c"])].subscribed);
        assert!(matches!(
            folders[&path(&["Sent"])].special_use,
            None | Some(SpecialUse::Sent)
        ));
        assert_eq!(
            folders[&path(&["a", "b", "c"])].status,
            Some(deep),
            "listing shows the same numbers"
        );
        for subscribed in [true, false] {
            self.mailbox
                .subscribe(&path(&["a", "b", "c"]), subscribed)
                .await
                .expect("subscriptions change");
            assert_eq!(self.folders().await[&path(&["a", "b", "c"])].subscribed, subscribed);
        }
    }

    pub(super) async fn awkward_names_come_back(&self) {
        let long = "x".repeat(300);
        let deep: Vec<&str> = std::iter::repeat_n("deeper", 50).collect();
        let awkward: Vec<Vec<&str>> = vec![
            vec!["a.b", "c/d"],
            vec!["a", "b"],
            vec!["a/b"],
            vec!["a_b"],
            vec![".."],
            vec![".", "."],
            vec![".hidden"],
            vec!["~root"],
            vec!["Entwürfe & mehr"],
            vec!["日本語", "台北"],
            vec!["\u{1f4e7}"],
            vec!["é"],
            vec!["e\u{301}"],
            vec!["Inbox"],
            vec!["INBOX", "inbox"],
            vec!["INBOX", "INBOX"],
            vec!["Case"],
            vec!["case"],
            vec![" lead", "trail "],
            vec!["dot."],
            vec!["%*\"\\"],
            vec!["a\\2eb"],
            vec!["#news"],
            vec!["&", "&-"],
            vec!["cur"],
            vec!["tmp", "new"],
            vec!["tab\there"],
            vec!["line\nbreak\u{7f}"],
            vec!["\\-"],
            vec![""],
            vec!["[Gmail]", "All Mail"],
            vec![long.as_str()],
            vec!["p", long.as_str(), "q"],
            deep,
        ];
        self.create(&["INBOX"]).await;
        let mut made = BTreeMap::new();
        for (index, names) in awkward.iter().enumerate() {
            let created = self.mailbox.create_folder(&path(names), &NewFolder::default()).await;
            let status = match created {
                Err(error) if self.allowed.names_refused => {
                    assert_eq!(
                        (error.scope, error.retry),
                        (ErrorScope::Folder, Retry::Never),
                        "{names:?}: {error}"
                    );
                    continue;
                }
                created => created.expect("a folder is made"),
            };
            assert_eq!(status.exists, 0, "folder {names:?} is new");
            let source_uid = Uid::try_from(index).expect("few names") + 1;
            let new = item(source_uid, format!("Subject: {index}\n\n").as_bytes(), &[], 1_000_000);
            let uids = self.append(&path(names), std::slice::from_ref(&new)).await;
            self.mailbox
                .subscribe(&path(names), index % 2 == 0)
                .await
                .expect("subscriptions change");
            made.insert(path(names), (index % 2 == 0, uids[0], new));
        }
        let listed: BTreeMap<_, _> = self
            .folders()
            .await
            .into_iter()
            .filter(|(_, folder)| folder.selectable)
            .collect();
        // Some platforms make parents as folders that can be selected.
        for path in listed.keys().filter(|path| !path.is_inbox()) {
            let is_parent = made.keys().any(|made| made.0.starts_with(&path.0));
            assert!(
                is_parent,
                "each folder is listed under its own name, not as {:?}",
                path.0
            );
        }
        for (path, (subscribed, uid, new)) in &made {
            let folder = listed
                .get(path)
                .unwrap_or_else(|| panic!("folder {:?} is listed", path.0));
            assert_eq!(folder.subscribed, *subscribed, "{:?}", path.0);
            self.assert_holds(path, &[(*uid, new)]).await;
        }
    }

    pub(super) async fn folders_are_renamed(&self) {
        self.create(&["INBOX"]).await;
        for names in [&["a"][..], &["a", "b"], &["ab"], &["other"]] {
            self.create(names).await;
        }
        self.mailbox
            .subscribe(&path(&["a", "b"]), true)
            .await
            .expect("subscriptions change");
        let before = self.folders().await;
        let new = item(1, b"Subject: x\n\n", &["\\Seen"], 5);
        let uids = self.append(&path(&["a", "b"]), std::slice::from_ref(&new)).await;
        self.mailbox
            .rename_folder(&path(&["a"]), &path(&["new.name", "sub"]))
            .await
            .expect("a folder is renamed");
        let after = self.folders().await;
        let moved = &after[&path(&["new.name", "sub", "b"])];
        assert!(moved.subscribed, "the subscription moves along");
        let validity = |folder: &Folder| folder.status.map(|status| status.uid_validity);
        assert_eq!(
            validity(moved),
            validity(&before[&path(&["a", "b"])]),
            "a renamed folder keeps its UIDVALIDITY"
        );
        assert!(!after.contains_key(&path(&["a"])) && after.contains_key(&path(&["ab"])));
        self.assert_holds(&path(&["new.name", "sub", "b"]), &[(uids[0], &new)])
            .await;
        for (from, to) in [
            (&["ab"], &["other"]),
            (&["INBOX"], &["x"]),
            (&["none"], &["x"]),
            (&["ab"], &["INBOX"]),
        ] {
            let refused = self.mailbox.rename_folder(&path(from), &path(to)).await;
            assert!(refused.is_err(), "{from:?} is not renamed to {to:?}");
        }
        assert!(
            self.mailbox
                .rename_folder(&path(&["ab"]), &path(&["ab", "c"]))
                .await
                .is_err()
        );
        assert_eq!(self.folders().await, {
            let mut expected = after;
            let status = expected.get_mut(&path(&["new.name", "sub", "b"])).expect("it is there");
            status.status = self.folders().await[&path(&["new.name", "sub", "b"])].status;
            expected
        });
    }

    pub(super) async fn folders_are_removed(&self) {
        self.create(&["INBOX"]).await;
        let first = self.create(&["a"]).await;
        self.create(&["a", "b"]).await;
        self.append(&path(&["a"]), &[item(1, b"Subject: x\n\n", &[], 5)]).await;
        self.mailbox
            .remove_folder(&path(&["a"]))
            .await
            .expect("a folder is removed");
        self.mailbox
            .remove_folder(&path(&["a"]))
            .await
            .expect("removing twice is removing");
        let folders = self.folders().await;
        let left = folders.get(&path(&["a"])).and_then(|folder| folder.status);
        assert!(
            left.is_none_or(|status| self.allowed.parents_stay && status.exists == 0),
            "it is gone"
        );
        assert!(folders[&path(&["a", "b"])].selectable, "children stay");
        let again = self.create(&["a"]).await;
        assert_eq!(again.exists, 0, "a folder made again is empty");
        assert!(
            again.uid_validity != first.uid_validity || (left.is_some() && again.uid_next > 1),
            "and has another UIDVALIDITY"
        );
    }

    pub(super) async fn another_validity_is_refused(&self) {
        let first = self.create(&["a"]).await;
        let folder = path(&["a"]);
        let new = item(1, b"Subject: x\n\n", &["\\Seen"], 5);
        let uids = self.append(&folder, std::slice::from_ref(&new)).await;
        let stale = FolderRef::new(&folder, first.uid_validity.wrapping_add(1));
        let check = |error: MailboxError| {
            assert_eq!((error.scope, error.retry), (ErrorScope::Folder, Retry::Now), "{error}");
        };
        match self.mailbox.read(stale, &uids).await {
            Err(error) => check(error),
            Ok(_) => panic!("nothing is read from another validity"),
        }
        let other = item(2, b"Subject: y\n\n", &[], 6);
        let appended = self.mailbox.append(stale, vec![other]).await;
        check(appended.expect_err("nothing is appended to another validity"));
        let flagged = self.mailbox.set_flags(stale, &[(uids[0], Flags::default())]).await;
        check(flagged.expect_err("nothing is flagged in another validity"));
        let removed = self.mailbox.remove(stale, &uids).await;
        check(removed.expect_err("nothing is removed from another validity"));
        self.assert_holds(&folder, &[(uids[0], &new)]).await;
        let right = FolderRef::new(&folder, first.uid_validity);
        self.mailbox.remove(right, &uids).await.expect("in its own it is");
    }

    pub(super) async fn missing_folders_are_errors(&self) {
        self.create(&["INBOX"]).await;
        let missing = path(&["nowhere"]);
        let check = |error: MailboxError| {
            assert_eq!(
                (error.scope, error.retry),
                (ErrorScope::Folder, Retry::Never),
                "{error}"
            );
        };
        check(
            self.mailbox
                .list(&missing, None)
                .await
                .expect_err("a missing folder is not listed"),
        );
        check(
            self.mailbox
                .append(FolderRef::any(&missing), vec![item(1, b"Subject: x\n\n", &[], 5)])
                .await
                .expect_err("nor appended to"),
        );
        check(
            self.mailbox
                .set_flags(FolderRef::any(&missing), &[(1, Flags::default())])
                .await
                .expect_err("nor flagged in"),
        );
        check(
            self.mailbox
                .remove(FolderRef::any(&missing), &[1])
                .await
                .expect_err("nor removed from"),
        );
        assert!(
            self.mailbox.read(FolderRef::any(&missing), &[1]).await.is_err(),
            "nor read from"
        );
        assert!(
            self.mailbox
                .create_folder(&FolderPath(Vec::new()), &NewFolder::default())
                .await
                .is_err()
        );
    }
}
