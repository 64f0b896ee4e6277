"""The peers as fixtures: made for one test, ended after it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.interop.archives import Dcmqrscp, Loaded, dcmsend
from support.interop.dcmtk import as_sent
from support.interop.peers import OUR_SCU, Orthanc, PynetdicomReceiver, PynetdicomStoreSCP, StoreSCP
from support.interop.population import UNCOMPRESSED, Population
from support.interop.samples import Sample, make_samples
from support.node import Node
from support.processes import dead_port, free_port


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    """pydicom's files that are storable instances, each with its own SOP Instance UID."""
    return make_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="session")
def dcmtk_samples(
    samples: tuple[Sample, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Sample, ...]:
    """The samples that DCMTK sends, as files in the form in which it sends them."""
    return as_sent(samples, tmp_path_factory.mktemp("dcmtk-samples"))


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Start ``twistd dicom`` with options; stopped, and its log read for tracebacks, at the end."""
    nodes: list[Node] = []

    def start(*options: str) -> Node:
        directory = tmp_path / f"node-{len(nodes)}"
        directory.mkdir()
        node = Node(directory, *options)
        nodes.append(node)
        node.start()
        return node

    with ExitStack() as stack:
        yield start
        for node in nodes:
            stack.callback(node.stop)
    for node in nodes:
        assert "Traceback" not in node.log, node.log


@pytest.fixture
def node(start_node: Callable[..., Node]) -> Node:
    """A running node with its defaults."""
    return start_node()


@pytest.fixture
def start_storescp(tmp_path: Path) -> Iterator[Callable[..., StoreSCP]]:
    """Start DCMTK's ``storescp`` with options."""
    with ExitStack() as stack:

        def start(*options: str, **environment: str) -> StoreSCP:
            directory = tmp_path / f"storescp-{len(list(tmp_path.iterdir()))}"
            scp = StoreSCP(directory, *options, **environment)
            stack.callback(scp.close)
            return scp

        yield start


@pytest.fixture
def pynetdicom_storescp(tmp_path: Path) -> Iterator[PynetdicomStoreSCP]:
    """``python -m pynetdicom storescp``."""
    scp = PynetdicomStoreSCP(tmp_path)
    yield scp
    scp.close()


@pytest.fixture
def pynetdicom_receiver(tmp_path: Path) -> Iterator[PynetdicomReceiver]:
    """A pynetdicom AE that keeps the bytes that came."""
    scp = PynetdicomReceiver(tmp_path)
    yield scp
    scp.close()


@pytest.fixture(scope="session")
def running_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One Orthanc for the session; tests use ``orthanc``."""
    peer = Orthanc(tmp_path_factory.mktemp("orthanc"), known=[OUR_SCU, "PYNETDICOM"])
    yield peer
    peer.close()


@pytest.fixture
def orthanc(running_orthanc: Orthanc) -> Orthanc:
    """An Orthanc without instances."""
    running_orthanc.clear()
    return running_orthanc


@pytest.fixture(scope="session")
def population(
    dcmtk_samples: tuple[Sample, ...], tmp_path_factory: pytest.TempPathFactory
) -> Population:
    """Some three hundred instances as files."""
    return Population(tmp_path_factory.mktemp("population"), dcmtk_samples)


@pytest.fixture(scope="session")
def loaded(
    population: Population, running_orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loaded]:
    """The node that all these tests ask; stopped, and its log read for tracebacks, at the end."""
    directory = tmp_path_factory.mktemp("loaded")
    here = free_port()
    with ExitStack() as stack:
        storescp = StoreSCP(
            directory / "storescp", "--bit-preserving", "--accept-all", TCP_NODELAY="1"
        )
        stack.callback(storescp.close)
        refusing = StoreSCP(directory / "refusing", "--refuse")
        stack.callback(refusing.close)
        destinations = {
            "STORESCP": storescp.address.port,
            "REFUSING": refusing.address.port,
            "ORTHANC": running_orthanc.address.port,
            "HERE": here,
            "DEAD": stack.enter_context(dead_port()),
        }
        options = [f"--peer={title}@127.0.0.1:{port}" for title, port in destinations.items()]
        node = Node(directory, *options)
        node.start()
        stack.callback(node.stop)
        dcmsend(node.address, population.paths.values(), "DCMSEND")
        yield Loaded(
            node=node, population=population, storescp=storescp, refusing=refusing, here=here
        )
    assert "Traceback" not in node.log, node.log


@pytest.fixture(scope="session")
def dcmqrscp(
    population: Population, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Dcmqrscp]:
    """DCMTK's archive with what it takes of the same files, from one sender."""
    peer = Dcmqrscp(tmp_path_factory.mktemp("qr"), known=["FINDSCU", "DCMSEND"])
    uncompressed = [
        path
        for label, path in population.paths.items()
        if population.transfer_syntaxes[label] in UNCOMPRESSED
    ]
    dcmsend(peer.address, uncompressed, "DCMSEND")
    yield peer
    peer.close()
