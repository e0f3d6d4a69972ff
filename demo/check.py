"""Compares target Maildirs with the manifest. It knows nothing of Rehome and uses only the standard library.

    python3 demo/check.py MANIFEST [--journal FILE] [--json FILE] TARGET...

TARGET is NAME=MAILDIR for one mailbox of the manifest, or a folder below which Maildirs are looked for; those are paired with the
mailboxes by what they hold. Exit code 0: everything is there exactly once and unaltered; 1: some fault; 2: wrong usage.
Items are compared as multisets for each folder by the SHA-256 of their canonical form, then by flags and received second.
"""

import argparse
import json
import os
import sys
from collections import Counter, defaultdict

import maildir
import state

FAULTS = ["items_missing", "items_duplicated", "items_altered", "items_foreign", "flags_wrong", "dates_wrong",
          "folders_missing", "folders_extra", "messages_missing", "messages_duplicated", "messages_altered"]
DETAILS_AT_MOST = 500


class Report:
    """Counts of faults, and a line of detail for each."""

    def __init__(self):
        self.counts = Counter()
        self.details = []

    def fault(self, kind: str, mailbox: str, path, what: str, **more):
        self.counts[kind] += 1
        if len(self.details) < DETAILS_AT_MOST:
            self.details.append({"fault": kind, "mailbox": mailbox, "folder": path, "what": what, **more})

    def to_json(self) -> dict:
        other = {key: value for key, value in self.counts.items() if key not in FAULTS}
        return {kind: self.counts[kind] for kind in FAULTS} | other | {"ok": not self.faults(), "details": self.details}

    def faults(self) -> int:
        return sum(self.counts[kind] for kind in FAULTS)


def read_target(root: str) -> dict:
    """path as tuple -> items, each with digest and marker; a name that cannot be decoded stays a raw one."""
    folders = {}
    for directory, path in maildir.folder_paths(root):
        items = maildir.read_items(directory)
        for item in items:
            item["canonical"] = maildir.canonical(item["octets"])
            item["digest"] = maildir.digest(item["octets"])
            marker = maildir.header_value(item["octets"], state.MARKER)
            item["marker"] = marker.decode("ascii", "replace") if marker else None
        folders[tuple(path) if path else ("undecodable: " + os.path.basename(directory),)] = items
    return folders


def likeness(expected: dict, found: dict) -> int:
    """How much a found item looks like an altered form of an expected one; 0: not at all."""
    points = 3 if expected.get("message_id") and expected["message_id"] == found["message_id"] else 0
    points += 2 if expected["length"] == len(found["canonical"]) else 0
    return points + (2 if expected["received"] == found["received"] else 0)


def match_items(expected: list, found: list) -> list:
    """Pairs items of one digest so that as many as can agree in flags and date do; returns (expected, found) pairs."""
    pairs, open_expected, open_found = [], list(expected), list(found)

    def flags(item):
        return sorted(flag.lower() for flag in item["flags"])

    rules = [lambda one, two: flags(one) == flags(two) and one["received"] == two["received"],
             lambda one, two: one["received"] == two["received"],
             lambda one, two: flags(one) == flags(two),
             lambda one, two: True]
    for rule in rules:
        for one in list(open_expected):
            two = next((two for two in open_found if rule(one, two)), None)
            if two is not None:
                pairs.append((one, two))
                open_expected.remove(one)
                open_found = [item for item in open_found if item is not two]
    return pairs


def compare_folder(report: Report, mailbox: str, path: list, expected: list, found: list):
    """One folder's items, those with a marker left out; surplus and lack are paired to find altered ones."""
    by_digest, found_by_digest = defaultdict(list), defaultdict(list)
    for item in expected:
        by_digest[item["digest"]].append(item)
    for item in found:
        found_by_digest[item["digest"]].append(item)
    missing, surplus = [], []
    for digest in by_digest.keys() | found_by_digest.keys():
        wanted, present = by_digest[digest], found_by_digest[digest]
        pairs = match_items(wanted, present)
        for one, two in pairs:
            if sorted(map(str.lower, one["flags"])) != sorted(map(str.lower, two["flags"])):
                report.fault("flags_wrong", mailbox, path, f"{one['kind']} {one['file']}", expected=one["flags"], found=two["flags"])
            if one["received"] != two["received"]:
                report.fault("dates_wrong", mailbox, path, f"{one['kind']} {one['file']}", expected=one["received"], found=two["received"])
        paired = {id(two) for _, two in pairs}
        missing += [one for one in wanted if not any(one is pair[0] for pair in pairs)]
        for item in present:
            if id(item) not in paired:
                if wanted:
                    report.fault("items_duplicated", mailbox, path, item["file"])
                else:
                    surplus.append(item)
    for item in surplus:
        item["message_id"] = maildir.message_id(item["octets"])
    for one in missing:
        best = max(surplus, key=lambda two: likeness(one, two), default=None)
        if best is not None and likeness(one, best) > 0:
            surplus = [item for item in surplus if item is not best]
            report.fault("items_altered", mailbox, path, f"{one['kind']} {one['file']}", found=best["file"])
        else:
            report.fault("items_missing", mailbox, path, f"{one['kind']} {one['file']}", digest=one["digest"])
    for item in surplus:
        report.fault("items_foreign", mailbox, path, item["file"])


