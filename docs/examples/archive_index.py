"""An archive with its own index: python archive_index.py DIRECTORY [ENDPOINT]."""

import sys

from pydicom import dcmread
from pydicom.dataset import Dataset
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from netdicom_tx import statuses
from netdicom_tx.archive import ArchiveAE, FileStore
from netdicom_tx.sopclass import qr_find_scp, qr_get_scp
from netdicom_tx.uids import STUDY_ROOT_FIND_SOP_CLASS, STUDY_ROOT_GET_SOP_CLASS

TAGS = ["PatientID", "PatientName", "StudyInstanceUID"]


class Known(ArchiveAE):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)  # without an Index, it keeps files only
        self.studies = {}  # a dict here, your database in practice
        self.add_scp(qr_find_scp, [STUDY_ROOT_FIND_SOP_CLASS])
        self.add_scp(qr_get_scp, [STUDY_ROOT_GET_SOP_CLASS])

    def start(self):
        super().start()
        for path in self.store.instances.glob("*/*.dcm"):
            self.note(path)

    def note(self, path):
        header = dcmread(path, specific_tags=TAGS)
        study = self.studies.setdefault(header.StudyInstanceUID, (header, []))
        study[1].append(path)

    async def on_receive_store(self, context, ds):
        path = self.store.path(ds.sop_instance_uid)
        is_new = not path.exists()
        status = await super().on_receive_store(context, ds)
        if is_new and status == statuses.SUCCESS:
            await self.in_thread(self.note, path)
        return status

    def on_receive_find(self, context, ds):
        wanted = ds.get("PatientID")
        for header, paths in list(self.studies.values()):
            if wanted in (None, "", "*", header.PatientID):
                match = Dataset()
                match.QueryRetrieveLevel = "STUDY"
                for keyword in TAGS:
                    setattr(match, keyword, header.get(keyword, ""))
                match.NumberOfStudyRelatedInstances = len(paths)
                yield match

    def on_receive_get(self, context, ds):
        _, paths = self.studies.get(ds.get("StudyInstanceUID"), (None, []))
        return len(paths), list(paths)


async def main(reactor, directory, endpoint="tcp:11112:interface=127.0.0.1"):
    ae = Known("KNOWN", FileStore(directory), reactor=reactor)
    ae.start()
    reactor.addSystemEventTrigger("after", "shutdown", ae.stop)
    port = await ae.listen(endpoint)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


react(main, sys.argv[1:])
