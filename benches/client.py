"""How all stacks are asked: one process, one connection, the password on each request.

Blobs over HTTP/1.1 move through `wire` (benches/wire/), which leaves the stacks more of the
machine than curl does; over HTTP/2, and for everything small, it is curl. BENCH_CLIENT=curl takes
curl for all. Both offer the cipher first that docker's client does, so that every stack uses it.
What a stack does for a byte depends on how the client sends it, so HTTP/2 is compared with HTTP/1.1
by curl.
"""

import base64
import os
import subprocess
from typing import NamedTuple

from stacks import PASSWORD, USER, run

BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
CIPHERS = ("--tls13-ciphers", "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384")
WIRE = os.environ.get("WIRE", "")


class Protocol(NamedTuple):
    """A version of HTTP, and whether it is `wire` that moves blobs."""

    flag: str
    by_wire: bool = False


HTTP1 = Protocol("--http1.1", by_wire=os.environ.get("BENCH_CLIENT") != "curl")
HTTP1_CURL = Protocol("--http1.1")
HTTP2 = Protocol("--http2")


class Reply(NamedTuple):
    status: int
    bytes: int
    seconds: float
    # From the request's last byte to the reply's first.
    reply: float
    location: str


def wire_command(stack, *question, authorization=BASIC):
    return [WIRE, "--ca", str(stack.shared / "cert.pem"), "--authorization", authorization,
            "--origin", stack.origin(), "--address", stack.address, *map(str, question)]


def wire(stack, *question, **options):
    """Runs `wire` and returns the figures it printed."""
    return run(*wire_command(stack, *question, **options)).split()


def transfer(stack, method, address, *file):
    """One request through `wire`."""
    return reply_of(wire(stack, "transfer", method, address, *file))


def reply_of(words):
    status, received, seconds, reply, location = words
    return Reply(int(status), int(received), float(seconds), float(reply), location)


def curl_command(stack, protocol, *arguments):
    return ["curl", "-sS", "--fail", protocol.flag, *CIPHERS, *stack.route(),
            "--cacert", str(stack.shared / "cert.pem"), "-u", f"{USER}:{PASSWORD}", "-H", "Expect:", *arguments]


def curl(stack, protocol, *arguments, stdin=None):
    """Runs curl and returns what --write-out asked for."""
    done = subprocess.run(
        curl_command(stack, protocol, *arguments),
        stdin=stdin or subprocess.DEVNULL, capture_output=True, text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{stack.name}: curl {arguments}: {done.stderr}")
    return done.stdout


def url(stack, path):
    return path if path.startswith("https:") else stack.origin() + path


def with_digest(location, digest):
    return location + ("&" if "?" in location else "?") + f"digest={digest}"


def location_of(head):
    for line in head.splitlines():
        if line.lower().startswith("location:"):
            return line.split(":", 1)[1].strip()
    raise RuntimeError(f"no Location in {head}")


def begin(stack, protocol=HTTP1, repository="bench/app"):
    head = curl(stack, protocol, "-X", "POST", "-D", "-", "-o", "/dev/null",
                url(stack, f"/v2/{repository}/blobs/uploads/"))
    return url(stack, location_of(head))


def put(stack, protocol, blob, digest):
    """A blob as one PUT with its length."""
    target = with_digest(begin(stack, protocol), digest)
    if protocol.by_wire:
        assert (status := transfer(stack, "PUT", target, blob).status) == 201, status
    else:
        code = curl(stack, protocol, "-T", str(blob), "-o", "/dev/null", "-w", "%{http_code}", target)
        assert code == "201", code


def patch_then_put(stack, protocol, blob, digest):
    """A blob as docker sends it: a PATCH without a length, and an empty PUT."""
    target = begin(stack, protocol)
    if protocol.by_wire:
        reply = transfer(stack, "PATCH", target, blob)
        assert reply.status == 202, reply
        target = reply.location
    else:
        with open(blob, "rb") as body:
            target = location_of(curl(
                stack, protocol, "-X", "PATCH", "-T", "-", "-D", "-", "-o", "/dev/null",
                "-H", "Content-Type: application/octet-stream", target, stdin=body,
            ))
    code = curl(stack, protocol, "-X", "PUT", "-o", "/dev/null", "-w", "%{http_code}",
                with_digest(url(stack, target), digest))
    assert code == "201", code


def pull(stack, protocol, digest, size):
    address = url(stack, f"/v2/bench/app/blobs/{digest}")
    if protocol.by_wire:
        reply = transfer(stack, "GET", f"/v2/bench/app/blobs/{digest}")
        assert (reply.status, reply.bytes) == (200, size), reply
    else:
        got = curl(stack, protocol, "-o", "/dev/null", "-w", "%{size_download}", address)
        assert int(got) == size, got


def reader(stack, path, accept="*/*"):
    """A curl whose output the caller reads."""
    return subprocess.Popen(
        curl_command(stack, HTTP1, "-H", f"Accept: {accept}", url(stack, path)),
        stdout=subprocess.PIPE,
    )
