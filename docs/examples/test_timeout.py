from twisted.internet.defer import Deferred

from netdicom_tx import AE, DCMTimeoutError, Timeouts, verification_scp, verification_scu
from netdicom_tx.testing import connected, failure_of
from netdicom_tx.uids import VERIFICATION_SOP_CLASS


class Silent(AE):
    def on_receive_echo(self, context):
        return Deferred()  # never answers


def test_a_peer_that_does_not_answer_is_given_up():
    scu = AE("SCU", timeouts=Timeouts(response=20)).add_scu(verification_scu)
    with connected(scu, Silent("SCP").add_scp(verification_scp)) as pair:
        echo = pair.requestor.get_scu(VERIFICATION_SOP_CLASS)()
        pair.advance(20)
        error = failure_of(echo)
        assert isinstance(error, DCMTimeoutError)
        assert error.timer == "response"
