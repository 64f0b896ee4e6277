"""A node in memory with a status page."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from netdicom_tx.passwords import write_password
from netdicom_tx.web.server import WebOptions, WebService
from support.archive.archives import Archive
from support.web import Browser

Make = Callable[..., Browser]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Archive]:
    """An open archive in memory."""
    opened = Archive(tmp_path / "archive", reactor=Clock())
    yield opened
    opened.close()


@pytest.fixture
def page(node: Archive) -> Make:
    """Makes a browser that visits the page of the node; by default, everybody may see everything."""

    def make(**options: Any) -> Browser:
        options.setdefault("allow_anonymous", "users_file" not in options)
        made = WebOptions(listen="tcp:0:interface=127.0.0.1", **options)
        return Browser(WebService(node.ae, made, threads=0))

    return make


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A password file with the user ``anna``, whose password is ``secret``."""
    path = tmp_path_factory.mktemp("users") / "users"
    write_password(path, "anna", "secret")
    return str(path)
