"""An object store with the S3 API for tests: OpenStack Swift of Debian, started and ended by the tests.

Debian's packages ``swift-proxy``, ``swift-account``, ``swift-container``, ``swift-object`` and ``memcached`` have the
servers; nothing of the system's own configuration is used. Each process of tests starts one object store, in a folder
of its own and on free ports of 127.0.0.1, and ends it.

What Swift's S3 API (s3api 2.30) does not support, and answers with 501:

* a PUT with a condition (``If-None-Match: *``, which obstore sends for ``mode="create"``)
* chunked uploads that are signed by chunk (``aws-chunked``), object tags
* addressing of a bucket by host name (it could, with a domain whose names the machine resolves)

Server-side encryption (``x-amz-server-side-encryption: AES256``) is supported by ``ObjectStore(encryption=True)``.
Checksums of ``x-amz-checksum-*`` are ignored; ``Content-MD5`` and ``x-amz-content-sha256`` are checked.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import hmac
import http.client
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlencode

from support.processes import Process, absent, accepts_connections, free_port

__all__ = ["Bucket", "ObjectStore"]

# The interpreter that Debian's Swift is installed for.
_PYTHON = Path("/usr/bin/python3")

# Seconds for the start of a server, which takes two on an idle machine.
_STARTING = 90.0

_RINGS = ("account", "container", "object")

_PROGRAMS = (
    *(f"/usr/bin/swift-{kind}-server" for kind in (*_RINGS, "proxy")),
    "/usr/bin/memcached",
)

# swift.conf is read from the folder that ``set_swift_dir`` names, before anything else of Swift is imported.
_SERVE = """\
import os
import sys
from swift.common import utils
folder, kind, user = sys.argv[1:]
if os.geteuid() == 0:
    utils.drop_privileges(user)
utils.set_swift_dir(folder)
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(f"{folder}/{kind}.conf", f"{kind}-server", default_port=0, verbose=True))
"""

# What swift-ring-builder does, for all three rings at once: 16 partitions, one copy of each, on one device.
_BUILD = """\
import sys
from swift.common.ring import RingBuilder
folder, *ports = sys.argv[1:]
for kind, port in zip(("account", "container", "object"), ports):
    builder = RingBuilder(4, 1, 1)
    builder.add_dev(dict(
        region=1, zone=1, weight=1.0, device="one", meta="",
        ip="127.0.0.1", port=int(port), replication_ip="127.0.0.1", replication_port=int(port),
    ))
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
"""

# The interpreter is Debian's, and so is all that it imports.
_OWN = {"PYTHONPATH": "", "PYTHONWARNINGS": "ignore"}

_SWIFT_CONF = """\
[swift-hash]
swift_hash_path_prefix = tests
swift_hash_path_suffix = tests
[storage-policy:0]
name = Policy-0
default = yes
"""

# On a busy machine the servers wait for each other longer than the half second that they have by default: the proxy
# would say that there is no bucket, and an object would not be listed, for what makes up for that later does not run.
#
# ``workers = 0`` is a process that does not fork: it is ended, stopped and continued as one.
_DEFAULTS = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
workers = 0
log_level = WARNING
"""

_STORAGE = """\
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
conn_timeout = 30
node_timeout = 60
container_update_timeout = 60
"""

_PROXY = """\
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats bulk s3api tempauth copy slo dlo {more} proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 30
node_timeout = 60
error_suppression_limit = 1000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_tests_netdicom = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:keymaster]
use = egg:swift#keymaster
encryption_root_secret = {root_secret}
[filter:encryption]
use = egg:swift#encryption
"""


@dataclass(frozen=True)
class Bucket:
    """An empty bucket, and what a client needs for it."""

    endpoint: str
    name: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    @property
    def url(self) -> str:
        """The bucket as ``s3://`` URL."""
        return f"s3://{self.name}"


