"""What the stages of the activated LoRAs have in common."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize(
    ("name", "steps"), [("arguments", "argument_steps"), ("following", "following_steps")]
)
def test_a_cut_stage_resumes_exactly(trainer, begun, name, steps):
    options = {"start": begun, "only": name, steps: 6, "save_every": 3}
    whole, cut = (trainer(out=out, **options) for out in ("whole", "cut"))
    whole.run()
    stage = getattr(cut, name)
    step = stage.train_step

    def stop():
        if stage.step == 4:
            raise KeyboardInterrupt
        return step()

    stage.train_step = stop
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    again = trainer(out="cut", **options)
    again.run(resume=True)
    for name, value in whole.generator.state_dict().items():
        assert torch.equal(value, again.generator.state_dict()[name]), name
