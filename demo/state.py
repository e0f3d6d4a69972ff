"""What happens to the source mailboxes while the servers run: carries out the manifest's late steps and keeps the account.

Each step is written to the journal (JSON lines) once it has been carried out; `expected` computes from manifest and journal what
the target must hold at the end. Messages sent by SMTP are accounted for by their marker header, the rest by digest.
"""

import copy
import json
import os
import time

import maildir

MARKER = b"Demo-Marker"


def mailbox_of(manifest: dict, name: str) -> dict:
    return next(mailbox for mailbox in manifest["mailboxes"] if mailbox["name"] == name)


def folder_of(mailbox: dict, path: list) -> dict:
    return next(folder for folder in mailbox["folders"] if folder["path"] == path)


def find_file(directory: str, base: str):
    """(sub-folder, file name) of the message with this base name."""
    for part, name in maildir.message_files(directory):
        if maildir.base_of(name) == base:
            return part, name
    raise FileNotFoundError(f"{base} is not in {directory}")


def own_as(file: str, like: str):
    """Where the two sides run under users of their own, new files belong to the mailbox's user."""
    if os.geteuid() == 0:
        owner = os.stat(like)
        os.chown(file, owner.st_uid, owner.st_gid)


def deliver(directory: str, octets: bytes, received: int, base: str):
    """As a delivery agent does it: written in tmp/, made durable, renamed into new/."""
    temporary = os.path.join(directory, "tmp", base)
    with open(temporary, "wb") as handle:
        handle.write(octets)
        handle.flush()
        os.fsync(handle.fileno())
    os.utime(temporary, ns=(received * 10**9,) * 2)
    own_as(temporary, directory)
    os.rename(temporary, os.path.join(directory, "new", base))


class Account:
    """The manifest, the Maildirs it describes, and the journal."""

    def __init__(self, manifest: dict, mail_root: str, journal_file: str):
        self.manifest, self.mail_root, self.journal_file = manifest, mail_root, journal_file

    def steps(self, phase: int, do: tuple) -> list:
        return [step for step in self.manifest["late"] if step["phase"] == phase and step["do"] in do]

    def record(self, entry: dict):
        with open(self.journal_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def apply(self, step: dict) -> str:
        """Carries out one step on the file system and records it; returns a line for people."""
        directory = maildir.folder_directory(os.path.join(self.mail_root, step["mailbox"]), step["folder"])
        entry = {key: step[key] for key in ("do", "mailbox", "folder")}
        if step["do"] == "deliver":
            octets = bytes.fromhex(step["octets"])
            base = f"{time.time_ns()}.late.mail"
            deliver(directory, octets, step["received"], base)
            entry |= {"file": base, "digest": maildir.digest(octets), "length": len(maildir.canonical(octets)),
                      "message_id": maildir.message_id(octets), "received": step["received"], "flags": [], "kind": "late"}
        elif step["do"] == "flags":
            part, name = find_file(directory, step["file"])
            table = maildir.read_keywords(directory)
            kept = "".join(letter for letter in maildir.letters_of(name) if letter.islower()) if part == "cur" else ""
            letters = step["letters"] + kept
            os.rename(os.path.join(directory, part, name), os.path.join(directory, "cur", f"{step['file']}:2,{letters}"))
            entry |= {"file": step["file"], "flags": maildir.flags_of(letters, table)}
        elif step["do"] == "remove":
            part, name = find_file(directory, step["file"])
            os.unlink(os.path.join(directory, part, name))
            entry |= {"file": step["file"]}
        else:
            raise ValueError(f"not a step on files: {step['do']}")
        self.record(entry)
        return f"{step['do']:8} {step['mailbox']}: {'/'.join(step['folder'])[:60]}"

    def sent(self, step: dict, message: bytes, routed: bool):
        """Records a message that a server accepted over SMTP; `routed`: after the cutover, by way of the old address."""
        self.record({"do": "send", "mailbox": step["mailbox"], "folder": step["folder"], "marker": step["marker"],
                     "routed": routed, "octets": message.hex()})


def message_to_send(step: dict) -> bytes:
    """The message of a `send` step with its marker header in front, CR LF at every line end."""
    return MARKER + b": " + step["marker"].encode() + b"\r\n" + bytes.fromhex(step["octets"])


def read_journal(file: str) -> list:
    try:
        with open(file, encoding="utf-8") as handle:
            return [json.loads(line) for line in handle]
    except FileNotFoundError:
        return []


def expected(manifest: dict, journal: list) -> list:
    """The moving mailboxes as they must be at the end; each has `markers`, a list of the messages that came by SMTP."""
    result = copy.deepcopy(manifest)
    for entry in journal:
        mailbox = mailbox_of(result, entry["mailbox"])
        items = folder_of(mailbox, entry["folder"])["items"]
        if entry["do"] == "deliver":
            items.append({key: entry[key] for key in entry if key not in ("do", "mailbox", "folder")})
        elif entry["do"] == "flags":
            next(item for item in items if item["file"] == entry["file"])["flags"] = entry["flags"]
        elif entry["do"] == "remove":
            items.remove(next(item for item in items if item["file"] == entry["file"]))
        elif entry["do"] == "send":
            mailbox.setdefault("markers", []).append(entry)
    return [mailbox for mailbox in result["mailboxes"] if mailbox["moves"]]
