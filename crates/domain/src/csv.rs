//! CSV files that administrators hand in (RFC 4180, with BOM, LF or CRLF), judged as a whole: every fault of the file at once.

use crate::address::SmtpAddress;
use std::collections::HashMap;

/// Which columns a file may have, and how long it may be.
#[derive(Clone, Copy, Debug)]
pub struct CsvRules<'a> {
    /// Columns that must be there; the first holds an e-mail address in every row, each address once.
    pub required: &'a [&'a str],
    /// Columns that may be there.
    pub optional: &'a [&'a str],
    /// Of both, those whose values are secrets: taken as they stand, blanks included. Where there are any, no fault
    /// quotes what stands in the file, because it may be a secret in the wrong place.
    pub secret: &'a [&'a str],
    /// Whether other columns are passed over instead of refused.
    pub allow_unknown: bool,
    /// Most rows, the header not counted.
    pub max_rows: usize,
}

/// One fault of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvProblem {
    /// The line in the file where the row begins, from 1; none for the file as a whole.
    pub line: Option<usize>,
    /// What is wrong, a sentence without full stop.
    pub text: String,
}

impl std::fmt::Display for CsvProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// A row of a sound file.
#[derive(Clone, PartialEq, Eq)]
pub struct CsvRow {
    /// The line in the file where it begins, from 1.
    pub line: usize,
    /// The address in the first required column.
    pub address: SmtpAddress,
    /// The other known columns that are not blank: name as declared, value trimmed unless it is a secret.
    pub cells: Vec<(String, String)>,
}

impl std::fmt::Debug for CsvRow {
    /// Without values, which may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns: Vec<&str> = self.cells.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("CsvRow")
            .field("line", &self.line)
            .field("address", &self.address)
            .field("cells", &columns)
            .finish()
    }
}

impl CsvRow {
    /// The value of a column; none when it is blank or the file lacks it.
    #[must_use]
    pub fn cell(&self, column: &str) -> Option<&str> {
        self.cells
            .iter()
            .find(|(name, _)| name == column)
            .map(|(_, value)| value.as_str())
    }
}

/// Records of a text: the line each begins on and its fields.
type Records = Vec<(usize, Vec<String>)>;

/// Reads a file.
///
/// # Errors
/// Every fault: encoding, columns, length, and each row that is wrong in itself or repeats another's address.
pub fn read(octets: &[u8], rules: &CsvRules<'_>) -> Result<Vec<CsvRow>, Vec<CsvProblem>> {
    let whole = |text: String| vec![CsvProblem { line: None, text }];
    let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
    let text = match std::str::from_utf8(octets) {
        Ok(text) if !text.contains('\0') => text,
        Ok(_) | Err(_) => return Err(whole("the file is not UTF-8 text: save it as \"CSV UTF-8\"".to_owned())),
    };
    let mut records = records(text).map_err(|line| {
        vec![CsvProblem {
            line: Some(line),
            text: "a quotation mark is opened and not closed, or text follows a closing one".into(),
        }]
    })?;
    records.retain(|(_, fields)| fields.iter().any(|f| !f.trim().is_empty()));
    if records.is_empty() {
        return Err(whole("the file is empty".to_owned()));
    }
    let (_, header) = records.remove(0);
    let columns = columns(&header, rules).map_err(|texts| {
        texts
            .into_iter()
            .map(|text| CsvProblem { line: None, text })
            .collect::<Vec<_>>()
    })?;
    if records.is_empty() {
        return Err(whole("the file has a header and no rows".to_owned()));
    }
    if records.len() > rules.max_rows {
        let text = format!(
            "the file has {} rows, and at most {} are allowed: divide it",
            records.len(),
            rules.max_rows
        );
        return Err(whole(text));
    }
    rows(&records, &columns, header.len(), rules)
}

/// Splits a text into records; on a fault, the line on which the record begins.
fn records(text: &str) -> Result<Records, usize> {
    let (mut records, mut fields, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begins) = (1, 1);
    let (mut quoted, mut closed) = (false, false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && rest.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted => (quoted, closed) = (false, true),
            _ if quoted => field.push(c),
            '"' if field.trim().is_empty() && !closed => {
                field.clear();
                quoted = true;
            }
            ',' | '\n' => {
                fields.push(std::mem::take(&mut field));
                closed = false;
                if c == '\n' {
                    records.push((begins, std::mem::take(&mut fields)));
                    begins = line;
                }
            }
            '\r' if matches!(rest.peek(), None | Some('\n')) => {}
            _ if closed && !c.is_whitespace() => return Err(begins),
            // Blanks after a closing quotation mark belong to nothing.
            _ if closed => {}
            _ => field.push(c),
        }
    }
    if quoted {
        return Err(begins);
    }
    if !field.is_empty() || !fields.is_empty() || closed {
        fields.push(field);
        records.push((begins, fields));
    }
    Ok(records)
}

