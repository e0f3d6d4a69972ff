//! Everything that changes a mailbox but appending: folders, flags, removals, copies; and its quota.

use super::connection::Connection;
use super::error::{Failure, Kind, Outcome, refused};
use super::folders::{attribute, names, status};
use super::mailbox::ImapMailbox;
use super::quirks::split_keywords;
use crate::{
    Appended, ErrorScope, FolderPath, FolderRef, FolderStatus, ItemMeta, MailboxError, NewFolder, NewItem, Quota,
    Retry, SpecialUse, Uid,
};
use rehome_wire::flags::{Flags, SystemFlag};
use rehome_wire::imap::{
    Answer, Code, Command, Event, FetchChanges, FetchItems, ListAttribute, ListOptions, MAX_COMMAND_LINE, MailboxName,
    SelectMode, StoreMode, SubscribedOnly, Uids, chunks,
};
use rehome_wire::uid_set::UidSet;
use std::collections::{BTreeMap, HashMap};

/// Octets of a set in a command, with room for the rest of it.
const SET_OCTETS: usize = MAX_COMMAND_LINE - 2000;
/// Commands of one kind in flight at once.
const AT_ONCE: usize = 50;
/// Most uids of one command.
const MOST_UIDS: usize = 5000;

/// Makes a folder under the first of its names that the server takes.
pub(super) async fn create(
    mailbox: &ImapMailbox,
    connection: &mut Connection,
    path: &FolderPath,
    new: &NewFolder,
) -> Outcome<FolderStatus> {
    let what = format!("creating folder {path}");
    let mut last = None;
    let listed = mailbox.listed_name(path);
    let was_listed = listed.is_some();
    let candidates = listed.map_or_else(|| mailbox.names_for(path), |name| vec![name]);
    for mut name in candidates {
        if !path.is_inbox() {
            let answer = ask_create(connection, &name, new.special_use).await?;
            let exists = !answer.is_ok()
                && (matches!(answer.code, Some(Code::AlreadyExists)) || is_there(connection, &name).await?);
            if exists && !was_listed {
                let Some(own) = own_name(mailbox, connection, path).await? else {
                    let cause = "the server holds another folder for it";
                    last = Some(Failure::ours(&what, cause, ErrorScope::Folder, Retry::Never));
                    continue;
                };
                name = own;
            } else if !exists && !answer.is_ok() {
                let failure = refused(&what, &answer, ErrorScope::Folder);
                if failure.error.scope > ErrorScope::Folder || failure.is_lost() {
                    return Err(failure);
                }
                let retry = Retry::Never;
                let error = MailboxError { retry, ..failure.error };
                last = Some(Failure { error, ..failure });
                continue;
            }
        }
        mailbox.remember_name(path, &name);
        if new.subscribed {
            subscribe(connection, path, &name, true).await?;
        }
        let (status, _) = status(connection, path, &name).await?;
        return Ok(status);
    }
    Err(last.unwrap_or_else(|| Failure::ours(what, "it has no name", ErrorScope::Folder, Retry::Never)))
}

/// The name under which a folder that exists is listed. None where it is listed as another folder: servers take names
/// for the same that differ in case or in how their characters are composed, and two folders must not become one.
async fn own_name(
    mailbox: &ImapMailbox,
    connection: &mut Connection,
    path: &FolderPath,
) -> Outcome<Option<MailboxName>> {
    let known = names(connection).await?;
    let own = known.get(path).cloned();
    mailbox.remember(known);
    Ok(own)
}

async fn ask_create(
    connection: &mut Connection,
    name: &MailboxName,
    special_use: Option<SpecialUse>,
) -> Outcome<Answer> {
    if let Some(special_use) = special_use
        && connection.capabilities.create_special_use
    {
        let command = Command::create(name, &[attribute(special_use)]);
        let answer = connection.ask(command, |_| {}).await?;
        // Another folder may have the use already; the folder matters more.
        if answer.is_ok() {
            return Ok(answer);
        }
    }
    let answer = connection.ask(Command::create(name, &[]), |_| {}).await?;
    let there = answer.is_ok() || matches!(answer.code, Some(Code::AlreadyExists));
    if let Some(special_use) = special_use
        && there
        && connection.capabilities.metadata
    {
        let value = attribute(special_use).name().as_bytes();
        let command = Command::set_metadata(name, &[("/private/specialuse", Some(value))]);
        // A folder without its special use is still the folder.
        connection.ask(command, |_| {}).await?;
    }
    Ok(answer)
}

