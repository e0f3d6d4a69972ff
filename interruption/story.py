"""One mailbox moves from one organisation to the other: set up once, then told as often as it is cut."""

import base64
import os
import shutil
import sqlite3
import subprocess
import time

import changes
import judge
import mail
import material
from organisation import Failed, Organisation, Refused, error_ids, free_port

SOURCE, TARGET, USER = "contoso.example", "fabrikam.example", "press"
OLD, NEW = f"{USER}@{SOURCE}", f"{USER}@{TARGET}"
BATCH, ENDPOINT, GROUP, REDIRECT = "wave", "contoso", "leaving", "https://office.com"
FAILED = ("Failed", "IncrementalFailed", "CompletionFailed", "Corrupted", "Stopped", "IncrementalStopped")
DONE = ("Completed", "CompletedWithWarnings")
# Kinds of the report that say why an item is not at the target.
ABSENT = dict.fromkeys(("Bad", "TooLarge", "Refused", "Missing", "Skipped"), "Skipped")


class Stuck(Exception):
    """The move does not get on; the text says where it stands."""


class Maildirs:
    """Both mailboxes are Maildirs in the organisations' own folders."""

    kind = "maildir"
    more_words = ()

    def held_by_target(self, expected: dict) -> tuple:
        """What a target of this kind makes of a mailbox, and what is to be reported of it."""
        return expected, []

    def fill(self, template: "Template", seed: int):
        template.mailbox = material.write(seed, template.source.folder, USER)
        template.steps = material.plan(seed, template.mailbox)

    def lines(self, organisation: Organisation, slot) -> list:
        return ['driver = "maildir"', f'root = "{organisation.path("mail")}"']

    def environment(self, slot):
        """What a slot needs beside the organisations' folders."""

    def renew(self, slot, run: int):
        """Before each story."""

    def change(self, story: "Story", number: int):
        root = story.source.path("mail", USER)
        steps = changes.with_files(story.expected, story.template.steps[number])
        story.changes_maildir(root, steps)
        story.expected = material.changed(story.expected, steps, material.letters_kept)

    def is_closed(self, story: "Story") -> bool:
        return not os.path.exists(story.source.path("mail", USER))

    def looks(self, story: "Story") -> tuple:
        """What both sides hold in the end: source, target."""
        closed = story.source.path("mail", ".rehome", "closed")
        kept = os.listdir(closed) if os.path.isdir(closed) else []
        if len(kept) != 1 or os.path.exists(story.source.path("mail", USER)):
            raise Stuck(f"the old content is not closed: {kept}")
        tenant = story.target.path("mail", story.target.tenant)
        shown = [name for name in os.listdir(tenant) if name.startswith(f"{USER}-")] if os.path.isdir(tenant) else []
        if len(shown) != 1:
            raise Stuck(f"there is not one new mailbox: {shown}")
        staging = story.target.path("mail", ".rehome", "staging")
        if os.path.isdir(staging) and os.listdir(staging):
            raise Stuck(f"staging is not empty: {os.listdir(staging)}")
        return judge.read_maildir(os.path.join(closed, kept[0])), judge.read_maildir(os.path.join(tenant, shown[0]))


