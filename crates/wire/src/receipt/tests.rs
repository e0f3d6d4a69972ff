use super::*;
use crate::{
    digest::Digest,
    flags::Flags,
    inclusion::ProvingHasher,
    proof::{TopLeaf, TreeHasher, hash_of_leaf_octets, top_leaf_octets},
};
use proptest::prelude::*;

pub(super) fn leaf(uid: u32) -> ReceiptLeaf {
    ReceiptLeaf {
        uid,
        length: 100 + u64::from(uid),
        digest: Digest::of(&uid.to_be_bytes()),
        flags: Flags::from_names(["\\Seen", "$Work"].into_iter().skip(uid as usize % 3)),
        received: 1_700_000_000 + i64::from(uid),
    }
}

fn exception(uid: u32, kind: &str) -> ReceiptException {
    ReceiptException {
        path: vec!["INBOX".into()],
        uid,
        kind: kind.into(),
        held_length: Some(7),
        held_digest: Some(Digest::of(b"x")),
        held_flags: Some(vec!["\\seen".into()]),
        held_received: None,
        reason: Some("the target holds something else".into()),
    }
}

/// The octets of one section without its opening, as a writer that knows the order makes them.
fn body(folders: &[(&str, Vec<ReceiptLeaf>)], exceptions: &[ReceiptException]) -> (Vec<u8>, Totals) {
    let (mut out, mut top) = (Vec::new(), TreeHasher::new());
    let (mut items, mut length) = (0, 0);
    for (name, leaves) in folders {
        let path = vec![(*name).to_owned()];
        write_folder_head(&path, 9, &mut out);
        let mut tree = TreeHasher::new();
        for leaf in leaves {
            let octets = leaf.octets();
            tree.push(hash_of_leaf_octets(&octets));
            out.extend(octets);
            items += 1;
            length += leaf.length;
        }
        write_folder_end(tree.count(), tree.root(), &mut out);
        top.push(hash_of_leaf_octets(&top_leaf_octets(&TopLeaf {
            path: &path,
            uid_validity: 9,
            count: tree.count(),
            root: tree.root(),
        })));
    }
    let mut octets: Vec<Vec<u8>> = exceptions.iter().map(ReceiptException::octets).collect();
    let totals = Totals {
        root: top.root(),
        exceptions_root: exceptions_root(&mut octets),
        folders: top.count(),
        items,
        octets: length,
        exceptions: octets.len() as u64,
    };
    out.extend(octets.concat());
    write_closing(&totals, &mut out);
    (out, totals)
}

