//! Appending items: many to a command where the server can, all commands in flight at once.
//!
//! The last CR LF of a command is its commit: whatever ends before an answer leaves the outcome unknown, and is an
//! error. One bad item fails a whole MULTIAPPEND, so doubtful items go alone, and the items of a refused command are
//! sent again one by one.

use super::connection::Connection;
use super::error::{Failure, Outcome, refused};
use super::quirks::{Kind, Quirks, has_nul, split_keywords};
use crate::{Appended, Body, ErrorScope, FolderRef, MailboxError, NewItem, Retry, Uid};
use rehome_wire::flags::{Flags, SystemFlag};
use rehome_wire::imap::{
    Answer, AppendForm, AppendItem, Code, Command, Condition, Event, FetchChanges, FetchItems, MailboxName, SelectMode,
    Uids,
};
use std::collections::HashSet;
use tokio::io::AsyncReadExt;

/// Most octets of one command with several items.
const MOST_OCTETS: u64 = 16 * 1024 * 1024;
/// Items above this go alone.
const LARGE: u64 = 4 * 1024 * 1024;
/// Most items of one command.
const MOST_ITEMS: usize = 200;

/// An item as it is sent.
#[derive(Clone)]
struct Prepared {
    /// Its place among the items given.
    at: usize,
    flags: Flags,
    dropped: Vec<String>,
    received: i64,
    length: u64,
    body: Body,
    form: AppendForm,
    alone: bool,
}

/// What is known of each item so far.
struct Progress {
    results: Vec<Option<Appended>>,
    /// Places of items that are there under uids that the server did not name, in the order in which they were sent.
    unnamed: Vec<usize>,
    dropped: Vec<Vec<String>>,
}

impl Progress {
    fn there(&mut self, item: &Prepared, uid: Uid) {
        self.results[item.at] = Some(Appended::Uid {
            uid,
            keywords_dropped: item.dropped.clone(),
        });
    }

    fn refuse(&mut self, at: usize, error: MailboxError) {
        self.results[at] = Some(Appended::Refused(error));
    }
}

/// Appends `items` in order.
pub(super) async fn append(
    connection: &mut Connection,
    folder: FolderRef<'_>,
    name: &MailboxName,
    items: Vec<NewItem>,
) -> Outcome<Vec<Appended>> {
    let names_uids = connection.capabilities.uid_plus && !connection.names_no_uids;
    if !names_uids {
        // UIDNEXT must be the one of now: what is above it afterwards is what was appended.
        connection.selected = None;
    }
    connection.open(folder, name, SelectMode::ReadWrite).await?;
    let uid_next = if names_uids {
        None
    } else {
        Some(connection.uid_next().await?)
    };
    let count = items.len();
    let mut progress = Progress {
        results: vec![None; count],
        unnamed: Vec::new(),
        dropped: vec![Vec::new(); count],
    };
    let mut prepared = Vec::with_capacity(count);
    for (at, item) in items.into_iter().enumerate() {
        match prepare(connection, folder, at, item).await {
            Ok(item) => prepared.push(item),
            Err(error) => progress.refuse(at, error),
        }
    }
    let mut groups = grouped(prepared, connection.capabilities.multi_append);
    // What is refused alone is refused for good, unless it can be plainer than it was: fewer flags, another time,
    // another form, each at most once.
    while !groups.is_empty() {
        let again = send(connection, folder, name, groups, &mut progress).await?;
        groups = again.into_iter().map(|item| vec![item]).collect();
    }
    if !progress.unnamed.is_empty() {
        let Some(uid_next) = uid_next else {
            // It has UIDPLUS and names no uids all the same: from now on they are looked for.
            connection.names_no_uids = true;
            return Err(unknown(folder, "the server does not say where the items are"));
        };
        name_by_window(connection, folder, uid_next, &mut progress).await?;
    }
    let results: Vec<Appended> = progress.results.into_iter().flatten().collect();
    if results.len() == count {
        Ok(results)
    } else {
        Err(unknown(folder, "not every item was answered"))
    }
}