/// Whether the folder can be selected: servers before RFC 5530 do not say that it exists already.
async fn is_there(connection: &mut Connection, name: &MailboxName) -> Outcome<bool> {
    let items = rehome_wire::imap::StatusItems::BASIC;
    Ok(connection.ask(Command::status(name, items), |_| {}).await?.is_ok())
}

/// Subscribes or unsubscribes.
pub(super) async fn subscribe(
    connection: &mut Connection,
    path: &FolderPath,
    name: &MailboxName,
    subscribed: bool,
) -> Outcome<()> {
    let (what, command) = if subscribed {
        (format!("subscribing to folder {path}"), Command::subscribe(name))
    } else {
        (format!("unsubscribing from folder {path}"), Command::unsubscribe(name))
    };
    let answer = connection.ask(command, |_| {}).await?;
    let failure = match answer.is_ok() {
        true => return Ok(()),
        false => refused(what, &answer, ErrorScope::Folder),
    };
    // Whoever was not subscribed is not any more.
    if !subscribed && failure.error.scope <= ErrorScope::Folder && !failure.is_lost() {
        return Ok(());
    }
    Err(failure)
}

/// Renames a folder with all below it, and moves the subscriptions along, which IMAP leaves behind.
pub(super) async fn rename(
    mailbox: &ImapMailbox,
    connection: &mut Connection,
    from: &FolderPath,
    to: &FolderPath,
) -> Outcome<()> {
    let what = format!("renaming folder {from} to {to}");
    let refuse = |cause: &str| Failure::ours(what.clone(), cause, ErrorScope::Folder, Retry::Never);
    if from.is_inbox() || to.is_inbox() {
        return Err(refuse("the inbox is never renamed"));
    }
    if from.0.is_empty() || to.0.is_empty() || to.0.starts_with(&from.0) {
        return Err(refuse("a folder cannot be renamed to itself or to something below it"));
    }
    let known = names(connection).await?;
    if known.get(to).is_some() {
        return Err(refuse("there is a folder of this name already"));
    }
    let source = known.get(from).cloned();
    let subscriptions = subscriptions_below(mailbox, connection, from).await?;
    let target = mailbox.names_for(to);
    let mut last = Err(refuse("there is no such folder"));
    if let Some(source) = source {
        for target in target {
            let answer = connection.ask(Command::rename(&source, &target), |_| {}).await?;
            last = match answer.is_ok() {
                true => Ok(()),
                false => Err(refused(&what, &answer, ErrorScope::Folder)),
            };
            if last.as_ref().is_ok_and(|()| true) || last.as_ref().is_err_and(Failure::is_lost) {
                break;
            }
        }
    } else {
        let below: Vec<(FolderPath, MailboxName)> = known.below(from);
        for (path, name) in below {
            let moved = moved(&path, from, to);
            let Some(target) = mailbox.names_for(&moved).into_iter().next() else {
                continue;
            };
            let answer = connection.ask(Command::rename(&name, &target), |_| {}).await?;
            // Servers move what is below along, so that it is found moved already.
            last = match answer.is_ok() || refused(&what, &answer, ErrorScope::Folder).kind == Kind::Missing {
                true => Ok(()),
                false => return Err(refused(&what, &answer, ErrorScope::Folder)),
            };
        }
    }
    last.map_err(|mut failure| {
        if failure.kind == Kind::Refused && failure.error.scope == ErrorScope::Folder {
            failure.error.retry = Retry::Never;
        }
        failure
    })?;
    connection.selected = None;
    let renamed = names(connection).await?;
    for (path, name) in subscriptions {
        let moved = moved(&path, from, to);
        let target = renamed
            .get(&moved)
            .cloned()
            .or_else(|| mailbox.names_for(&moved).into_iter().next());
        if let Some(target) = target {
            subscribe(connection, &moved, &target, true).await?;
        }
        subscribe(connection, &path, &name, false).await?;
    }
    mailbox.remember(renamed);
    Ok(())
}

/// The path after a rename.
fn moved(path: &FolderPath, from: &FolderPath, to: &FolderPath) -> FolderPath {
    let below = path.0.get(from.0.len()..).unwrap_or_default();
    FolderPath(to.0.iter().chain(below).cloned().collect())
}

