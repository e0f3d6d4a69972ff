//! Items: octets, dates, flags, removal.

use super::{Read, Suite, item, key, octets_of, path, uid_of};
use crate::{Appended, Body, FolderPath, FolderRef, NewItem, Uid};
use rehome_wire::flags::Flags;

impl Suite<'_> {
    pub(super) async fn items_come_back(&self) {
        self.create(&["INBOX"]).await;
        let inbox = FolderPath::inbox();
        let items = [
            item(1, b"Subject: one\n\nbody\n", &[], 1_700_000_000),
            item(
                2,
                b"Subject: two\r\n\r\nbody",
                &["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft"],
                1_700_000_001,
            ),
            item(3, b"Subject: three\n", &["$Forwarded", "work", "\\Seen"], 1_600_000_000),
        ];
        let uids = self.append(&inbox, &items).await;
        assert!(
            uids.is_sorted_by(|one, two| one < two),
            "uids ascend in the order of the items"
        );
        let expected: Vec<(Uid, &NewItem)> = uids.iter().copied().zip(&items).collect();
        self.assert_holds(&inbox, &expected).await;
        assert_eq!(
            self.list(&inbox).await,
            self.list(&inbox).await,
            "a listing changes nothing"
        );
        let empty = self
            .mailbox
            .append(FolderRef::any(&inbox), Vec::new())
            .await
            .expect("nothing is appended");
        assert!(empty.is_empty());
        assert!(self.read(&inbox, &[]).await.is_empty());
        let answers = self.read(&inbox, &[uids[0], uids[2], 4_000_000]).await;
        assert!(matches!(answers[1].1, Read::Item(..)), "any uids can be asked for");
        assert_eq!(answers[2].1, Read::Gone, "a uid that never was is gone");
    }

    pub(super) async fn nasty_octets_come_back(&self) {
        self.create(&["INBOX"]).await;
        let long_line = [&b"Subject: long\r\n\r\n"[..], &vec![b'y'; 200_000], b"\r\n"].concat();
        let edge = [
            vec![b'z'; 65_535],
            b"\r\n\r".to_vec(),
            vec![b'z'; 65_536],
            b"\r\rq".to_vec(),
        ]
        .concat();
        let every: Vec<u8> = (0..=255).collect();
        let raw: Vec<&[u8]> = vec![
            b"Subject: \xe4\xf6\xfc\xff\r\n\r\n\x80\x81",
            b"nul \0 in \0\0 it\r\n\0",
            b"lone \r cr \r\r and \r",
            b"\rfirst",
            b"\n",
            b"\r\n\r\n",
            b"mixed\nends\r\nof\r\r\nlines\r",
            b"From nobody Mon Jan  1 00:00:00 2001\r\nSubject: x\r\n\r\n",
            b"Subject: headers only",
            b" \r\n",
            b".\r\n..\r\n",
            b"\x1a",
            &every,
            &long_line,
            &edge,
        ];
        let items: Vec<NewItem> = (1..)
            .zip(raw)
            .map(|(uid, raw)| item(uid, raw, &[], 1_500_000_000))
            .collect();
        let taken = self.append_odd(&FolderPath::inbox(), &items).await;
        assert!(taken.len() * 2 >= items.len(), "most odd items are taken");
        self.assert_holds(&FolderPath::inbox(), &taken).await;
    }

    pub(super) async fn received_times_come_back(&self) {
        self.create(&["INBOX"]).await;
        let times = [
            0,
            1,
            -1,
            -86_400 * 365 * 50,
            2_147_483_647,
            2_147_483_648,
            4_102_444_800,
            1_700_000_000,
        ];
        let items: Vec<NewItem> = (1..)
            .zip(times)
            .filter(|(_, time)| (1..=1_700_000_000).contains(time) || !self.allowed.odd_times_changed)
            .map(|(uid, time)| item(uid, b"Subject: x\n\n", &[], time))
            .collect();
        let uids = self.append(&FolderPath::inbox(), &items).await;
        self.assert_holds(&FolderPath::inbox(), &uids.into_iter().zip(&items).collect::<Vec<_>>())
            .await;
    }

    pub(super) async fn duplicates_stay(&self) {
        self.create(&["INBOX"]).await;
        let same = b"Message-ID: <one@contoso.example>\r\n\r\nsame\r\n";
        let items: Vec<NewItem> = (1..=5).map(|uid| item(uid, same, &["\\Seen"], 1_700_000_000)).collect();
        let uids = self.append(&FolderPath::inbox(), &items).await;
        self.assert_holds(&FolderPath::inbox(), &uids.into_iter().zip(&items).collect::<Vec<_>>())
            .await;
    }

    pub(super) async fn large_item(&self) {
        let most = self.mailbox.capabilities().max_item_length.unwrap_or(u64::MAX);
        self.create(&["INBOX"]).await;
        let mut state = 1_u32;
        let mut octets = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let mut raw = b"Subject: large\n\n".to_vec();
        raw.extend((0..5_000_000.min(most.saturating_sub(100))).map(|_| octets().max(1)));
        let items = [item(1, &raw, &[], 9)];
        if items[0].length <= most {
            let uids = self.append(&FolderPath::inbox(), &items).await;
            self.assert_holds(&FolderPath::inbox(), &[(uids[0], &items[0])]).await;
        }
    }

    pub(super) async fn many_small_items(&self) {
        self.create(&["many"]).await;
        let folder = path(&["many"]);
        let raw = |number: u32| format!("Subject: {number}\r\n\r\n{number}\r\n");
        let items: Vec<NewItem> = (1..=600)
            .map(|number| item(number, raw(number).as_bytes(), &["\\Seen"], i64::from(number)))
            .collect();
        let mut uids = self.append(&folder, &items[..500]).await;
        uids.extend(self.append(&folder, &items[500..]).await);
        self.assert_holds(&folder, &uids.into_iter().zip(&items).collect::<Vec<_>>())
            .await;
    }

    pub(super) async fn spooled_items(&self) {
        self.create(&["INBOX"]).await;
        let inbox = FolderPath::inbox();
        let spool = std::env::temp_dir().join(format!("rehome-conformance-{}", uuid::Uuid::new_v4()));
        let in_memory = item(1, b"Subject: spooled\r\n\r\n\x01\xff", &[], 77);
        std::fs::write(&spool, octets_of(&in_memory)).expect("a temporary file is written");
        let spooled = NewItem {
            body: Body::Spooled(spool.clone()),
            ..in_memory.clone()
        };
        let short = NewItem {
            key: key(2),
            length: in_memory.length + 1,
            ..spooled.clone()
        };
        let appended = self
            .mailbox
            .append(FolderRef::any(&inbox), vec![spooled, short])
            .await
            .expect("items are appended");
        assert!(
            matches!(appended[1], Appended::Refused(_)),
            "an item that is not as long as announced is refused"
        );
        self.assert_holds(&inbox, &[(uid_of(&appended[0]), &in_memory)]).await;
        std::fs::remove_file(&spool).expect("the spool is its owner's");
    }

    pub(super) async fn flags_are_set(&self) {
        self.create(&["INBOX"]).await;
        let inbox = FolderPath::inbox();
        let mut items: Vec<NewItem> = (1..=3)
            .map(|uid| item(uid, b"Subject: x\n\n", &["\\Seen"], 9))
            .collect();
        let uids = self.append(&inbox, &items).await;
        let keywords = self.mailbox.capabilities().keywords;
        let rounds: [[&[&str]; 2]; 4] = [
            [&["\\Flagged", "\\Seen"], &[]],
            [&["\\Deleted", "$Label1", "Work"], &["WORK", "\\Draft"]],
            [&["$label1"], &["\\Answered"]],
            [&[], &["\\Seen", "$Label2"]],
        ];
        for round in rounds {
            let changes: Vec<(Uid, Flags)> = uids
                .iter()
                .zip(round)
                .map(|(uid, flags)| (*uid, Flags::from_names(flags)))
                .collect();
            let dropped = self
                .mailbox
                .set_flags(FolderRef::any(&inbox), &changes)
                .await
                .expect("flags are set");
            assert!(!keywords || dropped.is_empty(), "a handful of keywords is kept");
            for (item, (_, flags)) in items.iter_mut().zip(&changes) {
                item.flags = flags.clone();
            }
            self.assert_holds(&inbox, &uids.iter().copied().zip(&items).collect::<Vec<_>>())
                .await;
        }
        let gone = self
            .mailbox
            .set_flags(FolderRef::any(&inbox), &[(999_999, Flags::from_names(["\\Seen"]))])
            .await;
        assert!(gone.expect("items that are gone are skipped").is_empty());
        self.assert_too_many_keywords(&inbox, &mut items, uids).await;
    }

    /// Keywords are kept or named as dropped; the items are there either way.
    async fn assert_too_many_keywords(&self, inbox: &FolderPath, items: &mut Vec<NewItem>, mut uids: Vec<Uid>) {
        let names: Vec<String> = (0..40).map(|number| format!("keyword{number:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut new = item(50, b"Subject: many\n\n", &names, 9);
        let appended = self
            .mailbox
            .append(FolderRef::any(inbox), vec![new.clone()])
            .await
            .expect("the item is taken");
        let Appended::Uid { uid, keywords_dropped } = &appended[0] else {
            panic!("the item is taken: {appended:?}")
        };
        let kept = |dropped: &[String]| {
            let kept = new
                .flags
                .keywords()
                .iter()
                .filter(|keyword| !dropped.contains(keyword))
                .cloned()
                .collect();
            Flags::from_parts(new.flags.system(), kept)
        };
        let flags = kept(keywords_dropped);
        let set = self
            .mailbox
            .set_flags(FolderRef::any(inbox), &[(*uid, new.flags.clone())])
            .await
            .expect("flags are set");
        let dropped = set.into_iter().flat_map(|(_, dropped)| dropped).collect::<Vec<_>>();
        assert_eq!(kept(&dropped), flags, "appending and setting keep the same keywords");
        new.flags = flags;
        items.push(new);
        uids.push(*uid);
        self.assert_holds(inbox, &uids.into_iter().zip(items.iter()).collect::<Vec<_>>())
            .await;
    }

    pub(super) async fn items_are_removed(&self) {
        self.create(&["INBOX"]).await;
        let inbox = FolderPath::inbox();
        let items: Vec<NewItem> = (1..=4).map(|uid| item(uid, b"Subject: x\n\n", &[], 9)).collect();
        let uids = self.append(&inbox, &items).await;
        self.mailbox
            .remove(FolderRef::any(&inbox), &[uids[1], uids[3], 999_999])
            .await
            .expect("items are removed");
        self.mailbox
            .remove(FolderRef::any(&inbox), &[uids[1]])
            .await
            .expect("removing twice is removing");
        self.assert_holds(&inbox, &[(uids[0], &items[0]), (uids[2], &items[2])])
            .await;
        let answers = self.read(&inbox, &uids).await;
        assert_eq!(answers[1].1, Read::Gone);
        assert_eq!(answers[3].1, Read::Gone);
    }

    pub(super) async fn uids_are_never_reused(&self) {
        self.create(&["INBOX"]).await;
        let inbox = FolderPath::inbox();
        let first = self
            .append(
                &inbox,
                &[item(1, b"Subject: a\n\n", &[], 9), item(2, b"Subject: b\n\n", &[], 9)],
            )
            .await;
        let before = self.list(&inbox).await.status;
        self.mailbox
            .remove(FolderRef::any(&inbox), &first)
            .await
            .expect("items are removed");
        let after = self.list(&inbox).await.status;
        assert_eq!(
            (after.uid_validity, after.uid_next),
            (before.uid_validity, before.uid_next)
        );
        let second = self.append(&inbox, &[item(3, b"Subject: c\n\n", &[], 9)]).await;
        assert!(second[0] >= before.uid_next, "a uid is never given again");
    }
}