class ObjectStore:
    """Swift with one device, which is a folder, and its S3 API."""

    access_key = "tests:netdicom"

    def __init__(self, *, encryption: bool = False) -> None:
        if missing := [each for each in _PROGRAMS if not Path(each).exists()]:
            absent(f"{missing[0]} is not installed (Debian's swift-proxy, memcached, and so on)")
        self.secret_key = secrets.token_hex(16)
        self._folder = Path(tempfile.mkdtemp(prefix="swift-"))
        # The servers of a test do not run as root; Debian's packages make a user for them.
        self._user = "swift" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._ports = {kind: free_port() for kind in (*_RINGS, "proxy", "memcached")}
        self._processes: list[Process] = []
        atexit.register(self.end)
        self._configure(encryption)
        self._made_rings()
        self._start()

    @staticmethod
    @cache
    def running() -> ObjectStore:
        """The object store of this process, which is started when it is asked for first."""
        return ObjectStore()

    @property
    def port(self) -> int:
        """The port of the S3 API on 127.0.0.1."""
        return self._ports["proxy"]

    @property
    def endpoint(self) -> str:
        """The URL of the S3 API; buckets are part of the path."""
        return f"http://127.0.0.1:{self.port}"

    def bucket(self, name: str | None = None) -> Bucket:
        """A bucket, made when there is none of this name; without a name a new one."""
        name = name or f"tests-{secrets.token_hex(8)}"
        self._request("PUT", f"/{name}")
        return Bucket(self.endpoint, name, self.access_key, self.secret_key)

    def refuse(self) -> None:
        """End the S3 API, and keep what is stored: connections are refused until ``serve``."""
        self._processes.pop().kill()

    def serve(self) -> None:
        """Start the S3 API again, on the same port."""
        self._run("proxy")

    def freeze(self) -> None:
        """Stop the S3 API as it is (SIGSTOP): connections are accepted, and nothing is answered until ``thaw``."""
        os.kill(self._processes[-1].pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue after ``freeze``."""
        os.kill(self._processes[-1].pid, signal.SIGCONT)

    def end(self) -> None:
        """End all servers, and delete all that is stored."""
        while self._processes:
            self._processes.pop().kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _configure(self, encryption: bool) -> None:
        for kind in (*_RINGS, "proxy"):
            defaults = _DEFAULTS.format(
                port=self._ports[kind], user=self._user, folder=self._folder
            )
            rest = _STORAGE.format(kind=kind)
            if kind == "proxy":
                rest = _PROXY.format(
                    memcached=self._ports["memcached"],
                    secret=self.secret_key,
                    root_secret=base64.b64encode(secrets.token_bytes(32)).decode(),
                    more="keymaster encryption" if encryption else "",
                )
            (self._folder / f"{kind}.conf").write_text(defaults + rest)
        (self._folder / "swift.conf").write_text(_SWIFT_CONF)
        (self._folder / "devices/one").mkdir(parents=True)

    def _made_rings(self) -> None:
        """Write where each partition is: all on one device, once."""
        ports = [str(self._ports[kind]) for kind in _RINGS]
        subprocess.run(
            [str(_PYTHON), "-c", _BUILD, str(self._folder), *ports],
            check=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **_OWN},
        )
        if os.geteuid() == 0:
            for path in (self._folder, *self._folder.rglob("*")):
                shutil.chown(path, self._user)

    def _start(self) -> None:
        port = str(self._ports["memcached"])
        words = ("-l", "127.0.0.1", "-p", port, "-U", "0", "-u", self._user, "-m", "16")
        self._processes.append(
            Process(self._folder / "memcached.log", "/usr/bin/memcached", *words)
        )
        started = [(kind, self._launched(kind)) for kind in (*_RINGS, "proxy")]
        for kind, process in started:
            self._ready(kind, process)

    def _run(self, kind: str) -> None:
        self._ready(kind, self._launched(kind))

    def _launched(self, kind: str) -> Process:
        log = self._folder / f"{kind}.log"
        process = Process(log, _PYTHON, "-c", _SERVE, self._folder, kind, self._user, **_OWN)
        self._processes.append(process)
        return process

    def _ready(self, kind: str, process: Process) -> None:
        port = self._ports[kind]
        process.ready(
            lambda: accepts_connections(port), f"listening {kind} server", within=_STARTING
        )

    def _request(self, method: str, path: str) -> None:
        """One request of the S3 API, signed in its URL (signature version 2)."""
        expires = str(int(time.time()) + 300)
        signed = f"{method}\n\n\n{expires}\n{path}".encode()
        digest = hmac.new(self.secret_key.encode(), signed, hashlib.sha1).digest()
        query = {
            "AWSAccessKeyId": self.access_key,
            "Expires": expires,
            "Signature": base64.b64encode(digest).decode(),
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, f"{quote(path)}?{urlencode(query)}")
            answer = connection.getresponse()
            said = answer.read().decode(errors="replace")
        finally:
            connection.close()
        ours = "BucketAlreadyOwnedByYou" in said
        assert answer.status == 200 or ours, f"{method} {path}: {answer.status}\n{said}"
