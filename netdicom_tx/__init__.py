"""netdicom_tx: DICOM networking on Twisted."""
