#!/usr/bin/env python3
"""Says what is in a mail account, and what differs between two, by looking over IMAP.

    imapcheck.py dump ACCOUNT.json > DUMP.jsonl
    imapcheck.py compare SOURCE TARGET [--names NAMES.json]

SOURCE and TARGET are dumps (.jsonl) or accounts (.json). "compare" prints what differs as JSON and ends with status 1
if anything does. NAMES.json is a list of pairs of paths, each a list of names: a source folder and what it is called at
the target.

An account is a JSON object: host (127.0.0.1), port, security (none, starttls or tls), authority (PEM file of whom to
trust), method (login, plain, oauthbearer or xoauth2), user, authorize_as (with plain: whose mail), secret.

This knows nothing of the engine that it checks: its canonical form and its reading of IMAP are its own. A dump has one
line for each folder and one for each message, in the order of uids.
"""

import base64
import calendar
import collections
import hashlib
import json
import re
import socket
import ssl
import sys

TIMEOUT = 300
BLOCK = 65536
BATCH = 200
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
SPECIAL_USES = {"\\all", "\\archive", "\\drafts", "\\flagged", "\\important", "\\junk", "\\sent", "\\trash"}


class Refused(Exception):
    """The server said NO or BAD."""


class Broken(Exception):
    """The connection ended, or what came is not IMAP."""


class Canonical:
    """SHA-256 of the canonical form of octets that come in pieces.

    Each run of CR directly before an LF, and the lack of one, becomes one CR; a run of CR at the very end is dropped;
    everything else stays.
    """

    def __init__(self):
        self.hash = hashlib.sha256()
        self.length = 0
        self.held = 0

    def add(self, octets):
        octets = b"\r" * self.held + octets
        kept = octets.rstrip(b"\r")
        self.held = len(octets) - len(kept)
        form = re.sub(rb"\r*\n", b"\r\n", kept)
        self.hash.update(form)
        self.length += len(form)

    @classmethod
    def of(cls, octets):
        form = cls()
        form.add(octets)
        return form

    def digest(self):
        return self.hash.hexdigest()


class Atom(bytes):
    """A word that stood without quotes."""


def decode_name(octets):
    """A folder name from modified UTF-7 (RFC 3501 section 5.1.3), else from UTF-8 or Latin-1, or as it is."""
    if any(octet > 126 for octet in octets):
        try:
            return octets.decode("utf-8")
        except UnicodeDecodeError:
            return octets.decode("latin-1")
    text = octets.decode("ascii")

    def shifted(match):
        inner = match.group(1)
        if not inner:
            return "&"
        padded = inner.replace(",", "/") + "=" * (-len(inner) % 4)
        return base64.b64decode(padded, validate=True).decode("utf-16-be")

    try:
        return re.sub(r"&([^-]*)-", shifted, text)
    except ValueError:
        return text


def encode_name(name):
    """A folder name in modified UTF-7."""

    def shifted(match):
        if match.group(0) == "&":
            return "&-"
        coded = base64.b64encode(match.group(0).encode("utf-16-be")).decode("ascii")
        return "&" + coded.rstrip("=").replace("/", ",") + "-"

    return re.sub(r"&|[^\x20-\x7e]+", shifted, name).encode("ascii")


def quoted(octets):
    return b'"' + octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def tokens(pieces):
    """Nested lists of a response's words. A piece is octets of lines, or what came as a literal."""
    top = []
    open_lists = [top]
    word = re.compile(rb'\s*(?:(\()|(\))|"((?:[^"\\]|\\.)*)"|([^\s()"]+))', re.S)
    for piece in pieces:
        if not isinstance(piece, Line):
            open_lists[-1].append(piece)
            continue
        place = 0
        while True:
            found = word.match(piece, place)
            if not found:
                break
            place = found.end()
            if found.group(1):
                new = []
                open_lists[-1].append(new)
                open_lists.append(new)
            elif found.group(2):
                if len(open_lists) > 1:
                    open_lists.pop()
            elif found.group(3) is not None:
                open_lists[-1].append(re.sub(rb"\\(.)", rb"\1", found.group(3), flags=re.S))
            else:
                open_lists[-1].append(Atom(found.group(4)))
    return top


