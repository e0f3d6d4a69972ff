"""Rehome as a tool of the benchmark: two organisations, each a `rehome serve` of its own, and one mailbox that moves between them.

Set up as the demo sets them up, without the walls around each side's files.
"""

import datetime
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import measure
from measure import ToolFailed
from servers import MASTER, MASTER_PASSWORD, write

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(PROJECT, "demo"))
import side as demo_side  # noqa: E402  pylint: disable=wrong-import-position

SOURCE, TARGET = "contoso.example", "fabrikam.example"
ENDPOINT, BATCH, GROUP = "contoso", "wave-1", "leaving"
FAILED = ("Failed", "IncrementalFailed", "CompletionFailed", "Corrupted")
POLL_SECONDS = 0.25


class Line:
    """A TCP line that counts, and delays where asked to; a process of its own, so that its work is nobody's."""

    def __init__(self, binary: str, to_port: int, round_trip_ms: float):
        command = [binary, "delay", "--to", f"127.0.0.1:{to_port}", "--one-way-us", str(int(round_trip_ms * 500))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        ports = json.loads(self.process.stdout.readline())
        self.port, self.figures_port = ports["port"], ports["figures_port"]

    def figures(self) -> dict:
        """Connections made, octets each way, and turns: how often somebody waited a round trip, over all connections."""
        with socket.create_connection(("127.0.0.1", self.figures_port), timeout=10) as connection:
            return json.loads(connection.makefile().readline())

    def stop(self):
        self.process.terminate()
        self.process.wait()


class BenchSide(demo_side.Side):
    """A side of the demo with a platform of the benchmark's choice, silent and unconfined."""

    def __init__(self, name: str, domain: str, base: str, binary: str, platform: list, more: list):
        self.platform, self.more = platform, more
        super().__init__(name, domain, base, binary, 0)

    def for_every_user(self, program: str) -> str:
        return program

    def confined(self, command: list, report=None, probe=False) -> list:
        if report:
            write(report, json.dumps({"isolation": "none"}))
        return command

    def show(self, prompt, arguments):
        """Nothing: progress lines are the benchmark's."""

    def configure(self, partner, override: dict):
        super().configure(partner, override)
        with open(self.path("config.toml"), encoding="utf-8") as file:
            text = file.read()
        mine = f'[platform.mail]\ndriver = "maildir"\nroot = {json.dumps(self.path("mail"))}\n'
        if mine not in text:
            raise ToolFailed("demo/side.py writes another configuration than it used to")
        text = text.replace(mine, "[platform.mail]\n" + "\n".join(self.platform) + "\n") + "\n".join(self.more) + "\n"
        write(self.path("config.toml"), text)

    def complaints(self) -> str:
        """The last lines of its log that are no routine."""
        lines = [line for line in self.last_lines(2000).splitlines() if " INFO " not in line]
        return "".join(f"{self.name}: {line}\n" for line in lines[-6:])

    def ask(self, *arguments) -> list:
        """A command of the administrator's."""
        try:
            return self.run(*arguments, quiet=True)
        except demo_side.DemoFailed as error:
            raise ToolFailed(f"{self.name}: {error}") from None


def maildir_platform(root: str) -> list:
    return ['driver = "maildir"', f"root = {json.dumps(root)}"]


def imap_platform(server, folder: str, connections: int, port=None) -> list:
    """A platform that signs in for every account: as master user at a Dovecot, by authorization identity at a Cyrus."""
    secret = os.path.join(folder, f"imap-{server.name}.secret")
    write(secret, MASTER_PASSWORD, 0o600)
    return ['driver = "imap"', 'host = "127.0.0.1"', f"port = {port or server.port}", 'security = "none"',
            f"sign_in = \"{'master' if server.kind == 'dovecot' else 'authzid'}\"", f'user = "{MASTER}"', f"password_file = {json.dumps(secret)}",
            f"connections = {connections}", f"connections_per_account = {connections}", 'account = "{alias}"']


class Organisations:
    """Source and target with consent between them, ready to move `account` of the source's platform."""

    def __init__(self, binary: str, base: str, source_platform: list, target_platform: list, read_back: bool, max_size: int, line=None,
                 patience: float = 600):
        os.makedirs(base, exist_ok=True)
        # Hidden from administrators: for measuring only, and such a mailbox cannot be completed.
        more = ["[replication]", f"max_receive_size = {max_size}", f'read_back = "{"on" if read_back else "off"}"']
        self.source = BenchSide("source", SOURCE, base, binary, source_platform, more)
        self.target = BenchSide("target", TARGET, base, binary, target_platform, more)
        self.patience, self.line = patience, line(self.source.port) if line else None
        self.account = self.user = ""

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        for one in (self.target, self.source):
            one.stop()
        if self.line:
            self.line.stop()

    def set_up(self, account: str, target_name: str):
        """All that administrators do before the batch."""
        self.account, self.user = account, target_name
        source, target = self.source, self.target
        try:
            for one in (source, target):
                one.set_up()
            source.configure(target, {})
            target.configure(source, {source.server: f"127.0.0.1:{self.line.port}"} if self.line else {})
            codes = [one.new_tenant() for one in (source, target)]
            for one, code in zip((source, target), codes):
                one.start()
                one.login(code)
        except demo_side.DemoFailed as error:
            raise ToolFailed(f"{error}\n{source.complaints()}{target.complaints()}") from None
        file = source.private_file("import.csv", f"EmailAddress,Name,Location\n{account}@{SOURCE},{account},{account}\n")
        source.ask("Import-Mailbox", "-Platform", "mail", "-CSVData", file)
        mailbox = source.ask("Get-Mailbox", f"{account}@{SOURCE}")[0]
        self._trust()
        target.ask("New-MailUser", target_name, "-ExternalEmailAddress", f"{account}@{SOURCE}", "-PrimarySmtpAddress", f"{target_name}@{TARGET}")
        target.ask("Set-MailUser", target_name, "-EmailAddresses", f'@{{Add="x500:{mailbox["LegacyExchangeDN"]}"}}',
                   "-ExchangeGuid", mailbox["ExchangeGuid"])

    def _trust(self):
        source, target = self.source, self.target
        app = target.ask("New-MgApplication", "-DisplayName", "Moves", "-SignInAudience", "AzureADMultipleOrgs", "-RedirectUris",
                         "https://office.com", "-RequiredPermissions", "Mailbox.Migration")[0]["AppId"]
        secret = target.ask("Add-MgApplicationPassword", "-ApplicationId", app)[0]["SecretText"]
        credentials = target.credentials_file("endpoint.json", app, secret)
        granted = target.ask("New-MgServicePrincipalAppRoleAssignment", "-ServicePrincipalId", app, "-RemoteServer", source.server,
                             "-RemoteTenant", SOURCE)[0]
        source.ask("consent", granted["ConsentLink"], "--yes")
        target.ask("New-MigrationEndpoint", "-Name", ENDPOINT, "-ExchangeRemoteMove", "-RemoteServer", source.server, "-RemoteTenant", SOURCE,
                   "-ApplicationId", app, "--credentials-file", credentials)
        target.ask("New-OrganizationRelationship", "contoso", "-DomainNames", source.tenant_id, "-Enabled:true", "-MailboxMoveEnabled:true",
                   "-MailboxMoveCapability", "Inbound")
        source.ask("New-DistributionGroup", GROUP, "-Type", "Security")
        source.ask("Add-DistributionGroupMember", GROUP, "-Member", f"{self.account}@{SOURCE}")
        source.ask("New-OrganizationRelationship", "fabrikam", "-DomainNames", target.tenant_id, "-Enabled:true", "-MailboxMoveEnabled:true",
                   "-MailboxMoveCapability", "RemoteOutbound", "-OAuthApplicationId", app, "-MailboxMovePublishedScopes", GROUP)

    # --- moving -------------------------------------------------------------------------------------------------------------------

    def state(self) -> dict:
        return self.target.ask("Get-MigrationUser", "-BatchId", BATCH)[0]

    def statistics(self, *more) -> dict:
        return self.target.ask("Get-MigrationUserStatistics", f"{self.user}@{TARGET}", *more)[0]

    def wait_for(self, what: str, wanted) -> dict:
        deadline = time.monotonic() + self.patience
        while True:
            user = self.state()
            if wanted(user):
                return user
            if user["Status"] in FAILED or time.monotonic() > deadline:
                raise ToolFailed(f"{what}: {user['Status']} {user.get('ErrorSummary') or ''}\n{self.target.complaints()}{self.source.complaints()}")
            time.sleep(POLL_SECONDS)

    def pids(self) -> list:
        return [one.process.pid for one in (self.source, self.target)]

    def timed_sync(self, begin, since=None) -> float:
        """Seconds from the administrator's command to the end of the sync, as the move itself records it."""
        called = time.time()
        begin()
        user = self.wait_for("a sync", lambda one: one["Status"] == "Synced" and one.get("LastSuccessfulSyncTime") not in (None, since))
        return instant(user["LastSuccessfulSyncTime"]) - called

    def first_sync(self) -> float:
        file = self.target.private_file("batch.csv", f"EmailAddress\n{self.user}@{TARGET}\n")
        return self.timed_sync(lambda: self.target.ask("New-MigrationBatch", "-Name", BATCH, "-SourceEndpoint", ENDPOINT,
                                                       "-TargetDeliveryDomain", TARGET, "-CSVData", file, "-AutoStart"))

    def sync_again(self) -> float:
        since = self.state()["LastSuccessfulSyncTime"]
        return self.timed_sync(lambda: self.target.ask("Set-MigrationBatch", BATCH, "-SyncNow"), since)

    def complete(self, accept_unlocked: bool) -> dict:
        """Completes the move; returns its statistics."""
        self.target.ask("Complete-MigrationBatch", BATCH, *(["-AcceptUnlocked"] if accept_unlocked else []))
        self.wait_for("completion", lambda one: one["Status"] == "Completed")
        return self.statistics()

    def skipped(self) -> int:
        return int(self.statistics().get("SkippedItemCount") or 0)


def instant(text: str) -> float:
    """Seconds since 1970 of an instant as the commands print it."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Rehome:
    """As a tool: 1 or 4 connections to each mail server, with or without reading back what was written."""

    pairs, slow, drop_header, exact, group = ("imap", "maildir"), False, None, True, "rehome"

    def __init__(self, binary: str, bench_binary: str, connections: int, read_back: bool):
        self.name = f"rehome-{connections}" + ("" if read_back else "-noreadback")
        self.binary, self.bench_binary, self.connections, self.read_back = binary, bench_binary, connections, read_back
        self.leaves_out = "nothing: whole moves through proxy, TLS, gate and ledger" + \
                          ("" if read_back else ", but does not read back what it wrote, so no mailbox could be completed")
        self.round_trip_ms = None
        self.organisations = None

    def organise(self, job, max_size: int = 157_286_400, lines=None) -> Organisations:
        """Two organisations for one copy; `lines` are (source, target) counting lines to the mail servers."""
        connections = self.connections
        if job.source:
            ports = [line.port if line else None for line in lines or (None, None)]
            os.makedirs(job.work, exist_ok=True)
            platforms = [imap_platform(job.source, job.work, connections, ports[0]), imap_platform(job.target, job.work, connections, ports[1])]
            account, name = job.source_user, job.target_user
        else:
            platforms = [maildir_platform(job.path("source-root")), maildir_platform(job.path("target"))]
            os.makedirs(job.path("source-root"), exist_ok=True)
            os.makedirs(job.path("target"), exist_ok=True)
            account = name = "mailbox"
            shutil.copytree(job.path("source"), job.path("source-root", account), copy_function=os.link)
        line = (lambda port: Line(self.bench_binary, port, self.round_trip_ms)) if self.round_trip_ms is not None else None
        organisations = Organisations(self.binary, job.path("rehome"), *platforms, self.read_back, max_size, line, job.patience)
        try:
            organisations.set_up(account, name)
        except BaseException:
            organisations.__exit__()
            raise
        return organisations

    def copy(self, job, max_size: int = 157_286_400) -> dict:
        """Copies once; the time is from the command that starts the batch to the move's own record of its first sync."""
        self.organisations = self.organise(job, max_size)
        return self.measured(job, self.organisations.first_sync)

    def measured(self, job, action) -> dict:
        organisations = self.organisations
        servers = (job.source, job.target)
        before = [server.cpu() if server else 0.0 for server in servers]
        cpu = measure.tree_cpu(*organisations.pids())
        seconds = action()
        cpu = measure.tree_cpu(*organisations.pids()) - cpu
        used = [(server.cpu() if server else 0.0) - earlier for server, earlier in zip(servers, before)]
        peaks = [measure.peak_memory(pid) for pid in organisations.pids()]
        record = {"seconds": seconds, "cpu_client": cpu, "cpu_source": used[0], "cpu_target": used[1], "memory": sum(peaks),
                  "memory_source_side": peaks[0], "memory_target_side": peaks[1], "skipped": organisations.skipped()}
        if organisations.line:
            record["line"] = organisations.line.figures()
        return record

    def close(self):
        if self.organisations:
            self.organisations.__exit__()
            self.organisations = None
