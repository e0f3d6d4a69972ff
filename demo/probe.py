"""Tries to get at another organisation's folder, the way a curious server would.

confine.py --probe runs it after restricting itself exactly as it does for a server. (Not as a program of its own: another user
might not be able to reach this Python.)
"""

import os


def attempts(folder: str, file: str):
    """(what, function) of everything that is tried."""
    yield "list the folder", lambda: os.listdir(folder)
    yield "read a file", lambda: open(file, "rb").read(1)
    yield "append to a file", lambda: open(file, "ab").close()
    yield "make a file", lambda: os.close(os.open(os.path.join(folder, "probe"), os.O_CREAT | os.O_WRONLY))
    yield "link a file to here", lambda: os.link(file, os.path.join(os.getcwd(), "stolen"))
    yield "move a file to here", lambda: os.rename(file, os.path.join(os.getcwd(), "stolen"))


def run(folder: str, file: str) -> int:
    """0: every attempt was refused; 1: something could be read or written; 2: there was nothing to try on."""
    succeeded = 0
    for what, attempt in attempts(folder, file):
        try:
            attempt()
        except FileNotFoundError as error:
            print(f"probe: nothing to try on: {error}")
            return 2
        except OSError as error:
            print(f"probe: {what}: refused ({error.strerror})")
        else:
            print(f"probe: {what}: SUCCEEDED")
            succeeded = 1
    return succeeded
