"""Shows that the demo can fail: without the source, without its consent, and with a line that alters octets it must not succeed,
and the checker must report every planted fault. Run by `python3 demo/run.py --selftest`."""

import os
import re
import subprocess
import sys
import unittest

import generate
import maildir
import test_check
import test_tools
from run import Demo
from side import HERE, DemoFailed, error_ids, say

PATIENCE = 10
SEED = 1


class FlippingLine:
    """flip_proxy.py as the line between the servers; it holds the source's own certificate."""

    def __init__(self, demo: Demo):
        tls = demo.source.path("tls")
        files = {"--cert": "leaf.pem", "--key": "leaf.key", "--ca": "ca.pem"}
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "flip_proxy.py"), "--to", f"127.0.0.1:{demo.source.port}",
             *(word for option, name in files.items() for word in (option, os.path.join(tls, name)))],
            stdout=subprocess.PIPE, text=True)
        self.port = int(re.search(r"\d+", self.process.stdout.readline()).group())

    def octets(self) -> int:
        return 0

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()


def without_source(demo: Demo):
    """The source's server is stopped just before the batch."""
    demo.source.stop()


def without_consent(demo: Demo):
    """The source's administrator withdraws consent just before the batch."""
    principal = next((one for one in demo.source.run("Get-MgServicePrincipal") if one["AppId"] == demo.app_id), None)
    if principal is None:
        raise DemoFailed("the source has no service principal for the application")
    demo.source.run("Remove-MgServicePrincipal", "-ServicePrincipalId", principal["Id"])


def nothing(_: Demo):
    """The fault is in the line already."""


def altered_files(demo: Demo) -> list:
    """Files in the target's mail folders, shown or hidden, whose octets are no message of the source."""
    known = {item["digest"] for mailbox in demo.manifest["mailboxes"] for folder in mailbox["folders"] for item in folder["items"]}
    strange = []
    for directory, _, files in os.walk(demo.target.folder):
        if os.path.basename(directory) in ("cur", "new"):
            for name in files:
                with open(os.path.join(directory, name), "rb") as file:
                    if maildir.digest(file.read()) not in known:
                        strange.append(os.path.join(directory, name))
    return strange


def must_fail(title: str, spoil, ids: tuple, line=None) -> bool:
    """Runs the demo up to its first copy with something spoilt; true where it fails for the right reason."""
    say(f"\n##### {title}")
    demo = Demo(SEED, PATIENCE, line)
    try:
        demo.prepare()
        spoil(demo)
        demo.start_batch()
        ready = generate.MAILBOXES[:2]
        try:
            demo.wait_for("first copy", lambda user: user["Status"] == "Synced", ready)
        except DemoFailed as error:
            found = error_ids(str(error))
            right = any(wanted in found for wanted in ids)
            strange = altered_files(demo)
            say(f"   the demo fails, as it must: {error}")
            if not right:
                say(f"   but not for the right reason: wanted one of {ids}, found {found}")
            if strange:
                say(f"   but {len(strange)} altered items were used: {strange[:3]}")
            return right and not strange
        say("   the demo went on as if nothing had happened")
        return False
    except DemoFailed as error:
        say(f"   could not be set up: {error}")
        return False
    finally:
        demo.close(failed=False)


def run() -> int:
    """Exit code 0: every planted fault was noticed."""
    say("##### The checker reports planted faults; the tools do what they say")
    tests = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromModule(module) for module in (test_check, test_tools))
    results = {"checker and tools": unittest.TextTestRunner(stream=sys.stdout, verbosity=1).run(tests).wasSuccessful()}
    for title, spoil, ids, line in [
            ("source's listener stopped", without_source,
             ("MigrationServerConnectionFailedException", "CommunicationErrorTransientException"), None),
            ("consent withdrawn", without_consent, ("AADSTS700016", "ApplicationNotConsentedException"), None),
            ("one octet flipped in each piece", nothing, ("ItemDigestMismatchException",), FlippingLine)]:
        results[title] = must_fail(title, spoil, ids, line)
    say()
    for title, passed in results.items():
        say(f"{'noticed' if passed else 'NOT NOTICED'}: {title}")
    return 0 if all(results.values()) else 1
