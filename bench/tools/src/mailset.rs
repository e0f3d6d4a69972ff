//! Sets of mail: real messages scaled by varied copies, the same for the same seed.

use crate::arguments::Arguments;
use crate::corpus::{self, Real};
use crate::date;
use crate::random::Random;
use std::io;
use std::io::Write;

/// Folders in the order in which a set fills them, with their shares; INBOX and Sent are large, as in real mailboxes.
const FOLDERS: [(&str, usize); 8] = [
    ("INBOX", 28),
    ("Sent", 16),
    ("Archive/2022", 14),
    ("Archive/2023", 12),
    ("Orders", 10),
    ("Press", 8),
    ("Lists/announcements", 7),
    ("Drafts", 5),
];
/// 2016-01-01, and eight years.
const FIRST_SECOND: i64 = 1_451_606_400;
const SPAN: i64 = 8 * 365 * 86_400;

/// System flags that messages may have, with the letter of a Maildir.
pub(crate) const FLAGS: [(&str, char); 4] = [
    ("\\Draft", 'D'),
    ("\\Flagged", 'F'),
    ("\\Answered", 'R'),
    ("\\Seen", 'S'),
];
/// Keywords that messages may have.
pub(crate) const KEYWORDS: [&str; 4] = ["$Forwarded", "$Label1", "NonJunk", "invoice"];

/// How large the messages are.
enum Sizes {
    /// Averaging 45 KB with a heavy tail: a fifth carry an attachment.
    HeavyTail,
    /// As the real ones are: 5 KB on average.
    Small,
    /// 5 to 20 MB each.
    Large,
    /// Exactly about these.
    Given(Vec<usize>),
}

/// One message to make.
#[derive(Clone)]
pub(crate) struct Item {
    /// Index among the set's folders.
    pub(crate) folder: usize,
    /// Equal for true duplicates, different otherwise.
    pub(crate) number: u64,
    base: usize,
    attachment: usize,
    /// Bits for `FLAGS`.
    pub(crate) flags: u8,
    /// Bits for `KEYWORDS`.
    pub(crate) keywords: u8,
    /// Seconds since 1970.
    pub(crate) received: i64,
}

/// A set: what it is made from and every message in it.
pub(crate) struct Mailset {
    pub(crate) folders: Vec<String>,
    /// By folder, then in ascending order of arrival.
    pub(crate) items: Vec<Item>,
    seed: u64,
    real: Vec<Real>,
}

impl Mailset {
    /// The set that `--set --size --folders --seed --corpus [--octets]` describe.
    pub(crate) fn from(arguments: &Arguments) -> io::Result<Self> {
        let sizes = match arguments.text("set").unwrap_or("S") {
            "S" => Sizes::HeavyTail,
            "M" => Sizes::Small,
            "L" => Sizes::Large,
            "SIZES" => {
                let sizes = arguments
                    .needed("octets")?
                    .split(',')
                    .map(str::parse)
                    .collect::<Result<_, _>>();
                Sizes::Given(sizes.map_err(|_| io::Error::other("--octets takes numbers"))?)
            }
            other => return Err(io::Error::other(format!("--set {other}: there are S, M, L and SIZES"))),
        };
        let size = match &sizes {
            Sizes::Given(sizes) => sizes.len(),
            _ => arguments.number("size", 20_000)?,
        };
        let seed = arguments.number("seed", 1)?;
        let real = corpus::load(&arguments.path("corpus")?)?;
        let (folders, shares) = folders(arguments.number("folders", FOLDERS.len())?);
        let mut set = Self {
            items: Vec::with_capacity(size),
            folders,
            seed,
            real,
        };
        set.plan(&sizes, &shares, size);
        Ok(set)
    }

    fn plan(&mut self, sizes: &Sizes, shares: &[usize], size: usize) {
        let mut random = Random::new(self.seed);
        let total: usize = shares.iter().sum();
        for index in 0..size {
            // A true duplicate now and then: all of it, in the same folder.
            if index % 400 == 399 && !matches!(sizes, Sizes::Given(_)) {
                let twin = self.items[index - 1].clone();
                self.items.push(twin);
                continue;
            }
            let mut draw = random.below(total);
            let folder = shares.iter().position(|&share| {
                let hit = draw < share;
                draw = draw.saturating_sub(share);
                hit
            });
            let mut bits = |chances: [f64; 4]| {
                chances.iter().enumerate().fold(0, |bits, (bit, chance)| {
                    bits | u8::from(random.share() < *chance) << bit
                })
            };
            let (flags, keywords) = (bits([0.02, 0.05, 0.15, 0.8]), bits([0.05, 0.04, 0.3, 0.02]));
            let base = random.below(self.real.len());
            let attachment = attachment(sizes, index, &mut random);
            self.items.push(Item {
                folder: folder.unwrap_or(0),
                number: index as u64,
                base,
                attachment,
                flags,
                keywords,
                received: FIRST_SECOND + SPAN * index as i64 / size as i64,
            });
        }
        self.items.sort_by_key(|item| (item.folder, item.received));
    }

