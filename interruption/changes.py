"""Carries out changes in a Maildir as another mail program would: each durable before the next.

    python3 interruption/changes.py MAILDIR STEPS.json
"""

import json
import os
import shutil
import sys

import material
import maildir


def sync(directory: str):
    """Makes what was done in a directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(directory: str, name: str, text: str):
    """A small file, whole or not at all."""
    temporary = os.path.join(directory, f"{name}.new")
    handle = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.write(handle, text.encode("utf-8", "surrogateescape"))
    os.fsync(handle)
    os.close(handle)
    os.rename(temporary, os.path.join(directory, name))
    sync(directory)


def read(root: str, name: str) -> str:
    try:
        with open(os.path.join(root, name), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def find(directory: str, base: str):
    for part, name in maildir.message_files(directory):
        if maildir.base_of(name) == base:
            return part, name
    raise FileNotFoundError(f"{base} is not in {directory}")


def deliver(root: str, step: dict):
    directory = maildir.folder_directory(root, step["folder"])
    temporary = os.path.join(directory, "tmp", step["base"])
    handle = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    os.write(handle, bytes.fromhex(step["octets"]))
    os.utime(temporary, ns=(step["received"] * 10**9,) * 2)
    os.fsync(handle)
    os.close(handle)
    os.rename(temporary, os.path.join(directory, "new", step["base"]))
    sync(os.path.join(directory, "new"))


def flags(root: str, step: dict):
    directory = maildir.folder_directory(root, step["folder"])
    part, name = find(directory, step["file"])
    kept = "".join(letter for letter in maildir.letters_of(name) if letter.islower()) if part == "cur" else ""
    os.rename(os.path.join(directory, part, name), os.path.join(directory, "cur", f"{step['file']}:2,{step['letters']}{kept}"))
    sync(os.path.join(directory, "cur"))
    sync(os.path.join(directory, part))


def remove(root: str, step: dict):
    directory = maildir.folder_directory(root, step["folder"])
    part, name = find(directory, step["file"])
    os.unlink(os.path.join(directory, part, name))
    sync(os.path.join(directory, part))


def subscriptions(root: str, change):
    """Changes the list of subscribed folders; `change` gets and gives a list of lines."""
    lines = [line for line in read(root, "subscriptions").split("\n")[2:] if line]
    replace(root, "subscriptions", "V\t2\n\n" + "".join(f"{line}\n" for line in change(lines)))


def line_of(path: list) -> str:
    return "\t".join(map(maildir.encode_name, path))


def create(root: str, step: dict):
    directory = maildir.folder_directory(root, step["folder"])
    os.mkdir(directory)
    for part in ("new", "tmp", "cur"):
        os.mkdir(os.path.join(directory, part))
    sync(directory)
    sync(root)
    if step["subscribed"]:
        subscriptions(root, lambda lines: lines + [line_of(step["folder"])])


def rename(root: str, step: dict):
    old, new = maildir.folder_directory(root, step["folder"]), maildir.folder_directory(root, step["to"])
    for name in sorted(os.listdir(root)):
        directory = os.path.join(root, name)
        if directory == old or directory.startswith(f"{old}."):
            os.rename(directory, new + directory[len(old):])
    sync(root)
    before, after = line_of(step["folder"]), line_of(step["to"])
    subscriptions(root, lambda lines: [after + line[len(before):] if line == before or line.startswith(f"{before}\t") else line
                                       for line in lines])


def drop(root: str, step: dict):
    shutil.rmtree(maildir.folder_directory(root, step["folder"]))
    sync(root)
    subscriptions(root, lambda lines: [line for line in lines if line != line_of(step["folder"])])


DO = {"deliver": deliver, "flags": flags, "remove": remove, "create": create, "rename": rename, "drop": drop}


def carry_out(root: str, steps: list):
    for step in steps:
        DO[step["do"]](root, step)


def with_files(mailbox: dict, steps: list) -> list:
    """The steps with the file names of the items that they mean."""
    result, state = [], mailbox
    for step in steps:
        if "item" in step:
            step = step | {"file": material.item_of(state, step)["file"]}
        result.append(step)
        state = material.changed(state, [step], material.letters_kept)
    return result


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as given:
        carry_out(sys.argv[1], json.load(given))
