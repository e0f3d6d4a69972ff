//! Small readers of columns that the migration rows share.

use crate::StoreError;
use jiff::Timestamp;
use sqlx::{Row, sqlite::SqliteRow};

/// A time as stored: milliseconds since 1970, UTC.
pub(crate) fn instant(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_millisecond)
}

fn time_from(value: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(value).map_err(|e| StoreError::unreadable("time", e))
}

/// A time column.
pub(crate) fn millis(row: &SqliteRow, column: usize) -> Result<Timestamp, StoreError> {
    time_from(row.get(column))
}

/// A time column that may be empty.
pub(crate) fn millis_opt(row: &SqliteRow, column: usize) -> Result<Option<Timestamp>, StoreError> {
    row.get::<Option<i64>, _>(column).map(time_from).transpose()
}

/// A text column in a type's own form.
pub(crate) fn parsed<T>(row: &SqliteRow, column: usize, what: &'static str) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    row.get::<String, _>(column)
        .parse()
        .map_err(|e| StoreError::unreadable(what, e))
}

/// A text column in a type's own form that may be empty.
pub(crate) fn parsed_opt<T>(row: &SqliteRow, column: usize, what: &'static str) -> Result<Option<T>, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    row.get::<Option<String>, _>(column)
        .map(|text| text.parse().map_err(|e| StoreError::unreadable(what, e)))
        .transpose()
}

/// An unsigned count column.
pub(crate) fn count(row: &SqliteRow, column: usize) -> u64 {
    u64::try_from(row.get::<i64, _>(column)).unwrap_or(0)
}
