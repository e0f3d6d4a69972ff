"""One of the two organisations: its folder, its configuration, its process, and its administrator over REST.

Everyone knows it by the name and port that it had when it was set up. A copy of it listens elsewhere, and the configuration says
where connections to the name really go, so that copies run side by side.
"""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time

PATIENCE = 60
DOOR_SECONDS = 20
PASSWORD = "correct-horse-battery-staple"


class Failed(Exception):
    """The harness itself cannot go on; the text says why."""


class Refused(Exception):
    """A command that was answered with an error."""

    def __init__(self, command: str, status: int, error: dict):
        super().__init__(f"{command}: {status} {error.get('id', '')}: {error.get('message', '')}")
        self.id, self.error = error.get("id", ""), error


_given = set()


def free_port() -> int:
    """A port that nobody has, and that this program has not given out before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


class Connection(http.client.HTTPSConnection):
    """HTTPS to a port of this machine under the name localhost."""

    def __init__(self, port: int, context: ssl.SSLContext):
        super().__init__("localhost", port, timeout=PATIENCE, context=context)
        self.at, self.own_context = port, context

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.at), timeout=PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self.own_context.wrap_socket(plain, server_hostname="localhost")


class Organisation:
    """`folder` holds tls, seal.key, data, mail and admin; `name` is source or target."""

    def __init__(self, name: str, domain: str, folder: str, binary: str, public_port: int):
        self.name, self.domain, self.folder, self.binary = name, domain, folder, binary
        self.public_port = public_port
        self.port, self.smtp_port = public_port, free_port()
        self.server = f"localhost:{public_port}"
        self.tenant, self.token, self.process, self.connection = "", "", None, None
        self.context = None

    def path(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    def copy_at(self, folder: str) -> "Organisation":
        """The same organisation in another folder, on ports of its own. The folder is filled by the caller."""
        other = Organisation(self.name, self.domain, folder, self.binary, self.public_port)
        other.port = free_port()
        other.tenant, other.token, other.context = self.tenant, self.token, self.context
        return other

    # --- the machine's operator -------------------------------------------------------------------------------------------

    def operator(self, *words: str) -> str:
        done = subprocess.run([self.binary, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
        if done.returncode:
            raise Failed(f"rehome {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return done.stdout

    def set_up(self):
        for name in ("data", "mail", "admin"):
            os.makedirs(self.path(name))
        self.operator("certificate", "new", "--name", "localhost", "--out", self.path("tls"))
        self.operator("key", "new", "--out", self.path("seal.key"))

    def configure(self, partner: "Organisation", platform: list, more: dict = {}):
        """`platform`: lines of the platform; `more`: lines for other tables."""
        quote = json.dumps
        where = {one.server: f"127.0.0.1:{one.port}" for one in (self, partner) if one.port != one.public_port}
        lines = [
            f"data_folder = {quote(self.path('data'))}",
            f"listen = \"127.0.0.1:{self.port}\"",
            f"public_name = {quote(self.server)}",
            f"key_file = {quote(self.path('seal.key'))}",
            "[log]", 'level = "info"',
            "[tls]",
            f"certificate = {quote(self.path('tls', 'leaf.pem'))}",
            f"key = {quote(self.path('tls', 'leaf.key'))}",
            f"extra_roots = [{quote(partner.path('tls', 'ca.pem'))}]",
            "[connections]",
            "override = { " + ", ".join(f"{quote(name)} = {quote(to)}" for name, to in where.items()) + " }",
            "allow_private_addresses = true", "timeout_seconds = 5",
            "[cutover]", "ask_outcome_seconds = 1", *more.get("cutover", []),
            # A worker's second try must not cost minutes here.
            "[replication]", "longest_pause_seconds = 1", *more.get("replication", []),
            "[platform.mail]", *platform,
            "[mailflow]", f"smtp_listen = \"127.0.0.1:{self.smtp_port}\"",
            "[mailflow.routes]",
            f"{quote(partner.domain)} = {{ next_hop = \"127.0.0.1:{partner.smtp_port}\", tls = \"none\" }}",
        ]
        with open(self.path("config.toml"), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def start(self, environment: dict = {}):
        """Starts the process; `listens` waits for it."""
        with open(self.path("log"), "ab") as log:
            self.process = subprocess.Popen([self.binary, "serve", "--config", self.path("config.toml")], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, env=os.environ | environment, cwd=self.folder)
        self.connection = None

    def listens(self) -> bool:
        """Waits until it takes connections; false where it died before."""
        deadline = time.monotonic() + DOOR_SECONDS
        for port in (self.port, self.smtp_port):
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if self.process.poll() is not None:
                        return False
                    if time.monotonic() > deadline:
                        raise Failed(f"the {self.name} does not start:\n{self.last_lines()}") from None
                    time.sleep(0.01)
        return True

    def died(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> bool:
        """Asks it to end; whether it did so in order."""
        if self.process is None or self.process.poll() is not None:
            return False
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15) == 0
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def last_lines(self, count: int = 60) -> str:
        try:
            with open(self.path("log"), encoding="utf-8", errors="replace") as file:
                return "".join(file.readlines()[-count:])
        except FileNotFoundError:
            return "(no log)\n"

    # --- the administrator ------------------------------------------------------------------------------------------------

    def private_file(self, name: str, content) -> str:
        path = self.path("admin", name)
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        return path

    def new_tenant(self):
        """Makes the tenant and signs its administrator in."""
        text = self.operator("tenant", "new", self.domain, "--admin", f"admin@{self.domain}", "--config", self.path("config.toml"), "--json")
        answer = json.loads(text)
        answer = answer[0] if isinstance(answer, list) else answer
        self.tenant = answer["tenant_id"]
        file = self.private_file("sign-in.json", {"UserName": f"admin@{self.domain}", "Password": answer["code"], "NewPassword": PASSWORD})
        self.command("login", "--server", self.server, "--tenant", self.domain, "--ca", self.path("tls", "ca.pem"), "--credentials-file", file)
        with open(self.path("admin", "profiles", f"{self.name}.json"), encoding="utf-8") as profile:
            self.token = json.load(profile)["token"]
        self.context = ssl.create_default_context(cafile=self.path("tls", "ca.pem"))

    def command(self, *words: str) -> list:
        """A command line as the administrator types it."""
        environment = os.environ | {"REHOME_HOME": self.path("admin")}
        done = subprocess.run([self.binary, "--profile", self.name, *words, "--json"], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, env=environment, timeout=PATIENCE)
        if done.returncode:
            raise Failed(f"{self.domain}: rehome {' '.join(words)}:\n{done.stderr[-2000:]}")
        found = json.loads(done.stdout) if done.stdout.strip() else []
        return found if isinstance(found, list) else [found]

    def asks(self, cmdlet: str, **parameters) -> list:
        """One command over REST. Raises Refused, or OSError where nobody answers."""
        if self.connection is None:
            self.connection = Connection(self.port, self.context)
        body = json.dumps({"CmdletInput": {"CmdletName": cmdlet, "Parameters": parameters}})
        headers = {"Host": self.server, "Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            self.connection.request("POST", f"/adminapi/beta/{self.tenant}/InvokeCommand", body, headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            self.connection = None
            raise OSError(f"{self.name}: {error!r}") from error
        try:
            value = json.loads(text)
        except ValueError:
            value = {}
        if answer.status != 200:
            raise Refused(cmdlet, answer.status, value.get("error", {"message": text[:300].decode("utf-8", "replace")}))
        return value.get("value") or []


def error_ids(value) -> list:
    """Every error id in an answer."""
    return list(dict.fromkeys(re.findall(r"\b(?:[A-Z][A-Za-z0-9]+Exception|AADSTS\d+)\b", json.dumps(value))))
