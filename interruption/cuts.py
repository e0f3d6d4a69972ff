"""What interrupts a story: a kill at a step, a power cut at a step. (The cutting line is in line.py.)"""

import json
import os
import subprocess
import sys

import power


def read_steps(file: str) -> list:
    """Names of the durable steps that a process made, in order."""
    try:
        with open(file, encoding="ascii") as steps:
            return [line.split(" ", 1)[1].strip() for line in steps if " " in line]
    except FileNotFoundError:
        return []


class Kill:
    """`side` ends without warning right after its durable step `number`, and is started again. With `only` steps of that name
    alone are counted."""

    kind, words = "kill", "kill"

    def __init__(self, side: str, number: int, plant: str = "", only: str = ""):
        self.side, self.number, self.plant, self.only = side, number, plant, only
        self.name, self.done = "", False

    def __str__(self):
        return f"{self.words} of the {self.side} at {f'{self.only} ' if self.only else 'step '}{self.number}"

    def common(self, side) -> dict:
        return {"REHOME_FAULT_LOG": side.path("steps")} | ({"REHOME_PLANT": self.plant} if self.plant else {})

    def before(self, story, side) -> dict:
        """Environment of a process at the story's beginning."""
        if side.name != self.side:
            return self.common(side)
        named = {"REHOME_FAULT_NAME": self.only, "REHOME_FAULT_COUNT": str(self.number)}
        return self.common(side) | (named if self.only else {"REHOME_FAULT_STEP": str(self.number)})

    def caused(self, story, side) -> bool:
        """Whether a process's end is ours."""
        if self.done or side.name != self.side:
            return False
        self.done = True
        steps = read_steps(side.path("steps"))
        self.name = steps[-1] if steps else ""
        os.rename(side.path("steps"), side.path("steps.before"))
        return True

    def afterwards(self, story, side) -> dict:
        """Environment of the process that takes up."""
        return self.common(side)

    def arm(self, story):
        """Before the processes start."""

    def stage(self, story, name: str):
        """The story has reached a stage."""

    def changes(self, story, root: str, steps: list) -> bool:
        """Whether this carries changes of a Maildir out itself."""
        return False


class Power(Kill):
    """As Kill, and what was not on the disk is gone. `mode`: worst (nothing else survives), or mix (some of it does, by `seed`)."""

    kind = "power"

    def __init__(self, side: str, number: int, library: str, mode: str = "worst", seed=0, plant: str = "", only: str = ""):
        super().__init__(side, number, plant, only)
        self.library, self.mode, self.seed = library, mode, seed
        self.words = f"power cut ({mode})"

    def roots(self, side) -> list:
        return [os.path.realpath(side.path(name)) for name in ("data", "mail")]

    def before(self, story, side) -> dict:
        if side.name != self.side:
            return super().before(story, side)
        return super().before(story, side) | power.environment(self.library, side.path("record"), self.roots(side))

    def caused(self, story, side) -> bool:
        if not super().caused(story, side):
            return False
        original = getattr(story.template, side.name)
        originals = {root: original.path(os.path.basename(root)) for root in self.roots(side)}
        power.replace(self.roots(side), side.path("record"), originals, self.mode, f"{self.seed} {self.side} {self.only} {self.number}")
        return True

    def changes(self, story, root: str, steps: list) -> bool:
        if self.done or self.side != "source":
            return False
        file = story.source.path("changes.json")
        with open(file, "w", encoding="utf-8") as given:
            json.dump(steps, given)
        more = power.environment(self.library, story.source.path("record"), self.roots(story.source), join=True)
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "changes.py")
        subprocess.run([sys.executable, "-B", program, root, file], env=os.environ | more, check=True)
        return True


class Recorded(Power):
    """No cut: both sides are recorded to the end, and the replay of everything must give what is there."""

    kind = "none"

    def __init__(self, library: str):
        super().__init__("source", 0, library)

    def __str__(self):
        return "nothing, recorded"

    def before(self, story, side) -> dict:
        return self.common(side) | power.environment(self.library, side.path("record"), self.roots(side))

    def caused(self, story, side) -> bool:
        return False

    def stage(self, story, name: str):
        pass

    def compare(self, story) -> list:
        """Where the replay of all operations differs from the folders."""
        found = []
        for side in (story.source, story.target):
            original = getattr(story.template, side.name)
            roots = self.roots(side)
            disk = power.Disk(side.path("record"), {root: original.path(os.path.basename(root)) for root in roots})
            disk.build("all", 0, {root: f"{root}.after" for root in roots})
            found += [f"{side.name}: {path}" for root in roots for path in power.differences(root, f"{root}.after")]
        return found


class LineCut(Kill):
    """The line to the IMAP server of `where` is cut (`cut`, `reset`) at a place of this kind, the first or a later one. Or the rest
    of a command that has a message comes later: `late` (after the pass) or `soon`."""

    kind = "line"

    def __init__(self, where: str, place: str, number: int, action: str, plant: str = ""):
        super().__init__("", number, plant)
        self.where, self.place, self.action = where, place, action
        self.stages, self.line = [], None

    def __str__(self):
        return f"{self.action} of the line to the {self.where}'s server {self.place}, {self.number}"

    def before(self, story, side) -> dict:
        return self.common(side)

    def arm(self, story):
        self.line = story.slot.servers.lines[self.where]
        self.line.arm(self.place, self.number, self)

    def at(self) -> str:
        """At the chosen place: what happens. What comes after the last comparison cannot be found by anyone, so nothing is held in
        the cutover."""
        self.done = True
        action = "cut" if self.action in ("late", "soon") and "synced again" in self.stages else self.action
        self.name = f"{self.place}, {action}"
        return action

    def stage(self, story, name: str):
        self.stages.append(name)
        if name in ("synced", "synced again"):
            self.line.release()


class Watch(Kill):
    """Nothing is cut. `passed`: how many places of each kind each line had by the end of the second pass, and in all."""

    kind = "none"

    def __init__(self):
        super().__init__("", 0)
        self.early, self.passed = {}, {}

    def __str__(self):
        return "nothing"

    def before(self, story, side) -> dict:
        return self.common(side)

    def caused(self, story, side) -> bool:
        return False

    def stage(self, story, name: str):
        if story.slot.servers:
            places = {(where, kind): count for where, line in story.slot.servers.lines.items() for kind, count in line.passed.items()}
            self.passed = places
            if name == "synced again":
                self.early = places
