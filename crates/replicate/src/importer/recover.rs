//! After a crash: what an open intent brought to the target is found again by its window.

use super::{
    Mode, Work,
    changes::{RecordEdits, ReportEdits},
};
use crate::{
    error::PassError,
    ledger::{Changes, FolderState, Ledger, Record, UidMap, Window},
    reading::{ReadOutcome, read_digests},
    report::{Heading, ReportKind},
};
use rehome_mailbox::{ErrorScope, FolderRef, ItemMeta, Listing, MailboxError, Retry};
use rehome_wire::{digest::Digest, flags::Flags, uid_set::UidSet};
use std::collections::{BTreeMap, BTreeSet};

/// Items of the target that are digested at once.
const READ_BATCH: usize = 500;

/// An item of the target that may be one of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    uid: u32,
    length: u64,
    digest: Digest,
}

impl Candidate {
    fn is(&self, item: &Record) -> bool {
        (item.length, item.digest) == (self.length, self.digest)
    }
}

/// Matches a window's items with the candidates, which ascend by uid: by uid where they were given, else in order by
/// length and digest; what is left over after that, by length and digest alone. In a window of a target that may rewrite,
/// what lies between two that are matched so far is then matched by its place. Returns (place in the window, candidate).
pub(super) fn match_window(window: &Window, candidates: &[Candidate]) -> Vec<(usize, Candidate)> {
    let same =
        |item: &Record, candidate: &Candidate| candidate.is(item) && (!window.given_uids || item.uid == candidate.uid);
    let mut matched: Vec<Option<usize>> = vec![None; window.items.len()];
    let mut left_over = Vec::new();
    let mut from = 0;
    for (place, candidate) in candidates.iter().enumerate() {
        match window.items[from..].iter().position(|item| same(item, candidate)) {
            Some(offset) => {
                matched[from + offset] = Some(place);
                from += offset + 1;
            }
            None => left_over.push(place),
        }
    }
    for place in left_over {
        let open = window
            .items
            .iter()
            .zip(&matched)
            .position(|(item, held)| held.is_none() && same(item, &candidates[place]));
        if let Some(at) = open {
            matched[at] = Some(place);
        }
    }
    if window.by_position {
        match_by_place(&mut matched, candidates.len());
    }
    matched
        .into_iter()
        .enumerate()
        .filter_map(|(at, place)| Some((at, candidates[place?])))
        .collect()
}

/// Fills the gaps: items between two matched ones take the candidates between those two, in order.
fn match_by_place(matched: &mut [Option<usize>], candidates: usize) {
    let mut taken: BTreeSet<usize> = matched.iter().flatten().copied().collect();
    let mut after = 0;
    for at in 0..matched.len() {
        if let Some(place) = matched[at] {
            after = after.max(place + 1);
            continue;
        }
        let before = matched[at..].iter().flatten().copied().min().unwrap_or(candidates);
        if let Some(place) = (after..before).find(|place| !taken.contains(place)) {
            taken.insert(place);
            matched[at] = Some(place);
            after = place + 1;
        }
    }
}

