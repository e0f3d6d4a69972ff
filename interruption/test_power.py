"""A small program is recorded, and its power cut replayed: what may survive, and what must."""

import os
import subprocess
import sys
import tempfile
import unittest

import power

PROGRAM = """
import os
os.chdir(ROOT)
def sync(name):
    handle = os.open(name, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
def write(name, octets, synced):
    handle = os.open(name, os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(handle, octets)
    if synced:
        os.fsync(handle)
    os.close(handle)
os.mkdir("kept")
os.mkdir("kept/tmp")
os.mkdir("kept/cur")
sync(".")
sync("kept")
write("kept/tmp/whole", b"3" * 5000, True)
os.rename("kept/tmp/whole", "kept/cur/whole")
write("kept/tmp/hollow", b"4" * 5000, False)
os.rename("kept/tmp/hollow", "kept/cur/hollow")
sync("kept/cur")
write("nothing synced", b"1", False)
write("entry not synced", b"2", True)
os.unlink("there")
write("grown", b"new", False)
os.utime("dated", ns=(10**9, 7 * 10**9))
os.link("kept/cur/whole", "kept/second")
"""


def tree(root: str) -> dict:
    found = {}
    for folder, _, files in os.walk(root):
        for name in files:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, root)] = file.read()
    return found


class Replay(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        base = os.path.realpath(cls.folder.name)
        cls.root, cls.original, cls.log = (os.path.join(base, name) for name in ("root", "original", "log"))
        for folder in (cls.root, cls.original):
            os.mkdir(folder)
            for name, octets in (("there", b"old"), ("grown", b"older"), ("dated", b"")):
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(octets)
        environment = os.environ | power.environment(power.build(base), cls.log, [cls.root])
        subprocess.run([sys.executable, "-c", PROGRAM.replace("ROOT", repr(cls.root))], env=environment, check=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def after(self, mode: str, seed=0) -> str:
        place = tempfile.mkdtemp(dir=self.folder.name)
        power.Disk(self.log, {self.root: self.original}).build(mode, seed, {self.root: os.path.join(place, "root")})
        return os.path.join(place, "root")

    def test_all_of_it_is_what_is_there(self):
        self.assertEqual(power.differences(self.root, self.after("all")), [])
        self.assertEqual(os.stat(os.path.join(self.after("all"), "dated")).st_mtime_ns, 7 * 10**9)

    def test_the_worst(self):
        self.assertEqual(tree(self.after("worst")), {
            "there": b"old", "grown": b"older", "dated": b"", "kept/cur/whole": b"3" * 5000, "kept/cur/hollow": b""})
        self.assertNotEqual(os.stat(os.path.join(self.after("worst"), "dated")).st_mtime_ns, 7 * 10**9)

    def test_a_mix(self):
        seen = [tree(self.after("mix", seed)) for seed in range(60)]
        self.assertEqual(seen[5], tree(self.after("mix", 5)))
        for found in seen:
            self.assertEqual(found["kept/cur/whole"], b"3" * 5000)
            self.assertIn("grown", found)
        self.assertEqual({found.get("entry not synced") for found in seen}, {b"2", None})
        self.assertEqual({"there" in found for found in seen}, {True, False})
        hollow = {bytes(sorted(set(found["kept/cur/hollow"]))) for found in seen}
        self.assertLessEqual({b"", b"4", b"\0" + b"4"}, hollow | {b""})
        self.assertGreater(len({len(found["kept/cur/hollow"]) for found in seen}), 1)


if __name__ == "__main__":
    unittest.main()
