"""A power cut, replayed: what a process wrote (recorded by crates/testkit/preload/record.c), less what was not on the disk.

Rules, the worst that POSIX allows but for one: a rename is one thing, which happened or did not.
- Octets of a file are on the disk from an fsync of that file on; its modification time from an fsync, not an fdatasync.
- An entry of a directory (create, rename, unlink, link, mkdir) is on the disk from an fsync of that directory on; a rename from an
  fsync of either of its directories on.
- `worst`: nothing else is. Otherwise some of the rest is there as well: each entry or not, and of each file each piece of 512 or
  4096 octets as it was on the disk or as it was written last.
"""

import os
import random
import shutil
import struct
import subprocess

from organisation import Failed

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(os.path.dirname(HERE), "crates", "testkit", "preload", "record.c")
HEAD = struct.Struct("<IIQQQIII")
CREATE, WRITE, TRUNCATE, FSYNC, RENAME, UNLINK, LINK, MKDIR, MTIME, SYNC, THERE, UNKNOWN = range(1, 13)
NOW = (1 << 64) - 1


def build(folder: str) -> str:
    """Compiles the library."""
    library = os.path.join(folder, "record.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-lpthread"], check=True)
    return library


def environment(library: str, log: str, roots: list, join: bool = False) -> dict:
    """What records a process's operations below `roots` in `log`."""
    joins = {"REHOME_RECORD_JOIN": "1"} if join else {}
    return {"LD_PRELOAD": library, "REHOME_RECORD": log, "REHOME_RECORD_ROOTS": ":".join(roots)} | joins


def read(log: str):
    """Yields (kind, a, b, c, name, name2, data); a last record that is not whole is left out."""
    with open(log, "rb") as file:
        octets = file.read()
    place = 0
    while place + HEAD.size <= len(octets):
        length, kind, a, b, c, name, name2, data = HEAD.unpack_from(octets, place)
        if place + length > len(octets):
            break
        at = place + HEAD.size
        yield kind, a, b, c, octets[at:at + name], octets[at + name:at + name + name2], octets[at + name + name2:at + name + name2 + data]
        place += length


class File:
    """One file: its octets on the disk, and what was written since."""

    def __init__(self, mode: int, octets: bytes = b"", mtime=None):
        self.mode, self.disk, self.mtime = mode, bytearray(octets), mtime
        self.pending, self.new_mtime = [], mtime

    def write(self, offset: int, data, mtime: int):
        """`data` none: all from there on goes."""
        self.pending.append((offset, data))
        self.new_mtime = mtime

    @staticmethod
    def apply(octets: bytearray, offset: int, data):
        if data is None:
            del octets[offset:]
            octets.extend(bytes(offset - len(octets)))
        else:
            octets.extend(bytes(max(0, offset - len(octets))))
            octets[offset:offset + len(data)] = data

    def sync(self, data_only: bool):
        for offset, data in self.pending:
            self.apply(self.disk, offset, data)
        self.pending.clear()
        if not data_only:
            self.mtime = self.new_mtime

    def after(self, chance) -> tuple:
        """Octets and mtime that survive; `chance` none: only what is on the disk."""
        if chance is None or not self.pending:
            kept = chance is not None and chance.random() < 0.5
            return bytes(self.disk), self.new_mtime if kept else self.mtime
        newest = bytearray(self.disk)
        for offset, data in self.pending:
            self.apply(newest, offset, data)
        piece, share = chance.choice([512, 4096]), chance.choice([0.2, 0.5, 0.8, 1.0])
        size = len(newest) if chance.random() < share else len(self.disk)
        octets = bytearray(self.disk[:size]) + bytes(max(0, size - len(self.disk)))
        for start in range(0, size, piece):
            if chance.random() < share:
                octets[start:min(start + piece, size)] = newest[start:start + piece].ljust(min(piece, size - start), b"\0")[:size - start]
        return bytes(octets), self.new_mtime if chance.random() < 0.5 else self.mtime


class Folder:
    """A directory; its entries are kept by the disk."""

    def __init__(self, mode: int):
        self.mode = mode


