"""The other programs: how each copies one mailbox, and what it leaves out."""

import json
import os
import shutil

import measure
from measure import ToolFailed
from servers import PASSWORD, Dovecot, write


class Job:
    """One copy: from a user of one server to a user of another. `source_port` differs from the server's on a delayed line."""

    def __init__(self, source, source_user, target, target_user, work, patience, folders=None):
        self.source, self.source_user, self.target, self.target_user = source, source_user, target, target_user
        self.source_port, self.work, self.patience = source.port if source else None, work, patience
        self.folders = folders or []  # (path, messages), for tools that are run once a folder

    def path(self, *names) -> str:
        return os.path.join(self.work, *names)

    def private(self, name: str, text: str) -> str:
        write(self.path(name), text, 0o600)
        return self.path(name)


def reference(binary: str, *arguments) -> list:
    return [binary, *(str(argument) for argument in arguments)]


class Tool:
    """`pairs` says between which kinds of store it works; `slow` runs once however often the others are repeated."""

    pairs, slow, drop_header, own_clock, exact = ("imap",), False, None, False, True

    def __init__(self, name: str, group: str, leaves_out: str):
        self.name, self.group, self.leaves_out = name, group, leaves_out

    def commands(self, job: Job) -> list:
        raise NotImplementedError

    def environment(self, _job: Job) -> dict:
        return {}

    def copy(self, job: Job) -> dict:
        """Copies once; the time is that of the processes, from start to end, unless they tell their own."""
        before = [server.cpu() if server else 0.0 for server in (job.source, job.target)]
        ended = measure.run(self.commands(job), job.work, job.patience, self.environment(job))
        after = [server.cpu() if server else 0.0 for server in (job.source, job.target)]
        seconds = ended.seconds
        if self.own_clock:
            seconds = json.loads(ended.output[0].splitlines()[-1])["seconds"]
        return {"seconds": seconds, "cpu_client": ended.cpu, "cpu_source": after[0] - before[0], "cpu_target": after[1] - before[1],
                "memory": ended.memory}

    again = copy  # the same command brings a copy up to date

    def close(self):
        """Ends what runs longer than one copy."""


class LimitWrite(Tool):
    own_clock, exact = True, False

    def __init__(self, binary: str, set_arguments: list, connections: int):
        super().__init__(f"limit-write-{connections}", "limit-write", "reads nothing: a stream made beforehand, the server's own speed")
        self.binary, self.set_arguments, self.connections = binary, set_arguments, connections

    def commands(self, job):
        return [reference(self.binary, "limit-write", *self.set_arguments, "--connections", self.connections,
                          "--imap", job.target.address, "--user", job.target_user, "--password-file", job.target.password_file)]


class LimitCopy(Tool):
    own_clock = True

    def __init__(self, binary: str, connections: int):
        super().__init__(f"limit-copy-{connections}", "limit-copy", "no safety at all: no digests, no record of what was done, nothing read back, no TLS")
        self.binary, self.connections = binary, connections

    def commands(self, job):
        return [reference(self.binary, "limit-copy", "--connections", self.connections,
                          "--from", f"127.0.0.1:{job.source_port}", "--from-user", job.source_user, "--to", job.target.address,
                          "--to-user", job.target_user, "--password-file", job.target.password_file)]


class PlainWrite(Tool):
    pairs, own_clock = ("maildir",), True

    def __init__(self, binary: str, writers: int):
        super().__init__(f"plain-write-{writers}", "plain-write",
                         "reads before the time counts, writes no list of uids, nothing is compared: the disk's own speed")
        self.binary, self.writers = binary, writers

    def commands(self, job):
        return [reference(self.binary, "plain-write", "--from", job.path("source"), "--to", job.path("target"), "--writers", self.writers)]


class Mbsync(Tool):
    """One process, or several side by side with the folders divided among them."""

    drop_header = "X-TUID"

    def __init__(self, processes: int):
        super().__init__("mbsync" if processes == 1 else f"mbsync-x{processes}", "mbsync",
                         "drops keywords and, as set up by default, dates; adds a header X-TUID to each message; reads nothing back")
        self.processes = processes

    def commands(self, job):
        shares = [[] for _ in range(self.processes)]
        for path, _ in sorted(job.folders, key=lambda one: -one[1]):
            min(shares, key=lambda share: sum(dict(job.folders)[name] for name in share)).append(path)
        commands = []
        for index, share in enumerate(shares):
            state = job.path(f"state-{index}")
            os.makedirs(state, exist_ok=True)
            patterns = " ".join(f'"{path}"' for path in share) if self.processes > 1 else "*"
            config = job.private(f"mbsyncrc-{index}", "".join(
                f"IMAPAccount {side}\nHost 127.0.0.1\nPort {port}\nUser {user}\nPass {PASSWORD}\nSSLType None\nAuthMechs LOGIN\n"
                f"\nIMAPStore {side}\nAccount {side}\n\n"
                for side, port, user in (("far", job.source_port, job.source_user), ("near", job.target.port, job.target_user)))
                + f"Channel all\nFar :far:\nNear :near:\nPatterns {patterns}\nCreate Near\nExpunge Near\nSync Pull\nSyncState {state}/\n")
            commands.append(["mbsync", "-q", "-c", config, "all"])
        return commands


