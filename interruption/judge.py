"""Compares both sides with what must be there. It shares no code with Rehome: only the demo's reading of Maildirs and its own.

What is found of a mailbox: folders (path as tuple -> items with digest, canonical, flags, received, marker, file), subscriptions
(a set of paths) and uses (path -> special use).
"""

import os
from collections import Counter, defaultdict

import material  # noqa: F401  (makes the demo's tools known)
import check
import maildir

KINDS = {"lost": ("items_missing", "messages_missing", "folders_missing"),
         "duplicated": ("items_duplicated", "messages_duplicated"),
         "altered": ("items_altered", "items_foreign", "messages_altered"),
         "flags_wrong": ("flags_wrong", "dates_wrong", "folders_extra", "subscriptions_wrong", "uses_wrong")}


def lines(root: str, name: str) -> list:
    try:
        with open(os.path.join(root, name), encoding="ascii") as file:
            return [line for line in file.read().split("\n") if line]
    except FileNotFoundError:
        return []


def read_maildir(root: str) -> dict:
    """What a Maildir holds."""
    def path(name: str, separator: str) -> tuple:
        return tuple(maildir.unescape_name(maildir.decode_name(part)) for part in name.split(separator))

    subscribed = lines(root, "subscriptions")
    uses = (line.partition(" ") for line in lines(root, "rehome-special-use"))
    return {"folders": check.read_target(root), "subscriptions": {path(line, "\t") for line in subscribed[1:]},
            "uses": {path(directory.lstrip("."), "."): use for use, _, directory in uses}}


class Judge:
    """Counts of faults and a line of detail for each, over one cut."""

    def __init__(self):
        self.report = check.Report()

    def fault(self, kind: str, side: str, path, what: str, **more):
        self.report.fault(kind, side, path, what, **more)

    def mailbox(self, side: str, expected: dict, found: dict):
        """Items, folders, subscriptions and special uses of one side; mail that came by SMTP apart."""
        wanted, folders = expected["folders"], found["folders"]
        for path, items in wanted.items():
            if path not in folders:
                self.fault("folders_missing", side, list(path), f"{len(items)} items")
            here = [item for item in folders.get(path, []) if not item["marker"]]
            check.compare_folder(self.report, side, list(path), items, here)
        for path, items in folders.items():
            # What only holds other folders may be a folder itself at the other side.
            is_parent = any(other[:len(path)] == path for other in wanted)
            if path not in wanted and (items or not is_parent):
                self.fault("folders_extra", side, list(path), f"{len(items)} items")
                check.compare_folder(self.report, side, list(path), [], [item for item in items if not item["marker"]])
        for path in expected["subscriptions"] ^ found["subscriptions"]:
            self.fault("subscriptions_wrong", side, list(path), "subscribed" if path in found["subscriptions"] else "not subscribed")
        if found["uses"] != expected["uses"]:
            self.fault("uses_wrong", side, [], f"{found['uses']} instead of {expected['uses']}")

    def mail(self, letters: list, source: dict, target: dict, restarts: int) -> int:
        """What came by SMTP: at the target once, or once more for each conversation that broke off before its end; that may have
        been ours with the source, or the source's with the target, which ended in a "later". What lies at the source too must be
        there as well. Returns how many were repeated."""
        held = {side: defaultdict(list) for side in ("source", "target")}
        for side, found in (("source", source), ("target", target)):
            for path, items in found["folders"].items():
                for item in items:
                    if item["marker"]:
                        held[side][item["marker"]].append((path, item))
        known = {letter["marker"]: letter for letter in letters}
        for side, markers in held.items():
            for marker, copies in markers.items():
                if marker not in known:
                    self.fault("items_foreign", side, [], f"mail that nobody sent: {marker}")
                for path, item in copies:
                    if path != ("INBOX",):
                        self.fault("items_foreign", side, list(path), f"mail in a folder where it was not delivered: {marker}")
                    elif marker in known and not item["canonical"].endswith(maildir.canonical(known[marker]["octets"])):
                        self.fault("messages_altered", side, list(path), marker)
        repeats = 0
        for marker, letter in known.items():
            copies, before = len(held["target"][marker]), len(held["source"][marker])
            name = f"{letter['when']}: {marker}, {letter['unknown']} conversations broken off, {before} at the source"
            if copies < max(1, before):
                self.fault("messages_missing", "target", ["INBOX"], f"{name}; {copies} copies")
            elif copies > 1 + letter["unknown"] + (restarts if letter["deferred"] else 0):
                self.fault("messages_duplicated", "target", ["INBOX"], f"{name}; {copies} copies")
            repeats += copies - 1 if copies else 0
        return repeats

    def planted(self, expected: Counter, reported: Counter):
        """The engine's own report names exactly what is expected of this platform. Both: (kind, folder, uid)."""
        for entry, count in (expected - reported).items():
            self.report.counts["report_silent"] += count
            self.report.details.append({"fault": "report_silent", "what": list(entry)})
        for entry, count in (reported - expected).items():
            self.report.counts["report_false"] += count
            self.report.details.append({"fault": "report_false", "what": list(entry)})

    def counts(self) -> dict:
        found = {name: sum(self.report.counts[kind] for kind in kinds) for name, kinds in KINDS.items()}
        # The engine's report is part of its word about what was altered.
        found["altered"] += self.report.counts["report_silent"] + self.report.counts["report_false"]
        return found
