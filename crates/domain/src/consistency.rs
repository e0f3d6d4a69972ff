//! The data consistency score: how well a copy agrees with its source, and what of it must be approved before completion.
//!
//! The thresholds are the constants below; `docs/data-consistency.md` publishes them, and a test holds the two together.

use jiff::Timestamp;

/// More items than this that are not on the target, and more than [`POOR_LOST_PER_THOUSAND`] of all, are a major loss.
pub const POOR_LOST_ITEMS: u64 = 10;
/// See [`POOR_LOST_ITEMS`]: so many in a thousand items.
pub const POOR_LOST_PER_THOUSAND: u64 = 10;
/// More than so many in a hundred of all items, or of all octets, that are not on the target are a major loss, however few.
pub const POOR_LOST_PER_HUNDRED: u64 = 50;
/// More altered items than this, and more than [`POOR_ALTERED_PER_HUNDRED`] of all, are a major loss.
pub const POOR_ALTERED_ITEMS: u64 = 50;
/// See [`POOR_ALTERED_ITEMS`]: so many in a hundred items.
pub const POOR_ALTERED_PER_HUNDRED: u64 = 10;
/// More items than this with other flags, keywords or dates, and more than [`INVESTIGATE_METADATA_PER_HUNDRED`] of all, are
/// not harmless any more.
pub const INVESTIGATE_METADATA_ITEMS: u64 = 50;
/// See [`INVESTIGATE_METADATA_ITEMS`]: so many in a hundred items.
pub const INVESTIGATE_METADATA_PER_HUNDRED: u64 = 10;

macro_rules! item_classes {
    ($($(#[$doc:meta])* $name:ident => $counts:ident),+ $(,)?) => {
        /// As what an item of the report counts (`Kind` of a skipped item). The set is closed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ItemClass { $($(#[$doc])* $name),+ }
        impl ItemClass {
            /// Every class.
            pub const ALL: &'static [ItemClass] = &[$(ItemClass::$name),+];
            /// As the cmdlets print it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }
            /// What it does to the score (`ScoringClassifications`).
            #[must_use]
            pub const fn counts_as(self) -> CountsAs {
                match self { $(Self::$name => CountsAs::$counts),+ }
            }
        }
    };
}

item_classes! {
    /// The source cannot give it, or what it gives cannot be used.
    Bad => Lost,
    /// It is larger than what the target takes.
    TooLarge => Lost,
    /// The target refused it.
    Refused => Lost,
    /// One side says that it is there and does not give it.
    Missing => Lost,
    /// The target holds other octets than were sent.
    Altered => Altered,
    /// The target holds other flags.
    Flags => Metadata,
    /// The target holds another received time.
    Date => Metadata,
    /// The target could not keep some keywords.
    Keywords => Metadata,
    /// The target holds it once more.
    Double => Metadata,
    /// The source's raw octets differ from the canonical form in line ends only: nothing is inconsistent.
    LineEnds => Nothing,
}

/// What a class does to the score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CountsAs {
    /// Content that is not on the target.
    Lost,
    /// Content that is other than it was.
    Altered,
    /// Everything beside the content.
    Metadata,
    /// It does not count.
    Nothing,
}

impl CountsAs {
    /// As the cmdlets print it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "Lost",
            Self::Altered => "Altered",
            Self::Metadata => "Metadata",
            Self::Nothing => "Nothing",
        }
    }
}

/// Items of one class, and their octets as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Items.
    pub items: u64,
    /// Octets.
    pub octets: u64,
}

/// What a move's report holds, counted by class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings([Count; ItemClass::ALL.len()]);

impl Findings {
    /// Counts one item, with its octets where they are known.
    pub fn add(&mut self, class: ItemClass, octets: Option<u64>) {
        self.add_many(
            class,
            Count {
                items: 1,
                octets: octets.unwrap_or(0),
            },
        );
    }

    /// Counts several at once.
    pub fn add_many(&mut self, class: ItemClass, count: Count) {
        let held = &mut self.0[class as usize];
        held.items = held.items.saturating_add(count.items);
        held.octets = held.octets.saturating_add(count.octets);
    }

    /// Of one class.
    #[must_use]
    pub fn of(&self, class: ItemClass) -> Count {
        self.0[class as usize]
    }

