//! Dates and lengths of time as administrators write them.

use jiff::{
    SignedDuration, SpanRelativeTo, Timestamp,
    civil::{Date, DateTime, Time},
    tz::{Offset, TimeZone},
};

/// Why a text is not a date or a length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Two readings are possible.
    #[error("'{text}' is ambiguous: write {first} or {second}")]
    Ambiguous {
        /// As given.
        text: String,
        /// One reading, as year-month-day.
        first: String,
        /// The other.
        second: String,
    },
    /// Not a date, or one that does not exist.
    #[error(
        "'{0}' is not a date: write for example 2026-05-31T14:30:00Z or \"5/31/2026 2:30 PM\"; without a zone it is UTC"
    )]
    NotADate(String),
    /// Not a length of time.
    #[error("'{0}' is not a length of time: write days.hours:minutes:seconds, for example 1.12:00:00, or PT36H")]
    NotATimeSpan(String),
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// The number of a month's English name or its first three letters.
fn month_of(word: &str) -> Option<i8> {
    let word = word.to_ascii_lowercase();
    let found = MONTHS
        .iter()
        .position(|m| *m == word || (word.len() == 3 && m.starts_with(&word)));
    found.and_then(|i| i8::try_from(i + 1).ok())
}

/// Reads a point in time: ISO 8601 or Exchange's forms; UTC where no zone is given.
///
/// # Errors
/// [`TimeError::Ambiguous`] for day and month in digits that could be exchanged, [`TimeError::NotADate`] otherwise.
pub fn parse_date_time(text: &str) -> Result<Timestamp, TimeError> {
    let bad = || TimeError::NotADate(text.to_owned());
    let mut spaced = text.trim().to_owned();
    if spaced.len() > 64 || !spaced.is_ascii() {
        return Err(bad());
    }
    if matches!(spaced.as_bytes().get(10), Some(b'T' | b't')) && spaced.as_bytes()[9].is_ascii_digit() {
        spaced.replace_range(10..11, " ");
    }
    let words: Vec<&str> = spaced.split([' ', ',', '\t']).filter(|w| !w.is_empty()).collect();
    let first = *words.first().ok_or_else(bad)?;
    let (date, rest) = if first.contains(['/', '-', '.']) {
        let parts: Vec<&str> = first.split(['/', '-', '.']).collect();
        let [a, b, c] = parts.as_slice() else { return Err(bad()) };
        (numeric_date(text, a, b, c)?, &words[1..])
    } else {
        let [a, b, c, rest @ ..] = words.as_slice() else {
            return Err(bad());
        };
        let (month, day) = match (month_of(a), month_of(b)) {
            (Some(month), None) => (month, b),
            (None, Some(month)) => (month, a),
            (Some(_), Some(_)) | (None, None) => return Err(bad()),
        };
        (
            date_from(c, month, day.parse().map_err(|_| bad())?).ok_or_else(bad)?,
            rest,
        )
    };
    let (time, offset) = time_and_offset(&rest.concat()).ok_or_else(bad)?;
    offset.to_timestamp(DateTime::from_parts(date, time)).map_err(|_| bad())
}

fn date_from(year: &str, month: i8, day: i8) -> Option<Date> {
    if year.len() != 4 {
        return None;
    }
    Date::new(year.parse().ok()?, month, day).ok()
}

fn numeric_date(text: &str, a: &str, b: &str, c: &str) -> Result<Date, TimeError> {
    let bad = || TimeError::NotADate(text.to_owned());
    let number = |s: &str| s.parse::<i8>().map_err(|_| bad());
    if a.len() == 4 {
        return date_from(a, number(b)?, number(c)?).ok_or_else(bad);
    }
    if let Some(month) = month_of(b) {
        return date_from(c, month, number(a)?).ok_or_else(bad);
    }
    let (x, y) = (number(a)?, number(b)?);
    match (date_from(c, x, y), date_from(c, y, x)) {
        (Some(first), Some(second)) if first != second => Err(TimeError::Ambiguous {
            text: text.to_owned(),
            first: first.to_string(),
            second: second.to_string(),
        }),
        (Some(date), _) | (None, Some(date)) => Ok(date),
        (None, None) => Err(bad()),
    }
}