/// Nobody knows whether the items are there.
fn unknown(folder: FolderRef<'_>, cause: impl Into<String>) -> Failure {
    let what = format!("appending to folder {}", folder.path);
    Failure::ours(what, cause, ErrorScope::Folder, Retry::Now)
}

/// Checks an item before anything is sent: length, emptiness, limits, NUL, keywords.
async fn prepare(
    connection: &Connection,
    folder: FolderRef<'_>,
    at: usize,
    item: NewItem,
) -> Result<Prepared, MailboxError> {
    let refuse = |cause: String| MailboxError {
        what: format!("appending item {} to folder {}", item.key.source_uid, folder.path),
        cause,
        scope: ErrorScope::Item,
        retry: Retry::Never,
    };
    let quirks = connection.quirks;
    let look = look_at(quirks, &item).await.map_err(refuse)?;
    if look.length != item.length {
        return Err(refuse(format!(
            "it has {} octets, not the {} announced",
            look.length, item.length
        )));
    }
    if item.length == 0 {
        return Err(refuse(
            "it is empty, and IMAP cannot append an empty message".to_owned(),
        ));
    }
    if let Some(limit) = connection
        .capabilities
        .append_limit
        .filter(|limit| item.length > *limit)
    {
        return Err(refuse(format!(
            "[TOOBIG] it has {} octets, and the server takes {limit}",
            item.length
        )));
    }
    let form = match (look.nul, quirks.kind, connection.capabilities.binary) {
        // Dovecot takes NUL in any literal, and with literal8 it would encode binary parts anew.
        (false, ..) | (true, Kind::Dovecot, _) => AppendForm::Literal,
        (true, _, true) => AppendForm::Literal8,
        (true, _, false) => {
            return Err(refuse(
                "it holds NUL, which this server cannot take (no BINARY)".to_owned(),
            ));
        }
    };
    let selected = connection.selected.as_ref();
    let takes = |keyword: &str| {
        quirks.takes_keyword(keyword) && selected.is_none_or(|selected| selected.takes_keyword(keyword))
    };
    let (mut flags, dropped) = split_keywords(&item.flags, takes);
    for flag in SystemFlag::ALL {
        if flags.contains(flag) && selected.is_some_and(|selected| !selected.keeps(flag)) {
            flags.remove(flag);
        }
    }
    Ok(Prepared {
        at,
        flags,
        dropped,
        received: item.received,
        length: item.length,
        alone: look.doubtful || item.length > LARGE || form != AppendForm::Literal,
        body: item.body,
        form,
    })
}

/// What is to be known of an item's octets.
struct Look {
    length: u64,
    nul: bool,
    doubtful: bool,
}

async fn look_at(quirks: Quirks, item: &NewItem) -> Result<Look, String> {
    match &item.body {
        Body::Memory(octets) => Ok(Look {
            length: octets.len() as u64,
            nul: has_nul(octets),
            doubtful: quirks.is_doubtful(octets),
        }),
        Body::Spooled(path) => {
            let unreadable = |error: std::io::Error| format!("its spool file cannot be read: {error}");
            let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
            let mut buffer = vec![0; 256 * 1024];
            let (mut length, mut nul) = (0, false);
            loop {
                let count = file.read(&mut buffer).await.map_err(unreadable)?;
                if count == 0 {
                    break;
                }
                length += count as u64;
                nul |= has_nul(&buffer[..count]);
            }
            let doubtful = true;
            Ok(Look { length, nul, doubtful })
        }
    }
}

/// Items of one command each: as many as it may have, doubtful ones alone, in order.
fn grouped(items: Vec<Prepared>, multi_append: bool) -> Vec<Vec<Prepared>> {
    let mut groups: Vec<Vec<Prepared>> = Vec::new();
    let mut octets = 0;
    for item in items {
        let joins = multi_append
            && !item.alone
            && groups
                .last()
                .is_some_and(|group| group.len() < MOST_ITEMS && !group[0].alone)
            && octets + item.length <= MOST_OCTETS;
        if joins && let Some(group) = groups.last_mut() {
            octets += item.length;
            group.push(item);
        } else {
            octets = item.length;
            groups.push(vec![item]);
        }
    }
    groups
}

