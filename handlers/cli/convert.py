"""The command `fount convert`: a checkpoint becomes safetensors weights. Torch is loaded when it runs, not before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from handlers.packaging.convert import Conversion

__all__ = ["convert"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_MOST_NAMED = 10


@click.command()
@click.argument("checkpoint", metavar="CHECKPOINT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=_FILE, required=True, show_envvar=True, help="The safetensors file to write.")
@click.option(
    "--key",
    show_envvar=True,
    help="Where in the checkpoint the weights are, like models.generator.  [default: find it]",
)
@click.option("--strip-prefix", "prefix", show_envvar=True, help="Keep the names that begin so, and take it off them.")
@click.option("--force", is_flag=True, show_envvar=True, help="Replace a file that is there.")
def convert(checkpoint: Path, out: Path, key: str | None, prefix: str | None, force: bool) -> None:
    """Turn a checkpoint of torch.save into weights a card can name.

    Nothing but tensors and plain values is read, so no code of the file runs; one that holds more is refused. Prefixes
    that DataParallel and torch.compile put on names are taken off.

    \b
    Example:
      fount convert generator.pt --out model_store/my-gan/weights.safetensors
      fount convert last.ckpt --key state_dict --strip-prefix generator. --out weights.safetensors
    """  # noqa: D301 - \b is click's mark for lines to keep
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
    if conversion.taken_off:
        lines.append(f"  taken off   {' '.join(conversion.taken_off)}")
    if conversion.left_out:
        named, more = conversion.left_out[:_MOST_NAMED], len(conversion.left_out) - _MOST_NAMED
        lines.append(f"  left out    {', '.join(named)}{f' and {more} more' if more > 0 else ''}")
    return lines
