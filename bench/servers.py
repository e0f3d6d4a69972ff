"""Dovecot and Cyrus of the benchmark's own on loopback, from the templates that the tests use."""

import os
import re
import signal
import socket
import subprocess
import time

import measure
from measure import ToolFailed

HERE = os.path.dirname(os.path.abspath(__file__))
TEMPLATES = os.path.join(os.path.dirname(HERE), "crates", "testkit", "servers")
CYRUS = "/opt/rehome-cyrus"
PASSWORD, MASTER, MASTER_PASSWORD = "correct-horse", "migrator", "battery-staple"
USERS = [f"u{number:03}" for number in range(400)]
PATIENCE = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fill_template(name: str, values: dict) -> str:
    """The template with every @NAME@ replaced; comments are left out, they explain the names."""
    with open(os.path.join(TEMPLATES, name), encoding="utf-8") as file:
        text = "".join(line for line in file if not line.startswith("#"))
    missing = set(re.findall(r"@([A-Z0-9_]+)@", text)) - set(values)
    if missing:
        raise ToolFailed(f"{name} has names that are not known here: {', '.join(sorted(missing))}")
    return re.sub(r"@([A-Z0-9_]+)@", lambda found: str(values[found.group(1)]), text)


def write(path: str, text: str, mode: int = 0o644):
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)


