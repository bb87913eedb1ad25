"""Which scans the inputs of `voxpool predict` are, and what is never told of them."""

import json
import logging
import warnings
from pathlib import Path

import pydicom
import pytest

from voxpool.errors import InputError, UsageError
from voxpool_pipelines.privacy import RedactingFilter, keep_private, redact
from voxpool_pipelines.scans import Scan, list_scans, sha256_of


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_bids_data_set_gives_the_t1_images_of_its_subjects(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    one = touch(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz")
    two = touch(tmp_path / "sub-02/ses-2/anat/sub-02_ses-2_T1w.nii")
    other = touch(tmp_path / "sub-01/anat/sub-01_T2w.nii.gz")
    touch(tmp_path / "sub-01/func/sub-01_task-rest_bold.nii.gz")
    touch(tmp_path / "derivatives/tool/sub-01/anat/sub-01_desc-brain_T1w.nii.gz")
    assert list_scans([tmp_path]) == [Scan("sub-01_T1w", (one,)), Scan("sub-02_ses-2_T1w", (two,))]
    assert list_scans([tmp_path], "*_T2w.nii.gz") == [Scan("sub-01_T2w", (other,))]


def test_a_manifest_names_scans_and_their_channels(tmp_path: Path) -> None:
    manifest = tmp_path / "cases.tsv"
    manifest.write_text("id\timage\nfirst\ta.nii.gz\nsecond\tb.nii.gz; c.nii.gz\n")
    assert list_scans([manifest]) == [
        Scan("first", (tmp_path / "a.nii.gz",)),
        Scan("second", (tmp_path / "b.nii.gz", tmp_path / "c.nii.gz")),
    ]
    with pytest.raises(InputError, match="columns id, image"):
        list_scans([touch(tmp_path / "other.csv", b"name,file\na,b\n")])


def test_names_that_would_be_one_file(tmp_path: Path) -> None:
    files = [touch(tmp_path / "a/Scan.nii.gz"), touch(tmp_path / "b/scan.nii")]
    with pytest.raises(UsageError, match="would both become scan_labels"):
        list_scans(files)
    with pytest.raises(InputError, match="holds no volume"):
        list_scans([touch(tmp_path / "c/readme.txt").parent])


def test_the_checksum_is_of_every_channel(tmp_path: Path) -> None:
    one, two = touch(tmp_path / "1.nii", b"one"), touch(tmp_path / "2.nii", b"two")
    both = sha256_of(Scan("s", (one, two)))
    assert len({sha256_of(Scan("s", (one,))), both, sha256_of(Scan("s", (two, one)))}) == 3
    two.write_bytes(b"other")
    assert sha256_of(Scan("s", (one, two))) != both
    with pytest.raises(InputError, match="no such file"):
        sha256_of(Scan("s", (tmp_path / "3.nii",)))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/data/ward 7/x.nii.gz: is empty", "x.nii.gz: is empty"),
        ("cannot open /home/doe/scans/x.nii.gz (13)", "cannot open x.nii.gz (13)"),
        (r"cannot open C:\Users\doe\x.nii.gz", "cannot open x.nii.gz"),
        ("PatientName: 'Doe, Jane' was kept", "PatientName: [removed] was kept"),
        ("StudyInstanceUID=1.2.840.1 twice", "StudyInstanceUID=[removed] twice"),
        ("found Doe^Jane^M in it", "found [removed] in it"),
        ('The string "Jane_Doe" is unlikely', "The string [removed] is unlikely"),
        ("Invalid value for VR UI: 'DOE 123'", "Invalid value for VR UI: [removed]"),
        ("scan.nii.gz: 0.5 mm and 1/2 of it; see https://x.org/a/b.", "scan.nii.gz: 0.5 mm and 1/2 of it; see https://x.org/a/b."),
    ],
)  # fmt: skip
def test_what_can_name_somebody_is_removed(text: str, wanted: str) -> None:
    # the folder of a relative name is "."
    assert redact(text, known=[Path("/data/ward 7/x.nii.gz"), Path("scan.nii.gz"), Path()]) == wanted


def test_warnings_and_logs_of_libraries_go_through_the_filter(capsys: pytest.CaptureFixture[str]) -> None:
    root, before = logging.getLogger(), (logging.getLogger().handlers, warnings.formatwarning)
    try:
        with warnings.catch_warnings():
            keep_private()
            warnings.simplefilter("always")
            pydicom.valuerep.validate_value("DA", "born 19620401", pydicom.config.WARN)
            logging.getLogger("some.library").warning("read %s", "/home/doe/x.dcm")
        shown = capsys.readouterr().err
    finally:
        logging.captureWarnings(False)
        root.handlers, warnings.formatwarning = before
    assert "19620401" not in shown
    assert "Invalid value for VR DA" in shown
    assert "some.library: read x.dcm" in shown


def test_of_an_exception_only_its_kind_stays() -> None:
    try:
        raise ValueError("Doe^Jane")
    except ValueError as error:
        told = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "failed", (), told)
    assert RedactingFilter().filter(record)
    assert logging.Formatter().format(record) == "failed (ValueError)"
