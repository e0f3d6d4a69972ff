#!/usr/bin/env python3
"""Executes the walk-through of README.md and looks at what came of it.

    python3 tests/walkthrough.py             (the program: $REHOME_BIN, else target/debug/rehome)
    python3 tests/walkthrough.py --print     (shows the script that would be run)
    KEEP=1 python3 tests/walkthrough.py      (keeps the folder)

The convention is written down in README.md, in the comment before the first block. Everything runs in one bash with
`set -euo pipefail`, in a temporary folder, on free ports. Exit code 0: every command succeeded, and the mailbox has moved.
"""

import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SECONDS = 180
PORTS = ("CONTOSO_PORT", "CONTOSO_SMTP", "FABRIKAM_PORT", "FABRIKAM_SMTP")
BLOCK = re.compile(r"^<!-- walk-through: block ([\w-]+) -->\n```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is asked before the servers stop. It runs in the walk-through's own folder.
CHECKPOINT = """
rehome --profile contoso Get-Recipient Reception --json > at-contoso.json
rehome --profile fabrikam Get-Recipient Reception --json > at-fabrikam.json
rehome --profile fabrikam Get-MigrationUser -BatchId wave-1 --json > users.json
rehome --profile contoso Get-OutboundMigration --json > outbound.json
"""


class Failed(Exception):
    """The walk-through does not do what it says."""


def blocks(text: str) -> list:
    """The named blocks of the page, in order."""
    found = BLOCK.findall(text)
    marks = re.findall(r"^<!-- walk-through: block ([\w-]+) -->$", text, re.MULTILINE)
    names = [name for name, _ in found]
    if names != marks:
        raise Failed(f"a marker without a console block: {sorted(set(marks) - set(names))}")
    if len(set(names)) != len(names) or "stop" not in names:
        raise Failed(f"each block has a name of its own, and one is called stop: {names}")
    return found


def commands(block: str) -> str:
    """The commands of a block: `$ ` begins one, `> ` continues it, anything else is output."""
    lines = []
    for line in block.splitlines():
        if line.startswith("$ ") or (line.startswith("> ") and lines):
            lines.append(line[2:])
    if not lines:
        raise Failed("a block without a command")
    return "\n".join(lines)


def script(page: str) -> str:
    parts = ["set -euo pipefail"]
    for name, block in blocks(page):
        if name == "stop":
            parts += ["echo '== checkpoint'", CHECKPOINT.strip()]
        parts += [f"echo '== {name}'", commands(block)]
    return "\n".join(parts) + "\n"


def free_ports(count: int) -> list:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def run(text: str, folder: str, binary: str):
    """Runs the script in a process group of its own, so that the servers end with it whatever happens."""
    environment = os.environ | {name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)))}
    for name in ("REHOME_HOME", "REHOME_PROFILE", "REHOME_CONFIG", "REHOME_LOG"):
        environment.pop(name, None)
    programs = os.path.join(folder, "bin")  # the program's file may have another name
    os.mkdir(programs)
    os.symlink(binary, os.path.join(programs, "rehome"))
    environment["PATH"] = programs + os.pathsep + environment.get("PATH", "")
    with open(os.path.join(folder, "output"), "w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(["bash", "-c", text], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            code = f"nothing within {SECONDS} s"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # all have ended, as they should
            process.wait()
        if code != 0:
            output.seek(0)
            said = "".join(output.readlines()[-60:])
            raise Failed(f"the commands ended with {code}:\n{said}{logs(folder)}")


def logs(folder: str) -> str:
    text = ""
    for file in sorted(glob.glob(os.path.join(folder, "rehome-trial", "*", "log"))):
        with open(file, encoding="utf-8", errors="replace") as log:
            text += f"-- {os.path.relpath(file, folder)}\n" + "".join(log.readlines()[-25:])
    return text


def canonical(octets: bytes) -> bytes:
    """A message with one CR before each LF; these messages hold no other CR."""
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def messages(maildir: str) -> list:
    """(folder, subject, flags, canonical octets) of every message below a Maildir."""
    found = []
    for place, _, files in os.walk(maildir):
        if os.path.basename(place) not in ("cur", "new"):
            continue
        name = os.path.relpath(os.path.dirname(place), maildir)
        for file in files:
            with open(os.path.join(place, file), "rb") as message:
                octets = canonical(message.read())
            subject = re.search(rb"^Subject: (.*?)\r$", octets, re.MULTILINE)
            flags = file.partition(":2,")[2].partition(",")[0]
            found.append(("INBOX" if name == "." else name.lstrip("."), subject.group(1).decode() if subject else "", flags, octets))
    return found


def one(folder: str, file: str) -> dict:
    with open(os.path.join(folder, file), encoding="utf-8") as text:
        value = json.load(text)
    if not isinstance(value, list) or len(value) != 1:
        raise Failed(f"{file}: expected one object, got {value}")
    return value[0]


def check(folder: str):
    """Recipients changed kind; the content arrived whole, with flags; both later messages are there; the old content is kept."""
    trial = os.path.join(folder, "rehome-trial")
    for file, kind in (("at-contoso.json", "MailUser"), ("at-fabrikam.json", "UserMailbox")):
        found = one(trial, file)["RecipientTypeDetails"]
        if found != kind:
            raise Failed(f"{file}: RecipientTypeDetails is {found}, not {kind}")
    status = one(trial, "users.json")["Status"]
    if status != "Completed":
        raise Failed(f"the migration user is {status}")
    served = [place for place, folders, _ in os.walk(os.path.join(trial, "fabrikam", "mail"))
              if {"cur", "new"} <= set(folders) and "/." not in place[len(trial):]]
    if len(served) != 1:
        raise Failed(f"expected one mailbox at Fabrikam, found {served}")
    now = sorted((place, subject) for place, subject, _, _ in messages(served[0]))
    wanted = sorted([("INBOX", "Our visit"), ("INBOX", "Parcel"), ("Sent", "Re: Our visit"),
                     ("INBOX", "Before the move"), ("INBOX", "After the move")])
    if now != wanted:
        raise Failed(f"Fabrikam holds {now}, expected {wanted}")
    kept = glob.glob(os.path.join(trial, "contoso", "mail", ".rehome", "closed", "*"))
    if len(kept) != 1:
        raise Failed(f"expected the old content of one mailbox, found {kept}")
    # The old content is what there was; the same octets and flags must be on the other side.
    arrived = {(place, subject): (flags, octets) for place, subject, flags, octets in messages(served[0])}
    before = messages(kept[0])
    if len(before) != 4:
        raise Failed(f"Contoso kept {len(before)} messages, not 4")
    for place, subject, flags, octets in before:
        if arrived[place, subject] != (flags, octets):
            raise Failed(f"'{subject}' in {place} is not the same on both sides")
    if os.path.exists(os.path.join(trial, "contoso", "mail", "reception")):
        raise Failed("Contoso still serves the old mailbox")


def main() -> int:
    with open(os.path.join(PROJECT, "README.md"), encoding="utf-8") as file:
        text = script(file.read())
    if sys.argv[1:] == ["--print"]:
        print(text, end="")
        return 0
    binary = os.path.abspath(os.environ.get("REHOME_BIN", os.path.join(PROJECT, "target", "debug", "rehome")))
    if not os.access(binary, os.X_OK):
        print(f"{binary} is not there; build it first: cargo build", file=sys.stderr)
        return 2
    folder = tempfile.mkdtemp(prefix="rehome-walkthrough-")
    try:
        run(text, folder, binary)
        check(folder)
    except Failed as error:
        print(f"README.md's walk-through FAILED: {error}", file=sys.stderr)
        return 1
    finally:
        if os.environ.get("KEEP") == "1":
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print("README.md's walk-through: every command succeeded, the mailbox has moved, nothing is altered")
    return 0


if __name__ == "__main__":
    sys.exit(main())
