"""Works in a mailbox over IMAP and LMTP while another program works in its Maildir, and checks what came of it. Uses
nothing but the standard library.

usage: live_mailbox.py run IMAP_PORT LMTP_PORT USER PASSWORD MAILDIR RECORD
       live_mailbox.py check RECORD DRIVER

run:   two clients change flags and keywords, move messages from INBOX to Kept and expunge; a third reads every message
       again and again; ten messages a second are delivered, by LMTP and by renaming from tmp to new. Says "working"
       when all of them are at work, ends that at the first line of its input, writes RECORD and says "quiet".
check: compares RECORD with what the other program says it did and saw (DRIVER): no uid changed its message, none was
       used twice, nothing is lost, doubled or came back, and both see the same at the end.

Messages have an X-Id. The clients leave alone those whose id begins with "r", but for their flags.
"""

import hashlib
import imaplib
import json
import os
import random
import re
import smtplib
import socket
import sys
import threading
import time
import zlib

imaplib._MAXLINE = 100_000_000
FOLDERS = ("INBOX", "Kept")


def canonical(octets):
    return re.sub(rb"\r+\Z", b"", re.sub(rb"\r*\n", b"\r\n", octets))


def digest(octets):
    return hashlib.sha256(canonical(octets)).hexdigest()


def id_of(octets):
    found = re.search(rb"^X-Id: (\S+)\r?$", octets, re.MULTILINE)
    return found.group(1).decode() if found else "none"


def message(name):
    return f"Subject: {name}\r\nX-Id: {name}\r\n\r\nbody of {name} {'x' * (len(name) * 97 % 5000)}\r\n".encode()


class Work:
    def __init__(self, imap_port, lmtp_port, user, password, maildir):
        self.ports = (int(imap_port), int(lmtp_port))
        self.user, self.password, self.maildir = user, password, maildir
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.failures = []
        self.begun = threading.Barrier(5)
        self.delivered, self.expunged = [], []
        self.validities = {folder: set() for folder in FOLDERS}
        self.digests = {folder: {} for folder in FOLDERS}

    def connect(self, folder):
        connection = imaplib.IMAP4("127.0.0.1", self.ports[0])
        connection.login(self.user, self.password)
        self.select(connection, folder)
        return connection

    def select(self, connection, folder):
        assert connection.select(folder)[0] == "OK", folder
        with self.lock:
            self.validities[folder].add(int(connection.response("UIDVALIDITY")[1][0]))

    def thread(self, work, *arguments):
        def run():
            try:
                work(*arguments)
            except Exception as error:
                self.failures.append(f"{work.__name__}: {type(error).__name__}: {error}")
                self.begun.abort()
                self.stop.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def fetch(self, connection, uids):
        """[(uid, flags, octets)]"""
        status, data = connection.uid("FETCH", uids, "(UID FLAGS BODY.PEEK[])")
        assert status == "OK", data
        found, pending = [], None
        for part in data:
            if isinstance(part, tuple):
                pending = part
            elif part is not None and pending is not None:
                text = pending[0] + part
                uid = int(re.search(rb"UID (\d+)", text).group(1))
                flags = re.search(rb"FLAGS \(([^)]*)\)", text).group(1).decode().split()
                found.append((uid, sorted(flag.lower() for flag in flags if flag != "\\Recent"), pending[1]))
                pending = None
        return found

    def look(self, connection, folder):
        """Notes which uid has which message now."""
        found = self.fetch(connection, "1:*")
        with self.lock:
            for uid, _, octets in found:
                self.digests[folder].setdefault(uid, set()).add(digest(octets))
        return found

    def watch(self):
        """By one session that stays, and by new ones."""
        staying = {folder: self.connect(folder) for folder in FOLDERS}
        self.begun.wait()
        while not self.stop.is_set():
            for folder in FOLDERS:
                staying[folder].noop()
                self.look(staying[folder], folder)
                new = self.connect(folder)
                self.look(new, folder)
                new.logout()
        for connection in staying.values():
            connection.logout()

    def change(self, number):
        chance = random.Random(number)
        connection = self.connect("INBOX")
        self.begun.wait()
        while not self.stop.is_set():
            connection.noop()
            uids = connection.uid("SEARCH", "ALL")[1][0].split()
            if not uids:
                continue
            for uid in chance.sample(uids, min(5, len(uids))):
                flags = chance.sample(["\\Seen", "\\Flagged", "\\Answered", "work", "later", "$Forwarded", "k1", "k2"], 2)
                sign = chance.choice("+-")
                # NO: another one expunged it.
                assert connection.uid("STORE", uid.decode(), f"{sign}FLAGS.SILENT", f"({' '.join(flags)})")[0] in ("OK", "NO")
            self.move_or_expunge(connection, chance, number, uids)
        connection.logout()

    def move_or_expunge(self, connection, chance, number, uids):
        for uid in chance.sample(uids, min(2, len(uids))):
            found = self.fetch(connection, uid.decode())
            if not found:
                continue
            name = id_of(found[0][2])
            if name.startswith("r") or zlib.crc32(name.encode()) % 2 != number:
                continue
            uid = uid.decode()
            if chance.random() < 0.5:
                assert connection.uid("MOVE", uid, "Kept")[0] == "OK"
            else:
                assert connection.uid("STORE", uid, "+FLAGS.SILENT", "(\\Deleted)")[0] == "OK"
                assert connection.uid("EXPUNGE", uid)[0] == "OK"
                with self.lock:
                    self.expunged.append(name)

    def deliver(self):
        self.begun.wait()
        due, count = time.monotonic(), 0
        while not self.stop.is_set():
            name = f"d{count}"
            if count % 2:
                with smtplib.LMTP("127.0.0.1", self.ports[1]) as lmtp:
                    lmtp.sendmail("press@contoso.example", [f"{self.user}@contoso.example"], message(name))
            else:
                self.rename_into_new(name, count)
            with self.lock:
                self.delivered.append(name)
            count += 1
            due += 0.1
            self.stop.wait(max(0, due - time.monotonic()))

    def rename_into_new(self, name, count):
        unique = f"{int(time.time())}.M{count}P{os.getpid()}.{socket.gethostname()}"
        with open(f"{self.maildir}/tmp/{unique}", "wb") as file:
            file.write(message(name))
            if os.getuid() == 0:
                # It must be the mailbox's owner's.
                owner = os.stat(self.maildir)
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.rename(f"{self.maildir}/tmp/{unique}", f"{self.maildir}/new/{unique}")

    def record(self):
        final = {}
        for folder in FOLDERS:
            connection = self.connect(folder)
            found = self.look(connection, folder)
            final[folder] = [{"uid": uid, "id": id_of(octets), "digest": digest(octets), "flags": flags}
                             for uid, flags, octets in found]
            connection.logout()
        return {
            "failures": self.failures,
            "validities": {folder: sorted(numbers) for folder, numbers in self.validities.items()},
            "digests": {folder: {uid: sorted(seen) for uid, seen in uids.items()} for folder, uids in self.digests.items()},
            "delivered": self.delivered,
            "expunged": self.expunged,
            "final": final,
        }