class Disk:
    """Everything below the recorded folders. `originals`: root -> a folder that still holds what it held at the beginning."""

    def __init__(self, log: str, originals: dict):
        self.things, self.numbers, self.roots = {}, {}, {}
        self.now, self.changes, self.unknown = {}, [], []
        self.originals, self.beginning, self.next = originals, {}, 1
        for record in read(log):
            self.take(*record)

    def add(self, inode: int, thing) -> int:
        """A new thing under a number of its own, since inodes are used again."""
        number, self.next = self.next, self.next + 1
        self.numbers[inode], self.things[number] = number, thing
        if isinstance(thing, Folder):
            self.now[number] = {}
        return number

    def number(self, inode: int) -> int:
        return self.numbers.get(inode, 0)

    def there(self, folder: int, inode: int, mode: int, name: bytes):
        if folder == 0:
            original = self.originals[os.fsdecode(name)]
        else:
            original = os.path.join(self.places[self.number(folder)], os.fsdecode(name))
        if mode & 0o170000 == 0o040000:
            number = self.add(inode, Folder(mode & 0o7777))
            self.places[number] = original
        else:
            with open(original, "rb") as file:
                octets = file.read()
            # A second name of a file that is there already.
            known = self.number(inode)
            number = known or self.add(inode, File(mode & 0o7777, octets, os.stat(original).st_mtime_ns))
        if folder == 0:
            self.roots[os.fsdecode(name)] = number
        else:
            self.beginning.setdefault(self.number(folder), {})[name] = number
            self.now[self.number(folder)][name] = number

    places: dict

    def take(self, kind: int, a: int, b: int, c: int, name: bytes, name2: bytes, data: bytes):
        """One record."""
        if kind == THERE:
            if not hasattr(self, "places") or not self.places:
                self.places = {}
            self.there(a, b, c, name)
        elif kind == CREATE:
            number = self.add(b, File(c & 0o7777))
            if a:
                self.change([a], [(self.number(a), name, number)])
        elif kind == MKDIR:
            number = self.add(b, Folder(c & 0o7777))
            self.change([a], [(self.number(a), name, number)])
        elif kind in (WRITE, TRUNCATE, MTIME):
            thing = self.things.get(self.number(a))
            if isinstance(thing, File):
                if kind in (WRITE, TRUNCATE):
                    thing.write(b, data if kind == WRITE else None, c)
                else:
                    # Seconds before 1970 come as two's complement.
                    seconds = b - (1 << 64) if b >= 1 << 63 else b
                    thing.new_mtime = None if c == NOW else seconds * 10**9 + c
        elif kind == FSYNC:
            self.sync(self.number(a), b == 1)
        elif kind == SYNC:
            for number in list(self.things):
                self.sync(number, False)
        elif kind == RENAME:
            self.rename(a, name, b, name2, c == 1)
        elif kind == UNLINK:
            self.change([a], [(self.number(a), name, None)])
        elif kind == LINK:
            self.change([b], [(self.number(b), name2, self.number(c))])
        else:
            self.unknown.append(os.fsdecode(name))

    def rename(self, a: int, name: bytes, b: int, name2: bytes, swap: bool):
        source, target = self.number(a), self.number(b)
        moved = self.now.get(source, {}).get(name)
        other = self.now.get(target, {}).get(name2) if swap else None
        self.change([a, b], [(source, name, other), (target, name2, moved)])

    def change(self, folders: list, entries: list):
        """Entries that change together: (directory, name, number or none)."""
        for folder, name, number in entries:
            held = self.now.setdefault(folder, {})
            if number is None:
                held.pop(name, None)
            else:
                held[name] = number
        self.changes.append([{self.number(folder) for folder in folders}, entries, False])

    def sync(self, number: int, data_only: bool):
        thing = self.things.get(number)
        if isinstance(thing, File):
            thing.sync(data_only)
        elif isinstance(thing, Folder):
            for change in self.changes:
                if number in change[0]:
                    change[2] = True

    def after(self, mode: str, seed) -> tuple:
        """Entries of each directory and the chance by which files are torn: `worst`, `mix`, or `all`."""
        chance = random.Random(seed) if mode == "mix" else None
        share = chance.choice([0.2, 0.5, 0.8]) if chance else 0
        entries = {number: dict(held) for number, held in self.beginning.items()}
        for _, changes, is_on_disk in self.changes:
            if is_on_disk or mode == "all" or (chance and chance.random() < share):
                for folder, name, number in changes:
                    held = entries.setdefault(folder, {})
                    if number is None:
                        held.pop(name, None)
                    else:
                        held[name] = number
        return entries, chance

    def build(self, mode: str, seed, into: dict):
        """Writes what is there after the cut: `into` says where each root goes; that place must not be there."""
        if self.unknown:
            raise Failed(f"the recorder saw what it cannot replay: {sorted(set(self.unknown))}")
        entries, chance = self.after(mode, seed)
        written = {}
        for root, number in self.roots.items():
            self.folder(entries, number, into[root], mode, chance, written, set())

    def folder(self, entries: dict, number: int, path: str, mode: str, chance, written: dict, above: set):
        os.mkdir(path, 0o700)
        for name, held in sorted(entries.get(number, {}).items()):
            place, thing = os.path.join(path, os.fsdecode(name)), self.things[held]
            if isinstance(thing, Folder):
                # Two renames of which one survived could make a folder its own parent.
                if held not in above and held not in written:
                    written[held] = place
                    self.folder(entries, held, place, mode, chance, written, above | {number})
            elif held in written:
                os.link(written[held], place)
            else:
                if mode == "all":
                    thing.sync(False)
                octets, mtime = thing.after(chance)
                with open(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_EXCL, thing.mode or 0o600), "wb") as file:
                    file.write(octets)
                if mtime is not None:
                    os.utime(place, ns=(mtime, mtime))
                written[held] = place
        os.chmod(path, self.things[number].mode or 0o700)


def differences(one: str, two: str, below: str = "") -> list:
    """Paths in which two folders differ: names, octets, times of files that were given one."""
    found, here, there = [], set(os.listdir(os.path.join(one, below))), set(os.listdir(os.path.join(two, below)))
    found += [os.path.join(below, name) for name in here ^ there if not name.endswith("-shm")]
    for name in sorted(here & there):
        path = os.path.join(below, name)
        first, second = os.path.join(one, path), os.path.join(two, path)
        if os.path.isdir(first):
            found += differences(one, two, path)
        elif not name.endswith("-shm"):
            with open(first, "rb") as left, open(second, "rb") as right:
                if left.read() != right.read():
                    found.append(path)
    return found


def replace(roots: list, log: str, originals: dict, mode: str, seed):
    """Puts what survives in the place of the folders."""
    disk = Disk(log, originals)
    disk.build(mode, seed, {root: f"{root}.after" for root in roots})
    for root in roots:
        shutil.rmtree(root)
        os.rename(f"{root}.after", root)