/// Sends all groups and takes all answers. Returns the items that are to be sent again alone.
async fn send(
    connection: &mut Connection,
    folder: FolderRef<'_>,
    name: &MailboxName,
    groups: Vec<Vec<Prepared>>,
    progress: &mut Progress,
) -> Outcome<Vec<Prepared>> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let mut tags = Vec::with_capacity(groups.len());
    for group in &groups {
        let items: Vec<AppendItem<'_>> = group
            .iter()
            .map(|item| AppendItem {
                flags: &item.flags,
                internal_date: Some(item.received),
                body: item.at as u64,
                length: item.length,
                form: item.form,
            })
            .collect();
        for item in group {
            connection.supply(item.at as u64, item.body.clone());
        }
        tags.push(connection.send(Command::append(name, &items)));
    }
    let answers = connection.finish(&tags, |_| {}).await?;
    connection.pay().await?;
    connection.take_back_bodies();
    let mut again = Vec::new();
    let mut worst: Option<Failure> = None;
    for (group, answer) in groups.into_iter().zip(answers) {
        let answered = if answer.is_ok() {
            take_ok(connection, folder, &group, &answer, progress)
        } else {
            let utf8 = connection.enabled.contains("UTF8=ACCEPT");
            take_no(folder, group, &answer, utf8, progress, &mut again)
        };
        if let Err(failure) = answered
            && worst
                .as_ref()
                .is_none_or(|worst| worst.error.scope < failure.error.scope)
        {
            worst = Some(failure);
        }
    }
    match worst {
        Some(failure) => Err(failure),
        None => Ok(again),
    }
}

fn take_ok(
    connection: &mut Connection,
    folder: FolderRef<'_>,
    group: &[Prepared],
    answer: &Answer,
    progress: &mut Progress,
) -> Outcome<()> {
    let Some(Code::AppendUid { uid_validity, uids }) = &answer.code else {
        progress.unnamed.extend(group.iter().map(|item| item.at));
        for item in group {
            progress.dropped[item.at].clone_from(&item.dropped);
        }
        return Ok(());
    };
    let open = connection.selected.as_ref().map(super::selected::Selected::validity);
    if open.is_some_and(|open| open != *uid_validity) {
        // What is open here is not what has the name now.
        connection.selected = None;
        let cause = format!("the items went into another folder of the same name (UIDVALIDITY {uid_validity})");
        return Err(unknown(folder, cause));
    }
    let distinct = uids.len() == group.len() && uids.iter().collect::<HashSet<Uid>>().len() == group.len();
    if !distinct {
        let cause = format!("the server named {} uids for {} items", uids.len(), group.len());
        return Err(unknown(folder, cause));
    }
    for (item, uid) in group.iter().zip(uids.iter()) {
        progress.there(item, uid);
    }
    Ok(())
}

fn take_no(
    folder: FolderRef<'_>,
    mut group: Vec<Prepared>,
    answer: &Answer,
    utf8: bool,
    progress: &mut Progress,
    again: &mut Vec<Prepared>,
) -> Outcome<()> {
    let what = format!("appending to folder {}", folder.path);
    let failure = refused(what, answer, ErrorScope::Item);
    if failure.error.scope > ErrorScope::Item {
        return Err(failure);
    }
    if group.len() > 1 {
        again.append(&mut group);
        return Ok(());
    }
    for mut item in group {
        if !item.flags.keywords().is_empty() && may_be_keywords(answer) && !is_about_time(answer) {
            item.dropped.extend(item.flags.keywords().iter().cloned());
            item.flags = Flags::from_parts(item.flags.system(), Vec::new());
            again.push(item);
        } else if let Some(received) = nearest_time(item.received).filter(|_| is_about_time(answer)) {
            // The comparison of listings names the other time; a time of now would be wrong in silence.
            item.received = received;
            again.push(item);
        } else if utf8 && item.form == AppendForm::Literal && has_eight_bit_header(&item.body) {
            item.form = AppendForm::Utf8;
            again.push(item);
        } else {
            progress.refuse(item.at, failure.error.clone());
        }
    }
    Ok(())
}

