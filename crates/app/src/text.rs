//! Text for people: wrapping, and making foreign text harmless on a terminal.

const WIDTH: usize = 96;

/// A paragraph, wrapped, each line at `indent`.
pub(crate) fn wrap(paragraph: &str, indent: usize) -> String {
    let mut page = String::new();
    let mut line = " ".repeat(indent);
    let mut empty = true;
    for word in paragraph.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            page.push_str(&line);
            page.push('\n');
            line = " ".repeat(indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    page.push_str(&line);
    page.push('\n');
    page
}

/// The text without anything that a terminal would obey: control characters, and marks that turn the direction of text.
pub(crate) fn harmless(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_drive_a_terminal() {
        assert_eq!(
            harmless("a\u{1b}[2Jb\u{202e}c\r\u{9b}d"),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\u{fffd}d"
        );
        assert_eq!(harmless("Büro (客户)"), "Büro (客户)");
    }

    #[test]
    fn wrapped_lines_are_short_enough() {
        let page = wrap(&"word ".repeat(200), 4);
        assert!(
            page.lines()
                .all(|line| line.chars().count() <= WIDTH && line.starts_with("    word"))
        );
    }
}
