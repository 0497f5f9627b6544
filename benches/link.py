"""A long line between two network namespaces of this machine.

Where the kernel has netem, it is a pair of virtual devices with a delay. Where it does not, it is a
pair of TUN devices and a process that hands each packet on when its time has come: TCP at both ends
is the kernel's own, with its windows and its slow start, and sees no other difference. Packets are
large ones with segmentation left to the "device", as on any real card. Nothing is lost.
"""

import collections
import ctypes
import fcntl
import multiprocessing
import os
import select
import struct
import subprocess
import time

SERVER, CLIENT = "192.0.2.1", "192.0.2.2"

# linux/if_tun.h
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 0x01, 0x02

libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace):
    """Moves this thread into a network namespace."""
    with open(namespace) as file:
        if libc.setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def become_root(arguments):
    """Namespaces need a root, if only one of a namespace of its own."""
    if os.geteuid() != 0:
        os.execvp("unshare", ["unshare", "--user", "--map-root-user", *arguments])


def hold():
    """A process in a new network namespace, which lasts as long as it does."""
    process = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"],
                               stdout=subprocess.PIPE)
    process.stdout.readline()
    return process, f"/proc/{process.pid}/ns/net"


def inside(namespace, command):
    subprocess.run(["nsenter", f"--net={namespace}", "sh", "-ec", command], check=True)


def netem():
    """Whether this kernel has it."""
    process, namespace = hold()
    try:
        command = ["nsenter", f"--net={namespace}", "tc", "qdisc", "add", "dev", "lo", "root",
                   "netem", "delay", "1ms"]
        return subprocess.run(command, capture_output=True).returncode == 0
    finally:
        process.kill()
        process.wait()


def tun(namespace, home):
    """A TUN device in the namespace: the end that a program reads and writes."""
    enter(namespace)
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"line", flags))
        fcntl.ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
        return device
    finally:
        enter(home)


def relay(ends, delay):
    """Hands packets from each end to the other, `delay` seconds after they came."""
    ways = [(ends[0], ends[1], collections.deque()), (ends[1], ends[0], collections.deque())]
    while True:
        dues = [waiting[0][0] for _, _, waiting in ways if waiting]
        pause = max(0, min(dues) - time.monotonic()) if dues else None
        readable, _, _ = select.select(ends, [], [], pause)
        now = time.monotonic()
        for source, target, waiting in ways:
            while waiting and waiting[0][0] <= now:
                os.write(target, waiting.popleft()[1])
            if source in readable:
                # A few at a time, or what is due would wait.
                for _ in range(16):
                    try:
                        waiting.append((now + delay, os.read(source, 70_000)))
                    except BlockingIOError:
                        break


class Link:
    """Two namespaces and the line between them; the process that makes it moves to the client's."""

    def __init__(self, round_trip):
        self.delay = round_trip / 2
        self.way = "netem" if netem() else "a relay between TUN devices"

    def __enter__(self):
        self.home = f"/proc/{os.getpid()}/task/{os.getpid()}/ns/net"
        self.home_file = os.open(self.home, os.O_RDONLY)
        home = f"/proc/self/fd/{self.home_file}"
        held = [hold(), hold()]
        self.holders = [process for process, _ in held]
        self.server, client = (namespace for _, namespace in held)
        self.relay = None
        if self.way == "netem":
            inside(client, f"ip link add line type veth peer name line netns {self.holders[0].pid}")
            milliseconds = self.delay * 1000
            for namespace in (self.server, client):
                inside(namespace, "tc qdisc add dev line root netem limit 1000000 "
                                  f"delay {milliseconds}ms")
        else:
            ends = [tun(self.server, home), tun(client, home)]
        for namespace, address in ((self.server, SERVER), (client, CLIENT)):
            inside(namespace, f"""
                ip link set lo up
                ip address add {address}/24 dev line
                ip link set line up txqueuelen 100000
                # Each transfer begins as if it were the first on this line.
                echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save""")
        if self.way != "netem":
            self.relay = multiprocessing.Process(target=relay, args=(ends, self.delay), daemon=True)
            self.relay.start()
            for end in ends:
                os.close(end)
        enter(client)
        return self

    def __exit__(self, *_):
        enter(f"/proc/self/fd/{self.home_file}")
        os.close(self.home_file)
        if self.relay:
            self.relay.terminate()
            self.relay.join()
        for process in self.holders:
            process.kill()
            process.wait()
