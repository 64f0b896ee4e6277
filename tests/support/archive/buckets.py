"""A simulated object store (moto), whose answers a test can change: for faults that a real server does not show."""

from __future__ import annotations

import itertools
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.request import Request, urlopen

from .objectstore import Bucket

__all__ = ["Simulated"]


class Simulated:
    """A simulated S3 server in this process."""

    def __init__(self) -> None:
        from werkzeug.serving import make_server

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from moto.moto_server.werkzeug_app import (
                DomainDispatcherApplication,
                create_backend_app,
            )

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._served = DomainDispatcherApplication(create_backend_app)
        self._numbers = itertools.count()
        self._guard = threading.Lock()
        self._answers: list[tuple[int, str]] = []
        self._always: tuple[int, str] | None = None
        self._seen: list[tuple[str, str, dict[str, str]]] | None = None
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @staticmethod
    @cache
    def running() -> Simulated:
        """The server of this process, which is started when it is asked for first."""
        return Simulated()

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def bucket(self) -> Bucket:
        """A new bucket."""
        name = f"tests-{next(self._numbers)}"
        with urlopen(Request(f"{self.endpoint}/{name}", method="PUT"), timeout=60) as answer:
            assert answer.status == 200
        return Bucket(self.endpoint, name, "key", "secret")

    def remove(self, bucket: Bucket) -> None:
        """Remove a bucket, which has to be empty."""
        with urlopen(Request(f"{self.endpoint}/{bucket.name}", method="DELETE"), timeout=60):
            pass

    @contextmanager
    def answering(self, status: int, body: str, times: int | None = None) -> Iterator[None]:
        """Answer all requests so, or the next ones."""
        if times is None:
            self._always = status, body
        else:
            self._answers = [(status, body)] * times
        try:
            yield
        finally:
            self._always, self._answers = None, []

    @contextmanager
    def seeing(self) -> Iterator[list[tuple[str, str, dict[str, str]]]]:
        """The requests of a block: method, path and headers."""
        seen: list[tuple[str, str, dict[str, str]]] = []
        self._seen = seen
        try:
            yield seen
        finally:
            self._seen = None

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Any:
        from werkzeug.wrappers import Request as Received
        from werkzeug.wrappers import Response

        received = Received(environ)
        if self._seen is not None:
            self._seen.append(
                (
                    received.method,
                    received.path,
                    {name.lower(): value for name, value in received.headers},
                )
            )
        with self._guard:
            answer = self._answers.pop(0) if self._answers else self._always
        if answer is None:
            return self._served(environ, start_response)
        received.get_data()
        response = Response(answer[1], answer[0], content_type="application/xml")
        return response(environ, start_response)
