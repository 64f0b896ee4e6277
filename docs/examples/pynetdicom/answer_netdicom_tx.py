"""Answer queries for studies: python answer_netdicom_tx.py PORT."""

import sys

from pydicom.dataset import Dataset
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from netdicom_tx import AE
from netdicom_tx.sopclass import qr_find_scp

STUDIES = {"1.2.3": "Doe^Jane", "1.2.4": "Doe^John"}


class Finder(AE):
    def on_receive_find(self, context, ds):
        for uid, name in STUDIES.items():
            match = Dataset()
            match.QueryRetrieveLevel = "STUDY"
            match.StudyInstanceUID = uid
            match.PatientName = name
            yield match


async def main(reactor, port):
    await Finder("FINDER").add_scp(qr_find_scp).listen(f"tcp:{port}:interface=127.0.0.1")
    await Deferred()


react(main, sys.argv[1:])
