"""What does a large blob cost, in and out, and how long does it take?

Pushes a new blob each time, once as one PUT and once as docker does it, a PATCH without a length
and an empty PUT; pulls it back. Over HTTP/1.1 and HTTP/2, the stacks taking turns, medians.
"""

import hashlib
import json
import os
import pathlib
import shutil
import sys

from client import begin, curl, location_of, reader, url, with_digest
from stacks import MIB, ROUNDS, Cost, Nginx, Tidegate, folder, secrets, table

PROTOCOLS = {"HTTP/1.1": "--http1.1", "HTTP/2": "--http2"}


def put(stack, flag, blob, digest):
    target = with_digest(begin(stack, flag), digest)
    code = curl(stack, flag, "-T", str(blob), "-o", "/dev/null", "-w", "%{http_code}", target)
    assert code == "201", code


def patch_then_put(stack, flag, blob, digest):
    target = begin(stack, flag)
    with open(blob, "rb") as body:
        head = curl(stack, flag, "-X", "PATCH", "-T", "-", "-D", "-", "-o", "/dev/null",
                    "-H", "Content-Type: application/octet-stream", target, stdin=body)
    target = with_digest(url(stack, location_of(head)), digest)
    code = curl(stack, flag, "-X", "PUT", "-o", "/dev/null", "-w", "%{http_code}", target)
    assert code == "201", code


def pull(stack, flag, digest):
    size = curl(stack, flag, "-o", "/dev/null", "-w", "%{size_download}",
                url(stack, f"/v2/bench/app/blobs/{digest}"))
    assert int(size) == MIB << 20, size


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


def forget(stack, digest):
    """Makes room on the disk; neither stack is asked for this blob again."""
    hex_ = digest.split(":")[1]
    shutil.rmtree(stack.root / f"docker/registry/v2/blobs/sha256/{hex_[:2]}/{hex_}")


def measure(stacks, blob):
    results = {}

    def note(row, stack, cost):
        rate = MIB / cost.seconds
        per_gib = cost.cpu * 1024 / MIB
        results.setdefault(row, {}).setdefault(stack.name, []).append((rate, per_gib, cost.peak))

    number = 0
    for turn in range(ROUNDS):
        for protocol, flag in PROTOCOLS.items():
            for push, how in ((put, "push, one PUT"), (patch_then_put, "push, PATCH + PUT")):
                for stack in stacks if turn % 2 == 0 else reversed(stacks):
                    number += 1
                    digest = new_blob(blob, number)
                    with Cost(stack) as cost:
                        push(stack, flag, blob, digest)
                    note(f"{how}, {protocol}", stack, cost)
                    if push is put:
                        verify(stack, digest)  # also brings it into the page cache
                        with Cost(stack) as cost:
                            pull(stack, flag, digest)
                        note(f"pull, {protocol}", stack, cost)
                    forget(stack, digest)
                    print(".", end="", file=sys.stderr, flush=True)
    return results


def main():
    at = folder()
    stacks = []
    try:
        secrets(at)
        for kind in (Tidegate, Nginx):
            stack = kind(at)
            stacks.append(stack)
            stack.start()
        results = measure(stacks, at / "blob")
        print(file=sys.stderr)
        title = f"{MIB} MiB through the edge, TLS, medians of {ROUNDS}"
        table(title, ["MiB/s", "server CPU-s/GiB", "peak MiB"], results)
        if path := os.environ.get("BENCH_JSON"):
            pathlib.Path(path).write_text(json.dumps(results, indent=1))
    finally:
        for stack in stacks:
            stack.stop()
        shutil.rmtree(at, ignore_errors=True)


main()
