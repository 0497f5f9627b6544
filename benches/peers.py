"""The stacks that are compared, each as its own documentation or a careful operator sets it up.

`PEERS` is the table of them. BENCH_STACKS picks some by their keys; one whose programs are not on
this machine is named as missing, never left out in silence.
"""

import json
import os
import sys

from stacks import Stack, free_port


class Tidegate(Stack):
    """Tidegate as shipped: both roles, access log on."""

    name = key = "tidegate"

    def config(self, limits=""):
        config = self.at / "edge.toml"
        config.write_text(f"""
[[listener]]
address = "{self.address}:{self.port}"
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
        return str(config)

    def start(self, limits=""):
        config = self.config(limits)
        binary = os.path.abspath(os.environ["TIDEGATE"])
        for role in ("registry", "edge"):
            self.spawn(binary, role, "--config", config)
        self.wait_until_ready()


class Nginx(Stack):
    """nginx with the users and the certificate; what stands behind it is each kind's own."""

    needs = ("nginx",)
    # In the server block: on purpose nothing that another stack does not do as well.
    protocols = "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:SSL:10m;"

    def serve(self, around, locations):
        temporary = "\n".join(
            f"{kind}_temp_path {self.at}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = self.at / "nginx.conf"
        config.write_text(f"""
daemon off;
pid {self.at}/nginx.pid;
error_log {self.at}/error.log;
user root;
worker_processes auto;
events {{ worker_connections 1024; }}
http {{
    {temporary}
    access_log {self.at}/access.log;
    {around}
    server {{
        listen {self.address}:{self.port} ssl http2;
        server_name localhost;
        ssl_certificate {self.shared}/cert.pem;
        ssl_certificate_key {self.shared}/key.pem;
        {self.protocols}
        client_max_body_size 0;
        auth_basic "Registry";
        auth_basic_user_file {self.shared}/htpasswd;
        {locations}
    }}
}}
""")
        self.spawn("nginx", "-p", str(self.at), "-c", str(config))
        self.wait_until_ready()

    FORWARD = """
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_read_timeout 900;"""


class Behind(Nginx):
    """docker-registry 2.8 behind nginx."""

    proxied = True
    needs = ("nginx", "docker-registry")
    program = "docker-registry"

    def registry(self):
        port = free_port()
        (self.at / "registry.yml").write_text(f"""
version: 0.1
log: {{ level: error, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: {self.root} }}, delete: {{ enabled: true }} }}
http: {{ addr: "127.0.0.1:{port}", relativeurls: true }}
""")
        self.spawn(self.program, "serve", str(self.at / "registry.yml"), OTEL_TRACES_EXPORTER="none")
        return f"127.0.0.1:{port}"


class Tuned(Behind):
    """Tuned: HTTP/1.1 and kept connections to the registry, large buffers, nothing spooled."""

    name, key = "nginx tuned + registry 2.8", "tuned"

    def start(self):
        upstream = self.registry()
        self.serve(
            f"""sendfile on;
    tcp_nopush on;
    keepalive_timeout 75;
    keepalive_requests 1000000;
    upstream registry {{ server {upstream}; keepalive 32; keepalive_requests 1000000; }}""",
            f"""client_body_buffer_size 64k;
        add_header Docker-Distribution-Api-Version registry/2.0 always;
        location / {{
            proxy_pass http://registry;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization "";{self.FORWARD}
            proxy_hide_header Docker-Distribution-Api-Version;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            proxy_buffer_size 64k;
            proxy_buffers 16 64k;
            proxy_busy_buffers_size 128k;
            proxy_send_timeout 900;
        }}""",
        )


class Stock(Behind):
    """The recipe in the registry's documentation ("Authenticate proxy with nginx"), with HTTP/2 and
    TLS 1.3 as the others have: nginx's defaults, so bodies are spooled and upstream is HTTP/1.0."""

    name, key = "nginx stock + registry 2.8", "stock"

    def start(self):
        upstream = self.registry()
        self.serve(
            f"upstream registry {{ server {upstream}; }}",
            f"""chunked_transfer_encoding on;
        location /v2/ {{
            proxy_pass http://registry;{self.FORWARD}
        }}""",
        )


class TunedV3(Tuned):
    """distribution v3 behind the tuned nginx."""

    name, key = "nginx tuned + v3", "tuned-v3"
    needs = ("nginx", "registry")
    program = "registry"


class V3(Stack):
    """distribution v3 that terminates TLS and checks passwords itself: no proxy at all."""

    name, key = "v3 alone", "v3"
    needs = ("registry",)

    def start(self):
        (self.at / "registry.yml").write_text(f"""
version: 0.1
log: {{ level: error, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: {self.root} }}, delete: {{ enabled: true }} }}
auth: {{ htpasswd: {{ realm: Registry, path: {self.shared}/htpasswd }} }}
http:
  addr: "{self.address}:{self.port}"
  relativeurls: true
  tls: {{ certificate: {self.shared}/cert.pem, key: {self.shared}/key.pem }}
""")
        self.spawn("registry", "serve", str(self.at / "registry.yml"), OTEL_TRACES_EXPORTER="none")
        self.wait_until_ready()


class Zot(Stack):
    """zot that terminates TLS and checks passwords itself."""

    name, key = "zot alone", "zot"
    needs = ("zot",)

    def start(self):
        (self.at / "zot.json").write_text(json.dumps({
            "distSpecVersion": "1.1.0",
            "storage": {"rootDirectory": str(self.root), "dedupe": False, "gc": False},
            "http": {
                "address": self.address, "port": str(self.port), "realm": "Registry",
                "tls": {"cert": f"{self.shared}/cert.pem", "key": f"{self.shared}/key.pem"},
                "auth": {"htpasswd": {"path": f"{self.shared}/htpasswd"}},
            },
            "log": {"level": "error"},
        }))
        self.spawn("zot", "serve", str(self.at / "zot.json"))
        self.wait_until_ready()

    def forget(self, digest):
        (self.root / "bench/app/blobs" / digest.replace(":", "/")).unlink()


class File(Nginx):
    """nginx that serves the blob's file itself, as little as a pull can be."""

    name, key = "nginx, the file alone", "file"
    pushes = False

    def start(self):
        files = self.at / "files"
        files.mkdir()
        self.serve("sendfile on; tcp_nopush on; keepalive_requests 1000000;", f"root {files};")

    def place(self, digest, source):
        """Puts a blob where a pull asks for it, with the pages it already has in memory."""
        at = self.at / f"files/v2/bench/app/blobs/{digest}"
        at.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, at)

    def forget(self, digest):
        (self.at / f"files/v2/bench/app/blobs/{digest}").unlink()


class Floor(Stack):
    """What the hardware asks: `wire floor` (benches/wire/floor.rs) is no registry and syncs nothing."""

    name, key = "the floor", "floor"

    def start(self):
        self.spawn(os.path.abspath(os.environ["WIRE"]), "floor", f"{self.address}:{self.port}",
                   f"{self.shared}/cert.pem", f"{self.shared}/key.pem", str(self.root))
        self.wait_until_ready()

    def forget(self, digest):
        (self.root / digest.split(":")[1]).unlink()


PEERS = (Tidegate, Tuned, Stock, TunedV3, V3, Zot, File, Floor)


def chosen(among=PEERS):
    """Those of the peers that are here and asked for."""
    wanted = os.environ.get("BENCH_STACKS", "").replace(",", " ").split()
    kinds = []
    for kind in among:
        if wanted and kind.key not in wanted:
            continue
        if program := kind.missing():
            print(f"not here: {kind.name}: no program `{program}` on the PATH", file=sys.stderr)
            continue
        kinds.append(kind)
    return kinds
