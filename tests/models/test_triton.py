from __future__ import annotations

import sys

import pytest

from napari_sadp.models import _triton


class _Maps:
    """Stands for /proc/self/maps."""

    def __init__(self, text: str | None) -> None:
        self._text = text

    def __call__(self, _: str) -> _Maps:
        return self

    def exists(self) -> bool:
        return self._text is not None

    def read_text(self, **_: str) -> str:
        return self._text or ""


@pytest.mark.parametrize(
    ("maps", "loaded", "kept_out"),
    [
        ("7f00 /usr/lib/libLLVM-15.so.1", False, True),
        ("7f00 /usr/lib/libGL.so.1", False, False),
        ("7f00 /usr/lib/libLLVM-15.so.1", True, False),
        (None, False, False),
    ],
)
def test_triton_is_kept_out_of_a_process_with_the_llvm_of_mesa(monkeypatch, maps, loaded, kept_out):
    monkeypatch.setattr(_triton, "Path", _Maps(maps))
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    if loaded:
        monkeypatch.setitem(sys.modules, "triton", sys)
    assert _triton.keep_triton_out() is kept_out
    assert ("triton" in sys.modules) is (kept_out or loaded)
    if kept_out:
        with pytest.raises(ImportError):
            import triton  # noqa: F401
        del sys.modules["triton"]
