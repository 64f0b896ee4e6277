"""An AE whose hooks name the public class of an association, as a program writes them; mypy reads this."""

from __future__ import annotations

from typing import BinaryIO

from netdicom_tx import AE, Association
from netdicom_tx.dimsemessages import Request
from netdicom_tx.negotiation import PContextDef
from netdicom_tx.pdu import AAssociateRQ
from netdicom_tx.summary import AssociationSummary

__all__ = ["Porter"]


class Porter(AE):
    """Notes who comes and goes."""

    def __init__(self, ae_title: str) -> None:
        super().__init__(ae_title)
        self.seen: list[str] = []

    def on_association_begun(self, asce: Association) -> None:
        self.seen.append("begun")

    def on_association_request(self, asce: Association, assoc: AAssociateRQ) -> None:
        self.seen.append(f"request of {asce.calling_ae_title} to {asce.ae.ae_title}")

    async def on_association_accepted(self, asce: Association) -> None:
        self.seen.append(f"accepted, {len(asce.ae.associations)} open")

    def on_association_ended(self, asce: Association, summary: AssociationSummary) -> None:
        self.seen.append(f"ended, performed {sum(summary.performed.values())}")

    def get_file(
        self, asce: Association, context: PContextDef, command_set: Request
    ) -> tuple[BinaryIO, int]:
        self.seen.append("file")
        return super().get_file(asce, context, command_set)