/// Whether the header has octets above 127, which some servers take only as UTF8 (RFC 6855 §4).
fn has_eight_bit_header(body: &Body) -> bool {
    let Body::Memory(octets) = body else { return false };
    let end = octets
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or(octets.len());
    !octets[..end].is_ascii()
}

/// Whether a refusal is, or may be, about keywords.
fn may_be_keywords(answer: &Answer) -> bool {
    let text = answer.text.to_ascii_lowercase();
    matches!(answer.code, Some(Code::Limit | Code::Cannot))
        || answer.condition == Condition::Bad
        || text.contains("keyword")
        || text.contains("flag")
}

/// Whether a refusal is about the received time.
fn is_about_time(answer: &Answer) -> bool {
    answer.text.to_ascii_lowercase().contains("date")
}

/// The nearest received time that any server takes; none where this is one.
fn nearest_time(received: i64) -> Option<i64> {
    // Zero is no time to some.
    let nearest = received.clamp(1, i64::from(i32::MAX));
    (nearest != received).then_some(nearest)
}

/// The uids of items that the server did not name: if exactly as many are new in the folder, they are these, in order.
async fn name_by_window(
    connection: &mut Connection,
    folder: FolderRef<'_>,
    uid_next: Uid,
    progress: &mut Progress,
) -> Outcome<()> {
    let mut uids: Vec<Uid> = Vec::new();
    let what = format!("looking for the items appended to folder {}", folder.path);
    // Servers may tell of what is new only when asked (RFC 3501 §6.3.11).
    connection.send(Command::noop());
    let command = Command::uid_fetch(Uids::From(uid_next), &FetchItems::default(), FetchChanges::All);
    connection
        .demand(&what, ErrorScope::Folder, command, |event| {
            if let Event::Fetch(fetch) = event {
                uids.extend(fetch.uid.filter(|uid| *uid >= uid_next));
            }
        })
        .await?;
    uids.sort_unstable();
    uids.dedup();
    let named = progress.results.iter().flatten().filter_map(|result| match result {
        Appended::Uid { uid, .. } => Some(*uid),
        Appended::Refused(_) => None,
    });
    let named: HashSet<Uid> = named.collect();
    uids.retain(|uid| !named.contains(uid));
    if uids.len() != progress.unnamed.len() {
        let cause = format!(
            "{} items were appended and {} are new",
            progress.unnamed.len(),
            uids.len()
        );
        return Err(unknown(folder, cause));
    }
    for (at, uid) in std::mem::take(&mut progress.unnamed).into_iter().zip(uids) {
        let keywords_dropped = std::mem::take(&mut progress.dropped[at]);
        progress.results[at] = Some(Appended::Uid { uid, keywords_dropped });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn prepared(at: usize, length: u64, alone: bool) -> Prepared {
        Prepared {
            at,
            flags: Flags::default(),
            dropped: Vec::new(),
            received: 0,
            length,
            body: Body::Memory(Bytes::new()),
            form: AppendForm::Literal,
            alone,
        }
    }

    #[test]
    fn commands_are_bounded_and_doubtful_items_go_alone() {
        let items = || {
            vec![
                prepared(0, 10, false),
                prepared(1, MOST_OCTETS - 10, false),
                prepared(2, 1, false),
                prepared(3, 1, true),
                prepared(4, 1, false),
                prepared(5, 1, false),
            ]
        };
        let places = |groups: Vec<Vec<Prepared>>| -> Vec<Vec<usize>> {
            groups
                .iter()
                .map(|group| group.iter().map(|item| item.at).collect())
                .collect()
        };
        assert_eq!(
            places(grouped(items(), true)),
            [vec![0, 1], vec![2], vec![3], vec![4, 5]]
        );
        assert_eq!(places(grouped(items(), false)).len(), 6);
        let many = (0..450).map(|at| prepared(at, 1, false)).collect();
        let lengths: Vec<usize> = grouped(many, true).iter().map(Vec::len).collect();
        assert_eq!(lengths, [200, 200, 50]);
    }
}
