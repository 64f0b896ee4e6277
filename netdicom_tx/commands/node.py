"""``netdicom node``: the nodes that share an archive, and what belongs together."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common.failures import CommandError, ExitCode, Problem
from .common.options import Group, archive_options, examples, json_option, node_option
from .common.output import Output, counted
from .common.report import Report

if TYPE_CHECKING:
    from ..archive.group.members import Node

__all__ = ["command"]

_COLUMNS = (
    *("name", "host", "address", "version", "schema", "state", "since", "last seen"),
    *("associations", "duties", "tasks"),
)
# The states of nodes that are counted, in this order.
_STATES = ("alive", "draining", "stopped", "dead")


@click.group(
    cls=Group,
    epilog=examples(
        "netdicom node list --config node.toml",
        "netdicom node list --database postgresql://netdicom@db/netdicom --json",
        "netdicom node adopt --storage /var/lib/netdicom",
    ),
)
def command() -> None:
    """Show the nodes that share an archive, or say that a store and a database belong together."""


@command.command(
    name="list",
    epilog=examples(
        "netdicom node list --config node.toml",
        "netdicom node list --database postgresql://netdicom@db/netdicom --json | jq .state",
    ),
)
@archive_options
@node_option
@json_option
def list_command(
    storage: Path, database: str | None, config_file: str | None, is_json: bool
) -> int:
    """Show the nodes that share a database, by name; any machine that reaches the database can ask.

    A node that has not been seen for 30 s is dead. The exit code is 1 when a node is dead. A node that is
    alone with SQLite is not in the list; netdicom status shows it.
    """
    output = Output(is_json=is_json)
    nodes, tasks = _asked(_url(storage, database, config_file))
    if is_json:
        for each in nodes:
            output.json(_document(each, tasks[each.uuid]))
    else:
        table = output.table(_COLUMNS)
        for each in nodes:
            table.row(
                (
                    *(each.name, each.host, each.address, each.version, each.schema),
                    *(each.state.value, f"{_time(each.started):%Y-%m-%d %H:%M:%S}"),
                    *(f"{each.seen:.0f} s ago", each.doing.get("associations", "")),
                    *(", ".join(each.duties), tasks[each.uuid]),
                )
            )
        table.close()
    states = Counter(each.state.value for each in nodes)
    parts = [f"{states[each]} {each}" for each in _STATES if states[each]]
    # A newcomer's node runs, and has no group.
    told = (
        ", ".join(parts)
        or "a node that is alone with SQLite is not listed; netdicom status shows it"
    )
    output.note(f"{counted(len(nodes), 'node')}: {told}")
    return ExitCode.SOME_FAILED if states["dead"] else ExitCode.OK


def _url(storage: Path, database: str | None, config_file: str | None) -> str:
    """The URL of the database; the storage directory may be another machine's."""
    from .common.storage import node_files

    if database is not None and config_file is None:
        return database
    node = node_files(storage, database, config_file, may_be_new=True)
    return node.database or f"sqlite:///{node.storage / 'index.db'}"


def _asked(url: str) -> tuple[list[Node], Counter[str]]:
    """The nodes, and how many tasks each of them performs. The tables are neither made nor migrated."""
    import sqlalchemy as sa

    from ..archive import IndexUnusableError
    from ..archive.group.members import members_of
    from ..archive.index.engine import open_engine
    from ..archive.workflow.outbound import task_table

    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
            raise IndexUnusableError(f"the database {parsed.database} does not exist")
        engine = open_engine(url)
    except (IndexUnusableError, sa.exc.ArgumentError) as error:
        raise CommandError(Problem(ExitCode.CONFIGURATION, str(error))) from error
    shown = engine.url.render_as_string()
    tasks: Counter[str] = Counter()
    try:
        with closing(engine.connect()) as connection:
            nodes = members_of(connection)
            if sa.inspect(connection).has_table(task_table.name):
                running = sa.select(task_table.c.owner).where(task_table.c.state == "running")
                for owner in connection.scalars(running):
                    tasks.update(each.uuid for each in nodes if owner.startswith(each.uuid))
    except sa.exc.SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise CommandError(
            Problem(
                ExitCode.CONFIGURATION,
                f"the database {shown} cannot be asked",
                reason,
                "is the database running, and may this user read it?",
            )
        ) from error
    finally:
        engine.dispose()
    return nodes, tasks


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds).astimezone()


