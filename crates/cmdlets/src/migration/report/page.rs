//! The page: one file, without script and without anything from elsewhere; a policy in it says so to the browser.

use super::{ItemLine, UserLines, duration, on_one_line};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2rem;color:#1a1a1a}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}\
table{border-collapse:collapse;margin:.5rem 0 1rem}th,td{border:1px solid #c8c8c8;padding:.25rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}\
th{background:#f0f0f0;white-space:nowrap}td.n{text-align:right;white-space:nowrap}.Perfect,.Good{color:#0b5c1d}.Investigate{color:#8a5a00}.Poor{color:#a3161a;font-weight:600}\
@media print{body{margin:0}}";

/// The page about these users; `left_out` items are not on it.
pub(super) fn render(name: &str, now: Timestamp, users: &[UserLines], left_out: usize) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="referrer" content="no-referrer";
                title { "Migration report: " (on_one_line(name)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Migration report: " (on_one_line(name)) }
                p { "Made " (now) ". " (users.len()) " users." }
                @if left_out > 0 {
                    p { strong { (left_out) " items are not on this page; the report as Csv names all." } }
                }
                (overview(users))
                @for user in users.iter().filter(|user| !user.items.is_empty() || !user.error.is_empty()) {
                    (details(user))
                }
            }
        }
    };
    page.into_string()
}

fn overview(users: &[UserLines]) -> Markup {
    html! {
        table {
            tr {
                @for name in ["User", "Batch", "Status", "Score", "Items synced", "Items skipped", "Bytes", "Bytes per minute", "Last sync", "In progress", "Locked"] {
                    th { (name) }
                }
            }
            @for user in users {
                tr {
                    td { (on_one_line(&user.identity)) }
                    td { (on_one_line(&user.batch)) }
                    td { (user.status) }
                    td class=(user.score()) { (user.score()) }
                    td.n { (user.items_synced) }
                    td.n { (user.items_skipped) }
                    td.n { (user.bytes_synced) }
                    td.n { (number(user.bytes_per_minute)) }
                    td { (time(user.last_sync)) }
                    td.n { (duration(user.in_progress_milliseconds)) }
                    td.n { (user.lock_milliseconds.map(duration).unwrap_or_default()) }
                }
            }
        }
    }
}

fn details(user: &UserLines) -> Markup {
    let factors = user.assessment.as_ref().map_or(&[][..], |found| &found.factors);
    html! {
        h2 { (on_one_line(&user.identity)) }
        @if !user.error.is_empty() {
            p { strong { "Error: " } (on_one_line(&user.error)) }
        }
        @if !factors.is_empty() {
            p { "Score " strong class=(user.score()) { (user.score()) } ": " (factors.join("; ")) "." }
        }
        @if !user.items.is_empty() {
            table {
                tr {
                    @for name in ["Kind", "Folder", "Uid", "Subject", "Sender", "Sent", "Received", "Size", "Reason", "Side", "Found", "Approval"] {
                        th { (name) }
                    }
                }
                @for item in &user.items { (row(item)) }
            }
        }
    }
}

fn row(item: &ItemLine) -> Markup {
    let text = |text: &Option<String>| on_one_line(text.as_deref().unwrap_or_default());
    html! {
        tr {
            td title=(item.counts_as) { (item.kind) }
            td { (on_one_line(&item.folder)) }
            td.n { (item.uid) }
            td { (text(&item.subject)) }
            td { (text(&item.sender)) }
            td { (text(&item.date_sent)) }
            td { (time(item.received)) }
            td.n { (number(item.size)) }
            td { (on_one_line(&item.reason)) }
            td { (item.side) }
            td { (time(item.found)) }
            td { (item.approval) }
        }
    }
}

fn number(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

fn time(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}
