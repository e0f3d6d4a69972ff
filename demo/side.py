"""One of the demo's two organisations: its folder, its server process, its administrator's command line.

Secrets pass through files that only this user can read, never through arguments; what is printed is masked all the same.
"""

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import confine

HERE = os.path.dirname(os.path.abspath(__file__))
COMMAND_SECONDS = 60
START_SECONDS = 20
_masked = set()


class DemoFailed(Exception):
    """Something did not come out as it must; the text says what."""


class CommandFailed(DemoFailed):
    """A command that answered with an error."""

    def __init__(self, command: str, error: dict):
        super().__init__(f"{command}\n    {error.get('id', 'error')}: {error.get('message', '')}\n    {error.get('advice', '')}")
        self.id, self.error = error.get("id", ""), error


def mask(text: str) -> str:
    for secret in _masked:
        text = text.replace(secret, "********")
    return text


def say(text: str = ""):
    print(mask(text), flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def error_ids(value) -> list:
    """Every error id in an answer, in order of appearance."""
    return list(dict.fromkeys(re.findall(r"\b(?:[A-Z][A-Za-z0-9]+Exception|AADSTS\d+)\b", json.dumps(value))))


def as_list(value) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


class Side:
    """`name` is the sign-in profile too: source or target."""

    def __init__(self, name: str, domain: str, base: str, binary: str, user: int):
        self.name, self.domain, self.base, self.user = name, domain, base, user
        self.folder, self.admin_home = os.path.join(base, name), os.path.join(base, "admin", name)
        self.log_file, self.report_file = os.path.join(base, f"{name}.log"), os.path.join(base, f"{name}.isolation")
        for directory in (self.folder, self.admin_home, self.path("mail"), self.path("data")):
            os.makedirs(directory, exist_ok=True)
        self.port, self.smtp_port = free_port(), free_port()
        self.server, self.process = f"localhost:{self.port}", None
        self.binary = self.for_every_user(binary)
        self.tenant_id, self.isolation = "", ""

    def path(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    def for_every_user(self, program: str) -> str:
        """Where the sides run as other users, a program may lie in a folder that they cannot enter: then a copy is used."""
        copy = os.path.join(self.base, os.path.basename(program))
        if confine.way(self.user) == "uids" and not os.path.exists(copy):
            os.chmod(shutil.copy2(program, copy), 0o755)
        return copy if os.path.exists(copy) else program

    # --- the machine's operator -------------------------------------------------------------------------------------------

    def confined(self, command: list, report=None, probe=False) -> list:
        """The command line that runs `command` with this side's folder alone."""
        line = [sys.executable, os.path.join(HERE, "confine.py"), "--folder", self.folder, "--allow-read", self.binary,
                "--uid", str(self.user), "--report", report or os.devnull]
        return [*line, *(["--probe"] if probe else []), "--", *command]

    def operator(self, *arguments: str) -> subprocess.CompletedProcess:
        """A command on the machine itself; its output may hold secrets and is not printed."""
        self.show("#", arguments)
        result = subprocess.run(self.confined([self.binary, *arguments]), capture_output=True, text=True, timeout=COMMAND_SECONDS)
        if result.returncode == 3 and "confine:" in result.stderr:
            raise DemoFailed(result.stderr.strip())
        if result.returncode:
            raise DemoFailed(f"rehome {shlex.join(arguments)} ended with {result.returncode}:\n{result.stderr[-2000:]}")
        return result

    def set_up(self):
        """Certificate and key for sealing secrets."""
        self.operator("certificate", "new", "--name", "localhost", "--out", self.path("tls"))
        self.operator("key", "new", "--out", self.path("seal.key"))

    def configure(self, partner: "Side", override: dict):
        """The configuration file; `override` says where sockets to a name really go."""
        shutil.copy(partner.path("tls", "ca.pem"), self.path("partner-ca.pem"))
        quote = json.dumps
        lines = [
            f"data_folder = {quote(self.path('data'))}",
            f"listen = \"127.0.0.1:{self.port}\"",
            f"public_name = {quote(self.server)}",
            f"key_file = {quote(self.path('seal.key'))}",
            "[tls]",
            f"certificate = {quote(self.path('tls', 'leaf.pem'))}",
            f"key = {quote(self.path('tls', 'leaf.key'))}",
            f"extra_roots = [{quote(self.path('partner-ca.pem'))}]",
            "[connections]",
            "override = { " + ", ".join(f"{quote(name)} = {quote(address)}" for name, address in override.items()) + " }",
            "allow_private_addresses = true",
            "[platform.mail]",
            'driver = "maildir"',
            f"root = {quote(self.path('mail'))}",
            "[mailflow]",
            f"smtp_listen = \"127.0.0.1:{self.smtp_port}\"",
            "[mailflow.routes]",
            f"{quote(partner.domain)} = {{ next_hop = \"127.0.0.1:{partner.smtp_port}\", tls = \"none\" }}",
        ]
        with open(self.path("config.toml"), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def new_tenant(self) -> str:
        """Makes the tenant; returns the one-time sign-in code."""
        result = self.operator("tenant", "new", self.domain, "--admin", f"admin@{self.domain}", "--config", self.path("config.toml"), "--json")
        answer = as_list(json.loads(result.stdout))[0]
        self.tenant_id = answer["tenant_id"]
        _masked.add(answer["code"])
        return answer["code"]

    def start(self):
        """Starts the server and waits until it listens."""
        self.show("#", ("serve", "--config", self.path("config.toml")))
        log = open(self.log_file, "ab")
        self.process = subprocess.Popen(self.confined([self.binary, "serve", "--config", self.path("config.toml")], self.report_file),
                                        stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        deadline = time.monotonic() + START_SECONDS
        for port in (self.port, self.smtp_port):
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        raise DemoFailed(f"the {self.name}'s server did not start") from None
                    time.sleep(0.05)
        with open(self.report_file, encoding="utf-8") as file:
            self.isolation = json.load(file)["isolation"]

    def stop(self) -> bool:
        """Asks the server to stop; returns whether it did so in order."""
        if self.process is None or self.process.poll() is not None:
            return self.process is None or self.process.returncode == 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False

    def probe(self, other: "Side") -> str:
        """Lets a process that is confined like this server try to get at the other's files; returns what it says."""
        if self.isolation == "none":
            return "not isolated (DEMO_UNCONFINED=1)"
        result = subprocess.run(self.confined([other.folder, other.path("seal.key")], probe=True),
                                capture_output=True, text=True, timeout=COMMAND_SECONDS)
        if result.returncode:
            raise DemoFailed(f"the {self.name}'s server could reach the {other.name}'s folder:\n{result.stdout}{result.stderr}")
        return f"{len(result.stdout.splitlines())} attempts of {self.domain} on the folder of {other.domain} refused"

    def last_lines(self, count: int = 40) -> str:
        try:
            with open(self.log_file, encoding="utf-8", errors="replace") as file:
                return "".join(file.readlines()[-count:])
        except FileNotFoundError:
            return "(no log)\n"

    # --- the administrator ----------------------------------------------------------------------------------------------------

    def show(self, prompt: str, arguments):
        line = " ".join(shlex.quote(argument) if not re.fullmatch(r"[\w@.:/,=-]+", argument) else argument for argument in arguments)
        say(f"{self.domain} {prompt} rehome {line}".replace(self.base + os.sep, ""))

    def private_file(self, name: str, content) -> str:
        """A file that only this user can read, for secrets and CSV data."""
        path = os.path.join(self.admin_home, name)
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        return path

    def credentials_file(self, name: str, user: str, password: str, **more: str) -> str:
        _masked.update([password, *more.values()])
        return self.private_file(name, {"UserName": user, "Password": password, **more})

    def execute(self, arguments, quiet: bool) -> subprocess.CompletedProcess:
        if not quiet:
            self.show(">", arguments)
        environment = os.environ | {"REHOME_HOME": self.admin_home}
        return subprocess.run([self.binary, "--profile", self.name, *arguments, "--json"], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, env=environment, timeout=COMMAND_SECONDS)

    def login(self, code: str):
        """First sign-in: the one-time code, and the password that holds from now on."""
        self.show(">", ("login", "--server", self.server, "--tenant", self.domain))
        file = self.credentials_file("sign-in.json", f"admin@{self.domain}", code, NewPassword=secrets.token_urlsafe(18))
        result = self.execute(["login", "--server", self.server, "--tenant", self.domain, "--ca", self.path("tls", "ca.pem"),
                               "--credentials-file", file], quiet=True)
        if result.returncode:
            raise self.failure("login", result)

    def run(self, *arguments: str, quiet: bool = False) -> list:
        """One command as the signed-in administrator; returns its objects, raises CommandFailed."""
        result = self.execute(arguments, quiet)
        if result.returncode:
            raise self.failure(arguments[0], result)
        if result.stderr.strip() and not quiet:
            say("    " + result.stderr.strip().replace("\n", "\n    "))
        try:
            return as_list(json.loads(result.stdout)) if result.stdout.strip() else []
        except ValueError:
            raise DemoFailed(f"{arguments[0]} printed no JSON: {result.stdout[:300]!r}") from None

    def failure(self, command: str, result: subprocess.CompletedProcess) -> CommandFailed:
        """The error of a failed command: the last JSON object on standard error, or its text."""
        for line in [result.stderr, *reversed(result.stderr.splitlines())]:
            try:
                return CommandFailed(command, json.loads(line)["error"])
            except (ValueError, KeyError, TypeError):
                continue
        return CommandFailed(command, {"message": result.stderr.strip() or f"exit code {result.returncode}"})


def table(objects: list, columns: list):
    """Prints objects as a small table."""
    rows = [columns] + [[", ".join(value) if isinstance(value, list) else "" if value is None else str(value)
                         for value in (one.get(column) for column in columns)] for one in objects]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    for row in rows:
        say("    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
