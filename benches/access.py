"""What do rules, lists, limits and tokens cost an authenticated manifest GET?

The same GET, over kept connections: by the password at a site without rules, by the password at one
with fifty rules of which the last fits, an address list and limits for everyone, and there by a
bearer token. TIDEGATE_BEFORE names an older binary to compare with. The stacks take turns; medians.
"""

import os
import statistics

from client import BASIC
from manifest import PATH, push_image
from manifests import CONNECTIONS, SECONDS, ask, bearer
from peers import Tidegate
from stacks import ROUNDS, Cost, progress, started

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
    name = key = "before"

    def start(self, limits=""):
        now, os.environ["TIDEGATE"] = os.environ["TIDEGATE"], os.environ["TIDEGATE_BEFORE"]
        try:
            super().start(limits)
        finally:
            os.environ["TIDEGATE"] = now


class Plain(Tidegate):
    name = key = "without"


class Ruled(Tidegate):
    name = key = "rules"

    def start(self, limits=""):
        super().start(EVERYTHING)


def main():
    kinds = ([Before] if os.environ.get("TIDEGATE_BEFORE") else []) + [Plain, Ruled]
    results = {}
    with started(kinds) as stacks:
        for stack in stacks:
            push_image(stack)
        ways = [(stack.name, stack, BASIC) for stack in stacks]
        ways.append(("rules, by token", stacks[-1], bearer(stacks[-1])))
        for turn in range(ROUNDS):
            for name, stack, authorization in ways if turn % 2 == 0 else reversed(ways):
                with Cost(stack) as cost:
                    done = ask(stack, ("GET", PATH, 200), authorization)[0]
                figures = (done / cost.seconds, cost.cpu * 1e6 / done)
                results.setdefault(name, []).append(figures)
                progress()
    progress("\n")
    report(ways, results)


def report(ways, results):
    print("\n### Authenticated manifest GETs over HTTP/1.1, "
          f"{CONNECTIONS} connections, medians of {ROUNDS} runs of {SECONDS} s\n")
    print("| site | requests/s | server CPU-µs each | CPU against the first |")
    print("|---|---:|---:|---:|")
    first = None
    for name, _, _ in ways:
        rate, cpu = (statistics.median(values) for values in zip(*results[name]))
        first = first or cpu
        print(f"| {name} | {rate:,.0f} | {cpu:,.1f} | {cpu / first:.2f}× |")


if __name__ == "__main__":
    main()
