"""The two stacks under measurement, and what each costs its machine.

Both get the same certificate, the same htpasswd file and a tree of their own on the same disk. A
stack's cost is that of all its processes: the edge and what stands behind it.
"""

import os
import pathlib
import shutil
import socket
import ssl
import statistics
import subprocess
import tempfile
import time
import urllib.request

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
MIB = int(os.environ.get("BENCH_MIB", "1024"))
USER, PASSWORD = "bench", "correct horse battery"
TICK = os.sysconf("SC_CLK_TCK")


def folder():
    """A folder for everything, on a real disk: what is acknowledged must be written."""
    return pathlib.Path(tempfile.mkdtemp(prefix="bench", dir=os.environ.get("BENCH_DIR", "/var/tmp")))


def run(*command, **options):
    """Runs a program to its end and returns what it printed; raises with its errors."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: exit {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def secrets(at):
    """Writes the certificate and the users both stacks share: bcrypt at htpasswd's own cost."""
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
        "-keyout", str(at / "key.pem"), "-out", str(at / "cert.pem"),
    )
    (at / "htpasswd").write_text(run("htpasswd", "-nbB", USER, PASSWORD).strip() + "\n")


class Stack:
    """Processes that together are a registry behind TLS."""

    name = ""

    def __init__(self, at):
        self.at = at / self.name.split()[0]
        self.at.mkdir()
        # nginx's workers and the registry's data must not depend on who runs this.
        for path in (at, self.at):
            path.chmod(0o755)
        self.shared = at
        self.port = free_port()
        self.root = self.at / "registry"
        self.processes = []

    def spawn(self, *command):
        log = open(self.at / "log", "ab")
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self.at))

    def wait_until_ready(self):
        context = ssl.create_default_context(cafile=self.shared / "cert.pem")
        request = urllib.request.Request(f"https://localhost:{self.port}/v2/")
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(request, context=context, timeout=5)
            except urllib.error.HTTPError as error:
                if error.code == 401:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline or any(p.poll() is not None for p in self.processes):
                raise RuntimeError(f"{self.name}: {(self.at / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(timeout=60)
        shutil.rmtree(self.at, ignore_errors=True)

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

    def forget_peak(self):
        for pid in self.pids():
            pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_mib(self):
        total = 0
        for pid in self.pids():
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1])
        return total / 1024


class Tidegate(Stack):
    """Tidegate as shipped: both roles, access log on."""

    name = "tidegate"

    def start(self, limits=""):
        config = self.at / "edge.toml"
        config.write_text(f"""
[[listener]]
address = "127.0.0.1:{self.port}"
tls = true
[[site]]
hosts = ["localhost"]
certificate = {{ cert_file = "{self.shared}/cert.pem", key_file = "{self.shared}/key.pem" }}
upstream = "registry"
[site.auth]
realm = "Registry"
htpasswd_file = "{self.shared}/htpasswd"
{limits}
[log]
access_file = "{self.at}/access.log"
[registry]
listen = "unix:{self.at}/registry.sock"
[registry.storage]
filesystem = {{ root = "{self.root}" }}
""")
        binary = os.path.abspath(os.environ["TIDEGATE"])
        for role in ("registry", "edge"):
            self.spawn(binary, role, "--config", str(config))
        self.wait_until_ready()


class Nginx(Stack):
    """nginx + docker-registry, tuned: HTTP/1.1 and kept connections to the registry, no spooling."""

    name = "nginx + docker-registry"

    def start(self):
        upstream = free_port()
        (self.at / "registry.yml").write_text(f"""
version: 0.1
log: {{ level: error, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: {self.root} }}, delete: {{ enabled: true }} }}
http: {{ addr: "127.0.0.1:{upstream}", relativeurls: true }}
""")
        temporary = "\n".join(
            f"{kind}_temp_path {self.at}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.at / "nginx.conf").write_text(f"""
daemon off;
pid {self.at}/nginx.pid;
error_log {self.at}/error.log;
user root;
worker_processes auto;
events {{ worker_connections 1024; }}
http {{
    {temporary}
    access_log {self.at}/access.log;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 75;
    keepalive_requests 1000000;
    upstream registry {{ server 127.0.0.1:{upstream}; keepalive 32; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{self.port} ssl http2;
        server_name localhost;
        ssl_certificate {self.shared}/cert.pem;
        ssl_certificate_key {self.shared}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:SSL:10m;
        client_max_body_size 0;
        client_body_buffer_size 64k;
        auth_basic "Registry";
        auth_basic_user_file {self.shared}/htpasswd;
        add_header Docker-Distribution-Api-Version registry/2.0 always;
        location / {{
            proxy_pass http://registry;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header Authorization "";
            proxy_hide_header Docker-Distribution-Api-Version;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            proxy_buffer_size 64k;
            proxy_buffers 16 64k;
            proxy_busy_buffers_size 128k;
            proxy_read_timeout 900;
            proxy_send_timeout 900;
        }}
    }}
}}
""")
        self.spawn("docker-registry", "serve", str(self.at / "registry.yml"))
        self.spawn("nginx", "-p", str(self.at), "-c", str(self.at / "nginx.conf"))
        self.wait_until_ready()


class Cost:
    """Measures what a stack spends between entering and leaving."""

    def __init__(self, stack):
        self.stack = stack

    def __enter__(self):
        os.sync()  # the last run's write-back is not this one's
        self.stack.forget_peak()
        self.cpu = self.stack.cpu_seconds()
        self.start = time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self.start
        self.cpu = self.stack.cpu_seconds() - self.cpu
        self.peak = self.stack.peak_mib()


def table(title, columns, results):
    """Prints medians as a table: results[row][stack name] is a list of tuples, one per run."""
    print(f"\n### {title}\n")
    print("| what | stack | " + " | ".join(columns) + " |")
    print("|---|---|" + "---:|" * len(columns))
    for row, stacks in results.items():
        medians = {}
        for name, runs in stacks.items():
            medians[name] = [statistics.median(values) for values in zip(*runs)]
            cells = " | ".join(f"{value:,.2f}" for value in medians[name])
            print(f"| {row} | {name} | {cells} |")
        ours, theirs = medians[Tidegate.name], medians[Nginx.name]
        ratios = " | ".join(f"{a / b:.2f}×" if b else "–" for a, b in zip(ours, theirs))
        print(f"| {row} | **ratio** | {ratios} |")
