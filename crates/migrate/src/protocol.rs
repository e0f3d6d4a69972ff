//! The JSON bodies of the MRS proxy's verbs, protocol version 1. Frozen: fields are added, never changed.
//!
//! `schema/protocol.cddl` describes the CBOR frames of listings and contents.

use base64::{Engine, engine::general_purpose::STANDARD};
use rehome_domain::id::MoveId;
use rehome_mailbox::{Folder, FolderPath, FolderStatus, SpecialUse};
use rehome_replicate::{Exception, ExceptionKind, Held, Pair, PairedFolder, PairsFrom, PairsPage};
use rehome_wire::digest::Digest;
use serde::{Deserialize, Serialize};

/// The versions spoken here, as in `rehome_protocol_versions`.
pub const PROTOCOL_VERSIONS: &[u32] = &[1];

/// The move id of a request that only tests availability: answered as a move's, but no outbound move is kept for it.
pub const TEST_OF_AVAILABILITY: MoveId = MoveId::from_u128(0);

/// Octets of JSON in one [`FoldersAnswer`], about: thousands of folders.
pub const FOLDERS_PAGE: usize = 4 * 1024 * 1024;

/// Longest MAILBOXID (RFC 8474 §4), octets; longer ones are left out.
pub const MAX_MAILBOX_ID: usize = 255;

/// [`OpenAnswer::lock_method`] of a platform that keeps users out during a cutover.
pub const LOCKED: &str = "locked";

/// [`OpenAnswer::lock_method`] of a platform that does not.
pub const NOT_LOCKED: &str = "none";

/// Answer to `open`: what the target compares before it moves anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAnswer {
    /// Identity of the mailbox.
    pub exchange_guid: String,
    /// Its LegacyExchangeDN.
    pub legacy_exchange_dn: String,
    /// Its x500 proxies.
    pub x500_addresses: Vec<String>,
    /// Its SMTP addresses.
    pub smtp_addresses: Vec<String>,
    /// Its archive, if any.
    pub archive_guid: Option<String>,
    /// Largest message it accepts, octets.
    pub max_receive_size: u64,
    /// The source's clock, milliseconds since 1970: shows skew.
    pub source_time: i64,
    /// Whether the source can keep the mailbox quiet: [`LOCKED`] or [`NOT_LOCKED`]. What else is said is not locked.
    pub lock_method: String,
    /// Whether the consent holds the return right: the source may take the mailbox back until retention ends. None where
    /// the caller is himself one who takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_right: Option<bool>,
}

/// Request of `pairs`: which items here are which items at the old source, for a move back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairsRequest {
    /// As the last answer said in `next`; 0 at the beginning.
    #[serde(default)]
    pub folder: u32,
    /// As the last answer said in `next`; 0 at the beginning.
    #[serde(default)]
    pub chunk: u32,
}

/// Answer to `pairs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairsAnswer {
    /// Folders, or parts of them; the parts of one follow each other. None at all: nothing is known any more.
    pub folders: Vec<PairedFolderBody>,
    /// Where the next page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<PairsRequest>,
}

/// Pairs of one folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairedFolderBody {
    /// The path where the mailbox is now, as last synced.
    pub path: Vec<String>,
    /// The UIDVALIDITY there.
    pub uid_validity: u32,
    /// The path at the old source.
    pub origin_path: Vec<String>,
    /// The UIDVALIDITY there.
    pub origin_uid_validity: u32,
    /// Base64 of 56 octets a pair: uid here (4), uid at the old source (4), canonical length (8), received time at the old
    /// source in seconds since 1970 (8, signed), digest (32); numbers with the highest octet first.
    pub pairs: String,
}

/// Pairs in one [`PairsAnswer`], about.
pub const PAIRS_PAGE: usize = 8_192;
/// Most pairs that one answer may hold.
const MOST_PAIRS: usize = 4 * PAIRS_PAGE;
/// Octets of one pair.
const PAIR: usize = 56;

