"""What a pickle would call when it is loaded, found without loading it."""

import pickletools
import zipfile
from pathlib import Path

from voxpool.errors import ModelError

_MOST_BYTES = 64 * 10**6
# how files begin: zip, as torch saves, and pickles of protocols 2 and later
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_TEXTS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_PLAIN = ("torch.", "collections.OrderedDict", "numpy.", "_codecs.encode")


def pickle_calls(path: Path) -> list[str] | None:
    """The functions and classes that a pickle, or a checkpoint of torch, names, other than those of tensors.

    Args:
        path: Any file.

    Returns:
        Such as ["posix.system"], in order; empty for a pickle of plain tensors; None where the file is no pickle.
    """
    streams = _streams(path)
    if streams is None:
        return None
    found = [name for stream in streams for name in _named(stream)]
    return list(dict.fromkeys(name for name in found if not name.startswith(_PLAIN)))


def refuse_pickle(path: Path, *, plain_tensors: bool = False) -> None:
    """Refuse a file that runs code when it is loaded; anything that is no pickle passes.

    Args:
        path: Any file, or a folder.
        plain_tensors: Whether a pickle of nothing but tensors passes too.

    Raises:
        ModelError: If it is such a pickle.
    """
    calls = pickle_calls(path) if path.is_file() else None
    if calls is None or (plain_tensors and not calls):
        return
    code = f"calls {', '.join(calls[:3])} when it is loaded" if calls else "can hold code"
    raise ModelError(
        f"{path.name} is refused: it is a pickle, which {code}; ask for weights as model.safetensors (E501)"
    )


def _streams(path: Path) -> list[bytes] | None:
    try:
        with path.open("rb") as file:
            start = file.read(_MOST_BYTES)
        if not start.startswith(_ZIP):
            return [start] if start.startswith(_PICKLE) else None
        with zipfile.ZipFile(path) as opened:
            members = [member for member in opened.infolist() if member.filename.endswith(".pkl")]
            return [opened.open(member).read(_MOST_BYTES) for member in members] or None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError):  # damaged, of an unknown kind, encrypted
        return None


def _named(stream: bytes) -> list[str]:
    """Every `module.name` of a stream, as far as it can be read."""
    names, texts = [], [""]
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in _TEXTS:
                texts.append(str(argument))
            elif opcode.name == "GLOBAL":
                names.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":  # the two texts before it; one that is fetched from the memo is unseen
                names.append(".".join(texts[-2:]))
    except ValueError:  # the stream is cut off or damaged
        pass
    return names
