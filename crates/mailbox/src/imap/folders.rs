//! Listing folders with their numbers, in one round trip where the server can.

use super::connection::Connection;
use super::error::{Failure, Kind, Outcome, refused};
use super::names::{Known, Tree};
use crate::{ErrorScope, Folder, FolderPath, FolderRef, FolderStatus, Retry, SpecialUse};
use rehome_wire::imap::{
    Answer, Command, Event, ListAttribute, ListOptions, Listed, MailboxName, MailboxStatus, SelectMode, StatusItems,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Most folders of one mailbox.
const MAX_FOLDERS: usize = 200_000;
const WHAT: &str = "listing the folders";

const ID_ALONE: StatusItems = StatusItems {
    messages: false,
    uid_next: false,
    uid_validity: false,
    mailbox_id: true,
    ..StatusItems::BASIC
};

/// What LIST, LSUB and STATUS said.
#[derive(Default)]
struct Answers {
    listed: Vec<Listed>,
    subscribed: HashSet<MailboxName>,
    statuses: HashMap<MailboxName, MailboxStatus>,
    malformed: Option<String>,
}

impl Answers {
    fn take(&mut self, event: Event) {
        match event {
            Event::List(listed) if self.listed.len() <= MAX_FOLDERS => self.listed.push(*listed),
            Event::Lsub(listed) if listed.attributes.is_selectable() && self.subscribed.len() <= MAX_FOLDERS => {
                self.subscribed.insert(listed.name);
            }
            Event::Status(status) if self.statuses.len() <= MAX_FOLDERS => self.take_status(*status),
            Event::Malformed { name, line } if name == "LIST" || name == "LSUB" => self.malformed = Some(line),
            _ => {}
        }
    }

    /// Numbers and MAILBOXID may come apart.
    fn take_status(&mut self, status: MailboxStatus) {
        match self.statuses.get_mut(&status.name) {
            Some(held) if status.messages.is_none() => held.mailbox_id = status.mailbox_id,
            Some(held) => {
                let mailbox_id = status.mailbox_id.clone().or_else(|| held.mailbox_id.take());
                *held = MailboxStatus { mailbox_id, ..status };
            }
            None => {
                self.statuses.insert(status.name.clone(), status);
            }
        }
    }

    fn check(&self) -> Outcome<()> {
        let wrong = |cause: String, retry| Err(Failure::ours(WHAT, cause, ErrorScope::Mailbox, retry));
        if let Some(line) = &self.malformed {
            let line = super::error::shown(line);
            return wrong(
                format!("a folder in the list could not be read: {line}"),
                Retry::After(60),
            );
        }
        if self.listed.len() > MAX_FOLDERS {
            return wrong(format!("there are more than {MAX_FOLDERS} folders"), Retry::Never);
        }
        Ok(())
    }
}

/// The numbers that are asked for.
pub(super) fn status_items(connection: &Connection) -> StatusItems {
    StatusItems {
        highest_mod_seq: connection.capabilities.condstore,
        mailbox_id: connection.capabilities.object_id && !connection.quirks.mailbox_id_alone(),
        // Dovecot has no MAILBOXID, and its own GUID is one.
        guid: connection.quirks.kind == super::quirks::Kind::Dovecot && !connection.capabilities.object_id,
        ..StatusItems::BASIC
    }
}

/// All folders of the user, parents before children, the inbox first; and the names that they have on the server.
pub(super) async fn folders(connection: &mut Connection) -> Outcome<(Vec<Folder>, Known)> {
    let (answers, known) = listed(connection, true).await?;
    let tree = tree(connection);
    let mut folders = Vec::with_capacity(answers.listed.len());
    for (path, name, listed) in known.1 {
        let is_subscribed = listed.attributes.contains(ListAttribute::Subscribed) || answers.subscribed.contains(&name);
        let selectable = listed.attributes.is_selectable();
        let status = if selectable {
            let told = answers.statuses.get(&name).filter(|status| status.messages.is_some());
            match status_of(connection, &path, &name, told).await? {
                Some(status) => Some(status),
                // It went while we looked.
                None => continue,
            }
        } else {
            None
        };
        if status.as_ref().is_some_and(|(status, _)| status.exists == 0) && tree.is_shadow(&name) {
            continue;
        }
        let (status, mailbox_id) = status.unzip();
        folders.push(Folder {
            path,
            special_use: special_use(&listed),
            subscribed: is_subscribed,
            selectable,
            status,
            mailbox_id: mailbox_id.flatten(),
        });
    }
    Ok((in_order(folders), known.0))
}

/// The names of all folders, without numbers.
pub(super) async fn names(connection: &mut Connection) -> Outcome<Known> {
    Ok(listed(connection, false).await?.1.0)
}

type Placed = (Known, Vec<(FolderPath, MailboxName, Listed)>);

async fn listed(connection: &mut Connection, with_status: bool) -> Outcome<(Answers, Placed)> {
    let mut answers = Answers::default();
    let capabilities = connection.capabilities.clone();
    let items = status_items(connection);
    if with_status {
        leave(connection).await?;
    }
    let reference = MailboxName::new("");
    let tree = tree(connection);
    let patterns = tree.patterns();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let mut done = false;
    if capabilities.list_extended {
        let options = ListOptions {
            subscribed: true,
            special_use: capabilities.special_use,
            status: (with_status && capabilities.list_status).then_some(items),
            ..ListOptions::default()
        };
        let mut tags = vec![connection.send(Command::list(&reference, &patterns, &options))];
        if options.status.is_some() && capabilities.object_id && connection.quirks.mailbox_id_alone() {
            let options = ListOptions {
                status: Some(ID_ALONE),
                ..ListOptions::default()
            };
            tags.push(connection.send(Command::list(&reference, &patterns, &options)));
        }
        let answered = connection.finish(&tags, |event| answers.take(event)).await?;
        done = answered.first().is_some_and(Answer::is_ok);
        if !done {
            answers = Answers::default();
        }
    }
    if !done {
        let mut tags = Vec::new();
        for pattern in patterns {
            tags.push(connection.send(Command::list(&reference, &[pattern], &ListOptions::default())));
            tags.push(connection.send(Command::lsub(&reference, pattern)));
        }
        for answer in connection
            .finish(&tags, |event| answers.take(event))
            .await?
            .iter()
            .step_by(2)
        {
            if !answer.is_ok() {
                return Err(refused(WHAT, answer, ErrorScope::Mailbox));
            }
        }
    }
    answers.check()?;
    let placed = place(&tree, &answers.listed);
    if with_status {
        missing_statuses(connection, &placed.1, &mut answers, items).await?;
    }
    Ok((answers, placed))
}

/// Before numbers are asked for. Those of the open folder may be what this connection saw last and not what is there
/// (RFC 9051 §6.3.11); Dovecot tells such ones. So it is closed, and nobody waits for that: it is done before what is
/// sent next. Where it cannot be closed without EXPUNGE it is looked at anew, which some servers put off until all that
/// was sent is done, so that is waited for.
async fn leave(connection: &mut Connection) -> Outcome<()> {
    if connection.selected.is_none() {
        return Ok(());
    }
    if connection.capabilities.unselect {
        connection.selected = None;
        connection.send(Command::unselect());
    } else {
        connection.ask(Command::noop(), |_| {}).await?;
    }
    Ok(())
}

/// The user's names on this connection.
pub(super) fn tree(connection: &Connection) -> Tree {
    Tree::new(connection.namespaces.as_ref(), connection.separator)
}

/// Each listed name once, with its path; those that do not exist are left out.
fn place(tree: &Tree, listed: &[Listed]) -> Placed {
    let mut known = Known::default();
    let mut placed = Vec::with_capacity(listed.len());
    let mut seen = HashSet::new();
    let mut by_name: Vec<&Listed> = listed.iter().collect();
    // Of two names with one path the first by its spelling gets it, whatever order the server lists in.
    by_name.sort_by(|one, two| one.name.cmp(&two.name));
    for listed in by_name {
        let name = if listed.name.is_inbox() {
            MailboxName::new("INBOX")
        } else {
            listed.name.clone()
        };
        if listed.attributes.contains(ListAttribute::NonExistent) || !seen.insert(name.clone()) {
            continue;
        }
        if let Some(path) = tree.path(&name) {
            let path = known.insert(path, name.clone());
            placed.push((path, name, listed.clone()));
        }
    }
    (known, placed)
}

/// Asks for numbers that did not come with the list, all at once.
async fn missing_statuses(
    connection: &mut Connection,
    placed: &[(FolderPath, MailboxName, Listed)],
    answers: &mut Answers,
    items: StatusItems,
) -> Outcome<()> {
    let missing: Vec<&MailboxName> = placed
        .iter()
        .filter(|(_, name, listed)| {
            let status = answers.statuses.get(name);
            listed.attributes.is_selectable() && status.is_none_or(|status| status.messages.is_none())
        })
        .map(|(_, name, _)| name)
        .collect();
    const AT_ONCE: usize = 500;
    for names in missing.chunks(AT_ONCE) {
        let tags: Vec<_> = names
            .iter()
            .map(|name| connection.send(Command::status(name, items)))
            .collect();
        // Whoever is refused is asked for again alone.
        connection.finish(&tags, |event| answers.take(event)).await?;
    }
    Ok(())
}

type Status = (FolderStatus, Option<String>);

/// A folder's numbers from STATUS; asked again alone where they did not come. None where the folder is not there.
async fn status_of(
    connection: &mut Connection,
    path: &FolderPath,
    name: &MailboxName,
    told: Option<&MailboxStatus>,
) -> Outcome<Option<Status>> {
    let status = match told {
        Some(told) => numbers(connection, path, name, told).await,
        None => status(connection, path, name).await,
    };
    match status {
        Ok(status) => Ok(Some(status)),
        Err(failure) if failure.kind == Kind::Missing => Ok(None),
        Err(mut failure) => {
            // One folder cannot be left out of the list: it would look removed.
            failure.error.scope = failure.error.scope.max(ErrorScope::Mailbox);
            if failure.error.retry == Retry::Never && failure.kind != Kind::Ours {
                failure.error.retry = Retry::After(300);
            }
            Err(failure)
        }
    }
}

/// A folder's numbers and MAILBOXID.
pub(super) async fn status(connection: &mut Connection, path: &FolderPath, name: &MailboxName) -> Outcome<Status> {
    let what = format!("asking for the numbers of folder {path}");
    let mut told = None;
    if connection.selected.as_ref().is_some_and(|open| open.name == *name) {
        leave(connection).await?;
    }
    let command = Command::status(name, status_items(connection));
    connection
        .demand(&what, ErrorScope::Folder, command, |event| {
            if let Event::Status(status) = event {
                told = Some(*status);
            }
        })
        .await?;
    match told {
        Some(told) => numbers(connection, path, name, &told).await,
        None => {
            let cause = "the server said OK and told no numbers";
            Err(Failure::ours(what, cause, ErrorScope::Folder, Retry::After(60)))
        }
    }
}

async fn numbers(
    connection: &mut Connection,
    path: &FolderPath,
    name: &MailboxName,
    told: &MailboxStatus,
) -> Outcome<Status> {
    let mailbox_id = told.mailbox_id.clone().or_else(|| told.guid.clone());
    let valid = told.uid_validity.filter(|validity| *validity != 0);
    let next = told.uid_next.filter(|next| *next != 0);
    if let (Some(uid_validity), Some(uid_next), Some(exists)) = (valid, next, told.messages) {
        let status = FolderStatus {
            uid_validity,
            uid_next,
            exists,
            highest_mod_seq: told.highest_mod_seq.filter(|mod_seq| *mod_seq > 0),
        };
        return Ok((status, mailbox_id));
    }
    // Old servers tell some numbers only where the folder is open.
    connection.selected = None;
    connection
        .open(FolderRef::any(path), name, SelectMode::ReadOnly)
        .await?;
    let uid_next = connection.uid_next().await?;
    let Some(selected) = &connection.selected else {
        return Err(connection.give_up("no folder is open"));
    };
    let status = FolderStatus {
        uid_validity: selected.validity(),
        uid_next,
        exists: selected.exists,
        highest_mod_seq: selected.mod_seq(),
    };
    Ok((status, mailbox_id))
}

fn special_use(listed: &Listed) -> Option<SpecialUse> {
    let uses = [
        (ListAttribute::Archive, SpecialUse::Archive),
        (ListAttribute::Drafts, SpecialUse::Drafts),
        (ListAttribute::Junk, SpecialUse::Junk),
        (ListAttribute::Sent, SpecialUse::Sent),
        (ListAttribute::Trash, SpecialUse::Trash),
    ];
    uses.into_iter()
        .find(|(attribute, _)| listed.attributes.contains(*attribute))
        .map(|(_, special_use)| special_use)
}

/// The attribute of a special use.
pub(super) fn attribute(special_use: SpecialUse) -> ListAttribute {
    match special_use {
        SpecialUse::Archive => ListAttribute::Archive,
        SpecialUse::Drafts => ListAttribute::Drafts,
        SpecialUse::Junk => ListAttribute::Junk,
        SpecialUse::Sent => ListAttribute::Sent,
        SpecialUse::Trash => ListAttribute::Trash,
    }
}

/// Sorted, with parents that are no folders themselves, and each special use once: the first by path has it.
fn in_order(folders: Vec<Folder>) -> Vec<Folder> {
    let mut by_path: BTreeMap<(bool, FolderPath), Folder> = BTreeMap::new();
    let mut parents = BTreeSet::new();
    for folder in folders {
        for depth in 1..folder.path.0.len() {
            parents.insert(FolderPath(folder.path.0[..depth].to_vec()));
        }
        by_path.insert((!folder.path.is_inbox(), folder.path.clone()), folder);
    }
    for path in parents {
        let parent = Folder {
            path: path.clone(),
            special_use: None,
            subscribed: false,
            selectable: false,
            status: None,
            mailbox_id: None,
        };
        by_path.entry((!path.is_inbox(), path)).or_insert(parent);
    }
    let mut taken = HashSet::new();
    let mut folders: Vec<Folder> = by_path.into_values().collect();
    for folder in &mut folders {
        if folder.special_use.is_some_and(|special_use| !taken.insert(special_use)) {
            folder.special_use = None;
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str], special_use: Option<SpecialUse>) -> Folder {
        Folder {
            path: FolderPath(names.iter().map(|name| (*name).to_owned()).collect()),
            special_use,
            subscribed: false,
            selectable: true,
            status: None,
            mailbox_id: None,
        }
    }

    #[test]
    fn order_parents_and_twins() {
        let folders = in_order(vec![
            folder(&["b", "c", "d"], Some(SpecialUse::Sent)),
            folder(&["INBOX"], None),
            folder(&["Sent"], Some(SpecialUse::Sent)),
            folder(&["A"], None),
            folder(&["INBOX", "x"], None),
        ]);
        let shown: Vec<String> = folders
            .iter()
            .map(|folder| format!("{} {} {:?}", folder.path, folder.selectable, folder.special_use))
            .collect();
        assert_eq!(
            shown,
            [
                "INBOX true None",
                "A true None",
                "INBOX/x true None",
                "Sent true Some(Sent)",
                "b false None",
                "b/c false None",
                "b/c/d true None",
            ]
        );
    }
}
