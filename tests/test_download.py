from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from emogen.data import download
from emogen.data.download import fetch_emopia
from emogen.data.sources import find
from emogen.errors import EmogenError
from tests.midi_files import dataset, zip_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home" / "data"


class _Server(http.server.BaseHTTPRequestHandler):
    """Serves one file, whole or (where ``ranges``) from where it is asked to begin."""

    content = b""
    ranges = True
    asked: list[str | None]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if wanted and self.ranges else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start:])

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Server]]:
    content = zip_of(dataset(tmp_path / "EMOPIA_2.2"), tmp_path / "served.zip", leading="EMOPIA_2.2/").read_bytes()
    handler = type("Handler", (_Server,), {"content": content, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        monkeypatch.setattr(download, "EMOPIA_URL", f"http://127.0.0.1:{listening.server_port}/EMOPIA_2.2.zip")
        monkeypatch.setattr(download, "EMOPIA_MD5", hashlib.md5(content).hexdigest())
        thread = threading.Thread(target=functools.partial(listening.serve_forever, poll_interval=0.01))
        thread.start()
        yield handler
        listening.shutdown()
        thread.join()


def test_a_download_is_checked_and_then_there(tmp_path: Path, home: Path, server: type[_Server]) -> None:
    steps: list[tuple[int, int]] = []
    path = fetch_emopia(home, lambda *step: steps.append(step))
    assert path.read_bytes() == server.content
    assert steps[-1] == (len(server.content), len(server.content))
    assert fetch_emopia(home) == path
    assert server.asked == [None]
    assert len(find(path).files) == 24


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("there", [1, 1000])
def test_a_download_cut_short_is_taken_up_again(home: Path, server: type[_Server], ranges: bool, there: int) -> None:
    server.ranges = ranges
    home.mkdir(parents=True)
    (home / "EMOPIA_2.2.zip.part").write_bytes(server.content[:there])
    steps: list[tuple[int, int]] = []
    assert fetch_emopia(home, lambda *step: steps.append(step)).read_bytes() == server.content
    assert server.asked == [f"bytes={there}-"]
    assert steps[-1] == (len(server.content), len(server.content))
    assert [path.name for path in home.iterdir()] == ["EMOPIA_2.2.zip"]


def test_a_download_that_was_whole_but_not_checked_is_not_fetched_again(home: Path, server: type[_Server]) -> None:
    home.mkdir(parents=True)
    (home / "EMOPIA_2.2.zip.part").write_bytes(server.content)
    assert fetch_emopia(home).read_bytes() == server.content


def test_a_download_with_another_checksum_is_removed(
    home: Path, server: type[_Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "EMOPIA_MD5", "0" * 32)
    with pytest.raises(EmogenError, match=r"not EMOPIA 2\.2") as caught:
        fetch_emopia(home)
    assert caught.value.hint
    assert not list(home.iterdir())


def test_a_download_without_a_network_is_a_plain_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, why in (("http://127.0.0.1:9/x.zip", "refused"), ("file:///etc/passwd", "not a web address")):
        monkeypatch.setattr(download, "EMOPIA_URL", url)
        with pytest.raises(EmogenError, match=why) as caught:
            fetch_emopia(home)
        assert "network" in caught.value.hint