class Template:
    """Two organisations that trust each other, with mail, stopped. `mailbox`: what is in the source's; `steps`: two lists of changes."""

    def __init__(self, platforms, base: str, binary: str, seed: int):
        self.platforms, self.base, self.seed = platforms, base, seed
        self.source = Organisation("source", SOURCE, os.path.join(base, "source"), binary, free_port())
        self.target = Organisation("target", TARGET, os.path.join(base, "target"), binary, free_port())
        self.mailbox, self.steps, self.servers = {}, [], None

    def configure(self, source: Organisation, target: Organisation, slot):
        source.configure(target, self.platforms.lines(source, slot))
        target.configure(source, self.platforms.lines(target, slot))

    def set_up(self):
        """Does what both administrators do before mail can move."""
        for side in (self.source, self.target):
            side.set_up()
        self.platforms.fill(self, self.seed)
        self.configure(self.source, self.target, self)
        for side in (self.source, self.target):
            side.start()
        for side in (self.source, self.target):
            if not side.listens():
                raise Failed(f"the {side.name} does not start:\n{side.last_lines()}")
            side.new_tenant()
        self.build_trust()
        for side in (self.source, self.target):
            if not side.stop():
                raise Failed(f"the {side.name} did not stop in order:\n{side.last_lines()}")
            os.unlink(side.path("log"))
        self.close()

    def close(self):
        """Ends what is left of setting up."""
        for side in (self.source, self.target):
            side.kill()
        if self.servers:
            self.servers.stop()

    def build_trust(self):
        source, target = self.source, self.target
        file = source.private_file("import.csv", f"EmailAddress,Name,Location\n{OLD},{USER},{USER}\n")
        source.command("Import-Mailbox", "-Platform", "mail", "-CSVData", file)
        app = target.command("New-MgApplication", "-DisplayName", "Mailbox moves", "-SignInAudience", "AzureADMultipleOrgs",
                             "-RedirectUris", REDIRECT, "-RequiredPermissions", "Mailbox.Migration")[0]["AppId"]
        secret = target.command("Add-MgApplicationPassword", "-ApplicationId", app)[0]["SecretText"]
        granted = target.command("New-MgServicePrincipalAppRoleAssignment", "-ServicePrincipalId", app, "-RemoteServer", source.server,
                                 "-RemoteTenant", SOURCE)[0]
        source.command("consent", granted["ConsentLink"], "--yes")
        file = target.private_file("endpoint.json", {"UserName": app, "Password": secret})
        target.command("New-MigrationEndpoint", "-Name", ENDPOINT, "-ExchangeRemoteMove", "-RemoteServer", source.server,
                       "-RemoteTenant", SOURCE, "-ApplicationId", app, "--credentials-file", file)
        target.command("New-OrganizationRelationship", "contoso", "-DomainNames", source.tenant, "-Enabled:true",
                       "-MailboxMoveEnabled:true", "-MailboxMoveCapability", "Inbound")
        source.command("New-DistributionGroup", GROUP, "-Type", "Security")
        source.command("Add-DistributionGroupMember", GROUP, "-Member", OLD)
        source.command("New-OrganizationRelationship", "fabrikam", "-DomainNames", target.tenant, "-Enabled:true",
                       "-MailboxMoveEnabled:true", "-MailboxMoveCapability", "RemoteOutbound", "-OAuthApplicationId", app,
                       "-MailboxMovePublishedScopes", GROUP)
        mailbox = source.command("Get-Mailbox", OLD)[0]
        target.command("New-MailUser", USER, "-ExternalEmailAddress", OLD, "-PrimarySmtpAddress", NEW)
        target.command("Set-MailUser", USER, "-EmailAddresses", f'@{{Add="x500:{mailbox["LegacyExchangeDN"]}"}}',
                       "-ExchangeGuid", mailbox["ExchangeGuid"])


class Slot:
    """A place where one story at a time is told: a folder, ports, and servers that stay."""

    def __init__(self, template: Template, folder: str):
        self.template, self.folder, self.runs, self.servers = template, folder, 0, None
        os.makedirs(folder)
        self.source = template.source.copy_at(os.path.join(folder, "source"))
        self.target = template.target.copy_at(os.path.join(folder, "target"))
        template.platforms.environment(self)

    def renew(self):
        """Both organisations as they were before the batch."""
        self.runs += 1
        for side, original in ((self.source, self.template.source), (self.target, self.template.target)):
            side.kill()
            shutil.rmtree(side.folder, ignore_errors=True)
            subprocess.run(["cp", "-a", "--reflink=auto", original.folder, side.folder], check=True)
            side.smtp_port = side.smtp_port or free_port()
        self.template.platforms.renew(self, self.runs)
        self.template.configure(self.source, self.target, self)

    def close(self):
        for side in (self.source, self.target):
            side.kill()
        if self.servers:
            self.servers.stop()


