from pydicom import dcmread
from pydicom.data import get_testdata_file
from twisted.internet.defer import ensureDeferred

from netdicom_tx import AE, statuses, storage_scp
from netdicom_tx.sopclass import qr_move_scp
from netdicom_tx.testing import Network, success_of

IMAGE = get_testdata_file("CT_small.dcm")


class Archive(AE):
    def on_receive_move(self, context, ds, destination):
        return self.destinations.get(destination), 1, [IMAGE]


class Viewer(AE):
    def on_receive_store(self, context, ds):
        self.received.append(dcmread(ds))
        return statuses.SUCCESS


async def fetch(workstation, archive, destination):
    async with workstation.associate(archive) as asce:
        return [each async for each in asce.move("STUDY", StudyInstanceUID="1.2", to=destination)]


def test_a_study_is_sent_to_the_viewer():
    workstation = AE("WORKSTATION")
    archive = Archive("ARCHIVE").add_scp(qr_move_scp)
    viewer = Viewer("VIEWER").add_scp(storage_scp)
    viewer.received = []
    with Network(workstation, archive, viewer) as network:
        archive.destinations = {"VIEWER": network.remote(viewer)}
        fetching = ensureDeferred(fetch(workstation, network.remote(archive), "VIEWER"))
        assert success_of(fetching)[-1].completed == 1
    assert viewer.received == [dcmread(IMAGE)]