class Line(bytes):
    """Octets of a response outside its literals."""


class Session:
    """A signed-in connection."""

    def __init__(self, account):
        self.tag = 0
        host = account.get("host", "127.0.0.1")
        self.socket = socket.create_connection((host, account["port"]), TIMEOUT)
        security = account.get("security", "none")
        context = ssl.create_default_context(cafile=account.get("authority")) if security != "none" else None
        if security == "tls":
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        self.file = self.socket.makefile("rb", BLOCK)
        self.response()
        if security == "starttls":
            self.command(b"STARTTLS")
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
            self.file = self.socket.makefile("rb", BLOCK)
        self.sign_in(account)
        self.capabilities = set()
        for answer in self.command(b"CAPABILITY"):
            if answer[:1] == [b"CAPABILITY"]:
                self.capabilities.update(word.decode("ascii").upper() for word in answer[1:])

    def sign_in(self, account):
        user, secret = account["user"], account["secret"]
        method = account.get("method", "login")
        if method == "login":
            self.command(b"LOGIN " + quoted(user.encode()) + b" " + quoted(secret.encode()))
        elif method == "plain":
            self.authenticate("PLAIN", f"{account.get('authorize_as') or ''}\0{user}\0{secret}")
        elif method == "oauthbearer":
            self.authenticate("OAUTHBEARER", f"n,a={user},\x01auth=Bearer {secret}\x01\x01")
        elif method == "xoauth2":
            self.authenticate("XOAUTH2", f"user={user}\x01auth=Bearer {secret}\x01\x01")
        else:
            raise ValueError(f"no method {method}")

    def authenticate(self, mechanism, response):
        tag = self.send(b"AUTHENTICATE " + mechanism.encode())
        self.go_on(tag)
        self.put(base64.b64encode(response.encode()) + b"\r\n")
        self.finish(tag)

    def put(self, octets):
        self.socket.sendall(octets)

    def send(self, command):
        self.tag += 1
        tag = b"c%d" % self.tag
        self.put(tag + b" " + command + b"\r\n")
        return tag

    def command(self, command):
        return self.finish(self.send(command))

    def go_on(self, tag):
        """Waits for the server to ask for more."""
        while True:
            pieces = self.response()
            if pieces[0].startswith(b"+"):
                return
            if pieces[0].startswith(tag + b" "):
                raise Refused(pieces[0][len(tag) + 1 :].decode("utf-8", "replace"))

    def finish(self, tag, each=None):
        """The untagged answers as nested lists, or each given to a function."""
        answers = []
        while True:
            pieces = self.response(digesting=each is not None)
            line = pieces[0]
            if line.startswith(b"* "):
                answer = tokens([Line(line[2:])] + pieces[1:])
                answers.append(answer) if each is None else each(answer)
            elif line.startswith(b"+"):
                # The explanation of a refusal, as OAUTHBEARER has it.
                self.put(b"\r\n")
            elif line.startswith(tag + b" "):
                text = line[len(tag) + 1 :]
                if not text.startswith(b"OK"):
                    raise Refused(text.decode("utf-8", "replace"))
                self.last = text.decode("utf-8", "replace")
                return answers
            else:
                raise Broken(f"not a response: {line[:200]!r}")

    def append(self, mailbox, octets, flags=(), date=None):
        """Appends exactly these octets. The mailbox's name is as on the wire."""
        literal8 = b"~" if b"\0" in octets and "BINARY" in self.capabilities else b""
        words = [b"APPEND", quoted(mailbox)]
        if flags:
            words.append(b"(" + b" ".join(flag.encode() for flag in flags) + b")")
        if date:
            words.append(quoted(date.encode()))
        words.append(literal8 + b"{%d}" % len(octets))
        tag = self.send(b" ".join(words))
        self.go_on(tag)
        self.put(octets + b"\r\n")
        self.finish(tag)

    def response(self, digesting=False):
        """A response: lines and what its literals hold; a body as its Canonical if wanted."""
        pieces = []
        while True:
            line = self.file.readline()
            if not line.endswith(b"\n"):
                raise Broken("the connection ended")
            found = re.search(rb"~?\{(\d+)\}\r?\n\Z", line)
            if not found:
                pieces.append(Line(line.rstrip(b"\r\n")))
                return pieces
            before = line[: found.start()]
            pieces.append(Line(before))
            into = Canonical() if digesting and before.upper().endswith(b"BODY[] ") else None
            pieces.append(self.literal(int(found.group(1)), into))

    def literal(self, size, into):
        parts = []
        while size:
            part = self.file.read(min(size, BLOCK))
            if not part:
                raise Broken("the connection ended inside of a literal")
            size -= len(part)
            parts.append(part) if into is None else into.add(part)
        return b"".join(parts) if into is None else into

    def close(self):
        try:
            self.command(b"LOGOUT")
        except (Broken, OSError):
            pass
        self.socket.close()


