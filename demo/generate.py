"""Writes the source organisation's Maildirs, and the manifest that says what is in them, from a seed.

    python3 demo/generate.py --seed 1 --out DIR [--samples DIR]

DIR/mail/NAME holds one Maildir++ for each mailbox, DIR/manifest.json the truth against which the move is judged later. The
manifest also plans what changes while the servers run ("late": arrivals, flag changes, removals); demo/state.py carries that out.
The same seed gives the same manifest and the same octets.
"""

import argparse
import json
import os
import random as randomness
import sys

import maildir
import nasty

MAILBOXES = ["accounts", "press", "workshop"]  # these move
STAYS = "board"  # outside the scope group: must not move
SOURCE_DOMAIN, TARGET_DOMAIN = "contoso.example", "fabrikam.example"
MINIMUM_ITEMS, MINIMUM_NASTY = 400, 40

PLAIN_FOLDERS = [["Sent"], ["Drafts"], ["Trash"], ["Projects"], ["Projects", "2002"], ["Lists", "developers"], ["Archive"]]
AWKWARD_FOLDERS = [
    [["Entwürfe & Größen"]],
    [["日本語"], ["日本語", "会議"]],
    [["rocket 🚀 launch"]],
    [[" leading blank"], ["trailing blank "]],
    [["R&D"], ["R&-D"]],
    [["100%"], ["wild*card"]],
    [["\"quoted\" 'name'"], ["back\\slash"]],
    [["x" * 180]],
    [[f"level{number}" for number in range(1, 21)]],
    [["Reports"], ["REPORTS"], ["reports"]],
    [["Caf\u00e9"], ["Cafe\u0301"]],
    [["(a) [b] {c} <d>"], ["# $ ! ; : , ? = + @ ^ ` |"]],
    [["~tilde inside~"[1:], "no subject"]],
    [["Входящие", "Ответы"]],
    [["עברית"], ["الوارد"]],
]
KEYWORDS = ["$Forwarded", "$MDNSent", "$label1", "$label2", "NonJunk", "Junk", "todo/later", "a.b", "#tag", "-x", "project:alpha"]
ODD_SECONDS = [-14159025, 0, 441763199, 946684799, 951782400, 2147483648, 4102444800]  # 1969 to 2100


