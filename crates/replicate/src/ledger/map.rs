//! The map of a folder: source uid → target uid, run-length coded.

use super::LedgerError;
use crate::codec::{Reader, Writer};
use rehome_wire::uid_set::UidSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    source: u32,
    target: u32,
    length: u32,
}

/// Source uid → target uid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UidMap(Vec<Run>);

impl UidMap {
    /// The target uid of a source uid.
    #[must_use]
    pub fn get(&self, source: u32) -> Option<u32> {
        let run = self.0[..self.0.partition_point(|run| run.source <= source)].last()?;
        let offset = source - run.source;
        (offset < run.length).then(|| run.target + offset)
    }

    /// Maps a source uid, over what it was mapped to before.
    pub fn insert(&mut self, source: u32, target: u32) {
        self.remove(source);
        let at = self.0.partition_point(|run| run.source < source);
        let joins_before = at > 0 && {
            let before = self.0[at - 1];
            before.source.checked_add(before.length) == Some(source)
                && before.target.checked_add(before.length) == Some(target)
        };
        let joins_after = self.0.get(at).is_some_and(|after| {
            source.checked_add(1) == Some(after.source) && target.checked_add(1) == Some(after.target)
        });
        match (joins_before, joins_after) {
            (true, true) => {
                self.0[at - 1].length += 1 + self.0[at].length;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].length += 1,
            (false, true) => {
                let after = &mut self.0[at];
                *after = Run {
                    source,
                    target,
                    length: after.length + 1,
                };
            }
            (false, false) => self.0.insert(
                at,
                Run {
                    source,
                    target,
                    length: 1,
                },
            ),
        }
    }

    /// Forgets a source uid.
    pub fn remove(&mut self, source: u32) {
        let after = self.0.partition_point(|run| run.source <= source);
        let Some(at) = after.checked_sub(1) else { return };
        let run = self.0[at];
        let offset = source - run.source;
        if offset >= run.length {
            return;
        }
        let head = Run { length: offset, ..run };
        let tail = Run {
            source: source.saturating_add(1),
            target: (run.target + offset).saturating_add(1),
            length: run.length - offset - 1,
        };
        let kept = [head, tail].into_iter().filter(|run| run.length > 0);
        self.0.splice(at..=at, kept);
    }

    /// The source uid of a target uid.
    #[must_use]
    pub fn source_of(&self, target: u32) -> Option<u32> {
        let offset = |run: &Run| target.checked_sub(run.target).filter(|offset| *offset < run.length);
        self.0.iter().find_map(|run| Some(run.source + offset(run)?))
    }

    /// The source uids within `range`, ascending.
    pub fn sources(&self, range: std::ops::RangeInclusive<u32>) -> impl Iterator<Item = u32> + '_ {
        let (from, to) = range.into_inner();
        let first = self.0.partition_point(|run| run.source + (run.length - 1) < from);
        let runs = self.0[first..].iter().take_while(move |run| run.source <= to);
        runs.flat_map(move |run| run.source.max(from)..=(run.source + (run.length - 1)).min(to))
    }

    /// At most `count` of the source uids, ascending, spread evenly over all.
    #[must_use]
    pub fn sample(&self, count: usize) -> Vec<u32> {
        let all = self.len();
        let wanted = count.min(all);
        let mut runs = self.0.iter();
        let (mut run, mut before) = (runs.next(), 0);
        let mut sample = Vec::with_capacity(wanted);
        for place in (0..wanted).map(|nth| nth * all / wanted) {
            while let Some(held) = run.filter(|held| place - before >= held.length as usize) {
                before += held.length as usize;
                run = runs.next();
            }
            sample.extend(run.map(|run| run.source + (place - before) as u32));
        }
        sample
    }

    /// True when nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many uids are mapped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|run| run.length as usize).sum()
    }

    /// The target uids.
    #[must_use]
    pub fn targets(&self) -> UidSet {
        let mut runs: Vec<(u32, u32)> = self.0.iter().map(|run| (run.target, run.length)).collect();
        runs.sort_unstable();
        UidSet::from_ascending(
            runs.into_iter()
                .flat_map(|(target, length)| target..=target + (length - 1)),
        )
    }

    /// Its stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.count(self.0.len());
        for run in &self.0 {
            writer.u32(run.source);
            writer.u32(run.target);
            writer.u32(run.length);
        }
        writer.finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`].
    pub fn decode(octets: &[u8]) -> Result<Self, LedgerError> {
        let mut reader = Reader::new("map", octets)?;
        let count = reader.count(12)?;
        let mut runs: Vec<Run> = Vec::with_capacity(count);
        let mut floor = 0;
        for _ in 0..count {
            let run = Run {
                source: reader.u32()?,
                target: reader.u32()?,
                length: reader.u32()?,
            };
            let last = run.length.checked_sub(1);
            let source_end = last.and_then(|last| run.source.checked_add(last));
            let target_end = last.and_then(|last| run.target.checked_add(last));
            let (Some(source_end), Some(_)) = (source_end, target_end) else {
                return Err(reader.damaged("a run is empty or too long"));
            };
            if run.source <= floor {
                return Err(reader.damaged("runs do not ascend"));
            }
            floor = source_end;
            runs.push(run);
        }
        reader.finish()?;
        Ok(Self(runs))
    }
}