impl Work<'_> {
    /// Closes what an interrupted pass left open. Costs the target nothing when nothing was.
    pub(super) async fn recover(&self) -> Result<(), PassError> {
        self.clear_spool().await?;
        self.recover_renames().await?;
        // A live mailbox's folders are its user's.
        if !self.is_live() {
            for number in self.in_state(FolderState::Removing) {
                self.remove_target_folder(number).await?;
            }
        }
        for number in self.ledger.folders_with_intents().await? {
            if self.ledger.folder(number).is_err() {
                continue;
            }
            let intents = self.ledger.intents(number).await?;
            if let Some(window) = intents.open {
                self.recover_window(number, &window).await?;
            }
        }
        if self.mode == Mode::Hidden {
            self.read_back_open().await?;
        }
        Ok(())
    }

    async fn recover_window(&self, number: u32, window: &Window) -> Result<(), PassError> {
        let entry = self.ledger.folder(number)?;
        let path = &entry.target_path;
        self.guard()?;
        let listing = match self.target.list(path, None).await {
            Ok(listing) => Some(listing),
            // Its user removed it: nothing of the intent is there.
            Err(error) if self.is_live() && is_missing(&error) => None,
            Err(error) => return Err(PassError::Target(error)),
        };
        let mut map = self.ledger.map(number).await?;
        let mut edits = RecordEdits::new();
        let mut report = ReportEdits::default();
        let mut flags: Vec<(u32, Flags)> = Vec::new();
        // In another folder of this name nothing can be of this intent.
        if let Some(listing) = listing.filter(|listing| listing.status.uid_validity == window.target_validity) {
            let candidates = self.candidates(number, window, &listing).await?;
            let window = &Window {
                // Others put items into a mailbox in use as well.
                by_position: window.by_position && !self.is_live(),
                ..window.clone()
            };
            for (at, candidate) in match_window(window, &candidates) {
                let item = &window.items[at];
                let uid = candidate.uid;
                let meta = listing
                    .items
                    .binary_search_by_key(&uid, |meta| meta.uid)
                    .map(|at| &listing.items[at]);
                // In a live mailbox they are the user's by now.
                if !self.is_live() && meta.is_ok_and(|meta| meta.flags != item.flags) {
                    flags.push((uid, item.flags.clone()));
                }
                map.insert(item.uid, uid);
                report.clear.push((item.uid, None));
                let outcome = ReadOutcome::Octets {
                    length: candidate.length,
                    digest: candidate.digest,
                };
                let (read_back, altered) = self.judge(number, item, Some(&outcome))?;
                report.put.extend(altered);
                edits.insert(
                    item.uid,
                    Some(Record {
                        read_back,
                        ..item.clone()
                    }),
                );
            }
        }
        tracing::info!(folder = %path, found = edits.len(), of = window.items.len(), "an open intent was recovered");
        self.outcome().items_recovered += edits.len() as u64;
        let dropped = self.set_target_flags(entry.on_target(), &flags).await?;
        for (item, keywords) in window
            .items
            .iter()
            .filter_map(|item| Some((item, dropped.get(&map.get(item.uid)?)?)))
        {
            report
                .put
                .push(self.dropped_keywords(number, item, Heading::default(), keywords)?);
        }
        let mut changes = Changes::default();
        let mut intents = self.ledger.intents(number).await?;
        if self.capabilities.append_once {
            intents.open = None;
        } else {
            intents.close_as_suspect();
        }
        changes.add(Ledger::intents_change(number, &intents));
        changes.add(Ledger::map_change(number, &map));
        self.edit_records(number, edits, &mut changes).await?;
        self.edit_report(number, report, &mut changes).await?;
        Ok(self.ledger.write(changes, "replicate.recovered").await?)
    }

    /// Items in the window that no map has, digested.
    async fn candidates(&self, number: u32, window: &Window, listing: &Listing) -> Result<Vec<Candidate>, PassError> {
        let mapped = self.mapped_targets(number).await?;
        let given = UidSet::from_iter(window.items.iter().filter(|_| window.given_uids).map(|item| item.uid));
        let in_window = |meta: &&ItemMeta| {
            (meta.uid >= window.uid_next || given.contains(meta.uid))
                && !mapped.iter().any(|map| map.contains(meta.uid))
        };
        let uids: Vec<u32> = listing.items.iter().filter(in_window).map(|meta| meta.uid).collect();
        self.digest_target(number, &uids).await
    }

    /// The target uids that are mapped, of a folder and of its earlier validities.
    pub(super) async fn mapped_targets(&self, number: u32) -> Result<Vec<UidSet>, PassError> {
        let mut mapped = vec![self.ledger.map(number).await?.targets()];
        for earlier in self.beside(number)? {
            mapped.push(self.ledger.map(earlier).await?.targets());
        }
        Ok(mapped)
    }

    pub(super) async fn digest_target(&self, number: u32, uids: &[u32]) -> Result<Vec<Candidate>, PassError> {
        let entry = self.ledger.folder(number)?;
        let mut candidates = Vec::with_capacity(uids.len());
        for uids in uids.chunks(READ_BATCH) {
            self.guard()?;
            let read: BTreeMap<u32, ReadOutcome> = read_digests(self.target, entry.on_target(), uids)
                .await
                .map_err(PassError::Target)?;
            candidates.extend(read.into_iter().filter_map(|(uid, outcome)| match outcome {
                ReadOutcome::Octets { length, digest } => Some(Candidate { uid, length, digest }),
                ReadOutcome::Gone | ReadOutcome::Failed(_) => None,
            }));
        }
        Ok(candidates)
    }

    /// Late doubles of recovered windows: items that no map has, from the window's start on, equal to one of it. They are
    /// removed while the mailbox is hidden, and reported once where it is live. Returns how many there were.
    pub(super) async fn remove_late_doubles(&self, number: u32, unknown: &[u32]) -> Result<usize, PassError> {
        let suspects = self.ledger.intents(number).await?.suspects;
        let entry = self.ledger.folder(number)?;
        let suspects: Vec<&Window> = suspects
            .iter()
            .filter(|window| window.target_validity == entry.target_validity)
            .collect();
        let Some(start) = suspects.iter().map(|window| window.uid_next).min() else {
            return Ok(0);
        };
        let unknown: Vec<u32> = unknown.iter().copied().filter(|uid| *uid >= start).collect();
        if unknown.is_empty() {
            return Ok(0);
        }
        if rehome_fault::planted("replicate.late_double_ignored") {
            return Ok(unknown.len());
        }
        let candidates = self.digest_target(number, &unknown).await?;
        let mut doubles: BTreeMap<u32, u32> = BTreeMap::new();
        for candidate in &candidates {
            let within = suspects.iter().filter(|window| candidate.uid >= window.uid_next);
            let mut equal = within
                .flat_map(|window| &window.items)
                .filter(|item| candidate.is(item));
            // Of equal items each is named once, as far as there are so many.
            let first = equal.clone().next();
            let item = equal
                .find(|item| !doubles.values().any(|uid| *uid == item.uid))
                .or(first);
            doubles.extend(item.map(|item| (candidate.uid, item.uid)));
        }
        tracing::info!(folder = %entry.target_path, doubles = doubles.len(), live = self.is_live(), "late doubles");
        self.outcome().late_doubles += doubles.len() as u64;
        if self.is_live() {
            let reports = doubles.iter().map(|(target_uid, uid)| {
                let reason = format!("the target holds it once more, as its item {target_uid}");
                self.report_item(number, *uid, ReportKind::Double, reason)
            });
            self.report_now(number, reports.collect::<Result<_, _>>()?).await?;
        } else {
            let uids: Vec<u32> = doubles.keys().copied().collect();
            self.remove_target_items(entry.on_target(), &uids).await?;
        }
        Ok(doubles.len())
    }

    /// Looks for late doubles in every folder that has a suspect window, from where that begins.
    pub(super) async fn look_for_late_doubles(&self) -> Result<(), PassError> {
        for number in self.ledger.folders_with_intents().await? {
            let Ok(entry) = self.ledger.folder(number) else {
                continue;
            };
            let suspects = self.ledger.intents(number).await?.suspects;
            let within = suspects
                .iter()
                .filter(|window| window.target_validity == entry.target_validity);
            let start = within.map(|window| window.uid_next).min();
            let Some(start) = start.filter(|_| entry.state == FolderState::Active) else {
                continue;
            };
            self.guard()?;
            let listing = match self.target.list_from(&entry.target_path, start).await {
                Ok(listing) if listing.status.uid_validity == entry.target_validity => listing,
                Ok(_) => continue,
                Err(error) if self.is_live() && is_missing(&error) => continue,
                Err(error) => return Err(PassError::Target(error)),
            };
            let mapped = self.mapped_targets(number).await?;
            let unknown = unmapped(&listing, &mapped);
            self.remove_late_doubles(number, &unknown).await?;
        }
        Ok(())
    }

    /// Removes items on the target.
    pub(super) async fn remove_target_items(&self, folder: FolderRef<'_>, uids: &[u32]) -> Result<(), PassError> {
        for uids in uids.chunks(1_000) {
            self.guard()?;
            self.target.remove(folder, uids).await.map_err(PassError::Target)?;
        }
        Ok(())
    }
}

