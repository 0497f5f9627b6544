"""What does a TLS handshake cost the server, full and resumed?

Two clients open one connection after another (P-256 certificate, X25519, AES-128), say goodbye as
soon as the handshake is through, and wait for the other side's. A resumed handshake goes on with a
ticket that was got beforehand. The stacks take turns; the figure is the server's CPU time for each
connection, from its acceptance to its end.
"""

import multiprocessing
import socket
import ssl

from peers import Tidegate, Tuned, chosen
from report import PROXIED, Column, Report
from stacks import ONLY, ROUNDS, Cost, progress, started

CLIENTS = 2
EACH = 1500
# Seconds; what takes longer hangs.
PATIENCE = 20
COST = Column("server CPU-µs each", more=False, digits=0)
RATE = Column("connections/s", more=True, digits=0, compared=False)
VERSIONS = {"TLS 1.3": ssl.TLSVersion.TLSv1_3, "TLS 1.2": ssl.TLSVersion.TLSv1_2}
REQUEST = b"HEAD /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def context(certificate, version):
    made = ssl.create_default_context(cafile=certificate)
    made.minimum_version = made.maximum_version = version
    made.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    return made


def connect(context, port, session=None):
    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain, server_hostname="localhost", session=session)


def ticket(context, port):
    """A session to go on with: it comes after the handshake of TLS 1.3, so there is a request."""
    with connect(context, port) as stream:
        stream.sendall(REQUEST)
        while stream.recv(4096):
            pass
        return stream.session


def shake_hands(certificate, version, port, resumed, ready, go):
    made = context(certificate, version)
    session = ticket(made, port) if resumed else None
    ready.release()
    go.wait()
    for _ in range(EACH):
        stream = connect(made, port, session)
        if stream.session_reused != resumed:
            raise SystemExit(f"session_reused is {stream.session_reused}")
        try:
            stream.unwrap()
        except (ssl.SSLError, OSError):
            pass  # it hung up without a word
        stream.close()


def measure(stack, version, resumed):
    """Server CPU and time for so many connections."""
    ready, go = multiprocessing.Semaphore(0), multiprocessing.Event()
    clients = [
        multiprocessing.Process(target=shake_hands, args=(
            stack.shared / "cert.pem", VERSIONS[version], stack.port, resumed, ready, go))
        for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    if not all([ready.acquire(timeout=PATIENCE) for _ in clients]):
        raise RuntimeError(f"{stack.name}: a client could not begin")
    with Cost(stack) as cost:
        go.set()
        for client in clients:
            client.join()
    if any(client.exitcode for client in clients):
        raise RuntimeError(f"{stack.name}: a client failed")
    return cost.cpu * 1e6 / (CLIENTS * EACH), CLIENTS * EACH / cost.seconds


def main():
    title = (f"TLS handshakes, {CLIENTS} clients, medians of {ROUNDS} runs of {CLIENTS * EACH} "
             "connections (least–most)")
    report = Report("handshakes", title, [COST, RATE])
    with started(chosen((Tidegate, Tuned))) as stacks:
        for turn in range(ROUNDS):
            for stack in stacks if turn % 2 == 0 else reversed(stacks):
                for version in VERSIONS:
                    for kind in ("full", "resumed"):
                        row = f"{version}, {kind}"
                        if ONLY.search(row):
                            report.note(row, stack.name, *measure(stack, version, kind == "resumed"))
                            report.target(row, COST.label, PROXIED, 1.0)
                            progress()
    progress("\n")
    report.finish()


if __name__ == "__main__":
    main()
