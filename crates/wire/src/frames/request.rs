//! The request for bodies: one set of uids.

use minicbor::Decoder;

use crate::uid_set::{UidSet, UidSetError, definite_array, encode_ranges};

/// Most items that one request names.
pub const MAX_BODY_REQUEST_ITEMS: usize = 1_000;
/// Largest request, in octets: the longest form of [`MAX_BODY_REQUEST_ITEMS`] ranges, and room for additions.
pub const MAX_BODY_REQUEST_OCTETS: usize = 16 * 1024;

/// Why octets are not a request for bodies.
#[derive(Debug, thiserror::Error)]
pub enum BodyRequestError {
    /// More than [`MAX_BODY_REQUEST_OCTETS`].
    #[error("the request has {0} octets, at most {MAX_BODY_REQUEST_OCTETS} are allowed")]
    TooLarge(usize),
    /// Not an array of at least one element.
    #[error("the request is not a CBOR array that begins with a set of uids")]
    Malformed,
    /// The set of uids is bad.
    #[error("the request's set of uids is bad")]
    Uids(#[source] UidSetError),
    /// No uid, or more than [`MAX_BODY_REQUEST_ITEMS`].
    #[error("the request names {0} items, 1 to {MAX_BODY_REQUEST_ITEMS} are allowed")]
    Items(usize),
}

/// The octets of a request for the bodies of `uids`: `[[[from, to], …]]`. The caller keeps to the limits.
pub fn encode_body_request(uids: &UidSet) -> Vec<u8> {
    let mut octets = vec![0x81];
    encode_ranges(uids.ranges(), &mut octets);
    octets
}

/// Reads a request for bodies. Elements behind the set of uids are ignored.
pub fn decode_body_request(octets: &[u8]) -> Result<UidSet, BodyRequestError> {
    if octets.len() > MAX_BODY_REQUEST_OCTETS {
        return Err(BodyRequestError::TooLarge(octets.len()));
    }
    let mut decoder = Decoder::new(octets);
    let elements = definite_array(&mut decoder).map_err(|_| BodyRequestError::Malformed)?;
    if elements == 0 {
        return Err(BodyRequestError::Malformed);
    }
    let uids = UidSet::decode(&mut decoder, MAX_BODY_REQUEST_ITEMS).map_err(BodyRequestError::Uids)?;
    for _ in 1..elements {
        decoder.skip().map_err(|_| BodyRequestError::Malformed)?;
    }
    if decoder.position() != octets.len() {
        return Err(BodyRequestError::Malformed);
    }
    match uids.len() {
        1..=MAX_BODY_REQUEST_ITEMS => Ok(uids),
        count => Err(BodyRequestError::Items(count)),
    }
}
