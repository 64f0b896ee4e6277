"""UIDs against the registry of PS3.6 Annex A, collected apart from pydicom's."""

import csv
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from netdicom_tx import _registry, uids
from netdicom_tx.negotiation import MAXIMUM_CONTEXTS
from netdicom_tx.uids import as_tuple, is_rare, is_uid_like, is_valid_uid, name, rarity
from support import uid_registry


def table(file_name: str) -> dict[str, dict[str, str]]:
    with (Path(__file__).parent / "standard" / file_name).open(newline="") as file:
        return {row["uid"]: row for row in csv.DictReader(file)}


REGISTERED = table("sop_classes.csv")
SYNTAXES = table("transfer_syntaxes.csv")
STORAGE = {
    uid: row
    for uid, row in REGISTERED.items()
    if row["service_class"] in ("Storage", "Non-Patient Object Storage")
    and row["type"] == "SOP Class"
}
PAPYRUS = "1.2.840.10008.1.20"


def test_the_storage_sop_classes_are_the_registrys():
    """PS3.4 B.5, B.6 and GG.3: every one, and nothing of another service class."""
    assert len(STORAGE) == 210
    assert set(uids.STORAGE_SOP_CLASSES) == set(STORAGE)
    assert len(set(uids.STORAGE_SOP_CLASSES)) == len(uids.STORAGE_SOP_CLASSES)


def test_the_current_storage_sop_classes_come_before_the_retired():
    """Where not all find room in 128 contexts, the retired give way."""
    retired = [STORAGE[uid]["retired"] == "yes" for uid in uids.STORAGE_SOP_CLASSES]
    assert retired == sorted(retired)


#: CT, MR, US, SC, CR, DX, MG, XA, NM, PET, Enhanced SR, dose report, RT image, dose, structure set
#: and plan, presentation state, key objects, PDF, segmentation, 12-lead ECG.
EVERYWHERE = "2 4 6.1 7 1 1.1 1.2 12.1 20 128 88.22 88.67 481.1 481.2 481.3 481.5 11.1 88.59 104.1 66.4 9.1.1"


def test_what_every_site_has_finds_room_in_one_association():
    """PS3.8 9.3.2.2: 128 contexts; the ancestor proposed all, and could not encode its request."""
    preferred = sorted(uids.STORAGE_SOP_CLASSES, key=rarity)[: MAXIMUM_CONTEXTS - 3]
    assert {f"1.2.840.10008.5.1.4.1.1.{part}" for part in EVERYWHERE.split()} <= set(preferred)
    assert not [uid for uid in preferred if STORAGE[uid]["retired"] == "yes"]


@pytest.mark.parametrize(
    ("uid", "rare"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", False),  # CT Image
        ("1.2.840.10008.5.1.4.1.1.88.67", False),  # X-Ray Radiation Dose SR
        ("1.2.840.10008.5.1.4.1.1.481.5", False),  # RT Plan
        ("1.2.840.10008.5.1.4.1.1.104.1", False),  # Encapsulated PDF
        ("1.2.840.10008.5.1.4.1.1.6", True),  # Ultrasound Image (retired)
        ("1.2.840.10008.5.1.4.39.1", True),  # Color Palette
        ("1.2.3.4", True),  # not registered
    ],
)
def test_what_every_site_has_is_not_rare(uid, rare):
    """Images, reports, plans and documents before what few devices make."""
    assert is_rare(uid) is rare
    assert (rarity(uid) > rarity(uids.DermoscopicPhotographyImageStorage)) is rare


@pytest.mark.parametrize("row", (REGISTERED | SYNTAXES).values(), ids=lambda row: row["uid"])
def test_a_registered_uid_is_a_constant_by_its_keyword(row):
    """PS3.6 Table A-1: users write uids.CTImageStorage; two retired classes have no keyword."""
    if row["keyword"]:
        assert getattr(uids, row["keyword"]) == row["uid"]
        assert row["keyword"] in uids.__all__
    else:
        assert row["retired"] == "yes"
    assert _registry.REGISTRY[row["uid"]][1] == row.get("type", "Transfer Syntax")
    assert _registry.REGISTRY[row["uid"]][2] is (row["retired"] == "yes")


def test_there_are_no_constants_beside_the_registrys():
    """Each is a row of Table A-1, and no keyword hides another name of the module."""
    keywords = {row["keyword"] for row in (REGISTERED | SYNTAXES).values()} - {""}
    assert set(_registry.__all__) == keywords
    assert len(uids.__all__) == len(set(uids.__all__))