    /// The message in canonical form.
    pub(crate) fn message(&self, item: &Item) -> Vec<u8> {
        let real = &self.real[item.base];
        let mut random = Random::new(self.seed ^ item.number.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let mut message =
            Vec::with_capacity(item.attachment + item.attachment / 19 + real.fields.len() + real.body.len() + 1024);
        message.extend_from_slice(&real.fields);
        let (number, mark) = (item.number, random.next());
        put(
            &mut message,
            format_args!(
                "Message-ID: <{number}.{mark:016x}@contoso.example>\r\nDate: {}\r\nSubject: ",
                date::header(item.received)
            ),
        );
        message.extend_from_slice(&real.subject);
        put(&mut message, format_args!(" [{number}]\r\n"));
        if item.attachment == 0 {
            message.extend_from_slice(&real.mime);
            message.extend_from_slice(b"\r\n");
            message.extend_from_slice(&real.body);
            return message;
        }
        let boundary = format!("=_{mark:016x}_{number}");
        put(
            &mut message,
            format_args!(
                "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n"
            ),
        );
        message.extend_from_slice(&real.mime);
        message.extend_from_slice(b"\r\n");
        message.extend_from_slice(&real.body);
        put(
            &mut message,
            format_args!(
                "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; \
                 filename=\"{number}.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            ),
        );
        base64_lines(&mut message, item.attachment, &mut random);
        put(&mut message, format_args!("--{boundary}--\r\n"));
        message
    }

    /// Names of the flags and keywords.
    pub(crate) fn names(item: &Item) -> Vec<&'static str> {
        let flags = FLAGS.iter().map(|(name, _)| *name).enumerate();
        let keywords = KEYWORDS.iter().copied().enumerate();
        let flags = flags.filter(|(bit, _)| item.flags >> bit & 1 == 1);
        let keywords = keywords.filter(|(bit, _)| item.keywords >> bit & 1 == 1);
        flags.chain(keywords).map(|(_, name)| name).collect()
    }
}

/// Appends text; writing into memory cannot fail.
fn put(message: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    message.write_fmt(text).expect("memory takes it");
}

/// Names and shares. More folders than the usual ones are numbered below Projects.
fn folders(count: usize) -> (Vec<String>, Vec<usize>) {
    let usual = FOLDERS.iter().map(|(name, share)| ((*name).to_owned(), *share));
    let more = (1..).map(|number| (format!("Projects/{number:03}"), 3));
    usual.chain(more).take(count.max(1)).unzip()
}

/// Octets of encoded attachment for the message of this index.
fn attachment(sizes: &Sizes, index: usize, random: &mut Random) -> usize {
    const MEGABYTE: usize = 1_000_000;
    match sizes {
        Sizes::HeavyTail if random.share() < 0.2 => {
            // Log-normal: median 70 KB, mean about 195 KB, bounded at 8 MB.
            let size = 70_000.0 * (1.45 * random.normal()).exp();
            (size as usize).clamp(1_000, 8 * MEGABYTE)
        }
        Sizes::HeavyTail | Sizes::Small => 0,
        Sizes::Large => 5 * MEGABYTE + random.below(15 * MEGABYTE),
        Sizes::Given(sizes) => sizes[index],
    }
}

/// About `octets` octets of base64 in lines of 76.
fn base64_lines(message: &mut Vec<u8>, octets: usize, random: &mut Random) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut line = [b'\n'; 78];
    line[76] = b'\r';
    for _ in 0..octets.div_ceil(78) {
        for chunk in line[..76].chunks_mut(10) {
            let mut bits = random.next();
            for place in chunk {
                *place = LETTERS[(bits & 63) as usize];
                bits >>= 6;
            }
        }
        message.extend_from_slice(&line);
    }
}