class Server:
    """What both kinds share: a folder, a port, users that are all there from the start, each given out once."""

    kind = ""

    def __init__(self, name: str, folder: str):
        self.name, self.folder, self.port, self.process = name, folder, free_port(), None
        self._fresh = iter(USERS)
        os.makedirs(folder)
        os.chmod(folder, 0o755)
        self.password_file = os.path.join(folder, "password")
        write(self.password_file, PASSWORD, 0o600)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cpu(self) -> float:
        return measure.tree_cpu(self.process.pid)

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
                raise ToolFailed(f"{self.name} does not come up:\n{self.last_lines()}")
            time.sleep(0.05)

    def last_lines(self) -> str:
        try:
            with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as file:
                return "".join(file.readlines()[-20:])
        except FileNotFoundError:
            return "(no log)"

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Dovecot(Server):
    """Maildir storage, every user with PASSWORD, and a master user."""

    kind = "dovecot"

    def __init__(self, name: str, folder: str, fsync: str):
        super().__init__(name, folder)
        root = os.geteuid() == 0
        owner = "mail" if root else str(os.getuid())
        self.owner = "mail:mail" if root else None
        self.mail = os.path.join(folder, "mail")
        for sub in ("run", "state", "home", "mail"):
            os.mkdir(os.path.join(folder, sub))
        self.give(self.mail, os.path.join(folder, "home"))
        me = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        group = subprocess.run(["id", "-gn"], capture_output=True, text=True, check=True).stdout.strip()
        write(os.path.join(folder, "users"), "".join(f"{user}:{{PLAIN}}{PASSWORD}::\n" for user in USERS))
        write(os.path.join(folder, "masters"), f"{MASTER}:{{PLAIN}}{MASTER_PASSWORD}::\n")
        text = fill_template("dovecot.conf.in", {
            "FOLDER": folder, "LOGIN_USER": "dovenull" if root else me, "INTERNAL_USER": "dovecot" if root else me,
            "INTERNAL_GROUP": "dovecot" if root else group, "MAIL_UID": owner,
            "MAIL_GID": "mail" if root else str(os.getgid()), "PROTOCOLS": "imap", "IMAP_PORT": self.port, "IMAPS_PORT": 0,
            "SSL": "no", "MECHANISMS": "plain login", "MAIL_LOCATION": f"maildir:{self.mail}/%u", "MAIL_FSYNC": fsync,
            "PREFIX": "", "SEPARATOR": "/", "MAIL_PLUGINS": "", "IMAP_PLUGINS": "",
            "MAILBOXES": "mailbox Sent {\n    special_use = \\Sent\n  }\n  mailbox Drafts {\n    special_use = \\Drafts\n  }",
            "MORE": ""})
        self.config = os.path.join(folder, "dovecot.conf")
        write(self.config, text.replace("/dovecot.log", "/log"))
        program = "/usr/sbin/dovecot" if os.path.exists("/usr/sbin/dovecot") else "dovecot"
        self.process = subprocess.Popen([program, "-F", "-c", self.config], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.wait_until_ready()

    def give(self, *paths: str):
        """Lets Dovecot own what was written for it."""
        if self.owner:
            subprocess.run(["chown", "-R", self.owner, *paths], check=True)

    def fresh_user(self) -> str:
        return next(self._fresh)

    def place(self, user: str) -> str:
        return os.path.join(self.mail, user)


class Cyrus(Server):
    """Every user with PASSWORD; with `eatmydata` its syncs are left out, which otherwise dominate everything."""

    kind = "cyrus"

    def __init__(self, name: str, folder: str, eatmydata: bool):
        super().__init__(name, folder)
        self.imapd = os.path.join(CYRUS, "usr/lib/cyrus/bin/imapd")
        if not os.path.exists(self.imapd):
            raise ToolFailed(f"Cyrus is not in {CYRUS}; scripts/install-deps unpacks it there")
        user = "cyrus" if os.geteuid() == 0 else subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        for sub in ("spool", "sieve", *(f"config/{one}" for one in ("db", "log", "proc", "socket", "user", "quota", "msg", "sync", "lock"))):
            os.makedirs(os.path.join(folder, sub))
        config = os.path.join(folder, "imapd.conf")
        write(config, fill_template("imapd.conf.in", {
            "FOLDER": folder, "CYRUS_USER": user, "ADMINS": "cyrus", "PROXIES": MASTER, "ALTNAMESPACE": "yes", "UNIXHIERARCHYSEP": "yes",
            "MUNGE8BIT": "no", "REJECT8BIT": "no", "MORE": ""}))
        services = os.path.join(folder, "cyrus.conf")
        write(services, fill_template("cyrus.conf.in", {
            "IMAPD": self.imapd, "IMAPD_CONF": config, "IMAP_PORT": self.port, "MORE": ""}))
        passwords = [("cyrus", PASSWORD), (MASTER, MASTER_PASSWORD), *((one, PASSWORD) for one in USERS[:60])]
        for one, password in passwords:
            subprocess.run(["saslpasswd2", "-p", "-c", "-f", os.path.join(folder, "sasldb2"), "-u", "localhost", one],
                           input=password.encode(), check=True, stdout=subprocess.DEVNULL)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", "cyrus:mail", folder], check=True)
            os.chmod(self.password_file, 0o644)
        environment = dict(os.environ)
        if eatmydata:
            library = next((path for path in ("/usr/lib/x86_64-linux-gnu/libeatmydata.so", "/usr/lib/aarch64-linux-gnu/libeatmydata.so")
                            if os.path.exists(path)), None)
            if not library:
                raise ToolFailed("libeatmydata1 is not installed (or set EATMYDATA=0)")
            environment["LD_PRELOAD"] = library
        log = open(os.path.join(folder, "log"), "ab")
        self.process = subprocess.Popen(["/usr/lib/cyrus/bin/master", "-D", "-C", config, "-M", services, "-p", os.path.join(folder, "pid")],
                                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=folder,
                                        start_new_session=True)
        log.close()
        self.wait_until_ready()

    def fresh_user(self) -> str:
        """A user with an INBOX, made by the administrator."""
        user = next(self._fresh)
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            stream = connection.makefile("rwb")
            stream.readline()
            for tag, command in (("a", f"LOGIN cyrus {PASSWORD}"), ("b", f"CREATE user/{user}"), ("c", "LOGOUT")):
                stream.write(f"{tag} {command}\r\n".encode())
                stream.flush()
                while not (line := stream.readline()).startswith(tag.encode() + b" "):
                    if not line:
                        raise ToolFailed(f"{self.name}: closed at {command.split()[0]}")
                if not line.startswith(tag.encode() + b" OK"):
                    raise ToolFailed(f"{self.name}: {line.decode(errors='replace').strip()}")
        return user
