//! Both forms against golden files, with headers as a stranger writes them.

use super::*;
use rehome_domain::consistency::{Findings, ItemClass, assess};

fn item(class: ItemClass, subject: &str) -> ItemLine {
    ItemLine {
        kind: class.as_str(),
        counts_as: class.counts_as().as_str(),
        folder: "INBOX/Orders, 2024".into(),
        uid: 7,
        subject: Some(subject.into()),
        sender: Some("\"Press\" <press@contoso.example>".into()),
        date_sent: Some("Mon, 1 Jan 2024 10:00:00 +0100".into()),
        received: Timestamp::from_second(1_704_100_000).ok(),
        size: Some(150_000_000),
        reason: "the target refused it: NO [LIMIT] 'too' \"much\"".into(),
        side: "Target",
        found: Timestamp::from_second(1_714_100_000).ok(),
        approval: "Needed",
    }
}

fn users() -> Vec<UserLines> {
    let mut findings = Findings::default();
    findings.add(ItemClass::Refused, Some(5));
    let hostile = [
        "=cmd|' /C calc'!A0",
        "+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "  =2",
        "\u{ff1d}3",
        "two\r\nlines, \"quoted\"",
        "<script>alert(1)</script>&amp;<img src=x onerror=y>",
        "\u{202e}gpj.exe\u{0}\u{1b}[31m",
        "=?utf-8?q?plain?=",
        "Caf\u{e9} \u{1f600}",
    ];
    let user = |identity: &str, assessment, items| UserLines {
        identity: identity.into(),
        batch: "Wave, \"1\"".into(),
        status: "Synced",
        assessment,
        items_synced: 1_234,
        items_skipped: 12,
        bytes_synced: 5_000_000,
        bytes_per_minute: Some(1_000_000),
        error: String::new(),
        last_sync: Timestamp::from_second(1_714_200_000).ok(),
        in_progress_milliseconds: 3_723_004,
        lock_milliseconds: None,
        items,
    };
    let items = hostile
        .iter()
        .map(|subject| item(ItemClass::Refused, subject))
        .collect();
    let mut failed = user("orders@fabrikam.example", None, vec![]);
    failed.error = "MigrationPermanentException: <b>=1\nnot</b>. Mend it.".into();
    (failed.last_sync, failed.bytes_per_minute, failed.lock_milliseconds) = (None, None, Some(1_500));
    vec![
        user("reception@fabrikam.example", Some(assess(&findings, 1_246, 0)), items),
        user(
            "press@fabrikam.example",
            Some(assess(&Findings::default(), 1_234, 0)),
            vec![],
        ),
        failed,
    ]
}

fn golden(name: &str, found: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/migration/report/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    let held = std::fs::read_to_string(&path).unwrap();
    assert!(
        held == found,
        "{} differs (UPDATE_GOLDEN=1 rewrites it):\n{found}",
        path.display()
    );
}

fn table_of(range: Range<usize>) -> (String, usize) {
    let mut text = String::new();
    csv::header(&mut text);
    let rows = users()
        .iter()
        .fold(0, |at, user| csv::rows(&mut text, user, at, &range));
    (text, rows)
}

/// A strict reader of RFC 4180, which shares nothing with the writer.
fn read(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut chars = text.strip_prefix('\u{feff}').expect("a mark").chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match (c, quoted) {
            ('"', true) if chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            ('"', true) => {
                quoted = false;
                assert!(matches!(chars.peek(), Some(',' | '\r')), "text behind a quote");
            }
            ('"', false) => {
                assert!(field.is_empty(), "a quote inside");
                quoted = true;
            }
            (',', false) => record.push(std::mem::take(&mut field)),
            ('\r', false) => {
                assert_eq!(chars.next(), Some('\n'));
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            (c, _) => {
                assert!(!c.is_control(), "{c:?}");
                field.push(c);
            }
        }
    }
    assert!(record.is_empty() && field.is_empty());
    records
}

#[test]
fn the_table() {
    let (text, rows) = table_of(0..usize::MAX);
    assert_eq!(rows, 3 + 12);
    golden("report.csv", &text);
    let records = read(&text);
    assert_eq!(records.len(), 1 + rows);
    assert!(records.iter().all(|record| record.len() == records[0].len()));
    for cell in records.iter().skip(1).flatten() {
        let begins = cell.trim_start().chars().next();
        assert!(!begins.is_some_and(|c| "=+-@\u{ff1d}".contains(c)), "{cell}");
    }
    assert_eq!(records[2][18], "'=cmd|' /C calc'!A0");
    assert_eq!(
        (records[14][0].as_str(), records[14][1].as_str()),
        ("User", "press@fabrikam.example")
    );
}

#[test]
fn pages_of_the_table_make_the_whole() {
    let (whole, rows) = table_of(0..usize::MAX);
    let whole = read(&whole);
    let mut parts = vec![whole[0].clone()];
    for from in (0..rows).step_by(4) {
        parts.extend(read(&table_of(from..from + 4).0).into_iter().skip(1));
    }
    assert_eq!(parts, whole);
    assert_eq!(
        read(&table_of(rows..rows + 5).0).len(),
        1,
        "only the header behind the end"
    );
}

#[test]
fn the_page() {
    let now = Timestamp::from_second(1_714_300_000).unwrap();
    let text = page::render("Wave <1> & more", now, &users(), 3);
    golden("report.html", &text);
    for never in [
        "<script",
        "<img",
        "onerror=y>",
        "http:",
        "https:",
        "src=\"",
        "<link",
        "\u{202e}",
        "\u{1b}",
    ] {
        assert!(!text.contains(never), "{never}");
    }
    assert!(text.contains("3 items are not on this page"));
}

#[test]
fn names_of_files() {
    for (identity, expected) in [
        ("Wave 1", "Wave_1.report.csv"),
        ("../../etc/passwd", "_.._etc_passwd.report.csv"),
        ("reception@fabrikam.example", "reception@fabrikam.example.report.csv"),
    ] {
        assert_eq!(file_name(identity, "csv"), expected);
    }
}