    /// Whether nothing counts against the copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let counting = [CountsAs::Lost, CountsAs::Altered, CountsAs::Metadata];
        counting.iter().all(|counts| self.sum(*counts).items == 0)
    }

    /// Of all classes that do the same to the score.
    #[must_use]
    pub fn sum(&self, counts: CountsAs) -> Count {
        let classes = ItemClass::ALL.iter().filter(|class| class.counts_as() == counts);
        classes.fold(Count::default(), |sum, class| Count {
            items: sum.items.saturating_add(self.of(*class).items),
            octets: sum.octets.saturating_add(self.of(*class).octets),
        })
    }
}

/// `DataConsistencyScore`, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataConsistencyScore {
    /// Nothing is inconsistent.
    Perfect,
    /// Something beside the content is, and little of it.
    Good,
    /// Some content is not there as it was, or much beside it.
    Investigate,
    /// Much content is not.
    Poor,
}

impl DataConsistencyScore {
    /// As the cmdlets print it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Perfect => "Perfect",
            Self::Good => "Good",
            Self::Investigate => "Investigate",
            Self::Poor => "Poor",
        }
    }
}

/// A score with what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The score.
    pub score: DataConsistencyScore,
    /// Whether there is so much beside the content that it must be approved too.
    pub metadata_counts: bool,
    /// The counts and thresholds that led to it, in words; empty when Perfect.
    pub factors: Vec<String>,
}

/// More than `part` in `of`, of `all`.
fn exceeds(count: u64, part: u64, of: u64, all: u64) -> bool {
    u128::from(count) * u128::from(of) > u128::from(part) * u128::from(all)
}

/// The score of a copy of `items` items with `octets` octets in the source, as far as known; 0 octets are not known. Less
/// than what was found is taken as what was found.
#[must_use]
pub fn assess(findings: &Findings, items: u64, octets: u64) -> Assessment {
    let (lost, altered, metadata) = (
        findings.sum(CountsAs::Lost),
        findings.sum(CountsAs::Altered),
        findings.sum(CountsAs::Metadata),
    );
    let all = items.max(lost.items.saturating_add(altered.items));
    let major_loss = lost.items > POOR_LOST_ITEMS && exceeds(lost.items, POOR_LOST_PER_THOUSAND, 1_000, all);
    let most_items = exceeds(lost.items, POOR_LOST_PER_HUNDRED, 100, all);
    let most_octets = octets > 0 && exceeds(lost.octets, POOR_LOST_PER_HUNDRED, 100, octets.max(lost.octets));
    let rewritten = altered.items > POOR_ALTERED_ITEMS && exceeds(altered.items, POOR_ALTERED_PER_HUNDRED, 100, all);
    let metadata_counts = metadata.items > INVESTIGATE_METADATA_ITEMS
        && exceeds(metadata.items, INVESTIGATE_METADATA_PER_HUNDRED, 100, all);
    let score = if major_loss || most_items || most_octets || rewritten {
        DataConsistencyScore::Poor
    } else if lost.items + altered.items > 0 || metadata_counts {
        DataConsistencyScore::Investigate
    } else if metadata.items > 0 {
        DataConsistencyScore::Good
    } else {
        DataConsistencyScore::Perfect
    };
    let counted = ItemClass::ALL
        .iter()
        .filter(|class| class.counts_as() != CountsAs::Nothing && findings.of(**class).items > 0)
        .map(|class| format!("{}: {}", class.as_str(), findings.of(*class).items));
    let exceeded = [
        (
            major_loss,
            format!(
                "more than {POOR_LOST_ITEMS} items and {POOR_LOST_PER_THOUSAND} in a thousand are not on the target"
            ),
        ),
        (
            most_items,
            format!("more than {POOR_LOST_PER_HUNDRED} % of the items are not on the target"),
        ),
        (
            most_octets,
            format!("more than {POOR_LOST_PER_HUNDRED} % of the octets are not on the target"),
        ),
        (
            rewritten,
            format!("more than {POOR_ALTERED_ITEMS} items and {POOR_ALTERED_PER_HUNDRED} % of them are altered"),
        ),
        (
            metadata_counts,
            format!(
                "more than {INVESTIGATE_METADATA_ITEMS} items and {INVESTIGATE_METADATA_PER_HUNDRED} % of them have other flags, keywords or dates"
            ),
        ),
    ];
    let exceeded = exceeded.into_iter().filter(|(so, _)| *so).map(|(_, text)| text);
    Assessment {
        score,
        metadata_counts,
        factors: counted.chain(exceeded).collect(),
    }
}

