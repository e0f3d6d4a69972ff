"""Maildirs for the tests, what happens to them while a move runs, and the account of both. Only the standard library and the demo's tools.

    python3 tests/tools/mailboxes.py write --out DIR --manifests DIR --seed N NAME...
    python3 tests/tools/mailboxes.py change MANIFEST JOURNAL MAIL_ROOT SEED
    python3 tests/tools/mailboxes.py large MANIFEST JOURNAL MAIL_ROOT OCTETS
    python3 tests/tools/mailboxes.py send MANIFEST JOURNAL HOST:PORT RECIPIENT [--routed]
    python3 tests/tools/mailboxes.py live MANIFEST JOURNAL MAILDIR SEED --deliver N --flag N

`write` makes DIR/mail/NAME and one manifest for each; `change` delivers, flags and removes; `large` delivers one
message of so many octets; `send` mails one message by SMTP; `live` delivers and flags in a Maildir to which the mailbox has
moved, where files have other names: there they are known by digest and date.
demo/check.py compares a Maildir with manifest and journal.
"""

import argparse
import json
import os
import random
import sys

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(PROJECT, "demo"))
sys.dont_write_bytecode = True

import generate  # noqa: E402
import maildir  # noqa: E402
import nasty  # noqa: E402
import smtp_send  # noqa: E402
import state  # noqa: E402

SAMPLES = os.path.join(PROJECT, "samples", "mail")
ITEMS = 24


def groups(run: generate.Generator, seed: int) -> list:
    """About ITEMS messages: half of awkward kinds, half real ones."""
    chosen = random.Random(f"kinds {seed}").sample(sorted(set(nasty.KINDS) - {"large"}), 8)
    result = [[(kind, octets) for octets in nasty.KINDS[kind](run.random, run.samples)] for kind in chosen]
    while sum(map(len, result)) < ITEMS:
        result.append([("real", run.random.choice(run.samples))])
    run.random.shuffle(result)
    return result


def write(arguments):
    for number, name in enumerate(arguments.names):
        seed = arguments.seed * 1000 + number
        run = generate.Generator(seed, arguments.out, SAMPLES)
        awkward = run.random.choice(generate.AWKWARD_FOLDERS)
        run.mailbox(name, [["INBOX"], ["Sent"], ["Projects"], ["Projects", "2002"], *awkward], groups(run, seed))
        with open(os.path.join(arguments.manifests, f"{name}.json"), "w", encoding="utf-8") as file:
            json.dump(run.manifest, file, ensure_ascii=False, indent=1)


def account(arguments, mail_root: str) -> state.Account:
    with open(arguments.manifest, encoding="utf-8") as file:
        return state.Account(json.load(file), mail_root, arguments.journal)


def change(arguments):
    """Two arrivals, two changes of flags, one removal; none touches an item that an earlier call touched."""
    book, chance = account(arguments, arguments.mail_root), random.Random(arguments.seed)
    mailbox = book.manifest["mailboxes"][0]
    touched = {entry.get("file") for entry in state.read_journal(arguments.journal)}
    items = [(folder, item) for folder in mailbox["folders"] for item in folder["items"] if item["file"] not in touched]
    picked = chance.sample(items, 3)
    with open(os.path.join(SAMPLES, chance.choice(sorted(os.listdir(SAMPLES)))), "rb") as file:
        sample = file.read()
    base = {"phase": 1, "mailbox": mailbox["name"]}
    for number in range(2):
        folder = chance.choice(mailbox["folders"])
        octets = sample + b"late %d %d\n" % (number, chance.getrandbits(60))
        book.apply(base | {"do": "deliver", "folder": folder["path"], "octets": octets.hex(), "received": 1600000000 + number})
    for folder, item in picked[:2]:
        book.apply(base | {"do": "flags", "folder": folder["path"], "file": item["file"], "letters": chance.choice(["S", "FS", "DR", "RS"])})
    folder, item = picked[2]
    book.apply(base | {"do": "remove", "folder": folder["path"], "file": item["file"]})


