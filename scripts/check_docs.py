#!/usr/bin/env python3
"""Fails when the documentation names what is not there.

    python3 scripts/check_docs.py

- Every path in backticks (`crates/…`, `demo/…` and so on) in the pages below exists; `path::name` also names a test or function there.
- docs/errors.md and crates/domain/src/error_id.rs hold the same error ids.
- Links between the pages lead to files.
"""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/operator-guide.md", "docs/protocol.md", "docs/errors.md", "docs/odd-mail.md", "docs/receipt.md", "docs/data-consistency.md", "bench/README.md"]
FOLDERS = "bench|crates|demo|docs|packaging|samples|schema|scripts|tests"


def read(path: str) -> str:
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def missing_paths(page: str, text: str) -> list:
    faults = []
    for path, name in re.findall(rf"`((?:{FOLDERS})/[\w./-]+?)(?:::(\w+))?`", text):
        full = os.path.join(ROOT, path)
        if not os.path.exists(full):
            faults.append(f"{page}: {path} does not exist")
        elif name and not re.search(rf"\b(?:fn|def|class) {name}\b", read(path)):
            faults.append(f"{page}: {path} has no {name}")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        if not os.path.exists(os.path.join(ROOT, os.path.dirname(page), target)):
            faults.append(f"{page}: the link to {target} leads nowhere")
    return faults


def error_ids() -> list:
    source = read("crates/domain/src/error_id.rs")
    listed = source[source.index("\nerror_ids! {"):]
    listed = listed[:listed.index("\n}")]
    wanted = {f"{name}Exception" for name in re.findall(r"^    (\w+),$", listed, re.MULTILINE)}
    described = set(re.findall(r"^\| `(\w+Exception)`", read("docs/errors.md"), re.MULTILINE))
    return ([f"docs/errors.md lacks {name}" for name in sorted(wanted - described)]
            + [f"docs/errors.md has {name}, which the program lacks" for name in sorted(described - wanted)])


def main() -> int:
    faults = error_ids()
    for page in PAGES:
        faults += missing_paths(page, read(page))
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(PAGES)} pages checked, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
