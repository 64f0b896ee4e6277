"""``netdicom find``: query a peer (PS3.4 C.4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .common.options import (
    Common,
    answer_options,
    common_options,
    examples,
    key_option,
    model_options,
    peer_argument,
)

if TYPE_CHECKING:
    from .common.keys import Key
    from .common.query import Query

#: The keys that are returned when none is named; nearly every archive supports them.
DEFAULT_KEYS = {
    "PATIENT": ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    "STUDY": (
        "PatientName",
        "PatientID",
        "StudyDate",
        "AccessionNumber",
        "ModalitiesInStudy",
        "StudyDescription",
        "StudyInstanceUID",
    ),
    "SERIES": (
        "Modality",
        "SeriesNumber",
        "SeriesDescription",
        "NumberOfSeriesRelatedInstances",
        "SeriesInstanceUID",
    ),
    "IMAGE": ("InstanceNumber", "SOPClassUID", "SOPInstanceUID"),
}


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom find archive -k PatientName='DOE*' -k StudyDate=20260101-",
        "netdicom find archive -k StudyInstanceUID=1.2.3 -r SeriesInstanceUID -r Modality",
        "netdicom find ARCHIVE@10.0.0.5:104 -P -k PatientID=4711 --json",
    ),
)
@peer_argument
@key_option
@model_options("PSOW")
@answer_options
@common_options
def command(
    common: Common,
    keys: tuple[str, ...],
    root: str,
    level: str | None,
    returned: tuple[str, ...],
    limit: int | None,
    is_csv: bool,
    no_header: bool,
) -> int:
    """Query a peer (C-FIND).

    The columns of the answer are the keys of -k and -r. A key with a value is matched; one without a value
    is only returned. When every key has a value, the usual keys of the level are returned as well.

    The exit code is 0 when nothing matches, because that is an answer.
    """
    from .common.answers import answer_format, run_query
    from .common.query import Query

    query = Query([*keys, *returned], root, level)
    wanted = [] if _says_what_to_return(query) else _default_keys(query)
    return run_query(
        common, query, wanted, limit, answer_format(common.output, is_csv, not no_header)
    )


def _says_what_to_return(query: Query) -> bool:
    return query.root == "W" or any(key.value is None for key in query.keys)


def _default_keys(query: Query) -> list[Key]:
    from .common.keys import parse_keys

    assert query.level is not None
    written = {(key.path, key.tag) for key in query.keys}
    return [
        key for key in parse_keys(DEFAULT_KEYS[query.level]) if (key.path, key.tag) not in written
    ]
