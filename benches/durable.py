"""What does each stack make sure of before it says that a blob is there?

A push of a small blob under strace: how often files and folders are synced, and how many of those
calls come before the reply. A stack that answers first may lose what it has acknowledged.
"""

import hashlib
import os
import re
import subprocess

from client import HTTP1, put
from peers import Floor, chosen
from report import Column, Report
from stacks import progress, started

FILES = Column("syncs of files", more=None, digits=0)
FOLDERS = Column("syncs of folders", more=None, digits=0)
CALL = re.compile(r"(?:fsync|fdatasync|sync_file_range|syncfs)\(\d+<([^>]*)>")


def synced(stack):
    """What a push of one blob syncs before its reply, by path."""
    blob = stack.at / "durable"
    blob.write_bytes(os.urandom(1 << 20))
    digest = "sha256:" + hashlib.sha256(blob.read_bytes()).hexdigest()
    out = stack.at / "strace"
    which = [word for pid in stack.pids() for word in ("-p", str(pid))]
    calls = "trace=fsync,fdatasync,sync_file_range,syncfs"
    watcher = subprocess.Popen(["strace", "-f", "-y", "-e", calls, "-o", str(out), *which],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    watcher.stderr.readline()  # attached
    put(stack, HTTP1, blob, digest)
    # The reply is here: what is synced from now on came too late to count.
    text = out.read_text()
    watcher.terminate()
    watcher.communicate()
    return CALL.findall(text)


def main():
    report = Report("durable", "What is synced before the reply to a push", [FILES, FOLDERS])
    with started([kind for kind in chosen() if kind.pushes and kind is not Floor]) as stacks:
        for stack in stacks:
            paths = synced(stack)
            folders = [path for path in paths if os.path.isdir(path)]
            report.note("one blob, one PUT", stack.name, len(paths) - len(folders), len(folders))
            progress()
    progress("\n")
    report.finish()


main()
