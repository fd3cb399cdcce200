"""What hostile or damaged files are made with, for ``test_hostile`` and ``fuzz``."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emogen.model.checkpoint import WEIGHTS


def change_header(
    file: Path, change: Callable[[dict[str, Any], dict[str, Any]], None], body: bytes | None = None
) -> None:
    """Rewrite a .safetensors file whose header (its tensors, and our metadata) ``change`` has changed in place."""
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    meta = json.loads(header["__metadata__"]["emogen"])
    change(header, meta)
    header["__metadata__"]["emogen"] = json.dumps(meta)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + (raw[8 + length :] if body is None else body))


def change_meta(checkpoint: Path, body: bytes | None = None, **facts: Any) -> None:
    """Let a checkpoint say other ``facts`` of itself, or hold other weights."""
    file = checkpoint / WEIGHTS if checkpoint.is_dir() else checkpoint
    change_header(file, lambda _, meta: meta.update(facts), body)


def forget_checksums(checkpoint: Path) -> None:
    """Make a checkpoint as emogen 0.3 wrote it: what is changed in it then must be noticed otherwise."""
    change_meta(checkpoint, checksums={})
