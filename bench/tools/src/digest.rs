//! The checker's own canonical form and digest, written from the definition and not from the program.
//!
//! A run of CR right before an LF, and the lack of one, is one CR; a run of CR at the end is dropped; all else stays.

/// 32 octets of BLAKE3.
pub(crate) type Digest = [u8; 32];

/// Digest and length of the canonical form.
pub(crate) fn canonical(octets: &[u8]) -> (Digest, u64) {
    if is_canonical(octets) {
        return (*blake3::hash(octets).as_bytes(), octets.len() as u64);
    }
    let form = canonical_form(octets);
    (*blake3::hash(&form).as_bytes(), form.len() as u64)
}

fn is_canonical(octets: &[u8]) -> bool {
    let (mut previous, mut before) = (0, 0);
    for &octet in octets {
        if octet == b'\n' && (previous != b'\r' || before == b'\r') {
            return false;
        }
        (before, previous) = (previous, octet);
    }
    previous != b'\r'
}

/// The canonical form itself.
pub(crate) fn canonical_form(octets: &[u8]) -> Vec<u8> {
    let mut form = Vec::with_capacity(octets.len() + octets.len() / 32);
    let mut returns = 0;
    for &octet in octets {
        match octet {
            b'\r' => returns += 1,
            b'\n' => {
                form.extend_from_slice(b"\r\n");
                returns = 0;
            }
            other => {
                form.resize(form.len() + returns, b'\r');
                returns = 0;
                form.push(other);
            }
        }
    }
    form
}

/// 64 hexadecimal digits.
pub(crate) fn hexadecimal(digest: &Digest) -> String {
    blake3::Hash::from(*digest).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (raw, form) in [
            (&b"a\nb"[..], &b"a\r\nb"[..]),
            (b"a\r\r\nb\r\r", b"a\r\nb"),
            (b"a\rb\r\n", b"a\rb\r\n"),
            (b"\n\r", b"\r\n"),
            (b"", b""),
        ] {
            assert_eq!(canonical_form(raw), form, "{raw:?}");
            assert_eq!(is_canonical(raw), raw == form, "{raw:?}");
            assert_eq!(canonical(raw), canonical(form));
        }
    }
}
