import json
from pathlib import Path

import pytest
import torch

from dlmlab.decoder.pc_sampler import PCSampler
from dlmlab.errors import UserError
from tests.decoder.steps import committed, step_of


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Token 0 is half of a corpus of eight, token 2 a quarter; the others count as an eighth."""
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"num_token": 8, "count": {"0": 4, "2": 2}}))
    return str(path)


def test_a_rare_token_goes_before_a_common_one_and_an_early_position_before_a_late_one(table: str) -> None:
    step = step_of([[0.75, 0.75, None, 0.75]])._replace(token_BK=torch.tensor([[0, 2, 0, 6]]))
    assert committed(PCSampler(0.0, 10.0, table)(step)) == [[3]]
    assert committed(PCSampler(0.5, 10.0, table)(step)) == [[1]]
    assert committed(PCSampler(9.0, 10.0, table)(step)) == [[0]]
    assert committed(PCSampler(0.0, 0.25, table)(step)) == [[0]], "all are cut off at alpha"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"num_token": 0, "count": {"1": 1}}'])
def test_a_table_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    for name in (tmp_path / "bad.json", tmp_path / "none.json"):
        with pytest.raises(UserError, match="is no table of conf/frequency"):
            PCSampler(0.25, 10.0, str(name))