impl From<&PairsPage> for PairsAnswer {
    fn from(page: &PairsPage) -> Self {
        let folders = page.folders.iter().map(|folder| {
            let mut octets = Vec::with_capacity(folder.pairs.len() * PAIR);
            for pair in &folder.pairs {
                octets.extend_from_slice(&pair.uid.to_be_bytes());
                octets.extend_from_slice(&pair.origin.to_be_bytes());
                octets.extend_from_slice(&pair.length.to_be_bytes());
                octets.extend_from_slice(&pair.received.to_be_bytes());
                octets.extend_from_slice(&pair.digest.0);
            }
            PairedFolderBody {
                path: folder.path.0.clone(),
                uid_validity: folder.uid_validity,
                origin_path: folder.origin_path.0.clone(),
                origin_uid_validity: folder.origin_uid_validity,
                pairs: STANDARD.encode(&octets),
            }
        });
        Self {
            folders: folders.collect(),
            next: page.next.map(|next| PairsRequest {
                folder: next.folder,
                chunk: next.chunk,
            }),
        }
    }
}

impl PairsAnswer {
    /// The page; none where it cannot be read or is too long.
    #[must_use]
    pub fn read(&self) -> Option<PairsPage> {
        let mut all = 0;
        let mut folders = Vec::with_capacity(self.folders.len());
        for folder in &self.folders {
            let octets = STANDARD.decode(&folder.pairs).ok()?;
            let (pairs, rest) = octets.as_chunks::<PAIR>();
            all += pairs.len();
            if !rest.is_empty() || all > MOST_PAIRS || folder.path.is_empty() || folder.origin_path.is_empty() {
                return None;
            }
            folders.push(PairedFolder {
                path: FolderPath(folder.path.clone()),
                uid_validity: folder.uid_validity,
                origin_path: FolderPath(folder.origin_path.clone()),
                origin_uid_validity: folder.origin_uid_validity,
                pairs: pairs.iter().map(read_pair).collect(),
            });
        }
        Some(PairsPage {
            folders,
            next: self.next.map(PairsFrom::from),
        })
    }
}

fn read_pair(octets: &[u8; PAIR]) -> Pair {
    let part = |from: usize| -> [u8; 4] { std::array::from_fn(|at| octets[from + at]) };
    Pair {
        uid: u32::from_be_bytes(part(0)),
        origin: u32::from_be_bytes(part(4)),
        length: u64::from_be_bytes(std::array::from_fn(|at| octets[8 + at])),
        received: i64::from_be_bytes(std::array::from_fn(|at| octets[16 + at])),
        digest: Digest(std::array::from_fn(|at| octets[24 + at])),
    }
}

impl From<PairsRequest> for PairsFrom {
    fn from(request: PairsRequest) -> Self {
        Self {
            folder: request.folder,
            chunk: request.chunk,
        }
    }
}

/// Request of `folders`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldersRequest {
    /// How many folders the caller has already.
    #[serde(default)]
    pub after: usize,
}

/// Answer to `folders`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldersAnswer {
    /// The folders, parents before children.
    pub folders: Vec<FolderBody>,
    /// Whether there are more after these.
    pub more: bool,
    /// How many streams of items are worth having open at once; more wait for each other at the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams_at_once: Option<u32>,
}

impl FoldersAnswer {
    /// The page of `all` behind the first `after`: as many as fit, one at least.
    #[must_use]
    pub fn page(all: &[Folder], after: usize) -> Self {
        let rest = all.get(after..).unwrap_or_default();
        let mut octets = 0;
        let mut fits = |folder: &&Folder| {
            octets += json_length(folder);
            octets <= FOLDERS_PAGE
        };
        let count = rest.iter().take_while(&mut fits).count().max(1).min(rest.len());
        Self {
            folders: rest[..count].iter().map(FolderBody::from).collect(),
            more: count < rest.len(),
            streams_at_once: None,
        }
    }
}

/// At most as many octets a folder takes in JSON.
fn json_length(folder: &Folder) -> usize {
    let octets = |octet: u8| {
        if octet < 0x20 || matches!(octet, b'"' | b'\\' | 0x7f) {
            6
        } else {
            1
        }
    };
    let text = |text: &String| 3 + text.bytes().map(octets).sum::<usize>();
    256 + folder.path.0.iter().map(text).sum::<usize>() + folder.mailbox_id.as_ref().map_or(0, text)
}

