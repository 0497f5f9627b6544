"""What do the small authenticated requests cost, and how long do they take?

A manifest by tag and by digest, a blob's HEAD, the check of a token, each on 32 kept connections
with its password (bcrypt cost 10) or a bearer token. nginx checks the password anew each time, so it
gets fewer. The stacks take turns; medians. At the end, the system calls of each kind of request.
"""

import hashlib
import json
import ssl
import subprocess
import urllib.request

from client import BASIC, url, wire
from manifest import PATH, push_image
from peers import V3, Tidegate, Tuned, TunedV3, chosen
from report import Column, Report
from stacks import ONLY, ROUNDS, Cost, progress, started

SECONDS = 4
CONNECTIONS = 32
COST = Column("server CPU-µs each", more=False, digits=0)
RATE = Column("requests/s", more=True, digits=0, compared=False)
MEDIAN = Column("median ms", more=None)
SLOW = Column("99th percentile ms", more=False, compared=False)


class BothTokens(Tidegate):
    """Passwords and tokens; access rules, without which there are no tokens, allow all."""

    def start(self, limits=""):
        super().start('scheme = "both"\n[site.access]\n[[site.access.rule]]\n'
                      'who = ["authenticated"]\nactions = ["*"]\n')


def requests(stack, manifest):
    """What is asked: the row, then `wire`'s arguments."""
    digest = "sha256:" + hashlib.sha256(manifest.encode()).hexdigest()
    layer = json.loads(manifest)["layers"][0]["digest"]
    by_digest = PATH.replace("latest", digest)
    yield "manifest GET by tag", ("GET", PATH, 200)
    yield "manifest GET by digest", ("GET", by_digest, 200)
    yield "manifest HEAD by tag", ("HEAD", PATH, 200)
    yield "manifest HEAD by digest", ("HEAD", by_digest, 200)
    yield "blob HEAD", ("HEAD", f"/v2/bench/app/blobs/{layer}", 200)
    yield "manifest GET, not modified", (
        "GET", PATH, 304, "--header", f'If-None-Match: "{digest}"')
    yield "token check, password", ("GET", "/v2/", 200)
    if isinstance(stack, BothTokens):
        yield "token check, bearer", ("GET", "/v2/", 200)
        yield "manifest GET by tag, bearer", ("GET", PATH, 200)


def bearer(stack):
    """A token to pull what the images are in."""
    repository = PATH.removeprefix("/v2/").split("/manifests/")[0]
    query = f"service=localhost&scope=repository:{repository}:pull"
    request = urllib.request.Request(url(stack, f"/auth/token?{query}"))
    request.add_header("Authorization", BASIC)
    context = ssl.create_default_context(cafile=stack.shared / "cert.pem")
    with urllib.request.urlopen(request, context=context) as reply:
        return "Bearer " + json.load(reply)["token"]


def ask(stack, question, authorization, seconds=SECONDS):
    """The number of requests and their times: what `wire load` prints."""
    done = wire(stack, "load", *question, "--connections", CONNECTIONS, "--seconds", seconds,
                authorization=authorization)
    return int(done[0]), *map(float, done[1:])


def measure(stacks, manifests, report):
    for turn in range(ROUNDS):
        for stack in stacks if turn % 2 == 0 else reversed(stacks):
            if turn and not isinstance(stack, Tidegate):
                continue  # minutes of bcrypt, and as much each time
            for row, question in requests(stack, manifests[stack.name]):
                if not ONLY.search(row):
                    continue
                authorization = bearer(stack) if "bearer" in row else BASIC
                ask(stack, question, authorization, 0.1)
                with Cost(stack) as cost:
                    done, seconds, median, slow = ask(stack, question, authorization)
                # The connections' own cost is among it: 32 handshakes.
                report.note(row, stack.name, cost.cpu * 1e6 / done, done / seconds, median, slow)
                progress()


def system_calls(stack, manifest):
    """How many system calls each request takes, by name, the rarest left out."""
    for row, question in requests(stack, manifest):
        if not ONLY.search(row):
            continue
        authorization = bearer(stack) if "bearer" in row else BASIC
        which = [word for pid in stack.pids() for word in ("-p", str(pid))]
        out = stack.at / "strace"
        watcher = subprocess.Popen(["strace", "-f", "-c", "-o", str(out), *which],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        watcher.stderr.readline()  # attached
        done = ask(stack, question, authorization, 1)[0]
        watcher.terminate()
        watcher.communicate()
        counted = {}
        for line in out.read_text().splitlines():
            fields = line.split()
            if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
                counted[fields[-1]] = int(fields[3]) / done
        often = sorted(((count, name) for name, count in counted.items() if count > 0.05), reverse=True)
        yield row, sum(counted.values()), ", ".join(f"{name} {count:.1f}" for count, name in often)


def aim(report):
    for row in report.runs:
        report.target(row, COST.label, None, 120)
        report.target(row, SLOW.label, None, 10)


def main():
    title = (f"Small requests, authenticated (bcrypt cost 10), {CONNECTIONS} connections, "
             f"medians of {ROUNDS} runs of {SECONDS} s (least–most)")
    report = Report("manifests", title, [COST, RATE, MEDIAN, SLOW])
    with started(chosen((BothTokens, Tuned, TunedV3, V3)), cost=10) as stacks:
        manifests = {stack.name: push_image(stack) for stack in stacks}
        measure(stacks, manifests, report)
        aim(report)
        if isinstance(stacks[0], BothTokens):
            calls = system_calls(stacks[0], manifests[stacks[0].name])
            report.notes.append("\n".join([
                "| Tidegate's system calls each | all | of which |", "|---|---:|---|",
                *(f"| {row} | {total:.1f} | {names} |" for row, total, names in calls),
            ]))
    progress("\n")
    report.finish()


if __name__ == "__main__":
    main()
