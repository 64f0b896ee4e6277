from modality import may_be_deleted, modality, perform, scheduled
from pydicom.dataset import Dataset
from ris import RIS, Schedule
from twisted.internet.defer import ensureDeferred, maybeDeferred

from netdicom_tx.testing import connected, success_of
from netdicom_tx.uids import CTImageStorage as CT


def peers():
    # Without a reactor there are no threads: run blocking calls at once.
    return connected(modality("CT1"), RIS("RIS", Schedule(), in_thread=maybeDeferred))


def series():
    item = Dataset()
    item.SeriesInstanceUID, item.ProtocolName = "1.2.3.4", "Head"
    return item


def test_a_scheduled_step_is_performed():
    with peers() as pair:
        (item,) = success_of(ensureDeferred(scheduled(pair.requestor, "CT1")))
        assert item.PatientID == "4711"
        statuses = success_of(ensureDeferred(perform(pair.requestor, item, series())))
        assert statuses == (0x0000, 0x0000)
        (step,) = pair.scp.steps.values()
        assert step.PerformedProcedureStepStatus == "COMPLETED"


def test_another_station_has_nothing_to_do():
    with peers() as pair:
        assert success_of(ensureDeferred(scheduled(pair.requestor, "MR1"))) == []


def test_only_committed_instances_may_be_deleted():
    with peers() as pair:
        pair.scp.kept.add("1.2.3.4.5")
        asked = ensureDeferred(
            may_be_deleted(pair.requestor, [(CT, "1.2.3.4.5"), (CT, "1.2.3.4.6")])
        )
        pair.advance(1)  # the report comes a second after the response
        assert success_of(asked) == ((CT, "1.2.3.4.5"),)
