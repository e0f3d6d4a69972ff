"""The checker sees each fault that was planted, and nothing else."""

import copy
import random
import re
import unittest

import imapcheck
import imapfill


def folder(path, **more):
    line = {"kind": "folder", "folder": path, "selectable": True, "special_use": [], "subscribed": False}
    return {**line, **more}


def item(path, uid, body, flags=(), date=1000):
    form = imapcheck.Canonical.of(body)
    line = {"kind": "message", "folder": path, "uid": uid, "sha256": form.digest(), "length": form.length}
    return {**line, "flags": list(flags), "internaldate": date}


ACCOUNT = [
    folder(["INBOX"], subscribed=True),
    item(["INBOX"], 1, b"one\r\n", ["\\seen"], 1000),
    item(["INBOX"], 4, b"twin\r\n", [], 2000),
    item(["INBOX"], 5, b"twin\r\n", ["\\seen"], 2000),
    folder(["Sent"], special_use=["\\sent"]),
    item(["Sent"], 1, b"two\r\n", ["$forwarded"], 3000),
    folder(["gone"], selectable=False),
    folder(["gone", "kept"]),
]


def renumbered(lines):
    """The same account elsewhere: other uids, twins in another order."""
    lines = copy.deepcopy(lines)
    for line in lines:
        if line["kind"] == "message":
            line["uid"] = 100 - line["uid"]
    return lines


class Faults(unittest.TestCase):
    def setUp(self):
        self.source = copy.deepcopy(ACCOUNT)
        self.target = renumbered(ACCOUNT)

    def check(self, kind, *paths):
        result = imapcheck.compare(self.source, self.target)
        found = {name: [entry["folder"] for entry in entries] for name, entries in result.items() if entries}
        self.assertEqual(found, {kind: list(paths)} if kind else {})

    def test_nothing(self):
        self.check(None)

    def test_lost(self):
        del self.target[5]
        self.check("lost", ["Sent"])

    def test_lost_twin(self):
        del self.target[2]
        self.check("lost", ["INBOX"])

    def test_duplicated(self):
        self.target.append(item(["Sent"], 50, b"two\r\n", ["$forwarded"], 3000))
        self.check("duplicated", ["Sent"])

    def test_altered(self):
        self.target[1] = item(["INBOX"], 9, b"One\r\n", ["\\seen"], 1000)
        self.check("altered", ["INBOX"])

    def test_altered_with_another_date(self):
        self.target[1] = item(["INBOX"], 9, b"One\r\n", ["\\seen"], 7)
        self.check("altered", ["INBOX"])

    def test_foreign(self):
        self.target.append(item(["Sent"], 50, b"three\r\n"))
        self.check("foreign", ["Sent"])

    def test_moved_is_lost_and_foreign(self):
        self.target.append({**self.target.pop(5), "folder": ["gone", "kept"]})
        result = imapcheck.compare(self.source, self.target)
        self.assertEqual([result["lost"][0]["folder"], result["foreign"][0]["folder"]], [["Sent"], ["gone", "kept"]])

    def test_flags(self):
        self.target[5]["flags"] = []
        self.check("flags_wrong", ["Sent"])

    def test_flags_of_one_twin(self):
        self.target[3]["flags"] = ["\\flagged"]
        self.check("flags_wrong", ["INBOX"])

    def test_date_by_a_second(self):
        self.target[5]["internaldate"] += 1
        self.check("dates_wrong", ["Sent"])

    def test_folder_missing(self):
        del self.target[7]
        self.check("folders_wrong", ["gone", "kept"])

    def test_folder_foreign(self):
        self.target.append(folder(["other"]))
        self.check("folders_wrong", ["other"])

    def test_parent_became_a_folder(self):
        self.target[6]["selectable"] = True
        self.check(None)

    def test_subscription_missing(self):
        self.target[0]["subscribed"] = False
        self.check("subscriptions_wrong", ["INBOX"])

    def test_subscription_foreign(self):
        self.target[4]["subscribed"] = True
        self.check("subscriptions_wrong", ["Sent"])

    def test_special_use(self):
        self.target[4]["special_use"] = ["\\trash"]
        self.check("special_use_wrong", ["Sent"])

    def test_mapped_names(self):
        for line in self.target:
            if line["folder"] == ["Sent"]:
                line["folder"] = ["Sent items"]
        result = imapcheck.compare(self.source, self.target, [[["Sent"], ["Sent items"]]])
        self.assertFalse(any(result.values()))


