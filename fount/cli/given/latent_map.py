"""`fount latent-map`: decode a plane of a latent space, and show where the codes of rows lie in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple, Unpack

import click
import numpy as np
from numpy.typing import NDArray

from fount.cli.classes import class_indices
from fount.cli.given.options import GivenOptions, encoding_option, label_options, model_options, out_option, row_options
from fount.cli.given.work import Results, Work, opened
from fount.cli.options import option
from fount.cli.output.images import to_uint8
from fount.cli.output.results import check_grid, check_result_file, write_arrays, write_picture
from fount.cli.output.scatter import beside, mosaic, scatter
from fount.errors import FailedPrecondition

__all__ = ["latent_map"]

_PLANE = 2  # dimensions
_MIN_ROWS = 3  # from which a plane is found


class _Plane(NamedTuple):
    """A plane: z = origin + x · axes[0] + y · axes[1], of (D,) and (2, D); and the grid's x and y, (side,) each."""

    origin: NDArray[np.float64]
    axes: NDArray[np.float64]
    across: NDArray[np.float64]
    upwards: NDArray[np.float64]

    def grid(self) -> NDArray[np.float32]:
        """Return the (side · side, D) latents of the grid, by lines from the top left."""
        x, y = np.meshgrid(self.across, self.upwards[::-1])  # (side, side) each
        places = np.stack([x.reshape(-1), y.reshape(-1)], axis=1)  # (side · side, 2)
        return (self.origin + places @ self.axes).astype(np.float32)


@click.command("latent-map")
@click.argument("name")
@row_options(1000)
@label_options
@option("--side", type=click.IntRange(2, 50), metavar="N", default="15", help="Images of a side of the map.")
@encoding_option
@out_option("A .png with map and codes, or a .npz file.", "FILE")
@model_options
def latent_map(name: str, side: int, encoding: str | None, out: str, **options: Unpack[GivenOptions]) -> None:
    """Decode a grid of latents: a map of what a model has learned.

    NAME is a model that decodes. Of two latent numbers, the first grows to the right and the second upwards, at equally
    probable values of N(0, 1), or with IMAGES of their codes. Of more latent numbers the plane is that of the first two
    principal directions of the codes, through their mean, which needs IMAGES. Their codes are drawn beside the map,
    coloured by the classes that files name. IMAGES are as in `fount encode`.

    \b
    Example:
      fount latent-map digits-vae --dataset digits --rows 1000 --out map.png
      fount latent-map digits-cvae photos/ --label 7 --side 20 --out map.npz
    """  # noqa: D301  # \b is click's: keep the lines as they are
    path = check_result_file(out, ".png", ".npz")
    with opened(name, options, "decode", needs_rows=False) as work:
        _check(work)
        check_grid(path, work.info.name, side * side, is_pictures=work.is_pictures)
        label = options.get("label")
        if work.info.labels and label is None:
            raise click.UsageError(f"{work.info.name} is conditional; name the class of the map with --label")
        if label is not None and not work.info.labels:
            raise click.UsageError(f"{work.info.name} is unconditional; leave --label out")
        codes = _codes(work) if len(work.given) else None
        plane = _plane(codes, work.info.latent_dim, side)
        grid = plane.grid()
        ids = None if label is None else class_indices([label] * len(grid), work.info, name)
        results = work.send(work.client.decode, grid, ids=ids, query={"encoding": encoding})
    places = None if codes is None else (codes - plane.origin) @ plane.axes.T  # (N, 2)
    if path.suffix.lower() == ".png":
        picture = mosaic(to_uint8(results.values, results.value_range), side)
        if places is not None:
            classes, names = _classes(work.given.labels, len(places))
            picture = beside(picture, scatter(places, classes, names, picture.height))
        write_picture(path, picture)
    else:
        _write(path, work, results, grid, codes, places)
    counts = {"side": side, "rows": len(work.given)}
    work.report(results, f"{side} × {side} latents decoded, {len(work.given):,} rows encoded", counts, out)


def _check(work: Work) -> None:
    """Refuse a model without a plane, and too few rows to find one."""
    info, rows = work.info, len(work.given)
    if rows and "encode" not in info.operations:
        raise FailedPrecondition(f"{info.name} cannot encode; leave images out to draw its map alone.")
    if info.latent_dim < _PLANE:
        numbers = f"latents of {info.latent_dim} number" if info.latent_dim else "no latents"
        raise FailedPrecondition(f"{info.name} has {numbers}, and a map needs two or more; name another model.")
    if not rows and info.latent_dim > _PLANE:
        text = f"{info.name} has latents of {info.latent_dim} numbers, whose plane is found from rows"
        raise click.UsageError(f"{text}; name images, or a data set with --dataset")
    if 0 < rows < _MIN_ROWS:
        raise click.UsageError(
            f"A plane is found from {_MIN_ROWS} rows or more, and there are {rows}; give more of them"
        )


def _codes(work: Work) -> NDArray[np.float64]:
    """Encode the rows, (N, D), with the classes that files name where there are any, and else that of the map."""
    options: GivenOptions = {**work.options}
    if work.given.labels is not None and options.get("labels") is None:
        options["label"] = None
    if options.get("labels") is not None:
        options["label"] = None
    own = Work(client=work.client, name=work.name, info=work.info, options=options, given=work.given)
    return own.send(own.client.encode, own.given.values, ids=own.ids()).values.astype(np.float64)


def _plane(codes: NDArray[np.float64] | None, dims: int, side: int) -> _Plane:
    """Find the plane of a map: the latents themselves where they are two, or the codes' principal directions."""
    shares = (np.arange(side) + 0.5) / side  # equally probable
    origin, axes = np.zeros(dims), np.eye(_PLANE, dims)
    if codes is None:
        normal = np.array([NormalDist().inv_cdf(share) for share in shares])
        return _Plane(origin, axes, normal, normal)
    if dims > _PLANE:
        origin = codes.mean(axis=0)
        axes = np.linalg.svd(codes - origin, full_matrices=False)[2][:_PLANE]  # (2, D)
        # The sign of a direction is arbitrary: its largest number is positive.
        axes *= np.sign(axes[np.arange(_PLANE), np.abs(axes).argmax(axis=1)])[:, None]
    places = (codes - origin) @ axes.T  # (N, 2)
    return _Plane(origin, axes, *np.quantile(places, shares, axis=0).T)


def _classes(labels: Sequence[str] | None, count: int) -> tuple[list[int], tuple[str, ...]]:
    """Return the class of each row as an index of names, which are sorted, numbers by their value."""
    if labels is None:
        return [0] * count, ("",)
    shown = [label.removeprefix("#") for label in labels]
    names = sorted(set(shown), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    return [names.index(label) for label in shown], tuple(names)


def _write(
    path: Path,
    work: Work,
    results: Results,
    grid: NDArray[np.float32],
    codes: NDArray[np.float64] | None,
    places: NDArray[np.float64] | None,
) -> None:
    known = None if work.given.labels is None else np.array(work.given.labels, np.str_)
    own = {
        "latents": grid,
        "codes": None if codes is None else codes.astype(np.float32),
        "places": places,
        "code_labels": known,
    }
    write_arrays(path, {"samples": results.values, **work.labelled(results), **own})
