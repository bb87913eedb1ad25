"""Nothing of a patient in what is printed or written beside results: names of files, no folders, no header texts."""

import logging
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

_REMOVED = "[removed]"
# an absolute path with a folder in it; only its last part says which file is meant
_PATH = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:)?(?:[/\\][^/\\\s:;,'\"<>|]+)+[/\\](?P<name>[^/\\\s:;,'\"<>|]+)")
# fields of DICOM and NIfTI headers that can tell who somebody is, as libraries print them
_FIELDS = re.compile(
    r"\b(?P<field>Patient\w*|Patient's [A-Z][\w ]*?|Other ?Patient ?\w*|Referring ?Physician\w*|Institution\w*|"
    r"Accession ?Number|Study ?(?:ID|Description)|(?:Study|Series|SOP) ?Instance ?UID|descrip|aux_file|db_name|"
    r"intent_name)(?P<mark>['\"]?\s*[:=]\s*)(?P<value>'[^'\n]*'|\"[^\"\n]*\"|[^\s,;\n]+)"
)
# pydicom and highdicom quote the value that they complain about
_VALUES = re.compile(r"(?P<what>(?:[Vv]alue|[Ss]tring)\b[^'\"\n]{0,40})(?P<quote>['\"]).*?(?P=quote)")
# names as DICOM writes them: family^given
_NAMES = re.compile(r"\b[^\W\d_]+\^[^\W\d_]+(?:\^[^\W\d_]*)*")


def redact(text: str, *, known: Iterable[Path] = ()) -> str:
    """A text without what can tell who somebody is: folders of paths, persons, identifiers of studies.

    The names of files stay: they are what results are called.

    Args:
        text: What is to be shown or written.
        known: Paths that may be in it, whatever characters they have; each is replaced by its last part.
    """
    for path in known:
        if str(path) != path.name and path.name:  # "." and "/" would match everywhere
            text = text.replace(str(path), path.name)
    text = _FIELDS.sub(rf"\g<field>\g<mark>{_REMOVED}", text)
    text = _VALUES.sub(rf"\g<what>{_REMOVED}", text)
    text = _NAMES.sub(_REMOVED, text)
    return _PATH.sub(r"\g<name>", text)


class RedactingFilter(logging.Filter):
    """Lets every record of a log through, redacted."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the record's message by its redacted form; of an exception only its kind stays."""
        record.msg, record.args = redact(record.getMessage()), ()
        if record.exc_info and record.exc_info[0] is not None:
            record.msg += f" ({record.exc_info[0].__name__})"
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def keep_private() -> None:
    """Send what libraries log, and their warnings, through a `RedactingFilter` to standard error."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.addFilter(RedactingFilter())
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    logging.captureWarnings(True)
    # in one line, without the line of source that Python adds
    warnings.formatwarning = lambda message, category, *_, **__: f"{category.__name__}: {message}"