/// Whether a folder of the target is not there.
pub(super) fn is_missing(error: &MailboxError) -> bool {
    error.scope <= ErrorScope::Folder && error.retry == Retry::Never
}

/// The uids of a target's listing that no map has.
pub(super) fn unmapped(listing: &Listing, mapped: &[UidSet]) -> Vec<u32> {
    let uids = listing.items.iter().map(|meta| meta.uid);
    uids.filter(|uid| !mapped.iter().any(|map| map.contains(*uid)))
        .collect()
}

/// The target uids of source uids, ascending.
pub(super) fn targets_of(map: &UidMap, uids: &[u32]) -> Vec<u32> {
    let mut targets: Vec<u32> = uids.iter().filter_map(|uid| map.get(*uid)).collect();
    targets.sort_unstable();
    targets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::ReadBack;
    use proptest::prelude::*;

    fn item(uid: u32, content: u8) -> Record {
        Record {
            uid,
            length: 1,
            digest: Digest::of(&[content]),
            flags: Flags::default(),
            received: 0,
            read_back: ReadBack::Open,
            line_ends_only: false,
        }
    }

    fn window(contents: &[u8], given_uids: bool) -> Window {
        let items = contents
            .iter()
            .zip(1..)
            .map(|(content, uid)| item(uid, *content))
            .collect();
        Window {
            given_uids,
            by_position: false,
            target_validity: 1,
            uid_next: 100,
            items,
        }
    }

    fn candidates(contents: &[(u32, u8)]) -> Vec<Candidate> {
        contents
            .iter()
            .map(|(uid, content)| Candidate {
                uid: *uid,
                length: 1,
                digest: Digest::of(&[*content]),
            })
            .collect()
    }

    #[test]
    fn window_table() {
        for (sent, found, given, expected) in [
            (
                &b"abc"[..],
                &[(100, b'a'), (101, b'b')][..],
                false,
                &[(0, 100), (1, 101)][..],
            ),
            // The second was refused, the third is there.
            (b"abc", &[(100, b'a'), (101, b'c')], false, &[(0, 100), (2, 101)]),
            // Equal items keep their multiplicity and order.
            (b"aab", &[(100, b'a')], false, &[(0, 100)]),
            (
                b"aba",
                &[(100, b'a'), (101, b'b'), (102, b'a')],
                false,
                &[(0, 100), (1, 101), (2, 102)],
            ),
            // Something foreign between.
            (
                b"ab",
                &[(100, b'x'), (101, b'a'), (102, b'b')],
                false,
                &[(0, 101), (1, 102)],
            ),
            // Out of order, as a copy that was refused and appended later.
            (b"ab", &[(100, b'b'), (101, b'a')], false, &[(0, 101), (1, 100)]),
            // Given uids match by uid as well.
            (b"aab", &[(2, b'a'), (3, b'b')], true, &[(1, 2), (2, 3)]),
            (b"ab", &[(1, b'b')], true, &[]),
        ] {
            let matched = match_window(&window(sent, given), &candidates(found));
            assert_eq!(places(&matched), expected, "{sent:?} {found:?}");
        }
    }

    fn places(matched: &[(usize, Candidate)]) -> Vec<(usize, u32)> {
        matched.iter().map(|(at, candidate)| (*at, candidate.uid)).collect()
    }

    #[test]
    fn places_table() {
        for (sent, found, expected) in [
            // All were rewritten.
            (
                &b"abc"[..],
                &[(100, b'x'), (101, b'y'), (102, b'z')][..],
                &[(0, 100), (1, 101), (2, 102)][..],
            ),
            // The command was cut behind two.
            (b"abc", &[(100, b'x'), (101, b'y')], &[(0, 100), (1, 101)]),
            // One was left as it was, and fixes the places around it.
            (
                b"abc",
                &[(100, b'x'), (101, b'b'), (102, b'z')],
                &[(0, 100), (1, 101), (2, 102)],
            ),
            (b"abc", &[(100, b'b'), (101, b'z')], &[(1, 100), (2, 101)]),
            (b"abc", &[(100, b'x'), (101, b'b')], &[(0, 100), (1, 101)]),
            // More than were sent.
            (b"a", &[(100, b'x'), (101, b'y')], &[(0, 100)]),
        ] {
            let window = Window {
                by_position: true,
                ..window(sent, false)
            };
            assert_eq!(
                places(&match_window(&window, &candidates(found))),
                expected,
                "{sent:?} {found:?}"
            );
        }
    }

    proptest! {
        #![proptest_config(crate::repeatable::config())]

        /// Whatever part of a window was applied, exactly that many of each content are matched, each candidate once.
        #[test]
        fn multiplicity_is_kept(sent in prop::collection::vec(0u8..4, 0..12), mask in any::<u16>()) {
            let applied: Vec<(u32, u8)> = sent.iter().enumerate()
                .filter(|(at, _)| mask >> at & 1 == 1).map(|(at, content)| (100 + at as u32, *content)).collect();
            let matched = match_window(&window(&sent, false), &candidates(&applied));
            let matched = places(&matched);
            let mut uids: Vec<u32> = matched.iter().map(|(_, uid)| *uid).collect();
            uids.sort_unstable();
            prop_assert_eq!(uids, applied.iter().map(|(uid, _)| *uid).collect::<Vec<_>>());
            for (at, uid) in matched {
                prop_assert_eq!(sent[at], applied.iter().find(|(held, _)| *held == uid).unwrap().1);
            }
        }
    }
}
