"""A model without weights: exact, quick, and of another mind at every change of its canvas."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import Tensor

from dlmlab.denoiser import Query
from dlmlab.policy import KEPT

VOCABULARY, MASK, EOS, EOT = 23, 22, 21, 20
TABLE = 997


@dataclass
class FakeModel:
    """Logits are looked up by a hash of a row's tokens, so that nothing but those tokens can change them.

    favourite: a token that is the likeliest everywhere. fixed: logits for every place, whatever the canvas holds.
    canvases: how many went through the model.
    """

    favourite: int | None = None
    fixed: list[float] | None = None
    sharpness: float = 3.0
    canvases: int = 0
    batches: list[int] = field(default_factory=list)
    tokenizer: object = None
    end_token_ids: tuple[int, ...] = (EOS, EOT)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    fused: bool = False
    keeps: frozenset[str] = frozenset(KEPT)
    config: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(
            mask_token_id=MASK,
            eos_token_id=EOS,
            pad_token_id=EOS,
            max_sequence_length=64,
            vocab_size=VOCABULARY,
            padded_vocab_size=VOCABULARY,
        )
    )

    def __post_init__(self) -> None:
        self.table = torch.randn(TABLE, VOCABULARY, generator=torch.Generator().manual_seed(0)) * self.sharpness
        if self.fixed is not None:
            self.table[:] = torch.tensor(self.fixed)
        if self.favourite is not None:
            self.table[:, self.favourite] += 50.0

    @property
    def packs_rows(self) -> bool:
        return self.fused

    @property
    def greedy_kernel(self) -> bool:
        return self.fused

    @property
    def works_ahead(self) -> bool:
        return self.fused

    @property
    def lays_out(self) -> bool:
        return True

    def hidden(self, query: Query) -> Tensor:
        input_ids_BL, attention_mask_BL, where_N = query[:3]
        self.canvases += len(input_ids_BL)
        self.batches.append(len(input_ids_BL))
        real_BL = torch.ones_like(input_ids_BL) if attention_mask_BL is None else attention_mask_BL.long()
        place_BL = real_BL.cumsum(-1)  # from 1, whichever side the padding is on
        if query.layout is not None:
            place_BL = query.layout.position_BL + 1
        context = (input_ids_BL * place_BL * (place_BL + 31) * real_BL).sum(-1, keepdim=True)
        if query.layout is not None:  # each token sees what it sees
            value_BL = input_ids_BL * place_BL * (place_BL + 31)
            context = (value_BL[:, None] * query.layout.seen_BLL).sum(-1)
        hidden_BLD = self.table[(context * 17 + place_BL * 101) % TABLE]
        return hidden_BLD if where_N is None else hidden_BLD.flatten(0, 1)[where_N]

    def ready(self, query: Query) -> ReadyFake:
        return ReadyFake(self, query)

    def hidden_and_attention(self, query: Query, position_BK: Tensor, layers: float) -> tuple[Tensor, Tensor]:
        """A position attends by its token and place and the other's, whatever else is on the canvas."""
        length = query.tokens_BL.shape[1]
        token_BK, place_BK = query.tokens_BL.flatten()[position_BK], position_BK % length
        mark_BK = token_BK * 7 + place_BK
        scores_BKK = self.table[(mark_BK[:, :, None] * 5 + mark_BK[:, None] * round(10 * layers)) % TABLE, 0]
        return self.hidden(query), scores_BKK.softmax(-1)

    def head(self, hidden_ND: Tensor) -> Tensor:
        return hidden_ND

    def __call__(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> SimpleNamespace:
        return SimpleNamespace(logits=self.hidden(Query(input_ids, attention_mask)).clone())


@dataclass
class ReadyFake:
    """A pass that is ready, which begins once, before it is asked."""

    model: FakeModel
    query: Query
    begun: bool = False

    def begin(self) -> None:
        assert not self.begun
        self.begun = True

    def hidden(self, wanted_N: Tensor) -> Tensor:
        assert self.begun
        return self.model.hidden(self.query._replace(wanted_N=wanted_N))


OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 11.76 GiB of which 12.31 MiB is "
    "free. Including non-PyTorch memory, this process has 11.74 GiB memory in use."
)


@dataclass
class SmallDevice(FakeModel):
    """A fake model on a device that has room for so many canvases; it runs out as late in a forward pass as it can.

    seconds: what its clock says, on which a canvas takes 1 s and a pass never less than `least`.
    """

    room: int = 4
    least: float = 0.0
    seconds: float = 0.0

    def hidden(self, query: Query) -> Tensor:
        hidden_ND = super().hidden(query)
        self.seconds += max(self.least, len(query.tokens_BL))
        self._end = hidden_ND[-1].data_ptr()
        return hidden_ND

    def head(self, hidden_ND: Tensor) -> Tensor:
        if self.batches[-1] > self.room and hidden_ND[-1].data_ptr() == self._end:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)
        return hidden_ND
