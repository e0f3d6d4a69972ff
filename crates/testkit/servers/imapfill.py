#!/usr/bin/env python3
"""Fills a mail account with what real mailboxes hold and mail servers and migrations stumble over.

    imapfill.py ACCOUNT.json [--seed 1] [--messages 50] [--tame]

The account is described as for imapcheck.py. One line of JSON is printed for each folder, subscription, message and
keyword that the server refused, with its reason, and one with the numbers at the end. Equal seeds give equal contents.
--messages is how many ordinary messages there are besides. --tame leaves out folder names and messages that one of the
common servers refuses or alters, so that two accounts on different servers can be expected to become equal.
"""

import argparse
import json
import random
import sys

import imapcheck

HEAD = (
    b"From: Press <press@contoso.example>\r\n"
    b"To: reception@contoso.example\r\n"
    b"Date: Tue, 3 Mar 2020 10:00:00 +0100\r\n"
)
DATE = "03-Mar-2020 10:00:00 +0100"


def mail(subject, body=b"Good day.\r\n", head=HEAD):
    name = subject.lower().replace(" ", "-").encode()
    return head + b"Subject: " + subject.encode() + b"\r\nMessage-ID: <" + name + b"@contoso.example>\r\n\r\n" + body


def part(kind, content):
    return b"Content-Type: " + kind + b"\r\n\r\n" + content + b"\r\n"


def nested(depth):
    content = b"the innermost"
    for level in range(depth):
        border = b"b%d" % level
        content = (
            b'Content-Type: multipart/mixed; boundary="' + border + b'"\r\n\r\n--' + border
            + b"\r\n" + content + b"\r\n--" + border + b"--\r\n"
        )
    return HEAD + b"Subject: nested\r\nMIME-Version: 1.0\r\n" + content


def messages():
    """Name, octets, and whether all common servers keep them, of messages with odd content."""
    eight = "Gr\u00fc\u00dfe"
    everywhere = [
        ("headers in UTF-8", mail("utf", head=HEAD + b"X-Note: " + eight.encode() + b"\r\n")),
        ("headers in Latin-1", mail("latin", head=HEAD + b"X-Note: " + eight.encode("latin-1") + b"\r\n")),
        ("body of all octets but NUL", mail("octets", bytes(range(1, 256)).replace(b"\n", b"") + b"\r\n")),
        ("lone CR in a line", mail("cr", b"one\rtwo\r\nthree\r\r four\r\n")),
        ("no line end at the end", mail("open end", b"and so it en")),
        ("headers only, with blank line", HEAD + b"Subject: nothing\r\n\r\n"),
        ("headers only, no blank line", HEAD + b"Subject: less than nothing\r\n"),
        ("line of mbox first", b"From press@contoso.example Tue Mar  3 10:00:00 2020\r\n" + mail("mbox")),
        ("From in the body", mail("from", b"From here on\r\n>From there\r\n")),
        ("line of 1,200 octets", mail("long", b"x" * 1200 + b"\r\n")),
        ("line of 12,000 octets", mail("longer", b"y" * 12000 + b"\r\n")),
        ("header of 5,000 octets", mail("wide", head=HEAD + b"X-Wide: " + b"z" * 5000 + b"\r\n")),
        ("folded header of 300 lines", mail("folded", head=HEAD + b"X-Folded: a\r\n" + b" b\r\n" * 300)),
        ("no Message-ID", HEAD + b"Subject: anonymous\r\n\r\nNo one.\r\n"),
        ("no Message-ID, other body", HEAD + b"Subject: anonymous\r\n\r\nNo one else.\r\n"),
        ("one Message-ID, first body", mail("same id", b"one\r\n")),
        ("one Message-ID, second body", mail("same id", b"two\r\n")),
        ("twin", mail("twin")),
        ("twin", mail("twin")),
        ("twin", mail("twin")),
        ("parts in parts, 40 deep", nested(40)),
        ("border that never ends", mail("border", b'--a\r\nContent-Type: text/plain\r\n\r\nx\r\n--b\r\n')),
        ("winmail.dat", mail("tnef", part(b"application/ms-tnef", b"\x78\x9f\x3e\x22\x01\x80\x90"))),
        ("signed", mail("signed", part(b'multipart/signed; protocol="application/pkcs7-signature"', b"--x\r\n--x--"))),
        ("encrypted", mail("encrypted", b"-----BEGIN PGP MESSAGE-----\r\n\r\nhQEMA\r\n-----END PGP MESSAGE-----\r\n")),
        ("transfer encoding of nobody", mail("uu", head=HEAD + b"Content-Transfer-Encoding: x-uuencode\r\n")),
        ("base64 with wrong letters", mail("b64", b"*=*\r\n", HEAD + b"Content-Transfer-Encoding: base64\r\n")),
        ("no Date", b"From: press@contoso.example\r\nSubject: undated\r\n\r\nSome day.\r\n"),
        ("impossible Date", b"From: press@contoso.example\r\nDate: Foo, 35 Mai 20 25:61\r\nSubject: d\r\n\r\n.\r\n"),
        ("octet 0x1A", mail("sub", b"before\x1aafter\r\n")),
        ("blank line first", b"\r\n" + mail("blank")),
        ("header name alone", HEAD + b"Subject:\r\nX-Empty:\r\n\r\nx\r\n"),
        ("looks like IMAP", mail("imap", b"* BYE\r\na OK {100}\r\n)\r\n.\r\n")),
    ]
    somewhere = [
        ("bare LF", mail("lf").replace(b"\r\n", b"\n")),
        ("mixed line ends", mail("mixed", b"a\nb\r\nc\rd\r\r\ne\n\r")),
        ("CR CR LF", mail("ccl", b"one\r\r\ntwo\r\r\n")),
        ("CR at the end", mail("last cr", b"end\r")),
        ("NUL in the body", mail("nul", b"a\0b\r\n")),
        ("NUL in a header", HEAD + b"Subject: a\0b\r\n\r\nx\r\n"),
        ("no octets", b""),
        ("only a line end", b"\r\n"),
        ("no header at all", b"Good day.\r\n"),
        (">From first", b">From press\r\n" + mail("quoted")),
        ("header without colon", HEAD + b"Subject: t\r\nno colon\r\n\r\nx\r\n"),
    ]
    return [(*one, True) for one in everywhere] + [(*one, False) for one in somewhere]