/// The thresholds in words, for help pages.
#[must_use]
pub fn thresholds() -> String {
    format!(
        "DataConsistencyScore is Perfect when nothing is reported; Good when no content is missing or altered, and not more than {INVESTIGATE_METADATA_ITEMS} items, or not more than {INVESTIGATE_METADATA_PER_HUNDRED} % of them, have other flags, keywords or dates; \
         Poor when more than {POOR_LOST_ITEMS} items and more than {POOR_LOST_PER_THOUSAND} in a thousand are not on the target, or more than {POOR_LOST_PER_HUNDRED} % of all items or octets, or more than {POOR_ALTERED_ITEMS} items and more than {POOR_ALTERED_PER_HUNDRED} % are altered; else Investigate. \
         Perfect and Good complete freely. Investigate waits for -ApproveSkippedItems on the user or his batch; Poor for that on the user himself. An approval holds for what was found before it."
    )
}

/// Up to when an administrator approved what was skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApprovedUntil {
    /// For this user himself.
    pub user: Option<Timestamp>,
    /// For his batch.
    pub batch: Option<Timestamp>,
}

/// How it stands with the approval of one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// It does not need one: the score rule lets it pass.
    ByRule,
    /// An administrator gave it.
    Given,
    /// It is needed, on the user or his batch.
    Needed,
    /// It is needed on the user himself.
    NeededOnUser,
}

impl Approval {
    /// As reports print it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ByRule => "ByRule",
            Self::Given => "Approved",
            Self::Needed => "Needed",
            Self::NeededOnUser => "NeededOnUser",
        }
    }

    /// Whether the item lets its user be completed.
    #[must_use]
    pub const fn passes(self) -> bool {
        match self {
            Self::ByRule | Self::Given => true,
            Self::Needed | Self::NeededOnUser => false,
        }
    }
}

