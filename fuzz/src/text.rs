//! What administrators type and hand over: files of users, names, values of parameters.

use rehome_command::{
    Credential, Inputs, Parameters, bind_json, bind_words, parse_date_time, parse_time_span, reading_of, time_span_text,
};
use rehome_domain::{
    address::{DomainName, LegacyExchangeDn, ProxyAddress, SmtpAddress},
    csv::{self, CsvRules},
    folder_pattern::FolderPattern,
    user_list,
};
use secrecy::SecretString;
use std::{fmt::Display, str::FromStr};

const MOST: usize = 50;

/// A file of users is read or its faults are named, and no fault quotes a file that may hold a secret.
pub fn csv(octets: &[u8]) {
    const MARK: &str = "Sesame-Sesame";
    let mut marked = octets.to_vec();
    marked.extend_from_slice(b",");
    marked.extend_from_slice(MARK.as_bytes());
    for (secret, octets) in [(&[][..], octets), (&["Password"][..], &marked)] {
        let rules = CsvRules {
            required: &["EmailAddress"],
            optional: &["UserName", "Password"],
            secret,
            allow_unknown: octets.len() % 2 == 0,
            max_rows: MOST,
        };
        match csv::read(octets, &rules) {
            Ok(rows) => {
                assert!(!rows.is_empty() && rows.len() <= MOST);
                assert!(!format!("{rows:?}").contains(MARK));
            }
            Err(faults) => {
                assert!(!faults.is_empty());
                assert!(secret.is_empty() || !faults.iter().any(|fault| fault.to_string().contains(MARK)));
            }
        }
    }
    let domain: DomainName = "fabrikam.example".parse().expect("a domain");
    if let Ok(listed) = user_list::read(octets, &domain, MOST) {
        assert!(listed.len() <= MOST);
    }
}

/// What is read is written so that it is read alike.
fn stays<T: FromStr + Display + PartialEq + std::fmt::Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().ok(), Some(value));
    }
}

/// Addresses, distinguished names, folder patterns.
pub fn names(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    stays::<DomainName>(&text);
    stays::<SmtpAddress>(&text);
    stays::<ProxyAddress>(&text);
    if let Ok(name) = text.parse::<LegacyExchangeDn>() {
        assert_eq!(name.as_str().parse::<LegacyExchangeDn>().ok(), Some(name));
    }
    if let Ok(address) = text.parse::<SmtpAddress>() {
        let wild = address.to_string().chars().any(|one| one.is_control() || one == ' ');
        assert!(!wild, "{address:?} would break a line of SMTP");
    }
    if let Ok(pattern) = text.parse::<FolderPattern>() {
        let path: Vec<String> = text.split('/').map(str::to_owned).collect();
        let _ = pattern.names(&path, &[]);
    }
}

/// No file, nobody to ask.
struct Alone;

impl Inputs for Alone {
    fn credential(&mut self, _: &str, _: Option<&str>) -> Result<Credential, String> {
        Err("nobody is here".to_owned())
    }
    fn secret(&mut self, _: &str) -> Result<SecretString, String> {
        Err("nobody is here".to_owned())
    }
    fn octets(&mut self, _: &str) -> Result<Vec<u8>, String> {
        Err("there is no such file".to_owned())
    }
}

/// Words and JSON are bound to a cmdlet that the first octet chooses, or refused; times and spans are read alike again.
pub fn command_values(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets.get(1..).unwrap_or_default());
    let all = rehome_cmdlets::registry();
    let chosen = &all[usize::from(octets.first().copied().unwrap_or_default()) % all.len()].declaration;
    let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let _: Result<Parameters, _> = bind_words(chosen, &words, &mut Alone);
    if let Ok(serde_json::Value::Object(object)) = serde_json::from_str(&text) {
        let _: Result<Parameters, _> = bind_json(chosen, &object);
    }
    if let Ok(time) = parse_date_time(&text) {
        let _ = reading_of(time, &jiff::tz::TimeZone::UTC);
        assert_eq!(parse_date_time(&time.to_string()).ok(), Some(time));
    }
    if let Ok(span) = parse_time_span(&text) {
        assert_eq!(parse_time_span(&time_span_text(span)).ok(), Some(span));
    }
}
