"""How many small images a second: 30 layers of 10 KiB, pushed and pulled as docker does it.

Each layer is a HEAD, a POST, a PATCH and a PUT, five at once; a pull is the manifest and three blobs
at once. One client, with new connections for each image as every `docker push` has and with kept
ones as a builder has, and eight clients at once. What is acknowledged is on the disk (see durable.py).
"""

import itertools
import os

from client import wire
from peers import V3, Tidegate, Tuned, TunedV3, chosen
from report import PROXIED, V3 as ALONE, Column, Report
from stacks import ONLY, ROUNDS, Cost, progress, started

COUNT = int(os.environ.get("BENCH_COUNT", "40"))
RATE = Column("images/s", more=True, digits=1)
CPU = Column("server CPU-ms each", more=False, digits=1)
WAYS = {
    "one client, new connections": (),
    "one client, kept connections": ("--keep",),
    "eight clients, kept connections": ("--keep", "--clients", "8"),
}
seeds = itertools.count(1)


def measure(stack, report):
    for way, options in WAYS.items():
        seed = next(seeds)
        for direction in ("push", "pull"):
            row = f"{direction}, {way}"
            if not ONLY.search(row) and (direction == "pull" or not ONLY.search(f"pull, {way}")):
                continue
            with Cost(stack) as cost:
                done, seconds = wire(stack, "images", direction, seed, "--count", COUNT, *options)
            report.note(row, stack.name, int(done) / float(seconds), cost.cpu * 1000 / int(done))
            progress()


def main():
    title = f"Images of 30 layers of 10 KiB, {COUNT} a run, medians of {ROUNDS} (least–most)"
    report = Report("small", title, [RATE, CPU])
    with started(chosen((Tidegate, Tuned, TunedV3, V3))) as stacks:
        for turn in range(ROUNDS):
            for stack in stacks if turn % 2 == 0 else reversed(stacks):
                measure(stack, report)
    for row in report.runs:
        report.target(row, RATE.label, PROXIED, 2)
        report.target(row, RATE.label, ALONE, 2)
    progress("\n")
    report.finish()


main()
