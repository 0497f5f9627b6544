"""curl, as both stacks are asked: one process, one connection, the password on each request."""

import subprocess

from stacks import PASSWORD, USER


def curl(stack, flag, *arguments, stdin=None):
    """Runs curl and returns what --write-out asked for."""
    done = subprocess.run(
        [
            "curl", "-sS", "--fail", flag, "--cacert", str(stack.shared / "cert.pem"),
            "-u", f"{USER}:{PASSWORD}", "-H", "Expect:", *arguments,
        ],
        stdin=stdin or subprocess.DEVNULL, capture_output=True, text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{stack.name}: curl {arguments}: {done.stderr}")
    return done.stdout


def url(stack, path):
    return path if path.startswith("https:") else f"https://localhost:{stack.port}{path}"


def with_digest(location, digest):
    return location + ("&" if "?" in location else "?") + f"digest={digest}"


def location_of(head):
    for line in head.splitlines():
        if line.lower().startswith("location:"):
            return line.split(":", 1)[1].strip()
    raise RuntimeError(f"no Location in {head}")


def begin(stack, flag):
    head = curl(stack, flag, "-X", "POST", "-D", "-", "-o", "/dev/null",
                url(stack, "/v2/bench/app/blobs/uploads/"))
    return url(stack, location_of(head))


def reader(stack, path, accept="*/*"):
    """A curl whose output the caller reads."""
    return subprocess.Popen(
        ["curl", "-sS", "--fail", "--cacert", str(stack.shared / "cert.pem"),
         "-u", f"{USER}:{PASSWORD}", "-H", f"Accept: {accept}", url(stack, path)],
        stdout=subprocess.PIPE,
    )
