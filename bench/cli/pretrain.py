"""`bench pretrain`: make the tiny weights of the embedded default anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.output import tell
from bench.cli.progress import progress
from bench.errors import UserError


def pretrain(
    family: Annotated[str, typer.Argument(help="Family whose tiny backbone is pretrained: vit, clip or swin.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights and their card.")] = Path(),
    steps: Annotated[int | None, typer.Option(help="Steps. [default: the family's]", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of the weights' start and of the stills.", min=0, max=2**31 - 1)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    processes: Annotated[
        int, typer.Option(help="Processes that draw stills beside the training one.", min=0, max=64)
    ] = 1,
) -> None:
    """Pretrain a family's tiny backbone on rendered stills: no video, no label of a motion.

    Writes FAMILY_tiny.safetensors and FAMILY_tiny.json, the card. `bench run --backbones vit:tiny@FILE` takes the file;
    the ones that `@bundled` loads were made with this recipe.
    """
    from backbones.families import FAMILIES
    from backbones.registry import UnknownName
    from bench.files import why_not_writable
    from bench.measure.placement import place

    problems = []
    try:
        FAMILIES.get(family)
    except UnknownName as error:
        problems.append(str(error))
    if not out.is_dir():
        problems.append(f"out is {str(out)!r}: there is no such folder")
    elif obstacle := why_not_writable(out):
        problems.append(f"out is {str(out)!r}: cannot be written ({obstacle})")
    try:
        placement = place(device, "fp32")
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    _pretrain(family, out, steps, seed, placement.torch_name, processes)


def _pretrain(family: str, out: Path, steps: int | None, seed: int, device_text: str, processes: int) -> None:
    import torch

    from bench.files import reason
    from bench.pretrain.card import write
    from bench.pretrain.train import pretrain as train
    from bench.pretrain.train import recipe_for

    device = torch.device(device_text)
    torch.set_num_threads(1)  # the order of sums, and so the result, must not depend on the number of cores
    with progress() as show:
        recipe = recipe_for(family, steps, seed)
        show(f"pretraining {family}:tiny", 0, recipe.steps)

        def shown(step: int, total: int, loss: float, speed: float) -> None:
            show(f"pretraining {family}:tiny", step, total, f"loss {loss:.3f}, {speed:.0f} stills/s")

        found = train(family, recipe, device, shown, processes)
        show("probing")
        try:
            written = write(family, found, device, out)
        except OSError as error:
            raise UserError([f"out is {str(out)!r}: cannot be written ({reason(error)})"]) from error
    for file in written:
        tell(str(file))
