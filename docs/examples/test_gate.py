from gate import gate
from pydicom import dcmread
from pydicom.data import get_testdata_file

from netdicom_tx import AE, storage_scu
from netdicom_tx.testing import connected, success_of
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN


def answer_to(name):
    image = dcmread(get_testdata_file(name))
    scu = AE("SCU").add_scu(storage_scu, [image.SOPClassUID], [EXPLICIT_VR_LITTLE_ENDIAN])
    scp = AE("SCP").add_scp(gate)
    with connected(scu, scp) as pair:
        return success_of(pair.requestor.get_scu(image.SOPClassUID)(image))


def test_ct_is_taken():
    assert answer_to("CT_small.dcm").is_success


def test_mr_is_refused_and_told_why():
    answer = answer_to("MR_small.dcm")
    assert answer == 0xC000
    assert answer.comment == "only CT, please"
