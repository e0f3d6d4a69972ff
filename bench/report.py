"""results.json and results.md: medians, ratios, aims, and what each figure leaves out."""

import json
import os
import platform
import statistics

MEGABYTE = 1_000_000
# Tool, compared with, and the least ratio of their rates that we aim at, for copies from Dovecot to Dovecot.
RATE_AIMS = [("rehome-1-noreadback", "limit-copy-1", 0.75), ("rehome-4-noreadback", "limit-copy-4", 0.65), ("rehome-1", "limit-copy-1", 0.6),
             ("rehome-4", "limit-copy-4", 0.5), ("rehome-4-noreadback", "mbsync", 2.2), ("rehome-4-noreadback", "mbsync-x4", 1.4),
             ("rehome-4-noreadback", "imapsync", 5.5), ("rehome-4-noreadback", "doveadm-backup", 1.15)]
MAILDIR_AIMS = [("rehome", "dsync-files", 5.0), ("rehome", "plain-write-1", 0.7)]
CPU_AIMS = [("-noreadback", 10.0), ("", 16.0)]  # CPU seconds a GB of both our processes
MEMORY_AIM = 150 * MEGABYTE  # of the mover
DISTANCE_AIM = (1.2, 3.0)  # times the time without, plus seconds


def median(records: list, key: str):
    values = [record[key] for record in records if record.get(key) is not None]
    return statistics.median(values) if values else None


def number(value, digits: int = 1) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}f}"


def table(columns: list, rows: list) -> list:
    return ["| " + " | ".join(columns) + " |", "|" + "|".join(" --- " if index == 0 else " ---: " for index in range(len(columns))) + "|",
            *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows), ""]


