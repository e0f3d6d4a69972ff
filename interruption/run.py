"""Cuts a move at every durable step, carries it to its end, and compares both sides with what must be there.

    python3 interruption/run.py                 all of it (`make interruption`)
    python3 interruption/run.py --sample        40 cuts, one at least at each kind of step (`make test`)
    python3 interruption/run.py --selftest      three planted faults, which must be found
    python3 interruption/run.py --only maildir:kill:target:150 maildir:worst:source:12 'dovecot-cyrus:end to,late:target:3'

SEED=n chooses the mail, what a sample takes and what survives a power cut; it is printed. Results: target/interruption/summary.json,
and cuts.jsonl with a line for each cut. Logs of what went wrong are kept in failed/ beside them.
"""

import argparse
import collections
import json
import os
import queue
import random
import resource
import shutil
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True

import cuts  # noqa: E402
import imap  # noqa: E402
import line  # noqa: E402
import power  # noqa: E402
import story  # noqa: E402
from organisation import Failed  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(HERE)
RESULTS = os.path.join(PROJECT, "target", "interruption")
COUNTS = ("lost", "duplicated", "altered", "flags_wrong", "stuck", "unsynced")
SIDES = ("source", "target")
PLACES = {where: f"{place} {way} the server" for where, place, way in (
    ("before to", line.BEFORE, "to"), ("inside to", line.INSIDE, "to"), ("after to", line.AFTER, "to"), ("end to", line.END, "to"),
    ("before from", line.BEFORE, "from"), ("inside from", line.INSIDE, "from"), ("after from", line.AFTER, "from"),
    ("tagged from", line.TAGGED, "from"))}


def say(text: str = ""):
    print(text, flush=True)


def find_binary() -> str:
    binary = os.path.abspath(os.environ.get("REHOME_BIN", os.path.join(PROJECT, "target", "debug", "rehome-fault")))
    if not os.access(binary, os.X_OK):
        raise Failed(f"{binary} is not there; `make interruption` and `make test` build it")
    with open(binary, "rb") as file:
        if b"REHOME_FAULT_STEP" not in file.read():
            raise Failed(f"{binary} was built without fault-injection")
    return binary


