"""Statuses against PS3.7 Annex C and the tables of PS3.4."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdicom_tx import statuses
from netdicom_tx.statuses import Status, add_status

STANDARD = Path(__file__).parent / "standard"
DIMSE = json.loads((STANDARD / "dimse_commands.json").read_text())
SERVICES = json.loads((STANDARD / "service_statuses.json").read_text())["service_classes"]
CATEGORIES = ("Success", "Warning", "Failure", "Cancel", "Pending")

codes = st.integers(0, 0xFFFF)


def with_a_code(what: object) -> Iterator[dict[str, object]]:
    """Every entry of a table, however deep, that has a status code and its class."""
    if isinstance(what, dict):
        if "code" in what and "cls" in what:
            yield what
        else:
            for each in what.values():
                yield from with_a_code(each)
    elif isinstance(what, list):
        for each in what:
            yield from with_a_code(each)


def values(code: str) -> range:
    """The codes that a pattern such as ``Cxxx`` stands for."""
    return range(int(code.replace("x", "0"), 16), int(code.replace("x", "F"), 16) + 1)


OF_SERVICES = [
    (name, entry["code"], entry["cls"])
    for name, service in SERVICES.items()
    for entry in with_a_code(service)
]


def test_the_tables_have_what_is_compared():
    """An empty table would pass every test below."""
    assert len(OF_SERVICES) > 200
    assert len(DIMSE["general_statuses"]) > 20


@pytest.mark.parametrize(("service", "code", "cls"), OF_SERVICES)
def test_the_category_of_a_services_status_is_the_standards(service, code, cls):
    """PS3.4 A to KK: whether an SCU may go on depends on the class of the code."""
    codes = values(code)
    for value in (codes[0], codes[len(codes) // 2], codes[-1]):
        assert Status(value).category == cls


@pytest.mark.parametrize("code", DIMSE["general_statuses"])
def test_a_general_status_is_the_standards(code):
    """PS3.7 Annex C: class and words."""
    entry = DIMSE["general_statuses"][code]
    status = Status(int(code, 16))
    assert status.category == entry["cls"]
    subject = entry["meaning"].split(":")[0 if "refused" not in entry["meaning"] else 1]
    for word in subject.split("(")[0].lower().replace("-", " ").split():
        assert word in status.meaning.lower().replace("-", " ")


@pytest.mark.parametrize("rule", DIMSE["status_classes"], ids=lambda rule: rule["code"])
def test_the_classes_of_codes_are_the_standards(rule):
    """PS3.7 C.1 to C.5: Bxxx warns, Axxx and Cxxx fail, 0107 and 0116 warn, other 01xx fail."""
    pattern, _, exceptions = rule["code"].partition(" except ")
    for value in values(pattern):
        if f"{value:04X}" not in exceptions:
            assert Status(value).category == rule["cls"], hex(value)


@given(codes)
def test_a_status_is_in_exactly_one_category(code):
    """PS3.7 C.1: five classes, nothing between; what no table knows is a failure."""
    status = Status(code)
    flags = (
        status.is_success,
        status.is_warning,
        status.is_failure,
        status.is_cancel,
        status.is_pending,
    )
    assert sum(flags) == 1
    assert status.category == CATEGORIES[flags.index(True)]


@given(codes)
def test_a_status_is_the_number_it_is(code):
    """Handlers return plain numbers, and callers compare with them."""
    status = Status(code, "C-STORE", "why")
    assert status == code
    assert hash(status) == hash(code)
    assert {code: 1}[status] == 1
    assert f"{status:04X}" == f"{code:04X}"
    assert int(status) == code


@pytest.mark.parametrize("code", [-1, 0x10000])
def test_a_number_that_is_no_status_is_refused(code):
    """PS3.7 Annex E (0000,0900): US."""
    with pytest.raises(ValueError, match="0x0000 to 0xFFFF"):
        Status(code)


def test_a_status_is_told_in_words():
    """What an operator reads: meaning, code, and the peer's comment."""
    assert str(statuses.SUCCESS) == "Success (0x0000)"
    assert f"{Status(0xC123, 'C-STORE', 'no UID')}" == "Error: cannot understand (0xC123): no UID"
    assert repr(Status(0xFE00)) == "<Status 0xFE00 Cancel>"


def test_the_operation_decides_the_words():
    """PS3.4 B.2.3 and C.4.1.1.4: one code, two meanings."""
    assert Status(0xC000, "C-STORE").meaning == "Error: cannot understand"
    assert Status(0xC000, "C-FIND").meaning == "Failed: unable to process"
    assert Status(0xB007, "C-STORE").meaning.startswith("Warning: data set does not match")
    assert Status(0xA801, "C-MOVE").meaning == "Refused: move destination unknown"


@given(codes)
def test_a_code_that_no_table_knows_still_has_a_word(code):
    """An implementation may assign codes of its own in Axxx, Bxxx and Cxxx."""
    assert Status(code, "N-NOTHING").meaning
    if 0xD000 <= code < 0xFE00:
        assert Status(code).meaning == "Failure"


