"""Compares a mailbox, read over IMAP, with a manifest. Uses nothing but the standard library.

usage: read_mailbox.py PORT USER PASSWORD MANIFEST check|change

check:  every folder's UIDVALIDITY, UIDNEXT, subscription, uids, flags, keywords, received times and octets equal the
        manifest, and there are no other folders.
change: as a user does: sets \\Flagged and the keyword FromImap on the first item of the inbox and expunges the second.
"""

import datetime
import imaplib
import json
import re
import sys

imaplib._MAXLINE = 10_000_000


def canonical(octets):
    # Dovecot shows NUL as 0x80 in BODY[].
    octets = re.sub(rb"\r*\n", b"\r\n", octets)
    return re.sub(rb"\r+\Z", b"", octets).replace(b"\0", b"\x80")


def decode_name(raw):
    def shifted(match):
        if match.group(1) == b"":
            return "&"
        text = match.group(1).replace(b",", b"/")
        import base64
        return base64.b64decode(text + b"=" * (-len(text) % 4)).decode("utf-16-be")

    out, at = "", 0
    for match in re.finditer(rb"&([^-]*)-", raw):
        out += raw[at:match.start()].decode("ascii") + shifted(match)
        at = match.end()
    return out + raw[at:].decode("ascii")


def quoted(raw):
    return b'"' + raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def names(lines):
    """Decoded name -> (raw name, attributes) of LIST or LSUB answers."""
    found = {}
    for line in lines:
        if line is None:
            continue
        if isinstance(line, tuple):
            attributes, raw = line
        else:
            match = re.fullmatch(rb'(\([^)]*\) "." )(.*)', line, re.DOTALL)
            attributes, raw = match.groups()
            if raw.startswith(b'"'):
                raw = re.sub(rb"\\(.)", rb"\1", raw[1:-1])
        assert decode_name(raw) not in found, ("listed twice", raw)
        found[decode_name(raw)] = (raw, attributes)
    return found


def items(connection):
    """uid -> (flags, received, octets) of the selected folder."""
    status, data = connection.uid("FETCH", "1:*", "(UID FLAGS INTERNALDATE BODY.PEEK[])")
    assert status == "OK", data
    found, pending = {}, None
    for part in data:
        if isinstance(part, tuple):
            pending = part
            if not re.search(rb"\{\d+\}$", part[0]):
                raise AssertionError(part[0])
        elif part is not None and pending is not None:
            text = pending[0] + part
            uid = int(re.search(rb"UID (\d+)", text).group(1))
            flags = re.search(rb"FLAGS \(([^)]*)\)", text).group(1).decode().split()
            date = re.search(rb'INTERNALDATE "([^"]*)"', text).group(1).decode().strip()
            received = int(datetime.datetime.strptime(date, "%d-%b-%Y %H:%M:%S %z").timestamp())
            assert uid not in found, uid
            found[uid] = (flags, received, pending[1])
            pending = None
    return found


def check_folder(connection, raw, folder):
    wrong = []

    def same(what, seen, expected):
        if seen != expected:
            wrong.append(f"{folder['name']!r}: {what}: {seen!r} instead of {expected!r}")

    status, data = connection.status(quoted(raw).decode(), "(UIDVALIDITY UIDNEXT MESSAGES)")
    assert status == "OK", data
    text = b" ".join(b"".join(part) if isinstance(part, tuple) else part for part in data).decode()
    numbers = {key: int(value) for key, value in re.findall(r"(UIDVALIDITY|UIDNEXT|MESSAGES) (\d+)", text)}
    same("UIDVALIDITY", numbers["UIDVALIDITY"], folder["uid_validity"])
    same("UIDNEXT", numbers["UIDNEXT"], folder["uid_next"])
    same("MESSAGES", numbers["MESSAGES"], len(folder["items"]))
    status, data = connection.select(quoted(raw).decode(), readonly=True)
    assert status == "OK", data
    found = items(connection) if folder["items"] else {}
    same("uids", sorted(found), [item["uid"] for item in folder["items"]])
    for item in folder["items"]:
        flags, received, octets = found.get(item["uid"], ([], 0, b""))
        seen = sorted(flag.lower() for flag in flags if flag != "\\Recent")
        same(f"flags of {item['uid']}", seen, sorted(flag.lower() for flag in item["flags"]))
        same(f"received time of {item['uid']}", received, item["received"])
        expected = item["octets"].encode("latin-1")
        same(f"octets of {item['uid']}", canonical(octets), canonical(expected))
    return wrong


def check(connection, manifest):
    wrong = []
    listed = names(connection.list()[1])
    subscribed = names(connection.lsub()[1])
    selectable = {name for name, (_, attributes) in listed.items()
                  if not re.search(rb"\\(Noselect|NonExistent)", attributes, re.IGNORECASE)}
    expected = {folder["name"] for folder in manifest["folders"]}
    if selectable != expected:
        wrong.append(f"folders: missing {sorted(expected - selectable)!r}, unexpected {sorted(selectable - expected)!r}")
    expected = {folder["name"] for folder in manifest["folders"] if folder["subscribed"]}
    if set(subscribed) != expected:
        wrong.append(f"subscriptions: {sorted(subscribed)!r} instead of {sorted(expected)!r}")
    for folder in manifest["folders"]:
        if folder["name"] in listed:
            wrong += check_folder(connection, listed[folder["name"]][0], folder)
    return wrong


def change(connection):
    connection.select("INBOX")
    uids = connection.uid("SEARCH", "ALL")[1][0].split()
    assert connection.uid("STORE", uids[0].decode(), "+FLAGS", "(\\Flagged FromImap)")[0] == "OK"
    assert connection.uid("STORE", uids[1].decode(), "+FLAGS", "(\\Deleted)")[0] == "OK"
    assert connection.uid("EXPUNGE", uids[1].decode())[0] == "OK"
    assert connection.unselect()[0] == "OK"
    return []


def main():
    port, user, password, manifest, mode = sys.argv[1:]
    with open(manifest, encoding="utf-8") as file:
        manifest = json.load(file)
    connection = imaplib.IMAP4("127.0.0.1", int(port))
    connection.login(user, password)
    wrong = {"check": lambda: check(connection, manifest), "change": lambda: change(connection)}[mode]()
    connection.logout()
    for line in wrong:
        print(line[:2000])
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