class Stage:
    """One kind of platform: its template, its slots, and what a telling without cuts has."""

    def __init__(self, run: "Run", platforms):
        self.run, self.name, self.slots = run, platforms.kind, []
        self.template = story.Template(platforms, os.path.join(run.base, self.name), run.binary, run.seed)
        self.steps, self.watch = {}, cuts.Watch()

    def __enter__(self):
        say(f"== {self.name}")
        try:
            self.template.set_up()
            self.slots = [story.Slot(self.template, os.path.join(self.run.base, f"{self.name}-{number}")) for number in range(self.run.slots)]
            self.first()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.template.close()
        for slot in self.slots:
            slot.close()

    def first(self):
        """The story without any cut; it must be without fault."""
        slot, result = self.slots[0], self.tells(self.slots[0], self.watch)
        self.steps = {side.name: cuts.read_steps(side.path("steps")) for side in (slot.source, slot.target)}
        if any(result.get(name) for name in COUNTS):
            raise Failed(f"{self.name}: the story fails without any cut: {result['details'][:5]}")
        self.run.known |= set(self.steps["source"]) | set(self.steps["target"])
        say(f"   durable steps: {', '.join(f'{len(names)} of the {side}' for side, names in self.steps.items())}")
        planted = self.template.platforms.held_by_target(self.template.mailbox)[1]
        if planted:
            say(f"   refused or altered by this target, and to be named in the report: {len(planted)} items")
            self.run.planted[self.name] = [list(one) for one in planted]

    def recorded(self):
        """The recorder sees everything: its replay gives the folders as they are."""
        slot, cut = self.slots[0], cuts.Recorded(self.run.library)
        telling = story.Story(slot, cut)
        result = telling.tells()
        differences = cut.compare(telling)
        if differences or any(result.get(name) for name in COUNTS):
            raise Failed(f"the replay of what was recorded differs from what is there: {differences[:5]} {result['details'][:3]}")
        say("   the recorder sees all file operations: their replay gives the same files")

    def tells(self, slot, cut) -> dict:
        result = story.Story(slot, cut).tells()
        self.run.note(self.name, cut, result, slot)
        return result

    def each(self, wanted: list, enough=None):
        """Tells the story once for each cut, in as many threads as there are slots; `enough(result)` ends it early."""
        waiting, failures, ended = queue.SimpleQueue(), [], threading.Event()
        for cut in wanted:
            waiting.put(cut)

        def work(slot):
            try:
                while not failures and not ended.is_set():
                    if enough and enough(self.tells(slot, waiting.get_nowait())):
                        ended.set()
                    elif not enough:
                        self.tells(slot, waiting.get_nowait())
            except queue.Empty:
                pass
            except Exception as error:  # pylint: disable=broad-except
                failures.append(error)

        threads = [threading.Thread(target=work, args=(slot,)) for slot in self.slots]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return ended.is_set()

    # --- which cuts -------------------------------------------------------------------------------------------------------

    def places(self, stride: int = 1, chance=None) -> list:
        """(side, number) of durable steps: all, or every so many from a random one on, but the first and last of each kind always."""
        found = []
        for side in SIDES:
            names = self.steps[side]
            ends = {names.index(name) for name in set(names)} | {len(names) - 1 - names[::-1].index(name) for name in set(names)}
            start = chance.randrange(stride) if chance and stride > 1 else 0
            found += [(side, number + 1) for number in range(len(names)) if number % stride == start or (stride > 1 and number in ends)]
        return found

    def kills(self, stride: int = 1, plant: str = "") -> list:
        return [cuts.Kill(side, number, plant) for side, number in self.places(stride, self.run.chance)]

    def power_cuts(self, mode: str, stride: int = 1) -> list:
        return [cuts.Power(side, number, self.run.library, mode, self.run.seed) for side, number in self.places(stride, self.run.chance)]

    def line_cuts(self, count: int) -> list:
        """`count` cuts of each kind of place, spread over the story; and as many messages that come late."""
        found = []
        for where in SIDES:
            for place in PLACES.values():
                passed = self.watch.passed.get((where, place), 0)
                picked = sorted({max(1, round(passed * part / count)) for part in range(1, count + 1)}) if passed else []
                found += [cuts.LineCut(where, place, number, ("cut", "reset")[index % 2]) for index, number in enumerate(picked)]
        late = self.watch.early.get(("target", PLACES["end to"]), 0)
        found += [cuts.LineCut("target", PLACES["end to"], number, ("late", "soon")[number % 2]) for number in
                  sorted(self.run.chance.sample(range(1, late + 1), min(late, 2 * count)))]
        return found


