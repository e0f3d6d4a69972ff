"""Runs a command that can reach no files but its own folder's, so that two "organisations" on one machine share none.

    python3 demo/confine.py --folder DIR [--allow-read PATH]... [--uid N] [--report FILE] -- COMMAND...
    python3 demo/confine.py --folder DIR ... --probe -- OTHER-FOLDER FILE

First choice is Landlock (Linux 5.13 or later): this process restricts itself to DIR (all rights) and the system's folders (reading
and running only), then becomes the command. Else, as root, it gives DIR to user N with mode 0700 and becomes the command as that
user. With neither it ends with exit code 3, unless DEMO_UNCONFINED=1 is set. The network is not restricted.
With --probe it does not become a command but tries to get at another folder and tells how that went (probe.py).
Which way was taken goes to FILE, or to standard error, as a line of JSON.
"""

import argparse
import ctypes
import json
import os
import stat
import sys

import probe

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system call numbers, the same on every architecture since 5.13
VERSION_FLAG, RULE_PATH_BENEATH = 1, 1
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
FIRST_RIGHTS = (1 << 13) - 1  # everything that version 1 knows
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

SYSTEM_FOLDERS = ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/sys"]
DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"]

libc = ctypes.CDLL(None, use_errno=True)


class RulesetAttributes(ctypes.Structure):
    _fields_ = [("handled_access_fs", ctypes.c_uint64)]


class PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def system_call(number: int, *arguments) -> int:
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def landlock_version() -> int:
    """The version that the kernel offers, 0 where there is none."""
    try:
        return system_call(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG))
    except OSError:
        return 0


def handled_rights(version: int) -> int:
    """Every file right that this version can restrict."""
    return FIRST_RIGHTS | (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0) | (IOCTL_DEV if version >= 5 else 0)


def allow(ruleset: int, path: str, rights: int):
    """Allows the rights at and below the path; a path that does not exist needs no rule."""
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            rights &= FILE_RIGHTS
        rule = PathBeneath(rights, handle)
        system_call(ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(RULE_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(handle)


def restrict_by_landlock(version: int, folder: str, readable: list):
    """From here on this process, and whatever it becomes, has these rights only."""
    handled = handled_rights(version)
    attributes = RulesetAttributes(handled)
    ruleset = system_call(CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)), ctypes.c_uint32(0))
    allow(ruleset, folder, handled)
    reading = (EXECUTE | READ_FILE | READ_DIR) & handled
    name_servers = os.path.realpath("/etc/resolv.conf")  # often a link out of /etc
    for path in [*SYSTEM_FOLDERS, name_servers, sys.prefix, sys.base_prefix, *readable]:
        allow(ruleset, path, reading)
    for device in DEVICES:
        allow(ruleset, device, (READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV) & handled)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    system_call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def restrict_by_user(folder: str, user: int):
    """Gives the folder to the user, closes it to others, and becomes that user."""
    for directory, names, files in os.walk(folder):
        for name in [*names, *files]:
            os.lchown(os.path.join(directory, name), user, user)
    os.chown(folder, user, user)
    os.chmod(folder, 0o700)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def way(user):
    """What this machine offers: "landlock", "uids", "none" (asked for by DEMO_UNCONFINED=1), or None."""
    forced = os.environ.get("DEMO_ISOLATION")  # "uids" tries the second way on a machine that has the first
    if landlock_version() and forced != "uids":
        return "landlock"
    if os.geteuid() == 0 and user:
        return "uids"
    return "none" if os.environ.get("DEMO_UNCONFINED") == "1" else None


def confine(folder: str, readable: list, user) -> dict:
    """Restricts this process; returns what was done, or None where nothing can be."""
    chosen = way(user)
    if chosen == "landlock":
        version = landlock_version()
        restrict_by_landlock(version, folder, readable)
        return {"isolation": chosen, "version": version}
    if chosen == "uids":
        restrict_by_user(folder, user)
        return {"isolation": chosen, "uid": user}
    return {"isolation": chosen} if chosen else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True)
    parser.add_argument("--allow-read", action="append", default=[], metavar="PATH")
    parser.add_argument("--uid", type=int)
    parser.add_argument("--report")
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    folder = os.path.realpath(arguments.folder)
    report = open(arguments.report, "w", encoding="utf-8") if arguments.report else sys.stderr
    done = confine(folder, [os.path.realpath(path) for path in arguments.allow_read], arguments.uid)
    if done is None:
        print("confine: this kernel has no Landlock and this is not root, so the two sides cannot be kept apart; "
              "set DEMO_UNCONFINED=1 to run them side by side without", file=sys.stderr)
        return 3
    print(json.dumps(done), file=report, flush=True)
    if report is not sys.stderr:
        report.close()
    temporary = os.path.join(folder, "tmp")  # /tmp is out of reach
    os.makedirs(temporary, exist_ok=True)
    os.chdir(folder)
    if arguments.probe:
        return probe.run(*arguments.command)
    os.execvpe(arguments.command[0], arguments.command, os.environ | {"TMPDIR": temporary, "HOME": folder})


if __name__ == "__main__":
    sys.exit(main())
