"""How much memory some processes take at most, between a start and a stop.

What they share counts once: bodies pass from one of Tidegate's roles to the other through memory that
both have mapped, and the peaks that the kernel keeps of each (VmHWM) would count that twice. So the
figures are read again and again; what is held for less than `EVERY_SECONDS` may be missed.
"""

import pathlib
import threading

EVERY_SECONDS = 0.02


class Memory:
    def __init__(self, pids):
        self.files = [pathlib.Path(f"/proc/{pid}/status") for pid in pids]
        self.peak_kib = 0
        self.ended = threading.Event()
        self.watch = threading.Thread(target=self.run, daemon=True)

    def start(self):
        self.look()
        self.watch.start()

    def stop(self):
        """Returns the peak in MiB."""
        self.ended.set()
        self.watch.join()
        self.look()
        return self.peak_kib / 1024

    def run(self):
        while not self.ended.wait(EVERY_SECONDS):
            self.look()

    def look(self):
        held = [self.read(file) for file in self.files]
        own = sum(figures["RssAnon"] + figures["RssFile"] for figures in held)
        shared = max((figures["RssShmem"] for figures in held), default=0)
        self.peak_kib = max(self.peak_kib, own + shared)

    @staticmethod
    def read(file):
        figures = {"RssAnon": 0, "RssFile": 0, "RssShmem": 0}
        try:
            lines = file.read_text().splitlines()
        except OSError:
            lines = []  # it has ended
        for line in lines:
            name, _, value = line.partition(":")
            if name in figures:
                figures[name] = int(value.split()[0])
        return figures
