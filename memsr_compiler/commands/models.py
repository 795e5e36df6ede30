"""memsrc models: the networks that ship, their PSNR, cost and licence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memsr_compiler.models.catalogue import SCORES, list_models

if TYPE_CHECKING:
    from memsr_compiler.commands.interface.output import Talk
    from memsr_compiler.models.catalogue import ShippedModel

_TESTS = ("Set5", "Set14", "B100")
_COLUMNS = ("name", "enlarges", "layers", "parameters", "multiply-adds", *_TESTS, "licence")


def run(talk: Talk) -> None:
    """List the networks that ship."""
    models = list_models()
    talk.json({"models": [_plain_data(model) for model in models]})
    talk.table(
        "Networks that ship: PSNR on Y in dB; multiply-adds at a 480x270 input", _COLUMNS, list(map(_row, models))
    )
    for model in filter(lambda model: model.int8, models):
        tests = ", ".join(f"{test} {psnr:.2f}" for test, psnr in model.psnr_tflite.items())
        talk.say(f"as TFLite  {model.name}: {tests}, by LiteRT")
    talk.say(f"files      {models[0].path.parent}")
    for teacher in dict.fromkeys(model.teacher for model in models):
        talk.say(f"teacher    {teacher}")


def _plain_data(model: ShippedModel) -> dict[str, object]:
    return {
        **vars(model),
        "path": str(model.path),
        **{kind: dict(vars(model)[kind]) for kind in SCORES},
    }


def _row(model: ShippedModel) -> tuple[str, ...]:
    macs = f"{model.macs_per_pixel * 480 * 270 / 1e9:.1f} G"
    psnr = (f"{model.psnr[test]:.2f}" for test in _TESTS)
    return model.name, f"x{model.scale}", str(model.layers), f"{model.parameters:,}", macs, *psnr, model.licence
