import pytest

from lightning_recipes.layers import boxes


@pytest.fixture(params=["indexed", "sliced"])
def way(request, monkeypatch):
    """Both ways of making the same: the size of the images chooses one."""
    monkeypatch.setattr(boxes, "_LARGE", 1 if request.param == "sliced" else 10**9)
