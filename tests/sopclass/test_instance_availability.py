"""Instance availability notification (PS3.4 Annex R), in both roles."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from netdicom_tx import AE
from netdicom_tx.sopclass.instance_availability import (
    _RULES,
    INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS,
    Available,
    InstanceAvailabilityNotification,
    availability,
    check_availability,
    instance_availability_scu,
)
from netdicom_tx.sopclass.step_rules import ProcedureStepError
from netdicom_tx.testing import connected, success_of

STANDARD = Path(__file__).parent.parent / "standard"
CT = "1.2.840.10008.5.1.4.1.1.2"


def notice() -> Dataset:
    series = {
        "1.2.3.1": [Available(CT, "1.2.3.1.1", "NODE"), Available(CT, "1.2.3.1.2", "NODE")],
        "1.2.3.2": [Available(CT, "1.2.3.2.1", "NODE", "NEARLINE")],
    }
    return availability("1.2.3", series, ["1.2.9"])


def tags(rules: Any, depth: int = 0) -> Iterator[tuple[int, int]]:
    for rule in rules:
        assert rule.create == "1"
        yield depth, rule.tag
        yield from tags(rule.items, depth + 1)


def test_the_rules_are_those_of_the_standard() -> None:
    """PS3.4 Table R.3.2-1, what the SCP must find with a value."""
    classes = json.loads((STANDARD / "service_statuses.json").read_text())["service_classes"]
    expected = []
    for name, types in classes["instance_availability_notification"]["attributes"].items():
        if types == "1/1":
            keyword = name.lstrip(">").replace(" ", "")
            expected.append((name.count(">"), tag_for_keyword(keyword)))
    assert list(tags(_RULES)) == expected


def test_the_sop_class_is_that_of_the_registry() -> None:
    """PS3.6 Table A-1."""
    with (STANDARD / "sop_classes.csv").open() as file:
        names = {row["uid"]: row["name"] for row in csv.DictReader(file)}
    name = names[INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS]
    assert name == "Instance Availability Notification SOP Class"


def test_a_notice_tells_each_instance_by_its_series() -> None:
    ds = notice()
    check_availability(ds)
    (step,) = ds.ReferencedPerformedProcedureStepSequence
    assert step.ReferencedSOPInstanceUID == "1.2.9"
    told = [
        (series.SeriesInstanceUID, each.ReferencedSOPInstanceUID, each.InstanceAvailability)
        for series in ds.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    ]
    assert told == [
        ("1.2.3.1", "1.2.3.1.1", "ONLINE"),
        ("1.2.3.1", "1.2.3.1.2", "ONLINE"),
        ("1.2.3.2", "1.2.3.2.1", "NEARLINE"),
    ]


def test_a_notice_without_series_or_with_an_empty_one_is_none() -> None:
    for ds, status in ((availability("1.2.3", {}), 0x0121), (Dataset(), 0x0120)):
        with pytest.raises(ProcedureStepError) as caught:
            check_availability(ds)
        assert caught.value.status == status
    with pytest.raises(ProcedureStepError) as caught:
        check_availability(availability("1.2.3", {"1.2.3.1": []}))
    assert caught.value.attributes == (0x00081199,)


class Reading(AE):
    def __init__(self) -> None:
        super().__init__("READING")
        self.notices: dict[str, Dataset] = {}
        self.add_scp(InstanceAvailabilityNotification())

    def on_instances_available(self, uid: str, ds: Dataset) -> None:
        self.notices[uid] = ds


def test_a_notice_is_sent_and_taken() -> None:
    """R.3.2: by N-CREATE; one without a UID is given one (PS3.7 10.1.5.1.4)."""
    scp = Reading()
    with connected(AE("NODE").add_scu(instance_availability_scu), scp) as pair:
        send = pair.requestor.get_scu(INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS)
        assert success_of(send(notice(), "1.2.8")) == 0
        assert success_of(send(notice())) == 0
        assert success_of(send(Dataset())) == 0x0120
    assert list(scp.notices.values()) == [notice(), notice()]
    assert next(iter(scp.notices)) == "1.2.8"


def test_a_hook_that_is_not_there_is_a_processing_failure() -> None:
    scp = AE("READING").add_scp(InstanceAvailabilityNotification())
    with connected(AE("NODE").add_scu(instance_availability_scu), scp) as pair:
        send = pair.requestor.get_scu(INSTANCE_AVAILABILITY_NOTIFICATION_SOP_CLASS)
        status = success_of(send(notice()))
    assert (status, status.comment) == (0x0110, "on_instances_available is not implemented")
