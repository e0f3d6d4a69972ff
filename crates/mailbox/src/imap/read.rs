//! Streaming octets of items: flags and dates of a stretch of uids first, then their bodies, all in flight at once.
//!
//! What the first answer does not name and the second does not give is gone. Whatever else is missing, empty or
//! unreadable is asked for again alone, and failed only then. A connection that breaks between two items is replaced,
//! and the item it broke at is asked for alone; broken again there, that item is failed and the others go on.

use super::error::{Failure, Outcome, refused};
use super::mailbox::{ImapMailbox, Named};
use super::pool::Lease;
use crate::{ErrorScope, FolderPath, FolderRef, ItemMeta, MailboxError, ReadEvent, Retry, Uid};
use rehome_wire::imap::{
    Answer, BodyRequest, BodyStart, Command, Event, Fetch, FetchChanges, FetchItems, FetchedBody, MAX_COMMAND_LINE,
    SelectMode, Tag, chunks,
};
use rehome_wire::uid_set::UidSet;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Most uids of one FETCH.
const MOST_UIDS: usize = 500;
/// Stretches whose answers are awaited at once.
const IN_FLIGHT: usize = 4;
/// How often a broken connection is replaced in one call.
const MOST_LOSSES: usize = 6;
/// How often an item is asked for alone that came without its octets.
const ALONE_ATTEMPTS: usize = 2;

const META: FetchItems = FetchItems {
    flags: true,
    internal_date: true,
    size: false,
    mod_seq: false,
    email_id: false,
    guid: false,
    body: None,
};
const BODY: FetchItems = FetchItems {
    flags: false,
    internal_date: false,
    size: false,
    mod_seq: false,
    email_id: false,
    guid: false,
    body: Some(BodyRequest::Whole),
};

/// A stretch of uids that was asked for.
struct Stretch {
    uids: UidSet,
    metas: Tag,
    bodies: Tag,
}

/// The item whose octets come right now.
enum Current {
    /// They are passed on.
    Passed(Uid),
    /// Nobody wants them.
    Ignored,
}

/// Reads items of one folder.
pub(super) struct Reader {
    mailbox: ImapMailbox,
    path: FolderPath,
    uid_validity: Option<u32>,
    lease: Option<Lease>,
    /// Not answered, ascending; those in flight too.
    waiting: VecDeque<Uid>,
    /// The first uid that was not asked for yet, as a place in the order of `waiting`.
    unasked: Vec<UidSet>,
    flying: VecDeque<Stretch>,
    /// Something was asked for on this connection: without that nobody would get on who gives way to the others.
    has_asked: bool,
    /// What is known of those in flight.
    metas: HashMap<Uid, ItemMeta>,
    /// To be asked for alone.
    alone: BTreeSet<Uid>,
    current: Option<Current>,
    ready: VecDeque<ReadEvent>,
    losses: usize,
    lost_at: Option<Uid>,
    ended: bool,
}

impl Reader {
    /// Opens the folder for reading `uids`.
    pub(super) async fn begin(
        mailbox: &ImapMailbox,
        folder: FolderRef<'_>,
        uids: &[Uid],
    ) -> Result<Self, MailboxError> {
        let mut reader = Self {
            mailbox: mailbox.clone(),
            path: folder.path.clone(),
            uid_validity: folder.uid_validity,
            lease: None,
            waiting: uids.iter().copied().filter(|uid| *uid > 0).collect(),
            unasked: Vec::new(),
            flying: VecDeque::new(),
            has_asked: false,
            metas: HashMap::new(),
            alone: BTreeSet::new(),
            current: None,
            ready: uids
                .iter()
                .filter(|uid| **uid == 0)
                .map(|uid| ReadEvent::Gone(*uid))
                .collect(),
            losses: 0,
            lost_at: None,
            ended: false,
        };
        reader.connect().await.map_err(|failure| mailbox.told(failure))?;
        Ok(reader)
    }

