//! INTERNALDATE as whole seconds since 1970.

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// 0000-01-01 and 9999-12-31 23:59:59, UTC: the grammar has four digits for a year.
const FIRST: i64 = -62_167_219_200;
const LAST: i64 = 253_402_300_799;

/// Reads `17-Jul-1996 02:44:25 -0700` (RFC 9051 §9 date-time) into seconds since 1970, UTC.
///
/// A day of one digit, with or without a blank before it, more blanks and a month in any case are taken, and second 60
/// is taken as 59. None where it is no date.
pub fn parse_date_time(octets: &[u8]) -> Option<i64> {
    let mut reader = Reader(octets);
    reader.skip_blanks();
    let day = reader.number(1, 2)?;
    reader.expect(b'-')?;
    let (name, rest) = reader.0.split_at_checked(3)?;
    reader.0 = rest;
    let month = 1 + MONTHS
        .iter()
        .position(|month| month.as_bytes().eq_ignore_ascii_case(name))? as i64;
    reader.expect(b'-')?;
    let year = reader.number(4, 4)?;
    reader.skip_blanks();
    let hour = reader.number(1, 2)?;
    reader.expect(b':')?;
    let minute = reader.number(2, 2)?;
    reader.expect(b':')?;
    let second = reader.number(2, 2)?;
    reader.skip_blanks();
    let zone = reader.zone()?;
    reader.skip_blanks();
    let valid = (1..=days_of_month(year, month)).contains(&day) && hour <= 23 && minute <= 59 && second <= 60;
    if !valid || !reader.0.is_empty() {
        return None;
    }
    let days = days_from_civil(year, month, day);
    Some(days * 86_400 + hour * 3600 + minute * 60 + second.min(59) - zone)
}

/// Writes seconds since 1970 as RFC 9051's date-time with the zone `+0000`, without quotes: ` 1-Jan-1970 00:00:00
/// +0000`. Years outside 0 to 9999 become the first and the last second of those.
pub fn format_date_time(seconds: i64) -> String {
    let seconds = seconds.clamp(FIRST, LAST);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let month = MONTHS[month as usize - 1];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{day:2}-{month}-{year:04} {hour:02}:{minute:02}:{second:02} +0000")
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn expect(&mut self, octet: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[octet])?;
        Some(())
    }

    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let digits = self
            .0
            .iter()
            .take(most)
            .take_while(|octet| octet.is_ascii_digit())
            .count();
        let (number, rest) = self.0.split_at(digits);
        self.0 = rest;
        (digits >= least).then(|| number.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
    }

    /// Seconds east of Greenwich; a zone that is missing or is a name counts as UTC.
    fn zone(&mut self) -> Option<i64> {
        let sign = match self.0.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            None => return Some(0),
            Some(_) => {
                let utc = ["GMT", "UTC", "UT", "Z"];
                let found = utc
                    .iter()
                    .any(|name| self.0.trim_ascii_end().eq_ignore_ascii_case(name.as_bytes()));
                self.0 = &[];
                return found.then_some(0);
            }
        };
        self.0 = &self.0[1..];
        let hours = self.number(2, 2)?;
        let minutes = self.number(2, 2)?;
        (minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar; years count from March so that the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_dates() {
        let rows = [
            ("17-Jul-1996 02:44:25 -0700", 837_596_665),
            (" 1-Jan-1970 00:00:00 +0000", 0),
            ("1-Jan-1970 00:00:00 +0000", 0),
            ("01-JAN-1970  0:00:01 +0000", 1),
            ("31-Dec-1969 23:59:59 +0000", -1),
            ("29-Feb-2000 12:00:00 +0530", 951_805_800),
            ("19-Jan-2038 03:14:08 +0000", 2_147_483_648),
            ("31-Dec-2016 23:59:60 +0000", 1_483_228_799),
            (" 1-Jan-0000 00:00:00 +0000", FIRST),
            ("31-Dec-9999 23:59:59 +0000", LAST),
            (" 2-Jan-2024 00:00:00 GMT", 1_704_153_600),
            (" 2-Jan-2024 00:00:00", 1_704_153_600),
        ];
        for (text, seconds) in rows {
            assert_eq!(parse_date_time(text.as_bytes()), Some(seconds), "{text}");
        }
        assert_eq!(format_date_time(837_596_665), "17-Jul-1996 09:44:25 +0000");
        assert_eq!(format_date_time(0), " 1-Jan-1970 00:00:00 +0000");
        assert_eq!(format_date_time(i64::MIN), " 1-Jan-0000 00:00:00 +0000");
        assert_eq!(format_date_time(i64::MAX), "31-Dec-9999 23:59:59 +0000");
    }

    #[test]
    fn what_is_no_date() {
        let rows = [
            "",
            "17-Jul-1996",
            "30-Feb-2024 00:00:00 +0000",
            "29-Feb-1900 00:00:00 +0000",
            "0-Jan-1970 00:00:00 +0000",
            "17-Foo-1996 02:44:25 -0700",
            "17-Jul-96 02:44:25 -0700",
            "17-Jul-1996 24:00:00 -0700",
            "17-Jul-1996 02:60:00 -0700",
            "17-Jul-1996 02:44:61 -0700",
            "17-Jul-1996 02:44:25 -07",
            "17-Jul-1996 02:44:25 -0760",
            "17-Jul-1996 02:44:25 PST",
            "17-Jul-1996 02:44:25 -0700 x",
            "17-J\u{fc}",
        ];
        for text in rows {
            assert_eq!(parse_date_time(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_second_comes_back(seconds in FIRST..=LAST) {
            prop_assert_eq!(parse_date_time(format_date_time(seconds).as_bytes()), Some(seconds));
        }

        #[test]
        fn agrees_with_a_calendar(seconds in -60_000_000_000i64..LAST - 86_400) {
            let expected = jiff::Timestamp::from_second(seconds).unwrap().strftime("%e-%b-%Y %H:%M:%S %z").to_string();
            prop_assert_eq!(format_date_time(seconds), expected);
        }

        #[test]
        fn never_panics(octets in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_date_time(&octets);
        }
    }
}