/// Reads `14:30:00.5+02:00`, `2:30PM`, `4PMz`; nothing at all is midnight UTC.
fn time_and_offset(text: &str) -> Option<(Time, Offset)> {
    let mut rest = text.to_ascii_uppercase();
    let mut offset = Offset::UTC;
    if rest.is_empty() {
        return Some((Time::midnight(), offset));
    }
    if let Some(short) = ["Z", "UTC", "GMT"].iter().find_map(|z| rest.strip_suffix(z)) {
        rest = short.to_owned();
    } else if let Some(at) = rest.rfind(['+', '-']) {
        let digits: String = rest[at + 1..].chars().filter(|c| *c != ':').collect();
        let (hours, minutes) = match digits.len() {
            2 => (digits.parse::<i32>().ok()?, 0),
            4 => (digits[..2].parse::<i32>().ok()?, digits[2..].parse::<i32>().ok()?),
            _ => return None,
        };
        if hours > 14 || minutes > 59 {
            return None;
        }
        let sign = if rest.as_bytes()[at] == b'-' { -1 } else { 1 };
        offset = Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()?;
        rest.truncate(at);
    }
    let half = ["AM", "PM"].into_iter().find(|h| rest.ends_with(h));
    if half.is_some() {
        rest.truncate(rest.len() - 2);
    }
    let parts: Vec<&str> = rest.split(':').collect();
    let (mut hour, minute, second) = match parts.as_slice() {
        [h] if half.is_some() => (h.parse::<i8>().ok()?, 0, "0"),
        [h, m] => (h.parse().ok()?, m.parse::<i8>().ok()?, "0"),
        [h, m, s] => (h.parse().ok()?, m.parse().ok()?, *s),
        _ => return None,
    };
    if let Some(half) = half {
        if !(1..=12).contains(&hour) {
            return None;
        }
        hour = hour % 12 + if half == "PM" { 12 } else { 0 };
    }
    let (whole, fraction) = second.split_once('.').unwrap_or((second, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse::<i32>().ok()?;
    Some((Time::new(hour, minute, whole.parse().ok()?, nanoseconds).ok()?, offset))
}

/// How a time was understood: in UTC and in the reader's zone.
#[must_use]
pub fn reading_of(time: Timestamp, zone: &TimeZone) -> String {
    let utc = time
        .to_zoned_datetime(TimeZone::UTC)
        .strftime("%Y-%m-%d %H:%M:%S UTC")
        .to_string();
    let local = time.to_zoned_datetime(zone.clone());
    if local.offset() == Offset::UTC {
        utc
    } else {
        format!("{utc} ({} local time)", local.strftime("%Y-%m-%d %H:%M:%S"))
    }
}

/// Reads `d.hh:mm:ss`, `hh:mm:ss`, `hh:mm`, `0`, or ISO 8601 (`PT36H`, `P1D`).
///
/// A number alone is refused, because some read it as days and others as hours.
///
/// # Errors
/// [`TimeError::NotATimeSpan`].
pub fn parse_time_span(text: &str) -> Result<SignedDuration, TimeError> {
    let bad = || TimeError::NotATimeSpan(text.to_owned());
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if trimmed.len() > 64 {
        return Err(bad());
    }
    if trimmed.starts_with(['P', 'p']) {
        let span: jiff::Span = trimmed.parse().map_err(|_| bad())?;
        return span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| bad());
    }
    let (days, clock) = match trimmed.split_once('.') {
        Some((days, clock)) if !days.contains(':') => (days.parse::<u32>().map_err(|_| bad())?, clock),
        Some(_) | None => (0, trimmed),
    };
    let parts: Vec<u32> = clock
        .split(':')
        .map(|p| p.parse().map_err(|_| bad()))
        .collect::<Result<_, _>>()?;
    let (hours, minutes, seconds) = match parts.as_slice() {
        [h, m] => (*h, *m, 0),
        [h, m, s] => (*h, *m, *s),
        _ => return Err(bad()),
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return Err(bad());
    }
    let whole = i64::from(days) * 86_400 + i64::from(hours) * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
    Ok(SignedDuration::from_secs(whole))
}

/// A length of time as `[d.]hh:mm:ss`, fractions of a second only where there are some.
#[must_use]
pub fn time_span_text(span: SignedDuration) -> String {
    let (sign, seconds, nanoseconds) = (
        if span.is_negative() { "-" } else { "" },
        span.as_secs().unsigned_abs(),
        span.subsec_nanos().unsigned_abs(),
    );
    let days = seconds / 86_400;
    let days = if days > 0 { format!("{days}.") } else { String::new() };
    let fraction = if nanoseconds > 0 {
        format!(".{:07}", nanoseconds / 100)
    } else {
        String::new()
    };
    format!(
        "{sign}{days}{:02}:{:02}:{:02}{fraction}",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, expected) in [
            ("2026-05-06T14:30:00Z", "2026-05-06T14:30:00Z"),
            ("2026-05-06 14:30:00z", "2026-05-06T14:30:00Z"),
            ("2026-05-06T14:30:00+02:00", "2026-05-06T12:30:00Z"),
            ("2026-05-06T14:30", "2026-05-06T14:30:00Z"),
            ("2026-05-06", "2026-05-06T00:00:00Z"),
            ("2026/05/06", "2026-05-06T00:00:00Z"),
            ("2026-05-06T14:30:00.25Z", "2026-05-06T14:30:00.25Z"),
            ("5/31/2026 2:30 PM", "2026-05-31T14:30:00Z"),
            ("5/31/2026 12:05 am", "2026-05-31T00:05:00Z"),
            ("31.5.2026 14:30:05", "2026-05-31T14:30:05Z"),
            ("5/5/2026", "2026-05-05T00:00:00Z"),
            ("May 6, 2026 4PM", "2026-05-06T16:00:00Z"),
            ("6 may 2026 04:00 -0500", "2026-05-06T09:00:00Z"),
            ("06-May-2026", "2026-05-06T00:00:00Z"),
        ] {
            assert_eq!(
                parse_date_time(text).map(|t| t.to_string()),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
        for text in ["5/6/2026", "05.06.2026 14:00", "12-11-2026"] {
            assert!(
                matches!(parse_date_time(text), Err(TimeError::Ambiguous { .. })),
                "{text}"
            );
        }
        for text in [
            "",
            "now",
            "2026",
            "2026-13-01",
            "2026-02-30",
            "31/31/2026",
            "2026-05-06T25:00",
            "2026-05-06 13:00 PM",
            "2026-05-06 5",
            "5/31/26",
            "May 2026",
            "2026-05-06T14:30 Europe/Berlin",
            "6 May May 2026",
            "2026-05-06T14:30:00.x",
            "９/1/2026",
        ] {
            assert!(matches!(parse_date_time(text), Err(TimeError::NotADate(_))), "{text}");
        }
    }

    #[test]
    fn time_spans() {
        for (text, seconds, printed) in [
            ("0", 0, "00:00:00"),
            ("1.02:03:04", 93_784, "1.02:03:04"),
            ("12:30", 45_000, "12:30:00"),
            ("00:00:01", 1, "00:00:01"),
            ("PT36H", 129_600, "1.12:00:00"),
            ("P1D", 86_400, "1.00:00:00"),
        ] {
            let span = parse_time_span(text).unwrap();
            assert_eq!(
                (span.as_secs(), time_span_text(span).as_str()),
                (seconds, printed),
                "{text}"
            );
        }
        for text in ["", "24", "24:00:00", "1.5", "x", "P1M", "1:60"] {
            assert!(parse_time_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn readings() {
        let time = parse_date_time("2026-05-06 14:30").unwrap();
        assert_eq!(reading_of(time, &TimeZone::UTC), "2026-05-06 14:30:00 UTC");
        let zone = TimeZone::fixed(Offset::from_seconds(7200).unwrap());
        assert_eq!(
            reading_of(time, &zone),
            "2026-05-06 14:30:00 UTC (2026-05-06 16:30:00 local time)"
        );
    }
}