/// One folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderBody {
    /// Names from the root.
    pub path: Vec<String>,
    /// `archive`, `drafts`, `junk`, `sent` or `trash`; others are ignored.
    pub special_use: Option<String>,
    /// Subscribed.
    pub subscribed: bool,
    /// Whether it holds items.
    pub selectable: bool,
    /// Its numbers, where selectable.
    pub status: Option<StatusBody>,
    /// Its MAILBOXID (RFC 8474), which stays over renames, where the platform has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox_id: Option<String>,
}

/// A folder's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusBody {
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UIDNEXT.
    pub uid_next: u32,
    /// Number of items.
    pub exists: u32,
    /// HIGHESTMODSEQ, if any.
    pub highest_mod_seq: Option<u64>,
}

fn special_use_text(role: SpecialUse) -> &'static str {
    match role {
        SpecialUse::Archive => "archive",
        SpecialUse::Drafts => "drafts",
        SpecialUse::Junk => "junk",
        SpecialUse::Sent => "sent",
        SpecialUse::Trash => "trash",
    }
}

fn special_use_from(text: &str) -> Option<SpecialUse> {
    [
        SpecialUse::Archive,
        SpecialUse::Drafts,
        SpecialUse::Junk,
        SpecialUse::Sent,
        SpecialUse::Trash,
    ]
    .into_iter()
    .find(|role| special_use_text(*role) == text)
}

impl From<&Folder> for FolderBody {
    fn from(folder: &Folder) -> Self {
        Self {
            path: folder.path.0.clone(),
            special_use: folder.special_use.map(|role| special_use_text(role).to_owned()),
            subscribed: folder.subscribed,
            selectable: folder.selectable,
            status: folder.status.map(|s| StatusBody {
                uid_validity: s.uid_validity,
                uid_next: s.uid_next,
                exists: s.exists,
                highest_mod_seq: s.highest_mod_seq,
            }),
            mailbox_id: folder.mailbox_id.clone().filter(|id| id.len() <= MAX_MAILBOX_ID),
        }
    }
}

impl From<FolderBody> for Folder {
    fn from(body: FolderBody) -> Self {
        Self {
            path: FolderPath(body.path),
            special_use: body.special_use.as_deref().and_then(special_use_from),
            subscribed: body.subscribed,
            selectable: body.selectable,
            status: body.status.map(|s| FolderStatus {
                uid_validity: s.uid_validity,
                uid_next: s.uid_next,
                exists: s.exists,
                highest_mod_seq: s.highest_mod_seq,
            }),
            mailbox_id: body.mailbox_id.filter(|id| id.len() <= MAX_MAILBOX_ID),
        }
    }
}

/// Request of `listing`; the answer is a stream of listing frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingRequest {
    /// The folder's path.
    pub folder: Vec<String>,
    /// The token of the last listing, base64, if changes are enough.
    #[serde(default)]
    pub token: Option<String>,
    /// Whether the platform is to be asked on a new connection: a second look must not come from the same confused one.
    #[serde(default)]
    pub fresh: bool,
}

/// Request of `items`; the answer is a stream of body frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemsRequest {
    /// The folder's path.
    pub folder: Vec<String>,
    /// Its UIDVALIDITY; another one is refused.
    pub uid_validity: u32,
    /// Uid ranges, ascending, at most 1,000 uids in all.
    pub uids: Vec<(u32, u32)>,
    /// The attempt, when it is a sweep that reads.
    #[serde(default)]
    pub attempt: Option<String>,
}

/// Request of `lock`, `renew`, `commit`, `abort`, `status`, `takeback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRequest {
    /// The attempt's 128 bits, hyphenated.
    pub attempt: String,
}

/// Answer to `lock` and `renew`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// How long the lease lasts from now on the source's clock, milliseconds; 0 once prepared.
    pub lease_milliseconds: u64,
}

/// Request of `prepare`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareRequest {
    /// The attempt.
    pub attempt: String,
    /// The target's root, 64 hex digits.
    pub root: String,
    /// Items that differ, and how.
    pub exceptions: Vec<ExceptionBody>,
    /// Whether the target has read back what it appended; otherwise Prepare is refused.
    pub read_back: bool,
    /// Where mail is to go: the target's address in TargetDeliveryDomain.
    pub routing_address: String,
    /// The target's LegacyExchangeDN.
    pub legacy_exchange_dn: String,
    /// The key with which the source may ask for the outcome, base64.
    pub outcome_key: String,
}

