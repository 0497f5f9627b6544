"""Does the last reply of a push wait longer after a larger blob?

The time from a body's last byte to the 201: after one PUT with the body, and after docker's PATCH and
empty PUT. A blob is hashed and written while it arrives, so what is left at its end should not grow
with it, as long as the disk keeps up; what the disk does is measured beside it.
"""

import hashlib
import itertools
import os
import shutil
import time

from client import begin, transfer, with_digest
from peers import V3, Tidegate, Tuned, chosen
from report import Column, Report
from stacks import ONLY, ROUNDS, progress, started

SIZES = [int(mib) for mib in os.environ.get("BENCH_FINAL_MIB", "64 1024 8192").split()]
PIECE = 64
REPLY = Column("ms to the reply", more=False, digits=1)
RATE = Column("MiB/s", more=None, digits=0)
marks = itertools.count(1)


def name(how, mib):
    return f"{how}, {mib} MiB"


def digest_of(content, mark, repeat):
    sum_ = hashlib.sha256(mark.to_bytes(8, "big"))
    sum_.update(memoryview(content)[8:])
    for _ in range(repeat - 1):
        sum_.update(content)
    return "sha256:" + sum_.hexdigest()


def one_put(stack, digest, body):
    reply = transfer(stack, "PUT", with_digest(begin(stack), digest), *body)
    assert reply.status == 201, reply
    return reply.reply, reply.seconds


def patch_then_put(stack, digest, body):
    sent = transfer(stack, "PATCH", begin(stack), *body)
    assert sent.status == 202, sent
    reply = transfer(stack, "PUT", with_digest(sent.location, digest))
    assert reply.status == 201, reply
    return sent.reply + reply.seconds, sent.seconds + reply.seconds


def disk(at, mib=1024):
    """MiB/s that the disk takes, asked to have it all at the end."""
    piece = os.urandom(1 << 20)
    os.sync()
    began = time.monotonic()
    with open(at / "disk", "wb") as file:
        for _ in range(mib):
            file.write(piece)
        os.fdatasync(file.fileno())
    seconds = time.monotonic() - began
    (at / "disk").unlink()
    return mib / seconds


def main():
    title = f"From the last byte to the reply, medians of {ROUNDS} (least–most)"
    report = Report("final_reply", title, [REPLY, RATE])
    ways = {"one PUT": one_put, "PATCH + PUT": patch_then_put}
    with started(chosen((Tidegate, Tuned, V3))) as stacks:
        at = stacks[0].shared
        content = os.urandom(PIECE << 20)
        (at / "blob").write_bytes(content)
        report.notes.append(f"The disk takes {disk(at):,.0f} MiB/s.")
        for mib, (turn, (how, push)) in itertools.product(
                SIZES, itertools.product(range(ROUNDS), ways.items())):
            if not ONLY.search(name(how, mib)) or (mib > 2048 and turn):
                continue
            if (free := shutil.disk_usage(at).free >> 20) < 1.5 * mib:
                report.notes.append(f"not here: {name(how, mib)}: {free} MiB of disk are free")
                continue
            for stack in stacks if turn % 2 == 0 else reversed(stacks):
                mark, repeat = next(marks), mib // PIECE
                digest = digest_of(content, mark, repeat)
                os.sync()
                body = (at / "blob", "--mark", mark, "--repeat", repeat)
                reply, seconds = push(stack, digest, body)
                report.note(name(how, mib), stack.name, reply * 1000, mib / seconds)
                stack.forget(digest)
                progress()
    for how, mib in itertools.product(ways, SIZES[1:]):
        report.target(name(how, mib), REPLY.label, name(how, SIZES[0]), 1.5)
    progress("\n")
    report.finish()


main()
