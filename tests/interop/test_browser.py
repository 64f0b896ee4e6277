"""The status page in a browser: Debian's Chromium, driven by Selenium."""

import re
import sqlite3
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from netdicom_tx.passwords import write_password
from support.interop.samples import quiet
from support.node import Node
from support.processes import PATIENCE, absent, dead_port, eventually, program, succeed
from support.web import ATTACK

pytestmark = [pytest.mark.interop, pytest.mark.slow]

USER, PASSWORD = "anna", "correct horse"


class Page:
    """The status page of a node in a browser.

    Attributes:
        driver: The browser.
    """

    def __init__(self, driver: Any, node: Node) -> None:
        self.driver = driver
        self.node = node
        found = re.search(r"status page at (http://\S+)/", node.log_text())
        assert found is not None
        self.address = found[1]

    def open(self, path: str) -> None:
        self.driver.get(self.address + path)

    def ask(self, script: str, *arguments: str) -> Any:
        """What a script finds in one step, because the page changes meanwhile; None while it is being loaded."""
        from selenium.common.exceptions import WebDriverException

        try:
            return self.driver.execute_script(script, *arguments)
        except WebDriverException:  # the page has just been left
            return None

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def one(self, selector: str) -> Any:
        return eventually(lambda: next(iter(self.all(selector)), None), f"an element {selector}")

    @property
    def text(self) -> str:
        """What a reader sees."""
        return str(self.ask("return document.body ? document.body.innerText : ''"))

    def shows(self, text: str) -> None:
        """Wait until a reader sees a text."""
        eventually(lambda: text in self.text, f"a page with {text!r}")

    def press(self, label: str) -> None:
        """Press a button by its name."""
        script = """
            const found = [...document.querySelectorAll("button, summary")].find(
                (each) => (each.getAttribute("aria-label") || each.innerText).trim() === arguments[0]);
            if (found) found.click();
            return Boolean(found);
        """
        # The part of the page may just be replaced; so the button is found and pressed in one step.
        eventually(lambda: self.ask(script, label), f"a button {label!r}")

    def follow(self, text: str) -> None:
        """Follow a link by its text."""
        script = """
            const found = [...document.querySelectorAll("main a")].find(
                (each) => each.innerText.trim() === arguments[0]);
            if (found) found.click();
            return Boolean(found);
        """
        eventually(lambda: self.ask(script, text), f"a link {text!r}")

    def enter(self, path: str) -> None:
        """Follow the first link of a table to a page below a path."""
        script = "return document.querySelector(`main a.whole[href^='${arguments[0]}']`)?.href"
        self.driver.get(eventually(lambda: self.ask(script, path), f"a link to {path}"))

    def fill(self, **fields: str) -> None:
        for name, text in fields.items():
            place = self.one(f'[name="{name}"]')
            place.clear()
            place.send_keys(text)

    def log_in(self, password: str = PASSWORD) -> None:
        self.open("/login")
        if self.all('[name="user"]'):
            self.fill(user=USER, password=password)
            self.press("Log in")

    def is_marked(self) -> bool:
        """Whether the page is still the one that :meth:`mark` has marked."""
        return self.driver.execute_script("return window.marked === true") is True

    def mark(self) -> None:
        self.driver.execute_script("window.marked = true")

    def complaints(self) -> list[str]:
        """What the browser has to say: errors of scripts, and what the policy has stopped."""
        return [each["message"] for each in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser without a screen."""
    if find_spec("selenium") is None:
        absent("selenium is not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium")
    profile = tmp_path_factory.mktemp("profile")
    for each in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "lang=en"):
        options.add_argument(f"--{each}")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(program("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(2 * PATIENCE)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that is called."""
    other = Node(tmp_path_factory.mktemp("peer"))
    other.start()
    yield other
    other.stop()


@pytest.fixture(scope="module")
def away() -> Iterator[int]:
    """A port at which nobody listens."""
    with dead_port() as port:
        yield port


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, peer: Node, away: int) -> Iterator[Node]:
    """A node with a status page that has one user."""
    directory = tmp_path_factory.mktemp("node")
    users = directory / "users"
    write_password(users, USER, PASSWORD)
    served = Node(
        directory,
        *("--http", "tcp:0:interface=127.0.0.1", "--http-users", str(users)),
        *("--peer", f"PEER@127.0.0.1:{peer.address.port}"),
        *("--peer", f"AWAY@127.0.0.1:{away}"),
    )
    served.start()
    yield served
    served.stop()
    assert "Traceback" not in served.log, served.log


