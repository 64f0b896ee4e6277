"""Programs that the benchmarks run in their own processes: the SCUs to compare, and an SCP.

    python -m tests.bench.scus find ours|pynetdicom AET PORT STUDY SERIES
    python -m tests.bench.scus store AET PORT DIRECTORY
    python -m tests.bench.scus answer COUNT PORT

An SCU prints JSON with the count and the seconds, without its own start. ``answer`` is a pynetdicom C-FIND SCP that
returns the given number of answers without looking anything up.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def _asked(study: str, series: str) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = "IMAGE"
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = series
    ds.SOPInstanceUID = ds.InstanceNumber = None
    return ds


def _print(count: int, began: float) -> None:
    print(json.dumps({"count": count, "seconds": time.perf_counter() - began}))


def _ours(main: Callable[[Any], Any]) -> None:
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))


def find_ours(title: str, port: int, study: str, series: str) -> None:
    """Query with our SCU and decode each answer."""
    from netdicom_tx import AE, RemoteAE
    from netdicom_tx.sopclass import qr_find_scu

    async def main(reactor: Any) -> None:
        ae = AE("BENCH", reactor=reactor).add_scu(qr_find_scu, [_FIND])
        count = 0
        began = time.perf_counter()
        async with await ae.request_association(RemoteAE(title, f"tcp:127.0.0.1:{port}")) as asce:
            async for ds, _ in asce.get_scu(_FIND)(_asked(study, series)):
                count += ds is not None
        _print(count, began)

    _ours(main)


def find_pynetdicom(title: str, port: int, study: str, series: str) -> None:
    """Query with pynetdicom's SCU."""
    from pynetdicom import AE

    ae = AE("PYNETDICOM")
    ae.add_requested_context(_FIND)
    count = 0
    began = time.perf_counter()
    association = ae.associate("127.0.0.1", port, ae_title=title)
    for _, ds in association.send_c_find(_asked(study, series), _FIND):
        count += ds is not None
    association.release()
    _print(count, began)


def store(title: str, port: int, directory: str) -> None:
    """Send with ``store_all`` on one association."""
    from netdicom_tx import AE, RemoteAE
    from netdicom_tx.sopclass import store_all

    async def main(reactor: Any) -> None:
        ae = AE("BENCH", reactor=reactor)
        paths = sorted(Path(directory).iterdir())
        began = time.perf_counter()
        count = 0
        async for result in store_all(ae, RemoteAE(title, f"tcp:127.0.0.1:{port}"), paths):
            count += result.status is not None and result.status.is_success
        _print(count, began)

    _ours(main)


def answer(count: int, port: int) -> None:
    """Run pynetdicom's C-FIND SCP."""
    from pynetdicom import AE, evt

    def found(event: Any) -> Iterator[tuple[int, Dataset]]:
        for number in range(count):
            ds = Dataset()
            ds.QueryRetrieveLevel = "IMAGE"
            ds.RetrieveAETitle = "PYNETDICOM"
            ds.StudyInstanceUID = event.identifier.StudyInstanceUID
            ds.SeriesInstanceUID = event.identifier.SeriesInstanceUID
            ds.SOPInstanceUID = f"2.25.{number + 10**20}"
            ds.InstanceNumber = number
            yield 0xFF00, ds

    ae = AE("PYNETDICOM")
    ae.add_supported_context(_FIND)
    ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_FIND, found)])


def main() -> None:
    """Run the program that the first argument names."""
    what, *words = sys.argv[1:]
    if what == "answer":
        answer(int(words[0]), int(words[1]))
        return
    if what == "store":
        title, port, directory = words
        store(title, int(port), directory)
        return
    whose, title, port, study, series = words
    find = find_ours if whose == "ours" else find_pynetdicom
    find(title, int(port), study, series)


if __name__ == "__main__":
    main()
