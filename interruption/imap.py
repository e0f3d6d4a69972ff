"""The story on IMAP servers: a Dovecot at the source, a Cyrus or a Dovecot at the target, in clear on loopback, each behind a line
that can be cut. Each slot has servers of its own, which stay; the mailboxes on them are new for each telling.
"""

import copy
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import material
import maildir
from line import Line
from organisation import Failed, Organisation, free_port
from story import USER, Stuck

PROJECT = material.PROJECT
TEMPLATES = os.path.join(PROJECT, "crates", "testkit", "servers")
sys.path.insert(0, TEMPLATES)

import imapcheck  # noqa: E402

UNPACKED = "/opt/rehome-cyrus/usr/lib/cyrus/bin/imapd"
INSTALLED = "/usr/lib/cyrus/bin/imapd"
MOVER, MOVER_WORD, WORD, ADMIN = "mover", "mover-word", "own-word", "cyrus"
PATIENCE = 30
MONTHS = imapcheck.MONTHS


def fill(name: str, values: dict) -> str:
    """A template with every @NAME@ replaced; comments are left out, they explain the names."""
    with open(os.path.join(TEMPLATES, name), encoding="utf-8") as file:
        text = "".join(line for line in file if not line.startswith("#"))
    return re.sub(r"@([A-Z0-9_]+)@", lambda found: str(values[found.group(1)]), text)


def write(path: str, text: str, mode: int = 0o644):
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)


def me(option: str) -> str:
    return subprocess.run(["id", option], capture_output=True, text=True, check=True).stdout.strip()


def is_root() -> bool:
    return os.geteuid() == 0


class Server:
    """A server process with a folder and a port. `master`: in whose name we look at mailboxes."""

    def __init__(self, folder: str):
        self.folder, self.port, self.process = folder, free_port(), None
        os.makedirs(folder)
        os.chmod(folder, 0o755)

    def wait_until_ready(self):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
                    if connection.recv(64).startswith(b"* OK"):
                        return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"a server in {self.folder} does not come up")
            time.sleep(0.05)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def session(self, user: str) -> imapcheck.Session:
        """Signed in for a user by the one who may act for others."""
        return imapcheck.Session({"port": self.port, "method": "plain", "user": MOVER, "authorize_as": user, "secret": MOVER_WORD})