/// An item on which the two sides differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionBody {
    /// The source folder's path.
    pub folder: Vec<String>,
    /// The source uid.
    pub uid: u32,
    /// `skipped`, `altered`, `flags` or `date`.
    pub kind: String,
    /// Whether an administrator of the target approved it.
    pub approved: bool,
    /// What the target holds.
    pub held: HeldBody,
    /// Why, as the target's report says; at most [`rehome_wire::receipt::MAX_REASON`] octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What the target holds of an item that differs; what is equal or unknown is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBody {
    /// Canonical length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Canonical digest, 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Flags and keywords.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    /// Received time, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<i64>,
}

impl From<&Exception> for ExceptionBody {
    /// Not approved yet.
    fn from(e: &Exception) -> Self {
        Self {
            folder: e.folder.clone(),
            uid: e.uid,
            kind: e.kind.as_str().to_owned(),
            approved: false,
            held: HeldBody {
                length: e.held.length,
                digest: e.held.digest.map(|d| d.to_string()),
                flags: e.held.flags.clone(),
                received: e.held.received,
            },
            reason: None,
        }
    }
}

impl ExceptionBody {
    /// The exception; none when its kind or digest cannot be read.
    #[must_use]
    pub fn read(&self) -> Option<Exception> {
        let digest = self.held.digest.as_deref().map(str::parse).transpose().ok()?;
        Some(Exception {
            folder: self.folder.clone(),
            uid: self.uid,
            kind: ExceptionKind::from_word(&self.kind)?,
            held: Held {
                length: self.held.length,
                digest,
                flags: self.held.flags.clone(),
                received: self.held.received,
            },
        })
    }
}

/// Answer to `prepare`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareAnswer {
    /// The root that both agree on, 64 hex digits.
    pub root: String,
}

/// Answer to `commit`; repeating gives the first one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAnswer {
    /// From Lock stored to Commit stored on the source's clock.
    pub lock_milliseconds: u64,
    /// Until when the source keeps the old content, milliseconds since 1970.
    pub retention_until: i64,
}

/// Answer to `abort`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortAnswer {}

/// Request of `receipt`, after Commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRequest {
    /// The attempt.
    pub attempt: String,
    /// The target's statement of the receipt (`rehome-receipt+jwt`), for the source to keep.
    pub statement: String,
}

/// Answer to `receipt`; repeating gives the same statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptAnswer {
    /// The source's statement of the receipt (`rehome-receipt+jwt`).
    pub statement: String,
}

/// Answer to `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// `locked`, `prepared`, `committed`, `aborted` or `lapsed`.
    pub phase: String,
}

/// Answer to `takeback`: the old source brings the mailbox back, or does already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeBackAnswer {}

/// Answer to `sweep`: what came after the listing behind Prepare's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepAnswer {
    /// Folders that hold such items.
    pub folders: Vec<SweepFolder>,
}

/// One folder's late items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepFolder {
    /// The folder's path.
    pub path: Vec<String>,
    /// Its UIDVALIDITY.
    pub uid_validity: u32,
    /// Uid ranges of the late items, ascending.
    pub uids: Vec<(u32, u32)>,
}

/// Most late items that a sweep takes in all.
pub const MAX_SWEEP_ITEMS: u64 = 100_000;

impl SweepAnswer {
    /// The folders as the importer takes them; only path and UIDVALIDITY are known of each. None when the ranges do not
    /// ascend, or name more than [`MAX_SWEEP_ITEMS`] items in all.
    #[must_use]
    pub fn read(&self) -> Option<Vec<rehome_replicate::SweepFolder>> {
        let mut all = 0u64;
        for folder in &self.folders {
            let mut last = 0;
            for (from, to) in &folder.uids {
                if *from <= last || to < from {
                    return None;
                }
                all += u64::from(to - from) + 1;
                last = *to;
            }
        }
        (all <= MAX_SWEEP_ITEMS).then(|| self.folders.iter().map(SweepFolder::read).collect())
    }
}

impl SweepFolder {
    fn read(&self) -> rehome_replicate::SweepFolder {
        let status = FolderStatus {
            uid_validity: self.uid_validity,
            uid_next: 0,
            exists: 0,
            highest_mod_seq: None,
        };
        rehome_replicate::SweepFolder {
            folder: Folder {
                path: FolderPath(self.path.clone()),
                special_use: None,
                subscribed: false,
                selectable: true,
                status: Some(status),
                mailbox_id: None,
            },
            uids: self.uids.iter().flat_map(|(from, to)| *from..=*to).collect(),
        }
    }
}

