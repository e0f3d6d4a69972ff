"""The benchmark: Rehome beside other programs, on real servers on this machine.

    make bench                                     (python3 bench/run.py)
    make bench SCENARIO=copy SET=S SIZE=5000 REPEAT=3 TOOLS=rehome,mbsync

Variables of the environment:
    SCENARIO     of copy, distance, delta, lock, large; all but large unless given
    SET, SIZE    the mail: S averages 45 KB with a heavy tail, M is small, L has 5 to 20 MB each; S and 5000 unless given
    REPEAT       runs of each tool, interleaved; 3
    TOOLS        tools or groups of tools (rehome, mbsync, limit-copy, ...); all that are installed
    PAIRS        of dovecot-dovecot, dovecot-cyrus, cyrus-dovecot, maildir-maildir; all but the third
    SEED         of the mail; 1
    FSYNC        Dovecot's mail_fsync; optimized, its own default, which is durable
    EATMYDATA    1: Cyrus without its syncs, which dominate otherwise; 0: with them
    IMAPSYNC     path of imapsync's script; left out unless given
    RTT          round trip in ms of the scenario distance; 50
    DELTA_SIZES  messages of the scenario delta; 20000 (DELTA_FOLDERS: 40)
    LOCK_SIZE, LOCK_RUNS, LOCK_PAIR   of the scenario lock; 5000, 3, dovecot-dovecot
    LARGE        octets of the scenario large; 200000000,1500000000
    SETTLE       seconds to wait after a former run deleted its mail, which slows what follows; 300
    PATIENCE     seconds that one copy may take; 900
    KEEP         1: keeps the mail below target/bench/work

Results are in target/bench/results.md and results.json, written anew after each run.
"""

import fcntl
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import mail
import measure
import report
import tools as others
from measure import ToolFailed
from rehome import Line, Rehome
from servers import Cyrus, Dovecot
from tools import Job

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUTPUT = os.path.join(PROJECT, "target", "bench")
DELETED = os.path.join(OUTPUT, "deleted")  # its date: when mail was last deleted
RELEASE = os.path.join(PROJECT, "target", "release")
DEFAULTS = {"SCENARIO": "copy,distance,delta,lock", "SET": "S", "SIZE": "5000", "REPEAT": "3", "TOOLS": "",
            "PAIRS": "dovecot-dovecot,dovecot-cyrus,maildir-maildir", "SEED": "1", "FSYNC": "optimized", "EATMYDATA": "1", "IMAPSYNC": "", "RTT": "50",
            "DELTA_SIZES": "20000", "DELTA_FOLDERS": "40", "LOCK_SIZE": "5000", "LOCK_RUNS": "3", "LOCK_PAIR": "dovecot-dovecot",
            "LARGE": "200000000,1500000000", "SETTLE": "300", "PATIENCE": "900", "KEEP": ""}
SCENARIOS = ("copy", "distance", "delta", "lock", "large")
SPARE_OCTETS = 6_000_000_000  # of the disk, never used
LATE = {"flags": 40, "deletions": 20, "additions": 40}
CHANGES = {"flags": 100, "deletions": 100, "additions": 100}


def say(text: str):
    print(text, flush=True)


class Source:
    """A filled mailbox with its manifest."""

    def __init__(self, server, user, place, manifest, facts):
        self.server, self.user, self.place, self.manifest, self.facts = server, user, place, manifest, facts


