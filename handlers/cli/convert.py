"""The command `fount convert`: checkpoints to safetensors. Torch is imported only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from handlers.cli.options import FILE, option

if TYPE_CHECKING:
    from handlers.packaging.convert import Conversion

__all__ = ["convert"]

_MAX_NAMED = 10


@click.command()
@click.argument("checkpoint", metavar="CHECKPOINT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@option("--out", type=FILE, required=True, help="The safetensors file to write.")
@option("--key", help="Path of the weights in the checkpoint, like models.generator.  [default: the only ones]")
@option("--strip-prefix", "prefix", help="Write only names that start with this prefix, without it.")
@option("--force", is_flag=True, help="Replace an existing file.")
def convert(checkpoint: Path, out: Path, key: str | None, prefix: str | None, force: bool) -> None:
    """Convert a checkpoint of torch.save to safetensors weights for a card.

    Only tensors and plain values are read, so no code of the file runs. Objects next to the weights, like arguments and
    NumPy scalars, are dropped and listed; a checkpoint whose weights are in objects is refused. Prefixes that
    DataParallel and torch.compile add to names are removed.

    \b
    Example:
      fount convert generator.pt --out model_store/my-gan/weights.safetensors
      fount convert last.ckpt --key state_dict --strip-prefix generator. --out weights.safetensors
    """  # noqa: D301 - \b makes click keep the lines
    from handlers.packaging.convert import ConvertError
    from handlers.packaging.convert import convert as convert_checkpoint

    try:
        conversion = convert_checkpoint(checkpoint, out, key=key, prefix=prefix, force=force)
    except ConvertError as error:
        raise click.ClickException(str(error)) from error
    click.echo("\n".join(_to_lines(out, conversion)))


def _to_lines(out: Path, conversion: Conversion) -> list[str]:
    lines = [f"{out}: {conversion.tensors} tensors, {conversion.size_bytes} bytes"]
    if conversion.key != ".":
        lines.append(f"  from        {conversion.key}")
    if conversion.stripped:
        lines.append(f"  stripped    {' '.join(conversion.stripped)}")
    for what, names in (("skipped", conversion.skipped), ("dropped", conversion.dropped)):
        more = len(names) - _MAX_NAMED
        if names:
            lines.append(f"  {what}     {', '.join(names[:_MAX_NAMED])}{f' and {more} more' if more > 0 else ''}")
    return lines