@pytest.fixture
def page(driver: Any, node: Node) -> Iterator[Page]:
    """The page, in the hands of a user who has logged in."""
    driver.delete_all_cookies()
    driver.get_log("browser")
    visited = Page(driver, node)
    visited.log_in()
    visited.shows("Throughput")
    yield visited
    # It ends the stream of the page.
    driver.get("about:blank")


def send(node: Node, path: Path, **values: str) -> Dataset:
    """Send an image with these values by DCMTK's storescu."""
    file = path / "sent.dcm"
    with quiet():
        ds = dcmread(Path(pydicom.__file__).parent / "data/test_files/CT_small.dcm")
        ds.SpecificCharacterSet = "ISO_IR 192"
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(file)
    succeed(program("storescu"), "-aec", node.ae_title, *node.address.arguments, file)
    return ds


def an_image(number: int, **values: str) -> dict[str, str]:
    return {
        "StudyInstanceUID": f"1.2.3.{number}",
        "SeriesInstanceUID": f"1.2.3.{number}.1",
        "SOPInstanceUID": f"1.2.3.{number}.1.1",
        "PatientID": f"P{number}",
        **values,
    }


def test_wrong_credentials_are_refused(driver: Any, node: Node) -> None:
    driver.delete_all_cookies()
    page = Page(driver, node)
    page.log_in("wrong")
    page.shows("Wrong user or password.")
    page.open("/studies")
    assert page.all('[name="password"]')
    assert "/login?next=%2Fstudies" in driver.current_url
    page.fill(user=USER, password=PASSWORD)
    page.press("Log in")
    eventually(lambda: driver.current_url.endswith("/studies"), "the page that was asked for")


def test_a_study_that_arrives_appears_without_a_reload(
    page: Page, node: Node, tmp_path: Path
) -> None:
    page.open("/studies")
    page.mark()
    page.shows("Live")
    send(node, tmp_path, **an_image(1, PatientName="Arriving^Anna"))
    page.shows("Arriving, Anna")
    assert page.is_marked()
    assert page.complaints() == []


def test_the_overview_counts_without_a_reload(page: Page, node: Node, tmp_path: Path) -> None:
    page.open("/")
    page.mark()
    page.shows("Live")
    kept = "return document.querySelector('.figure:nth-child(3) .value').innerText"
    before = page.ask(kept)
    send(node, tmp_path, **an_image(2, PatientName="Counted^Carl"))
    eventually(
        lambda: int(page.ask(kept) or 0) > int(before),
        "one more instance that was kept",
    )
    assert page.is_marked()
    assert page.complaints() == []


def test_studies_are_searched_and_an_instance_shows_its_header(
    page: Page, node: Node, tmp_path: Path
) -> None:
    send(node, tmp_path, **an_image(3, PatientName="Sought^Sue", SeriesNumber="7"))
    send(node, tmp_path, **an_image(4, PatientName="Other^Otto"))
    page.open("/studies")
    page.fill(name="sought")
    page.press("Search")
    page.shows("of 1 studies")
    assert "Other, Otto" not in page.text
    page.follow("Sought, Sue")
    page.shows("Study Instance UID")
    page.follow("7")
    page.shows("1.2.3.3.1.1")
    page.follow("1")
    page.shows("Patient's Name")
    assert "Sought^Sue" in page.text
    assert page.complaints() == []


def test_a_peer_is_echoed(page: Page) -> None:
    page.open("/peers")
    page.shows("not asked yet")
    page.press("Echo PEER")
    page.shows("Success")
    assert page.complaints() == []


