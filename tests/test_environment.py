"""Variables of the environment that set keys of the configuration."""

from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.access import EVERYTHING, Permission, Profile
from netdicom_tx.config import TABLES, ConfigurationError, Source, read
from netdicom_tx.environment import misspelled, variables
from netdicom_tx.options import Options


def values(**environment: str) -> dict[str, Any]:
    return {each.key: each.value for each in variables(environment, TABLES)}


def told(**environment: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(None, environment=environment)
    return [str(each) for each in caught.value.mistakes]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("NODE_AET", "ARCHIVE", "ARCHIVE"),
        ("NODE_AET", "7", "7"),
        ("NODE_MAX_ASSOCIATIONS", "7", 7),
        ("NODE_MAX_ASSOCIATIONS", "many", "many"),
        ("STORAGE_FSYNC", "false", False),
        ("STORAGE_FSYNC", "Yes", True),
        ("STORAGE_FSYNC", "perhaps", "perhaps"),
        ("NODE_LISTEN", "tcp:104, tcp6:104", ["tcp:104", "tcp6:104"]),
        ("NODE_LISTEN", '["unix:a,b"]', ["unix:a,b"]),
        ("NODE_LISTEN", "[unix", "[unix"),
        ("DATABASE_URL", "postgresql://db/dicom", "postgresql://db/dicom"),
        ("ACCESS_DEFAULT", "none", "none"),
        ("ACCESS_DEFAULT", "echo", ["echo"]),
        ("ACCESS_DEFAULT", "echo, store", ["echo", "store"]),
        ("ACCESS_DEFAULT", '["echo"]', ["echo"]),
    ],
)
def test_a_value_has_the_type_that_its_key_needs(name: str, text: str, value: object) -> None:
    """What cannot have it stays text, so that it is refused like a wrong value of a file."""
    (found,) = variables({f"NETDICOM_{name}": text}, TABLES)
    assert found.value == value


def test_an_empty_variable_is_none() -> None:
    """Compose files pass ``${AET:-}`` on."""
    assert values(NETDICOM_NODE_AET="", NETDICOM_NODE_LISTEN=" ") == {}
    assert list(misspelled({"NETDICOM_NODE_AETT": ""}, TABLES)) == []


def test_variables_of_others_are_left_alone() -> None:
    """Kubernetes announces a service called netdicom or netdicom-node in this way."""
    others = {
        "NETDICOM_PORT": "tcp://10.0.0.1:104",
        "NETDICOM_SERVICE_HOST": "10.0.0.1",
        "NETDICOM_NODE_SERVICE_PORT_DICOM": "104",
        "NETDICOM_NODE_PORT_104_TCP_ADDR": "10.0.0.1",
        "NETDICOM_TX_ROUNDS": "3",
        "NODE_AET": "A",
    }
    assert list(misspelled(others, TABLES)) == []
    assert values(**others) == {}


def test_mistakes_are_told_with_the_name_of_the_variable() -> None:
    assert told(
        NETDICOM_NODE_AETT="A",
        NETDICOM_STORGE_DIRECTORY="/data",
        NETDICOM_NODE_MAX_ASSOCIATIONS="many",
        NETDICOM_STORAGE_DUPLICATES="repalce",
        NETDICOM_NODE_LISTEN="tcp:99999",
    ) == [
        "NETDICOM_NODE_AETT: is not a known variable; did you mean NETDICOM_NODE_AET?",
        "NETDICOM_STORGE_DIRECTORY: is not a known variable; did you mean NETDICOM_STORAGE_DIRECTORY?",
        "NETDICOM_NODE_LISTEN entry 1: 'tcp:99999' has no port from 0 to 65535; expected an endpoint such as tcp:11112:"
        "interface=127.0.0.1; netdicom config init shows what each key means",
        "NETDICOM_NODE_MAX_ASSOCIATIONS: expected a whole number, got 'many'; write it in digits, without quotes",
        "NETDICOM_STORAGE_DUPLICATES: expected keep, replace or keep-both, not 'repalce'; did you mean replace?",
    ]


