"""The pages of memory that a step is going to use: used before, or never.

On a virtual machine the first use of a page, or the first for long, makes the host find memory for
it: a large read or write then costs several times as much as on pages that were in use a moment ago.
Which of them a step meets would be a matter of what ran before. So it is made the same for every
stack before each step that is measured: a server that has been up for days has pages that were used,
a fresh instance has none.
"""

import mmap
import pathlib
import time

PAGE = mmap.PAGESIZE

# How long the kernel takes to report free pages to the host, which then takes them away: two
# seconds after they were freed it begins, and it takes some at a time (mm/page_reporting.c).
REPORTED_AFTER = 12


def available_mib():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    raise RuntimeError("no MemAvailable in /proc/meminfo")


def touch(mib):
    """Uses so much memory, page by page, and gives it back; returns the seconds for each GiB."""
    start = time.monotonic()
    with mmap.mmap(-1, mib << 20) as memory:
        for at in range(0, mib << 20, PAGE):
            memory[at] = 1
        seconds = time.monotonic() - start
    return seconds * 1024 / mib


def recycle(mib):
    """Has the next so many pages be ones that were in use a moment ago; as many as there are."""
    touch(max(1, min(mib, available_mib() - 1024)))


def freshen():
    """Has the next pages be ones that the host has to find memory for. Returns whether that was
    possible: it takes root, and a host that takes free pages away."""
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        # Only large free blocks are reported.
        pathlib.Path("/proc/sys/vm/compact_memory").write_text("1")
    except OSError:
        return False
    time.sleep(REPORTED_AFTER)
    return True


def cost_of_both():
    """Returns what touching memory costs, in seconds for each GiB: on pages in use a moment ago, and
    on those that were free for long (nothing where there are none)."""
    recycle(512)
    recycled = touch(256)
    fresh = touch(256) if freshen() else None
    return recycled, fresh