/// For each field of the header the declared column, or none where it is passed over. The address column is always there.
fn columns<'a>(header: &[String], rules: &CsvRules<'a>) -> Result<Vec<Option<&'a str>>, Vec<String>> {
    let known = || rules.required.iter().chain(rules.optional).copied();
    let mut problems = Vec::new();
    let mut columns: Vec<Option<&'a str>> = Vec::new();
    for name in header.iter().map(|n| n.trim()) {
        let column = known().find(|k| k.eq_ignore_ascii_case(name));
        match column {
            Some(column) if columns.contains(&Some(column)) => {
                problems.push(format!("the column {column} appears twice"))
            }
            None if !rules.allow_unknown => {
                let list: Vec<&str> = known().collect();
                let which = if rules.secret.is_empty() {
                    format!("the column '{name}'")
                } else {
                    format!("column {}", columns.len() + 1)
                };
                problems.push(format!(
                    "{which} is not known; known are {}; -AllowUnknownColumnsInCsv $true passes others over",
                    list.join(", ")
                ));
            }
            Some(_) | None => {}
        }
        columns.push(column);
    }
    for missing in rules.required.iter().filter(|r| !columns.contains(&Some(r))) {
        let hint = if header.len() == 1 && header[0].contains([';', '\t']) {
            " (columns are divided by commas)"
        } else {
            ""
        };
        problems.push(format!("the column {missing} is missing{hint}"));
    }
    if problems.is_empty() {
        Ok(columns)
    } else {
        Err(problems)
    }
}