class Dovecot(Server):
    """Maildirs below `mail`."""

    kind = "dovecot"
    sign_in = "master"

    def __init__(self, folder: str):
        super().__init__(folder)
        for name in ("run", "state", "home", "mail"):
            os.mkdir(os.path.join(folder, name))
        self.mail, self.users = os.path.join(folder, "mail"), os.path.join(folder, "users")
        self.config = os.path.join(folder, "dovecot.conf")
        self.give(self.mail, os.path.join(folder, "home"))
        self.let_in([])
        write(os.path.join(folder, "masters"), f"{MOVER}:{{PLAIN}}{MOVER_WORD}::\n")
        uses = "".join(f"mailbox {path[0]} {{\n special_use = {use}\n }}\n" for path, use in material.USES.items())
        write(self.config, fill("dovecot.conf.in", {
            "FOLDER": folder, "LOGIN_USER": "dovenull" if is_root() else me("-un"), "INTERNAL_USER": "dovecot" if is_root() else me("-un"),
            "INTERNAL_GROUP": "dovecot" if is_root() else me("-gn"), "MAIL_UID": "mail" if is_root() else os.getuid(),
            "MAIL_GID": "mail" if is_root() else os.getgid(), "PROTOCOLS": "imap", "IMAP_PORT": self.port, "IMAPS_PORT": 0, "SSL": "no",
            "MECHANISMS": "plain login", "MAIL_LOCATION": f"maildir:{self.mail}/%u", "MAIL_FSYNC": "optimized", "PREFIX": "",
            "SEPARATOR": "/", "MAILBOXES": uses, "MAIL_PLUGINS": "", "IMAP_PLUGINS": "", "MORE": ""}))
        program = "/usr/sbin/dovecot" if os.path.exists("/usr/sbin/dovecot") else "dovecot"
        self.process = subprocess.Popen([program, "-F", "-c", self.config], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.wait_until_ready()

    def give(self, *paths: str):
        if is_root():
            subprocess.run(["chown", "-R", "mail:mail", *paths], check=True)

    def let_in(self, users: list):
        write(self.users, "".join(f"{user}:{{PLAIN}}{WORD}::::::\n" for user in [USER, *users]))

    def create(self, user: str):
        self.let_in([user])

    def put(self, user: str, maildir_copy: str):
        """A mailbox that is a copy of this Maildir."""
        self.remove(user)
        subprocess.run(["cp", "-a", "--reflink=auto", maildir_copy, os.path.join(self.mail, user)], check=True)

    def remove(self, user: str):
        shutil.rmtree(os.path.join(self.mail, user), ignore_errors=True)

    def access(self) -> list:
        program = os.path.join(PROJECT, "packaging", "access", "dovecot-passwd-file")
        words = [program, "--passwd-file", self.users, "--config", self.config]
        return ["[platform.mail.access]", 'method = "command"', f"command = [{', '.join(f'{chr(34)}{word}{chr(34)}' for word in words)}]"]


class Cyrus(Server):
    """As it comes: octets above 127 in headers become an X."""

    kind = "cyrus"
    sign_in = "authzid"

    def __init__(self, folder: str):
        super().__init__(folder)
        for name in ("spool", "sieve", *(f"config/{one}" for one in ("db", "log", "proc", "socket", "user", "quota", "msg", "sync", "lock"))):
            os.makedirs(os.path.join(folder, name))
        config, services = os.path.join(folder, "imapd.conf"), os.path.join(folder, "cyrus.conf")
        write(config, fill("imapd.conf.in", {
            "FOLDER": folder, "CYRUS_USER": "cyrus" if is_root() else me("-un"), "ADMINS": ADMIN, "PROXIES": f"{ADMIN} {MOVER}",
            "ALTNAMESPACE": "yes", "UNIXHIERARCHYSEP": "yes", "MUNGE8BIT": "yes", "REJECT8BIT": "no", "MORE": ""}))
        imapd = UNPACKED if os.path.exists(UNPACKED) else INSTALLED
        write(services, fill("cyrus.conf.in", {"IMAPD": imapd, "IMAPD_CONF": config, "IMAP_PORT": self.port, "MORE": ""}))
        for user, word in ((ADMIN, WORD), (MOVER, MOVER_WORD)):
            subprocess.run(["saslpasswd2", "-p", "-c", "-f", os.path.join(folder, "sasldb2"), "-u", "localhost", user],
                           input=word.encode(), check=True, stdout=subprocess.DEVNULL)
        if is_root():
            subprocess.run(["chown", "-R", "cyrus:mail", folder], check=True)
        with open(os.path.join(folder, "master.log"), "ab") as log:
            self.process = subprocess.Popen(["/usr/lib/cyrus/bin/master", "-D", "-C", config, "-M", services, "-p", os.path.join(folder, "pid")],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        self.wait_until_ready()

    def admin(self, *commands: str, must: bool = True):
        session = imapcheck.Session({"port": self.port, "method": "plain", "user": ADMIN, "secret": WORD})
        for command in commands:
            try:
                session.command(command.encode())
            except imapcheck.Refused:
                if must:
                    raise
        session.close()

    def create(self, user: str):
        self.admin(f'CREATE "user/{user}"')

    def remove(self, user: str):
        self.admin(f'SETACL "user/{user}" {ADMIN} lrswipkxtecda', f'DELETE "user/{user}"', must=False)

    def access(self) -> list:
        return []


KINDS = {"dovecot": Dovecot, "cyrus": Cyrus}


def read_account(server: Server, user: str) -> dict:
    """What an account holds, as judge.py wants it."""
    session = server.session(user)
    try:
        names = imapcheck.Names(session)
        found = {"folders": {}, "subscriptions": set(), "uses": {}}
        for wire, line in imapcheck.folders(session, names).items():
            path = tuple(line["folder"])
            if line["subscribed"]:
                found["subscriptions"].add(path)
            for use in line["special_use"]:
                found["uses"][path] = use
            if line["selectable"]:
                found["folders"][path] = read_folder(session, wire)
    finally:
        session.close()
    return found


def read_folder(session: imapcheck.Session, wire: bytes) -> list:
    """The items of a folder with their octets."""
    items = []
    session.command(b"EXAMINE " + imapcheck.quoted(wire))
    for answer in session.command(b"UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])"):
        if answer[1:2] != [b"FETCH"]:
            continue
        values = dict(zip([word.upper() for word in answer[2][::2]], answer[2][1::2]))
        if b"BODY[]" not in values:
            continue
        octets = bytes(values[b"BODY[]"])
        marker = maildir.header_value(octets, b"Demo-Marker")
        flags = sorted(flag.decode("latin-1") for flag in values[b"FLAGS"] if flag.lower() != b"\\recent")
        uid = int(values[b"UID"])
        items.append({"uid": uid, "file": str(uid), "octets": octets, "canonical": maildir.canonical(octets),
                      "digest": maildir.digest(octets), "length": len(maildir.canonical(octets)), "flags": flags,
                      "message_id": maildir.message_id(octets), "received": imapcheck.epoch(values[b"INTERNALDATE"].decode("ascii")),
                      "marker": marker.decode("ascii", "replace") if marker else None})
    return sorted(items, key=lambda item: item["uid"])


def date(seconds: int) -> str:
    """An INTERNALDATE."""
    when = time.gmtime(seconds)
    return f"{when.tm_mday:02}-{MONTHS[when.tm_mon - 1]}-{when.tm_year} {when.tm_hour:02}:{when.tm_min:02}:{when.tm_sec:02} +0000"


class Changes:
    """Carries out changes of a mailbox over IMAP."""

    def __init__(self, session: imapcheck.Session):
        self.session, self.names = session, imapcheck.Names(session)

    def wire(self, path) -> bytes:
        return imapcheck.quoted(self.names.wire(list(path)))

    def subscribed(self) -> dict:
        return {tuple(self.names.path(answer[3])): answer[3] for answer in self.session.command(b'LSUB "" "*"') if answer[:1] == [b"LSUB"]}

    def carry_out(self, steps: list):
        for step in steps:
            getattr(self, step["do"])(step)
        self.session.close()

    def deliver(self, step: dict):
        octets = maildir.canonical(bytes.fromhex(step["octets"]))
        self.session.append(self.names.wire(list(step["folder"])), octets, (), date(step["received"]))

    def flags(self, step: dict):
        self.session.command(b"SELECT " + self.wire(step["folder"]))
        self.session.command(b"UID STORE %d FLAGS (%s)" % (step["uid"], " ".join(step["flags"]).encode()))

    def remove(self, step: dict):
        self.session.command(b"SELECT " + self.wire(step["folder"]))
        self.session.command(b"UID STORE %d +FLAGS (\\Deleted)" % step["uid"])
        self.session.command(b"UID EXPUNGE %d" % step["uid"])

    def create(self, step: dict):
        self.session.command(b"CREATE " + self.wire(step["folder"]))
        if step["subscribed"]:
            self.session.command(b"SUBSCRIBE " + self.wire(step["folder"]))

    def rename(self, step: dict):
        before = [path for path in self.subscribed() if list(path[:len(step["folder"])]) == step["folder"]]
        self.session.command(b"RENAME " + self.wire(step["folder"]) + b" " + self.wire(step["to"]))
        for path in before:
            self.session.command(b"UNSUBSCRIBE " + self.wire(path))
            self.session.command(b"SUBSCRIBE " + self.wire([*step["to"], *path[len(step["folder"]):]]))

    def drop(self, step: dict):
        self.session.command(b"SELECT INBOX")
        self.session.command(b"UNSUBSCRIBE " + self.wire(step["folder"]))
        self.session.command(b"DELETE " + self.wire(step["folder"]))


class Servers:
    """The two servers of a slot and their lines."""

    def __init__(self, folder: str, target: str):
        self.source, self.target = Dovecot(os.path.join(folder, "source-imap")), KINDS[target](os.path.join(folder, "target-imap"))
        self.lines = {"source": Line("source's server", self.source.port), "target": Line("target's server", self.target.port)}
        self.account = "{alias}"

    def stop(self):
        for line in self.lines.values():
            line.close()
        for server in (self.source, self.target):
            server.stop()


class Imap:
    """From a Dovecot to a Cyrus or a Dovecot."""

    def __init__(self, target: str):
        self.target_kind, self.kind = target, f"dovecot-{target}"
        # Nothing keeps users out of this Cyrus; the source's Dovecot does.
        self.more_words = ()
        self.what_becomes = {}

    def fill(self, template, seed: int):
        """Servers for setting up; the source's mailbox as it is served; and what the target makes of each item."""
        self.base, self.password = template.base, os.path.join(template.base, "password")
        write(self.password, MOVER_WORD, 0o600)
        os.chmod(template.base, 0o755)
        servers = template.servers = Servers(os.path.join(template.base, "servers"), self.target_kind)
        written = material.write(seed, template.base, USER, plain=True)
        self.original = os.path.join(template.base, "mail", USER)
        servers.source.give(os.path.join(template.base, "mail"))
        servers.source.put(USER, self.original)
        found = read_account(servers.source, USER)
        uids = {path: self.uids(os.path.join(servers.source.mail, USER), path) for path in written["folders"]}
        kinds = {path: {item["file"]: item for item in items} for path, items in written["folders"].items()}
        for path, items in found["folders"].items():
            for item in items:
                origin = kinds[path][uids[path][item["uid"]]]
                item |= {"kind": origin["kind"], "id": origin["id"], "first_folder": path}
        template.mailbox = {name: found[name] for name in ("folders", "subscriptions", "uses")}
        template.steps = material.plan(seed, template.mailbox)
        # With the uids that were given now.
        shutil.rmtree(self.original)
        subprocess.run(["cp", "-a", os.path.join(servers.source.mail, USER), self.original], check=True)
        self.try_each(servers.target, found["folders"])

    @staticmethod
    def uids(root: str, path: tuple) -> dict:
        """uid -> file name, from Dovecot's list."""
        with open(os.path.join(maildir.folder_directory(root, list(path)), "dovecot-uidlist"), encoding="ascii") as file:
            lines = file.read().splitlines()[1:]
        return {int(line.split(" ", 1)[0]): line.partition(":")[2] for line in lines}

    def try_each(self, server: Server, folders: dict):
        """Appends each item to an account of its own at the target, to learn what such a server refuses or alters."""
        server.create("scratch")
        session = server.session("scratch")
        appended, result = [], {}
        for path, items in folders.items():
            for item in items:
                try:
                    session.append(b"INBOX", item["canonical"], item["flags"], date(item["received"]))
                    uid = int(re.search(r"APPENDUID \d+ (\d+)", session.last).group(1))
                    appended.append((path, item, uid))
                except imapcheck.Refused as refused:
                    result[path, item["uid"]] = ("Skipped", str(refused))
        held = {item["uid"]: item for item in read_folder(session, b"INBOX")}
        session.close()
        for path, item, uid in appended:
            there = held[uid]
            if there["digest"] != item["digest"]:
                result[path, item["uid"]] = ("Altered", there)
            elif there["received"] != item["received"]:
                result[path, item["uid"]] = ("Date", there)
            elif sorted(map(str.lower, there["flags"])) != sorted(map(str.lower, item["flags"])):
                result[path, item["uid"]] = ("Flags", there)
        self.what_becomes = result
        server.remove("scratch")

    def held_by_target(self, expected: dict) -> tuple:
        held, planted = copy.deepcopy(expected), []
        origin = {}
        for (path, uid), what in self.what_becomes.items():
            origin[uid, path] = what
        for path, items in held["folders"].items():
            kept = []
            for item in items:
                kind, there = origin.get((item.get("uid"), item.get("first_folder", path)), ("", None))
                if kind:
                    planted.append((kind, "/".join(path), item["uid"]))
                if kind == "Skipped":
                    continue
                if kind:
                    item |= {name: there[name] for name in ("digest", "length", "received")}
                kept.append(item)
            items[:] = kept
        return held, planted

    def lines(self, organisation: Organisation, slot) -> list:
        servers = slot.servers
        server, line = getattr(servers, organisation.name), servers.lines[organisation.name]
        account = servers.account if organisation.name == "target" else "{alias}"
        return ['driver = "imap"', 'host = "127.0.0.1"', f"port = {line.port}", 'security = "none"', f'sign_in = "{server.sign_in}"',
                f'user = "{MOVER}"', f'password_file = "{self.password}"', f'account = "{account}"',
                *(server.access() if organisation.name == "source" else [])]

    def environment(self, slot):
        slot.servers = Servers(os.path.join(slot.folder, "servers"), self.target_kind)

    def renew(self, slot, run: int):
        servers = slot.servers
        for line in servers.lines.values():
            line.reset()
        servers.target.remove(f"{USER}-{run - 1}")
        servers.account = "{alias}-%d" % run
        servers.target.create(f"{USER}-{run}")
        servers.source.let_in([])
        servers.source.put(USER, self.original)

    def change(self, story, number: int):
        steps, state = [], story.expected
        for step in story.template.steps[number]:
            if "item" in step:
                item = material.item_of(state, step)
                step = step | {"uid": item["uid"]}
                if step["do"] == "flags":
                    step["flags"] = material.letters_kept(item, step["letters"])
            steps.append(step)
            state = material.changed(state, [step], material.letters_kept)
        Changes(story.slot.servers.source.session(USER)).carry_out(steps)
        story.expected = state

    def is_closed(self, story) -> bool:
        return True

    def looks(self, story) -> tuple:
        servers = story.slot.servers
        source, target = read_account(servers.source, USER), read_account(servers.target, f"{USER}-{story.slot.runs}")
        try:
            imapcheck.Session({"port": servers.source.port, "method": "login", "user": USER, "secret": WORD}).close()
        except imapcheck.Refused:
            return source, target
        raise Stuck("the old mailbox still lets its user in")