/// Subscribed folders at and below a path.
async fn subscriptions_below(
    mailbox: &ImapMailbox,
    connection: &mut Connection,
    from: &FolderPath,
) -> Outcome<Vec<(FolderPath, MailboxName)>> {
    let tree = super::folders::tree(connection);
    let reference = MailboxName::new("");
    let patterns = tree.patterns();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let mut tags = Vec::new();
    if connection.capabilities.list_extended {
        let options = ListOptions {
            only: SubscribedOnly::Yes,
            ..ListOptions::default()
        };
        tags.push(connection.send(Command::list(&reference, &patterns, &options)));
    } else {
        for pattern in patterns {
            tags.push(connection.send(Command::lsub(&reference, pattern)));
        }
    }
    let mut found = Vec::new();
    connection
        .finish(&tags, |event| {
            let listed = match event {
                Event::List(listed) => listed,
                Event::Lsub(listed) if !listed.attributes.contains(ListAttribute::NoSelect) => listed,
                _ => return,
            };
            if let Some(path) = tree.path(&listed.name)
                && path.0.starts_with(&from.0)
            {
                found.push((path, listed.name));
            }
        })
        .await?;
    // A doubtful name is listed under its own path only where nothing else has that.
    found.retain(|(path, name)| mailbox.listed_name(path).is_none_or(|listed| listed == *name));
    Ok(found)
}

/// Removes a folder; what is below stays.
pub(super) async fn remove_folder(connection: &mut Connection, path: &FolderPath, name: &MailboxName) -> Outcome<()> {
    let what = format!("removing folder {path}");
    if path.is_inbox() {
        let cause = "the inbox cannot be removed";
        return Err(Failure::ours(what, cause, ErrorScope::Folder, Retry::Never));
    }
    if connection
        .selected
        .as_ref()
        .is_some_and(|selected| selected.name == *name)
    {
        connection.selected = None;
        if connection.capabilities.unselect {
            connection.ask(Command::unselect(), |_| {}).await?;
        }
    }
    let answer = connection.ask(Command::delete(name), |_| {}).await?;
    if matches!(answer.code, Some(Code::HasChildren)) {
        // What is below could not stay: the folder stays too, without what it held.
        empty(connection, path, name).await?;
    } else if !answer.is_ok() {
        let failure = refused(what, &answer, ErrorScope::Folder);
        if failure.kind != Kind::Missing && (failure.is_lost() || is_there(connection, name).await?) {
            return Err(failure);
        }
    }
    subscribe(connection, path, name, false).await
}

/// Removes everything that a folder holds.
async fn empty(connection: &mut Connection, path: &FolderPath, name: &MailboxName) -> Outcome<()> {
    connection
        .open(FolderRef::any(path), name, SelectMode::ReadWrite)
        .await?;
    let what = format!("emptying folder {path}");
    let deleted = Flags::from_names([SystemFlag::Deleted.name()]);
    let tags = [
        connection.send(Command::uid_store(Uids::From(1), StoreMode::Add, &deleted, None)),
        connection.send(Command::expunge()),
    ];
    let answers = connection.finish(&tags, |_| {}).await?;
    match answers.last() {
        Some(answer) if !answer.is_ok() => Err(refused(what, answer, ErrorScope::Folder)),
        Some(_) | None => Ok(()),
    }
}