def large(arguments):
    book = account(arguments, arguments.mail_root)
    line = b"0123456789abcdef" * 4 + b"\n"
    octets = b"Subject: large\nMessage-ID: <large@contoso.example>\n\n" + line * (arguments.octets // len(line))
    base = {"phase": 1, "mailbox": book.manifest["mailboxes"][0]["name"], "folder": ["INBOX"]}
    book.apply(base | {"do": "deliver", "octets": octets.hex(), "received": 1600000000})


def live(arguments):
    """Messages arrive and flags change where the mailbox is now."""
    book, chance = account(arguments, ""), random.Random(arguments.seed)
    mailbox = book.manifest["mailboxes"][0]
    journal = state.read_journal(arguments.journal)
    base = {"mailbox": mailbox["name"]}
    for number in range(arguments.deliver):
        octets = b"Subject: later %d\r\nMessage-ID: <%d@elsewhere.example>\r\n\r\n%d\r\n" % (number, chance.getrandbits(60), number)
        name, received = f"{1700000000 + number}.M{number}P{os.getpid()}.later", 1700000000 + number
        state.deliver(arguments.maildir, octets, received, name)
        book.record(base | {"do": "deliver", "folder": ["INBOX"], "file": name, "digest": maildir.digest(octets), "length": len(maildir.canonical(octets)),
                            "message_id": maildir.message_id(octets), "received": received, "flags": [], "kind": "later"})
    touched = {entry.get("file") for entry in journal}
    candidates = []
    for folder in mailbox["folders"]:
        known = [(item["digest"], item["received"]) for item in folder["items"]]
        for item in folder["items"]:
            if item["file"] not in touched and known.count((item["digest"], item["received"])) == 1:
                candidates.append((folder["path"], item))
    for path, item in chance.sample(candidates, arguments.flag):
        directory = maildir.folder_directory(arguments.maildir, path)
        table = maildir.read_keywords(directory)
        part, name = found_by_contents(directory, item)
        kept = "".join(letter for letter in maildir.letters_of(name) if letter.islower()) if part == "cur" else ""
        now = "".join(letter for letter in maildir.letters_of(name) if letter.isupper()) if part == "cur" else ""
        letters = ("S" if now == "FR" else "FR") + kept
        os.rename(os.path.join(directory, part, name), os.path.join(directory, "cur", f"{maildir.base_of(name)}:2,{letters}"))
        book.record(base | {"do": "flags", "folder": path, "file": item["file"], "flags": maildir.flags_of(letters, table)})


def found_by_contents(directory: str, item: dict):
    """(sub-folder, file name) of the message with the digest and date of an item."""
    for part, name in maildir.message_files(directory):
        file = os.path.join(directory, part, name)
        with open(file, "rb") as handle:
            same = maildir.digest(handle.read()) == item["digest"]
        if same and int(os.stat(file).st_mtime) == item["received"]:
            return part, name
    raise FileNotFoundError(f"{item['file']} is not in {directory}")


def send(arguments):
    book = account(arguments, "")
    name = book.manifest["mailboxes"][0]["name"]
    marker = f"{random.SystemRandom().getrandbits(128):032x}"
    octets = b"Subject: to %s\r\nMessage-ID: <%s@contoso.example>\r\n\r\nHello.\r\n" % (name.encode(), marker.encode())
    step = {"do": "send", "phase": 2, "mailbox": name, "folder": ["INBOX"], "marker": marker, "octets": octets.hex()}
    message = state.message_to_send(step)
    smtp_send.send(arguments.server, "sender@elsewhere.example", arguments.recipient, message, arguments.patience)
    book.sent(step, message, routed=arguments.routed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("write")
    one.add_argument("--out", required=True)
    one.add_argument("--manifests", required=True)
    one.add_argument("--seed", type=int, required=True)
    one.add_argument("names", nargs="+")
    one.set_defaults(run=write)
    one = commands.add_parser("change")
    one.add_argument("manifest")
    one.add_argument("journal")
    one.add_argument("mail_root")
    one.add_argument("seed", type=int)
    one.set_defaults(run=change)
    one = commands.add_parser("large")
    one.add_argument("manifest")
    one.add_argument("journal")
    one.add_argument("mail_root")
    one.add_argument("octets", type=int)
    one.set_defaults(run=large)
    one = commands.add_parser("live")
    one.add_argument("manifest")
    one.add_argument("journal")
    one.add_argument("maildir")
    one.add_argument("seed", type=int)
    one.add_argument("--deliver", type=int, required=True)
    one.add_argument("--flag", type=int, required=True)
    one.set_defaults(run=live)
    one = commands.add_parser("send")
    one.add_argument("manifest")
    one.add_argument("journal")
    one.add_argument("server")
    one.add_argument("recipient")
    one.add_argument("--routed", action="store_true")
    one.add_argument("--patience", type=float, default=60)
    one.set_defaults(run=send)
    arguments = parser.parse_args()
    arguments.run(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
