"""A service for a private DIMSE-N SOP class, and an SCU that uses it."""

from pydicom.dataset import Dataset

from netdicom_tx import StatusError, statuses
from netdicom_tx.sopclass import MessageDispatcherSCP, data_set_of

COUNTER = "2.25.329800735698586629295641978511506172918"  # a private SOP class


class Counters(MessageDispatcherSCP):
    """Counters that peers create, increment and read; Instance Number (0020,0013) is the value."""

    sop_classes = (COUNTER,)

    def __init__(self):
        self.numbers = {}

    def n_create(self, asce, ctx, msg):
        uid = msg.affected_sop_instance_uid
        if uid in self.numbers:
            raise StatusError(statuses.DUPLICATE_SOP_INSTANCE)
        self.numbers[uid] = 0
        return statuses.SUCCESS

    def n_set(self, asce, ctx, msg):
        self.check(msg.requested_sop_instance_uid)
        changes = data_set_of(ctx, msg)
        if changes is None or "InstanceNumber" not in changes:
            raise StatusError(statuses.MISSING_ATTRIBUTE, "InstanceNumber")
        self.numbers[msg.requested_sop_instance_uid] = int(changes.InstanceNumber)
        return statuses.SUCCESS

    async def n_action(self, asce, ctx, msg):
        self.check(msg.requested_sop_instance_uid)
        if msg.action_type_id != 1:
            raise StatusError(statuses.NO_SUCH_ACTION_TYPE, "1 is the only action")
        self.numbers[msg.requested_sop_instance_uid] += 1
        return statuses.SUCCESS

    def n_get(self, asce, ctx, msg):
        self.check(msg.requested_sop_instance_uid)
        ds = Dataset()
        ds.InstanceNumber = self.numbers[msg.requested_sop_instance_uid]
        return statuses.SUCCESS, ds

    def check(self, uid):
        if uid not in self.numbers:
            raise StatusError(statuses.NO_SUCH_SOP_INSTANCE)


async def count(asce, uid):
    """The SCU: create a counter, increment it twice, and read it."""
    await asce.n_create(COUNTER, sop_instance=uid)
    await asce.n_action(COUNTER, uid, 1)
    await asce.n_action(COUNTER, uid, 1)
    reply = await asce.n_get(COUNTER, uid)
    return reply.data_set.InstanceNumber