/// Sets flags to exactly these, one STORE for all uids that get the same.
pub(super) async fn set_flags(
    connection: &mut Connection,
    folder: FolderRef<'_>,
    name: &MailboxName,
    changes: &[(Uid, Flags)],
) -> Outcome<Vec<(Uid, Vec<String>)>> {
    let highest = changes.iter().map(|(uid, _)| *uid).max().unwrap_or_default();
    connection
        .open_to_see(folder, name, SelectMode::ReadWrite, highest)
        .await?;
    let mut groups: BTreeMap<Vec<String>, (Flags, UidSet)> = BTreeMap::new();
    let mut dropped = Vec::new();
    for (uid, flags) in changes.iter().filter(|(uid, _)| *uid > 0) {
        let quirks = connection.quirks;
        let selected = connection.selected.as_ref();
        let takes = |keyword: &str| {
            quirks.takes_keyword(keyword) && selected.is_none_or(|selected| selected.takes_keyword(keyword))
        };
        let (flags, without) = split_keywords(flags, takes);
        if !without.is_empty() {
            dropped.push((*uid, without));
        }
        let group = groups
            .entry(flags.canonical_names())
            .or_insert_with(|| (flags, UidSet::new()));
        group.1.insert(*uid);
    }
    let what = format!("setting flags in folder {}", folder.path);
    let groups: Vec<(Flags, UidSet)> = groups
        .into_values()
        .flat_map(|(flags, uids)| {
            let pieces: Vec<UidSet> = chunks(&uids, SET_OCTETS, MOST_UIDS).collect();
            pieces.into_iter().map(move |uids| (flags.clone(), uids))
        })
        .collect();
    for some in groups.chunks(AT_ONCE) {
        let refusals = store_all(connection, StoreMode::Replace, some).await?;
        for (at, answer) in refusals {
            let (flags, uids) = &some[at];
            let failure = refused(&what, &answer, ErrorScope::Folder);
            if flags.keywords().is_empty() || failure.error.scope > ErrorScope::Folder || failure.is_lost() {
                return Err(failure);
            }
            // Perhaps a keyword was too many; without them the rest is kept.
            let plain = (Flags::from_parts(flags.system(), Vec::new()), uids.clone());
            if let Some((_, answer)) = store_all(connection, StoreMode::Replace, &[plain]).await?.pop() {
                return Err(refused(&what, &answer, ErrorScope::Folder));
            }
            dropped.extend(uids.iter().map(|uid| (uid, flags.keywords().to_vec())));
        }
    }
    Ok(dropped)
}

/// STOREs in flight at once; those that were not answered by OK, by their places.
async fn store_all(
    connection: &mut Connection,
    mode: StoreMode,
    groups: &[(Flags, UidSet)],
) -> Outcome<Vec<(usize, Answer)>> {
    let tags: Vec<_> = groups
        .iter()
        .map(|(flags, uids)| connection.send(Command::uid_store(uids, mode, flags, None)))
        .collect();
    let answers = connection.finish(&tags, |_| {}).await?;
    Ok(answers
        .into_iter()
        .enumerate()
        .filter(|(_, answer)| !answer.is_ok())
        .collect())
}

/// Removes items for good, and nothing else.
pub(super) async fn remove(
    connection: &mut Connection,
    folder: FolderRef<'_>,
    name: &MailboxName,
    uids: &[Uid],
) -> Outcome<()> {
    let what = format!("removing items of folder {}", folder.path);
    let highest = uids.iter().copied().max().unwrap_or_default();
    connection
        .open_to_see(folder, name, SelectMode::ReadWrite, highest)
        .await?;
    let uids: UidSet = uids.iter().copied().filter(|uid| *uid > 0).collect();
    if uids.is_empty() {
        return Ok(());
    }
    let deleted = Flags::from_names([SystemFlag::Deleted.name()]);
    let pieces: Vec<UidSet> = chunks(&uids, SET_OCTETS, MOST_UIDS).collect();
    let all = |answers: Vec<Answer>| match answers.iter().find(|answer| !answer.is_ok()) {
        Some(answer) => Err(refused(&what, answer, ErrorScope::Folder)),
        None => Ok(()),
    };
    if connection.capabilities.uid_plus {
        for piece in pieces {
            let store = connection.send(Command::uid_store(&piece, StoreMode::Add, &deleted, None));
            let expunge = connection.send(Command::uid_expunge(&piece));
            all(connection.finish(&[store, expunge], |_| {}).await?)?;
        }
        return Ok(());
    }
    // EXPUNGE takes all that is marked, so that the marks of others are lifted meanwhile.
    let others = marked_by_others(connection, &what, &uids).await?;
    let others: Vec<(Flags, UidSet)> = chunks(&others, SET_OCTETS, MOST_UIDS)
        .map(|piece| (deleted.clone(), piece))
        .collect();
    let ours: Vec<(Flags, UidSet)> = pieces.into_iter().map(|piece| (deleted.clone(), piece)).collect();
    let stored = |mut refusals: Vec<(usize, Answer)>| match refusals.pop() {
        Some((_, answer)) => Err(refused(&what, &answer, ErrorScope::Folder)),
        None => Ok(()),
    };
    // Whatever is refused, the marks of others are set again.
    let mut outcome = stored(store_all(connection, StoreMode::Remove, &others).await?);
    if outcome.is_ok() {
        outcome = stored(store_all(connection, StoreMode::Add, &ours).await?);
    }
    if outcome.is_ok() {
        let answer = connection.ask(Command::expunge(), |_| {}).await?;
        outcome = all(vec![answer]);
    }
    let restored = stored(store_all(connection, StoreMode::Add, &others).await?);
    outcome.and(restored)
}