    /// The next event; none at the end, and after an error.
    pub(super) async fn next(&mut self) -> Option<Result<ReadEvent, MailboxError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            if let Err(failure) = self.advance().await
                && let Err(failure) = self.recover(failure)
            {
                self.ended = true;
                self.lease = None;
                let what = format!("reading folder {}", self.path);
                return Some(Err(self.mailbox.told(failure.in_folder().during(what))));
            }
        }
    }

    /// A connection with the folder open in the validity that the first one had.
    async fn connect(&mut self) -> Outcome<()> {
        let Named { mut lease, name } = self.mailbox.lease_for(&self.path).await?;
        let folder = FolderRef {
            path: &self.path,
            uid_validity: self.uid_validity,
        };
        let highest = self.waiting.back().copied().unwrap_or_default();
        let opened = lease.open_to_see(folder, &name, SelectMode::ReadOnly, highest).await;
        if let Err(failure) = opened {
            if !(failure.is_lost() && lease.reused) {
                return Err(failure);
            }
            // The held connection had died.
            drop(lease);
            lease = self.mailbox.lease_for(&self.path).await?.lease;
            lease.open(folder, &name, SelectMode::ReadOnly).await?;
        }
        self.uid_validity = lease.selected.as_ref().map(super::selected::Selected::validity);
        self.lease = Some(lease);
        self.has_asked = false;
        let asked = self.waiting.iter().copied().filter(|uid| !self.alone.contains(uid));
        let asked: UidSet = asked.collect();
        // Room for the rest of the command.
        let octets = MAX_COMMAND_LINE - 200;
        self.unasked = chunks(&asked, octets, MOST_UIDS).collect();
        self.unasked.reverse();
        Ok(())
    }

    /// One step: more asked, one event taken, or one item asked for alone.
    async fn advance(&mut self) -> Outcome<()> {
        if self.lease.is_none() {
            if self.waiting.is_empty() {
                self.ended = true;
                return Ok(());
            }
            return self.connect().await;
        }
        if self.flying.len() < IN_FLIGHT && !self.unasked.is_empty() {
            if !self.has_asked || !self.lease.as_ref().is_some_and(Lease::is_waited_for) {
                self.ask_more();
            } else if self.flying.is_empty() {
                // Others have their turn; what is not answered is asked for on the connection that comes after.
                self.unasked.clear();
                self.lease = None;
                return Ok(());
            }
        }
        if let Some(stretch) = self.flying.front() {
            let tag = stretch.bodies;
            let Some(lease) = &mut self.lease else { return Ok(()) };
            let event = lease.event().await?;
            return self.take(event, tag);
        }
        let Some(uid) = self.alone.pop_first() else {
            self.ended = true;
            self.lease = None;
            return Ok(());
        };
        let answered = self.read_alone(uid).await;
        if answered.as_ref().is_err_and(Failure::is_lost) {
            self.alone.insert(uid);
        }
        answered
    }

    fn ask_more(&mut self) {
        while self.flying.len() < IN_FLIGHT
            && !self.asks_alone_first()
            && let Some(uids) = self.unasked.pop()
        {
            let Some(lease) = &mut self.lease else { return };
            let metas = lease.send(Command::uid_fetch(&uids, &META, FetchChanges::All));
            let bodies = lease.send(Command::uid_fetch(&uids, &BODY, FetchChanges::All));
            self.flying.push_back(Stretch { uids, metas, bodies });
            self.has_asked = true;
        }
    }

    /// After a loss the item in question comes first, so that it is known whose fault it was.
    fn asks_alone_first(&self) -> bool {
        self.lost_at.is_some_and(|uid| self.alone.contains(&uid))
    }

    fn take(&mut self, event: Event, bodies: Tag) -> Outcome<()> {
        match event {
            Event::BodyStart(start) => self.begin_body(&start),
            Event::BodyOctets(octets) => {
                if let Some(Current::Passed(_)) = self.current {
                    self.ready.push_back(ReadEvent::Octets(octets));
                }
            }
            Event::BodyEnd => {
                if let Some(Current::Passed(uid)) = self.current.take() {
                    self.ready.push_back(ReadEvent::End);
                    self.answered(uid);
                }
            }
            Event::Fetch(fetch) => self.take_fetch(fetch),
            Event::Tagged(tag, answer) => {
                if tag == bodies {
                    return self.end_stretch(&answer);
                }
                if !answer.is_ok() {
                    self.note_refusal(&answer)?;
                    self.doubt_metas(tag);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The question for flags and dates was refused: whoever was not named then is not gone for that.
    fn doubt_metas(&mut self, tag: Tag) {
        let Some(stretch) = self.flying.iter().find(|stretch| stretch.metas == tag) else {
            return;
        };
        let unnamed = self
            .waiting
            .iter()
            .filter(|uid| stretch.uids.contains(**uid) && !self.metas.contains_key(uid));
        self.alone.extend(unnamed);
    }

    /// Flags and date, before the body.
    fn take_fetch(&mut self, fetch: Fetch) {
        let Some(uid) = fetch.uid else { return };
        if !self.is_asked(uid) || self.metas.contains_key(&uid) || self.waiting.binary_search(&uid).is_err() {
            return;
        }
        match meta(uid, &fetch) {
            Some(meta) => {
                self.metas.insert(uid, meta);
            }
            // It is there, whatever else is said of it.
            None => {
                self.alone.insert(uid);
            }
        }
    }

    fn is_asked(&self, uid: Uid) -> bool {
        self.flying.iter().any(|stretch| stretch.uids.contains(uid))
    }

    /// Octets come: of an item that is waited for, they are passed on; those before it, that did not come, are settled.
    fn begin_body(&mut self, start: &BodyStart) {
        self.current = Some(Current::Ignored);
        let Some(uid) = start.uid.filter(|_| start.section.is_whole()) else {
            return;
        };
        let Ok(at) = self.waiting.binary_search(&uid) else {
            return;
        };
        let Some(meta) = self.metas.get(&uid).cloned() else {
            // It is there, and nothing is known of it.
            if self.is_asked(uid) {
                self.alone.insert(uid);
            }
            return;
        };
        if start.length == 0 {
            // Some servers say so of what they cannot read just now.
            self.alone.insert(uid);
            return;
        }
        if !self.alone.contains(&uid) {
            self.settle(at);
        }
        self.alone.remove(&uid);
        self.pass(meta, start.length);
    }

    fn pass(&mut self, meta: ItemMeta, length: u64) {
        let uid = meta.uid;
        let length_hint = Some(length);
        self.ready.push_back(ReadEvent::Item(ItemMeta { length_hint, ..meta }));
        self.current = Some(Current::Passed(uid));
    }

    /// The first `count` of those waiting are not coming: gone where the server did not name them, else asked alone.
    fn settle(&mut self, count: usize) {
        let passed: Vec<Uid> = self.waiting.iter().take(count).copied().collect();
        for uid in passed {
            if self.alone.contains(&uid) {
                continue;
            }
            if self.metas.contains_key(&uid) {
                self.alone.insert(uid);
            } else {
                self.ready.push_back(ReadEvent::Gone(uid));
                self.answered(uid);
            }
        }
    }

    fn answered(&mut self, uid: Uid) {
        self.metas.remove(&uid);
        self.alone.remove(&uid);
        if self.waiting.front() == Some(&uid) {
            self.waiting.pop_front();
        } else if let Ok(at) = self.waiting.binary_search(&uid) {
            self.waiting.remove(at);
        }
        if self.lost_at == Some(uid) {
            self.lost_at = None;
        }
    }

    fn end_stretch(&mut self, answer: &Answer) -> Outcome<()> {
        let Some(stretch) = self.flying.pop_front() else {
            return Ok(());
        };
        if answer.is_ok() {
            let last = stretch.uids.ranges().last().map_or(0, |&(_, last)| last);
            let count = self.waiting.partition_point(|uid| *uid <= last);
            self.settle(count);
            return Ok(());
        }
        self.note_refusal(answer)?;
        // Which of them it was about, each alone will tell.
        let open: Vec<Uid> = self
            .waiting
            .iter()
            .copied()
            .filter(|uid| stretch.uids.contains(*uid))
            .collect();
        self.alone.extend(open);
        Ok(())
    }

    /// A refusal that is about more than items ends the reading.
    fn note_refusal(&self, answer: &Answer) -> Outcome<()> {
        let failure = refused(format!("reading folder {}", self.path), answer, ErrorScope::Item);
        if failure.error.scope > ErrorScope::Folder {
            return Err(failure);
        }
        Ok(())
    }

    /// Asks for one item until it is whole, gone or failed.
    async fn read_alone(&mut self, uid: Uid) -> Outcome<()> {
        let mut why = String::new();
        for _ in 0..ALONE_ATTEMPTS {
            match self.ask_alone(uid).await? {
                Alone::Whole => return Ok(()),
                Alone::Gone => {
                    self.ready.push_back(ReadEvent::Gone(uid));
                    self.answered(uid);
                    return Ok(());
                }
                Alone::Without(cause) => why = cause,
            }
        }
        self.fail(uid, why, Retry::After(60));
        Ok(())
    }

    fn fail(&mut self, uid: Uid, cause: String, retry: Retry) {
        let error = MailboxError {
            what: format!("reading item {uid} of folder {}", self.path),
            cause,
            scope: ErrorScope::Item,
            retry,
        };
        self.ready.push_back(ReadEvent::Failed { uid, error });
        self.answered(uid);
    }

    async fn ask_alone(&mut self, uid: Uid) -> Outcome<Alone> {
        let Some(lease) = &mut self.lease else {
            return Ok(Alone::Without("there is no connection".to_owned()));
        };
        let set = UidSet::from_ascending([uid]);
        let with_size = FetchItems { size: true, ..META };
        let first = lease.send(Command::uid_fetch(&set, &with_size, FetchChanges::All));
        let tag = lease.send(Command::uid_fetch(&set, &BODY, FetchChanges::All));
        let mut about = AboutOne::default();
        loop {
            let Some(lease) = &mut self.lease else {
                return Ok(Alone::Without("there is no connection".to_owned()));
            };
            match lease.event().await? {
                Event::Fetch(fetch) => about.take_fetch(uid, &fetch),
                Event::BodyStart(start) => {
                    let is_it = start.section.is_whole() && start.uid.is_none_or(|started| started == uid);
                    self.current = Some(Current::Ignored);
                    if is_it
                        && about.takes(start.length)
                        && let Some(meta) = about.meta.clone()
                    {
                        about.passed = true;
                        self.pass(meta, start.length);
                    }
                }
                Event::Tagged(answered, answer) if answered == tag || answered == first => {
                    if !answer.is_ok() {
                        self.note_refusal(&answer)?;
                        about.refusal = Some(super::error::shown(&answer.to_string()));
                    }
                    if answered == tag {
                        break;
                    }
                }
                event => self.take(event, tag)?,
            }
        }
        Ok(about.end())
    }

    /// A broken connection is replaced where that can help.
    fn recover(&mut self, failure: Failure) -> Outcome<()> {
        self.flying.clear();
        self.metas.clear();
        self.unasked.clear();
        self.lease = None;
        let in_the_middle = matches!(self.current.take(), Some(Current::Passed(_)));
        self.losses += 1;
        if !failure.is_lost() || in_the_middle || self.losses > MOST_LOSSES || failure.error.retry != Retry::Now {
            return Err(failure);
        }
        let at = self
            .alone
            .first()
            .copied()
            .min(self.waiting.front().copied())
            .or(self.waiting.front().copied());
        let Some(at) = at else { return Err(failure) };
        if self.lost_at == Some(at) {
            let cause = format!("the connection breaks at this item: {}", failure.error.cause);
            self.fail(at, cause, Retry::After(60));
        } else {
            self.lost_at = Some(at);
            self.alone.insert(at);
        }
        Ok(())
    }
}

/// What became of an item that was asked for alone.
enum Alone {
    Whole,
    Gone,
    /// The server has it and does not give it.
    Without(String),
}

/// What was said of one item.
#[derive(Default)]
struct AboutOne {
    meta: Option<ItemMeta>,
    size: Option<u64>,
    /// The server named it.
    named: bool,
    empty: bool,
    passed: bool,
    refusal: Option<String>,
}

impl AboutOne {
    fn take_fetch(&mut self, uid: Uid, fetch: &Fetch) {
        if fetch.uid != Some(uid) {
            return;
        }
        self.named = true;
        if self.meta.is_none() {
            self.meta = meta(uid, fetch);
        }
        self.size = self.size.or(fetch.size);
        self.empty |= fetch.body == FetchedBody::Nil;
    }

    /// Whether a body of this length is the item's: none at all is not, where the server counts octets.
    fn takes(&mut self, length: u64) -> bool {
        let wanted = length > 0 || self.size == Some(0);
        self.empty |= !wanted;
        wanted && !self.passed
    }

    fn end(self) -> Alone {
        if self.passed {
            return Alone::Whole;
        }
        match (self.refusal, self.meta) {
            (Some(refusal), _) => Alone::Without(refusal),
            (None, None) if self.named => {
                Alone::Without("the server does not tell its flags and received time".to_owned())
            }
            (None, None) => Alone::Gone,
            (None, Some(_)) if self.empty => {
                let size = self.size.unwrap_or(0);
                Alone::Without(format!("the server counts {size} octets and gives none"))
            }
            (None, Some(_)) => Alone::Without("the server lists it and does not give it".to_owned()),
        }
    }
}

/// Flags and date, where the response has them.
fn meta(uid: Uid, fetch: &Fetch) -> Option<ItemMeta> {
    let flags = fetch.flags.clone()?;
    if fetch.internal_date.is_none() && fetch.complete {
        // News of flags.
        return None;
    }
    Some(ItemMeta {
        uid,
        flags,
        received: fetch.internal_date.unwrap_or(0),
        length_hint: fetch.size,
    })
}