def compare_messages(report: Report, mailbox: dict, marked: dict):
    """Messages that came by SMTP: each exactly once, and its octets end with what was sent (servers add trace lines on top)."""
    for entry in mailbox.get("markers", []):
        found = marked.pop(entry["marker"], [])
        kind = "sent to the old address" if entry["routed"] else "arrived before the cutover"
        if not found:
            report.fault("messages_missing", mailbox["name"], entry["folder"], f"{kind}: {entry['marker']}")
            continue
        for _ in found[1:]:
            report.fault("messages_duplicated", mailbox["name"], entry["folder"], f"{kind}: {entry['marker']}")
        if found[0]["canonical"].endswith(maildir.canonical(bytes.fromhex(entry["octets"]))):
            report.counts["routed_after_cutover" if entry["routed"] else "arrived_before_cutover"] += 1
        else:
            report.fault("messages_altered", mailbox["name"], entry["folder"], f"{kind}: {entry['marker']}", found=found[0]["file"])
    for items in marked.values():
        for item in items:
            report.fault("items_foreign", mailbox["name"], ["?"], f"unknown marker in {item['file']}")


def compare_mailbox(report: Report, mailbox: dict, folders: dict):
    """One mailbox with what its Maildir holds."""
    name, marked = mailbox["name"], defaultdict(list)
    for path, items in folders.items():
        for item in items:
            if item["marker"]:
                marked[item["marker"]].append(item)
    wanted = {tuple(folder["path"]): folder["items"] for folder in mailbox["folders"]}
    for path, items in wanted.items():
        if path not in folders:
            report.fault("folders_missing", name, list(path), f"{len(items)} items")
        compare_folder(report, name, list(path), items, [item for item in folders.get(path, []) if not item["marker"]])
    for path, items in folders.items():
        if path not in wanted:
            report.fault("folders_extra", name, list(path), f"{len(items)} items")
            compare_folder(report, name, list(path), [], [item for item in items if not item["marker"]])
    compare_messages(report, mailbox, marked)
    report.counts["items_found"] += sum(map(len, folders.values()))


def find_maildirs(root: str) -> list:
    """Every Maildir at or below root that is not a sub-folder of another; hidden folders are not entered."""
    found = []
    for directory, names, _ in os.walk(root):
        if maildir.is_maildir(directory):
            found.append(directory)
            names.clear()
        else:
            names[:] = sorted(name for name in names if not name.startswith("."))
    return found


def pair_targets(mailboxes: list, targets: list) -> dict:
    """mailbox name -> its folders; Maildirs given without a name go to the mailbox with which they share most digests."""
    chosen, candidates = {}, []
    for target in targets:
        name, equals, directory = target.partition("=")
        if equals and any(mailbox["name"] == name for mailbox in mailboxes):
            chosen[name] = read_target(directory)
        else:
            candidates += [read_target(found) for found in find_maildirs(target)]
    scores = []
    for number, folders in enumerate(candidates):
        digests = Counter(item["digest"] for items in folders.values() for item in items)
        for mailbox in mailboxes:
            wanted = Counter(item["digest"] for folder in mailbox["folders"] for item in folder["items"])
            scores.append((sum((digests & wanted).values()), -number, mailbox["name"]))
    used = set()
    for score, number, name in sorted(scores, reverse=True):
        if score and name not in chosen and number not in used:
            chosen[name] = candidates[-number]
            used.add(number)
    return chosen


def check(manifest: dict, journal: list, targets: list) -> dict:
    """The whole comparison; the result has every count, `ok` and `details`."""
    report = Report()
    mailboxes = state.expected(manifest, journal)
    for mailbox in mailboxes:
        for folder in mailbox["folders"]:
            report.counts["items_expected"] += len(folder["items"])
        report.counts["items_expected"] += len(mailbox.get("markers", []))
    chosen = pair_targets(mailboxes, targets)
    for mailbox in mailboxes:
        compare_mailbox(report, mailbox, chosen.get(mailbox["name"], {}))
    return report.to_json() | {"mailboxes_found": len(chosen)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest")
    parser.add_argument("targets", nargs="+", metavar="TARGET")
    parser.add_argument("--journal", help="the late steps that were carried out")
    parser.add_argument("--json", help="write the result here as well")
    arguments = parser.parse_args()
    with open(arguments.manifest, encoding="utf-8") as file:
        manifest = json.load(file)
    result = check(manifest, state.read_journal(arguments.journal) if arguments.journal else [], arguments.targets)
    text = json.dumps(result, ensure_ascii=True, indent=1)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    print(text)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