/// Messages with `\Deleted` that are not to be removed; by FETCH, since one that SEARCH leaves out would be lost.
async fn marked_by_others(connection: &mut Connection, what: &str, ours: &UidSet) -> Outcome<UidSet> {
    let mut is_marked: BTreeMap<Uid, bool> = BTreeMap::new();
    let items = FetchItems {
        flags: true,
        ..FetchItems::default()
    };
    let command = Command::uid_fetch(Uids::From(1), &items, FetchChanges::All);
    connection
        .demand(what, ErrorScope::Folder, command, |event| {
            if let Event::Fetch(fetch) = event
                && let (Some(uid), Some(flags)) = (fetch.uid, fetch.flags)
            {
                is_marked.insert(uid, flags.contains(SystemFlag::Deleted));
            }
        })
        .await?;
    let counted = connection.selected.as_ref().map_or(0, |selected| selected.exists) as usize;
    if is_marked.len() < counted {
        // One that was left out may be marked.
        let cause = format!("the server counts {counted} messages and lists {}", is_marked.len());
        return Err(Failure::ours(what, cause, ErrorScope::Folder, Retry::After(60)));
    }
    let others = is_marked
        .into_iter()
        .filter(|(uid, marked)| *marked && !ours.contains(*uid));
    Ok(UidSet::from_ascending(others.map(|(uid, _)| uid)))
}

/// What is to be copied.
pub(super) struct Copy<'a> {
    pub(super) from: FolderRef<'a>,
    pub(super) uids: &'a [Uid],
    pub(super) to: FolderRef<'a>,
    pub(super) target: &'a MailboxName,
    pub(super) items: &'a [NewItem],
}

/// Copies items inside the server. COPY keeps the received time: an item that is to have another one is refused, so
/// that it is appended instead; other flags are set afterwards.
pub(super) async fn copy(connection: &mut Connection, name: &MailboxName, asked: &Copy<'_>) -> Outcome<Vec<Appended>> {
    let what = format!("copying from folder {} to folder {}", asked.from.path, asked.to.path);
    if asked.uids.len() != asked.items.len() {
        let cause = "each uid needs one item";
        return Err(Failure::ours(what, cause, ErrorScope::Folder, Retry::Never));
    }
    // The target is opened last, when its flags are set; its validity is looked at before anything is copied.
    connection.open(asked.to, asked.target, SelectMode::ReadWrite).await?;
    let validity = connection.selected.as_ref().map(super::selected::Selected::validity);
    let highest = asked.uids.iter().copied().max().unwrap_or_default();
    connection
        .open_to_see(asked.from, name, SelectMode::ReadOnly, highest)
        .await?;
    let uids: UidSet = asked.uids.iter().copied().filter(|uid| *uid > 0).collect();
    let metas = metas(connection, &what, &uids).await?;
    let mut results: Vec<Option<Appended>> = vec![None; asked.items.len()];
    let mut wanted: BTreeMap<Uid, usize> = BTreeMap::new();
    for (at, (uid, item)) in asked.uids.iter().zip(asked.items).enumerate() {
        let cause = match metas.get(uid) {
            None => "the item is gone",
            Some(meta) if meta.received != item.received => "a copy would have another received time",
            Some(_) if wanted.contains_key(uid) => "it is copied once at a time",
            Some(_) => {
                wanted.insert(*uid, at);
                continue;
            }
        };
        results[at] = Some(Appended::Refused(MailboxError {
            what: format!("copying item {uid} of folder {}", asked.from.path),
            cause: cause.to_owned(),
            scope: ErrorScope::Item,
            retry: Retry::Never,
        }));
    }
    let set: UidSet = wanted.keys().copied().collect();
    let copies = copy_set(connection, &what, asked.target, &set, validity).await?;
    let mut changes = Vec::new();
    for (uid, at) in wanted {
        let Some(copied) = copies.get(&uid) else {
            results[at] = Some(Appended::Refused(MailboxError {
                what: format!("copying item {uid} of folder {}", asked.from.path),
                cause: "the server did not copy it".to_owned(),
                scope: ErrorScope::Item,
                retry: Retry::Never,
            }));
            continue;
        };
        if metas.get(&uid).is_some_and(|meta| meta.flags != asked.items[at].flags) {
            changes.push((*copied, asked.items[at].flags.clone()));
        }
        results[at] = Some(Appended::Uid {
            uid: *copied,
            keywords_dropped: Vec::new(),
        });
    }
    if !changes.is_empty() {
        let dropped: HashMap<Uid, Vec<String>> = set_flags(connection, asked.to, asked.target, &changes)
            .await?
            .into_iter()
            .collect();
        for result in results.iter_mut().flatten() {
            if let Appended::Uid { uid, keywords_dropped } = result
                && let Some(dropped) = dropped.get(uid)
            {
                keywords_dropped.clone_from(dropped);
            }
        }
    }
    Ok(results.into_iter().flatten().collect())
}

