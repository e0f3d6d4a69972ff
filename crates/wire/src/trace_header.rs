//! The header by which loops are seen: one `Rehome-Trace` line for each pass of a message through a tenant, and the
//! `Received` lines of every server on its way.

use std::net::IpAddr;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::tz::TimeZone;

/// The header's name.
pub const TRACE_HEADER: &str = "Rehome-Trace";
/// How many octets of a message are looked at, at most.
pub const MAX_SCAN: usize = 256 * 1024;
/// Longest text of a tenant in a line, in octets.
const MAX_TENANT: usize = 255;
/// Most trace lines that are kept; far more than any limit on passes.
const MAX_LINES: usize = 1000;

/// What the headers of a message say about its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceHeaders {
    tenants: Vec<String>,
    received: u32,
}

impl TraceHeaders {
    /// Reads the headers at the beginning of a message: up to the first empty line, and at most [`MAX_SCAN`] octets.
    /// Any line ends do.
    pub fn read(message: &[u8]) -> Self {
        let mut found = Self::default();
        let scan = &message[..message.len().min(MAX_SCAN)];
        for line in scan.split(|octet| *octet == b'\n') {
            if line.is_empty() || line == b"\r" {
                break;
            }
            if let Some(value) = header_value(line, TRACE_HEADER) {
                if found.tenants.len() < MAX_LINES {
                    let value = String::from_utf8_lossy(value.trim_ascii()).into_owned();
                    found.tenants.push(value);
                }
            } else if header_value(line, "Received").is_some() {
                found.received += 1;
            }
        }
        found
    }

    /// How many times the message entered the tenant of this text, as given to [`trace_line`].
    pub fn count_for(&self, tenant_text: &str) -> u32 {
        let wanted = clean(tenant_text);
        let count = self
            .tenants
            .iter()
            .filter(|tenant| tenant.eq_ignore_ascii_case(&wanted))
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// How many `Received` lines the message has.
    pub fn received(&self) -> u32 {
        self.received
    }
}

/// The line to put before a message that enters a tenant, with its CR LF.
pub fn trace_line(tenant_text: &str) -> String {
    format!("{TRACE_HEADER}: {}\r\n", clean(tenant_text))
}

/// What a `Received` line says (RFC 5321 §4.4).
#[derive(Clone, Debug)]
pub struct Received<'a> {
    /// The name that the client gave.
    pub hello_name: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The name of the server.
    pub by: &'a str,
    /// The protocol: `SMTP`, `ESMTP`, `ESMTPS`, `LMTP` or `LMTPS` (RFC 3848).
    pub protocol: &'a str,
    /// What the server calls the transaction, to find it in its log.
    pub id: &'a str,
    /// The recipient where there is only one: more would tell each of the others.
    pub recipient: Option<&'a str>,
    /// When the message arrived.
    pub at: Timestamp,
}

impl Received<'_> {
    /// The header with its CR LF, folded.
    pub fn render(&self) -> String {
        let client = match self.client {
            IpAddr::V4(address) => format!("[{address}]"),
            IpAddr::V6(address) => format!("[IPv6:{address}]"),
        };
        let recipient = match self.recipient {
            Some(recipient) => format!("\r\n\tfor <{}>", clean(recipient)),
            None => String::new(),
        };
        let at = self.at.max(Timestamp::UNIX_EPOCH).to_zoned_datetime(TimeZone::UTC);
        let date = DateTimePrinter::new()
            .zoned_datetime_to_string(&at)
            .expect("years after 1970 can be written");
        format!(
            "Received: from {} ({client})\r\n\tby {} with {} id {}{recipient};\r\n\t{date}\r\n",
            clean(self.hello_name),
            clean(self.by),
            clean(self.protocol),
            clean(self.id),
        )
    }
}

/// The value of a header's first line, if it has this name.
fn header_value<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (head, rest) = line.split_at_checked(name.len())?;
    if !head.eq_ignore_ascii_case(name.as_bytes()) {
        return None;
    }
    rest.trim_ascii_start().strip_prefix(b":")
}

/// A text that cannot break out of its header line, nor out of a comment in it.
fn clean(text: &str) -> String {
    text.trim()
        .chars()
        .take(MAX_TENANT)
        .map(|character| match character {
            '(' | ')' | ';' | '\\' => '?',
            '!'..='~' => character,
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counting() {
        let message = b"Received: from a\r\n\tby b\r\nREHOME-trace:contoso.example\r\nreceived : x\r\n\
            Rehome-Trace:  Contoso.Example \nRehome-Trace: fabrikam.example\r\nRehome-Traces: contoso.example\r\n\
            \tReceived: folded\r\n\r\nReceived: body\r\nRehome-Trace: contoso.example\r\n";
        let found = TraceHeaders::read(message);
        assert_eq!(found.received(), 2);
        assert_eq!(found.count_for("contoso.example"), 2);
        assert_eq!(found.count_for("fabrikam.example"), 1);
        assert_eq!(found.count_for("example"), 0);
        assert_eq!(TraceHeaders::read(b""), TraceHeaders::default());
        assert_eq!(TraceHeaders::read(b"\nReceived: x\n").received(), 0);
    }

    #[test]
    fn the_scan_is_bounded() {
        let mut message = b"Received: x\r\n".repeat(100_000);
        message.extend(trace_line("contoso.example").bytes());
        let found = TraceHeaders::read(&message);
        assert_eq!(found.received() as usize, MAX_SCAN.div_ceil(13));
        assert_eq!(found.count_for("contoso.example"), 0);
        let many = trace_line("contoso.example").repeat(2000);
        assert_eq!(TraceHeaders::read(many.as_bytes()).count_for("contoso.example"), 1000);
    }

    #[test]
    fn rendering() {
        assert_eq!(trace_line("contoso.example"), "Rehome-Trace: contoso.example\r\n");
        assert_eq!(trace_line("a\r\nSubject: b"), "Rehome-Trace: a??Subject:?b\r\n");
        let line = Received {
            hello_name: "mail.contoso.example",
            client: [192, 0, 2, 1].into(),
            by: "mx.fabrikam.example",
            protocol: "ESMTPS",
            id: "42",
            recipient: Some("box@fabrikam.example"),
            at: Timestamp::from_second(1_700_000_000).unwrap(),
        };
        assert_eq!(
            line.render(),
            "Received: from mail.contoso.example ([192.0.2.1])\r\n\tby mx.fabrikam.example with ESMTPS id 42\r\n\
             \tfor <box@fabrikam.example>;\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
        );
        assert_eq!(TraceHeaders::read(line.render().as_bytes()).received(), 1);
    }

    proptest! {
        #[test]
        fn every_tenant_text_is_found_again(text in "\\PC{1,300}", passes in 0usize..5) {
            let mut message = trace_line(&text).repeat(passes);
            message.push_str("Subject: x\r\n\r\n");
            prop_assert_eq!(TraceHeaders::read(message.as_bytes()).count_for(&text), passes as u32);
        }
    }
}
