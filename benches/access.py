"""What do rules, lists, limits and tokens cost an authenticated manifest GET?

The same GET, over kept connections: by the password at a site without rules, by the password at one
with fifty rules of which the last fits, an address list and limits for everyone, and there by a
bearer token. TIDEGATE_BEFORE names an older binary to compare with. The stacks take turns; medians.
"""

import base64
import json
import os
import shutil
import ssl
import statistics
import sys
import urllib.request

from client import url
from manifest import PATH, TYPE, push_image
from manifests import SECONDS, wrk
from stacks import PASSWORD, ROUNDS, USER, Cost, Tidegate, folder, secrets

RULES = "".join(
    f'[[site.access.rule]]\nrepositories = ["team{number}/*/app-*", "home/${{user}}/**"]\n'
    f'who = ["@group{number}", "user{number}", "192.0.2.{number}"]\nactions = ["pull"]\n'
    for number in range(49)
) + '[[site.access.rule]]\nwho = ["authenticated"]\nactions = ["*"]\n'

EVERYTHING = f"""scheme = "both"
[site.limits]
site = {{ rate = 1000000, concurrent = 10000 }}
address = {{ rate = 1000000, concurrent = 10000 }}
principal = {{ rate = 1000000, concurrent = 10000 }}
[site.access]
allow_from = ["10.0.0.0/8", "127.0.0.0/8", "2001:db8::/32"]
deny_from = ["127.66.0.0/16"]
{RULES}"""


class Before(Tidegate):
    name = "before"

    def start(self, limits=""):
        now, os.environ["TIDEGATE"] = os.environ["TIDEGATE"], os.environ["TIDEGATE_BEFORE"]
        try:
            super().start(limits)
        finally:
            os.environ["TIDEGATE"] = now


class Plain(Tidegate):
    name = "without"


class Ruled(Tidegate):
    name = "rules"

    def start(self, limits=""):
        super().start(EVERYTHING)


def basic():
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def bearer(stack):
    repository = PATH.removeprefix("/v2/").split("/manifests/")[0]
    query = f"service=localhost&scope=repository:{repository}:pull"
    request = urllib.request.Request(url(stack, f"/auth/token?{query}"))
    request.add_header("Authorization", basic())
    context = ssl.create_default_context(cafile=stack.shared / "cert.pem")
    with urllib.request.urlopen(request, context=context) as reply:
        return "Bearer " + json.load(reply)["token"]


def main():
    at = folder()
    stacks = []
    try:
        secrets(at)
        kinds = ([Before] if os.environ.get("TIDEGATE_BEFORE") else []) + [Plain, Ruled]
        for kind in kinds:
            stacks.append(kind(at))
            stacks[-1].start()
            push_image(stacks[-1])
        ways = [(stack.name, stack, basic()) for stack in stacks]
        ways.append(("rules, by token", stacks[-1], bearer(stacks[-1])))
        results = {}
        for turn in range(ROUNDS):
            for name, stack, authorization in ways if turn % 2 == 0 else reversed(ways):
                headers = ["-H", f"Authorization: {authorization}", "-H", f"Accept: {TYPE}"]
                with Cost(stack) as cost:
                    done = wrk(url(stack, PATH), headers)
                figures = (done / cost.seconds, cost.cpu * 1e6 / done)
                results.setdefault(name, []).append(figures)
                print(".", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        report(ways, results)
    finally:
        for stack in stacks:
            stack.stop()
        shutil.rmtree(at, ignore_errors=True)


def report(ways, results):
    print(f"\n### authenticated manifest GETs over HTTP/1.1, medians of {ROUNDS} runs of {SECONDS} s\n")
    print("| site | requests/s | server CPU-µs each | CPU against the first |")
    print("|---|---:|---:|---:|")
    first = None
    for name, _, _ in ways:
        rate, cpu = (statistics.median(values) for values in zip(*results[name]))
        first = first or cpu
        print(f"| {name} | {rate:,.0f} | {cpu:,.1f} | {cpu / first:.2f}× |")


if __name__ == "__main__":
    main()