class Bench:
    def __init__(self, settings: dict):
        self.settings = settings
        self.bench = os.path.join(RELEASE, "rehome-bench")
        self.rehome = os.environ.get("REHOME_BIN", os.path.join(RELEASE, "rehome"))
        self.work = os.path.join(OUTPUT, "work", f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        os.makedirs(self.work)
        for folder in (PROJECT, OUTPUT, os.path.dirname(self.work), self.work):
            os.chmod(folder, os.stat(folder).st_mode | 0o011)  # servers of other users pass through
        self.report = report.Report(OUTPUT, {name: settings[name] for name in DEFAULTS})
        self.settle()
        self.corpus, told = mail.corpus(PROJECT, OUTPUT)
        self.note(f"Mail is made from {told}.")
        self.servers, self.sources, self.jobs, self.old = {}, {}, 0, []
        self.tools = self.choose_tools()

    def note(self, text: str):
        say(f"   {text}")
        if text not in self.report.notes:
            self.report.notes.append(text)

    def settle(self):
        """Waits until the disk has got over the last run's deletion: for minutes it makes writing dearer."""
        try:
            since = time.time() - os.path.getmtime(DELETED)
        except FileNotFoundError:
            return
        rest = self.number("SETTLE") - since
        if rest > 0:
            say(f"   the last run's mail was deleted just now: waiting {rest:.0f} s for the disk (SETTLE=0 does not)")
            time.sleep(rest)

    def number(self, name: str) -> int:
        return int(self.settings[name])

    def choose_tools(self) -> list:
        skipped = []
        mine = [Rehome(self.rehome, self.bench, connections, read_back) for connections in (1, 4) for read_back in (True, False)]
        found = mine + others.available(self.bench, self.set_arguments(), skipped)
        wanted = [name for name in re.split(r"[,\s]+", self.settings["TOOLS"]) if name]
        unknown = [name for name in wanted if not any(name in (tool.name, tool.group) for tool in found) and not any(s.startswith(name) for s in skipped)]
        if unknown:
            raise SystemExit(f"TOOLS: {', '.join(unknown)}: there are {', '.join(tool.name for tool in found)}")
        for line in skipped:
            if not wanted or any(line.startswith(name) for name in wanted):
                self.note(line)
        return [tool for tool in found if not wanted or tool.name in wanted or tool.group in wanted]

    def set_arguments(self, name=None, size=None, folders=None, more=()) -> list:
        return ["--set", name or self.settings["SET"], "--size", size or self.settings["SIZE"], "--folders", folders or 8,
                "--seed", self.settings["SEED"], "--corpus", self.corpus, *more]

    def reference(self, *arguments) -> dict:
        """Runs a subcommand of the bench's own tool; returns what it tells."""
        result = subprocess.run(others.reference(self.bench, *arguments), capture_output=True, text=True, check=False)
        if result.returncode:
            raise ToolFailed(f"rehome-bench {arguments[0]}: {result.stderr.strip()[-500:]}")
        return json.loads(result.stdout.splitlines()[-1])

    # --- servers and mail -----------------------------------------------------------------------------------------------------------

    def server(self, name: str):
        """The server of this name: source, target (Dovecot) or cyrus; started when it is first wanted."""
        if name not in self.servers:
            folder = os.path.join(self.work, name)
            say(f"   starting {name}")
            self.servers[name] = Cyrus(name, folder, self.settings["EATMYDATA"] != "0") if name == "cyrus" else Dovecot(name, folder, self.settings["FSYNC"])
        return self.servers[name]

    def source(self, kind: str, name: str, size: int, folders: int = 8, more=()) -> Source:
        """A source of this kind with this mail, filled once and read once so that its caches are warm."""
        key = (kind, name, size, folders, tuple(more))
        if key in self.sources:
            return self.sources[key]
        say(f"   filling a {kind} source: set {name}, {size:,} messages in {folders} folders")
        manifest = os.path.join(self.work, f"manifest-{len(self.sources)}.tsv")
        made = ["--manifest", manifest, *self.set_arguments(name, size, folders, more)]
        if kind == "maildir":
            server, user, place = None, "", os.path.join(self.work, f"maildir-source-{len(self.sources)}")
            facts = self.reference("fill", *made, "--maildir", place)
            self.reference("check", "--maildir", place, "--manifest", manifest)
        elif kind == "dovecot":
            server = self.server("source")
            user = server.fresh_user()
            place = server.place(user)
            facts = self.reference("fill", *made, "--maildir", place)
            server.give(place)
            self.check(server, user, manifest)
        else:
            server = self.server("cyrus")
            user, place = server.fresh_user(), ""
            facts = self.reference("fill", *made, "--imap", server.address, "--user", user, "--password-file", server.password_file)
            self.check(server, user, manifest)
        facts["by_folder"] = count_folders(manifest)
        self.sources[key] = Source(server, user, place, manifest, facts)
        say(f"   {facts['messages']:,} messages, {facts['octets'] / 1e6:,.0f} MB, {facts['mean']:,} octets on average, {facts['largest']:,} at most")
        return self.sources[key]

    def check(self, server, user: str, manifest: str, drop=None) -> dict:
        return self.reference("check", "--imap", server.address, "--user", user, "--password-file", server.password_file, "--manifest", manifest,
                              *(["--drop-header", drop] if drop else []))

    def job(self, source: Source, pair: str) -> Job:
        """A fresh target for one copy."""
        self.jobs += 1
        work = os.path.join(self.work, f"job-{self.jobs}")
        os.makedirs(work)
        os.chmod(work, 0o755)
        self.make_room(source.facts["octets"])
        kind = pair.partition("-")[2]
        if kind == "maildir":
            job = Job(None, "", self.server("target"), "u399", work, self.number("PATIENCE"))
            shutil.copytree(source.place, job.path("source"), copy_function=os.link)
            os.mkdir(job.path("target"))
            self.server("target").give(job.path("source"), job.path("target"))
        else:
            target = self.server("cyrus" if kind == "cyrus" else "target")
            job = Job(source.server, source.user, target, target.fresh_user(), work, self.number("PATIENCE"), source.facts["by_folder"])
            if kind == "dovecot":
                self.old.append(target.place(job.target_user))
        self.old.append(work)
        return job

    def make_room(self, octets: int):
        """Deletes what older copies left only when the disk asks for it: a large deletion slows what follows."""
        usage = shutil.disk_usage(self.work)
        if usage.free > SPARE_OCTETS + 3 * octets or not self.old:
            return
        self.note("Older copies were deleted between runs for lack of disk space, which slows the next ones.")
        for path in self.old:
            shutil.rmtree(path, ignore_errors=True)
        self.old.clear()
        os.sync()
        time.sleep(60)

    def judge(self, tool, job: Job, source: Source, pair: str) -> dict:
        """Reads the target and fails unless everything is there."""
        if pair == "maildir-maildir":
            place = job.path("target")
            staged = glob.glob(job.path("target", ".rehome", "staging", "*"))
            found = self.reference("check", "--maildir", staged[0] if staged else place, "--manifest", source.manifest)
        else:
            found = self.check(job.target, job.target_user, source.manifest, tool.drop_header)
        if tool.group == "limit-write":
            if found["messages"] != source.facts["messages"]:
                raise ToolFailed(f"{found['messages']} messages are there, {source.facts['messages']} should be")
            return {"messages": found["messages"]}
        wrong = [key for key in ("missing", "extra", *(("altered",) if tool.exact else ()), *(("flags", "keywords", "dates") if tool.group == "rehome" else ()))
                 if found[key]]
        if wrong:
            raise ToolFailed("not complete: " + ", ".join(f"{found[key]} {key}" for key in wrong))
        return found

    # --- scenarios --------------------------------------------------------------------------------------------------------------------

    def one_copy(self, scenario: str, tool, source: Source, pair: str, more: dict, prepare=None) -> None:
        """One timed, verified copy and its record."""
        record = {"scenario": scenario, "tool": tool.name, "pair": pair, "messages": source.facts["messages"], "octets": source.facts["octets"],
                  "leaves_out": tool.leaves_out, **more}
        try:
            job = self.job(source, pair)
            if prepare:
                prepare(job)
            os.sync()
            record["load"] = measure.load()
            record.update(tool.copy(job))
            record["check"] = self.judge(tool, job, source, pair)
            say(f"   {tool.name:22} {record['seconds']:8.2f} s {record['messages'] / record['seconds']:8.0f} messages/s "
                f"{record['octets'] / 1e6 / record['seconds']:7.1f} MB/s  CPU {record['cpu_client']:6.2f} s  "
                f"{record['memory'] / 1e6:6.0f} MB  load {record['load']:.1f}")
        except (ToolFailed, subprocess.SubprocessError, OSError, ValueError, KeyError, StopIteration) as error:
            record["failed"] = f"{type(error).__name__}: {error}"
            say(f"   {tool.name:22} FAILED: {str(error)[:1500]}")
        finally:
            tool.close()
        self.report.add(record)

    def tools_for(self, pair: str) -> list:
        kind = "maildir" if pair == "maildir-maildir" else "imap"
        chosen = [tool for tool in self.tools if kind in tool.pairs]
        if pair.endswith("-cyrus"):
            chosen = [tool for tool in chosen if tool.group != "doveadm-backup" and not tool.slow]
        if kind == "maildir":
            chosen = [tool for tool in chosen if tool.group != "rehome" or tool.connections == 4]
        return chosen

    def copy(self):
        name, size = self.settings["SET"], self.number("SIZE")
        for pair in self.settings["PAIRS"].split(","):
            source = self.source(pair.partition("-")[0], name, size)
            for turn in range(self.number("REPEAT")):
                say(f"== copy {pair}, set {name}, {size:,} messages, run {turn + 1} of {self.settings['REPEAT']}")
                for tool in self.tools_for(pair):
                    if not (tool.slow and turn):
                        self.one_copy("copy", tool, source, pair, {"set": name, "size": size, "run": turn})

    def distance(self):
        """The same copy near and far: for Rehome between the organisations, for others beside the target (the line to the source
        is long) and beside the source."""
        self.note("The delaying line has no loss, slow start or cap on its rate: it flatters whatever sends much at once.")
        name, size, far = self.settings["SET"], self.number("SIZE"), float(self.settings["RTT"])
        source = self.source("dovecot", name, size)
        chosen = [tool for tool in self.tools if tool.name in ("rehome-1", "rehome-4", "rehome-4-noreadback", "limit-copy-1", "limit-copy-4", "mbsync", "imapsync")]
        for turn in range(self.number("REPEAT")):
            say(f"== distance, set {name}, {size:,} messages, run {turn + 1} of {self.settings['REPEAT']}")
            for tool in chosen:
                for long, round_trip in [("", 0.0), *((line, far) for line in (("organisations",) if tool.group == "rehome" else ("source", "target")))]:
                    say(f"   {round_trip:.0f} ms on the line to the {long}:" if long else "   near:")
                    self.far_copy(tool, source, {"set": name, "size": size, "run": turn, "round_trip_ms": round_trip, "long": long})

    def far_copy(self, tool, source: Source, more: dict):
        round_trip = more["round_trip_ms"]
        if tool.group == "rehome":
            tool.round_trip_ms = round_trip
            self.one_copy("distance", tool, source, "dovecot-dovecot", more)
            tool.round_trip_ms = None
            return
        at_target = more["long"] == "target"
        line = Line(self.bench, (self.server("target") if at_target else source.server).port, round_trip)

        def lengthen(job):
            if at_target:
                job.target = Redirected(job.target, line.port)
            else:
                job.source_port = line.port
        try:
            self.one_copy("distance", tool, source, "dovecot-dovecot", more, lengthen)
            self.report.records[-1]["line"] = line.figures()
        finally:
            line.stop()

    def delta(self):
        folders = self.number("DELTA_FOLDERS")
        chosen = [tool for tool in self.tools if tool.name in ("rehome-4", "mbsync", "imapsync")]
        for size in (int(one) for one in self.settings["DELTA_SIZES"].split(",")):
            for tool in chosen:
                if tool.name == "imapsync" and size > 20_000:
                    continue
                say(f"== delta, {size:,} small messages in {folders} folders, {tool.name}")
                # A source of its own for each tool: the changes stay in it.
                source = self.source("dovecot", "M", size, folders, ("--for", tool.name))
                try:
                    self.delta_of(tool, source, size)
                except (ToolFailed, subprocess.SubprocessError, OSError, ValueError, KeyError) as error:
                    say(f"   {tool.name:22} FAILED: {str(error)[:1500]}")
                    self.report.add({"scenario": "delta", "tool": tool.name, "size": size, "failed": str(error)})
                finally:
                    tool.close()

    def delta_of(self, tool, source: Source, size: int):
        job = self.job(source, "dovecot-dovecot")
        counted = {"source": Line(self.bench, job.source.port, 0), "target": Line(self.bench, job.target.port, 0)}
        try:
            if tool.group == "rehome":
                tool.round_trip_ms = 0.0
                tool.organisations = tool.organise(job, lines=(counted["source"], counted["target"]))
                tool.round_trip_ms = None
                counted["between"] = tool.organisations.line
                first, again = (lambda: tool.measured(job, tool.organisations.first_sync)), (lambda: tool.measured(job, tool.organisations.sync_again))
            else:
                job.source_port = counted["source"].port
                job.target = Redirected(job.target, counted["target"].port)
                first = again = lambda: tool.copy(job)
            record = first()
            say(f"   {tool.name:22} first copy {record['seconds']:.2f} s")
            for turn in range(self.number("REPEAT")):
                self.delta_step(tool, again, counted, {"size": size, "step": "nothing changed", "run": turn})
            for turn in range(self.number("REPEAT")):
                self.change(source, CHANGES, turn)
                self.delta_step(tool, again, counted, {"size": size, "step": "100 flags, 100 deletions, 100 additions", "run": turn})
            manifest = os.path.join(job.work, "manifest.tsv")
            self.reference("check", "--imap", source.server.address, "--user", source.user, "--password-file", source.server.password_file, "--record", manifest)
            source.manifest = manifest
            self.judge(tool, job, source, "dovecot-dovecot")
        finally:
            for name in ("source", "target"):
                counted[name].stop()

    def change(self, source: Source, what: dict, turn: int):
        self.reference("change", "--imap", source.server.address, "--user", source.user, "--password-file", source.server.password_file,
                       *(word for name, count in what.items() for word in (f"--{name}", count)),
                       *self.set_arguments("M", what["additions"], 1), "--seed", 1000 + turn, "--unset", turn % 2)

    def delta_step(self, tool, again, counted: dict, more: dict):
        os.sync()
        before = {name: line.figures() for name, line in counted.items()}
        record = {"scenario": "delta", "tool": tool.name, "leaves_out": tool.leaves_out, "load": measure.load(), **more, **again()}
        record["lines"] = {}
        for name, line in counted.items():
            now = line.figures()
            used = {key: now[key] - before[name][key] for key in now}
            record["lines"][name] = {"turns": used["turns"], "octets": used["to_server"] + used["to_client"], "connections": used["connections"]}
        lines = ", ".join(f"{name} {one['turns']} turns {one['octets'] / 1000:.0f} kB" for name, one in record["lines"].items())
        say(f"   {tool.name:22} {more['step']}: {record['seconds']:.3f} s; {lines}")
        self.report.add(record)

    def lock(self):
        """Completions with late changes; each move is a new one, so the mailbox is copied each time."""
        pair, size = self.settings["LOCK_PAIR"], self.number("LOCK_SIZE")
        tool = next((tool for tool in self.tools if tool.name == "rehome-4"), None)
        if tool is None:
            return
        for turn in range(self.number("LOCK_RUNS")):
            say(f"== lock, {pair}, {size:,} small messages, run {turn + 1} of {self.settings['LOCK_RUNS']}")
            record = {"scenario": "lock", "tool": tool.name, "pair": pair, "size": size, "run": turn, "load": measure.load()}
            try:
                source = self.source(pair.partition("-")[0], "M", size, self.number("DELTA_FOLDERS"), ("--for", "lock"))
                job = self.job(source, pair)
                tool.organisations = tool.organise(job)
                tool.organisations.first_sync()
                if pair.startswith("maildir"):
                    change_maildir(job.path("source-root", "mailbox"), LATE)
                else:
                    self.change(source, LATE, turn)
                begun = time.monotonic()
                told = tool.organisations.complete(not pair.startswith("maildir"))
                record.update({"seconds": time.monotonic() - begun, "lock_ms": told["LockMilliseconds"], "lock_round_trips": told["LockRoundTrips"]})
                say(f"   {tool.name:22} lock {record['lock_ms']} ms, {record['lock_round_trips']} round trips under it, completion {record['seconds']:.2f} s")
            except (ToolFailed, subprocess.SubprocessError, OSError, ValueError, KeyError, StopIteration) as error:
                record["failed"] = str(error)
                say(f"   {tool.name:22} FAILED: {str(error)[:1500]}")
            finally:
                tool.close()
            self.report.add(record)

    def large(self):
        chosen = [tool for tool in self.tools if tool.name in ("rehome-4", "limit-copy-1", "mbsync")]
        for octets in (int(one) for one in self.settings["LARGE"].split(",")):
            source = self.source("dovecot", "SIZES", 1, 1, ("--octets", str(octets)))
            say(f"== large, one message of {octets / 1e6:,.0f} MB")
            for tool in chosen:
                bound = None
                if tool.group == "rehome":
                    bound = tool.copy
                    tool.copy = lambda job, made=bound: made(job, 4_294_967_296)
                self.one_copy("large", tool, source, "dovecot-dovecot", {})
                if bound:
                    del tool.copy

    def close(self):
        for server in self.servers.values():
            server.stop()
        self.report.write()
        if self.settings["KEEP"] == "1":
            say(f"kept: {self.work}")
        else:
            shutil.rmtree(self.work, ignore_errors=True)
            with open(DELETED, "w", encoding="utf-8"):
                os.utime(DELETED)


class Redirected:
    """A server seen through a line that counts."""

    def __init__(self, server, port: int):
        self._server, self.port, self.address = server, port, f"127.0.0.1:{port}"

    def __getattr__(self, name):
        return getattr(self._server, name)


def count_folders(manifest: str) -> list:
    counts = {}
    with open(manifest, encoding="utf-8") as file:
        for line in file:
            path = line.partition("\t")[0]
            counts[path] = counts.get(path, 0) + 1
    return list(counts.items())


def change_maildir(root: str, what: dict):
    """Late changes in a Maildir's INBOX, as a server would make them."""
    folder = os.path.join(root, "cur")
    names = sorted(os.listdir(folder))
    for name in names[:what["flags"]]:
        base, _, letters = name.partition(":2,")
        if "F" not in letters:
            os.rename(os.path.join(folder, name), os.path.join(folder, f"{base}:2,{''.join(sorted(letters + 'F'))}"))
    for name in names[-what["deletions"]:]:
        os.unlink(os.path.join(folder, name))
    for number in range(what["additions"]):
        text = f"Message-ID: <late-{number}@contoso.example>\nSubject: late {number}\n\nLate.\n"
        with open(os.path.join(root, "tmp", f"late-{number}"), "w", encoding="ascii") as file:
            file.write(text)
        os.rename(os.path.join(root, "tmp", f"late-{number}"), os.path.join(root, "new", f"{int(time.time())}.M{number}P1.late"))


def main() -> int:
    if sys.argv[1:]:
        print(__doc__)
        return 2
    settings = {name: os.environ.get(name) or value for name, value in DEFAULTS.items()}
    wanted = settings["SCENARIO"].split(",")
    if set(wanted) - set(SCENARIOS):
        print(f"SCENARIO: there are {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    os.makedirs(OUTPUT, exist_ok=True)
    alone = open(os.path.join(OUTPUT, "lock"), "w", encoding="utf-8")  # held until the end
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("another run is measuring on this machine: two at once would measure each other", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped
    bench = Bench(settings)
    try:
        for scenario in wanted:
            getattr(bench, scenario)()
    except ToolFailed as error:
        say(f"FAILED: {error}")
        bench.note(f"Broken off: {error}")
    finally:
        bench.close()
    say(f"\n{bench.report.page()}\nresults: {OUTPUT}/results.md and results.json")
    return 1 if any(record.get("failed") for record in bench.report.records) or not bench.report.records else 0


if __name__ == "__main__":
    sys.exit(main())
