"""How soon does a large registry answer, and how long does a page of its lists take?

A tree of 10,000 repositories and 100,000 tags (tree.py). From the moment that both roles are started:
how long until the registry answers on its socket, and until the edge answers an authenticated request
that goes through both, each with the tree in the page cache and, for root, without it. Then pages of
1,000 of `_catalog` and of a repository's tags: the first time, and again and again.
"""

import contextlib
import os
import pathlib
import socket
import ssl
import time

import tree
from client import BASIC, transfer, wire
from peers import V3, Tidegate, Tuned, chosen
from report import Column, Report
from stacks import ROUNDS, folder, progress, secrets

ANSWER = Column("ms to the first answer", more=False, digits=0, compared=False)
FIRST = Column("from the disk, ms", more=None, digits=1)
MEDIAN = Column("median ms", more=False)
SLOW = Column("99th percentile ms", more=None)
PAGES = {
    "_catalog, first page": "/v2/_catalog?n=1000",
    "_catalog, sixth page": f"/v2/_catalog?n=1000&last={tree.name(4999)}",
    "tags, first page": f"/v2/{tree.LARGE}/tags/list?n=1000",
    "tags, sixth page": f"/v2/{tree.LARGE}/tags/list?n=1000&last=v04999",
}


def answers(stack, connect):
    """Asks until there is a good answer, and says whether there was one this time."""
    request = (f"GET /v2/{tree.LARGE}/tags/list?n=1 HTTP/1.1\r\nHost: localhost:{stack.port}\r\n"
               f"Authorization: {BASIC}\r\nConnection: close\r\n\r\n")
    with contextlib.suppress(OSError), connect() as stream:
        stream.sendall(request.encode())
        return b" 200 " in stream.recv(4096).split(b"\r\n", 1)[0]
    return False


def through_tls(stack):
    context = ssl.create_default_context(cafile=stack.shared / "cert.pem")
    plain = socket.create_connection((stack.address, stack.port), timeout=10)
    return context.wrap_socket(plain, server_hostname="localhost")


def over_socket(stack):
    plain = socket.socket(socket.AF_UNIX)
    plain.settimeout(10)
    plain.connect(str(stack.at / "registry.sock"))
    return plain


def seconds_until(stack, connect, began):
    while not answers(stack, lambda: connect(stack)):
        assert time.monotonic() - began < 60, f"{stack.name}: {(stack.at / 'log').read_text()}"
        time.sleep(0.001)
    return time.monotonic() - began


def start(stack, report, how):
    """Starts the stack without waiting for it, and times its answers."""
    stack.wait_until_ready = lambda: None
    began = time.monotonic()
    stack.start()
    if isinstance(stack, Tidegate):
        took = seconds_until(stack, over_socket, began)
        report.note(f"registry, {how}", stack.name, took * 1000)
    took = seconds_until(stack, through_tls, began)
    report.note(f"through both, {how}", stack.name, took * 1000)
    progress()


def forget_pages():
    """Empties the page cache, and the cache of names, if this may."""
    os.sync()
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    return False


def pages(stack, report):
    for row, path in PAGES.items():
        first = transfer(stack, "GET", path)
        assert first.status == 200, (stack.name, path, first)
        _, _, median, slow = wire(stack, "load", "GET", path, 200, "--connections", 1,
                                  "--seconds", 1)
        report.note(row, stack.name, first.seconds * 1000, float(median), float(slow))
        progress()


def main():
    sizes = f"{tree.REPOSITORIES:,} repositories and {tree.TAGS:,} tags"
    began = Report("start", f"Start with {sizes}, medians of {ROUNDS} (least–most)", [ANSWER])
    lists = Report("lists", f"Pages of 1,000 of {sizes}, medians of {ROUNDS} (least–most)",
                   [FIRST, MEDIAN, SLOW])
    with folder() as at:
        secrets(at)
        root = pathlib.Path(os.environ.get("BENCH_TREE", at / "tree"))
        if not root.exists():
            tree.make(root)
        for turn in range(ROUNDS):
            for kind in chosen((Tidegate, Tuned, V3)):
                for how in ("cold disk", "warm disk"):
                    if how == "cold disk" and not forget_pages():
                        continue
                    stack = kind(at)
                    stack.root = root
                    try:
                        start(stack, began, how)
                        if how == "warm disk":
                            pages(stack, lists)
                    finally:
                        stack.stop()
    for row in began.runs:
        began.target(row, ANSWER.label, None, 300)
    for row in lists.runs:
        lists.target(row, MEDIAN.label, None, 20)
    progress("\n")
    began.finish()
    lists.finish()


main()