class CanonicalForm(unittest.TestCase):
    def test_table(self):
        for octets, form in [
            (b"", b""),
            (b"a\nb", b"a\r\nb"),
            (b"a\r\nb\r\n", b"a\r\nb\r\n"),
            (b"a\r\r\r\nb", b"a\r\nb"),
            (b"a\rb\r\rc", b"a\rb\r\rc"),
            (b"a\n\rb", b"a\r\n\rb"),
            (b"a\r\r", b"a"),
            (b"\r", b""),
            (b"a\0\n", b"a\0\r\n"),
        ]:
            self.assertEqual(imapcheck.Canonical.of(octets).digest(), imapcheck.hashlib.sha256(form).hexdigest())
            self.assertEqual(imapcheck.Canonical.of(octets).length, len(form))

    def test_pieces_do_not_matter(self):
        generator = random.Random(1)
        for _ in range(500):
            octets = bytes(generator.choice(b"\r\r\nx") for _ in range(generator.randint(0, 30)))
            form = imapcheck.Canonical()
            place = 0
            while place < len(octets):
                step = generator.randint(1, 4)
                form.add(octets[place : place + step])
                place += step
            self.assertEqual(form.digest(), imapcheck.Canonical.of(octets).digest())


class Reading(unittest.TestCase):
    def test_names(self):
        for name, wire in [
            ("Entw\u00fcrfe", b"Entw&APw-rfe"),
            ("R&D", b"R&-D"),
            ("\u53f0\u5317", b"&U,BTFw-"),
            ("\U0001f4ec", b"&2D3c7A-"),
            ("plain", b"plain"),
        ]:
            self.assertEqual(imapcheck.encode_name(name), wire)
            self.assertEqual(imapcheck.decode_name(wire), name)
        for wire in [b"a&b", b"&Jjo!-"]:
            self.assertEqual(imapcheck.decode_name(wire).encode(), wire)

    def test_dates(self):
        for date, seconds in [
            ("01-Jan-1970 00:00:00 +0000", 0),
            (" 1-Jan-1970 01:00:00 +0100", 0),
            ("01-Jan-1970 00:00:00 -0545", 20700),
            ("31-Dec-1969 23:59:59 +0000", -1),
        ]:
            self.assertEqual(imapcheck.epoch(date), seconds)

    def test_a_fetch_with_its_items_in_any_order(self):
        body = imapcheck.Canonical.of(b"x)\r\n")
        line = imapcheck.Line
        for pieces in [
            [
                line(b'7 FETCH (UID 9 FLAGS (\\Seen \\Recent A[b) INTERNALDATE " 1-Jan-1970 00:00:09 +0000" BODY[] '),
                body,
                line(b")"),
            ],
            [
                line(b"7 FETCH (BODY[] "),
                body,
                line(b' INTERNALDATE "01-Jan-1970 00:00:09 +0000" FLAGS (a[B \\Seen) UID 9)'),
            ],
        ]:
            found = imapcheck.message(imapcheck.tokens(pieces))
            self.assertEqual((found["uid"], found["flags"], found["internaldate"]), (9, ["\\seen", "a[b"], 9))
            self.assertEqual(found["sha256"], body.digest())

    def test_no_octets_is_no_empty_message(self):
        line = b'1 FETCH (UID 1 FLAGS () INTERNALDATE "01-Jan-1970 00:00:00 +0000" BODY[] NIL)'
        words = imapcheck.tokens([imapcheck.Line(line)])
        self.assertRaises(imapcheck.Broken, imapcheck.message, words)

    def test_quoted_and_literal_names(self):
        line = imapcheck.Line
        self.assertEqual(
            imapcheck.tokens([line(b'LIST (\\Sent) "/" "a \\"b\\" (c)"')]), [b"LIST", [b"\\Sent"], b"/", b'a "b" (c)']
        )
        self.assertEqual(imapcheck.tokens([line(b"LIST () NIL "), b"lit )", line(b"")])[-1], b"lit )")


class Fill(unittest.TestCase):
    def test_messages_are_what_their_names_say(self):
        found = {name: octets for name, octets, _ in imapfill.messages()}
        self.assertEqual(found["no octets"], b"")
        self.assertIn(b"\0", found["NUL in a header"].split(b"\r\n\r\n")[0])
        self.assertNotIn(b"\r", found["bare LF"])
        self.assertTrue(re.search(rb"[^\r]\n", found["mixed line ends"]))
        tame = [octets for _, octets, is_common in imapfill.messages() if is_common]
        self.assertFalse(any(b"\0" in octets or re.search(rb"(?<!\r)\n|\r\r\n", octets) for octets in tame))
        self.assertEqual(len(tame) - len(set(tame)), 2)


if __name__ == "__main__":
    unittest.main()
