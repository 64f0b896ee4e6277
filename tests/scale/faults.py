"""Eight senders send to a group of nodes while its parts fail, and nothing acknowledged is lost or doubled.

python -m tests.scale.faults                     20,000 instances; the object store is away for 20 s
python -m tests.scale.faults --instances 400 --away 3 --studies 6

While they send: the node that is about to report a commitment is killed; PostgreSQL crashes and comes back; the object
store refuses connections for a while; HAProxy drains a node, which is then stopped and started as an upgrade does; the
killed node comes back. In the end, every node is asked for everything. The exit status is 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from twisted.internet import defer, task
from twisted.internet.threads import deferToThread

sys.path.insert(0, str(Path(__file__).parent.parent))

from netdicom_tx.sopclass import CommitmentResult
from scale.group import Group, GroupNode, Peer, Shape
from scale.load import Counts, Instance, Plan, Sender
from scale.looking import Holding, Requestor, found_by, retrieved_from
from support.processes import free_port

T = TypeVar("T")


class Failed(Exception):
    """Something is wrong with the group."""


class Faults:
    """One run against one group."""

    def __init__(self, reactor: Any, group: Group, asked: argparse.Namespace) -> None:
        self._reactor = reactor
        self._group = group
        self._away = asked.away
        self._studies = asked.studies
        self._takeover = asked.takeover
        self._plan = Plan(asked.instances)
        self._counts = Counts()
        self._modality = Requestor("MODALITY", asked.port)
        self._dead: GroupNode | None = None
        self._asked: tuple[str, list[str], float] = ("", [], 0)
        self._began = reactor.seconds()
        self.problems: list[str] = []

    async def run(self) -> None:
        """Send while parts fail, then look."""
        faults = [self._kill_a_node, self._crash_the_database, self._drain_a_node, self._return]
        if self._group.objectstore is not None:
            faults.insert(2, self._refuse_objects)
        sending = [
            _started(
                Sender(
                    each, self._group.address, self._plan.of(each), self._counts, self._reactor
                ).run()
            )
            for each in range(1, self._plan.senders + 1)
        ]
        all_sent = defer.gatherResults(sending)
        for number, fault in enumerate(faults, 1):
            # Each fault finds the senders busy, and they have something left for the next one.
            self._counts.allowed = self._plan.instances * number // (len(faults) + 1)
            await self._until(
                lambda: len(self._counts.acknowledged) >= 0.8 * self._counts.allowed,
                "instances, so that the next fault may come",
            )
            self._counts.allowed = self._plan.instances * (number + 0.5) // (len(faults) + 1)
            await fault()
        self._counts.allowed = float("inf")
        await all_sent
        self._say(f"all is sent; what made senders try again: {self._counts.troubles}")
        await self._look()

    # -- the faults --------------------------------------------------------------------------------

    async def _kill_a_node(self) -> None:
        """kill -9 for the node that reports a commitment at this moment."""
        holding = Holding(self._modality.port)
        try:
            known = self._plan.all()
            sure = [known[uid] for uid in list(self._counts.acknowledged)[:20]]
            transaction = await self._modality.ask(self._group.address, sure)
            self._dead = await deferToThread(holding.caller, self._group.nodes)
            self._dead.kill()
        finally:
            holding.end()
        self._asked = (transaction, [each.uid for each in sure], time.monotonic())
        await self._modality.listening()
        self._say(f"{self._dead.name} was killed while it reported a commitment")
        if len(self._group.nodes) == 1:
            await deferToThread(self._dead.start)

    async def _crash_the_database(self) -> None:
        if self._group.postgresql is not None:
            await deferToThread(self._group.postgresql.stop)
            self._say("PostgreSQL has crashed")
            await task.deferLater(self._reactor, min(self._away, 3))
            await deferToThread(self._group.postgresql.start)
            self._say("PostgreSQL is back")

    async def _refuse_objects(self) -> None:
        assert self._group.objectstore is not None
        await deferToThread(self._group.objectstore.refuse)
        self._say(f"the object store refuses for {self._away:g} s")
        await task.deferLater(self._reactor, self._away)
        await deferToThread(self._group.objectstore.serve)
        self._say("the object store serves again")

    async def _drain_a_node(self) -> None:
        """As an upgrade does it: drain, stop, start, and back into the proxy."""
        proxy = self._group.proxy
        assert proxy is not None
        node = next(node for node in self._group.nodes if node.runs)
        await deferToThread(proxy.drain, node.name)
        self._say(f"HAProxy drains {node.name}")
        await task.deferLater(self._reactor, min(self._away, 5))
        status = await deferToThread(node.stop)
        if status != 0:
            self.problems.append(f"{node.name} ended with {status} after SIGTERM")
        await deferToThread(node.start)
        await deferToThread(proxy.undrain, node.name)
        await deferToThread(proxy.wait_until_up, node.name)
        self._say(f"{node.name} was stopped and started, and is back")

    async def _return(self) -> None:
        """The killed node comes back, after others have done what it was about to do."""
        assert self._dead is not None
        transaction, uids, killed = self._asked
        left = max(0.0, killed + self._takeover - time.monotonic())
        try:
            report = await self._report(transaction, within=left)
        except Failed:
            self.problems.append(
                f"nobody has reported the commitment of the killed {self._dead.name} "
                f"within {self._takeover:g} s"
            )
        else:
            waited = self._modality.came[transaction] - killed
            self._say(f"the commitment of the dead node was reported {waited:.0f} s after its end")
            if waited > self._takeover:
                self.problems.append(f"the commitment of the dead node took {waited:.0f} s")
            committed = sorted(uid for _, uid in report.committed)
            self._compare("the commitment of the dead node", committed, sorted(uids))
        if not self._dead.runs:
            states = await deferToThread(self._group.states)
            self._compare("the state of the killed node", states[self._dead.name], "dead")
            await deferToThread(self._dead.start)
        self._say(f"{self._dead.name} is back")

    # -- what is there in the end ------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask every node for everything, and compare."""
        planned = self._plan.all()
        self._compare("acknowledged", sorted(self._counts.acknowledged), sorted(planned))
        by_study: dict[str, list[Instance]] = {}
        for each in planned.values():
            by_study.setdefault(each.study, []).append(each)
        some = list(by_study)[:: max(1, len(by_study) // self._studies)]
        await self._queries(by_study, some)
        for node in self._group.nodes:
            await self._retrieves(node, by_study)
            for study in some[:3]:
                brought = await self._modality.move(node.address, study)
                self._compare(f"C-MOVE by {node.name}", brought, self._digests(by_study[study]))
        self._say("each instance was retrieved from each node")
        await self._commitments(by_study, some)
        if self._group.shape.store != "local":
            await deferToThread(self._objects, len(planned))
            states = await deferToThread(self._group.states)
            self._compare("states", states, {node.name: "alive" for node in self._group.nodes})

    def _objects(self, count: int) -> None:
        """Each row has its object, and other objects are those of stores that a fault has interrupted.

        An object comes before its row, so a crash between the two leaves one for each sender at most.
        """
        assert self._group.postgresql is not None
        engine = sa.create_engine(self._group.postgresql.url("group"))
        with engine.connect() as connection:
            rows = set(connection.scalars(sa.text("SELECT path FROM instance")))
            leaving = set(connection.scalars(sa.text("SELECT path FROM deletion")))
        engine.dispose()
        objects = set(self._group.objects())
        self._compare("number of paths in the index", len(rows), count)
        self._compare("objects that the index has and the store has not", rows - objects, set())
        left = objects - rows - leaving
        if len(left) > 4 * self._plan.senders:
            self.problems.append(f"{len(left)} objects without a row, such as {min(left)}")
        self._say(
            f"{len(objects)} objects, {len(leaving & objects)} of them to be deleted, "
            f"{len(left)} without a row"
        )

    async def _queries(self, by_study: dict[str, list[Instance]], some: list[str]) -> None:
        first: dict[str, list[tuple[str, ...]]] = {}
        for node in self._group.nodes:
            found = await found_by(node.address, some)
            first = first or found
            for what, rows in found.items():
                self._compare(
                    f"{what} by {node.name} and by {self._group.nodes[0].name}", rows, first[what]
                )
        studies = {_value(row, "StudyInstanceUID"): row for row in first["STUDY {}"]}
        self._compare("number of studies", len(first["STUDY {}"]), len(by_study))
        for study, instances in by_study.items():
            count = _value(studies.get(study, ()), "NumberOfStudyRelatedInstances")
            self._compare(f"number of instances in {study}", count, str(len(instances)))
        for study in some:
            images = [_value(row, "SOPInstanceUID") for row in first[f"IMAGE {study}"]]
            expected = sorted(each.uid for each in by_study[study])
            self._compare(f"images of {study}", sorted(images), expected)
        self._say(f"{len(first)} queries were answered in the same way by each node")

    async def _retrieves(self, node: GroupNode, by_study: dict[str, list[Instance]]) -> None:
        for study, instances in by_study.items():
            expected = self._digests(instances)
            brought = await retrieved_from(node.address, study)
            if brought.keys() < expected.keys():
                # A peer asks again when the final response counts failures; the reason is in the log of the node.
                self._say(
                    f"{node.name} has sent {len(brought)} of {len(expected)} instances of {study}"
                )
                brought = await retrieved_from(node.address, study)
            self._compare(f"C-GET of {study} from {node.name}", brought, expected)

    async def _commitments(self, by_study: dict[str, list[Instance]], some: list[str]) -> None:
        """Ask one node after another; each has what all have."""
        for number, study in enumerate(some):
            node = self._group.nodes[number % len(self._group.nodes)]
            transaction = await self._modality.ask(node.address, by_study[study])
            report = await self._report(transaction)
            self._compare(f"what {node.name} does not commit of {study}", report.failed, ())
            committed = sorted(uid for _, uid in report.committed)
            expected = sorted(each.uid for each in by_study[study])
            self._compare(f"commitment of {study} by {node.name}", committed, expected)
        self._say(f"{len(some)} studies were committed")

    async def _report(self, transaction: str, within: float = 300.0) -> CommitmentResult:
        """The report of a commitment, when it has come."""
        reports = self._modality.reports
        await self._until(lambda: transaction in reports, "commitment report", within)
        return reports[transaction][0]

    def _digests(self, instances: list[Instance]) -> dict[str, str]:
        return {each.uid: self._counts.acknowledged.get(each.uid, "") for each in instances}

    def _compare(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.problems.append(f"{what}: {found!r:.300}, expected {expected!r:.300}")

    async def _until(self, condition: Callable[[], bool], what: str, within: float = 300.0) -> None:
        end = self._reactor.seconds() + within
        while not condition():
            if self._reactor.seconds() > end:
                raise Failed(f"no {what} within {within:.0f} s; {self._figures()}")
            await task.deferLater(self._reactor, 0.05)

    def _figures(self) -> str:
        counts = self._counts
        return f"{len(counts.acknowledged)} acknowledged, tried again for {counts.troubles}"

    def _say(self, what: str) -> None:
        seconds = self._reactor.seconds() - self._began
        print(
            f"{seconds:6.1f} s  {len(self._counts.acknowledged):6d} acknowledged  {what}",
            flush=True,
        )


def _started(coroutine: Any) -> defer.Deferred[Any]:
    return defer.Deferred.fromCoroutine(coroutine)


def _value(row: tuple[str, ...], keyword: str) -> str:
    return next((each.partition("=")[2] for each in row if each.startswith(f"{keyword}=")), "")


async def _main(reactor: Any, asked: argparse.Namespace) -> None:
    shape = Shape(asked.nodes, "postgresql", asked.store)
    asked.port = free_port()
    settings: dict[str, dict[str, Any]] = {"node": {"max_associations_per_host": 100}}
    if asked.store != "local":
        settings["storage"] = {"durability": asked.durability}
    with Group(shape, [Peer("MODALITY", asked.port)], settings=settings) as group:
        print(f"{shape}: {asked.instances} instances from {Plan(1).senders} senders", flush=True)
        faults = Faults(reactor, group, asked)
        try:
            await faults.run()
        except Exception as error:
            faults.problems.append(f"{type(error).__name__}: {error}")
            if asked.verbose:
                raise
        finally:
            if faults.problems:
                for node in group.nodes:
                    print(f"--- warnings of {node.name}")
                    print("\n".join(node.warnings()[-asked.logs :]))
                    print(f"--- {node.name}")
                    print("\n".join(node.log().splitlines()[-asked.logs :]))
        for each in faults.problems[:50]:
            print(f"WRONG: {each}")
    print(f"{len(faults.problems)} problems")
    if faults.problems:
        raise SystemExit(1)


def main() -> None:
    """Run, and say what is wrong."""
    parser = argparse.ArgumentParser(description="Let a group of nodes fail while it receives.")
    parser.add_argument("--instances", type=int, default=20_000)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--store", choices=("local", "shared", "s3"), default="s3")
    parser.add_argument("--durability", choices=("shared", "node"), default="shared")
    parser.add_argument("--away", type=float, default=20, help="seconds without the object store")
    parser.add_argument(
        "--takeover",
        type=float,
        default=60,
        help="within how many seconds others finish what a dead node was about to do",
    )
    parser.add_argument("--studies", type=int, default=50, help="how many are looked at closely")
    parser.add_argument("--logs", type=int, default=40, help="lines of each node's log")
    parser.add_argument("--verbose", action="store_true", help="show the traceback of a failure")
    asked = parser.parse_args()
    task.react(lambda reactor: defer.ensureDeferred(_main(reactor, asked)))


if __name__ == "__main__":
    main()
