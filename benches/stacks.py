"""A registry behind TLS under measurement, and what it costs its machine.

Every stack gets the same certificate, the same htpasswd file and a tree of its own on the same
disk. Its cost is that of all its processes: what faces the network and what stands behind it.
"""

import contextlib
import os
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from memory import Memory

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
MIB = int(os.environ.get("BENCH_MIB", "1024"))
# Which rows are measured.
ONLY = re.compile(os.environ.get("BENCH_ONLY", ""))
USER, PASSWORD = "bench", "correct horse battery"
TICK = os.sysconf("SC_CLK_TCK")


def run(*command, **options):
    """Runs a program to its end and returns what it printed; raises with its errors."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: exit {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def progress(mark="."):
    print(mark, end="", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def folder():
    """A folder for everything, on a real disk: what is acknowledged must be written."""
    at = pathlib.Path(tempfile.mkdtemp(prefix="bench", dir=os.environ.get("BENCH_DIR", "/var/tmp")))
    at.chmod(0o755)  # nginx's workers must not depend on who runs this
    try:
        yield at
    finally:
        shutil.rmtree(at, ignore_errors=True)


def secrets(at, cost=5):
    """Writes the certificate and the users all stacks share; 5 is htpasswd's own bcrypt cost."""
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
        "-keyout", str(at / "key.pem"), "-out", str(at / "cert.pem"),
    )
    line = run("htpasswd", "-nbBC", str(cost), USER, PASSWORD)
    (at / "htpasswd").write_text(line.strip() + "\n")


@contextlib.contextmanager
def started(kinds, cost=5):
    """Starts one stack of each kind in a folder of their own, and stops them."""
    stacks = []
    with folder() as at:
        secrets(at, cost)
        try:
            for kind in kinds:
                stack = kind(at)
                stacks.append(stack)
                stack.start()
            yield stacks
        finally:
            for stack in stacks:
                stack.stop()


class Stack:
    """Processes that together are a registry behind TLS."""

    name = ""
    key = ""
    # What a program of its is called, and whether it takes pushes.
    needs = ()
    pushes = True
    proxied = False
    # Where it listens, and what its processes are started through.
    address = "127.0.0.1"
    within = ()

    def __init__(self, at):
        self.at = at / self.key
        self.at.mkdir()
        self.at.chmod(0o755)
        self.shared = at
        self.port = free_port()
        self.root = self.at / "registry"
        self.processes = []

    @classmethod
    def missing(cls):
        """The program that is not on this machine, if one is not."""
        return next((program for program in cls.needs if not shutil.which(program)), None)

    def spawn(self, *command, **environment):
        with open(self.at / "log", "ab") as log:
            self.processes.append(subprocess.Popen(
                (*self.within, *command), stdout=log, stderr=log, cwd=self.at,
                env={**os.environ, **environment},
            ))

    def wait_until_ready(self):
        probe = ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", *self.route(),
                 "--cacert", str(self.shared / "cert.pem"), f"{self.origin()}/v2/"]
        deadline = time.monotonic() + 30
        while subprocess.run(probe, capture_output=True, text=True).stdout != "401":
            if time.monotonic() > deadline or any(p.poll() is not None for p in self.processes):
                raise RuntimeError(f"{self.name}: {(self.at / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def origin(self):
        return f"https://localhost:{self.port}"

    def route(self):
        """What tells curl where that is."""
        return ["--connect-to", f"::{self.address}:"]

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(timeout=60)
        self.processes = []
        shutil.rmtree(self.at, ignore_errors=True)

    def blob(self, digest):
        """Where it keeps a blob's bytes."""
        hex_ = digest.split(":")[1]
        return self.root / f"docker/registry/v2/blobs/sha256/{hex_[:2]}/{hex_}"

    def forget(self, digest):
        """Makes room on the disk; the stack is not asked for this blob again."""
        shutil.rmtree(self.blob(digest))

    def pids(self):
        """Its processes and their children (nginx's workers)."""
        own = [process.pid for process in self.processes]
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text()
                except OSError:
                    continue
                if int(stat.rsplit(")", 1)[1].split()[1]) in own:
                    own.append(int(entry.name))
        return sorted(set(own))

    def cpu_seconds(self):
        total = 0
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(int(ticks) for ticks in fields[11:15])
        return total / TICK


class Cost:
    """Measures what a stack spends between entering and leaving, and the clients that ended."""

    def __init__(self, stack):
        self.stack = stack

    def __enter__(self):
        os.sync()  # the last run's write-back is not this one's
        self.memory = Memory(self.stack.pids())
        self.memory.start()
        self.client = self.clients()
        self.cpu = self.stack.cpu_seconds()
        self.start = time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self.start
        self.cpu = self.stack.cpu_seconds() - self.cpu
        self.client = self.clients() - self.client
        self.peak = self.memory.stop()

    @staticmethod
    def clients():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
