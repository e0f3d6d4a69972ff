"""CPU seconds, peak memory and time of processes, from /proc and from what the kernel says of ended children."""

import os
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


class ToolFailed(Exception):
    """A tool or server did not do what it was to; the text says what."""


def _stat(pid: int):
    """Parent and CPU ticks of a process with its children that were waited for; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), sum(int(field) for field in fields[11:15])


def tree_cpu(*roots: int) -> float:
    """CPU seconds of these processes and all that descend from them, ended ones included."""
    parents, ticks = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (found := _stat(int(name))):
            parents[int(name)], ticks[int(name)] = found
    wanted, total = set(roots), 0
    for pid, used in ticks.items():
        seen = pid
        while seen > 1 and seen not in wanted:
            seen = parents.get(seen, 0)
        total += used if seen in wanted else 0
    return total / TICKS


def peak_memory(pid: int) -> int:
    """The most memory in octets that a running process had resident."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


class Ended:
    """What several processes, run side by side, took."""

    def __init__(self):
        self.seconds = self.cpu = 0.0
        self.memory, self.output = 0, []


def run(commands: list, folder: str, patience: float, environment=None) -> Ended:
    """Runs commands side by side and waits for all; fails when one fails or takes too long. Memory is the sum of the peaks."""
    started, ended, running = time.monotonic(), Ended(), {}
    for index, command in enumerate(commands):
        log = open(os.path.join(folder, f"output-{index}"), "w+b")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder,
                                   env=os.environ | (environment or {}))
        running[process.pid] = (process, command, log)
    failed = None
    while running:
        pid, status, usage = _wait_for_one(running, started + patience)
        if pid is None:
            for process, _, _ in running.values():
                process.kill()
            failed = failed or f"{next(iter(running.values()))[1][0]} took more than {patience:.0f} s"
            patience += 60
            continue
        process, command, log = running.pop(pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.cpu += usage.ru_utime + usage.ru_stime
        ended.memory += usage.ru_maxrss * 1024
        log.seek(0)
        text = log.read().decode(errors="replace")
        log.close()
        ended.output.append(text)
        if process.returncode and not failed:
            failed = f"{' '.join(command)[:200]} ended with {process.returncode}: {text[-1500:]}"
    ended.seconds = time.monotonic() - started
    if failed:
        raise ToolFailed(failed)
    return ended


def _wait_for_one(running: dict, deadline: float):
    pause = 0.001
    while time.monotonic() < deadline:
        for pid in running:
            found, status, usage = os.wait4(pid, os.WNOHANG)
            if found:
                return found, status, usage
        time.sleep(pause)
        pause = min(pause * 1.5, 0.01)
    return None, None, None


def load() -> float:
    return os.getloadavg()[0]
