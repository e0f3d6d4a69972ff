//! The configurations of servers as files (`servers/*.in`), which the benchmark fills too.

/// `servers/dovecot.conf.in`.
pub(crate) const DOVECOT: &str = include_str!("../servers/dovecot.conf.in");
/// `servers/cyrus.conf.in`.
pub(crate) const CYRUS: &str = include_str!("../servers/cyrus.conf.in");
/// `servers/imapd.conf.in`.
pub(crate) const CYRUS_IMAPD: &str = include_str!("../servers/imapd.conf.in");

/// Replaces each `@NAME@` of a configuration by its value.
///
/// # Panics
/// When a name has no value.
pub(crate) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len());
    // Names stand at odd places between the signs; a sign that begins no name is itself.
    let mut parts = template.split('@');
    text.push_str(parts.next().unwrap_or_default());
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let is_name = !part.is_empty()
            && part
                .bytes()
                .all(|octet| octet.is_ascii_uppercase() || octet.is_ascii_digit() || octet == b'_');
        if is_name && let Some(after) = parts.next() {
            let value = values.iter().find(|(name, _)| *name == part);
            text.push_str(value.unwrap_or_else(|| panic!("@{part}@ has a value")).1);
            text.push_str(after);
        } else {
            text.push('@');
            text.push_str(part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn names_are_replaced_and_other_signs_stay() {
        let filled = fill("a@b.example @ONE@:@TWO_2@@", &[("ONE", "1@UNKNOWN@"), ("TWO_2", "")]);
        assert_eq!(filled, "a@b.example 1@UNKNOWN@:@");
    }

    #[test]
    #[should_panic(expected = "@THREE@ has a value")]
    fn a_forgotten_value_is_seen() {
        let _ = fill("@THREE@", &[]);
    }
}