class Names:
    """Paths and wire names of the user's own folders."""

    def __init__(self, session):
        self.prefix, self.separator, self.others = b"", None, []
        if "NAMESPACE" in session.capabilities:
            for answer in session.command(b"NAMESPACE"):
                if answer[:1] != [b"NAMESPACE"]:
                    continue
                own, *others = answer[1:4]
                if isinstance(own, list) and own:
                    self.prefix, self.separator = own[0][0], own[0][1]
                for group in others:
                    if isinstance(group, list):
                        self.others += [entry[0] for entry in group if entry[0]]
        if self.separator in (None, b"NIL"):
            answers = session.command(b'LIST "" ""')
            self.separator = next((answer[2] for answer in answers if answer[:1] == [b"LIST"]), b"/")

    def is_own(self, wire):
        return not any(wire.startswith(other) or wire + self.separator == other for other in self.others)

    def path(self, wire):
        if wire.upper() == b"INBOX":
            return ["INBOX"]
        if self.prefix and wire.startswith(self.prefix):
            wire = wire[len(self.prefix) :]
        parts = [decode_name(part) for part in wire.split(self.separator)]
        if not self.prefix and parts[0].upper() == "INBOX":
            parts[0] = "INBOX"
        return parts

    def wire(self, path):
        if path == ["INBOX"]:
            return b"INBOX"
        return self.prefix + self.separator.join(encode_name(part) for part in path)


def epoch(date):
    """Seconds since 1970 of an INTERNALDATE."""
    found = re.fullmatch(r" ?(\d+)-(\w{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)", date)
    if not found:
        raise Broken(f"not a date: {date!r}")
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = found.groups()
    seconds = calendar.timegm(
        (int(year), MONTHS.index(month.capitalize()) + 1, int(day), int(hour), int(minute), int(second))
    )
    zone = int(zone_hours) * 3600 + int(zone_minutes) * 60
    return seconds - zone if sign == "+" else seconds + zone


def folders(session, names):
    """Wire name -> line of a dump."""
    subscribed = {}
    for answer in session.command(b'LSUB "" "*"'):
        if answer[:1] == [b"LSUB"] and names.is_own(answer[3]):
            # A parent that is only shown because a child is subscribed is not.
            if b"\\noselect" not in [flag.lower() for flag in answer[1]]:
                subscribed[tuple(names.path(answer[3]))] = answer[3]
    command = b'LIST "" "*"'
    if "SPECIAL-USE" in session.capabilities and "LIST-EXTENDED" in session.capabilities:
        command += b" RETURN (SPECIAL-USE)"
    found = {}
    for answer in session.command(command):
        if answer[:1] != [b"LIST"] or not names.is_own(answer[3]):
            continue
        attributes = {attribute.decode("ascii").lower() for attribute in answer[1]}
        path = names.path(answer[3])
        found[answer[3]] = {
            "kind": "folder",
            "folder": path,
            "selectable": not attributes & {"\\noselect", "\\nonexistent"},
            "special_use": sorted(attributes & SPECIAL_USES),
            "subscribed": subscribed.pop(tuple(path), None) is not None,
        }
    for path, wire in subscribed.items():
        found[wire] = {
            "kind": "folder",
            "folder": list(path),
            "selectable": False,
            "special_use": [],
            "subscribed": True,
        }
    return found


