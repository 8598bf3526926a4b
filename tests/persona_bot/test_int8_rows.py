"""What the same seed rests on: an int8 layer gives a row the same numbers alone and among others, and who is alone the same words.

Run: `python -m pytest tests/persona_bot/test_int8_rows.py`
"""

import pytest
import torch

from persona_bot.engine.backend import BatchedBackend
from persona_bot.engine.int8_linear import Int8Linear
from persona_bot.engine.llama import FastLlama
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.models import checkpoint_of

pytestmark = [
    pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="this CPU has no fast int8"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),  # the kernel that there is
]


@pytest.mark.parametrize("shape", [(96, 64), (64, 160), (500, 64)])
def test_a_row_is_the_same_in_every_company(shape):
    draw = torch.Generator().manual_seed(0)
    layer = Int8Linear(torch.randn(shape, generator=draw))
    rows = torch.randn(70, shape[1], generator=draw)
    alone = torch.cat([layer(rows[k : k + 1]) for k in range(len(rows))])
    for count in (2, 7, 16, 31, 32, 33, 64, 70):
        assert torch.equal(layer(rows[:count]), alone[:count]), count


def test_the_same_seed_gives_the_same_reply_in_int8_and_bfloat16(
    chat_model, chat_tokenizer, environmentalist
):
    weights = {name: tensor.bfloat16() for name, tensor in chat_model.state_dict().items()}

    def answers() -> list[str]:
        backend = BatchedBackend(FastLlama(chat_model.config, weights, 512, int8=True))
        model = LocalModel.with_backend(checkpoint_of(chat_model, chat_tokenizer, 512), backend)
        return [
            "".join(model.reply(environmentalist, ["hello!"], Settings(seed=seed, max_tokens=12)))
            for seed in (1, 2, 1)
        ]

    first = answers()
    assert first[0] != first[1], "the seed chooses"
    assert first == answers(), "whatever was answered before"