/// Flags and received times of what is there.
async fn metas(connection: &mut Connection, what: &str, uids: &UidSet) -> Outcome<HashMap<Uid, ItemMeta>> {
    let items = FetchItems {
        flags: true,
        internal_date: true,
        ..FetchItems::default()
    };
    let mut metas = HashMap::new();
    for piece in chunks(uids, SET_OCTETS, MOST_UIDS) {
        let command = Command::uid_fetch(&piece, &items, FetchChanges::All);
        connection
            .demand(what, ErrorScope::Folder, command, |event| {
                if let Event::Fetch(fetch) = event
                    && let (Some(uid), Some(flags), Some(received)) = (fetch.uid, fetch.flags, fetch.internal_date)
                {
                    let length_hint = None;
                    metas.insert(
                        uid,
                        ItemMeta {
                            uid,
                            flags,
                            received,
                            length_hint,
                        },
                    );
                }
            })
            .await?;
    }
    Ok(metas)
}

/// Copies the set; which copy each got. In order, so that copies ascend with their sources.
async fn copy_set(
    connection: &mut Connection,
    what: &str,
    target: &MailboxName,
    set: &UidSet,
    validity: Option<u32>,
) -> Outcome<HashMap<Uid, Uid>> {
    let mut copies = HashMap::new();
    for piece in chunks(set, SET_OCTETS, MOST_UIDS) {
        let scope = ErrorScope::Folder;
        let answer = connection
            .demand(what, scope, Command::uid_copy(&piece, target), |_| {})
            .await?;
        let Some(Code::CopyUid { uid_validity, from, to }) = answer.code else {
            // Nothing was there to copy any more, or copies are somewhere that nobody names.
            let cause = "the server does not say whether it copied";
            return Err(Failure::ours(what, cause, scope, Retry::Now));
        };
        if validity.is_some_and(|validity| validity != uid_validity)
            || from.len() != to.len()
            || from.len() > piece.len()
        {
            let cause = "the server does not say where the copies are";
            return Err(Failure::ours(what, cause, scope, Retry::Now));
        }
        copies.extend(from.iter().zip(to.iter()));
    }
    Ok(copies)
}

/// Storage used and allowed; the tightest of the inbox' roots.
pub(super) async fn quota(connection: &mut Connection) -> Outcome<Option<Quota>> {
    if !connection.capabilities.quota {
        return Ok(None);
    }
    let mut quota: Option<Quota> = None;
    let command = Command::get_quota_root(&MailboxName::new("INBOX"));
    let answer = connection
        .ask(command, |event| {
            if let Event::Quota(told) = event
                && let Some((used, limit)) = told.storage_octets()
                && quota.is_none_or(|held| limit.saturating_sub(used) < held.limit.saturating_sub(held.used))
            {
                quota = Some(Quota { used, limit });
            }
        })
        .await?;
    let failure = match answer.is_ok() {
        true => return Ok(quota),
        false => refused("asking for the quota", &answer, ErrorScope::Mailbox),
    };
    match failure.kind {
        // A server that offers quotas and has none here.
        Kind::Refused | Kind::Missing => Ok(None),
        Kind::Lost | Kind::Throttled | Kind::Crowded | Kind::SignIn | Kind::Ours => Err(failure),
    }
}
