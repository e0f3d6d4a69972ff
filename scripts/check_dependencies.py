#!/usr/bin/env python3
"""Fails when the table of dependencies and the workspace differ.

    python3 scripts/check_dependencies.py

- Every entry of [workspace.dependencies] from outside has one line, with a reason, in the table of ARCHITECTURE.md, and the other way round.
- Every entry is used by at least one crate, and named in the source of each crate that lists it.
- No crate gives a version of its own.
"""

import os
import re
import sys
import tomllib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KINDS = ("dependencies", "dev-dependencies", "build-dependencies")


def load(path: str) -> dict:
    with open(os.path.join(ROOT, path), "rb") as file:
        return tomllib.load(file)


def crates() -> dict:
    """Folder of each crate with its manifest."""
    folders = [os.path.join("crates", name) for name in sorted(os.listdir(os.path.join(ROOT, "crates")))] + ["tests", os.path.join("bench", "tools")]
    return {folder: load(os.path.join(folder, "Cargo.toml")) for folder in folders
            if os.path.exists(os.path.join(ROOT, folder, "Cargo.toml"))}


def source_of(folder: str) -> str:
    texts = []
    for place, _, files in os.walk(os.path.join(ROOT, folder)):
        for name in files:
            if name.endswith(".rs"):
                with open(os.path.join(place, name), encoding="utf-8") as file:
                    texts.append(file.read())
    return "\n".join(texts)


def table() -> dict:
    """The lines of the table under the heading Dependencies: name and reason."""
    with open(os.path.join(ROOT, "ARCHITECTURE.md"), encoding="utf-8") as file:
        text = file.read()
    section = re.search(r"^## Dependencies$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"^\| `([\w-]+)` \| (.*?) \|$", section.group(1), re.MULTILINE)) if section else {}


def faults() -> list:
    workspace = load("Cargo.toml")["workspace"]["dependencies"]
    outside = {name for name, value in workspace.items() if not (isinstance(value, dict) and "path" in value)}
    described, used, found = table(), set(), []
    for folder, manifest in crates().items():
        source = source_of(folder)
        for kind in KINDS:
            for name, value in manifest.get(kind, {}).items():
                used.add(name)
                if not (isinstance(value, dict) and value.get("workspace") is True):
                    found.append(f"{folder}: {name} must be .workspace = true")
                if not re.search(rf"\b{name.replace('-', '_')}\b", source):
                    found.append(f"{folder}: {name} is listed and not named in its source")
    found += [f"Cargo.toml: {name} is used by no crate" for name in sorted(set(workspace) - used)]
    found += [f"ARCHITECTURE.md: {name} has no line among the dependencies" for name in sorted(outside - set(described))]
    found += [f"ARCHITECTURE.md: {name} is no dependency" for name in sorted(set(described) - outside)]
    found += [f"ARCHITECTURE.md: {name} has no reason" for name, reason in described.items() if not reason.strip()]
    return found


def main() -> int:
    found = faults()
    for fault in found:
        print(fault, file=sys.stderr)
    print(f"dependencies checked, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