class Story:
    """One telling. `cut`: what interrupts it (None: nothing); see cuts.py."""

    def __init__(self, slot: Slot, cut, patience: float = 60):
        self.slot, self.template, self.cut, self.patience = slot, slot.template, cut, patience
        self.source, self.target = slot.source, slot.target
        self.expected = self.template.mailbox
        self.letters = mail.Letters(patience)
        self.restarts, self.stages, self.before_cut = 0, [], ""

    # --- what may be cut --------------------------------------------------------------------------------------------------

    def stage(self, name: str):
        self.stages.append((name, time.monotonic()))
        if self.cut:
            self.cut.stage(self, name)
        if self.cut is None or not self.cut.done:
            self.before_cut = name

    def tend(self):
        """Takes up again what was cut."""
        for side in (self.source, self.target):
            while side.died():
                if self.cut is None or not self.cut.caused(self, side):
                    raise Stuck(f"the {side.name} ended by itself with {side.process.returncode}")
                self.restarts += 1
                side.start(self.cut.afterwards(self, side))
                side.listens()

    def pause(self, seconds: float = 0.03):
        time.sleep(seconds)
        self.tend()

    def asks(self, side: Organisation, cmdlet: str, known: tuple = (), **parameters) -> list:
        """Asks until there is an answer. `known`: ids of errors which say that it is done already."""
        deadline = time.monotonic() + self.patience
        while True:
            self.tend()
            try:
                return side.asks(cmdlet, **parameters)
            except Refused as refused:
                if refused.id in known:
                    return []
                raise Stuck(str(refused)) from refused
            except OSError as error:
                if time.monotonic() > deadline:
                    raise Stuck(f"{cmdlet}: {error}") from error
                self.pause()

    def user(self) -> dict:
        found = self.asks(self.target, "Get-MigrationUser", Identity=NEW)
        return found[0] if found else {}

    def waits(self, what: str, is_so, approve: bool = True) -> dict:
        """Until `is_so(user)`; what the platform cannot hold is approved, as an administrator does who has looked."""
        deadline = time.monotonic() + self.patience
        while True:
            user = self.user()
            if user and is_so(user):
                return user
            if user.get("Status") in FAILED:
                raise Stuck(f"{what}: {user['Status']}: {user.get('ErrorSummary')}")
            if approve and "SkippedItemsNotApproved" in str(user.get("ErrorSummary")):
                self.asks(self.target, "Set-MigrationBatch", Identity=BATCH, ApproveSkippedItems=True)
            if time.monotonic() > deadline:
                raise Stuck(f"{what}: {user.get('Status')} {user.get('StatusSummary')} {error_ids([user])} {user.get('ErrorSummary')}; "
                            f"waits for {user.get('WaitingFor')}")
            self.pause()

    def changes_maildir(self, root: str, steps: list):
        """Another program changes the Maildir. A power cut forgets only what that program did not sync, and it syncs."""
        if self.cut and self.cut.changes(self, root, steps):
            return
        changes.carry_out(root, steps)

    # --- the story --------------------------------------------------------------------------------------------------------

    def begin(self):
        self.slot.renew()
        if self.cut:
            self.cut.arm(self)
        for side in (self.source, self.target):
            side.start(self.cut.before(self, side) if self.cut else {"REHOME_FAULT_LOG": side.path("steps")})
        for side in (self.source, self.target):
            side.listens()
        self.stage("started")

    def copies(self):
        rows = base64.b64encode(f"EmailAddress\n{NEW}\n".encode()).decode()
        self.letters.send("before the batch", self.source.smtp_port, OLD)
        self.asks(self.target, "New-MigrationBatch", ("ObjectAlreadyExistsException",),
                  Name=BATCH, SourceEndpoint=ENDPOINT, TargetDeliveryDomain=TARGET, CSVData=rows, AutoStart=True,
                  **dict.fromkeys(self.template.platforms.more_words, True))
        self.waits("first copy", lambda user: user["Status"] == "Synced")
        self.stage("synced")

    def syncs_again(self):
        self.letters.send("after the first copy", self.source.smtp_port, OLD)
        self.template.platforms.change(self, 0)
        before = self.user().get("LastSuccessfulSyncTime")
        self.asks(self.target, "Set-MigrationBatch", Identity=BATCH, SyncNow=True)
        self.waits("second pass", lambda user: user["Status"] == "Synced" and user.get("LastSuccessfulSyncTime") != before)
        self.stage("synced again")

    def completes(self):
        self.template.platforms.change(self, 1)
        self.letters.send_all_the_while("during the cutover", self.source.smtp_port, OLD, 0.3)
        self.asks(self.target, "Complete-MigrationBatch", ("InvalidOperationException",), Identity=BATCH)
        self.waits("cutover", lambda user: user["Status"] in DONE)
        self.stage("completed")
        deadline = time.monotonic() + self.patience
        while True:
            rows = [row for row in self.asks(self.source, "Get-OutboundMigration") if row["Identity"] == USER]
            if rows and rows[0]["State"] == "Moved" and self.template.platforms.is_closed(self):
                break
            if time.monotonic() > deadline:
                raise Stuck(f"the source has not closed the old content: {rows}")
            self.pause()
        self.letters.send("to the old address", self.source.smtp_port, OLD)
        self.letters.send("to the new address", self.target.smtp_port, NEW)
        self.letters.end()
        while not self.letters.are_taken():
            self.pause()
        self.stage("closed")

    def kinds(self):
        """Exactly one side has the mailbox."""
        for side, address, wanted in ((self.source, OLD, "MailUser"), (self.target, NEW, "UserMailbox")):
            found = self.asks(side, "Get-Recipient", Identity=address)
            if [one["RecipientTypeDetails"] for one in found] != [wanted]:
                raise Stuck(f"{address} is {found}")

    def reported(self) -> list:
        """What the engine's own report names: (kind, folder, uid) of each item that is not as at the source."""
        found = self.asks(self.target, "Get-MigrationUserStatistics", Identity=NEW, IncludeSkippedItems=True)
        items = (found[0].get("SkippedItems") or []) if found else []
        kinds = [(ABSENT.get(item["Kind"], item["Kind"]), item) for item in items]
        return [(kind, item["FolderName"], item["Uid"]) for kind, item in kinds if kind in ("Skipped", "Altered", "Flags", "Date")]

    def tells(self) -> dict:
        """From beginning to end; the result says what was found."""
        started, result = time.monotonic(), {"stuck": 0, "details": []}
        verdict = judge.Judge()
        try:
            self.begin()
            self.copies()
            self.syncs_again()
            self.completes()
            self.kinds()
            reported = self.reported()
            stopped = self.ends()
            source, target = self.template.platforms.looks(self)
            self.judges(verdict, source, target, reported)
            result["repeated_by_smtp"] = verdict.mail(self.letters.letters, source, target, self.restarts)
            for failure in self.letters.failures + stopped:
                raise Stuck(failure)
        except Stuck as stuck:
            result["stuck"] = 1
            result["details"].append({"fault": "stuck", "what": str(stuck)})
        finally:
            self.letters.stop()
            for side in (self.source, self.target):
                side.kill()
        result |= verdict.counts()
        result["details"] += verdict.report.details
        result["stage"] = self.before_cut
        result["seconds"] = round(time.monotonic() - started, 2)
        return result

    def judges(self, verdict: judge.Judge, source: dict, target: dict, reported: list):
        """The source as it was; the target so too, but for what its platform is known to refuse or alter."""
        held, planted = self.template.platforms.held_by_target(self.expected)
        verdict.mailbox("source", self.expected, source)
        verdict.mailbox("target", held, target)
        verdict.planted(judge.Counter(planted), judge.Counter(reported))

    def ends(self) -> list:
        """Stops both; each must do so in order and leave a whole database."""
        faults = []
        for side in (self.target, self.source):
            if not side.stop():
                faults.append(f"the {side.name} did not stop in order")
            # It has been closed in order, so all of it is in the one file.
            database = sqlite3.connect(f"file:{side.path('data', 'state.sqlite')}?immutable=1", uri=True)
            said = database.execute("PRAGMA integrity_check").fetchone()[0]
            database.close()
            if said != "ok":
                faults.append(f"the {side.name}'s database is not whole: {said}")
        return faults