def test_the_constants_are_what_the_generator_makes_from_pydicom():
    """A newer pydicom may know more; what is here must stay what it calls by that keyword."""
    source = Path(_registry.__file__).read_text("utf-8")
    if f"pydicom {pydicom.__version__}\n" in source:
        assert source == "".join(uid_registry.module())
    for row in uid_registry.pydicoms().values():
        if row.uid in _registry.REGISTRY and row.keyword:
            assert getattr(_registry, row.keyword) == row.uid


CONSTANTS = [each for each in uids.__all__ if each.endswith(("_SOP_CLASS", "_SOP_INSTANCE"))]


@pytest.mark.parametrize("constant", CONSTANTS)
def test_a_constant_is_what_the_registry_calls_by_its_name(constant):
    """PS3.6 Table A-1: each word of the constant stands in the registered name."""
    row = REGISTERED[getattr(uids, constant)]
    *words, _, kind = constant.split("_")
    assert all(word.lower() in row["name"].lower() for word in words)
    assert row["type"] == {"CLASS": "SOP Class", "INSTANCE": "Well-known SOP Instance"}[kind]


def test_the_application_context_is_dicoms():
    """PS3.7 A.2.1: there is one."""
    (row,) = (row for row in REGISTERED.values() if row["type"] == "Application Context Name")
    assert row["uid"] == uids.APPLICATION_CONTEXT_NAME


@pytest.mark.parametrize("operation", ["FIND", "MOVE", "GET"])
def test_the_query_retrieve_groups_are_complete(operation):
    """PS3.4 C.6: patient root, study root, patient/study only; the ancestor forgot the last."""
    group = getattr(uids, f"{operation}_SOP_CLASSES")
    expected = {
        uid
        for uid, row in REGISTERED.items()
        if row["service_class"] == "Query/Retrieve"
        and uid.startswith(("1.2.840.10008.5.1.4.1.2.1", "1.2.840.10008.5.1.4.1.2.2"))
        | uid.startswith("1.2.840.10008.5.1.4.1.2.3.")
        and row["name"].endswith(operation)
    }
    assert set(group) >= expected
    assert len(group) == 3


def test_every_transfer_syntax_of_the_registry_is_there():
    """PS3.6 Table A-1: whatever is stored is kept as it came, so each must be acceptable."""
    assert set(uids.ALL_TRANSFER_SYNTAXES) == set(SYNTAXES)
    assert len(uids.ALL_TRANSFER_SYNTAXES) == len(SYNTAXES)


@pytest.mark.parametrize("uid", SYNTAXES)
def test_a_transfer_syntax_is_compressed_where_pydicom_says_so(uid):
    """PS3.5 A.4: all but the four native encodings, and one of a retired vendor format."""
    theirs = UID(uid)
    # What is newer than pydicom is a compression of pixels.
    compressed = theirs.is_compressed if theirs.is_transfer_syntax else True
    assert (uid in uids.COMPRESSED_TRANSFER_SYNTAXES) == (compressed and uid != PAPYRUS)


@pytest.mark.parametrize("uid", SYNTAXES)
def test_a_transfer_syntax_is_deflated_where_its_name_says_so(uid):
    """PS3.5 A.5 and A.7; deflated image frames (A.4) are a compression of pixels alone."""
    deflates = "eflate" in SYNTAXES[uid]["name"] and "Frame" not in SYNTAXES[uid]["name"]
    assert (uid in uids.DEFLATED_TRANSFER_SYNTAXES) == deflates


def test_the_default_transfer_syntaxes_are_the_uncompressed_little_endian_ones():
    """PS3.5 10.1: implicit VR is the default of DICOM; explicit keeps the VR of private elements."""
    assert uids.DEFAULT_TRANSFER_SYNTAXES == ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
    names = [SYNTAXES[uid]["keyword"] for uid in uids.DEFAULT_TRANSFER_SYNTAXES]
    assert names == ["ExplicitVRLittleEndian", "ImplicitVRLittleEndian"]
    assert SYNTAXES[uids.EXPLICIT_VR_BIG_ENDIAN]["keyword"] == "ExplicitVRBigEndian"
    assert (
        SYNTAXES[uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN]["keyword"]
        == "DeflatedExplicitVRLittleEndian"
    )


def test_this_implementation_has_a_name():
    """PS3.7 D.3.3.2: a UID, and 1 to 16 characters of ISO 646."""
    assert is_valid_uid(uids.IMPLEMENTATION_CLASS_UID)
    assert 0 < len(uids.IMPLEMENTATION_VERSION_NAME) <= 16
    assert uids.IMPLEMENTATION_VERSION_NAME.isascii()


