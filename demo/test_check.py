"""Shows that the checker finds what it is there to find: each fault is planted in a true copy and must be reported.

    python3 demo/test_check.py
"""

import json
import os
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import check
import generate
import maildir
import state

SAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "samples", "mail")


class CheckerTest(unittest.TestCase):
    """One generated source for all tests; each test copies it as "target" and spoils the copy."""

    @classmethod
    def setUpClass(cls):
        cls.base = tempfile.mkdtemp(prefix="rehome-check-")
        generate.generate(20020822, cls.base, SAMPLES)
        with open(os.path.join(cls.base, "manifest.json"), encoding="utf-8") as file:
            cls.manifest = json.load(file)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.base)

    def setUp(self):
        self.target = os.path.join(self.base, "target")
        shutil.copytree(os.path.join(self.base, "mail"), self.target)
        shutil.rmtree(os.path.join(self.target, generate.STAYS))

    def tearDown(self):
        shutil.rmtree(self.target)

    def result(self, journal=()):
        return check.check(self.manifest, list(journal), [self.target])

    def faults(self, journal=()) -> dict:
        """Only the counts that are not zero."""
        result = self.result(journal)
        faults = {kind: result[kind] for kind in check.FAULTS if result[kind]}
        self.assertEqual(result["ok"], not faults)
        self.assertEqual(bool(result["details"]), bool(faults))
        return faults

    def pick(self, wanted=lambda item: item["kind"] == "real") -> tuple:
        """(Maildir folder, item, its file) of some item; unique in its folder so that one fault is one fault."""
        for mailbox in self.manifest["mailboxes"]:
            if not mailbox["moves"]:
                continue
            for folder in mailbox["folders"]:
                for item in folder["items"]:
                    alone = sum(other["digest"] == item["digest"] for other in folder["items"]) == 1
                    if alone and wanted(item):
                        directory = maildir.folder_directory(os.path.join(self.target, mailbox["name"]), folder["path"])
                        return directory, item, os.path.join(directory, *state.find_file(directory, item["file"]))
        raise LookupError("no such item")

    def test_a_true_copy_has_no_fault(self):
        self.assertEqual(self.faults(), {})
        self.assertEqual(self.result()["mailboxes_found"], len(generate.MAILBOXES))

    def test_line_ends_alone_are_no_fault(self):
        _, item, file = self.pick()
        with open(file, "rb") as handle:
            octets = maildir.canonical(handle.read())
        self.rewrite(file, octets)
        self.assertEqual(self.faults(), {})

    def rewrite(self, file: str, octets: bytes):
        """New contents, same date."""
        before = os.stat(file)
        with open(file, "wb") as handle:
            handle.write(octets)
        os.utime(file, ns=(before.st_mtime_ns,) * 2)

    def test_loss(self):
        os.unlink(self.pick()[2])
        self.assertEqual(self.faults(), {"items_missing": 1})

    def test_loss_of_one_of_two_equal_items(self):
        for mailbox in self.manifest["mailboxes"]:
            for folder in mailbox["folders"]:
                equal = [item for item in folder["items"] if item["kind"] == "identical"]
                if mailbox["moves"] and equal:
                    directory = maildir.folder_directory(os.path.join(self.target, mailbox["name"]), folder["path"])
                    os.unlink(os.path.join(directory, *state.find_file(directory, equal[0]["file"])))
                    self.assertEqual(self.faults()["items_missing"], 1)
                    return
        self.fail("the generator made no equal items")

    def test_duplicate(self):
        directory, _, file = self.pick()
        shutil.copy2(file, os.path.join(directory, "new", "1.double.mail"))
        self.assertEqual(self.faults(), {"items_duplicated": 1})

    def test_altered_octet(self):
        _, _, file = self.pick(lambda item: item["kind"] == "real" and item["message_id"])
        with open(file, "rb") as handle:
            octets = bytearray(handle.read())
        octets[-2] ^= 1
        self.rewrite(file, bytes(octets))
        self.assertEqual(self.faults(), {"items_altered": 1})

    def test_altered_by_one_lost_octet(self):
        _, _, file = self.pick(lambda item: item["kind"] == "nul-in-body")
        with open(file, "rb") as handle:
            octets = handle.read()
        self.rewrite(file, octets.replace(b"\0", b"", 1))
        self.assertEqual(self.faults(), {"items_altered": 1})

    def test_foreign_item(self):
        directory, _, _ = self.pick()
        with open(os.path.join(directory, "cur", "1.foreign.mail:2,S"), "wb") as handle:
            handle.write(b"Subject: not yours\n\n")
        self.assertEqual(self.faults(), {"items_foreign": 1})

    def test_wrong_flag(self):
        _, _, file = self.pick(lambda item: item["flags"] == ["\\Seen"])
        os.rename(file, file + "T")
        self.assertEqual(self.faults(), {"flags_wrong": 1})

    def test_wrong_keyword(self):
        directory, item, _ = self.pick(lambda item: any(not flag.startswith("\\") for flag in item["flags"]))
        os.unlink(os.path.join(directory, "dovecot-keywords"))
        self.assertGreaterEqual(self.faults()["flags_wrong"], 1)

    def test_wrong_date(self):
        _, item, file = self.pick()
        os.utime(file, ns=((item["received"] + 1) * 10**9,) * 2)
        self.assertEqual(self.faults(), {"dates_wrong": 1})

    def test_wrong_folder(self):
        directory, _, file = self.pick()
        other = os.path.join(self.target, "press" if "press" not in directory else "workshop", "cur")
        shutil.move(file, os.path.join(other, os.path.basename(file)))
        self.assertEqual(self.faults(), {"items_missing": 1, "items_foreign": 1})

    def test_missing_and_extra_folder(self):
        root = os.path.join(self.target, generate.MAILBOXES[0])
        entry = next(name for name in sorted(os.listdir(root)) if name.startswith("."))
        os.rename(os.path.join(root, entry), os.path.join(root, ".&broken"))
        faults = self.faults()
        self.assertEqual((faults["folders_missing"], faults["folders_extra"]), (1, 1))

    def test_missing_mailbox(self):
        shutil.rmtree(os.path.join(self.target, generate.MAILBOXES[1]))
        self.assertGreater(self.faults()["folders_missing"], 2)

    def test_late_steps_are_expected(self):
        journal_file = os.path.join(self.base, "journal")
        account = state.Account(self.manifest, self.target, journal_file)
        for step in account.steps(1, ("deliver", "flags", "remove")):
            account.apply(step)
        self.assertEqual(self.faults(state.read_journal(journal_file)), {})
        self.assertIn("items_missing", self.faults())
        os.unlink(journal_file)

    def test_sent_messages(self):
        step = next(step for step in self.manifest["late"] if step["do"] == "send")
        message = state.message_to_send(step)
        entry = {"do": "send", "mailbox": step["mailbox"], "folder": step["folder"], "marker": step["marker"],
                 "routed": True, "octets": message.hex()}
        self.assertEqual(self.faults([entry]), {"messages_missing": 1})
        inbox = os.path.join(self.target, step["mailbox"], "new")

        def put(name, octets):
            with open(os.path.join(inbox, name), "wb") as handle:
                handle.write(b"Received: from somewhere\n" + octets.replace(b"\r\n", b"\n"))

        put("1.one.mail", message)
        self.assertEqual(self.faults([entry]), {})
        self.assertEqual(self.result([entry])["routed_after_cutover"], 1)
        put("1.two.mail", message)
        self.assertEqual(self.faults([entry]), {"messages_duplicated": 1})
        os.unlink(os.path.join(inbox, "1.two.mail"))
        put("1.one.mail", message + b"a footer\r\n")
        self.assertEqual(self.faults([entry]), {"messages_altered": 1})


