//! Dates in UTC, as IMAP and mail write them.

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAY: i64 = 86_400;

/// Year, month (0 to 11) and day (from 1) of a count of days since 1970-01-01 (Gregorian, years from 0000-03-01).
fn civil(days: i64) -> (i64, usize, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let calendar = (month + 2) % 12;
    (
        year_of_era + era * 400 + i64::from(calendar < 2),
        calendar as usize,
        day,
    )
}

fn days(year: i64, month: usize, day: i64) -> i64 {
    let year = if month < 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = (month as i64 + 10) % 12;
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// As APPEND and INTERNALDATE have it (RFC 3501 date-time, without quotes).
pub(crate) fn internal(seconds: i64) -> String {
    let (year, month, day) = civil(seconds.div_euclid(DAY));
    let time = seconds.rem_euclid(DAY);
    format!(
        "{day:2}-{}-{year:04} {:02}:{:02}:{:02} +0000",
        MONTHS[month],
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

/// As the header field Date has it (RFC 5322).
pub(crate) fn header(seconds: i64) -> String {
    let (year, month, day) = civil(seconds.div_euclid(DAY));
    let time = seconds.rem_euclid(DAY);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][seconds.div_euclid(DAY).rem_euclid(7) as usize];
    format!(
        "{weekday}, {day} {} {year:04} {:02}:{:02}:{:02} +0000",
        MONTHS[month],
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

/// The instant of an INTERNALDATE; None when it is not one.
pub(crate) fn parse_internal(text: &str) -> Option<i64> {
    let (date, rest) = text.trim_start().split_once(' ')?;
    let (time, zone) = rest.split_once(' ')?;
    let mut date = date.split('-');
    let day: i64 = date.next()?.parse().ok()?;
    let name = date.next()?;
    let month = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
    let year: i64 = date.next()?.parse().ok()?;
    let mut time = time.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    let value: i64 = zone.get(1..)?.parse().ok()?;
    let offset = (value / 100 * 60 + value % 100) * 60;
    let offset = if zone.starts_with('-') { -offset } else { offset };
    Some(days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for (seconds, text) in [
            (0, " 1-Jan-1970 00:00:00 +0000"),
            (951_782_400, "29-Feb-2000 00:00:00 +0000"),
            (1_735_689_599, "31-Dec-2024 23:59:59 +0000"),
        ] {
            assert_eq!(internal(seconds), text);
            assert_eq!(parse_internal(text), Some(seconds));
        }
        assert_eq!(parse_internal("01-Jan-1970 01:30:00 +0130"), Some(0));
        assert_eq!(parse_internal("31-Dec-1969 22:30:00 -0130"), Some(0));
        assert_eq!(header(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
    }
}
