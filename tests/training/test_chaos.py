"""Killed at random moments, a run still arrives where an undisturbed one does."""

import pytest

from benchmarks import chaos


@pytest.mark.slow
def test_kills_change_no_bit(tmp_path):
    result = chaos.run(tmp_path, kills=3, seed=0, motion_steps=1000)  # motion compiles quickly
    assert result["kills"] == dict.fromkeys(chaos.KINDS, 1)
    assert result["compared"] >= 8  # two kills came after a checkpoint of their own
    assert result["arrays"] > 100 and result["different"] == []