def test_a_variable_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text("[node]\naet = 'FILE'\nmax_associations = 7\n")
    source = read(str(path), environment={"NETDICOM_NODE_AET": "VARIABLE"})
    assert (source.config.node.aet, source.config.node.max_associations) == ("VARIABLE", 7)
    assert source.origin("node", "aet") == "NETDICOM_NODE_AET"
    assert source.origin("node", "max_associations") == f"{path}:3"
    assert source.origin("node", "listen") == ""


def test_the_command_line_wins_over_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETDICOM_NODE_AET", "VARIABLE")
    monkeypatch.setenv("NETDICOM_STORAGE_FSYNC", "no")
    options = Options()
    options.parse(["--aet", "OPTION"])
    assert (options["aet"], options["no-fsync"]) == ("OPTION", True)
    options = Options()
    options.parse([])
    assert options["aet"] == "VARIABLE"


def test_a_variable_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "node.toml"
    path.write_text("[node]\naet = 'FILE'\n")
    monkeypatch.setenv("NETDICOM_CONFIG", str(path))
    options = Options()
    options.parse([])
    assert options["aet"] == "FILE"
    assert options.config_path == path


def test_a_mistake_of_several_keys_is_told_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for a file: exit status 78."""
    monkeypatch.setenv("NETDICOM_NODE_TLS_LISTEN", "tcp:2762")
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions([])
    assert caught.value.code == 78
    assert (
        "the environment: NETDICOM_NODE_TLS_LISTEN: needs the PEM file" in capsys.readouterr().err
    )


def test_access_by_variables_counts_as_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options()
    options.parse([])
    assert not options.is_access_configured
    assert options.configured.rules().default == EVERYTHING
    monkeypatch.setenv("NETDICOM_ACCESS_DEFAULT", "echo")
    options = Options()
    options.parse([])
    assert options.is_access_configured
    assert options.access.default == Profile(frozenset([Permission.ECHO]))


# -- secrets -----------------------------------------------------------------------------------------


def secret(directory: Path, text: str = "postgresql://dicom:geheim@db/dicom\n") -> Path:
    path = directory / "url"
    path.write_text(text)
    return path


def test_the_url_of_the_database_can_stand_in_a_file(tmp_path: Path) -> None:
    """As the secrets of Docker and systemd do."""
    path = secret(tmp_path)
    source = read(None, environment={"NETDICOM_DATABASE_URL_FILE": str(path)})
    assert source.config.database.url == "postgresql://dicom:geheim@db/dicom"
    assert source.config.options()["database"] == source.config.database.url
    assert source.origin("database", "url") == "NETDICOM_DATABASE_URL_FILE"


def test_the_password_of_a_private_key_can_stand_in_a_file(tmp_path: Path) -> None:
    """Or in a variable; it is never shown."""
    path = secret(tmp_path, "geheim\n")
    source = read(None, environment={"NETDICOM_TLS_KEY_PASSWORD_FILE": str(path)})
    assert source.config.tls.key_password == "geheim"
    assert "geheim" not in repr(source.config)
    source = read(None, environment={"NETDICOM_TLS_KEY_PASSWORD": "1234"})
    assert source.config.tls.key_password == "1234"


def in_file(directory: Path, text: str, **environment: str) -> Source:
    path = directory / "node.toml"
    path.write_text(text)
    return read(str(path), environment=environment)


def test_a_secret_has_one_source(tmp_path: Path) -> None:
    path = secret(tmp_path)
    with pytest.raises(ConfigurationError, match=r"line 3: .*url_file: url is given as well"):
        in_file(tmp_path, f'[database]\nurl = "sqlite:///own.db"\nurl_file = "{path}"\n')
    environment = {"NETDICOM_DATABASE_URL_FILE": str(path)}
    source = in_file(tmp_path, '[database]\nurl = "sqlite:///own.db"\n', **environment)
    assert str(source.config.database.url).startswith("postgresql")
    environment = {"NETDICOM_DATABASE_URL": "sqlite:///own.db"}
    source = in_file(tmp_path, f'[database]\nurl_file = "{path}"\n', **environment)
    assert source.config.database.url == "sqlite:///own.db"


def test_a_secret_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"line 2: .*none: No such file or directory; make"
    ):
        in_file(tmp_path, f'[database]\nurl_file = "{tmp_path / "none"}"\n')
    path = tmp_path / "url"
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="url: is not UTF-8"):
        in_file(tmp_path, f'[database]\nurl_file = "{path}"\n')
