"""The demo: real mail moves between two organisations that share nothing but HTTPS.

    python3 demo/run.py              (SEED=n chooses the mail, KEEP=1 keeps the folder; `make demo`)
    python3 demo/run.py --selftest   (shows that the demo can fail; `make demo-selftest`)

It makes the source's mailboxes from real messages, writes down what is in them, starts two servers that cannot see each other's
files, and does what the two administrators would do. At the end a checker that shares no code with Rehome compares the target's
files with what was written down. Exit code 0: every message arrived exactly once, unaltered, with its flags and date.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import generate
import relay
import smtp_send
import state
from side import HERE, DemoFailed, Side, error_ids, say, table

PROJECT = os.path.dirname(HERE)
RESULT_FOLDER = os.path.join(PROJECT, "target", "demo")
SOURCE, TARGET = generate.SOURCE_DOMAIN, generate.TARGET_DOMAIN
ENDPOINT, BATCH, GROUP = "contoso", "wave-1", "leaving"
LATE_TO_MEND = "workshop"  # prepared without ExchangeGuid at first
OUTSIDER = generate.STAYS
REDIRECT = "https://office.com"
FAILED = ("Failed", "IncrementalFailed", "CompletionFailed", "Corrupted")


def find_binary() -> str:
    binary = os.environ.get("REHOME_BIN", os.path.join(PROJECT, "target", "debug", "rehome"))
    if not os.access(binary, os.X_OK):
        raise DemoFailed(f"{binary} is not there; build it first: cargo build")
    return os.path.abspath(binary)


class Demo:
    """One run. `patience` bounds every wait in seconds; `line` is what stands between the servers (None: a counting relay)."""

    def __init__(self, seed: int, patience: float, line=None):
        self.seed, self.patience, self.make_line = seed, patience, line
        self.started, self.refusals, self.line = time.monotonic(), [], None
        self.base = tempfile.mkdtemp(prefix="rehome-demo-")
        os.chmod(self.base, 0o711)  # under two users each must reach its own folder, and only that
        self.source = Side("source", SOURCE, self.base, find_binary(), 64001)
        self.target = Side("target", TARGET, self.base, find_binary(), 64002)
        self.app_id = None

    # --- setting up -----------------------------------------------------------------------------------------------------------

    def write_mail(self):
        say(f"== Mail for the source, from real messages (seed {self.seed})")
        self.manifest = generate.generate(self.seed, self.source.folder, os.path.join(PROJECT, "samples", "mail"))
        self.manifest_file = shutil.move(os.path.join(self.source.folder, "manifest.json"), os.path.join(self.base, "manifest.json"))
        self.journal_file = os.path.join(self.base, "journal.jsonl")
        self.account = state.Account(self.manifest, self.source.path("mail"), self.journal_file)
        counts = self.manifest["counts"]
        say(f"   {counts['items']} items in {counts['folders']} folders, {counts['octets']} octets, {counts['nasty']} of awkward kinds")

    def start_servers(self):
        say("\n== Two servers, each confined to its own folder")
        for side in (self.source, self.target):
            side.set_up()
        if self.make_line:
            self.line = self.make_line(self)
        else:
            self.line = relay.Relay(self.source.port)
        self.source.configure(self.target, {})
        self.target.configure(self.source, {self.source.server: f"127.0.0.1:{self.line.port}"})
        codes = [side.new_tenant() for side in (self.source, self.target)]
        for side, code in zip((self.source, self.target), codes):
            side.start()
            side.login(code)
        say(f"   isolation: {self.source.isolation}; {self.source.probe(self.target)}")
        say(f"   isolation: {self.target.isolation}; {self.target.probe(self.source)}")

    def adopt(self):
        say("\n== The source adopts its existing Maildirs; not an octet of them is touched")
        rows = [f"{name}@{SOURCE},{name},{name}" for name in [*generate.MAILBOXES, OUTSIDER]]
        file = self.source.private_file("import.csv", "\n".join(["EmailAddress,Name,Location", *rows]) + "\n")
        self.source.run("Import-Mailbox", "-Platform", "mail", "-CSVData", file, "-WhatIf")
        self.source.run("Import-Mailbox", "-Platform", "mail", "-CSVData", file)
        self.mailboxes = {name: self.source.run("Get-Mailbox", f"{name}@{SOURCE}", quiet=True)[0]
                          for name in [*generate.MAILBOXES, OUTSIDER]}
        table(list(self.mailboxes.values()), ["Name", "PrimarySmtpAddress", "ExchangeGuid"])

    def build_trust(self):
        say("\n== Application, secret, consent on both sides")
        app = self.target.run("New-MgApplication", "-DisplayName", "Mailbox moves to Fabrikam", "-SignInAudience", "AzureADMultipleOrgs",
                              "-RedirectUris", REDIRECT, "-RequiredPermissions", "Mailbox.Migration")[0]
        self.app_id = app["AppId"]
        secret = self.target.run("Add-MgApplicationPassword", "-ApplicationId", self.app_id)[0]["SecretText"]
        self.endpoint_credentials = self.target.credentials_file("endpoint.json", self.app_id, secret)
        granted = self.target.run("New-MgServicePrincipalAppRoleAssignment", "-ServicePrincipalId", self.app_id,
                                  "-RemoteServer", self.source.server, "-RemoteTenant", SOURCE)[0]
        say("   the link goes to the source's administrator, who signs in at his own server and accepts:")
        self.source.run("consent", granted["ConsentLink"], "--yes")
        table(self.source.run("Get-MgServicePrincipal"), ["DisplayName", "AppId", "AppOwnerOrganizationId"])

        say("\n== Endpoint in the target, relationship on both sides, the group of those who may leave")
        self.target.run("New-MigrationEndpoint", "-Name", ENDPOINT, "-ExchangeRemoteMove", "-RemoteServer", self.source.server,
                        "-RemoteTenant", SOURCE, "-ApplicationId", self.app_id, "--credentials-file", self.endpoint_credentials)
        self.target.run("New-OrganizationRelationship", "contoso", "-DomainNames", self.source.tenant_id, "-Enabled:true",
                        "-MailboxMoveEnabled:true", "-MailboxMoveCapability", "Inbound")
        self.source.run("New-DistributionGroup", GROUP, "-Type", "Security")
        for name in generate.MAILBOXES:
            self.source.run("Add-DistributionGroupMember", GROUP, "-Member", f"{name}@{SOURCE}")
        self.source.run("New-OrganizationRelationship", "fabrikam", "-DomainNames", self.target.tenant_id, "-Enabled:true",
                        "-MailboxMoveEnabled:true", "-MailboxMoveCapability", "RemoteOutbound", "-OAuthApplicationId", self.app_id,
                        "-MailboxMovePublishedScopes", GROUP)

    def prepare_mail_users(self):
        say("\n== Mail users in the target")
        for name, mailbox in self.mailboxes.items():
            self.target.run("New-MailUser", name, "-ExternalEmailAddress", f"{name}@{SOURCE}", "-PrimarySmtpAddress", f"{name}@{TARGET}")
            proxy = f'@{{Add="x500:{mailbox["LegacyExchangeDN"]}"}}'
            guid = [] if name == LATE_TO_MEND else ["-ExchangeGuid", mailbox["ExchangeGuid"]]
            self.target.run("Set-MailUser", name, "-EmailAddresses", proxy, *guid)

    def test_availability(self, name: str) -> dict:
        return self.target.run("Test-MigrationServerAvailability", "-Endpoint", ENDPOINT, "-TestMailbox", f"{name}@{TARGET}")[0]

    def test_both_ways(self):
        say("\n== May they leave? One may, one may not")
        answer = self.test_availability(generate.MAILBOXES[0])
        say(f"   {answer['Result']}")
        if answer["Result"] != "Success":
            raise DemoFailed(f"Test-MigrationServerAvailability: {answer.get('Message')} {answer.get('ErrorDetail')}")
        refused = self.test_availability(OUTSIDER)
        self.refused(refused, "MailboxNotInCrossTenantMigrationScopeException")

    def refused(self, answer, wanted: str):
        ids = error_ids(answer)
        if wanted not in ids:
            raise DemoFailed(f"expected {wanted}, got {ids or answer}")
        self.refusals.append(wanted)
        say(f"   refused, as it must be: {wanted}")

    # --- moving ---------------------------------------------------------------------------------------------------------------

    def start_batch(self):
        say("\n== The batch")
        csv = self.target.private_file("wave-1.csv", "EmailAddress\n" + "".join(f"{name}@{TARGET}\n" for name in generate.MAILBOXES))
        table(self.target.run("New-MigrationBatch", "-Name", BATCH, "-SourceEndpoint", ENDPOINT, "-TargetDeliveryDomain", TARGET,
                              "-CSVData", csv, "-AutoStart"), ["Identity", "Status", "Type", "TotalCount"])

    def users(self) -> dict:
        found = self.target.run("Get-MigrationUser", "-BatchId", BATCH, quiet=True)
        return {user["Identity"].partition("@")[0]: user for user in found}

    def wait_for(self, what: str, wanted, names=None) -> dict:
        """Polls the batch's users, showing a bar for each, until wanted(user) is true for all of `names`."""
        names, deadline, shown = names or generate.MAILBOXES, time.monotonic() + self.patience, None
        while True:
            users = self.users()
            lines = [self.bar(name, users.get(name, {})) for name in names]
            if lines != shown:
                say("\n".join(lines))
                shown = lines
            if all(name in users and wanted(users[name]) for name in names):
                return users
            failed = [user for name, user in users.items() if name in names and user["Status"] in FAILED]
            if failed or time.monotonic() > deadline:
                reasons = [self.reasons(user) for user in failed or users.values()]
                raise DemoFailed(f"waited for: {what}; " + "; ".join(reasons))
            time.sleep(0.3)

    def bar(self, name: str, user: dict) -> str:
        if user.get("Status") in ("Syncing", "IncrementalSyncing", "Completing"):
            user = user | self.statistics(name)
        percent = int(user.get("PercentageComplete") or {"Completed": 100, "Synced": 95}.get(user.get("Status"), 0))
        items = user.get("SyncedItemCount")
        return f"   {name:10} [{'#' * (percent // 5):20}] {percent:3} %  {user.get('Status', ''):20} {'' if items is None else items} items"

    def statistics(self, name: str, *more: str) -> dict:
        answer = self.target.run("Get-MigrationUserStatistics", f"{name}@{TARGET}", *more, quiet=True)
        return answer[0] if answer else {}

    def reasons(self, user: dict) -> str:
        """All that the service says about a user that does not get on."""
        name = user["Identity"].partition("@")[0]
        return f"{user['Identity']} is {user['Status']}: {user.get('ErrorSummary') or ''} " + \
               " ".join(error_ids([user, self.statistics(name, "-IncludeSkippedItems")]))

    def first_sync(self):
        """Two get through; the third was not prepared well, is told so, mended and resumed. Mail arrives all the while."""
        self.send_mail(1)
        ready = [name for name in generate.MAILBOXES if name != LATE_TO_MEND]
        self.wait_for("first copy", lambda user: user["Status"] == "Synced", ready)
        say("\n== One mail user was not ready")
        deadline = time.monotonic() + self.patience
        while self.users()[LATE_TO_MEND]["Status"] not in FAILED:
            if time.monotonic() > deadline:
                raise DemoFailed(f"{LATE_TO_MEND} has no ExchangeGuid and was not refused")
            time.sleep(0.3)
        user = self.users()[LATE_TO_MEND]
        say(f"   {user.get('ErrorSummary')}")
        self.refused([user, self.statistics(LATE_TO_MEND)], "MissingExchangeGuidException")
        self.target.run("Set-MailUser", LATE_TO_MEND, "-ExchangeGuid", self.mailboxes[LATE_TO_MEND]["ExchangeGuid"])
        self.target.run("Start-MigrationUser", f"{LATE_TO_MEND}@{TARGET}")
        deadline = time.monotonic() + self.patience
        while self.users()[LATE_TO_MEND]["Status"] in FAILED:
            if time.monotonic() > deadline:
                raise DemoFailed(f"{LATE_TO_MEND} was mended and not resumed")
            time.sleep(0.1)
        self.wait_for("first copy", lambda user: user["Status"] == "Synced")

    def send_mail(self, phase: int):
        """Sends this phase's messages to the old addresses, at the source's door."""
        for step in self.account.steps(phase, ("send",)):
            message = state.message_to_send(step)
            recipient = f"{step['mailbox']}@{SOURCE}"
            deferred = smtp_send.send(f"127.0.0.1:{self.source.smtp_port}", f"sender@{TARGET}", recipient, message, self.patience)
            self.account.sent(step, message, routed=phase == 2)
            say(f"   mail to {recipient}: accepted{f' after {deferred} deferrals' if deferred else ''}")

    def changes_and_sync_now(self):
        say("\n== Life goes on in the source: mail arrives, flags change, messages are deleted")
        for step in self.account.steps(1, ("deliver", "flags", "remove")):
            say(f"   {self.account.apply(step)}")
        before = {name: user.get("LastSuccessfulSyncTime") for name, user in self.users().items()}
        self.target.run("Set-MigrationBatch", BATCH, "-SyncNow")
        self.wait_for("-SyncNow", lambda user: user["Status"] == "Synced"
                      and user.get("LastSuccessfulSyncTime") != before[user["Identity"].partition("@")[0]])

    def show_recipients(self, when: str) -> dict:
        say(f"\n== Recipients {when}")
        shown = {}
        for side in (self.source, self.target):
            recipients = side.run("Get-Recipient")
            table(recipients, ["Name", "RecipientTypeDetails", "PrimarySmtpAddress", "ExternalEmailAddress"])
            shown[side.name] = {recipient["Name"]: recipient for recipient in recipients}
        return shown

    def complete(self):
        self.show_recipients("before")
        say("\n== Completion: each mailbox is locked, copied for the last time, compared, and changes sides")
        self.target.run("Complete-MigrationBatch", BATCH)
        self.wait_for("completion", lambda user: user["Status"] == "Completed")
        after = self.show_recipients("after")
        for name in generate.MAILBOXES:
            old, new = after["source"][name], after["target"][name]
            if (old["RecipientTypeDetails"], new["RecipientTypeDetails"]) != ("MailUser", "UserMailbox"):
                raise DemoFailed(f"{name} was not converted: {old['RecipientTypeDetails']}, {new['RecipientTypeDetails']}")
        if after["source"][OUTSIDER]["RecipientTypeDetails"] != "UserMailbox":
            raise DemoFailed(f"{OUTSIDER} was to stay and did not")
        say("\n== What the source's administrator sees")
        self.outbound = self.source.run("Get-OutboundMigration")
        table(self.outbound, ["Identity", "State", "ItemsServed", "BytesServed", "LockMilliseconds"])
        say("\n== Mail to the old addresses")
        self.send_mail(2)

    # --- the result -----------------------------------------------------------------------------------------------------------

    def lock_milliseconds(self) -> int:
        """The longest lock; every moved mailbox must report one."""
        times = [one.get("LockMilliseconds") for one in self.outbound if one.get("LockMilliseconds") is not None]
        if len(times) < len(generate.MAILBOXES):
            raise DemoFailed(f"lock times of {len(times)} mailboxes, not {len(generate.MAILBOXES)}: {self.outbound}")
        return max(times)

    def verify(self) -> dict:
        """Stops the servers, runs the checker, writes the summary."""
        wire, lock, clean = self.line.octets(), self.lock_milliseconds(), [side.stop() for side in (self.target, self.source)]
        say("\n== The checker compares the target's files with what was written down before")
        os.makedirs(RESULT_FOLDER, exist_ok=True)
        result_file = os.path.join(RESULT_FOLDER, "check.json")
        subprocess.run([sys.executable, os.path.join(HERE, "check.py"), self.manifest_file, "--journal", self.journal_file,
                        "--json", result_file, self.target.path("mail")], stdout=subprocess.DEVNULL, check=False)
        with open(result_file, encoding="utf-8") as file:
            result = json.load(file)
        expected = state.expected(self.manifest, state.read_journal(self.journal_file))
        items = [item for mailbox in expected for folder in mailbox["folders"] for item in folder["items"]]
        summary = {
            "seed": self.seed,
            "mailboxes_moved": result["mailboxes_found"],
            "items_moved": result["items_found"] - result.get("routed_after_cutover", 0),
            "bytes_moved": sum(item["length"] for item in items),
            "bytes_on_wire": wire,
            "items_missing": result["items_missing"] + result["messages_missing"],
            "items_duplicated": result["items_duplicated"] + result["messages_duplicated"],
            "items_altered": result["items_altered"] + result["messages_altered"],
            "items_foreign": result["items_foreign"],
            "flags_wrong": result["flags_wrong"], "dates_wrong": result["dates_wrong"],
            "folders_missing": result["folders_missing"], "folders_extra": result["folders_extra"],
            "lock_ms_max": lock,
            "routed_after_cutover": result.get("routed_after_cutover", 0),
            "refusals": self.refusals,
            "isolation": self.source.isolation,
            "servers_stopped_cleanly": all(clean),
            "seconds": round(time.monotonic() - self.started, 1),
        }
        with open(os.path.join(RESULT_FOLDER, "summary.json"), "w", encoding="utf-8") as file:
            json.dump(summary, file, indent=2)
            file.write("\n")
        say(json.dumps(summary, indent=2))
        for detail in result["details"][:20]:
            say(f"   FAULT {json.dumps(detail, ensure_ascii=False)}")
        sent = len(self.account.steps(2, ("send",)))
        if not (result["ok"] and result["mailboxes_found"] == len(generate.MAILBOXES) and summary["routed_after_cutover"] == sent):
            raise DemoFailed("the target is not what the source was; see the faults above")
        return summary

    def prepare(self):
        """Everything up to the batch."""
        self.write_mail()
        self.start_servers()
        self.adopt()
        self.build_trust()
        self.prepare_mail_users()

    def move(self):
        """The batch from start to end."""
        self.start_batch()
        self.first_sync()
        self.changes_and_sync_now()
        self.complete()

    def close(self, failed: bool):
        """Stops what runs and tidies up; after a failure the ends of both logs are shown."""
        for side in (self.target, self.source):
            side.stop()
        if self.line:
            self.line.stop()
        if failed:
            for side in (self.source, self.target):
                say(f"\n-- last lines of the {side.name}'s log\n{side.last_lines()}")
        if os.environ.get("KEEP") == "1":
            say(f"kept: {self.base}")
        else:
            shutil.rmtree(self.base, ignore_errors=True)


def run_demo(seed: int) -> int:
    """The whole story once."""
    demo, failed = Demo(seed, patience=60), True
    try:
        demo.prepare()
        demo.test_both_ways()
        demo.move()
        demo.verify()
        failed = False
        say("\nEvery message arrived exactly once, unaltered, with its flags and date.")
    except (DemoFailed, subprocess.TimeoutExpired, OSError, smtp_send.smtplib.SMTPException) as error:
        say(f"\nFAILED: {error}")
    finally:
        demo.close(failed)
    return 1 if failed else 0


def main() -> int:
    try:
        if sys.argv[1:] == ["--selftest"]:
            import selftest  # pylint: disable=import-outside-toplevel
            return selftest.run()
        if sys.argv[1:]:
            print(__doc__, file=sys.stderr)
            return 2
        return run_demo(int(os.environ.get("SEED", "1")))
    except DemoFailed as error:
        say(f"FAILED: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