def message(answer):
    """The line of a dump for an untagged FETCH with a body, or nothing."""
    if len(answer) < 3 or answer[1:2] != [b"FETCH"]:
        return None
    items = dict(zip([word.upper() for word in answer[2][::2]], answer[2][1::2]))
    if b"BODY[]" not in items or b"UID" not in items:
        return None
    body = items[b"BODY[]"]
    if isinstance(body, Atom):
        raise Broken(f"uid {items[b'UID'].decode()} has no octets")
    form = body if isinstance(body, Canonical) else Canonical.of(body)
    flags = {flag.decode("latin-1").lower() for flag in items[b"FLAGS"]} - {"\\recent"}
    return {
        "kind": "message",
        "uid": int(items[b"UID"]),
        "sha256": form.digest(),
        "length": form.length,
        "flags": sorted(flags),
        "internaldate": epoch(items[b"INTERNALDATE"].decode("ascii")),
    }


def dump(account):
    """Yields the lines of an account's dump."""
    session = Session(account)
    try:
        names = Names(session)
        for wire, line in sorted(folders(session, names).items()):
            if not line["selectable"]:
                yield line
                continue
            count = 0
            for answer in session.command(b"EXAMINE " + quoted(wire)):
                if answer[1:2] == [b"EXISTS"]:
                    count = int(answer[0])
                elif answer[:2] == [b"OK", b"[UIDVALIDITY"]:
                    line["uidvalidity"] = int(answer[2].rstrip(b"]"))
                elif answer[:2] == [b"OK", b"[UIDNEXT"]:
                    line["uidnext"] = int(answer[2].rstrip(b"]"))
            line["messages"] = count
            yield line
            seen = 0
            for first in range(1, count + 1, BATCH):
                got = []
                last = min(first + BATCH - 1, count)
                command = b"FETCH %d:%d (UID FLAGS INTERNALDATE BODY.PEEK[])" % (first, last)
                session.finish(session.send(command), lambda answer: got.append(message(answer)))
                for one in sorted(filter(None, got), key=lambda one: one["uid"]):
                    seen += 1
                    yield {**one, "folder": line["folder"]}
            if seen != count:
                raise Broken(f"{line['folder']} has {count} messages and {seen} were given")
    finally:
        session.close()


def read(lines):
    """Path -> folder with its messages, from the lines of a dump."""
    account = {}
    for line in lines:
        path = tuple(line["folder"])
        if line["kind"] == "folder":
            account[path] = {**line, "items": []}
        else:
            account[path]["items"].append(line)
    return account


def named(path, item, **more):
    return {"folder": list(path), "uid": item["uid"], "length": item["length"], "sha256": item["sha256"], **more}