DATES = [
    ("before 1970", "01-Jan-1969 12:00:00 +0000", False),
    ("the first second", "01-Jan-1970 00:00:00 +0000", False),
    # Dovecot puts the present in the place of the future.
    ("after 2038", "01-Feb-2040 12:00:00 +0000", False),
    ("odd zone", "03-Mar-2020 10:00:00 +0545", True),
    ("far west", "03-Mar-2020 23:59:59 -1130", True),
    ("day with blank", " 3-Mar-2020 10:00:01 +0000", True),
    ("29 February", "29-Feb-2020 23:59:59 +0000", True),
    ("leap second", "31-Dec-2016 23:59:60 +0000", False),
    ("the hour that came twice", "25-Oct-2020 02:30:00 +0100", True),
    ("last century", "31-Dec-1999 23:59:59 +0000", True),
]

FLAGS = [
    ("all system flags", ["\\Seen", "\\Answered", "\\Flagged", "\\Draft"], True),
    ("deleted", ["\\Seen", "\\Deleted"], True),
    ("usual keywords", ["$Forwarded", "$MDNSent", "$Junk"], True),
    ("keyword in other case", ["$mdnsent", "NONJUNK"], True),
    ("odd keyword", ["a/b", "a+b", "a.b", "~x", "1"], True),
    ("long keyword", ["k" * 50], True),
    ("longer keyword", ["k" * 60], False),
    ("keyword with bracket", ["a]b"], False),
    ("system flag of nobody", ["\\FORWARDED"], False),
]

# Path, whether all common servers keep it.
FOLDERS = [
    (["Sent"], True),
    (["Drafts"], True),
    (["Trash"], True),
    (["Junk"], True),
    (["Archive"], True),
    (["Archive", "2019"], True),
    (["Archive", "2020", "Q1"], True),
    (["Entw\u00fcrfe"], True),
    (["\u65e5\u672c\u8a9e", "\u9001\u4fe1"], True),
    (["\U0001f4ec mail"], True),
    (["R&D"], True),
    (["two words"], True),
    (["a_b"], True),
    (["(parens) 'n' [brackets]"], True),
    (["!@$+,;=^`{|}"], False),
    (["Projects"], True),
    (["projects"], False),
    (["caf\u00e9"], True),
    (["cafe\u0301"], False),
    ([str(level) for level in range(12)], True),
    ([str(level) for level in range(60)], False),
    (["n" * 100], True),
    (["n" * 240], False),
    (["INBOX", "child"], False),
    (["inner", "INBOX"], True),
    ([" blank before"], False),
    (["blank after "], False),
    (['quote " and \\'], False),
    (["100%"], False),
    (["star *"], False),
    (["~home"], False),
    (["#hash"], False),
    (["dot at the end."], False),
    (["a.b"], False),
    (["a/b"], False),
    ([".."], False),
    (["control \x07"], False),
]