pub(super) fn file(sections: &[(&[&str], Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, (statements, body)) in sections.iter().enumerate() {
        write_opening(number as u32, statements, &mut out);
        out.extend(body);
    }
    let digest = Digest::of(&out);
    write_end(digest, &mut out);
    out
}

fn sample() -> Vec<u8> {
    let folders = [
        ("Sent", vec![]),
        ("INBOX", vec![leaf(1), leaf(2), leaf(40)]),
        ("Work ä", vec![leaf(3)]),
    ];
    let (one, _) = body(&folders, &[exception(2, "altered"), exception(9, "skipped")]);
    let (two, _) = body(&[("INBOX", vec![leaf(41)])], &[]);
    file(&[(&["a.b.c", "d.e.f"], one), (&["g.h.i"], two)])
}

fn parts(file: &[u8], piece: usize) -> Result<Vec<Part>, ReceiptError> {
    let (mut reader, mut parts) = (ReceiptReader::new(), Vec::new());
    for octets in file.chunks(piece) {
        reader.push(octets, |part| parts.push(part))?;
    }
    reader.finish()?;
    Ok(parts)
}

/// The file with its last item made right again: whoever alters one knows how.
fn mended(mut file: Vec<u8>) -> Vec<u8> {
    let end = file.len() - 35;
    file.truncate(end);
    let digest = Digest::of(&file);
    write_end(digest, &mut file);
    file
}

#[test]
fn what_was_written_is_read_in_any_pieces() {
    let file = sample();
    let whole = parts(&file, file.len()).unwrap();
    assert_eq!(whole.len(), 20);
    assert_eq!(whole[19], Part::End);
    assert!(matches!(&whole[0], Part::Opening { number: 0, statements } if statements.len() == 2));
    let totals = whole.iter().filter_map(|part| match part {
        Part::Section(totals) => Some((totals.folders, totals.items, totals.exceptions)),
        _ => None,
    });
    assert_eq!(totals.collect::<Vec<_>>(), [(3, 4, 2), (1, 1, 0)]);
    for piece in [1, 2, 7, 61] {
        assert_eq!(parts(&file, piece).unwrap(), whole, "in pieces of {piece}");
    }
}

#[test]
fn every_cut_is_noticed() {
    let file = sample();
    for length in 0..file.len() {
        assert!(parts(&file[..length], 64).is_err(), "cut to {length}");
    }
    let mut longer = file.clone();
    longer.push(0xf6);
    assert!(parts(&longer, 64).is_err());
}

/// Every octet with every bit: what is still read, with its last item made right, says something else than before, in
/// statements or roots, which whoever holds a signed statement compares.
#[test]
fn every_flip_is_noticed_or_changes_what_is_signed() {
    let file = sample();
    let signed = |parts: &[Part]| -> Vec<Part> {
        let parts = parts.iter();
        parts
            .filter(|part| matches!(part, Part::Opening { .. } | Part::Section(_)))
            .cloned()
            .collect()
    };
    let right = signed(&parts(&file, file.len()).unwrap());
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut flipped = file.clone();
            flipped[at] ^= 1 << bit;
            assert!(parts(&flipped, 4096).is_err(), "octet {at}, bit {bit}");
            if at >= file.len() - 35 {
                continue;
            }
            if let Ok(read) = parts(&mended(flipped), 4096) {
                assert_ne!(signed(&read), right, "octet {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn orders_and_counts_are_checked() {
    let (first, second) = (("INBOX", vec![leaf(1)]), ("Sent", vec![leaf(1)]));
    let right = file(&[(&[], body(&[second.clone(), first.clone()], &[]).0)]);
    assert!(parts(&right, 50).is_ok(), "the shorter name comes first");
    let wrong = [
        ("folders", body(&[first.clone(), second.clone()], &[]).0),
        ("a folder twice", body(&[second.clone(), second], &[]).0),
        ("uids", body(&[("INBOX", vec![leaf(2), leaf(1)])], &[]).0),
        ("a uid twice", body(&[("INBOX", vec![leaf(2), leaf(2)])], &[]).0),
        (
            "an exception twice",
            body(&[first], &[exception(1, "flags"), exception(1, "flags")]).0,
        ),
        ("an unknown kind", body(&[], &[exception(1, "other")]).0),
    ];
    for (what, body) in wrong {
        assert!(parts(&file(&[(&[], body)]), 50).is_err(), "{what}");
    }
    // An upper-case flag, and a length that is not the shortest.
    let mut flags = Vec::new();
    write_folder_head(&["INBOX".to_owned()], 9, &mut flags);
    flags.extend_from_slice(&leaf(3).octets());
    let lower = flags.windows(5).position(|octets| octets == b"$work").unwrap();
    flags[lower + 1] = b'W';
    let mut reader = ReceiptReader::new();
    let mut opening = Vec::new();
    write_opening(0, &[], &mut opening);
    reader.push(&opening, drop).unwrap();
    assert!(reader.push(&flags, drop).is_err());
}

#[test]
fn what_never_ends_is_given_up() {
    let mut reader = ReceiptReader::new();
    let mut opening = Vec::new();
    write_opening(0, &[], &mut opening);
    reader.push(&opening, drop).unwrap();
    // A folder whose one name says that it has 2^40 octets.
    let mut pushed = reader.push(&[0x82, 0x81, 0x7b, 0, 0, 1, 0, 0, 0, 0, 0], drop);
    let mut octets = 0;
    while pushed.is_ok() {
        octets += 65_536;
        assert!(octets <= MAX_ITEM + 65_536);
        pushed = reader.push(&[b'x'; 65_536], drop);
    }
}

fn single() -> (SingleProof, Digest) {
    let folders = [
        ("Sent", vec![]),
        ("INBOX", vec![leaf(1), leaf(2), leaf(40)]),
        ("Work ä", vec![leaf(3)]),
    ];
    let (_, totals) = body(&folders, &[]);
    let (mut tree, mut top) = (ProvingHasher::new(), ProvingHasher::new());
    for leaf in &folders[1].1 {
        tree.push(hash_of_leaf_octets(&leaf.octets()), leaf.uid == 2);
    }
    let (_, in_folder) = tree.finish();
    for (name, leaves) in &folders {
        let mut tree = TreeHasher::new();
        leaves
            .iter()
            .for_each(|leaf| tree.push(hash_of_leaf_octets(&leaf.octets())));
        let octets = top_leaf_octets(&TopLeaf {
            path: &[(*name).to_owned()],
            uid_validity: 9,
            count: tree.count(),
            root: tree.root(),
        });
        top.push(hash_of_leaf_octets(&octets), *name == "INBOX");
    }
    let (root, in_mailbox) = top.finish();
    assert_eq!(root, totals.root);
    let proof = SingleProof {
        number: 0,
        statements: vec!["a.b.c".into()],
        entries: vec![SingleEntry {
            leaf: leaf(2),
            path: vec!["INBOX".into()],
            uid_validity: 9,
            in_folder: in_folder[0].clone(),
            in_mailbox: in_mailbox[0].clone(),
        }],
        exceptions: vec![exception(2, "flags")],
    };
    (proof, root)
}

#[test]
fn the_proof_of_one_message() {
    let (proof, root) = single();
    let octets = proof.octets();
    assert_eq!(SingleProof::read(&octets).unwrap(), proof);
    assert_eq!(proof.root().unwrap(), (root, 3));
    let signed = |proof: &SingleProof| {
        (
            proof.statements.clone(),
            proof.number,
            proof.root(),
            proof.exceptions_root(),
        )
    };
    for at in 0..octets.len() - 35 {
        for bit in 0..8 {
            let mut flipped = octets.clone();
            flipped[at] ^= 1 << bit;
            assert!(SingleProof::read(&flipped).is_err(), "octet {at}, bit {bit}");
            if let Ok(read) = SingleProof::read(&mended(flipped)) {
                assert_ne!(signed(&read), signed(&proof), "octet {at}, bit {bit}");
            }
        }
    }
    for length in 0..octets.len() {
        assert!(SingleProof::read(&octets[..length]).is_err());
    }
}

#[test]
fn a_message_is_found_wherever_it_was() {
    let mut second = leaf(5);
    second.digest = leaf(2).digest;
    let folders = [
        ("Sent", vec![]),
        ("INBOX", vec![leaf(1), leaf(2), second]),
        ("Work ä", vec![leaf(2)]),
    ];
    let (one, totals) = body(&folders, &[exception(2, "flags")]);
    let (two, later) = body(&[("INBOX", vec![leaf(41), ReceiptLeaf { uid: 42, ..leaf(2) }])], &[]);
    let file = file(&[(&["a"], one), (&["b"], two)]);
    let mut finder = SingleFinder::new(leaf(2).digest);
    parts(&file, 50).unwrap().into_iter().for_each(|part| finder.part(part));
    let found = finder.finish();
    let places = |proof: &SingleProof| -> Vec<(String, u32)> {
        let places = proof.entries.iter();
        places.map(|entry| (entry.path.join("/"), entry.leaf.uid)).collect()
    };
    assert_eq!(
        places(&found[0]),
        [
            ("INBOX".to_owned(), 2),
            ("INBOX".to_owned(), 5),
            ("Work ä".to_owned(), 2)
        ]
    );
    assert_eq!(places(&found[1]), [("INBOX".to_owned(), 42)]);
    for (proof, totals) in found.iter().zip([totals, later]) {
        let read = SingleProof::read(&proof.octets()).unwrap();
        assert_eq!(read.root().unwrap(), (totals.root, totals.folders));
        assert_eq!(read.exceptions_root(), totals.exceptions_root);
    }
    let mut finder = SingleFinder::new(Digest::of(b"another"));
    parts(&file, 50).unwrap().into_iter().for_each(|part| finder.part(part));
    assert_eq!(finder.finish(), []);
}

proptest! {
    #[test]
    fn garbage_never_panics(octets in prop::collection::vec(any::<u8>(), 0..400), keep in 0usize..200) {
        let mut file = sample();
        file.truncate(keep);
        file.extend(&octets);
        prop_assert!(parts(&file, 64).is_err());
        prop_assert!(SingleProof::read(&octets).is_err());
    }

    #[test]
    fn any_leaves_come_back(uids in prop::collection::btree_set(1u32.., 0..40), seed in any::<i64>()) {
        let leaves: Vec<ReceiptLeaf> = uids.iter().map(|uid| ReceiptLeaf { received: seed, ..leaf(*uid) }).collect();
        let (octets, totals) = body(&[("INBOX", leaves.clone())], &[]);
        let read = parts(&file(&[(&["s"], octets)]), 97).unwrap();
        let found: Vec<ReceiptLeaf> = read.iter().filter_map(|part| match part {
            Part::Leaf(leaf, _) => Some(leaf.clone()),
            _ => None,
        }).collect();
        prop_assert_eq!(found, leaves);
        prop_assert!(read.contains(&Part::Section(totals)));
    }
}