/// Whether an item that was found in second `found` lets its user be completed. What is beside the content passes by rule
/// as long as there is little of it. A batch's approval does not reach a user who is Poor: nobody should approve a major
/// loss without having looked at whose it is.
#[must_use]
pub fn approval(assessment: &Assessment, class: ItemClass, found: i64, until: ApprovedUntil) -> Approval {
    match class.counts_as() {
        CountsAs::Nothing => return Approval::ByRule,
        CountsAs::Metadata if !assessment.metadata_counts => return Approval::ByRule,
        CountsAs::Metadata | CountsAs::Lost | CountsAs::Altered => {}
    }
    let (until, needed) = match assessment.score {
        DataConsistencyScore::Poor => (until.user, Approval::NeededOnUser),
        DataConsistencyScore::Perfect | DataConsistencyScore::Good | DataConsistencyScore::Investigate => {
            (until.user.max(until.batch), Approval::Needed)
        }
    };
    match until {
        Some(until) if found <= until.as_second() => Approval::Given,
        Some(_) | None => needed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(counts: &[(ItemClass, u64, u64)]) -> Findings {
        let mut findings = Findings::default();
        for (class, items, octets) in counts {
            findings.add_many(
                *class,
                Count {
                    items: *items,
                    octets: *octets,
                },
            );
        }
        findings
    }

    #[test]
    fn scores() {
        use DataConsistencyScore::{Good, Investigate, Perfect, Poor};
        use ItemClass::{Altered, Bad, Date, Double, Flags, Keywords, LineEnds, Missing, Refused, TooLarge};
        type Row<'a> = (&'a str, &'a [(ItemClass, u64, u64)], u64, u64, DataConsistencyScore);
        let rows: &[Row] = &[
            ("nothing", &[], 1_000, 1_000, Perfect),
            ("an empty mailbox", &[], 0, 0, Perfect),
            ("line ends", &[(LineEnds, 1_000, 0)], 1_000, 0, Perfect),
            ("one flag", &[(Flags, 1, 0)], 1_000, 0, Good),
            ("a double", &[(Double, 1, 0)], 1_000, 0, Good),
            ("all of a small mailbox", &[(Keywords, 50, 0)], 50, 0, Good),
            ("51 of 510", &[(Keywords, 30, 0), (Date, 21, 0)], 510, 0, Good),
            ("51 of 509", &[(Keywords, 30, 0), (Date, 21, 0)], 509, 0, Investigate),
            ("one bad", &[(Bad, 1, 10)], 1_000, 100_000, Investigate),
            ("one altered", &[(Altered, 1, 10)], 1_000, 100_000, Investigate),
            ("one of two", &[(TooLarge, 1, 10)], 2, 20, Investigate),
            ("two of three", &[(TooLarge, 2, 10)], 3, 0, Poor),
            ("the only one", &[(Missing, 1, 10)], 1, 10, Poor),
            ("most octets", &[(TooLarge, 1, 51)], 1_000, 100, Poor),
            ("half of the octets", &[(TooLarge, 1, 50)], 1_000, 100, Investigate),
            ("octets not known", &[(TooLarge, 1, 51)], 1_000, 0, Investigate),
            (
                "10 of 100",
                &[(Bad, 3, 0), (TooLarge, 3, 0), (Refused, 4, 0)],
                100,
                0,
                Investigate,
            ),
            ("11 of 1100", &[(Refused, 11, 0)], 1_100, 0, Investigate),
            ("11 of 1099", &[(Refused, 11, 0)], 1_099, 0, Poor),
            ("50 altered of 100", &[(Altered, 50, 0)], 100, 0, Investigate),
            ("51 altered of 510", &[(Altered, 51, 0)], 510, 0, Investigate),
            ("51 altered of 509", &[(Altered, 51, 0)], 509, 0, Poor),
            ("more than there are", &[(Bad, u64::MAX, u64::MAX)], 1, 1, Poor),
        ];
        for (name, counts, items, octets, expected) in rows {
            let found = assess(&findings(counts), *items, *octets);
            assert_eq!(found.score, *expected, "{name}: {:?}", found.factors);
            assert_eq!(found.factors.is_empty(), *expected == Perfect, "{name}");
        }
    }

    #[test]
    fn approvals() {
        use Approval::{ByRule, Given, Needed, NeededOnUser};
        use DataConsistencyScore::{Good, Investigate, Poor};
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let (lost, flags) = (ItemClass::TooLarge, ItemClass::Flags);
        let rows = [
            (Good, false, flags, None, None, ByRule),
            (Investigate, false, flags, None, None, ByRule),
            (Poor, false, flags, None, None, ByRule),
            (Investigate, true, flags, None, None, Needed),
            (Investigate, true, flags, None, at(100), Given),
            (Investigate, false, lost, None, None, Needed),
            (Investigate, false, lost, at(99), at(99), Needed),
            (Investigate, false, lost, at(100), None, Given),
            (Investigate, false, lost, at(5), at(100), Given),
            (Poor, false, lost, None, at(100), NeededOnUser),
            (Poor, false, lost, at(99), at(100), NeededOnUser),
            (Poor, false, lost, at(100), None, Given),
            (Poor, true, flags, None, at(100), NeededOnUser),
        ];
        for (row, (score, metadata_counts, class, user, batch, expected)) in rows.into_iter().enumerate() {
            let assessment = Assessment {
                score,
                metadata_counts,
                factors: vec![],
            };
            let found = approval(&assessment, class, 100, ApprovedUntil { user, batch });
            assert_eq!(found, expected, "row {row}");
        }
    }

    /// The page is what administrators were promised: a threshold does not change without it.
    #[test]
    fn the_page_says_the_same() {
        let page = include_str!("../../../docs/data-consistency.md");
        for (name, value) in [
            ("POOR_LOST_ITEMS", POOR_LOST_ITEMS),
            ("POOR_LOST_PER_THOUSAND", POOR_LOST_PER_THOUSAND),
            ("POOR_LOST_PER_HUNDRED", POOR_LOST_PER_HUNDRED),
            ("POOR_ALTERED_ITEMS", POOR_ALTERED_ITEMS),
            ("POOR_ALTERED_PER_HUNDRED", POOR_ALTERED_PER_HUNDRED),
            ("INVESTIGATE_METADATA_ITEMS", INVESTIGATE_METADATA_ITEMS),
            ("INVESTIGATE_METADATA_PER_HUNDRED", INVESTIGATE_METADATA_PER_HUNDRED),
        ] {
            let row = format!("| `{name}` | {value} |");
            assert!(page.contains(&row), "{row}");
        }
        for class in ItemClass::ALL {
            let row = format!("| `{}` | {} |", class.as_str(), class.counts_as().as_str());
            assert!(page.contains(&row), "{row}");
        }
    }
}
