"""Many transfers at once: is it as fast as one, is it fair, and does memory stay flat?

32 pushes and 32 pulls begin together, and once more with blobs of twice the size. Their time is
compared with what the same bytes take one after another, at the rates of a single push and a single
pull measured right before.
"""

import hashlib
import itertools
import os
import shutil
import subprocess

import pages
from client import HTTP1, begin, pull, put, reply_of, wire_command, with_digest
from peers import V3, Tidegate, Tuned, TunedV3, chosen
from report import PROXIED, Column, Report
from stacks import ONLY, ROUNDS, Cost, progress, started

COUNT = int(os.environ.get("BENCH_COUNT", "32"))
MIB = int(os.environ.get("BENCH_MANY_MIB", "256"))
# Pulls share this many blobs, as the machines of a fleet do.
BLOBS = 4

RATE = Column("MiB/s in all", more=True, digits=0, compared=False)
AGAINST_ONE = Column("of one stream's rate", more=True, compared=False)
CPU = Column("server CPU-s/GiB", more=False)
PUSHES = Column("slowest push ÷ fastest", more=False, compared=False)
PULLS = Column("slowest pull ÷ fastest", more=False, compared=False)
PEAK = Column("peak MiB", more=False, digits=0)

marks = itertools.count(1)


class Source:
    """A file, and the digests of what it is with other first bytes."""

    def __init__(self, path, mib):
        self.path, self.mib = path, mib
        with open(path, "wb") as file:
            for _ in range(mib):
                file.write(os.urandom(1 << 20))
        self.content = path.read_bytes()

    def digest(self, mark):
        sum_ = hashlib.sha256(mark.to_bytes(8, "big"))
        sum_.update(memoryview(self.content)[8:])
        return "sha256:" + sum_.hexdigest()

    def blob(self, mark):
        """Makes the file itself the one that `mark` stands for."""
        with open(self.path, "r+b") as file:
            file.write(mark.to_bytes(8, "big"))
        return self.path


def single(stack, source, repeats=3):
    """Seconds that one push and one pull take, alone: the best of a few."""
    pushes, pulls = [], []
    for _ in range(repeats):
        mark = next(marks)
        digest = source.digest(mark)
        with Cost(stack) as cost:
            put(stack, HTTP1, source.blob(mark), digest)
        pushes.append(cost.seconds)
        pull(stack, HTTP1, digest, source.mib << 20)
        with Cost(stack) as cost:
            pull(stack, HTTP1, digest, source.mib << 20)
        pulls.append(cost.seconds)
        stack.forget(digest)
    return min(pushes), min(pulls)


def together(stack, source, pulled):
    """Starts everything, waits for it, and returns how long each push and each pull took."""
    pushed = [(mark, source.digest(mark)) for mark in itertools.islice(marks, COUNT)]
    targets = [with_digest(begin(stack), digest) for _, digest in pushed]
    with Cost(stack) as cost:
        processes = []
        for (mark, _), target, digest in zip(pushed, targets, itertools.cycle(pulled)):
            processes.append(wire_command(
                stack, "transfer", "PUT", target, source.path, "--mark", mark))
            processes.append(wire_command(
                stack, "transfer", "GET", f"/v2/bench/app/blobs/{digest}"))
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                     for command in processes]
        replies = [reply_of(process.communicate()[0].split()) for process in processes]
    assert [reply.status for reply in replies] == [201, 200] * COUNT, replies
    for _, digest in pushed:
        stack.forget(digest)
    pushes, pulls = ([reply.seconds for reply in replies[kind::2]] for kind in (0, 1))
    return cost, max(pushes) / min(pushes), max(pulls) / min(pulls)


def measure(stack, source, row, report):
    push_seconds, pull_seconds = single(stack, source)
    pulled = [(mark, source.digest(mark)) for mark in itertools.islice(marks, BLOBS)]
    for mark, digest in pulled:
        put(stack, HTTP1, source.blob(mark), digest)
    cost, pushes, pulls = together(stack, source, [digest for _, digest in pulled])
    for _, digest in pulled:
        stack.forget(digest)
    mib = 2 * COUNT * source.mib
    alone = COUNT * (push_seconds + pull_seconds)
    report.note(row, stack.name, mib / cost.seconds, alone / cost.seconds,
                cost.cpu * 1024 / mib, pushes, pulls, cost.peak)
    progress()


def main():
    title = f"{COUNT} pushes and {COUNT} pulls at once, medians of {ROUNDS} (least–most)"
    report = Report("many", title, [RATE, AGAINST_ONE, CPU, PUSHES, PULLS, PEAK])
    rows = {mib: f"{COUNT} + {COUNT} of {mib} MiB" for mib in (MIB, 2 * MIB)}
    for row in rows.values():
        report.target(row, AGAINST_ONE.label, None, 0.9)
        report.target(row, PUSHES.label, None, 2)
        report.target(row, PULLS.label, None, 2)
        report.target(row, PEAK.label, PROXIED, 1)
    report.target(rows[2 * MIB], PEAK.label, rows[MIB], 1.1)
    with started(chosen((Tidegate, Tuned, TunedV3, V3))) as stacks:
        for mib, row in rows.items():
            if not ONLY.search(row):
                continue
            needed, free = (COUNT + BLOBS + 2) * mib, shutil.disk_usage(stacks[0].at).free >> 20
            if free < needed * 1.2:
                report.notes.append(f"not here: {row}: {needed} MiB of disk, and {free} are free")
                continue
            source = Source(stacks[0].shared / "blob", mib)
            for turn in range(ROUNDS):
                for stack in stacks if turn % 2 == 0 else reversed(stacks):
                    pages.recycle(needed)
                    measure(stack, source, row, report)
    progress("\n")
    report.finish()


main()