def test_a_peer_that_is_away_is_told(page: Page) -> None:
    page.open("/peers")
    page.press("Echo AWAY")
    page.shows("Connection was refused")


def add_dead_task(node: Node) -> int:
    connection = sqlite3.connect(node.storage / "index.db", timeout=PATIENCE)
    made = connection.execute(
        "INSERT INTO task (kind, destination, chain, payload, state, attempt, created, not_before, last_error)"
        " VALUES ('notice', 'PEER', '', '{}', 'dead', 80, ?, 0, 'no answer for days')",
        [time.time() - 86400],
    )
    connection.commit()
    connection.close()
    assert made.lastrowid is not None
    return made.lastrowid


def state_of(node: Node, task: int) -> str | None:
    connection = sqlite3.connect(node.storage / "index.db", timeout=PATIENCE)
    row = connection.execute("SELECT state FROM task WHERE id = ?", [task]).fetchone()
    connection.close()
    return None if row is None else str(row[0])


def test_a_dead_task_is_retried_and_dropped(page: Page, node: Node) -> None:
    """Nobody performs tasks of this kind, so it waits."""
    page.open("/queue")
    page.shows("Live")
    task = add_dead_task(node)
    page.shows("no answer for days")
    page.press(f"Retry task {task}")
    eventually(lambda: state_of(node, task) == "waiting", "a task that waits")
    page.shows("waiting")
    page.press(f"Drop task {task}")
    page.press("Drop for good")
    eventually(lambda: state_of(node, task) is None, "a task that is gone")
    page.shows("owes nothing")
    assert page.complaints() == []


def test_what_a_peer_has_written_does_nothing(page: Page, node: Node, tmp_path: Path) -> None:
    """Every text is a script, and is shown as text, also when it arrives while the page is open."""
    page.open("/studies")
    page.shows("Live")
    texts = dict.fromkeys(
        ("PatientName", "StudyDescription", "SeriesDescription", "Manufacturer", "PatientComments"),
        ATTACK,
    )
    short = dict.fromkeys(("AccessionNumber", "StudyID", "StationName"), "<b onclick=1>")
    send(node, tmp_path, **an_image(5, **{**texts, **short}))
    page.shows("<script>alert(1)</script>")
    page.open("/studies?name=script")
    for link in ("/studies/", "/series/", "/instances/"):
        page.shows("<script>alert(1)</script>")
        page.enter(link)
    page.shows("<script>alert(1)</script>")
    # An alert that was opened would make this fail, and so would an image that was loaded.
    assert page.complaints() == []


def test_the_page_works_without_scripts(page: Page, node: Node, tmp_path: Path) -> None:
    send(node, tmp_path, **an_image(6, PatientName="Plain^Paul"))
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.open("/studies?name=plain")
        page.follow("Plain, Paul")
        page.shows("Study Instance UID")
        page.open("/peers")
        page.press("Echo PEER")
        page.shows("Success")
        assert "Live" not in page.text
    finally:
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("width", [360, 390, 1440])
def test_a_page_is_as_wide_as_its_window(page: Page, width: int) -> None:
    """Also on a telephone, nothing has to be scrolled sideways but wide tables and the plot."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        for path in ("/", "/studies", "/worklist", "/queue", "/peers"):
            page.open(path)
            wide = page.driver.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, path
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_keyboard_is_enough(page: Page) -> None:
    """The first stop leads past the links at the top, and each stop can be seen."""
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> Any:
        actions: Any = ActionChains(page.driver)
        actions.send_keys(*keys).perform()
        return page.driver.switch_to.active_element

    page.open("/studies")
    assert press(Keys.TAB).text == "Skip to the content"
    press(Keys.ENTER)
    assert press(Keys.TAB).get_attribute("name") == "name"
    style = "return getComputedStyle(document.activeElement).outlineStyle"
    assert page.driver.execute_script(style) != "none"
    press("nobody", Keys.ENTER)
    page.shows("No study was found")
