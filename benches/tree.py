"""Makes a registry's tree on the disk, as distribution lays it out: `tree.py FOLDER`.

10,000 repositories and 100,000 tags, one of the repositories with a tenth of all tags. Each has one
manifest with a config, which all its tags name; nothing is pushed, the files are written as they are.
"""

import hashlib
import json
import multiprocessing
import os
import pathlib
import sys

REPOSITORIES = int(os.environ.get("BENCH_REPOSITORIES", "10000"))
TAGS = int(os.environ.get("BENCH_TAGS", "100000"))
LARGE = "team-000/app-00000"
KIND = "application/vnd.oci.image"
CONFIG = b'{"architecture":"amd64","os":"linux"}'


def name(number):
    return f"team-{number // 100:03}/app-{number:05}"


def tags_of(number):
    """A tenth of them in the first, the rest shared out."""
    large = TAGS // 10
    if number == 0:
        return large
    share, more = divmod(TAGS - large, REPOSITORIES - 1)
    return share + (number <= more)


def write(path, content):
    os.makedirs(path.rpartition("/")[0], exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def blob(base, content):
    hex_ = sha256(content)
    write(f"{base}/blobs/sha256/{hex_[:2]}/{hex_}/data", content)
    return hex_


def repository(base, number):
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": f"{KIND}.manifest.v1+json",
        "config": {"mediaType": f"{KIND}.config.v1+json", "digest": f"sha256:{sha256(CONFIG)}",
                   "size": len(CONFIG)},
        "layers": [], "annotations": {"number": str(number)},
    }).encode()
    hex_ = blob(base, manifest)
    link = f"sha256:{hex_}".encode()
    at = f"{base}/repositories/{name(number)}"
    write(f"{at}/_layers/sha256/{sha256(CONFIG)}/link", f"sha256:{sha256(CONFIG)}".encode())
    write(f"{at}/_manifests/revisions/sha256/{hex_}/link", link)
    for tag in range(tags_of(number)):
        write(f"{at}/_manifests/tags/v{tag:05}/current/link", link)
        write(f"{at}/_manifests/tags/v{tag:05}/index/sha256/{hex_}/link", link)


def some(argument):
    base, numbers = argument
    for number in numbers:
        repository(base, number)


def make(root):
    """Makes the tree below what a registry calls its root directory."""
    base = f"{root}/docker/registry/v2"
    blob(base, CONFIG)
    workers = os.cpu_count() or 1
    shares = [(base, range(first, REPOSITORIES, workers * 8)) for first in range(workers * 8)]
    with multiprocessing.Pool(workers) as pool:
        pool.map(some, shares, chunksize=1)


if __name__ == "__main__":
    make(pathlib.Path(sys.argv[1]).resolve())