def run(imap_port, lmtp_port, user, password, maildir, record):
    work = Work(imap_port, lmtp_port, user, password, maildir)
    threads = [work.thread(work.watch), work.thread(work.change, 0), work.thread(work.change, 1), work.thread(work.deliver)]
    try:
        work.begun.wait()
    except threading.BrokenBarrierError:
        pass
    print("working", flush=True)
    sys.stdin.readline()
    work.stop.set()
    for thread in threads:
        thread.join()
    with open(record, "w", encoding="utf-8") as file:
        json.dump(work.record(), file)
    print("quiet", flush=True)


def check(record, driver):
    with open(record, encoding="utf-8") as file:
        record = json.load(file)
    with open(driver, encoding="utf-8") as file:
        driver = json.load(file)
    wrong = list(record["failures"])
    for folder in FOLDERS:
        wrong += check_folder(folder, record, driver["folders"][folder])
    present = [item["id"] for folder in FOLDERS for item in record["final"][folder]]
    for name in set(present):
        if present.count(name) > 1:
            wrong.append(f"doubled: {name}")
    gone = set(record["expunged"]) | set(driver["removed"])
    added = set(record["delivered"]) | set(driver["appended"])
    wrong += [f"lost: {name}" for name in sorted(added - gone - set(present))]
    wrong += [f"came back: {name}" for name in sorted(gone & set(present))]
    wrong += [f"from nowhere: {name}" for name in sorted(set(present) - added)]
    counts = (len(record["delivered"]), len(record["expunged"]), len(driver["appended"]), len(driver["removed"]), len(present))
    print("delivered %d, expunged %d, appended %d, removed %d, there at the end %d" % counts, file=sys.stderr)
    return wrong


def check_folder(folder, record, driver):
    wrong = []
    validities = set(record["validities"][folder]) | set(driver["validities"])
    if len(validities) != 1:
        wrong.append(f"UIDVALIDITY of {folder} changed: {sorted(validities)}")
    digests = {int(uid): set(seen) for uid, seen in record["digests"][folder].items()}
    for item in driver["seen"]:
        digests.setdefault(item["uid"], set()).add(digest(item["octets"].encode("latin-1")))
    for uid, seen in digests.items():
        if len(seen) > 1:
            wrong.append(f"uid {uid} of {folder} changed its message")
    by_imap = [(item["uid"], item["digest"], item["flags"]) for item in record["final"][folder]]
    by_driver = [(item["uid"], digest(item["octets"].encode("latin-1")), sorted(flag.lower() for flag in item["flags"]))
                 for item in driver["final"]]
    if by_imap != by_driver:
        different = [pair for pair in zip(by_imap, by_driver) if pair[0] != pair[1]][:3]
        wrong.append(f"{folder} is seen differently: {len(by_imap)} and {len(by_driver)} items, {different!r}")
    return wrong


def main():
    mode, *arguments = sys.argv[1:]
    if mode == "run":
        run(*arguments)
        return
    wrong = check(*arguments)
    for line in wrong[:50]:
        print(line[:1000])
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
