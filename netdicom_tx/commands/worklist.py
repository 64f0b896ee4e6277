"""``netdicom worklist``: query a modality worklist (PS3.4 Annex K)."""

from __future__ import annotations

import click

from .common.options import (
    Common,
    answer_options,
    common_options,
    examples,
    key_option,
    peer_argument,
)

_STEP = "ScheduledProcedureStepSequence"
#: The keys that are returned when none is named.
DEFAULT_KEYS = (
    f"{_STEP}.ScheduledProcedureStepStartDate",
    f"{_STEP}.ScheduledProcedureStepStartTime",
    f"{_STEP}.Modality",
    f"{_STEP}.ScheduledStationAETitle",
    f"{_STEP}.ScheduledProcedureStepDescription",
    "PatientName",
    "PatientID",
    "AccessionNumber",
    "RequestedProcedureID",
    "StudyInstanceUID",
)


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom worklist RIS@10.0.0.7:104 --date 20261123 --modality CT",
        "netdicom worklist ris -k ScheduledProcedureStepSequence.Modality=MR",
        "netdicom worklist ris -k PatientName='DOE*' -r AccessionNumber --csv",
    ),
)
@peer_argument
@key_option
@click.option(
    "--date",
    metavar="DATE",
    help="Match steps that start on this date: YYYYMMDD, or a range such as 20261101-20261130.",
)
@click.option("--modality", metavar="MODALITY", help="Match steps of this modality, such as CT.")
@click.option(
    "--station",
    metavar="TITLE",
    help="Match steps that are scheduled for the station with this AE title.",
)
@answer_options
@common_options
def command(
    common: Common,
    keys: tuple[str, ...],
    date: str | None,
    modality: str | None,
    station: str | None,
    returned: tuple[str, ...],
    limit: int | None,
    is_csv: bool,
    no_header: bool,
) -> int:
    """Query a modality worklist (C-FIND).

    The options for the scheduled step are short for keys such as
    -k ScheduledProcedureStepSequence.Modality=CT. The exit code is 0 when nothing matches.
    """
    from .common.answers import answer_format, run_query
    from .common.keys import parse_keys
    from .common.query import Query

    shortcuts = [
        f"{_STEP}.{keyword}={value}"
        for keyword, value in (
            ("ScheduledProcedureStepStartDate", date),
            ("Modality", modality),
            ("ScheduledStationAETitle", station),
        )
        if value is not None
    ]
    query = Query([*shortcuts, *keys, *returned], "W", None)
    written = {(key.path, key.tag) for key in query.keys}
    wanted = []
    if all(key.value is not None for key in query.keys):
        wanted = [key for key in parse_keys(DEFAULT_KEYS) if (key.path, key.tag) not in written]
    form = answer_format(common.output, is_csv, not no_header)
    return run_query(common, query, wanted, limit, form)