@pytest.mark.parametrize(
    ("service", "operation"),
    [("storage", "C-STORE")]
    + [("query_retrieve", operation) for operation in ("C-FIND", "C-MOVE", "C-GET")],
)
def test_the_statuses_of_storage_and_query_retrieve_have_their_own_words(service, operation):
    """PS3.4 Tables B.2-1, C.4-1, C.4-2, C.4-3: each code, at both ends of its range."""
    for entry in SERVICES[service]["services"][operation]:
        for value in (values(entry["code"])[0], values(entry["code"])[-1]):
            meaning = Status(value, operation).meaning.lower()
            assert meaning != Status(value).category.lower() or value in (0x0000, 0xFE00, 0xFF00)
            if "refused" in entry["meaning"]:
                assert "refused" in meaning
            if "out of resources" in entry["meaning"]:
                assert "out of resources" in meaning
            if "understand" in entry["meaning"]:
                assert "understand" in meaning


def named() -> dict[str, Status]:
    return {name: getattr(statuses, name) for name in statuses.__all__ if name.isupper()}


def test_the_constants_mean_what_their_names_say():
    """The names are the ancestor's and the standard's; the codes are the standard's."""
    general = {int(code, 16) for code in DIMSE["general_statuses"]} | {0xFF00}
    for name, status in named().items():
        operation, _, rest = name.partition("_")
        if operation == "C" and rest.split("_")[0] in ("STORE", "FIND", "GET", "MOVE"):
            operation = f"C-{rest.split('_')[0]}"
            assert status.command == operation
            # The code stands in the service's table.
            tables = {"C-STORE": "storage"}
            entries = SERVICES[tables.get(operation, "query_retrieve")]["services"][operation]
            assert any(status in values(entry["code"]) for entry in entries), name
        else:
            assert status in general, name
    assert len(named()) == len({(int(s), s.command) for s in named().values()})


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SUCCESS", 0x0000),
        ("PENDING", 0xFF00),
        ("CANCEL", 0xFE00),
        ("PROCESSING_FAILURE", 0x0110),
        ("DUPLICATE_SOP_INSTANCE", 0x0111),
        ("SOP_CLASS_NOT_SUPPORTED", 0x0122),
        ("NOT_AUTHORIZED", 0x0124),
        ("DUPLICATE_INVOCATION", 0x0210),
        ("UNRECOGNIZED_OPERATION", 0x0211),
        ("MISTYPED_ARGUMENT", 0x0212),
        ("RESOURCE_LIMITATION", 0x0213),
        ("C_STORE_OUT_OF_RESOURCES", 0xA700),
        ("C_STORE_CANNOT_UNDERSTAND", 0xC000),
        ("C_STORE_ELEMENTS_COERCED", 0xB000),
        ("C_STORE_ELEMENTS_DISCARDED", 0xB006),
        ("C_FIND_PENDING_WARNING", 0xFF01),
        ("C_MOVE_DESTINATION_UNKNOWN", 0xA801),
        ("C_GET_WARNING", 0xB000),
    ],
)
def test_a_constant_has_its_code(name, code):
    """PS3.7 Annex C, PS3.4 B.2.3 and C.4."""
    assert getattr(statuses, name) == code


@pytest.fixture
def own_status(monkeypatch):
    monkeypatch.setattr(statuses, "_SPECIFIC", list(statuses._SPECIFIC))


@pytest.mark.usefixtures("own_status")
def test_a_service_of_ones_own_can_name_its_statuses():
    """PS3.7 C.1: Axxx, Bxxx and Cxxx may be assigned; a later name goes before an earlier one."""
    add_status(0xC1A0, "Failed: no film", end=0xC1AF, command="N-ACTION")
    add_status(0xA7FF, "Refused: the robot is full")
    assert Status(0xC1A5, "N-ACTION").meaning == "Failed: no film"
    assert Status(0xC1B0, "N-ACTION").meaning == "Failure"
    assert Status(0xC1A5, "C-FIND").meaning == "Failed: unable to process"
    assert Status(0xA7FF, "C-STORE").meaning == "Refused: the robot is full"
    assert Status(0xA7FF).meaning == "Refused: the robot is full"


def test_a_copy_keeps_what_a_status_knows():
    """Results are copied and put into queues."""
    status = copy.deepcopy(Status(0xA700, "C-STORE", "disk full"))
    assert (status, status.command, status.comment) == (0xA700, "C-STORE", "disk full")


@pytest.mark.parametrize("code", [0xFE00, 0xFF00, 0xFF01])
@pytest.mark.parametrize("operation", ["C-STORE", "C-ECHO", "N-CREATE"])
def test_only_queries_and_retrieves_are_pending_or_cancelled(code: int, operation: str):
    """PS3.7 9.1: the other operations have one response, which is the last."""
    assert Status(code, operation).category == "Failure"
    assert Status(code, "C-FIND").category in ("Cancel", "Pending")
