"""Maildir++ in a few functions: what the demo's generator, checker and driver need, and nothing of Rehome's own code.

A mailbox is a folder tree; a folder is named by the list of its names from the root, ["INBOX"] being the root itself.
"""

import base64
import hashlib
import os
import re

SYSTEM_FLAGS = {"D": "\\Draft", "F": "\\Flagged", "R": "\\Answered", "S": "\\Seen", "T": "\\Deleted"}
LETTER_OF_FLAG = {name: letter for letter, name in SYSTEM_FLAGS.items()}


def canonical(octets: bytes) -> bytes:
    """The form that is compared: each run of CR before an LF, and the lack of one, becomes exactly one CR;
    a run of CR at the very end is dropped; every other octet stays and no LF is added at the end."""
    return b"\r\n".join(line.rstrip(b"\r") for line in octets.split(b"\n"))


def digest(octets: bytes) -> str:
    """SHA-256 of the canonical form, in hex."""
    return hashlib.sha256(canonical(octets)).hexdigest()


def encode_name(name: str) -> str:
    """One folder name in modified UTF-7 (RFC 3501 section 5.1.3)."""
    out = []
    for run in re.findall(r"&|[\x20-\x25\x27-\x7e]+|[^\x20-\x7e]+", name):
        if run == "&":
            out.append("&-")
        elif run[0] in map(chr, range(0x20, 0x7F)):
            out.append(run)
        else:
            text = base64.b64encode(run.encode("utf-16-be")).decode("ascii").rstrip("=")
            out.append("&" + text.replace("/", ",") + "-")
    return "".join(out)


def decode_name(name: str) -> str:
    """The reverse of encode_name; raises ValueError where the name is not modified UTF-7."""
    def decode_run(match: re.Match) -> str:
        text = match.group(1)
        if not text:
            return "&"
        padded = text.replace(",", "/") + "=" * (-len(text) % 4)
        return base64.b64decode(padded, validate=True).decode("utf-16-be")

    if not all(0x20 <= ord(letter) < 0x7F for letter in name) or re.search(r"&[^-]*$", name):
        raise ValueError(f"not modified UTF-7: {name!r}")
    return re.sub(r"&([^-]*)-", decode_run, name)


def folder_directory(root: str, path: list) -> str:
    """Where the folder of this path lies below the Maildir `root`."""
    if path == ["INBOX"]:
        return root
    return os.path.join(root, "." + ".".join(encode_name(name) for name in path))


def unescape_name(name: str) -> str:
    """What a name means that was escaped as Dovecot's listescape plugin does it: a backslash and two hexadecimal digits."""
    return "" if name == "\\-" else re.sub(r"\\([0-7][0-9a-fA-F])", lambda match: chr(int(match.group(1), 16)), name)


def folder_paths(root: str):
    """Every folder of a Maildir as (directory, path); path is None where the name cannot be decoded."""
    yield root, ["INBOX"]
    for entry in sorted(os.listdir(root)):
        directory = os.path.join(root, entry)
        if entry.startswith(".") and entry not in (".", "..") and os.path.isdir(os.path.join(directory, "cur")):
            try:
                yield directory, [unescape_name(decode_name(name)) for name in entry[1:].split(".")]
            except ValueError:
                yield directory, None


def is_maildir(directory: str) -> bool:
    """Whether the directory has the three folders of a Maildir."""
    return all(os.path.isdir(os.path.join(directory, part)) for part in ("cur", "new", "tmp"))


def read_keywords(directory: str) -> dict:
    """letter -> keyword, from the file dovecot-keywords (lines `INDEX NAME`, index 0 is letter a)."""
    keywords = {}
    try:
        with open(os.path.join(directory, "dovecot-keywords"), encoding="utf-8", errors="surrogateescape") as file:
            for line in file.read().splitlines():
                index, _, name = line.partition(" ")
                if name and index.isdigit() and int(index) < 26:
                    keywords[chr(ord("a") + int(index))] = name
    except FileNotFoundError:
        pass
    return keywords


def letters_of(file_name: str) -> str:
    """The flag letters of a file in cur/."""
    return file_name.rpartition(":2,")[2] if ":2," in file_name else ""


def base_of(file_name: str) -> str:
    """The file name without its flags."""
    return file_name.partition(":")[0]


def flags_of(letters: str, keywords: dict) -> list:
    """Sorted IMAP flags and keywords for flag letters; an unknown letter a to z is shown as such."""
    flags = set()
    for letter in letters:
        if letter in SYSTEM_FLAGS:
            flags.add(SYSTEM_FLAGS[letter])
        elif letter.islower():
            flags.add(keywords.get(letter, f"unknown-keyword-{letter}"))
    return sorted(flags)


def message_files(directory: str):
    """(sub-folder, file name) of every message in a Maildir folder, sorted."""
    for part in ("cur", "new"):
        try:
            names = sorted(os.listdir(os.path.join(directory, part)))
        except FileNotFoundError:
            continue
        for name in names:
            if not name.startswith(".") and os.path.isfile(os.path.join(directory, part, name)):
                yield part, name


def read_items(directory: str) -> list:
    """Every item of a Maildir folder: file, raw octets, flags, received second."""
    keywords = read_keywords(directory)
    items = []
    for part, name in message_files(directory):
        file = os.path.join(directory, part, name)
        with open(file, "rb") as handle:
            octets = handle.read()
        letters = letters_of(name) if part == "cur" else ""
        items.append({"file": file, "octets": octets, "flags": flags_of(letters, keywords),
                      "received": os.stat(file).st_mtime_ns // 1_000_000_000})
    return items


def header_value(octets: bytes, name: bytes):
    """The first value of a header field in the top header, or None; unfolded no further than its first line."""
    head = re.split(rb"\r*\n\r*\n", octets[:262144], maxsplit=1)[0]
    match = re.search(rb"(?im)^" + re.escape(name) + rb":[ \t]*([^\r\n]*)", head)
    return match.group(1).strip() if match else None


def message_id(octets: bytes) -> str:
    """The Message-ID as text, empty where there is none."""
    return (header_value(octets, b"Message-ID") or b"").decode("latin-1")
