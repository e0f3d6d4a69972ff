//! The folder that a connection has open, and its numbers as the server tells them.

use super::connection::Connection;
use super::error::{Failure, Outcome, refused};
use crate::{ErrorScope, FolderPath, FolderRef, Retry, Uid};
use rehome_wire::flags::{Flags, SystemFlag};
use rehome_wire::imap::{
    Answer, Code, Command, Event, FetchChanges, FetchItems, MailboxName, SelectMode, Sync, Tag, Uids,
};

/// An open folder.
#[derive(Clone, Debug)]
pub(super) struct Selected {
    pub(super) name: MailboxName,
    mode: SelectMode,
    /// SELECT was answered by READ-ONLY, or EXAMINE was asked.
    pub(super) read_only: bool,
    uid_validity: Option<u32>,
    pub(super) uid_next: Option<u32>,
    pub(super) exists: u32,
    /// HIGHESTMODSEQ at the time of SELECT.
    highest_mod_seq: Option<u64>,
    no_mod_seq: bool,
    not_sticky: bool,
    permanent: Option<(Flags, bool)>,
}

impl Selected {
    fn opening(name: MailboxName, mode: SelectMode) -> Self {
        Self {
            name,
            mode,
            read_only: mode == SelectMode::ReadOnly,
            uid_validity: None,
            uid_next: None,
            exists: 0,
            highest_mod_seq: None,
            no_mod_seq: false,
            not_sticky: false,
            permanent: None,
        }
    }

    /// Whether it serves for what needs `mode`.
    pub(super) fn serves(&self, name: &MailboxName, mode: SelectMode) -> bool {
        self.name == *name && (mode == SelectMode::ReadOnly || self.mode == SelectMode::ReadWrite)
    }

    /// Whether it was opened to be changed, and the server does not let it.
    fn is_closed_to(&self, mode: SelectMode) -> bool {
        mode == SelectMode::ReadWrite && self.read_only
    }

    /// UIDVALIDITY; 0 before the folder is open.
    pub(super) fn validity(&self) -> u32 {
        self.uid_validity.unwrap_or_default()
    }

    /// Why its uids name nothing that another session could rely on; none where they do. What was copied once is known by
    /// uid alone: with uids that name other messages tomorrow, some would be taken for copied that are not.
    fn why_not_lasting(&self) -> Option<&'static str> {
        match (self.not_sticky, self.uid_validity) {
            (true, _) => {
                Some("the server says that its uids do not last (UIDNOTSTICKY), so it cannot be copied by them")
            }
            (false, None) => Some("the server tells no UIDVALIDITY, so it cannot be copied by its uids"),
            (false, Some(_)) => None,
        }
    }

    /// HIGHESTMODSEQ at the time of SELECT, where the folder keeps mod-sequences.
    pub(super) fn mod_seq(&self) -> Option<u64> {
        self.highest_mod_seq.filter(|mod_seq| !self.no_mod_seq && *mod_seq > 0)
    }

    /// Whether the folder takes keywords that it does not know yet; and those that it knows.
    pub(super) fn takes_keyword(&self, keyword: &str) -> bool {
        match &self.permanent {
            None | Some((_, true)) => true,
            Some((flags, false)) => flags.keywords().iter().any(|held| held.eq_ignore_ascii_case(keyword)),
        }
    }

    /// Whether the folder keeps a system flag. Servers that do not say so keep all.
    pub(super) fn keeps(&self, flag: SystemFlag) -> bool {
        self.permanent
            .as_ref()
            .is_none_or(|(flags, _)| flags.contains(flag) || flags.system() == 0)
    }

    pub(super) fn follow(&mut self, event: &Event) {
        match event {
            Event::Exists(count) => self.exists = *count,
            Event::Expunge(_) => self.exists = self.exists.saturating_sub(1),
            Event::Vanished { earlier: false, uids } => {
                self.exists = self
                    .exists
                    .saturating_sub(u32::try_from(uids.len()).unwrap_or(u32::MAX));
            }
            Event::Untagged(answer) | Event::Tagged(_, answer) => self.follow_code(answer),
            _ => {}
        }
    }

    fn follow_code(&mut self, answer: &Answer) {
        match &answer.code {
            // What was told before was about the folder before.
            Some(Code::Closed) => *self = Self::opening(self.name.clone(), self.mode),
            Some(Code::UidValidity(validity)) => self.uid_validity = Some(*validity).filter(|validity| *validity > 0),
            Some(Code::UidNext(uid)) => self.uid_next = Some(*uid).filter(|uid| *uid > 0),
            Some(Code::HighestModSeq(mod_seq)) => {
                self.highest_mod_seq.get_or_insert(*mod_seq);
            }
            Some(Code::NoModSeq) => self.no_mod_seq = true,
            Some(Code::UidNotSticky) => self.not_sticky = true,
            Some(Code::PermanentFlags { flags, new_keywords }) => self.permanent = Some((flags.clone(), *new_keywords)),
            Some(Code::ReadOnly) => self.read_only = true,
            _ => {}
        }
    }
}

