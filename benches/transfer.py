"""What does a large blob cost, in and out, and how long does it take?

Pushes a new blob each time, once as one PUT and once as docker does it, a PATCH without a length
and an empty PUT; pulls it back. Over HTTP/1.1 and HTTP/2, the stacks taking turns, medians. For
HTTP/2 to be compared with, Tidegate is pushed to over HTTP/1.1 by the same client, too.

Each step begins on pages of memory that were in use a moment ago, and its pull is of what lies in
the page cache. What a user waits for is asked apart: a push and the first pull after it, together, on
such pages and on fresh ones (see pages.py).
"""

import hashlib
import os

import pages
from client import HTTP1, HTTP1_CURL, HTTP2, patch_then_put, pull, put, reader
from peers import Floor, Tidegate, chosen
from report import FILE, PROXIED, V3, Column, Report
from stacks import MIB, ONLY, ROUNDS, Cost, progress, started

BY_CURL = "HTTP/1.1 by curl"
PROTOCOLS = {"HTTP/1.1": HTTP1, BY_CURL: HTTP1_CURL, "HTTP/2": HTTP2}

# A push and its first pull together.
RECYCLED = "push, then pull, recycled pages"
FRESH = "push, then pull, fresh pages"

RATE = Column("MiB/s", more=True, digits=0)
CPU = Column("server CPU-s/GiB", more=False)
CLIENT = Column("client CPU-s/GiB", more=None)
PEAK = Column("peak MiB", more=None, digits=0)


def verify(stack, digest):
    """The bytes that come back are the bytes that went in."""
    source = reader(stack, f"/v2/bench/app/blobs/{digest}")
    sum_ = hashlib.sha256()
    while piece := source.stdout.read(1 << 20):
        sum_.update(piece)
    assert source.wait() == 0 and f"sha256:{sum_.hexdigest()}" == digest, stack.name


def new_blob(path, number):
    """Makes the file another blob by its first bytes; returns its digest."""
    if not path.exists():
        with open(path, "wb") as file:
            for _ in range(MIB):
                file.write(os.urandom(1 << 20))
    with open(path, "r+b") as file:
        file.write(number.to_bytes(8, "big"))
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def turns(stacks):
    """Who goes when, and what is asked of it: the stacks take turns at being first."""
    for turn in range(ROUNDS):
        for name, protocol in PROTOCOLS.items():
            for push, how in ((put, "push, one PUT"), (patch_then_put, "push, PATCH + PUT")):
                pulled = f"pull, {name}" if push is put and name != BY_CURL else None
                for stack in stacks if turn % 2 == 0 else reversed(stacks):
                    if answers(stack, name, push):
                        yield stack, push, f"{how}, {name}", pulled, protocol


def answers(stack, name, push):
    """Whether a stack is asked this way: the floor can no more, and by curl is for our own rows."""
    if isinstance(stack, Floor):
        return push is put and name == "HTTP/1.1"
    return name != BY_CURL or isinstance(stack, Tidegate)


def note(report, row, stack, cost):
    gib = MIB / 1024
    figures = (MIB / cost.seconds, cost.cpu / gib, cost.client / gib, cost.peak)
    report.note(row, stack.name, *figures)
    progress()


def measure(stacks, blob, report):
    for number, (stack, push, pushed, pulled, protocol) in enumerate(turns(stacks)):
        pulls = pulled and ONLY.search(pulled)
        if not (pulls or ONLY.search(pushed)) or not (pulls or stack.pushes):
            continue
        digest = new_blob(blob, number)
        if not stack.pushes:
            stack.place(digest, blob)
        else:
            pages.recycle(2 * MIB)
            with Cost(stack) as cost:
                push(stack, protocol, blob, digest)
            if ONLY.search(pushed):
                note(report, pushed, stack, cost)
        if pulls:
            verify(stack, digest)  # also brings it into the page cache
            pages.recycle(MIB)
            with Cost(stack) as cost:
                pull(stack, protocol, digest, MIB << 20)
            note(report, pulled, stack, cost)
        stack.forget(digest)


def measure_both(stacks, blob, report):
    """A push and the first pull after it, as one step."""
    stacks = [stack for stack in stacks if stack.pushes and not isinstance(stack, Floor)]
    number = 1 << 32  # other blobs than those before
    for turn in range(ROUNDS):
        for row, fresh in ((RECYCLED, False), (FRESH, True)):
            for stack in stacks if turn % 2 == 0 else reversed(stacks):
                if not ONLY.search(row):
                    continue
                number += 1
                digest = new_blob(blob, number)
                if fresh and not pages.freshen():
                    return
                if fresh:
                    # The client's own file is not what is measured.
                    blob.read_bytes()
                else:
                    pages.recycle(3 * MIB)
                with Cost(stack) as cost:
                    put(stack, HTTP1, blob, digest)
                    pull(stack, HTTP1, digest, MIB << 20)
                note(report, row, stack, cost)
                stack.forget(digest)


def aim(report):
    """What the figures are to reach."""
    for how in ("push, one PUT", "push, PATCH + PUT"):
        row = f"{how}, HTTP/1.1"
        report.target(row, RATE.label, PROXIED, 2.5)
        report.target(row, RATE.label, V3, 1.6)
        report.target(row, CPU.label, PROXIED, 0.4)
        report.target(row, CPU.label, V3, 0.85)
        report.target(row, CPU.label, None, 2.1)
        report.target(f"{how}, HTTP/2", CPU.label, f"{how}, {BY_CURL}", 1.2)
    row = "pull, HTTP/1.1"
    report.target(row, RATE.label, PROXIED, 1.8)
    report.target(row, RATE.label, V3, 1.2)
    report.target(row, CPU.label, PROXIED, 0.5)
    report.target(row, CPU.label, V3, 0.95)
    report.target(row, CPU.label, FILE, 1.0)
    report.target(row, CPU.label, None, 1.1)
    report.target(RECYCLED, CPU.label, V3, 0.7)
    report.target(FRESH, CPU.label, V3, 1.0)
    report.target("pull, HTTP/2", CPU.label, PROXIED, 1.15)
    report.target("pull, HTTP/2", CPU.label, FILE, 1.15)


def main():
    title = f"{MIB} MiB over TLS 1.3, medians of {ROUNDS} (least–most)"
    report = Report("transfer", title, [RATE, CPU, CLIENT, PEAK])
    aim(report)
    with started(chosen()) as stacks:
        blob = stacks[0].shared / "blob"
        measure(stacks, blob, report)
        measure_both(stacks, blob, report)
    recycled, fresh = pages.cost_of_both()
    if fresh is not None:
        report.notes.append(
            f"To use memory costs {recycled:.2f} s/GiB here on recycled pages, {fresh:.2f} on fresh ones."
        )
    progress("\n")
    report.finish()


main()
