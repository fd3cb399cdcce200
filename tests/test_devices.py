from __future__ import annotations

import os

import pytest
import torch

from emogen.errors import EmogenError
from emogen.system.devices import (
    check_compiler,
    default_threads,
    faster_in_bf16,
    is_out_of_memory,
    most_threads,
    pick_device,
)


def only_there(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in names)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in names)


def test_compiling_on_a_cpu_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", {"clang++": "/usr/bin/clang++"}.get)
    check_compiler(torch.device("cpu"))
    monkeypatch.setattr("shutil.which", {}.get)
    check_compiler(torch.device("cuda"))
    with pytest.raises(EmogenError, match="needs a C\\+\\+ compiler"):
        check_compiler(torch.device("cpu"))


def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, picked in ((("cuda", "mps"), "cuda"), (("mps",), "mps"), ((), "cpu")):
        only_there(monkeypatch, *there)
        assert pick_device("auto") == torch.device(picked)


def test_a_device_asked_for_is_the_one_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    only_there(monkeypatch, "cuda", "mps")
    for name in ("cpu", "cuda", "mps"):
        assert pick_device(name) == torch.device(name)


def test_each_process_of_torchrun_has_a_gpu_and_a_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    only_there(monkeypatch, "cuda")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert default_threads() == 3
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert pick_device("auto") == torch.device("cuda", 2)
    assert pick_device("cpu") == torch.device("cpu")
    assert [default_threads(processes) for processes in (1, 3, 8)] == [3, 2, 1]


def test_a_device_that_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    only_there(monkeypatch)
    for name in ("cuda", "mps"):
        with pytest.raises(EmogenError, match=f"no device '{name}'") as caught:
            pick_device(name)
        assert "--device auto" in caught.value.hint


def test_no_rule_tells_whether_a_cpu_is_faster_in_bfloat16_and_mps_is_not() -> None:
    assert faster_in_bf16(torch.device("cpu")) is None
    assert faster_in_bf16(torch.device("mps")) is False


def test_a_gpu_that_only_emulates_bfloat16_is_not_faster_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def old_gpu(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", old_gpu)
    assert faster_in_bf16(torch.device("cuda")) is False
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert faster_in_bf16(torch.device("cuda")) is True


@pytest.mark.parametrize(("cores", "threads"), [(None, 1), (1, 1), (2, 1), (3, 2), (4, 3), (64, 3)])
def test_threads_leave_a_core_free_and_are_at_most_three(
    cores: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert default_threads() == threads


@pytest.mark.parametrize(("cores", "processes", "most"), [(None, 1, 1), (2, 1, 2), (64, 1, 64), (8, 3, 2), (2, 4, 1)])
def test_no_more_threads_than_cores_which_processes_share(
    cores: int | None, processes: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert most_threads(processes) == most
    assert default_threads(processes) <= most


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA: no more"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory"))
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not is_out_of_memory(caught.value)
