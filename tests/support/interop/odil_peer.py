"""odil as an acceptor; run by the tests with Debian's Python, which has its bindings.

python3 odil_peer.py PORT DIRECTORY

Serves one association: C-ECHO, C-STORE into the directory, and C-FIND and C-GET of what is there, by Study Instance UID
and Patient ID. odil listens for one association at a time, so a second one needs another process. Its SCPDispatcher is
not used, because in the bindings of 0.12.2 it takes no service class but C-ECHO and C-STORE.
"""

import sys
from pathlib import Path
from typing import Any

import odil  # type: ignore[import-not-found]

KEYS = ("StudyInstanceUID", "PatientID")


def keep(request: Any, directory: Path) -> int:
    """Write what has come as odil writes it."""
    data_set = request.get_data_set()
    uid = data_set.as_string("SOPInstanceUID")[0].decode()
    with odil.open(str(directory / uid), "wb") as stream:
        odil.Writer.write_file(data_set, stream, transfer_syntax=data_set.get_transfer_syntax())
    return 0x0000


def matching(query: Any, directory: Path) -> list[Any]:
    """The stored instances that a query asks for."""
    found = []
    for path in sorted(directory.iterdir()):
        with odil.open(str(path)) as stream:
            instance = odil.Reader.read_file(stream)[1]
        if all(value(query, key) in (b"", value(instance, key)) for key in KEYS):
            found.append(instance)
    return found


def value(data_set: Any, key: str) -> bytes:
    """The first value of an attribute; empty without one."""
    is_there = data_set.has(key) and not data_set.empty(key)
    return bytes(data_set.as_string(key)[0]) if is_there else b""


def answer(query: Any, instance: Any) -> Any:
    """The values of an instance for the keys of a query."""
    answered = odil.DataSet()
    for tag in list(query.keys()):  # DataSet itself is not iterable
        if instance.has(tag):
            answered.add(tag, instance[tag])
    answered.add("QueryRetrieveLevel", ["STUDY"])
    return answered


class Answers(odil.FindSCP.DataSetGenerator):  # type: ignore[misc]
    """One match for each stored instance."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._left: list[Any] = []

    def initialize(self, request: Any) -> None:
        query = request.get_data_set()
        self._left = [answer(query, each) for each in matching(query, self._directory)]

    def done(self) -> bool:
        return not self._left

    def next(self) -> None:
        del self._left[0]

    def get(self) -> Any:
        return self._left[0]


class Instances(odil.GetSCP.DataSetGenerator):  # type: ignore[misc]
    """The stored instances that a C-GET asks for."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._left: list[Any] = []

    def initialize(self, request: Any) -> None:
        self._left = matching(request.get_data_set(), self._directory)

    def count(self) -> int:
        return len(self._left)

    def done(self) -> bool:
        return not self._left

    def next(self) -> None:
        del self._left[0]

    def get(self) -> Any:
        return self._left[0]


def main(port: int, directory: Path) -> None:
    association = odil.Association()
    association.set_tcp_timeout(300)
    association.receive_association("v4", port)
    echo, store = odil.EchoSCP(association), odil.StoreSCP(association)
    find, get = odil.FindSCP(association), odil.GetSCP(association)
    echo.set_callback(lambda request: 0x0000)
    store.set_callback(lambda request: keep(request, directory))
    # odil does not keep them alive.
    answers, instances = Answers(directory), Instances(directory)
    find.set_generator(answers)
    get.set_generator(instances)
    # By Command Field (PS3.7 E.1).
    services = {0x0001: store, 0x0010: get, 0x0020: find, 0x0030: echo}
    try:
        while True:
            message = association.receive_message()
            services[message.get_command_field()](message)
    except odil.AssociationReleased:
        print("released")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