class Generator:
    """One run: the random numbers, the messages at hand, and the manifest as it grows."""

    def __init__(self, seed: int, out: str, samples: str):
        self.random = randomness.Random(f"rehome demo {seed}")
        self.out = out
        self.samples = []
        for name in sorted(os.listdir(samples)):
            with open(os.path.join(samples, name), "rb") as file:
                self.samples.append(file.read())
        self.counter = 0
        self.manifest = {"seed": seed, "source_domain": SOURCE_DOMAIN, "target_domain": TARGET_DOMAIN, "mailboxes": [], "late": []}

    def received(self) -> int:
        """A second between 1985 and 2026, now and then an odder one."""
        if self.random.random() < 0.02:
            return self.random.choice(ODD_SECONDS)
        return self.random.randrange(473385600, 1767225600)

    def base_name(self, received: int, octets: bytes) -> str:
        """A unique Maildir name; most carry sizes, and some of those lie, as they do in the wild."""
        self.counter += 1
        name = f"{max(received, 1)}.M{self.random.randrange(10**6)}P{self.counter}.mail"
        if self.random.random() < 0.6:
            size, wire = len(octets), len(octets) + octets.count(b"\n")
            if self.random.random() < 0.1:
                size, wire = size + 7, wire - 3
            name += f",S={size},W={wire}"
        return name

    def write(self, directory: str, part: str, name: str, octets: bytes, received: int):
        """One file with its modification time; a fraction of a second is added, which nobody may round up."""
        file = os.path.join(directory, part, name)
        with open(file, "wb") as handle:
            handle.write(octets)
        fraction = self.random.randrange(10**9) if received > 0 else 0
        os.utime(file, ns=(received * 10**9 + fraction,) * 2)

    def add_item(self, folder: dict, directory: str, keywords: list, kind: str, octets: bytes):
        """Stores one message in a folder and in the manifest."""
        received = self.received()
        name = self.base_name(received, octets)
        part = "new" if self.random.random() < 0.12 else "cur"
        letters = ""
        if part == "cur":
            letters = "".join(sorted(self.random.sample("DFRST", self.random.choice([0, 1, 1, 1, 2, 3]))))
            letters += "".join(sorted(self.random.sample("abcdefghijklmnopqrstuvwxyz"[:len(keywords)],
                                                         min(len(keywords), self.random.choice([0, 0, 0, 1, 2])))))
        # A name in cur/ without any ":2," is unusual but legal.
        bare = part == "new" or (not letters and self.random.random() < 0.3)
        self.write(directory, part, name if bare else f"{name}:2,{letters}", octets, received)
        table = {chr(ord("a") + index): word for index, word in enumerate(keywords)}
        canonical = maildir.canonical(octets)
        folder["items"].append({"file": name, "digest": maildir.digest(octets), "length": len(canonical), "kind": kind,
                                "message_id": maildir.message_id(octets), "flags": maildir.flags_of(letters, table), "received": received})

    def write_uidlist(self, directory: str, folder: dict):
        """A dovecot-uidlist as the previous server left it: sparse, ascending; the newest files are not listed yet."""
        uid, lines = self.random.randrange(1, 500), []
        for item in folder["items"][:int(len(folder["items"]) * self.random.choice([1, 0.9, 0.6]))]:
            lines.append(f"{uid} :{item['file']}\n")
            uid += self.random.choice([1, 1, 1, 2, 17, 400])
        validity = self.random.randrange(10**9, 17 * 10**8)
        head = f"3 V{validity} N{uid + self.random.choice([0, 0, 5000])} G{self.random.getrandbits(128):032x}\n"
        with open(os.path.join(directory, "dovecot-uidlist"), "w", encoding="ascii") as file:
            file.write(head + "".join(lines))

    def folder(self, mailbox: dict, root: str, path: list, messages: list):
        """One folder with these (kind, octets)."""
        directory = maildir.folder_directory(root, path)
        for part in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(directory, part))
        if path != ["INBOX"]:
            open(os.path.join(directory, "maildirfolder"), "w").close()
        keywords = self.random.sample(KEYWORDS, self.random.choice([0, 2, 5, 8]))
        if keywords:
            with open(os.path.join(directory, "dovecot-keywords"), "w", encoding="ascii") as file:
                file.write("".join(f"{index} {word}\n" for index, word in enumerate(keywords)))
        folder = {"path": path, "items": []}
        for kind, octets in messages:
            self.add_item(folder, directory, keywords, kind, octets)
        if self.random.random() < 0.6:
            self.write_uidlist(directory, folder)
        mailbox["folders"].append(folder)

    def subscriptions(self, mailbox: dict, root: str):
        """Which folders the owner subscribed to, in Dovecot's file of version 2."""
        chosen = [folder["path"] for folder in mailbox["folders"] if self.random.random() < 0.7]
        with open(os.path.join(root, "subscriptions"), "w", encoding="ascii") as file:
            file.write("V\t2\n\n" + "".join("\t".join(map(maildir.encode_name, path)) + "\n" for path in chosen))
        mailbox["subscriptions"] = chosen

    def mailbox(self, name: str, paths: list, messages: list):
        """One Maildir: every folder but one gets a share of the messages; a group of messages stays in one folder."""
        root = os.path.join(self.out, "mail", name)
        mailbox = {"name": name, "moves": name != STAYS, "folders": []}
        shares = {index: [] for index in range(len(paths))}
        empty = self.random.randrange(1, len(paths)) if len(paths) > 3 else None
        for group in messages:
            place = 0 if self.random.random() < 0.25 else self.random.randrange(len(paths))
            shares[0 if place == empty else place].extend(group)
        for index, path in enumerate(paths):
            self.folder(mailbox, root, path, shares[index])
        self.subscriptions(mailbox, root)
        self.manifest["mailboxes"].append(mailbox)

    def messages(self) -> dict:
        """name -> list of groups; a group is a list of (kind, octets)."""
        groups = []
        for kind in nasty.KINDS:
            for _ in range(self.random.choice([2, 2, 3]) if kind not in ("large", "empty") else 1):
                groups.append([(kind, octets) for octets in nasty.KINDS[kind](self.random, self.samples)])
        missing = MINIMUM_ITEMS + self.random.randrange(60) - sum(map(len, groups))
        for index in range(missing):
            groups.append([("real", self.samples[index % len(self.samples)])] if index < len(self.samples)
                          else [("real-again", self.samples[self.random.randrange(len(self.samples))])])
        self.random.shuffle(groups)
        shares = {name: [] for name in MAILBOXES}
        for index, group in enumerate(groups):
            shares[MAILBOXES[index % len(MAILBOXES)] if index < 30 else self.random.choice(MAILBOXES)].append(group)
        shares[STAYS] = [[("real", octets)] for octets in self.random.sample(self.samples, 12)]
        return shares

    def paths(self) -> dict:
        """name -> folder paths: INBOX first, a few plain ones, and the awkward groups dealt out."""
        paths = {name: [["INBOX"]] + [path for path in PLAIN_FOLDERS if self.random.random() < 0.5] for name in MAILBOXES}
        for index, group in enumerate(self.random.sample(AWKWARD_FOLDERS, 8)):
            paths[MAILBOXES[index % len(MAILBOXES)]].extend(group)
        while sum(map(len, paths.values())) < 12:  # cannot happen with the lists above; kept true if they change
            paths[MAILBOXES[0]].append([f"More {len(paths[MAILBOXES[0]])}"])
        return paths | {STAYS: [["INBOX"], ["Minutes"]]}

    def late(self):
        """What happens while the servers run: `phase` 1 before -SyncNow, 2 after completion."""
        steps = self.manifest["late"]
        for mailbox in self.manifest["mailboxes"]:
            if not mailbox["moves"]:
                continue
            filled = [folder for folder in mailbox["folders"] if folder["items"]]
            for _ in range(self.random.randrange(3, 7)):
                octets = self.random.choice(self.samples) + b"late %d\n" % self.random.getrandbits(60)
                steps.append(self.step("deliver", mailbox, self.random.choice(mailbox["folders"]), octets=octets.hex(),
                                       received=self.random.randrange(1500000000, 1767225600)))
            targets = [(folder, item) for folder in filled for item in folder["items"]]
            changed = self.random.sample(targets, 9)
            for folder, item in changed[:5]:
                letters = "".join(sorted(self.random.sample("DFRST", self.random.randrange(1, 4))))
                steps.append(self.step("flags", mailbox, folder, file=item["file"], letters=letters))
            for folder, item in changed[5:]:
                steps.append(self.step("remove", mailbox, folder, file=item["file"]))
            for phase in (1, 2):
                for _ in range(2):
                    steps.append({"do": "send", "phase": phase, "mailbox": mailbox["name"], "folder": ["INBOX"],
                                  "marker": f"{self.random.getrandbits(128):032x}", "octets": self.mail_to_send().hex()})

    def step(self, do: str, mailbox: dict, folder: dict, **rest) -> dict:
        return {"do": do, "phase": 1, "mailbox": mailbox["name"], "folder": folder["path"], **rest}

    def mail_to_send(self) -> bytes:
        """A message that SMTP can carry: lines of at most 998 octets, no NUL, no stray CR."""
        while True:
            octets = self.random.choice(self.samples)
            if (b"\0" not in octets and b"\r" not in octets and octets.endswith(b"\n") and len(octets) < 20000
                    and max(map(len, octets.split(b"\n"))) <= 998):
                return maildir.canonical(octets)


