"""How fast are a push and a pull over a long line?

At round trips of 20 and 80 ms a blob goes each way over HTTP/1.1 and HTTP/2, and the same bytes over
one plain TCP connection between the same two namespaces: what the kernel's windows allow there.
"""

import hashlib
import multiprocessing
import os
import socket
import sys
import time

import link
from client import HTTP1, HTTP2, begin, curl, transfer, url, with_digest
from peers import V3, File, Tidegate, Tuned, chosen
from report import STREAM, Column, Report
from stacks import ONLY, ROUNDS, Stack, progress, started

MIB = int(os.environ.get("BENCH_DISTANCE_MIB", "128"))
ROUND_TRIPS = {"20 ms": 0.020, "80 ms": 0.080}
PROTOCOLS = {"HTTP/1.1": HTTP1, "HTTP/2": HTTP2}
RATE = Column("MiB/s", more=True, digits=1)
STREAM_PORT = 4000
# MiB/s: a stack that does less has one turn only, or this takes an hour.
SLOW = 5


def stream_server(namespace):
    """Takes bytes until there are enough and says so, or sends as many."""
    link.enter(namespace)
    listener = socket.create_server((link.SERVER, STREAM_PORT))
    piece = bytearray(1 << 20)
    while True:
        connection, _ = listener.accept()
        with connection:
            if connection.recv(1) == b"<":
                connection.sendall(b"-")
                receive(connection, piece)
                connection.sendall(b"-")
            else:
                for _ in range(MIB):
                    connection.sendall(piece)
                connection.recv(1)


def receive(connection, piece):
    left = MIB << 20
    while left:
        got = connection.recv_into(piece)
        assert got, "the stream ended early"
        left -= got


def stream(direction):
    """Seconds that the bytes take over one TCP connection, from its first to the answer."""
    piece = bytearray(1 << 20)
    with socket.create_connection((link.SERVER, STREAM_PORT)) as connection:
        if direction == "push":
            connection.sendall(b"<")
            connection.recv(1)
            began = time.monotonic()
            for _ in range(MIB):
                connection.sendall(piece)
            connection.recv(1)
        else:
            began = time.monotonic()
            connection.sendall(b">")
            receive(connection, piece)
        return time.monotonic() - began


def push(stack, protocol, blob, digest):
    target = with_digest(begin(stack, protocol), digest)
    if protocol.by_wire:
        reply = transfer(stack, "PUT", target, blob)
        assert reply.status == 201, reply
        return reply.seconds
    return timed(curl(stack, protocol, "-T", str(blob), "-o", "/dev/null", "-w", TIMES, target), 201)


def pull(stack, protocol, digest):
    address = url(stack, f"/v2/bench/app/blobs/{digest}")
    if protocol.by_wire:
        reply = transfer(stack, "GET", f"/v2/bench/app/blobs/{digest}")
        assert (reply.status, reply.bytes) == (200, MIB << 20), reply
        return reply.seconds
    return timed(curl(stack, protocol, "-o", "/dev/null", "-w", TIMES, address), 200)


# The handshakes are not the blob's.
TIMES = "%{http_code} %{time_appconnect} %{time_total}"


def timed(out, status):
    code, connected, total = out.split()
    assert int(code) == status, out
    return float(total) - float(connected)


def new_blob(path, number):
    if not path.exists():
        path.write_bytes(os.urandom(MIB << 20))
    with open(path, "r+b") as file:
        file.write(number.to_bytes(8, "big"))
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def measure(stacks, length, report):
    blob = stacks[0].shared / "blob"
    number = 0
    for turn in range(ROUNDS):
        for direction in ("push", "pull"):
            # What a plain stream does is the same for both protocols' rows.
            seconds = stream(direction)
            for name in PROTOCOLS:
                if ONLY.search(f"{direction}, {name}, {length}"):
                    report.note(f"{direction}, {name}, {length}", STREAM, MIB / seconds)
        for stack in stacks if turn % 2 == 0 else reversed(stacks):
            for name, protocol in PROTOCOLS.items():
                number += 1
                pushed, pulled = (f"{way}, {name}, {length}" for way in ("push", "pull"))
                if not (ONLY.search(pushed) or ONLY.search(pulled)):
                    continue
                if turn and (report.median(pushed, stack.name, RATE) or SLOW) < SLOW:
                    continue
                digest = new_blob(blob, number)
                if stack.pushes:
                    report.note(pushed, stack.name, MIB / push(stack, protocol, blob, digest))
                else:
                    stack.place(digest, blob)
                report.note(pulled, stack.name, MIB / pull(stack, protocol, digest))
                stack.forget(digest)
                progress()


def main():
    link.become_root([sys.executable, *sys.argv])
    title = f"{MIB} MiB over a long line, medians of {ROUNDS} (least–most)"
    report = Report("distance", title, [RATE])
    for length, seconds in ROUND_TRIPS.items():
        with link.Link(seconds) as line:
            server = multiprocessing.Process(target=stream_server, args=(line.server,), daemon=True)
            server.start()
            Stack.address = link.SERVER
            Stack.within = ("nsenter", f"--net={line.server}")
            with started(chosen((Tidegate, Tuned, V3, File))) as stacks:
                measure(stacks, length, report)
            server.terminate()
            server.join()
    for row in report.runs:
        report.target(row, RATE.label, STREAM, 0.9)
    report.notes.append(f"The line: {line.way}.")
    progress("\n")
    report.finish()


if __name__ == "__main__":
    main()
