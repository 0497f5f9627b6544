"""What do 10,000 connections of a slow client cost everyone else? Or as many as the limit for
descriptors (`ulimit -Hn`) allows.

A third of them drip the head of a request, a third the body of an upload, a third read a layer a
little at a time. Meanwhile, as before and after, one client asks for a manifest again and again over
a connection of its own. Everything shares the machine, the slow client included.
"""

import hashlib
import http.client
import multiprocessing
import os
import pathlib
import resource
import socket
import ssl
import statistics
import sys
import time

from client import BASIC, HTTP1, begin, curl, url, with_digest
from manifest import PATH, TYPE, push_image
from peers import Tidegate
from stacks import ROUNDS, started

CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "10000"))
REQUESTS = 2000
# Each connection moves once in this time, and fast enough not to be cut.
TURN = 8
LAYER = 8 << 20

# Heads that drip would be cut after 30s; here they stay, as if they had come again at once.
LIMITS = """
[limits]
header_timeout = "1h"
"""


class Patient(Tidegate):
    """Tidegate that waits long for a head."""

    def start(self, limits=LIMITS):
        super().start(limits)


def slow_client(connections, port, layer, uploads, ready, stop):
    """Opens the connections, says so, and keeps each of them barely alive."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    authorization = f"Host: localhost\r\nAuthorization: {BASIC}\r\n"
    kinds = [[], [], []]
    for number in range(connections):
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # One address has too few ports for all.
        plain.bind((f"127.0.1.{1 + number % 200}", 0))
        plain.connect(("127.0.0.1", port))
        stream = context.wrap_socket(plain)
        kind = number % 3
        if kind == 0:
            stream.sendall(f"GET /v2/ HTTP/1.1\r\n{authorization}X-Slow: ".encode())
        elif kind == 1:
            target = uploads[number // 3 % len(uploads)]
            head = f"PATCH {target} HTTP/1.1\r\n{authorization}Content-Length: 1000000000\r\n\r\n"
            stream.sendall(head.encode())
        else:
            stream.sendall(f"GET {layer} HTTP/1.1\r\n{authorization}\r\n".encode())
        stream.setblocking(False)
        kinds[kind].append(stream)
    ready.send(connections)
    turns = [
        (streams, move)
        for streams, move in zip(kinds, (
            lambda stream: stream.send(b"x"),
            lambda stream: stream.send(b"x" * 12 * 1024),
            lambda stream: stream.recv(12 * 1024),
        ))
    ]
    lost = 0
    slices = 40
    at = 0
    while not stop.is_set():
        began = time.monotonic()
        for streams, move in turns:
            for stream in streams[at::slices]:
                try:
                    move(stream)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass
                except OSError:
                    lost += 1
        at = (at + 1) % slices
        time.sleep(max(0, TURN / slices - (time.monotonic() - began)))
    ready.send(lost)


class Fast:
    """One client with one connection, asking for a manifest."""

    def __init__(self, stack):
        context = ssl.create_default_context(cafile=stack.shared / "cert.pem")
        self.connection = http.client.HTTPSConnection("localhost", stack.port, context=context)
        self.headers = {"Authorization": BASIC, "Accept": TYPE}

    def milliseconds(self):
        """The median and the 99th percentile."""
        times = []
        for _ in range(REQUESTS):
            began = time.perf_counter()
            self.connection.request("GET", PATH, headers=self.headers)
            reply = self.connection.getresponse()
            reply.read()
            times.append((time.perf_counter() - began) * 1000)
            assert reply.status == 200, reply.status
        times.sort()
        return times[len(times) // 2], times[len(times) * 99 // 100]


def memory_mib(stack):
    edge = stack.processes[1].pid
    for line in pathlib.Path(f"/proc/{edge}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0


def push_layer(stack):
    content = os.urandom(LAYER)
    (stack.at / "layer").write_bytes(content)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    curl(stack, HTTP1, "-X", "PUT", "--data-binary", f"@{stack.at}/layer",
         "-H", "Content-Type: application/octet-stream", "-o", "/dev/null",
         with_digest(begin(stack, HTTP1), digest))
    return f"/v2/bench/app/blobs/{digest}"


def path_of(address):
    return "/" + address.split("://", 1)[1].split("/", 1)[1]


def raise_limit():
    """Lets every process have all descriptors there are; returns how many connections they are for."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # For an upload the edge has five, three of them for the memory that the registry has, too; for a
    # download two, and for a head that drips one.
    connections = min(CONNECTIONS, (most - 500) * 3 // 8)
    assert connections > 0, f"{most} descriptors are too few: raise `ulimit -Hn`"
    return connections


def main():
    connections = raise_limit()
    with started([Patient]) as (stack,):
        push_image(stack)
        layer = push_layer(stack)
        uploads = [path_of(begin(stack)) for _ in range(-(-connections // 3))]
        fast = Fast(stack)
        fast.milliseconds()
        idle = memory_mib(stack)
        quiet = [fast.milliseconds() for _ in range(ROUNDS)]
        ready, theirs = multiprocessing.Pipe()
        stop = multiprocessing.Event()
        arguments = (connections, stack.port, layer, uploads, theirs, stop)
        slow = multiprocessing.Process(target=slow_client, args=arguments, daemon=True)
        slow.start()
        assert ready.poll(600), "the slow client never got its connections"
        opened = ready.recv()
        print(f"{opened} slow connections", file=sys.stderr)
        time.sleep(TURN)
        loaded = [fast.milliseconds() for _ in range(ROUNDS)]
        full = memory_mib(stack)
        stop.set()
        lost = ready.recv() if ready.poll(60) else "unknown"
        slow.join(60)
        quiet += [fast.milliseconds() for _ in range(ROUNDS)]
        report(quiet, loaded, (full - idle) * 1024 / opened, opened, lost)


def report(quiet, loaded, kib_each, opened, lost):
    before, during = (
        [statistics.median(values) for values in zip(*runs)] for runs in (quiet, loaded)
    )
    print(f"\n### manifest GETs beside {opened:,} slow connections ({lost} of them lost)\n")
    print("| | median ms | 99th percentile ms |")
    print("|---|---:|---:|")
    print(f"| quiet | {before[0]:.2f} | {before[1]:.2f} |")
    print(f"| beside them | {during[0]:.2f} | {during[1]:.2f} |")
    print(f"| **ratio** | {during[0] / before[0]:.2f}× | {during[1] / before[1]:.2f}× |")
    print(f"\nThe edge grew by {kib_each:.0f} KiB for each of them.")


main()
