"""An S3-compatible server on loopback (moto's), in a process of its own, that can be stopped and started again with
what it holds.

``python tests/s3_server.py`` prints its port, and then answers ``stop`` and ``start`` on its standard input.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

HEADERS = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request",
    "Content-Type": "application/octet-stream",
}
"""With as much of a signature as moto looks at."""


def serve() -> None:
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    print(port, flush=True)
    for line in sys.stdin:
        if line.strip() == "stop":
            server.stop()
        else:
            server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
            server.start()
        print("done", flush=True)


@dataclass
class S3:
    """The server, seen from outside; objects are named ``bucket/key``."""

    process: subprocess.Popen[str]
    port: int

    @property
    def environment(self) -> Mapping[str, str]:
        """With which clients find it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def ask(self, method: str, name: str, content: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{name}", content, HEADERS, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())

    def names(self, bucket: str) -> list[str]:
        """Keys of a bucket."""
        tree = ElementTree.fromstring(self.ask("GET", f"{bucket}?list-type=2"))
        return [found.text or "" for found in tree.iter() if found.tag.endswith("}Key")]

    def holds(self, name: str) -> bool:
        try:
            self.ask("HEAD", name)
        except urllib.error.HTTPError:
            return False
        return True


@contextmanager
def serving() -> Iterator[S3]:
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield S3(process, int(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.terminate()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    serve()
