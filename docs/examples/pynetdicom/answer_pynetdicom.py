"""Answer queries for studies: python answer_pynetdicom.py PORT."""

import sys

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find

STUDIES = {"1.2.3": "Doe^Jane", "1.2.4": "Doe^John"}


def answer(event):
    for uid, name in STUDIES.items():
        if event.is_cancelled:
            yield 0xFE00, None
            return
        match = Dataset()
        match.QueryRetrieveLevel = "STUDY"
        match.StudyInstanceUID = uid
        match.PatientName = name
        yield 0xFF00, match


ae = AE()
ae.add_supported_context(Find)
ae.start_server(("127.0.0.1", int(sys.argv[1])), evt_handlers=[(evt.EVT_C_FIND, answer)])
