"""A small image, and its manifest."""

import hashlib
import json

from client import HTTP1, begin, curl, url, with_digest

TYPE = "application/vnd.oci.image.manifest.v1+json"
PATH = "/v2/bench/app/manifests/latest"


def push_image(stack):
    """Pushes a small image and returns its manifest."""

    def blob(content):
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        curl(stack, HTTP1, "-X", "PUT", "--data-binary", content.decode(),
             "-H", "Content-Type: application/octet-stream", "-o", "/dev/null",
             with_digest(begin(stack, HTTP1), digest))
        return {"digest": digest, "size": len(content)}

    config = blob(b'{"architecture":"amd64","os":"linux"}')
    layers = [blob(f"layer {number}".encode()) for number in range(10)]
    kind = "application/vnd.oci.image."
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": TYPE,
        "config": {"mediaType": kind + "config.v1+json", **config},
        "layers": [{"mediaType": kind + "layer.v1.tar", **layer} for layer in layers],
    })
    curl(stack, HTTP1, "-X", "PUT", "--data-binary", manifest, "-H", f"Content-Type: {TYPE}",
         "-o", "/dev/null", url(stack, PATH))
    return manifest