class OfflineImap(Tool):
    slow, exact = True, False

    def __init__(self):
        super().__init__("offlineimap", "offlineimap", "drops keywords; writes messages anew through a parser (see the column of altered ones); run once")

    def commands(self, job):
        def repository(name, port, user, more):
            return (f"[Repository {name}]\ntype = IMAP\nremotehost = 127.0.0.1\nremoteport = {port}\nremoteuser = {user}\n"
                    f"remotepass = {PASSWORD}\nssl = no\nstarttls = no\nauth_mechanisms = LOGIN\nmaxconnections = 1\n{more}\n")
        config = job.private("offlineimaprc", f"[general]\naccounts = all\nmetadata = {job.path('state')}\nui = quiet\n"
                             "[Account all]\nlocalrepository = near\nremoterepository = far\n"
                             + repository("far", job.source_port, job.source_user, "readonly = True")
                             + repository("near", job.target.port, job.target_user, ""))
        return [["offlineimap", "-o", "-c", config]]

    def environment(self, job):
        return {"HOME": job.work}


class DoveadmBackup(Tool):
    def __init__(self):
        super().__init__("doveadm-backup", "doveadm-backup", "into a Dovecot only; a one-way mirror that removes what is only in the target; reads nothing back")

    def commands(self, job):
        with open(job.target.config, encoding="utf-8") as file:
            text = file.read()
        # The client's settings beside the server's own; with prefetching, which it does not have by default.
        text += (f"\nimapc_host = 127.0.0.1\nimapc_port = {job.source_port}\nimapc_user = {job.source_user}\nimapc_password = {PASSWORD}\n"
                 "imapc_features = rfc822.size fetch-headers\nmail_prefetch_count = 20\n")
        return [["doveadm", "-c", job.private("doveadm.conf", text), "backup", "-R", "-u", job.target_user, "imapc:"]]


class DsyncFiles(Tool):
    pairs = ("maildir",)

    def __init__(self):
        super().__init__("dsync-files", "dsync", "into a Dovecot only; a one-way mirror; reads nothing back")

    def commands(self, job):
        with open(job.target.config, encoding="utf-8") as file:
            text = file.read()
        text = text.replace(f"maildir:{job.target.mail}/%u", f"maildir:{job.path('target')}")
        # Otherwise it gives the same files a second name, which two organisations' disks cannot.
        text += "\nmaildir_copy_with_hardlinks = no\n"
        return [["doveadm", "-c", job.private("doveadm.conf", text), "backup", "-R", "-u", job.target_user, f"maildir:{job.path('source')}"]]


class Imapsync(Tool):
    def __init__(self, script: str):
        super().__init__("imapsync", "imapsync", "knows messages by header lines; compares no octets")
        self.script = script

    def commands(self, job):
        secret = job.private("password", PASSWORD)
        return [["perl", self.script, "--host1", "127.0.0.1", "--port1", str(job.source_port), "--user1", job.source_user, "--passfile1", secret,
                 "--host2", "127.0.0.1", "--port2", str(job.target.port), "--user2", job.target_user, "--passfile2", secret, "--nossl1", "--nossl2",
                 "--notls1", "--notls2", "--nolog", "--noreleasecheck", "--nofoldersizes", "--nofoldersizesatend", "--tmpdir", job.work,
                 "--pidfile", job.path("pid")]]


def available(binary: str, set_arguments: list, skipped: list) -> list:
    """Every tool that is installed; for the others a line goes to `skipped`."""
    tools = [LimitWrite(binary, set_arguments, 1), LimitWrite(binary, set_arguments, 4), LimitCopy(binary, 1), LimitCopy(binary, 4),
             PlainWrite(binary, 1), PlainWrite(binary, 4)]
    for program, made in (("mbsync", [Mbsync(1), Mbsync(4)]), ("doveadm", [DoveadmBackup(), DsyncFiles()]), ("offlineimap", [OfflineImap()])):
        if shutil.which(program):
            tools += made
        else:
            skipped += [f"{tool.name}: skipped, {program} is not installed" for tool in made]
    script = os.environ.get("IMAPSYNC", "")
    if script and os.path.isfile(script):
        tools.append(Imapsync(os.path.abspath(script)))
    else:
        skipped.append(f"imapsync: skipped, {'there is no ' + script if script else 'the variable IMAPSYNC names no script'}")
    return tools


__all__ = ["Job", "Tool", "ToolFailed", "available", "Dovecot"]