@pytest.mark.parametrize(
    ("uid", "valid", "like"),
    [
        ("1.2.840.10008.1.1", True, True),
        ("0.0", True, True),
        ("1", True, True),
        ("1." + "2" * 62, True, True),
        ("1." + "2" * 63, False, False),
        ("", False, False),
        (".", False, True),
        ("1.", False, True),
        (".1", False, True),
        ("1..2", False, True),
        ("1.02", False, True),
        ("00", False, True),
        ("1.2\n", False, False),
        ("1.2 ", False, False),
        ("1.2\0", False, False),
        ("1.2.a", False, False),
        ("../../etc/x", False, False),
        ("/abs", False, False),
        ("1.\u0663", False, False),
        ("-1", False, False),
    ],
)
def test_a_uid_is_digits_and_dots_without_leading_zeros(uid, valid, like):
    """PS3.5 9.1; some devices send leading zeros, and their images are worth keeping."""
    assert is_valid_uid(uid) is valid
    assert is_uid_like(uid) is like


@given(st.text("0123456789.", max_size=70) | st.text("01.a\n", max_size=6))
def test_a_uid_is_valid_where_pydicom_says_so(text):
    """A second reading of PS3.5 9.1."""
    theirs = UID(text, validation_mode=0).is_valid
    # pydicom strips line breaks, or lets them pass.
    assert is_valid_uid(text) == (theirs and "\n" not in text)


@pytest.mark.parametrize("row", (REGISTERED | SYNTAXES).values(), ids=lambda row: row["uid"])
def test_a_registered_uid_is_valid_and_has_its_name(row):
    """PS3.6 Tables A-1; pydicom does not know the newest, and some retired ones have no name."""
    uid, registered = row["uid"], row["name"].lower()
    assert is_valid_uid(uid)
    assert name(uid)
    if name(uid) != uid:
        assert name(uid).lower().partition(" (")[0] in registered.replace("\N{EN DASH}", "-")
    else:
        assert registered.startswith("(no name") or not UID(uid).is_transfer_syntax


@pytest.mark.parametrize(
    "value",
    [
        [uids.CTImageStorage, "1.2.3"],
        (uids.CTImageStorage, "1.2.3"),
        {uids.CTImageStorage: 1, "1.2.3": 2},
        (UID(each) for each in (uids.CTImageStorage, "1.2.3")),
    ],
    ids=["list", "tuple", "dict", "generator of pydicom's UIDs"],
)
def test_a_list_argument_is_any_iterable_of_uids(value):
    """In its own order, because order is preference."""
    assert as_tuple("sop_classes", value) == (uids.CTImageStorage, "1.2.3")


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("1.2.3", TypeError, "not '1.2.3'"),
        (UID("1.2.3"), TypeError, "not '1.2.3'"),
        (b"1.2.3", TypeError, "not b'1.2.3'"),
        (None, TypeError, "not None"),
        (7, TypeError, "not 7"),
        ([uids.CTImageStorage, 7], TypeError, "holds 7"),
        ([["1.2.3"]], TypeError, r"holds \['1.2.3'\]"),
        (["CTImageStorage"], ValueError, "holds 'CTImageStorage', which is not a UID"),
        ([""], ValueError, "holds '', which is not a UID"),
        (["*"], ValueError, r"holds '\*', which is not a UID"),
    ],
)
def test_a_string_where_a_list_of_uids_belongs_is_an_error(value, error, words):
    """It would become a list of its characters, and its services would never be found."""
    with pytest.raises(error, match=f"^transfer_syntaxes .*{words}"):
        as_tuple("transfer_syntaxes", value)


def test_a_word_may_stand_beside_the_uids():
    """Services register for every SOP class that no other service has."""
    assert as_tuple("sop_classes", ["1.2.3", "*"], besides="*") == ("1.2.3", "*")
    with pytest.raises(ValueError, match="holds '', which"):
        as_tuple("sop_classes", [""], besides="")


def test_a_uid_without_a_name_is_its_own_name():
    """A private class in a log line."""
    assert name("1.2.3.4") == "1.2.3.4"
    assert name(uids.VERIFICATION_SOP_CLASS) == "Verification SOP Class"


def test_the_module_names_what_it_offers():
    """A name in ``__all__`` that does not exist breaks every star import."""
    assert all(hasattr(uids, each) for each in uids.__all__)
