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

    Only tensors and plain values are read, so no code of the file runs; a checkpoint with anything else is refused.
    Prefixes that DataParallel and torch.compile add to names are removed.

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
    if conversion.skipped:
        named, more = conversion.skipped[:_MAX_NAMED], len(conversion.skipped) - _MAX_NAMED
        lines.append(f"  skipped     {', '.join(named)}{f' and {more} more' if more > 0 else ''}")
    return lines
