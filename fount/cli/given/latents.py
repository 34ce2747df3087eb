"""`fount encode` and `fount decode`: rows to latents and back, by files of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import click

from fount.cli.given.options import (
    GivenOptions,
    draw_options,
    encoding_option,
    label_options,
    model_options,
    out_option,
    row_options,
)
from fount.cli.given.work import opened
from fount.cli.options import PATH, option
from fount.cli.output.images import image_grid
from fount.cli.output.results import check_grid, check_result_file, write_arrays, write_picture

__all__ = ["decode", "encode"]


@click.command()
@click.argument("name")
@row_options(1000)
@label_options
@click.option("--sampled", is_flag=True, show_envvar=True, help="Draw each latent, rather than take its mean.")
@click.option("--spread", is_flag=True, show_envvar=True, help="Also write standard deviations.")
@draw_options("drawn latents")
@out_option("The file of latents.", "FILE.npz")
@model_options
def encode(name: str, sampled: bool, spread: bool, seed: int | None, out: str, **options: Unpack[GivenOptions]) -> None:
    """Write the latents of rows to an NPZ file, which `fount decode` reads.

    NAME is a model that encodes. IMAGES are image files, folders of them, or one NPZ file with `images`, `samples` or a
    single array; of the model's own size. Folders in a folder, and `labels` in an NPZ file, name classes.

    \b
    Example:
      fount encode digits-vae seven.png --out seven.npz
      fount encode digits-vae --dataset digits --rows 500 --spread --out codes.npz
    """  # noqa: D301  # \b is click's: keep the lines as they are
    path = check_result_file(out, ".npz")
    with opened(name, options, "encode") as work:
        query = {"sampled": sampled or None, "spread": spread or None, "seed": seed}
        rows = work.given.values
        results = work.send(work.client.encode, rows, ids=work.ids(), draws=sampled, query=query)
        means = results.values[:, 0] if spread else results.values
        spreads = results.values[:, 1] if spread else None
        write_arrays(path, {"latents": means, "spread": spreads, **work.labelled(results)})
        text = f"{len(rows):,} rows encoded to {means.shape[1]} numbers each"
        work.report(results, text, {"rows": len(rows), "latent_dim": means.shape[1]}, out)


@click.command()
@click.argument("name")
@click.argument("latents", type=PATH)
@option("--rows", type=click.IntRange(min=1), metavar="N", default="1000", help="The most latents.")
@label_options
@encoding_option
@out_option("A .png grid or a .npz file.", "FILE")
@model_options
def decode(name: str, latents: Path, encoding: str | None, out: str, **options: Unpack[GivenOptions]) -> None:
    """Decode latents of an NPZ file to an image grid or an NPZ file.

    NAME is a model that decodes. LATENTS is an NPZ file with `latents`, as `fount encode` writes it, or a single array,
    of (rows, latent_dim) floats; its `labels` name the classes of a conditional model.

    \b
    Example:
      fount decode digits-vae codes.npz --rows 100 --out decoded.png
      fount decode digits-cvae codes.npz --label 7 --out sevens.npz
    """  # noqa: D301  # \b is click's: keep the lines as they are
    path = check_result_file(out, ".png", ".npz")
    with opened(name, {**options, "inputs": (latents,)}, "decode", latents=True) as work:
        check_grid(path, work.info.name, len(work.given), is_pictures=work.is_pictures)
        results = work.send(work.client.decode, work.given.values, ids=work.ids(), query={"encoding": encoding})
        if path.suffix.lower() == ".png":
            captions = work.captions(results)
            write_picture(path, image_grid(results.values, captions, value_range=results.value_range))
        else:
            write_arrays(path, {"samples": results.values, **work.labelled(results)})
        work.report(results, f"{len(work.given):,} latents decoded", {"rows": len(work.given)}, out)
