"""The download of EMOPIA from its authors' record."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from emogen.errors import EmogenError

EMOPIA_URL = "https://zenodo.org/record/5257995/files/EMOPIA_2.2.zip"
EMOPIA_MD5 = "bad5171786a4898f37fc2678e99afd94"
EMOPIA_LICENCE = "EMOPIA (Hung et al., ISMIR 2021) is licensed CC BY-NC-SA 4.0 by its authors: non-commercial use only"


def fetch_emopia(folder: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """The archive of EMOPIA 2.2 in ``folder``, downloaded unless it is there; an interrupted download is resumed.

    ``progress`` is called with the number of bytes downloaded and of all bytes (0 if unknown).

    Raises:
        EmogenError: no network, or an archive whose checksum is not EMOPIA's (it is removed).
    """
    whole = folder / "EMOPIA_2.2.zip"
    if whole.exists():
        return whole
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "EMOPIA_2.2.zip.part"
    try:
        _download(EMOPIA_URL, part, progress or (lambda done, total: None))
    except (OSError, ValueError) as error:  # URLError and timeouts are OSErrors
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        hint = "check the network and try again: the download resumes where it stopped"
        raise EmogenError(f"EMOPIA could not be downloaded from {EMOPIA_URL} ({reason})", hint) from None
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != EMOPIA_MD5:
        part.unlink()
        hint = "try again; if that does not help, download it by hand and run: emogen prepare EMOPIA_2.2.zip"
        raise EmogenError(f"the download is not EMOPIA 2.2 (md5 {digest} instead of {EMOPIA_MD5}); removed", hint)
    part.replace(whole)
    return whole


def _download(url: str, part: Path, progress: Callable[[int, int], None]) -> None:
    """Fetch the rest of ``part``; from the start if the server does not support ranges."""
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"not a web address: {url}")
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310 - checked above
    try:
        response = urllib.request.urlopen(request, timeout=30)  # noqa: S310 - checked above
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to fetch; the checksum tells whether it is right
            return
        raise
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        done = done if response.status == 206 else 0
        total = done + int(response.headers.get("Content-Length") or 0)
        while block := response.read(1 << 18):
            file.write(block)
            done += len(block)
            progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    if done < total:
        raise OSError("the connection ended early")