/// Body of every refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What went wrong.
    pub error: ErrorBody,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error id.
    pub id: String,
    /// For the other side's administrator.
    pub message: String,
    /// When trying again makes sense, seconds; none: not by itself.
    pub retry_after: Option<u32>,
    /// Stands in both logs.
    pub correlation_id: String,
}

/// Question to the target's outcome address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRequest {
    /// The attempt.
    pub attempt: String,
    /// The outcome key that came with Prepare, base64.
    pub key: String,
}

/// Answer of the outcome address; asking changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeAnswer {
    /// `decided`, `aborted` or `undecided`.
    pub outcome: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: String) -> Folder {
        Folder {
            path: FolderPath(vec![name]),
            special_use: None,
            subscribed: true,
            selectable: true,
            status: None,
            mailbox_id: Some("x".repeat(30)),
        }
    }

    #[test]
    fn pages_are_bounded_by_octets() {
        let all: Vec<Folder> = (0..5_000).map(|n| folder(format!("folder {n}"))).collect();
        let page = FoldersAnswer::page(&all, 0);
        assert_eq!((page.folders.len(), page.more), (5_000, false));
        let all: Vec<Folder> = (0..3_000).map(|_| folder("\u{1}".repeat(1_000))).collect();
        let (mut after, mut pages) = (0, 0);
        loop {
            let page = FoldersAnswer::page(&all, after);
            assert!(serde_json::to_vec(&page).unwrap().len() <= FOLDERS_PAGE);
            (after, pages) = (after + page.folders.len(), pages + 1);
            if !page.more {
                break;
            }
        }
        assert_eq!((after, pages), (3_000, 5));
        assert_eq!(
            FoldersAnswer::page(&[folder("x".repeat(FOLDERS_PAGE))], 0)
                .folders
                .len(),
            1
        );
        assert!(FoldersAnswer::page(&all, 9_999).folders.is_empty());
    }

    #[test]
    fn pairs_there_and_back() {
        let page = PairsPage {
            folders: vec![PairedFolder {
                path: FolderPath(vec!["INBOX".into()]),
                uid_validity: 7,
                origin_path: FolderPath(vec!["INBOX".into()]),
                origin_uid_validity: 8,
                pairs: vec![
                    Pair {
                        uid: 1,
                        origin: 0x0102_0304,
                        length: 0x0506_0708_090a_0b0c,
                        received: -5,
                        digest: Digest([9; 32]),
                    },
                    Pair {
                        uid: u32::MAX,
                        origin: 2,
                        length: 3,
                        received: i64::MAX,
                        digest: Digest([8; 32]),
                    },
                ],
            }],
            next: Some(PairsFrom { folder: 3, chunk: 4 }),
        };
        let answer = PairsAnswer::from(&page);
        let text = serde_json::to_string(&answer).unwrap();
        let read: PairsAnswer = serde_json::from_str(&text).unwrap();
        assert_eq!(read.read().unwrap(), page);
        let with = |pairs: String| {
            let mut bad = answer.clone();
            bad.folders[0].pairs = pairs;
            bad.read()
        };
        assert_eq!(with("?".into()), None);
        assert_eq!(with(STANDARD.encode([0; PAIR + 1])), None);
        assert_eq!(with(STANDARD.encode(vec![0; PAIR * (MOST_PAIRS + 1)])), None);
        assert!(with(String::new()).unwrap().folders[0].pairs.is_empty());
    }

    #[test]
    fn what_an_earlier_version_sends_is_read() {
        let request: ListingRequest = serde_json::from_str(r#"{"folder":["INBOX"]}"#).unwrap();
        assert!(!request.fresh && request.token.is_none());
        let answer: FoldersAnswer = serde_json::from_str(
            r#"{"folders":[{"path":["INBOX"],"special_use":null,"subscribed":true,"selectable":true,"status":null}],"more":false}"#,
        )
        .unwrap();
        assert_eq!((answer.streams_at_once, &answer.folders[0].mailbox_id), (None, &None));
    }
}
