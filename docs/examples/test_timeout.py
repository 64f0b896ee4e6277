from twisted.internet.defer import Deferred

from netdicom_tx import AE, DCMTimeoutError, Timeouts, verification_scp, verification_scu
from netdicom_tx.testing import connected, failure_of


class Silent(AE):
    def on_receive_echo(self, context):
        return Deferred()  # never answers


def test_the_wait_for_an_answer_times_out():
    scu = AE("SCU", timeouts=Timeouts(response=20)).add_scu(verification_scu)
    with connected(scu, Silent("SCP").add_scp(verification_scp)) as pair:
        echo = pair.requestor.echo()
        pair.advance(20)
        error = failure_of(echo)
        assert isinstance(error, DCMTimeoutError)
        assert error.timer == "response"
