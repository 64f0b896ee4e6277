"""A storage service as a function: it accepts CT images only."""

from pydicom import dcmread

from netdicom_tx import StatusError, sop_classes, statuses, store_in_file
from netdicom_tx.uids import STORAGE_SOP_CLASSES


@store_in_file
@sop_classes(STORAGE_SOP_CLASSES)
def gate(asce, ctx, msg):
    header = dcmread(msg.data_set, specific_tags=["Modality"])
    if header.get("Modality") != "CT":
        raise StatusError(statuses.C_STORE_CANNOT_UNDERSTAND, "only CT, please")
    return statuses.SUCCESS
