r"""The lab's models and decoders as a model of lm-eval's, called `dlmlab`.

    python -m dlmlab.lm_eval run --model dlmlab --model_args path=tiny/v1,decoder=localleap,gen_length=64 \
        --tasks gsm8k --apply_chat_template --fewshot_as_multiturn false --limit 10

The arguments are lm-eval's own; lm-eval has no way to be told of a model from outside, so that the command goes through
this module. `--model_args` are settings of `python run.py`: `path` is `model.path`, `gen_length`, `block_length` and
`steps` are `generation.…`, everything else is as there (`model=llada`, `decoder.kappa=0.5`, `cache=prefix`).
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import hydra
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from dlmlab.errors import UserError
from dlmlab.generation import answer_text, decode
from dlmlab.loop.batch import Batch
from dlmlab.measure.likelihood import SAMPLES, log_likelihood
from dlmlab.paths import home
from dlmlab.run import build, conf
from dlmlab.task.base import until
from dlmlab.types import Request

SHORT = {"path": "model.path", **{key: f"generation.{key}" for key in ("gen_length", "block_length", "steps")}}
"""Shorter names that `--model_args` may use."""
CANVAS = {"gen_length": 256, "block_length": 32, "steps": 256}
"""Unless the arguments say otherwise."""
AGAIN = 2**32
"""What parts a document's draws from those for the same one asked again: more than there are documents."""


@register_model("dlmlab")
class DlmLM(LM):  # type: ignore[misc]
    """A model and a decoder of the lab's, asked by lm-eval.

    Contexts are taken as they are, so that a chat model wants `--apply_chat_template`.

    Args:
        samples: Masks for each likelihood.
        batch_size: How many canvases go through the model at once, a number or `auto`.
        device: Where the model lies; None is the config's.
        **settings: Settings of `python run.py`, some by shorter names; see the module.
    """

    def __init__(
        self, samples: int = SAMPLES, batch_size: int | str = 8, device: str | None = None, **settings: Any
    ) -> None:
        super().__init__()
        settings.pop("max_batch_size", None)
        os.environ.setdefault("DLMLAB_ROOT", str(home()))
        given = {SHORT.get(key, key): value for key, value in settings.items()} | ({"device": device} if device else {})
        with conf.composing():
            self.cfg = hydra.compose("config", overrides=[f"{key}={value}" for key, value in given.items()])
            self.rule = build.decoder(self.cfg)
        own = SimpleNamespace(name="lm_eval", **_canvas(self.cfg.generation))
        self.generation = build.generation(self.cfg, own)
        self.batch, self.samples = Batch(batch_size), samples
        self.model: Any = build.model(self.cfg)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return the answers, each cut at the first of its stops."""
        outputs = decode(self.model, self._asked(requests), self.generation, batch_size=self.batch, seed=self.cfg.seed)
        texts = {output.index: answer_text(self.model, output.tokens) or "" for output in outputs}
        return [until(texts[number], _stops(request.args[1])) for number, request in enumerate(requests)]

    def _asked(self, requests: list[Instance]) -> list[Request]:
        """The canvases to fill. What is drawn for one depends on its document, and on how often that came before."""
        asked, times = [], Counter[tuple[Any, ...]]()
        for number, request in enumerate(requests):
            document = request.task_name, request.doc_id, request.idx
            item = (number if request.doc_id is None else request.doc_id) + AGAIN * times[document]
            times[document] += 1
            ids = self._ids(request.args[0], self.generation.gen_length)
            asked.append(Request(number, ids, self.rule, item=item))
        return asked

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return LLaDA's estimate for each context and continuation; see `dlmlab.measure.likelihood`."""
        found = []
        for request in requests:
            prompt, answer = self._pair(*request.args)
            estimate = log_likelihood(
                self.model, prompt, answer, samples=self.samples, batch_size=self.batch.size, seed=self.cfg.seed
            )
            found.append((estimate.log_likelihood, estimate.greedy))
        return found

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Refuse: a masked diffusion model has no likelihood of a text without a prompt that could be compared."""
        raise UserError("loglikelihood_rolling is a perplexity, which a masked diffusion model cannot give")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the turns as the checkpoint's template writes them.

        Args:
            chat_history: The turns, each a `role` and its `content`.
            add_generation_prompt: Whether the assistant's turn is begun.
        """
        text = self.model.tokenizer.apply_chat_template(
            chat_history, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return str(text)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the checkpoint's template."""
        return self.model.tokenizer.chat_template if chat_template else ""

    @property
    def tokenizer_name(self) -> str:
        return str(self.cfg.model.path).replace("/", "__")

    def _ids(self, text: str, room: int) -> tuple[int, ...]:
        ids = tuple(self.model.tokenizer(text, add_special_tokens=False)["input_ids"])
        over = len(ids) + room - self.model.config.max_sequence_length
        if over > 0:
            raise UserError(f"a context of {len(ids)} tokens and {room} to generate are {over} more than the model's")
        return ids

    def _pair(self, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of a context and its continuation, tokenised together; a context's last blanks go over to it."""
        blanks = len(context) - len(context.rstrip())
        if blanks:
            context, continuation = context[:-blanks], context[-blanks:] + continuation
        whole, first = self._ids(context + continuation, 0), self._ids(context, 0)
        return whole[: len(first)], whole[len(first) :]


def _canvas(given: Any) -> dict[str, int]:
    """The canvas of tasks whose length is not said: CANVAS, scaled to a length that is given."""
    length = given.gen_length or CANVAS["gen_length"]
    block = given.block_length or min(CANVAS["block_length"], length)
    return {"gen_length": length, "block_length": block, "steps": given.steps or length}


def _stops(settings: dict[str, Any]) -> Sequence[str]:
    stops = settings.get("until") or []
    return [stops] if isinstance(stops, str) else stops


def main() -> int:
    """lm-eval's own command line, which knows the model `dlmlab`."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
