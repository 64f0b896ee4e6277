"""The files of docs/deploy, held against the checkout: what they name exists, and what they run works."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml  # type: ignore[import-untyped]

from netdicom_tx.config import TABLES
from netdicom_tx.environment import misspelled, variables
from netdicom_tx.options import Options
from netdicom_tx.passwords import write_password
from support.measuring import variables as measuring
from support.processes import CHECKOUT, Process, free_port, run

DEPLOY = CHECKOUT / "docs" / "deploy"
PYTHONPATH = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))


class Instruction(NamedTuple):
    """A line of a Containerfile, with the lines that continue it."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words of the exec form or of the shell."""
        words: list[str] = (
            json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)
        )
        return words


def instructions() -> list[Instruction]:
    text = (DEPLOY / "Containerfile").read_text("utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line.strip()]


def the_last(name: str) -> Instruction:
    return next(each for each in reversed(instructions()) if each.name == name)


def copied() -> list[Path]:
    """What is copied from the checkout."""
    sources = [
        word
        for each in instructions()
        if each.name == "COPY" and "--from=build" not in each.words
        for word in each.words[:-1]
    ]
    return [CHECKOUT / each for each in sources]


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return loaded


def health_check() -> list[str]:
    found: list[str] = json.loads(the_last("HEALTHCHECK").text.partition("CMD")[2])
    return found


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    rules = (DEPLOY / "Containerfile.dockerignore").read_text("utf-8").splitlines()
    assert next(rule for rule in rules if not rule.startswith("#")) == "*"
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    assert all(each.exists() for each in copied())
    assert kept == {each.name for each in copied()}
    for unwanted in (".venv", ".git", "netdicom-archive", "docs/deploy/secrets"):
        assert not any(fnmatch.fnmatch(unwanted, each) for each in kept)


def test_the_image_is_small_and_nobody_in_it_is_root() -> None:
    """Two stages: what builds the package stays out of the image."""
    bases = [each.words for each in instructions() if each.name == "FROM"]
    assert [words[0] for words in bases] == ["python:3.13-slim"] * 2
    assert {each.name for each in instructions()}.isdisjoint({"ADD", "MAINTAINER", "SHELL"})
    names = [each.name for each in instructions()]
    assert the_last("USER").text not in ("root", "0")
    assert names.index("USER") > max(n for n, name in enumerate(names) if name == "RUN")
    made = next(each for each in instructions() if each.text.startswith("useradd"))
    assert f" {the_last('USER').text} " in f"{made.text} "
    assert the_last("VOLUME").text == the_last("WORKDIR").text == "/data"
    assert "install -d -o netdicom -g netdicom -m 700 /data" in made.text


def test_the_extras_of_the_image_are_those_of_the_package() -> None:
    config = ConfigParser()
    config.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    installed = next(each for each in instructions() if "pip install" in each.text)
    extras = re.search(r'"/src\[(.*)\]"', installed.text)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(config["options.extras_require"])


@pytest.mark.slow
def test_what_is_copied_is_enough_to_build_the_package(tmp_path: Path) -> None:
    """The wheel has every file of the package, though the build sees neither docs nor tests."""
    for source in copied():
        if source.is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", "dropin.cache")
            shutil.copytree(source, tmp_path / source.name, ignore=unwanted)
        else:
            shutil.copy(source, tmp_path)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    kept = {name: value for name, value in os.environ.items() if name not in measuring()}
    subprocess.run(
        [sys.executable, "-c", build],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": ""},
        check=True,
        capture_output=True,
        timeout=240,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "unpacked", "zip")
    built = {
        path.relative_to(tmp_path / "unpacked").as_posix()
        for path in (tmp_path / "unpacked" / "netdicom_tx").rglob("*")
        if path.is_file()
    }
    assert built == {
        path.relative_to(CHECKOUT).as_posix()
        for path in (CHECKOUT / "netdicom_tx").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert (tmp_path / "unpacked/twisted/plugins/netdicom_tx_plugin.py").exists()


@pytest.mark.slow
def test_the_node_of_the_image_runs_and_its_health_check_succeeds(tmp_path: Path) -> None:
    """With the arguments of the image, at another port and in another directory."""
    assert the_last("ENTRYPOINT").words == ["netdicom", "serve"]
    port = str(free_port())

    def here(words: list[str]) -> list[str]:
        replaced = [word.replace("11112", port).replace("/data", str(tmp_path)) for word in words]
        return [
            f"{word}:interface=127.0.0.1" if word == f"tcp:{port}" else word for word in replaced
        ]

    program = (sys.executable, "-m", "netdicom_tx")
    arguments = here(the_last("CMD").words)
    node = Process(tmp_path / "node.log", *program, "serve", *arguments, PYTHONPATH=PYTHONPATH)
    try:
        node.ready(lambda: "listening on" in node.text(), "node")
        (name, *words) = here(health_check())
        assert name == "netdicom"
        assert run(*program, *words, PYTHONPATH=PYTHONPATH).returncode == 0
        assert all(json.loads(line) for line in node.text().splitlines())
    finally:
        assert node.stop() == 0
    assert run(*program, *here(health_check())[1:], PYTHONPATH=PYTHONPATH).returncode != 0
    assert str(the_last("EXPOSE").text) == "11112"


def test_the_compose_file_names_what_is_there() -> None:
    loaded = compose()
    build = loaded["services"]["node"]["build"]
    assert (DEPLOY / build["context"]).resolve() == CHECKOUT
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Containerfile"
    for service in loaded["services"].values():
        # No image is taken from a registry of a name.
        assert "/" not in service.get("image", "")
        for secret in service["secrets"]:
            assert secret in loaded["secrets"]
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in loaded["volumes"]
        for other, wanted in service.get("depends_on", {}).items():
            assert wanted == {"condition": "service_healthy"}
            assert "healthcheck" in loaded["services"][other]
    node = loaded["services"]["node"]
    assert node["volumes"] == [f"images:{the_last('VOLUME').text}"]
    assert node["ports"] == [f"11112:{the_last('EXPOSE').text}"]
    assert node["read_only"] is True
    assert node["cap_drop"] == ["ALL"]


def test_passwords_are_in_files_of_their_own() -> None:
    """Which are not committed."""
    loaded = compose()
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    assert "PASSWORD:" not in text
    assert "://" not in text
    for secret in loaded["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    assert "docs/deploy/secrets/" in (CHECKOUT / ".gitignore").read_text("utf-8").splitlines()
    page = (CHECKOUT / "docs" / "howto" / "container.md").read_text("utf-8")
    for secret in loaded["secrets"].values():
        assert f"> docs/deploy/{secret['file'].removeprefix('./')}" in page


def test_the_node_understands_the_variables_of_the_compose_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the URL that the page says how to write."""
    page = (CHECKOUT / "docs" / "howto" / "container.md").read_text("utf-8")
    written = re.search(r"printf '(.*?)'", page)
    assert written is not None
    url = written[1] % "secret"
    (tmp_path / "url").write_text(url)
    environment: dict[str, str] = compose()["services"]["node"]["environment"]
    assert list(misspelled(environment, TABLES)) == []
    assert len(list(variables(environment, TABLES))) == len(environment)
    for name, value in environment.items():
        is_file = name.endswith("_FILE")
        monkeypatch.setenv(name, str(tmp_path / "url") if is_file else value)
    options = Options()
    options.parse(the_last("CMD").words)
    assert options["aet"] == "NETDICOM"
    assert options["database"] == url
    assert options["listen"] == ["tcp:11112"]


GROUP = DEPLOY / "haproxy"


def group() -> dict[str, Any]:
    """Three nodes behind HAProxy."""
    loaded: dict[str, Any] = yaml.safe_load((GROUP / "compose.yaml").read_text("utf-8"))
    return loaded


def test_the_compose_file_of_a_group_names_what_is_there() -> None:
    loaded = group()
    nodes = [each for name, each in loaded["services"].items() if name.startswith("node")]
    assert len(nodes) == 3
    own = compose()["secrets"]
    for secret in loaded["secrets"].values():
        # The two that are there already, in the directory that is not committed.
        assert secret["file"].startswith("../secrets/")
    assert own.keys() < loaded["secrets"].keys()
    for node in nodes:
        build = node["build"]
        assert (GROUP / build["context"]).resolve() == CHECKOUT
        assert (CHECKOUT / build["dockerfile"]).exists()
        mounted = dict(each.split(":")[:2] for each in node["volumes"])
        assert mounted["images"] == "/shared"
        assert f" {mounted['images']}" in next(
            each.text for each in instructions() if each.text.startswith("useradd")
        )
        assert mounted.keys() - loaded["volumes"].keys() == {"./node.toml"}
    for service in loaded["services"].values():
        assert "/" not in service.get("image", "")
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in loaded["volumes"] or (GROUP / source).exists()
        for secret in service.get("secrets", ()):
            assert secret in loaded["secrets"]


def test_the_nodes_of_a_group_understand_their_configuration(tmp_path: Path) -> None:
    """And it agrees with those of HAProxy and of the containers."""
    proxy = (GROUP / "haproxy.cfg").read_text("utf-8")
    address = group()["services"]["haproxy"]["networks"]["inside"]["ipv4_address"]
    text = (GROUP / "node.toml").read_text("utf-8")
    (tmp_path / "url").write_text("postgresql+psycopg://netdicom:secret@database/netdicom")
    write_password(tmp_path / "users", "anna", "a password")
    for before, after in (
        ("/run/secrets/database_url", tmp_path / "url"),
        ("/run/secrets/web_users", tmp_path / "users"),
    ):
        assert before in text
        text = text.replace(before, str(after))
    (tmp_path / "node.toml").write_text(text)
    options = Options()
    options.parse(["--config", str(tmp_path / "node.toml")])
    node = options.configured.node
    assert list(map(str, node.proxies)) == [f"{address}/32"]
    for name in ("node1", "node2", "node3"):
        assert f"server {name} {name}:11112 send-proxy-v2 check port 8042" in proxy
    assert options["listen"] == ["tcp:11112"]
    assert options["http"] == "tcp:8042"
    assert f"maxconn {node.max_associations} " in proxy
    looks = re.search(r"inter (\d+)s fall (\d+)", proxy)
    assert looks is not None
    assert node.drain >= 2 * int(looks[1]) * int(looks[2])
    grace = int(group()["x-node"]["stop_grace_period"].removesuffix("s"))
    assert grace >= node.drain + 20