class Run:
    """All cuts of one run, over two slots for each platform."""

    def __init__(self, seed: int, binary: str, base: str, slots: int, results: str):
        self.seed, self.binary, self.base, self.slots, self.results = seed, binary, base, slots, results
        self.lines, self.lock, self.known, self.planted, self.found = [], threading.Lock(), set(), {}, {}
        self.chance, self.started, self.quiet = random.Random(seed), time.monotonic(), False
        self.library = power.build(base)
        shutil.rmtree(results, ignore_errors=True)
        os.makedirs(os.path.join(results, "failed"))

    def note(self, platform: str, cut, result: dict, slot):
        """One line of the account; where something is wrong, the logs are kept."""
        entry = {"platform": platform, "cut": str(cut), "kind": cut.kind, "step": cut.name, "cut_made": cut.done, "plant": cut.plant} | result
        entry["unsynced"] = 1 if cut.kind == "power" and any(entry.get(name) for name in COUNTS[:-1]) else 0
        wrong = [name for name in COUNTS if entry.get(name)]
        with self.lock:
            self.lines.append(entry)
            with open(os.path.join(self.results, "cuts.jsonl"), "a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            mark = "planted: " if cut.plant else ""
            mark += " ".join(f"{name}={entry[name]}" for name in wrong) or ("ok" if cut.done or cut.kind == "none" else "not reached")
            name = entry["step"] if cut.kind != "line" else ""
            say(f"   {time.monotonic() - self.started:6.0f} s  {entry['cut']:44} {name:26} {entry['seconds']:5.1f} s  {mark}")
            if wrong and not cut.plant:
                say("      " + json.dumps(result["details"][:4], ensure_ascii=False)[:1500])
                self.keep(slot, f"{len(self.lines):04}")

    def keep(self, slot, name: str):
        folder = os.path.join(self.results, "failed", name)
        os.makedirs(folder)
        for side in (slot.source, slot.target):
            for file in ("log", "steps", "steps.before"):
                if os.path.exists(side.path(file)):
                    shutil.copy(side.path(file), os.path.join(folder, f"{side.name}.{file}"))

    def summary(self) -> dict:
        lines = [entry for entry in self.lines if not entry["plant"]]
        made = [entry for entry in lines if entry["cut_made"]]
        total = {"cuts": len(made)} | {name: sum(entry.get(name, 0) for entry in lines) for name in COUNTS}
        kinds = collections.Counter(f"{entry['platform']} {entry['kind']}" for entry in made)
        names = {entry["step"] for entry in made if entry["step"] and entry["kind"] != "line"}
        seconds = sorted(entry["seconds"] for entry in made)
        return total | {
            "seed": self.seed, "kinds": dict(kinds), "not_reached": len(lines) - len(made), "seconds": round(time.monotonic() - self.started),
            "median_cut_seconds": seconds[len(seconds) // 2] if seconds else 0, "slowest_cut_seconds": seconds[-1] if seconds else 0,
            "repeated_by_smtp": sum(entry.get("repeated_by_smtp", 0) for entry in lines), "planted_faults_found": self.found,
            "altered_by_platform": self.planted, "steps_cut": sorted(names), "steps_not_cut": sorted(self.known - names)}


# --- runs -----------------------------------------------------------------------------------------------------------------


def has(server: str) -> bool:
    """Whether a server is there; REHOME_WITHOUT names those that may be missing."""
    return server not in [name.strip() for name in os.environ.get("REHOME_WITHOUT", "").split(",")]


def everything(run: Run):
    with Stage(run, story.Maildirs()) as stage:
        stage.recorded()
        stage.each(stage.kills() + stage.power_cuts("worst", 2) + stage.power_cuts("mix", 4))
        planted_on_maildirs(stage)
    for target, strides, lines in (("cyrus", (1, 12), 8), ("dovecot", (4, 24), 4)):
        if not (has("dovecot") and has(target)):
            continue
        with Stage(run, imap.Imap(target)) as stage:
            stage.each(stage.kills(strides[0]) + stage.line_cuts(lines) + stage.power_cuts("worst", strides[1]))
            if target == "dovecot":
                planted_on_imap(stage)


def sample(run: Run, count: int):
    """Some of everything: at Maildirs one cut at each kind of step at least, kills and power cuts in turn."""
    if has("dovecot"):
        with Stage(run, imap.Imap("dovecot")) as stage:
            lines = stage.line_cuts(1)
            late = [cut for cut in lines if cut.action in ("late", "soon")]
            alone = [(side, name) for side in SIDES for name in sorted(set(stage.steps[side])) if name.startswith(("platform.", "mailbox."))]
            kills = [cuts.Kill(side, run.chance.randint(1, stage.steps[side].count(name)), only=name) for side, name in alone]
            stage.each(run.chance.sample(lines, 4) + late[:1] + kills)
            planted_on_imap(stage)
    with Stage(run, story.Maildirs()) as stage:
        stage.recorded()
        wanted, kinds = [], sorted({name for names in stage.steps.values() for name in names})
        while len(wanted) < max(count - sum(entry["cut_made"] and not entry["plant"] for entry in run.lines), len(kinds)):
            name = kinds[len(wanted) % len(kinds)]
            side = run.chance.choice([side for side in SIDES if name in stage.steps[side]])
            number = run.chance.randint(1, stage.steps[side].count(name))
            if len(wanted) % 3 < 2:
                wanted.append(cuts.Kill(side, number, only=name))
            else:
                wanted.append(cuts.Power(side, number, run.library, run.chance.choice(["worst", "mix"]), run.seed, only=name))
        stage.each(wanted)
        planted_on_maildirs(stage)


def is_found(result: dict) -> bool:
    """Whether the comparison notices that something is wrong."""
    return any(result.get(name) for name in COUNTS)


def planted_on_maildirs(stage: Stage):
    """A message file that is not synced before it gets its place: seen by a power cut after its item was recorded."""
    run, name = stage.run, "maildir.fsync_missing"
    late = [number for number, step in enumerate(stage.steps["target"], 1) if step in ("target.sync_ends", "target.begin")]
    run.found[name] = stage.each([cuts.Power("target", number, run.library, "worst", run.seed, name) for number in late], is_found)


def planted_on_imap(stage: Stage):
    """Where an item that is written again is another one: an intent that ends before its items are there, and a double that comes
    late and is not looked for."""
    run, name = stage.run, "replicate.intent_closed_early"
    wanted = [number for number, step in enumerate(stage.steps["target"], 1) if step in ("replicate.applied", "replicate.intent")]
    run.found[name] = stage.each([cuts.Kill("target", number + more, name) for more in (2, 5) for number in wanted], is_found)
    name, late = "replicate.late_double_ignored", stage.watch.early.get(("target", PLACES["end to"]), 0)
    run.found[name] = stage.each([cuts.LineCut("target", PLACES["end to"], number, "late", name) for number in range(1, late + 1)], is_found)


def selftest(run: Run):
    """Three planted faults of the engine. One that is not found fails the run."""
    with Stage(run, story.Maildirs()) as stage:
        planted_on_maildirs(stage)
    if has("dovecot"):
        with Stage(run, imap.Imap("dovecot")) as stage:
            planted_on_imap(stage)


def only(run: Run, wanted: list):
    """Single cuts: PLATFORM:KIND:SIDE:NUMBER, where KIND is kill, worst, mix, or a place of a line and what happens there."""
    by_platform = collections.defaultdict(list)
    for one in wanted:
        platform, *rest = one.split(":")
        by_platform[platform].append(rest)
    for platform, chosen in by_platform.items():
        platforms = story.Maildirs() if platform == "maildir" else imap.Imap(platform.partition("-")[2])
        with Stage(run, platforms) as stage:
            found = []
            for kind, side, number in chosen:
                if kind == "kill":
                    found.append(cuts.Kill(side, int(number)))
                elif kind in ("worst", "mix"):
                    found.append(cuts.Power(side, int(number), run.library, kind, run.seed))
                else:
                    place, action = kind.split(",")
                    found.append(cuts.LineCut(side, PLACES[place], int(number), action))
            stage.each(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, nargs="?", const=40, default=0)
    parser.add_argument("--selftest", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--results", default=RESULTS, metavar="FOLDER")
    parser.add_argument("--keep", action="store_true", help="keep the folders")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seed = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    say(f"seed {seed}")
    base = tempfile.mkdtemp(prefix="rehome-interruption-")
    os.chmod(base, 0o755)
    try:
        run = Run(seed, find_binary(), base, arguments.slots, arguments.results)
        if arguments.only:
            only(run, arguments.only)
        elif arguments.selftest:
            selftest(run)
        elif arguments.sample:
            sample(run, arguments.sample)
        else:
            everything(run)
    finally:
        if not arguments.keep:
            shutil.rmtree(base, ignore_errors=True)
    for name, found in run.found.items():
        say(f"{'found' if found else 'NOT FOUND'}: the planted fault {name}")
    total = run.summary()
    with open(os.path.join(arguments.results, "summary.json"), "w", encoding="utf-8") as file:
        json.dump(total, file, indent=1, ensure_ascii=False)
        file.write("\n")
    say(json.dumps(total, indent=1, ensure_ascii=False))
    return 1 if any(total[name] for name in COUNTS) or not all(run.found.values()) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        say(f"FAILED: {error}")
        sys.exit(1)