impl Connection {
    /// Begins to open a folder; [`end_select`](Self::end_select) takes the answer.
    pub(super) fn begin_select(&mut self, name: &MailboxName, mode: SelectMode) -> Tag {
        self.selected = Some(Selected::opening(name.clone(), mode));
        let sync = if self.capabilities.condstore && !self.has_enabled_mod_seqs() {
            Sync::CondStore
        } else {
            Sync::None
        };
        self.send(Command::select(name, mode, sync))
    }

    /// Whether mod-sequences are told without asking for each folder.
    pub(super) fn has_enabled_mod_seqs(&self) -> bool {
        self.enabled.contains("QRESYNC") || self.enabled.contains("CONDSTORE")
    }

    /// Refuses folders whose uids do not last, too.
    pub(super) fn end_select(&mut self, path: &FolderPath, answer: &Answer) -> Outcome<()> {
        let what = format!("opening folder {path}");
        if !answer.is_ok() {
            self.selected = None;
            return Err(refused(what, answer, ErrorScope::Folder).unless_missing());
        }
        match self.selected.as_ref().and_then(Selected::why_not_lasting) {
            None => Ok(()),
            Some(cause) => {
                self.selected = None;
                Err(Failure::ours(what, cause, ErrorScope::Mailbox, Retry::Never))
            }
        }
    }

    /// Opens a folder unless it is open, and checks its validity.
    pub(super) async fn open(&mut self, folder: FolderRef<'_>, name: &MailboxName, mode: SelectMode) -> Outcome<()> {
        // What is open in another validity may be the folder that had the name before: it is looked at anew.
        let serves = self.selected.as_ref().is_some_and(|selected| {
            selected.serves(name, mode) && folder.check(selected.validity()).is_ok() && !selected.is_closed_to(mode)
        });
        if !serves {
            let tag = self.begin_select(name, mode);
            let answers = self.finish(&[tag], |_| {}).await?;
            for answer in &answers {
                self.end_select(folder.path, answer)?;
            }
        }
        self.check_open(folder, mode)
    }

    /// Opens a folder so that messages up to `highest` are seen. A session sees what arrived by another one only when the
    /// server tells it so (RFC 9051 §5.2): until then their uids look gone to it.
    pub(super) async fn open_to_see(
        &mut self,
        folder: FolderRef<'_>,
        name: &MailboxName,
        mode: SelectMode,
        highest: Uid,
    ) -> Outcome<()> {
        let opened_before = |selected: &Selected| selected.uid_next.is_none_or(|next| highest >= next);
        if self.selected.as_ref().is_some_and(opened_before) {
            self.selected = None;
        }
        self.open(folder, name, mode).await
    }

    /// Checks that the open folder is what the caller means.
    pub(super) fn check_open(&mut self, folder: FolderRef<'_>, mode: SelectMode) -> Outcome<()> {
        let what = || format!("opening folder {}", folder.path);
        let Some(selected) = &self.selected else {
            return Err(self.give_up("no folder is open"));
        };
        if mode == SelectMode::ReadWrite && selected.read_only {
            let cause = "the server lets it be read only";
            return Err(Failure::ours(what(), cause, ErrorScope::Folder, Retry::Never));
        }
        folder.check(selected.validity()).map_err(|error| Failure {
            error,
            kind: super::error::Kind::Ours,
        })
    }

    /// UIDNEXT of the open folder: as told, else above its last message.
    pub(super) async fn uid_next(&mut self) -> Outcome<u32> {
        if let Some(uid) = self.selected.as_ref().and_then(|selected| selected.uid_next) {
            return Ok(uid);
        }
        let mut last = 0;
        let command = Command::uid_fetch(Uids::From(u32::MAX), &FetchItems::default(), FetchChanges::All);
        self.demand("asking for the last message", ErrorScope::Folder, command, |event| {
            if let Event::Fetch(fetch) = event {
                last = last.max(fetch.uid.unwrap_or(0));
            }
        })
        .await?;
        Ok(last.saturating_add(1))
    }
}