def compare_items(path, source, target, result):
    by_digest = collections.defaultdict(lambda: ([], []))
    for side, items in enumerate((source, target)):
        for item in sorted(items, key=lambda item: item["uid"]):
            by_digest[item["sha256"]][side].append(item)
    lonely_sources, lonely_targets = [], []
    for ours, theirs in by_digest.values():
        # Equal octets are told apart by their metadata, as far as that is right.
        facts = [
            lambda one: (one["flags"], one["internaldate"]),
            lambda one: one["internaldate"],
            lambda one: one["flags"],
            lambda one: None,
        ]
        pairs = []
        for fact in facts:
            for item in list(ours):
                partner = next((other for other in theirs if fact(other) == fact(item)), None)
                if partner is not None:
                    ours.remove(item)
                    theirs.remove(partner)
                    pairs.append((item, partner))
        for item, partner in pairs:
            if item["flags"] != partner["flags"]:
                result["flags_wrong"].append(
                    named(path, item, target_uid=partner["uid"], source=item["flags"], target=partner["flags"])
                )
            if item["internaldate"] != partner["internaldate"]:
                dates = {"source": item["internaldate"], "target": partner["internaldate"]}
                result["dates_wrong"].append(named(path, item, target_uid=partner["uid"], **dates))
        lonely_sources += ours
        if pairs:
            result["duplicated"] += [named(path, other) for other in theirs]
        else:
            lonely_targets += theirs
    # One that is at the target in other octets has at least its date, or its place.
    for item in sorted(lonely_sources, key=lambda item: item["uid"]):
        partner = next((other for other in lonely_targets if other["internaldate"] == item["internaldate"]), None)
        if partner is None and len(lonely_sources) == len(lonely_targets) == 1:
            partner = lonely_targets[0]
        if partner is None:
            result["lost"].append(named(path, item))
        else:
            lonely_targets.remove(partner)
            result["altered"].append(named(path, item, target_uid=partner["uid"], target_length=partner["length"]))
    result["foreign"] += [named(path, other) for other in lonely_targets]


MESSAGE_KINDS = ["lost", "duplicated", "altered", "foreign", "flags_wrong", "dates_wrong"]
FOLDER_KINDS = ["folders_wrong", "subscriptions_wrong", "special_use_wrong"]


def compare(source, target, names=()):
    """What differs between the lines of two dumps: kind -> list. Nothing differs if all lists are empty."""
    source, target = read(source), read(target)
    mapped = {tuple(theirs): tuple(ours) for ours, theirs in names}
    target = {mapped.get(path, path): folder for path, folder in target.items()}
    result = {kind: [] for kind in MESSAGE_KINDS + FOLDER_KINDS}
    nothing = {"items": [], "selectable": False, "subscribed": False, "special_use": []}
    for path in sorted(set(source) | set(target)):
        ours, theirs = source.get(path, nothing), target.get(path, nothing)
        # A folder that holds nothing itself may be missing, and may be a real one at the target.
        if ours["selectable"] and not theirs["selectable"]:
            result["folders_wrong"].append({"folder": list(path), "is": "missing"})
        elif theirs["selectable"] and path not in source:
            result["folders_wrong"].append({"folder": list(path), "is": "foreign"})
        if ours["subscribed"] != theirs["subscribed"]:
            result["subscriptions_wrong"].append({"folder": list(path), "source": ours["subscribed"]})
        if ours["special_use"] != theirs["special_use"]:
            uses = {"source": ours["special_use"], "target": theirs["special_use"]}
            result["special_use_wrong"].append({"folder": list(path), **uses})
        compare_items(path, ours["items"], theirs["items"], result)
    return result


def lines_of(name):
    """The lines of a dump, or of the account that a file names."""
    with open(name, encoding="utf-8") as file:
        if name.endswith(".jsonl"):
            return [json.loads(line) for line in file]
        return list(dump(json.load(file)))


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "dump":
        with open(arguments[1], encoding="utf-8") as file:
            account = json.load(file)
        for line in dump(account):
            print(json.dumps(line, sort_keys=True))
        return 0
    if len(arguments) in (3, 5) and arguments[0] == "compare":
        names = []
        if len(arguments) == 5:
            if arguments[3] != "--names":
                raise SystemExit(__doc__)
            with open(arguments[4], encoding="utf-8") as file:
                names = json.load(file)
        result = compare(lines_of(arguments[1]), lines_of(arguments[2]), names)
        print(json.dumps(result, indent=1))
        return 1 if any(result.values()) else 0
    raise SystemExit(__doc__)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Refused, Broken, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