fn rows(
    records: &Records,
    columns: &[Option<&str>],
    width: usize,
    rules: &CsvRules<'_>,
) -> Result<Vec<CsvRow>, Vec<CsvProblem>> {
    let address_column = rules.required.first().copied().unwrap_or("EmailAddress");
    let value_of = |column: &str, text: &str| {
        let is_secret = rules.secret.contains(&column);
        (column.to_owned(), if is_secret { text } else { text.trim() }.to_owned())
    };
    let mut rows = Vec::with_capacity(records.len());
    let mut problems = Vec::new();
    let mut seen: HashMap<SmtpAddress, usize> = HashMap::new();
    for (line, fields) in records {
        let mut problem = |text: String| {
            problems.push(CsvProblem {
                line: Some(*line),
                text,
            })
        };
        if fields.len() != width {
            problem(format!("it has {} fields, and the header has {width}", fields.len()));
            continue;
        }
        let mut cells: Vec<(String, String)> = columns
            .iter()
            .zip(fields)
            .filter_map(|(column, value)| Some(value_of((*column)?, value)))
            .collect();
        let Some(at) = cells.iter().position(|(name, _)| name == address_column) else {
            continue;
        };
        let (_, address) = cells.remove(at);
        if address.is_empty() {
            problem(format!("{address_column} is empty"));
            continue;
        }
        match address.parse::<SmtpAddress>() {
            Err(_) if !rules.secret.is_empty() => problem(format!("{address_column} is no e-mail address")),
            Err(error) => problem(error.to_string()),
            Ok(address) => match seen.get(&address) {
                Some(first) => problem(format!("{address} is already in line {first}")),
                None => {
                    seen.insert(address.clone(), *line);
                    cells.retain(|(_, value)| !value.is_empty());
                    rows.push(CsvRow {
                        line: *line,
                        address,
                        cells,
                    });
                }
            },
        }
    }
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: CsvRules<'_> = CsvRules {
        required: &["EmailAddress"],
        optional: &["Location", "Name"],
        secret: &[],
        allow_unknown: false,
        max_rows: 3,
    };

    #[test]
    fn sound_files() {
        for text in [
            "EmailAddress\na@b.example\nc@d.example\n",
            "\u{feff}emailaddress\r\na@b.example\r\nc@d.example",
            "EmailAddress\n\n\"a@b.example\"\n \nc@d.example\n\n",
        ] {
            let rows = read(text.as_bytes(), &RULES).unwrap();
            let addresses: Vec<String> = rows.iter().map(|r| r.address.to_string()).collect();
            assert_eq!(addresses, ["a@b.example", "c@d.example"], "{text:?}");
        }
        let text = "Name, Location ,EmailAddress\n\"Miller, A. \"\"B\"\"\nC\",,a@b.example\nx,\"y\" ,c@d.example\n";
        let rows = read(text.as_bytes(), &RULES).unwrap();
        assert_eq!(rows[0].cell("Name"), Some("Miller, A. \"B\"\nC"));
        assert_eq!((rows[0].cell("Location"), rows[0].line), (None, 2));
        assert_eq!((rows[1].cell("Location"), rows[1].line), (Some("y"), 4));
        let rules = CsvRules {
            allow_unknown: true,
            ..RULES
        };
        assert_eq!(
            read(b"EmailAddress,Other\na@b.example,1\n", &rules).unwrap()[0].cells,
            []
        );
    }

    #[test]
    fn every_fault_is_named() {
        for (text, expected) in [
            (&b""[..], &["the file is empty"][..]),
            (b"\xef\xbb\xbf\r\n", &["the file is empty"]),
            (b"EmailAddress\n", &["no rows"]),
            (
                b"Address\na@b.example\n",
                &[
                    "the column 'Address' is not known",
                    "the column EmailAddress is missing",
                ],
            ),
            (
                b"EmailAddress;Name\na@b.example;x\n",
                &["not known", "divided by commas"],
            ),
            (b"EmailAddress,emailaddress\na@b.example,x\n", &["appears twice"]),
            (
                b"EmailAddress\na@b.example\nb@b.example\nc@b.example\nd@b.example\n",
                &["4 rows, and at most 3"],
            ),
            (
                b"EmailAddress,Name\nno-at,x\na@b.example,x\n,x\n",
                &[
                    "line 2: 'no-at' is not an e-mail address",
                    "line 4: EmailAddress is empty",
                ],
            ),
            (
                b"EmailAddress\na@b.example\nA@B.example\n",
                &["line 3: A@b.example is already in line 2"],
            ),
            (
                b"EmailAddress,Name\na@b.example\nb@b.example,x,y\n",
                &["line 2: it has 1 fields", "line 3: it has 3 fields"],
            ),
            (b"EmailAddress\n\"a@b.example\n", &["line 2: a quotation mark"]),
            (b"EmailAddress\n\"a\"b@b.example\n", &["line 2: a quotation mark"]),
            (b"\xff\xfeE\0m\0", &["not UTF-8"]),
            (b"EmailAddress\na\0@b.example\n", &["not UTF-8"]),
            (b"EmailAddress\na\xe4@b.example\n", &["not UTF-8"]),
        ] {
            let problems: Vec<String> = read(text, &RULES)
                .unwrap_err()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(problems.len(), expected.len(), "{problems:?}");
            for (problem, part) in problems.iter().zip(expected) {
                assert!(problem.contains(part), "{problem}: {part}");
            }
        }
    }

    const WITH_SECRETS: CsvRules<'_> = CsvRules {
        required: &["EmailAddress", "UserName"],
        optional: &["Password"],
        secret: &["Password"],
        allow_unknown: false,
        max_rows: 3,
    };

    #[test]
    fn secrets_are_taken_as_they_stand() {
        for (cell, expected) in [
            ("open sesame", Some("open sesame")),
            (" open ", Some(" open ")),
            ("\" open, \"\"sesame\"\"\"  ", Some(" open, \"sesame\"")),
            ("", None),
            (" ", Some(" ")),
        ] {
            let text = format!("EmailAddress,UserName,Password\r\na@b.example, a ,{cell}\r\n");
            let rows = read(text.as_bytes(), &WITH_SECRETS).unwrap();
            assert_eq!(
                (rows[0].cell("UserName"), rows[0].cell("Password")),
                (Some("a"), expected),
                "{cell:?}"
            );
            assert!(!format!("{rows:?}").contains("sesame"));
        }
    }

    #[test]
    fn no_fault_quotes_a_file_with_secrets() {
        for text in [
            "a@b.example,user,sesame\n",
            "EmailAddress,UserName,sesame\na@b.example,user,sesame\n",
            "EmailAddress,UserName,Password\nsesame,user,a@b.example\n",
            "EmailAddress,UserName,Password\na@b.example,user,ses,ame,sesame\n",
            "EmailAddress,UserName,Password\na@b.example,user,\"sesame\n",
            "EmailAddress;UserName;Password\na@b.example;user;sesame\n",
            "sesame\n",
        ] {
            let problems = read(text.as_bytes(), &WITH_SECRETS).unwrap_err();
            assert!(
                !problems.is_empty() && !format!("{problems:?}").contains("sesame"),
                "{problems:?}"
            );
        }
    }
}