def _document(node: Node, tasks: int) -> dict[str, Any]:
    return {
        "uuid": node.uuid,
        "name": node.name,
        "host": node.host,
        "directory": node.place,
        "address": node.address,
        "version": node.version,
        "schema": node.schema,
        "state": node.state.value,
        "since": _time(node.started).isoformat(timespec="seconds"),
        "seen": round(node.seen, 1),
        "duties": list(node.duties),
        "tasks": tasks,
        **node.doing,
    }


@command.command(
    epilog=examples(
        "netdicom node adopt --storage /var/lib/netdicom",
        "netdicom node adopt --config node.toml --yes",
    )
)
@archive_options
@node_option
@click.option(
    "-y", "--yes", is_flag=True, help="Do it even if the store has none of the files looked for."
)
@json_option
def adopt(
    storage: Path, database: str | None, config_file: str | None, yes: bool, is_json: bool
) -> int:
    """Say that a store and a database belong together, which a node refuses; the node must not run.

    The IDs of the store become those that the database has. At its next start, the node removes rows that
    have no file, and indexes files that have no row.
    """
    from ..archive import IndexUnavailableError, IndexUnusableError, StorageError
    from ..archive.group.identity import read_document, sample
    from ..archive.store.deletion import open_archive
    from ..archive.store.place import place_of

    output = Output(is_json=is_json)
    store, index = _archive(storage, database, config_file)
    try:
        with index:
            counts = index.counts()
            with index.reading() as reading:
                paths = sample(reading)
        if paths and not yes:
            store.open(when_locked=lambda: _must_have(place_of(store).has_any(paths), store))
            store.close()
        open_archive(store, index, adopt=True)
        document = read_document(store.root)
    except (StorageError, IndexUnusableError, IndexUnavailableError, OSError) as error:
        raise CommandError(Problem(ExitCode.CONFIGURATION, str(error))) from error
    finally:
        index.close()
        store.close()
    assert document is not None
    if not is_json:
        output.line(
            f"{place_of(store).place} belongs to {index.url}, which has "
            f"{counted(counts.instances, 'instance')}; start the node, which compares files and rows"
        )
    return Report(
        document={
            "store": place_of(store).place,
            "database": index.url,
            "instances": counts.instances,
            "identity": document.store,
        }
    ).show(output)


def _must_have(has_any: bool, store: Any) -> None:
    if has_any:
        return
    from ..archive.store.place import place_of

    raise CommandError(
        Problem(
            ExitCode.CONFIGURATION,
            f"{place_of(store).place} has none of the files that were looked for",
            "the rows of files that are not there are removed at the next start of the node",
            "name the right storage; if the files are really lost: --yes",
        )
    )


def _archive(storage: Path, database: str | None, config_file: str | None) -> tuple[Any, Any]:
    """The store and the index of a node, which are not open."""
    from ..archive import Index
    from .common.node import node_options
    from .common.storage import has_variables, must_be_storage

    given = click.get_current_context().get_parameter_source
    is_named = any(
        given(each) is click.core.ParameterSource.COMMANDLINE for each in ("storage", "database")
    )
    if config_file is None and (is_named or not has_variables()):
        store = must_be_storage(storage)
        return store, Index(database or f"sqlite:///{store.root / 'index.db'}", root=store.root)
    from ..tap import make_ae

    ae = make_ae(node_options(["--config", config_file] if config_file is not None else []))
    return ae.store, ae.index
