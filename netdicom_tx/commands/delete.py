"""``netdicom delete``: delete patients, studies, series or instances from the archive of a node."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from .common.failures import CommandError, ExitCode, Problem, bad_input
from .common.options import (
    LEVELS,
    archive_options,
    examples,
    json_option,
    key_option,
    node_option,
)
from .common.output import Output, counted

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from ..archive import Index
    from ..archive.index.withdrawal import Chosen, Summary
    from .common.query import Query
    from .common.storage import NodeFiles

__all__ = ["command"]

_COLUMNS = ("level", "deleted", "instances", "octets")
_UNIQUE_KEYS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
# How many seconds a node may take to delete a study.
_PATIENCE = 3600.0

#: How many instances were deleted, how many octets, and how many of the files go later.
_Figures = tuple[int, int, int]


class _Subject(NamedTuple):
    """What is to be deleted.

    Attributes:
        key: As the archive knows it: the identity of a patient, or a UID.
        shown: As a person knows it.
    """

    level: str
    key: str
    shown: str


_Delete = Callable[[_Subject], _Figures]


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom delete --study 1.2.840.113619.2.1 --storage /var/lib/netdicom",
        "netdicom delete -k Modality=SR -k StudyDate=-20151231 --dry-run --config node.toml",
        "netdicom delete --patient 4711 --yes --json",
    ),
)
@click.option(
    "--patient",
    "patients",
    multiple=True,
    metavar="ID",
    help="Delete this Patient ID (repeatable).",
)
@click.option("--issuer", metavar="TEXT", help="The Issuer of Patient ID of --patient.")
@click.option(
    "--study", "studies", multiple=True, metavar="UID", help="Delete this study (repeatable)."
)
@click.option(
    "--series", "series", multiple=True, metavar="UID", help="Delete this series (repeatable)."
)
@click.option(
    "--instance",
    "instances",
    multiple=True,
    metavar="UID",
    help="Delete this instance (repeatable).",
)
@key_option
@click.option(
    "--level",
    type=click.Choice(LEVELS, case_sensitive=False),
    help="What -k selects (default: the level of the deepest unique key among them, or STUDY).",
)
@archive_options
@node_option
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be deleted; delete nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--audit",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Append the audit messages to this file, when the node does not run (default: what --config says).",
)
@json_option
def command(
    patients: tuple[str, ...],
    issuer: str | None,
    studies: tuple[str, ...],
    series: tuple[str, ...],
    instances: tuple[str, ...],
    keys: tuple[str, ...],
    level: str | None,
    storage: Path,
    database: str | None,
    config_file: str | None,
    dry_run: bool,
    yes: bool,
    audit: str | None,
    is_json: bool,
) -> int:
    """Delete patients, studies, series or instances for good; the node may be running.

    Name them one by one, or select them by keys as in netdicom find, but not both. Several names add up; several keys
    have to match together. Versions that are kept aside are deleted with their instance. A retrieve that the node is
    performing is finished first, but no new query finds the deleted instances. netdicom protect protects studies from
    rules, not from this command.

    Exits with 10 when there is nothing to delete.
    """
    from .common.storage import node_files, opened_index

    output = Output(is_json=is_json)
    if keys and (patients or studies or series or instances):
        # Keys narrow each other and names add up, so a combination can be read in two ways.
        raise bad_input(
            "-k cannot be combined with --patient, --study, --series or --instance",
            "it is not clear whether both or either would select; nothing was deleted",
            "write all as keys, such as -k PatientID=4711 -k Modality=CT, or run the command twice",
        )
    node = node_files(storage, database, config_file)
    named = (("STUDY", studies), ("SERIES", series), ("IMAGE", instances))
    subjects = [_Subject(where, key, key) for where, uids in named for key in uids]
    with opened_index(node.storage, node.database) as index:
        subjects += _patients(index, patients, issuer)
        if keys:
            subjects += _selected(index, keys, level)
        elif not (subjects or patients):
            raise bad_input(
                "nothing says what to delete",
                "expected --patient, --study, --series, --instance or -k",
                "netdicom delete --help shows examples",
            )
        subjects = list(dict.fromkeys(subjects))
        chosen, missing = _chosen(index, subjects)
        whole = _summary(index, [each for part in chosen for each in part])
    found = [(subject, part) for subject, part in zip(subjects, chosen, strict=True) if part]
    if dry_run or not found:
        rows = [(each, len(part), sum(one.size for one in part), 0) for each, part in found]
        _show(output, rows)
        return _conclude(output, "would be deleted", whole, missing)
    if not yes:
        _confirm(whole)
    rows = []
    with _deletion(node, audit, config_file) as delete:
        rows += [(subject, *delete(subject)) for subject, _ in found]
    _show(output, rows)
    gone = whole._replace(instances=sum(row[1] for row in rows), octets=sum(row[2] for row in rows))
    waiting = sum(row[3] for row in rows)
    return _conclude(output, "deleted", gone, missing, waiting)


# -- what -----------------------------------------------------------------------------------------


def _patients(index: Index, patients: Sequence[str], issuer: str | None) -> Iterator[_Subject]:
    """The patients with these IDs.

    Raises:
        CommandError: Two people have one ID, of different issuers.
    """
    from ..archive.index import withdrawal

    for each in patients:
        with index.reading() as reading:
            found = withdrawal.patients(reading, each, issuer)
        if len(found) > 1:
            issuers = ", ".join(one.issuer or "none" for one in found)
            raise bad_input(
                f"{len(found)} patients have the ID {each}",
                f"their issuers are {issuers}; nothing was deleted",
                "name one by --issuer, or name the studies",
            )
        yield _Subject("PATIENT", found[0].identity if found else "", each)


def _query_of(texts: Sequence[str], level: str | None) -> Query:
    """The query that keys make, when it selects no more than they say.

    Raises:
        CommandError: A key cannot be used, or none has a value.
    """
    from ..archive.index.schema import ATTRIBUTES, COMPUTED
    from .common.query import Query

    query = Query(texts, "P", level)
    if not any((key.value or "").strip(" *\\") for key in query.keys):
        raise bad_input(
            "no key has a value that selects something, so everything would be deleted",
            f"the keys are {', '.join(texts)}",
            "pass at least one key with a value",
        )
    # A query ignores keys that it does not know, and a deletion must not.
    known = {*ATTRIBUTES, *COMPUTED}
    unknown = [
        key
        for key in query.keys
        if key.value and (key.path[0][0] if key.path else key.tag) not in known
    ]
    if unknown:
        raise _not_matched(f"the index does not match {unknown[0].name}")
    return query


def _not_matched(reason: str) -> CommandError:
    return bad_input(
        "the keys cannot be used",
        reason,
        "use the keys of PS3.4 C.6, or name what is to be deleted by its UID",
    )


def _answers(index: Index, query: Query, level: str) -> Iterator[Dataset]:
    """What the index answers to a query.

    Raises:
        CommandError: A key cannot be used.
    """
    from .. import statuses
    from ..archive.query.matching import InformationModel, MatchingError, QueryOptions
    from ..archive.query.search import Search
    from ..dsutils import decode
    from ..uids import EXPLICIT_VR_LITTLE_ENDIAN, PATIENT_ROOT_FIND_SOP_CLASS
    from .common.keys import parse_keys

    returned = [_UNIQUE_KEYS[level], *(["IssuerOfPatientID"] if level == "PATIENT" else [])]
    try:
        pages = Search(index).find_pages(
            query.identifier(parse_keys(returned)),
            model=InformationModel.of(PATIENT_ROOT_FIND_SOP_CLASS),
            options=QueryOptions(relational=True),
            transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
            retrieve_ae_title="",
        )
        if pages.status != statuses.PENDING:
            # What is not matched selects everything.
            raise _not_matched(f"the index does not match all of them at the level {level}")
        for answer in itertools.chain.from_iterable(pages):
            yield decode(answer, EXPLICIT_VR_LITTLE_ENDIAN)
    except MatchingError as error:
        raise bad_input("the keys cannot be used", str(error)) from error


def _selected(index: Index, texts: Sequence[str], level: str | None) -> Iterator[_Subject]:
    """What keys select.

    Raises:
        CommandError: A key cannot be used, or none has a value.
    """
    from ..archive.index import withdrawal

    query = _query_of(texts, level)
    assert query.level is not None
    for ds in _answers(index, query, query.level):
        key = str(ds.get(_UNIQUE_KEYS[query.level]) or "")
        if query.level != "PATIENT":
            yield _Subject(query.level, key, key)
            continue
        with index.reading() as reading:
            issuer = str(ds.get("IssuerOfPatientID") or "")
            for each in withdrawal.patients(reading, key, issuer):
                yield _Subject("PATIENT", each.identity, key)


def _chosen(index: Index, subjects: Sequence[_Subject]) -> tuple[list[list[Chosen]], list[str]]:
    """The instances of each, where one that is named twice counts for the first; and the subjects without any."""
    from ..archive.index import withdrawal
    from ..archive.index.schema import Level

    seen: set[int] = set()
    found: list[list[Chosen]] = []
    missing: list[str] = []
    for subject in subjects:
        with index.reading() as reading:
            part = withdrawal.choose(reading, Level(subject.level), subject.key)
        if not part:
            missing.append(subject.shown)
        new = [each for each in part if each.row not in seen]
        seen.update(each.row for each in new)
        found.append(new)
    return found, missing


def _summary(index: Index, chosen: Sequence[Chosen]) -> Summary:
    from ..archive.index import withdrawal

    with index.reading() as reading:
        return withdrawal.summary(reading, chosen)


def _in_words(whole: Summary) -> str:
    from ..amounts import in_units

    return (
        f"{counted(whole.instances, 'instance')} ({in_units(whole.octets)}) of "
        f"{whole.studies} stud{'y' if whole.studies == 1 else 'ies'} and {counted(whole.patients, 'patient')}"
    )


def _confirm(whole: Summary) -> None:
    """Ask, when somebody is there to answer.

    Raises:
        CommandError: Nobody is there.
        Abort: The answer is no.
    """
    if not sys.stdin.isatty():
        raise bad_input(
            "nobody can be asked, because the input is not a terminal",
            f"{_in_words(whole)} would be deleted for good; nothing was deleted",
            "pass --yes",
        )
    click.echo(f"{_in_words(whole)} will be deleted for good.", err=True)
    click.confirm("Delete?", abort=True, err=True)


# -- how ------------------------------------------------------------------------------------------


@contextmanager
def _deletion(node: NodeFiles, audit: str | None, config_file: str | None) -> Iterator[_Delete]:
    """What deletes: the node when it runs, else this process.

    Raises:
        CommandError: Neither can.
    """
    from ..archive.control import NodeAnswerError, NoNodeError, ask
    from .common.audit import this_user

    try:
        ask(node.storage, "status", timeout=_PATIENCE)
    except NoNodeError:
        with _alone(node, audit, config_file) as delete:
            yield delete
        return
    except (NodeAnswerError, OSError) as error:
        raise CommandError(
            Problem(
                ExitCode.CONFIGURATION,
                "the node that runs on the storage directory cannot be asked",
                f"{error}; nothing was deleted",
                "run this as the user of the node, or stop the node",
            )
        ) from error

    def by_node(subject: _Subject) -> _Figures:
        arguments = {"level": subject.level, "keys": [subject.key], "user": this_user()}
        try:
            ((instances, octets, waiting),) = ask(
                node.storage, "delete", timeout=_PATIENCE, **arguments
            )
        except (NodeAnswerError, NoNodeError, OSError) as error:
            raise _refused(error) from error
        return instances, octets, waiting

    yield by_node


@contextmanager
def _alone(node: NodeFiles, audit: str | None, config_file: str | None) -> Iterator[_Delete]:
    """Delete in the archive of a node that does not run."""
    from ..archive.index.schema import Level
    from ..archive.store.deletion import Deleter
    from .common.audit import deletions_audited, this_user
    from .common.storage import opened_archive

    with (
        opened_archive(node.storage, node.database) as (store, index),
        deletions_audited(audit, config_file) as on_deleted,
    ):
        deleter = Deleter(store, index)
        deleter.on_deleted = on_deleted

        def here(subject: _Subject) -> _Figures:
            try:
                done = deleter.delete_named(Level(subject.level), subject.key, this_user())
            except OSError as error:
                raise _refused(error) from error
            return done.instances, done.octets, done.waiting

        yield here


def _refused(error: Exception) -> CommandError:
    return CommandError(
        Problem(
            ExitCode.LOCAL_DISK if isinstance(error, OSError) else ExitCode.SOME_FAILED,
            "not all could be deleted",
            str(error),
            "what is left over is deleted when the command is run again; the node finishes what was begun",
        )
    )


# -- what came of it --------------------------------------------------------------------------------


def _show(output: Output, rows: Sequence[tuple[_Subject, int, int, int]]) -> None:
    if output.is_json:
        for subject, instances, octets, waiting in rows:
            output.json(
                {
                    "level": subject.level,
                    "key": subject.shown,
                    "instances": instances,
                    "octets": octets,
                    "waiting": waiting,
                }
            )
        return
    table = output.table(_COLUMNS)
    for subject, instances, octets, _ in rows:
        table.row((subject.level.lower(), subject.shown, instances, octets))
    table.close(is_complete=bool(rows))


def _conclude(
    output: Output, words: str, whole: Summary, missing: Sequence[str], waiting: int = 0
) -> int:
    if missing:
        output.note(f"the archive does not have {', '.join(missing)}")
    if not whole.instances:
        raise CommandError(
            Problem(
                ExitCode.NOTHING,
                "there is nothing to delete",
                "the archive has no such instances",
                "netdicom find shows what a node has",
            )
        )
    output.note(f"{_in_words(whole)} {words}")
    if waiting:
        output.note(f"{counted(waiting, 'file')} of them go when the retrieves that send them end")
    return ExitCode.OK
