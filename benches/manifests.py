"""How many authenticated manifest GETs a second, and what does each cost?

wrk over HTTP/1.1 and h2load over HTTP/2 ask for one small manifest by its tag, each request with
its password, as clients send it. The stacks take turns; medians.
"""

import base64
import re
import shutil
import sys

from client import reader, url
from manifest import PATH, TYPE, push_image
from stacks import PASSWORD, ROUNDS, USER, Cost, Nginx, Tidegate, folder, run, secrets, table

SECONDS = 6


def wrk(address, headers):
    out = run("wrk", "-t2", "-c16", f"-d{SECONDS}s", *headers, address)
    assert "Non-2xx" not in out and "Socket errors" not in out, out
    return int(re.search(r"(\d+) requests in", out)[1])


def h2load(address, headers):
    out = run("h2load", "-t2", "-c8", "-m8", f"--duration={SECONDS}", *headers, address)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
    assert codes and codes.groups()[1:] == ("0", "0", "0"), out
    return int(codes[1])


LOADS = {"HTTP/1.1": wrk, "HTTP/2": h2load}


def measure(stacks):
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    headers = ["-H", f"Authorization: Basic {token}", "-H", f"Accept: {TYPE}"]
    results = {}
    for turn in range(ROUNDS):
        for protocol, load in LOADS.items():
            for stack in stacks if turn % 2 == 0 else reversed(stacks):
                with Cost(stack) as cost:
                    done = load(url(stack, PATH), headers)
                figures = (done / cost.seconds, cost.cpu * 1e6 / done, cost.peak)
                results.setdefault(f"manifest GET, {protocol}", {}).setdefault(
                    stack.name, []).append(figures)
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
            manifest = push_image(stack)
            got = reader(stack, PATH, TYPE).stdout.read().decode()
            assert got == manifest, f"{stack.name}: {got}"
        results = measure(stacks)
        print(file=sys.stderr)
        title = f"authenticated manifest GETs (bcrypt), medians of {ROUNDS} runs of {SECONDS} s"
        table(title, ["requests/s", "server CPU-µs each", "peak MiB"], results)
    finally:
        for stack in stacks:
            stack.stop()
        shutil.rmtree(at, ignore_errors=True)


if __name__ == "__main__":
    main()