def generate(seed: int, out: str, samples: str) -> dict:
    """Writes mail and manifest below `out`; returns the manifest."""
    run = Generator(seed, out, samples)
    paths, messages = run.paths(), run.messages()
    for name in [*MAILBOXES, STAYS]:
        run.mailbox(name, paths[name], messages[name])
    run.late()
    moving = [item for mailbox in run.manifest["mailboxes"] if mailbox["moves"]
              for folder in mailbox["folders"] for item in folder["items"]]
    run.manifest["counts"] = {
        "items": len(moving), "octets": sum(item["length"] for item in moving),
        "nasty": sum(not item["kind"].startswith("real") for item in moving),
        "folders": sum(len(mailbox["folders"]) for mailbox in run.manifest["mailboxes"] if mailbox["moves"])}
    counts = run.manifest["counts"]
    assert counts["items"] >= MINIMUM_ITEMS and counts["nasty"] >= MINIMUM_NASTY and counts["folders"] >= 12
    with open(os.path.join(out, "manifest.json"), "w", encoding="utf-8") as file:
        json.dump(run.manifest, file, ensure_ascii=False, indent=1)
    return run.manifest


def main() -> int:
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--samples", default=os.path.join(here, "..", "samples", "mail"))
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    counts = generate(arguments.seed, arguments.out, arguments.samples)["counts"]
    print(", ".join(f"{value} {name}" for name, value in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