class MaildirTest(unittest.TestCase):
    """The few rules that generator and checker share, against examples from elsewhere."""

    def test_canonical_form(self):
        for octets, wanted in [(b"", b""), (b"a\n", b"a\r\n"), (b"a\r\r\r\nb", b"a\r\nb"), (b"a\rb\r\r", b"a\rb"),
                               (b"\n\r\n", b"\r\n\r\n"), (b"\r\r", b""), (b"a\0\n\rb\r", b"a\0\r\n\rb"), (b"x\n\r\r\n\r", b"x\r\n\r\n")]:
            self.assertEqual(maildir.canonical(octets), wanted, octets)
            self.assertEqual(maildir.canonical(wanted), wanted)

    def test_modified_utf7(self):
        for name, encoded in [("~peter", "~peter"), ("台北", "&U,BTFw-"), ("日本語", "&ZeVnLIqe-"), ("R&D", "R&-D"), ("Entwürfe", "Entw&APw-rfe")]:
            self.assertEqual(maildir.encode_name(name), encoded)
            self.assertEqual(maildir.decode_name(encoded), name)
        self.assertEqual(maildir.unescape_name("v1\\2e0 \\2fetc back\\slash"), "v1.0 /etc back\\slash")
        for wrong in ("&", "a&b", "&!-", "ü"):
            self.assertRaises(ValueError, maildir.decode_name, wrong)


if __name__ == "__main__":
    unittest.main()
