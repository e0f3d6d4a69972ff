"""The mailbox that moves, and what happens to it between the passes: about 60 items of every nasty kind in a few folders.

The same seed gives the same mailbox. What must be at the target in the end is computed here alone, from what was written and
from the changes that were carried out.
"""

import copy
import hashlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(PROJECT, "demo"))

import generate  # noqa: E402
import maildir  # noqa: E402
import nasty  # noqa: E402

SAMPLES = os.path.join(PROJECT, "samples", "mail")
ITEMS = 60
USES = {("Sent",): "\\Sent", ("Drafts",): "\\Drafts", ("Trash",): "\\Trash"}
# What every server takes as a name; the odder ones are for Maildirs.
FOLDERS = [["INBOX"], ["Sent"], ["Drafts"], ["Trash"], ["Projects"], ["Projects", "2002"], ["Entwürfe & Größen"], ["日本語", "会議"],
           ["R&D"], ["two words"], ["Empty"]]
ODD_FOLDERS = [[" leading blank"], ["back\\slash"], ["Reports"], ["REPORTS"], ["x" * 180], ["100%"]]


class Generator(generate.Generator):
    """As the demo's, for one mailbox; `plain`: names that say no sizes, since Dovecot believes those that lie."""

    def __init__(self, seed: int, out: str, plain: bool):
        super().__init__(seed, out, SAMPLES)
        self.plain = plain

    def base_name(self, received: int, octets: bytes) -> str:
        name = super().base_name(received, octets)
        return name.partition(",")[0] if self.plain else name

    def received(self) -> int:
        # Dovecot shows the present in the place of what is before 1970 or after 2038.
        odd = [second for second in generate.ODD_SECONDS if not self.plain or 0 < second < 1 << 31]
        return self.random.choice(odd) if self.random.random() < 0.1 else self.random.randrange(473385600, 1767225600)


def big(run: Generator) -> bytes:
    """A message of about two million octets."""
    lines = b"".join(b"%0.76x\n" % run.random.getrandbits(304) for _ in range(26000))
    return nasty.simple(run.random, "a large one", lines, b"Content-Type: application/octet-stream\n")


def groups(run: Generator) -> list:
    """Groups of (kind, octets); a group stays in one folder."""
    found = []
    for kind in nasty.KINDS:
        if kind == "large":
            continue
        found.append([(kind, octets) for octets in nasty.KINDS[kind](run.random, run.samples)])
    found.append([("big", big(run))])
    short = [octets for octets in run.samples if len(octets) < 8000]
    while sum(map(len, found)) < ITEMS:
        found.append([("real", run.random.choice(short))])
    run.random.shuffle(found)
    return found


def write(seed: int, out: str, name: str, plain: bool = False) -> dict:
    """Writes OUT/mail/NAME; returns the mailbox: folders with their items, subscriptions and special uses."""
    run = Generator(seed, out, plain)
    paths = FOLDERS + ([] if plain else run.random.sample(ODD_FOLDERS, 4))
    shares = {index: [] for index in range(len(paths))}
    for number, group in enumerate(groups(run)):
        index = 0 if number % 4 == 0 else run.random.randrange(len(paths))
        shares[0 if paths[index] == ["Empty"] else index].extend(group)
    root = os.path.join(out, "mail", name)
    mailbox = {"name": name, "moves": True, "folders": []}
    for index, path in enumerate(paths):
        run.folder(mailbox, root, path, shares[index])
    run.subscriptions(mailbox, root)
    with open(os.path.join(root, "rehome-special-use"), "w", encoding="ascii") as file:
        for path, use in USES.items():
            file.write(f"{use} .{'.'.join(path)}\n")
    for number, item in enumerate(item for folder in mailbox["folders"] for item in folder["items"]):
        item["id"] = number
    return {"folders": {tuple(folder["path"]): folder["items"] for folder in mailbox["folders"]},
            "subscriptions": {tuple(path) for path in mailbox["subscriptions"]}, "uses": dict(USES), "mail": []}


