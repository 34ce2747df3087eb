"""`fount reconstruct`, `interpolate` and `vary`: what a model makes of rows, of what lies between and around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

import click
import numpy as np
from numpy.typing import NDArray

from fount.cli.given.options import (
    GivenOptions,
    draw_options,
    encoding_option,
    label_options,
    model_options,
    out_option,
    row_options,
)
from fount.cli.given.work import Results, Work, opened
from fount.cli.options import option
from fount.cli.output.images import image_grid, paired_sheet, to_uint8, variants_sheet
from fount.cli.output.results import check_grid, check_result_file, write_arrays, write_picture

__all__ = ["interpolate", "reconstruct", "vary"]

_DEFAULT_OUTPUTS = 8  # of a row, or pair


@click.command()
@click.argument("name")
@row_options(8)
@label_options
@click.option("--sampled", is_flag=True, show_envvar=True, help="Decode a drawn latent, rather than the mean.")
@draw_options("drawn latents")
@encoding_option
@out_option("A .png with originals above reconstructions, or a .npz file.", "FILE")
@model_options
def reconstruct(
    name: str, sampled: bool, seed: int | None, encoding: str | None, out: str, **options: Unpack[GivenOptions]
) -> None:
    """Encode rows and decode their latents.

    NAME is a model that encodes and decodes; IMAGES are as in `fount encode`.

    \b
    Example:
      fount reconstruct digits-vae --dataset digits --rows 10 --out reconstructed.png
      fount reconstruct digits-vae photos/ --sampled --seed 1 --out reconstructed.npz
    """  # noqa: D301  # \b is click's: keep the lines as they are
    path = check_result_file(out, ".png", ".npz")
    with opened(name, options, "encode", "decode") as work:
        rows = work.given.values
        check_grid(path, work.info.name, 2 * len(rows), is_pictures=work.is_pictures)
        query = {"sampled": sampled or None, "seed": seed, "encoding": _encoding(work, path, encoding)}
        results = work.send(work.client.reconstruct, rows, ids=work.ids(), draws=sampled, query=query)
        if path.suffix.lower() == ".png":
            originals, made = _pictures(work, results)
            write_picture(path, paired_sheet(originals, made, work.given.names))
        else:
            write_arrays(path, {"samples": results.values, "originals": rows, **work.labelled(results)})
        work.report(results, f"{len(rows):,} rows reconstructed", {"rows": len(rows)}, out)


@click.command()
@click.argument("name")
@row_options(8)
@label_options
@option("--points", type=int, metavar="N", help="Samples of each pair, its ends included, 2 to 1000; unset, 8.")
@option("--path", type=click.Choice(["linear", "spherical"]), help="The line; spherical keeps the norm of latents.")
@encoding_option
@out_option("A .png with a row a pair, or a .npz file.", "FILE")
@model_options
def interpolate(
    name: str, points: int | None, path: str | None, encoding: str | None, out: str, **options: Unpack[GivenOptions]
) -> None:
    """Draw lines between pairs of rows: the first and the second, the third and the fourth, and so on.

    NAME is a model that encodes and decodes; IMAGES are as in `fount encode`. The ends of a line are the rows
    themselves. The samples of an NPZ file follow each other, and `source` holds the pair of each.

    \b
    Example:
      fount interpolate digits-vae three.png eight.png --points 10 --out line.png
      fount interpolate digits-vae --dataset digits --rows 6 --path spherical --out lines.png
    """  # noqa: D301  # \b is click's: keep the lines as they are
    file = check_result_file(out, ".png", ".npz")
    each = _DEFAULT_OUTPUTS if points is None else points
    with opened(name, options, "encode", "decode") as work:
        rows = work.given.values
        if len(rows) % 2:
            raise click.UsageError(f"{len(rows)} rows make no pairs; give an even number of them")
        pairs = len(rows) // 2
        check_grid(file, work.info.name, pairs * each, is_pictures=work.is_pictures)
        query = {"points": points, "path": path, "encoding": encoding}
        ids = work.ids(rows_each=2)
        results = work.send(work.client.interpolate, rows[::2], rows[1::2], ids=ids, each=each, query=query)
        if file.suffix.lower() == ".png":
            names = work.given.names
            parts = [f"{100 * k / (each - 1):.0f} %" for k in range(1, each - 1)]
            captions = [text for k in range(pairs) for text in (names[2 * k], *parts, names[2 * k + 1])]
            flat = results.values.reshape(-1, *results.values.shape[2:])  # (pairs, points, …) -> (pairs points, …)
            write_picture(file, image_grid(flat, captions, columns=each, value_range=results.value_range))
        else:
            write_arrays(file, _flat(work, results))
        text = f"{pairs:,} lines of {each} samples"
        work.report(results, text, {"pairs": pairs, "points": each}, out)


@click.command()
@click.argument("name")
@row_options(8)
@label_options
@option("--variants", type=int, metavar="K", help="Number of variants per row, 1 to 1000; unset, 8.")
@option("--scale", type=float, metavar="X", help="How far they are drawn around the row, 0 to 100; unset, 0.5.")
@option("--direction", metavar="NAME", help="Walk along a direction of the model, instead of drawing.")
@option("--from-amount", type=float, metavar="X", help="Where the walk begins; unset, -2.")
@option("--to-amount", type=float, metavar="X", help="Where the walk ends; unset, 2.")
@draw_options("drawn variants")
@encoding_option
@out_option("A .png with originals before their variants, or a .npz file.", "FILE")
@model_options
def vary(
    name: str,
    variants: int | None,
    scale: float | None,
    direction: str | None,
    from_amount: float | None,
    to_amount: float | None,
    seed: int | None,
    encoding: str | None,
    out: str,
    **options: Unpack[GivenOptions],
) -> None:
    """Draw variants of rows from points around their latents, or along a direction.

    NAME is a model that encodes and decodes; `fount model` lists its directions. IMAGES are as in `fount encode`. The
    samples of an NPZ file follow each other, and `source` holds the row of each.

    \b
    Example:
      fount vary digits-vae seven.png --variants 6 --scale 0.3 --seed 1 --out variants.png
      fount vary digits-vae --dataset digits --direction slant --out slanted.png
    """  # noqa: D301  # \b is click's: keep the lines as they are
    path = check_result_file(out, ".png", ".npz")
    each = _DEFAULT_OUTPUTS if variants is None else variants
    with opened(name, options, "encode", "decode") as work:
        rows = work.given.values
        check_grid(path, work.info.name, len(rows) * (1 + each), is_pictures=work.is_pictures)
        query: dict[str, object] = {
            "variants": variants,
            "scale": scale,
            "direction": direction,
            "from_amount": from_amount,
            "to_amount": to_amount,
            "seed": seed,
            "encoding": _encoding(work, path, encoding),
        }
        draws = direction is None
        results = work.send(work.client.vary, rows, ids=work.ids(), each=each, draws=draws, query=query)
        if path.suffix.lower() == ".png":
            originals, made = _pictures(work, results)
            write_picture(path, variants_sheet(originals, made, work.given.names))
        else:
            write_arrays(path, {**_flat(work, results), "originals": rows})
        work.report(results, f"{len(rows):,} rows, {each} variants of each", {"rows": len(rows), "variants": each}, out)


def _encoding(work: Work, path: Path, encoding: str | None) -> str | None:
    """Choose the encoding: next to originals that are floats, floats are drawn, since their header has the range."""
    is_drawn = path.suffix.lower() == ".png" and work.given.values.dtype != np.uint8
    return "float32" if is_drawn else encoding


def _pictures(work: Work, results: Results) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return originals and results to draw."""
    return to_uint8(work.given.values, results.value_range), to_uint8(results.values, results.value_range)


def _flat(work: Work, results: Results) -> dict[str, Any]:
    """Return the arrays of an NPZ file of (N, K, ...) results: N · K samples, and the row or pair of each."""
    count, each, *shape = results.values.shape
    labels = None if results.labels is None else results.labels.reshape(-1)
    return {
        **work.labelled(results),
        "samples": results.values.reshape(-1, *shape),
        "labels": labels,
        "source": np.arange(count).repeat(each),
    }
