"""What does a TLS handshake cost the server, full and resumed?

Two clients open one connection after another (P-256 certificate, X25519, AES-128-GCM), say goodbye
as soon as the handshake is through and wait for the other side's. A resumed handshake goes on with a
ticket got beforehand. The stacks take turns; medians of the server's CPU time for each connection,
from its acceptance to its end.
"""

import multiprocessing
import socket
import ssl

from peers import Tidegate, Tuned, chosen
from report import PROXIED, Column, Report
from stacks import ONLY, ROUNDS, Cost, progress, started

CLIENTS = 2
EACH = 2000
COST = Column("server CPU-µs each", more=False, digits=0)
RATE = Column("connections/s", more=True, digits=0, compared=False)
VERSIONS = {"TLS 1.3": ssl.TLSVersion.TLSv1_3, "TLS 1.2": ssl.TLSVersion.TLSv1_2}
REQUEST = b"HEAD /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def context(stack, version):
    made = ssl.create_default_context(cafile=stack.shared / "cert.pem")
    made.minimum_version = made.maximum_version = version
    # What all stacks would choose by themselves, where a client offers more.
    made.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    made.set_ecdh_curve("X25519") if hasattr(ssl, "HAS_X25519") else None
    return made
