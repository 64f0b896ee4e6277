from gate import gate
from pydicom import dcmread
from pydicom.data import get_testdata_file

from netdicom_tx import AE, storage_scu
from netdicom_tx.testing import connected, success_of


def answer_to(name):
    image = dcmread(get_testdata_file(name))
    scu = AE("SCU").add_scu(storage_scu, [image.SOPClassUID])
    scp = AE("SCP").add_scp(gate)
    with connected(scu, scp) as pair:
        return success_of(pair.requestor.store(image))


def test_ct_is_accepted():
    assert answer_to("CT_small.dcm").is_success


def test_mr_is_refused_with_a_reason():
    answer = answer_to("MR_small.dcm")
    assert answer == 0xC000
    assert answer.comment == "only CT, please"
