from normalized_scp import COUNTER, Counters, count
from twisted.internet.defer import ensureDeferred

from netdicom_tx import AE
from netdicom_tx.sopclass import normalized_scu
from netdicom_tx.testing import connected, success_of


def peers():
    scu = AE("SCU").add_scu(normalized_scu, [COUNTER])
    return connected(scu, AE("SCP").add_scp(Counters()))


def test_a_counter_is_created_incremented_and_read():
    with peers() as pair:
        assert success_of(ensureDeferred(count(pair.requestor, "1.2.3"))) == 2


def test_each_refusal_has_its_status_and_the_association_continues():
    with peers() as pair:
        asce = pair.requestor
        assert success_of(asce.n_action(COUNTER, "1.2.3", 1)).status == 0x0112
        assert success_of(asce.n_create(COUNTER, sop_instance="1.2.3")).status == 0x0000
        assert success_of(asce.n_create(COUNTER, sop_instance="1.2.3")).status == 0x0111
        assert success_of(asce.n_action(COUNTER, "1.2.3", 2)).status == 0x0123
        assert success_of(asce.n_delete(COUNTER, "1.2.3")).status == 0x0211