USES = {"Sent": "\\Sent", "Drafts": "\\Drafts", "Trash": "\\Trash", "Junk": "\\Junk", "Archive": "\\Archive"}


class Filler:
    """Does what it can and notes the rest."""

    def __init__(self, session, seed, tame):
        self.session = session
        self.names = imapcheck.Names(session)
        self.random = random.Random(seed)
        self.tame = tame
        self.made = [["INBOX"]]
        self.refused = []
        self.stored = 0

    def attempt(self, what, do):
        try:
            do()
            return True
        except imapcheck.Refused as error:
            self.refused.append({**what, "reason": str(error)})
            return False

    def create(self, path):
        wire = self.names.wire(path)
        name = imapcheck.quoted(wire)
        if any(self.names.separator in imapcheck.encode_name(part) for part in path):
            self.refused.append({"create": path, "reason": "a name has the separator in it"})
            return
        use = USES.get(path[0]) if len(path) == 1 else None
        command = b"CREATE " + name
        if use and "CREATE-SPECIAL-USE" in self.session.capabilities:
            command += b" (USE (" + use.encode() + b"))"
        if self.attempt({"create": path}, lambda: self.session.command(command)):
            self.made.append(path)

    def append(self, what, path, octets, flags=(), date=DATE):
        wire = self.names.wire(path)
        what = {"append": what, "folder": path}
        self.stored += self.attempt(what, lambda: self.session.append(wire, octets, flags, date))

    def folders(self):
        for path, is_common in FOLDERS:
            if is_common or not self.tame:
                self.create(path)
        # A parent that holds nothing itself.
        self.create(["gone", "kept"])
        name = imapcheck.quoted(self.names.wire(["gone"]))
        self.attempt({"delete": ["gone"]}, lambda: self.session.command(b"DELETE " + name))
        for path in self.made:
            if path == ["INBOX"] or self.random.random() < 0.5:
                self.subscribe(path)
        if not self.tame:
            self.subscribe(["never there"])

    def subscribe(self, path):
        name = imapcheck.quoted(self.names.wire(path))
        self.attempt({"subscribe": path}, lambda: self.session.command(b"SUBSCRIBE " + name))

    def contents(self):
        for name, octets, is_common in messages():
            if is_common or not self.tame:
                self.append(name, ["INBOX"], octets)
        for name, date, is_common in DATES:
            if is_common or not self.tame:
                self.append(name, ["INBOX"], mail(name), ["\\Seen"], date)
        for name, flags, is_common in FLAGS:
            if is_common or not self.tame:
                self.append(name, ["INBOX"], mail(name), flags)
        if not self.tame:
            # More than Maildir's 26 letters.
            for number in range(30):
                self.append("one keyword of 30", ["Archive"], mail(f"keyword {number}"), [f"Label{number}"])
        # The same message in several folders.
        for path in [["INBOX"], ["Archive"], ["Sent"]]:
            self.append("in several folders", path, mail("everywhere"), ["\\Seen"])
        self.append("1 MiB", ["Archive"], mail("big", (b"0123456789abcdef" * 4 + b"\r\n") * 16384))

    def ordinary(self, count):
        for number in range(count):
            path = self.random.choice(self.made)
            size = int(self.random.paretovariate(1.2) * 800) % 200000
            line = bytes(self.random.choice(b"abcdefghij klmnop qrstuvwxyz") for _ in range(70)) + b"\r\n"
            flags = [flag for flag in ["\\Seen", "\\Flagged", "$Forwarded"] if self.random.random() < 0.4]
            date = f"{self.random.randint(1, 28):02}-Jun-{self.random.randint(1995, 2024)} 08:00:{number % 60:02} +0200"
            self.append(f"ordinary {number}", path, mail(f"ordinary {number}", line * (size // 72 + 1)), flags, date)


def fill(account, seed=1, count=50, tame=False):
    """What was refused, and how many messages were stored."""
    session = imapcheck.Session(account)
    try:
        filler = Filler(session, seed, tame)
        filler.folders()
        filler.contents()
        filler.ordinary(count)
    finally:
        session.close()
    return filler.refused, filler.stored


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("account")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--messages", type=int, default=50)
    parser.add_argument("--tame", action="store_true")
    options = parser.parse_args()
    with open(options.account, encoding="utf-8") as file:
        account = json.load(file)
    refused, stored = fill(account, options.seed, options.messages, options.tame)
    for line in refused:
        print(json.dumps(line))
    print(json.dumps({"stored": stored}))


if __name__ == "__main__":
    try:
        main()
    except (imapcheck.Broken, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