def plan(seed: int, mailbox: dict) -> list:
    """Two lists of changes: what happens before the second pass, and before the last."""
    run = Generator(seed + 77, "", True)
    ordinary = [(path, item) for path, items in sorted(mailbox["folders"].items()) for item in items if item["kind"] == "real"]
    odd = [(path, item) for path, items in sorted(mailbox["folders"].items()) for item in items
           if item["kind"] not in ("real", "big", "identical", "empty")]
    run.random.shuffle(ordinary)
    run.random.shuffle(odd)
    picked = iter(ordinary[:7] + odd[:8])
    number = 0

    def deliver(path, kind="late"):
        nonlocal number
        number += 1
        plain = [one for one in run.samples if len(one) < 6000 and one.isascii() and b"\r" not in one and b"\n\n" in one]
        octets = run.random.choice(plain) + b"late %d\n" % run.random.getrandbits(60)
        return {"do": "deliver", "folder": path, "octets": octets.hex(), "received": 1500000000 + run.random.randrange(10**8),
                "base": f"{1700000000 + number}.M{number}P{number}.late", "kind": kind}

    def flags(letters):
        path, item = next(picked)
        return {"do": "flags", "folder": list(path), "item": item["id"], "letters": letters}

    def remove():
        path, item = next(picked)
        return {"do": "remove", "folder": list(path), "item": item["id"]}

    first = [deliver(["INBOX"]), deliver(["Projects", "2002"]), flags("FS"), flags("RS"), flags(""), remove(), remove(),
             {"do": "create", "folder": ["New & later"], "subscribed": True}, deliver(["New & later"]),
             {"do": "rename", "folder": ["two words"], "to": ["three words"]}]
    second = [{"do": "rename", "folder": ["Projects"], "to": ["Ventures"]}, deliver(["Ventures"]), deliver(["INBOX"]), flags("DS"),
              flags("FRS"), remove(), {"do": "drop", "folder": ["Empty"]}, flags("T")]
    # A folder that was renamed has its items under the new name.
    renamed = {("two words",): ["three words"]}
    for step in second[1:]:
        path = tuple(step["folder"])
        path = tuple(renamed.get(path, path))
        step["folder"] = ["Ventures", *path[1:]] if path[0] == "Projects" else list(path)
    return [first, second]


def item_of(mailbox: dict, step: dict) -> dict:
    return next(item for item in mailbox["folders"][tuple(step["folder"])] if item.get("id") == step["item"])


def changed(mailbox: dict, steps: list, flags_of) -> dict:
    """The mailbox after these changes. `flags_of(item, letters)`: the flags that an item then has."""
    mailbox = copy.deepcopy(mailbox)
    folders = mailbox["folders"]
    for step in steps:
        path = tuple(step["folder"])
        if step["do"] == "deliver":
            octets = bytes.fromhex(step["octets"])
            folders[path].append({"file": step["base"], "digest": maildir.digest(octets), "length": len(maildir.canonical(octets)),
                                  "message_id": maildir.message_id(octets), "received": step["received"], "flags": [],
                                  "kind": step["kind"], "id": step["base"]})
        elif step["do"] == "flags":
            item = item_of(mailbox, step)
            item["flags"] = flags_of(item, step["letters"])
        elif step["do"] == "remove":
            folders[path].remove(item_of(mailbox, step))
        elif step["do"] == "create":
            folders[path] = []
            if step["subscribed"]:
                mailbox["subscriptions"].add(path)
        elif step["do"] == "rename":
            moved = {old: (*step["to"], *old[len(path):]) for old in folders if old[:len(path)] == path}
            mailbox["folders"] = folders = {moved.get(old, old): items for old, items in folders.items()}
            mailbox["subscriptions"] = {moved.get(old, old) for old in mailbox["subscriptions"]}
        elif step["do"] == "drop":
            del folders[path]
            mailbox["subscriptions"].discard(path)
    return mailbox


def letters_kept(item: dict, letters: str) -> list:
    """The flags of an item in a Maildir that gets these system letters: its keywords stay."""
    keywords = [flag for flag in item["flags"] if not flag.startswith("\\")]
    return sorted([maildir.SYSTEM_FLAGS[letter] for letter in letters] + keywords)


def sha(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()