class Report:
    """Collects records; `write` makes both files from what is there, so that a run that is broken off leaves its figures."""

    def __init__(self, folder: str, settings: dict):
        self.folder, self.settings, self.records, self.notes = folder, settings, [], []
        os.makedirs(folder, exist_ok=True)

    def add(self, record: dict):
        self.records.append(record)
        self.write()

    def write(self):
        whole = {"settings": self.settings, "machine": {"system": platform.platform(), "processors": os.cpu_count()}, "notes": self.notes,
                 "records": self.records}
        for name, text in (("results.json", json.dumps(whole, indent=1) + "\n"), ("results.md", self.page())):
            path = os.path.join(self.folder, name)
            with open(path + ".new", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(path + ".new", path)

    # --- the page -----------------------------------------------------------------------------------------------------------------

    def page(self) -> str:
        loads = [record["load"] for record in self.records if "load" in record]
        lines = ["# Benchmark", "", f"{platform.platform()}, {os.cpu_count()} processors; load average before the runs "
                 f"{min(loads, default=0):.1f} to {max(loads, default=0):.1f}. Medians of repeated, interleaved runs.", ""]
        lines += ["Single runs differ by a fifth and more: ratios of one run count, not seconds of two.", "", "Settings: " + ", ".join(f"{name}={value}" for name, value in self.settings.items() if value != ""), ""]
        for make in (self.copies, self.distance, self.delta, self.lock, self.large, self.failures):
            lines += make()
        if self.notes:
            lines += ["## Notes", "", *(f"- {note}" for note in self.notes), ""]
        return "\n".join(lines)

    def groups(self, scenario: str, *keys) -> dict:
        """Records without failure by these keys and tool."""
        found = {}
        for record in self.records:
            if record["scenario"] == scenario and not record.get("failed"):
                found.setdefault(tuple(record.get(key) for key in keys), {}).setdefault(record["tool"], []).append(record)
        return found

    @staticmethod
    def rates(tools: dict) -> dict:
        return {tool: records[0]["messages"] / seconds for tool, records in tools.items() if (seconds := median(records, "seconds"))}

    def copies(self) -> list:
        lines = []
        for (pair, name, _), tools in self.groups("copy", "pair", "set", "size").items():
            some = next(iter(tools.values()))[0]
            lines += [f"## Copy {pair.replace('-', ' to ')}, set {name}: {some['messages']:,} messages, {some['octets'] / MEGABYTE:,.0f} MB", ""]
            rates = self.rates(tools)
            rows = []
            for tool, records in tools.items():
                gigabytes = records[0]["octets"] / 1e9
                client = median(records, "cpu_client")
                row = [tool, len(records), number(median(records, "seconds"), 2), number(rates.get(tool)),
                       number(records[0]["octets"] / MEGABYTE / median(records, "seconds")),
                       number(client, 2), number(client / gigabytes), number(median(records, "cpu_source"), 2), number(median(records, "cpu_target"), 2),
                       number(median(records, "memory") / MEGABYTE)]
                for other in ("limit-copy-1", "limit-copy-4", "mbsync", "plain-write-1", "dsync-files"):
                    if other in rates:
                        row.append(number(rates[tool] / rates[other], 2))
                rows.append(row)
            columns = ["tool", "runs", "s", "messages/s", "MB/s", "CPU s", "CPU s/GB", "CPU s source", "CPU s target", "peak MB"]
            columns += [f"× {other}" for other in ("limit-copy-1", "limit-copy-4", "mbsync", "plain-write-1", "dsync-files") if other in rates]
            lines += table(columns, rows) + self.differences(tools) + self.aims(pair, tools, rates)
        if lines:
            lines += self.explanations()
        return lines

    @staticmethod
    def differences(tools: dict) -> list:
        """What the checker found different, for the tools where it found something."""
        rows = []
        for tool, records in tools.items():
            check = records[-1].get("check") or {}
            if any(check.get(key) for key in ("altered", "flags", "keywords", "dates")):
                rows.append([tool, *(f"{check.get(key, 0):,}" for key in ("altered", "flags", "keywords", "dates"))])
        return ["Messages that differ at the target afterwards (every other tool: none):", "",
                *table(["tool", "octets", "flags", "keywords", "dates"], rows)] if rows else []

    @staticmethod
    def aims(pair: str, tools: dict, rates: dict) -> list:
        rows = []
        if pair == "dovecot-dovecot":
            wanted = RATE_AIMS
        elif pair == "maildir-maildir":
            wanted = [(tool, other, least) for tool in rates if tool.startswith("rehome") for _, other, least in MAILDIR_AIMS]
        else:
            wanted = []
        for tool, other, least in wanted:
            if tool in rates and other in rates:
                ratio = rates[tool] / rates[other]
                rows.append([f"{tool} / {other}", f"at least {least}", f"{ratio:.2f}", "yes" if ratio >= least else "no"])
        for tool, records in tools.items():
            if not tool.startswith("rehome"):
                continue
            most = next(most for ending, most in CPU_AIMS if tool.endswith(ending))
            used = median(records, "cpu_client") / (records[0]["octets"] / 1e9)
            if pair != "maildir-maildir":
                rows.append([f"{tool}, CPU s a GB", f"at most {most:.0f}", f"{used:.1f}", "yes" if used <= most else "no"])
            memory = median(records, "memory_target_side")
            rows.append([f"{tool}, MB of the mover", f"below {MEMORY_AIM / MEGABYTE:.0f}", number(memory / MEGABYTE), "yes" if memory < MEMORY_AIM else "no"])
        return table(["aim", "wanted", "measured", "reached"], rows) if rows else []

    def explanations(self) -> list:
        """One line a tool on what its figure leaves out."""
        told = {}
        for record in self.records:
            if record.get("leaves_out"):
                told.setdefault(record["leaves_out"], []).append(record["tool"])
        lines = ["What each leaves out:", ""]
        for text, tools in told.items():
            lines.append(f"- {', '.join(dict.fromkeys(tools))}: {text}")
        return [*lines, "- CPU s: the tool's own processes (Rehome: both servers). Peak MB: the sum of their peaks.", ""]

    def distance(self) -> list:
        rows = []
        for (rtt, long), tools in self.groups("distance", "round_trip_ms", "long").items():
            for tool, records in tools.items():
                rows.append((tool, rtt, long, median(records, "seconds"), records))
        if not rows:
            return []
        near = {tool: seconds for tool, rtt, _, seconds, _ in rows if not rtt}
        far = sorted((row for row in rows if row[1]), key=lambda row: row[0])
        lines = ["## Distance", "", "For Rehome the line between the organisations is long; others run beside the target (long line to the source) or beside the "
                 "source. The line has no loss, slow start or cap on its rate, so it flatters streams that send much at once.", ""]
        shown, aims = [], []
        for tool, rtt, long, seconds, records in far:
            without = near.get(tool)
            turns = (records[-1].get("line") or {}).get("turns")
            shown.append([tool, f"{rtt:.0f}", long, number(without, 2), number(seconds, 2), number(seconds / without, 2) if without else "", turns if turns is not None else ""])
            if tool.startswith("rehome") and without:
                most = without * DISTANCE_AIM[0] + DISTANCE_AIM[1]
                aims.append([f"{tool} at {rtt:.0f} ms", f"at most {most:.1f} s", f"{seconds:.1f} s", "yes" if seconds <= most else "no"])
        lines += table(["tool", "round trip ms", "long line to the", "s near", "s far", "times", "turns on the line"], shown)
        return lines + (table(["aim", "wanted", "measured", "reached"], aims) if aims else [])

    def delta(self) -> list:
        lines = []
        for (size, step), tools in sorted(self.groups("delta", "size", "step").items(), key=str):
            rows = []
            for tool, records in tools.items():
                row = [tool, len(records), number(median(records, "seconds"), 3), number(median(records, "cpu_client"), 2)]
                for line in ("source", "between", "target"):
                    figures = records[-1].get("lines", {}).get(line)
                    row += [figures["turns"], number(figures["octets"] / 1000)] if figures else ["", ""]
                rows.append(row)
            lines += [f"### {size:,} messages, {step}", "", *table(
                ["tool", "runs", "s", "CPU s", "turns to source server", "kB", "turns between", "kB", "turns to target server", "kB"], rows)]
        return ["## Delta", "", "Time of bringing a finished copy up to date. A turn: somebody waited a round trip on that line; kB: octets on it, both ways. "
                "The first sync's connections are held where the tool can hold them.", "", *lines] if lines else []

    def lock(self) -> list:
        rows = []
        for (pair, size), tools in self.groups("lock", "pair", "size").items():
            for tool, records in tools.items():
                locks = sorted(record["lock_ms"] for record in records)
                rows.append([tool, pair, f"{size:,}", len(records), number(statistics.median(locks)), number(locks[0]), number(locks[-1]),
                             max(record["lock_round_trips"] for record in records), number(median(records, "seconds"), 2)])
        return ["## Time under lock", "", "Completion with 100 late changes (40 flags, 20 deletions, 40 additions).", "",
                *table(["tool", "pair", "messages", "runs", "lock ms, median", "least", "most", "round trips under lock, most", "completion s"], rows)] if rows else []

    def large(self) -> list:
        rows = []
        for (octets,), tools in self.groups("large", "octets").items():
            for tool, records in tools.items():
                rows.append([tool, f"{octets / MEGABYTE:,.0f}", number(median(records, "seconds"), 2), number(octets / MEGABYTE / median(records, "seconds")),
                             number((median(records, "memory_target_side") or median(records, "memory")) / MEGABYTE),
                             number((median(records, "memory_source_side") or 0) / MEGABYTE)])
        return ["## One large message", "", *table(["tool", "MB", "s", "MB/s", "peak MB (mover)", "peak MB (source side)"], rows)] if rows else []

    def failures(self) -> list:
        failed = [record for record in self.records if record.get("failed")]
        return ["## Failed: these figures do not count", "", *(f"- {one['scenario']} {one.get('pair', '')} {one['tool']}: "
                f"{' '.join(one['failed'].split())[:400]}" for one in failed), ""] if failed else []
