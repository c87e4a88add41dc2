"""Every difference between a run and its mirror, point by point and byte by byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Run

from dbx_aml.tracking.mirror import artifacts as file
from dbx_aml.tracking.mirror import logged_models as model
from dbx_aml.tracking.mirror import metrics as point
from dbx_aml.tracking.mirror import params_and_tags as field
from dbx_aml.tracking.mirror import tags as tag
from dbx_aml.tracking.mirror.mirrored_runs import Targets
from dbx_aml.tracking.mirror.server import Side

_RUNS_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that the two do not have alike.

    Args:
        run_id: Of the source.
        what: For example "metric".
        key: Its name.
        src: What the source has, as text; empty where it has nothing.
        dst: What the destination has.
    """

    run_id: str
    what: str
    key: str
    src: str
    dst: str


def compare(src: Side, dst: Side, runs: Iterable[Run]) -> Iterator[tuple[Run, list[Difference]]]:
    """Yield each run of the source with all its differences; nothing is written."""
    targets = Targets(src, dst)

    def one(run: Run) -> tuple[Run, list[Difference]]:
        target = targets.find(run)
        if target is None:
            run_id = run.info.run_id
            missing = Difference(run_id=run_id, what="run", key=run_id, src="there", dst="")
            return run, [missing]
        parent = targets.parent_of(run, make=False)
        found = _differences(src, dst, run, target, parent)
        return run, [Difference(run_id=run.info.run_id, **one) for one in found]

    with ThreadPoolExecutor(_RUNS_AT_ONCE) as pool:
        yield from pool.map(one, runs)


def _differences(
    src: Side, dst: Side, run: Run, target: Run, parent: str | None
) -> Iterator[dict[str, str]]:
    for name in ("status", "start_time", "end_time", "run_name"):
        yield from _unlike("run", name, getattr(run.info, name), getattr(target.info, name))
    for key, text in run.data.params.items():
        yield from _unlike("param", key, text, target.data.params.get(key))
    for key in sorted(set(target.data.params) - set(run.data.params)):
        yield from _unlike("param", key, None, target.data.params[key])
    for key, text in field.tags_for(dst, run, parent).items():
        yield from _unlike("tag", key, text, target.data.tags.get(key))
    yield from _unlike("tag", tag.SOURCE_RUN, run.info.run_id, target.data.tags.get(tag.SOURCE_RUN))
    for key in sorted({*run.data.metrics, *target.data.metrics}):
        yield from _metric(src, dst, run, target, key)
    for missing in model.missing_datasets(run, target):
        yield from _unlike("dataset", missing.dataset.name, missing.dataset.digest, None)
    models = model.models_of(src, run)
    inside = model.folders_of(models, run)
    yield from _files(
        "artifact",
        "",
        src.repository(run.info.artifact_uri),
        dst.repository(target.info.artifact_uri),
        inside,
    )
    copies = {one.tags.get(tag.SOURCE_MODEL): one for one in model.models_of(dst, target)}
    for one in models:
        copied = copies.get(one.model_id)
        if copied is None:
            yield from _unlike("model", one.name, one.model_id, None)
            continue
        yield from _unlike("model", one.name, one.status, copied.status)
        yield from _files(
            "model file",
            f"{one.name}/",
            src.repository(one.artifact_location),
            dst.repository(copied.artifact_location),
            (),
        )


def _unlike(what: str, key: str, src: Any, dst: Any) -> Iterator[dict[str, str]]:
    if src != dst:
        yield {"what": what, "key": key, "src": _text(src), "dst": _text(dst)}


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _metric(src: Side, dst: Side, run: Run, target: Run, key: str) -> Iterator[dict[str, str]]:
    has = point.read(dst, target.info.run_id, key) if key in target.data.metrics else point.Points()
    seen = point.Points()
    first: point.Point | None = None
    missing = 0
    if key in run.data.metrics:
        for page, _ in point.pages(src, run.info.run_id, key):
            for one in page:
                if seen.add(one) and one not in has:
                    missing += 1
                    first = first or one
    counts = (seen.series.count, has.series.count)
    if missing and first:
        at = f"{counts[0]} points, with {first[0]!r} at step {first[2]}"
        yield {"what": "metric", "key": key, "src": at, "dst": f"{counts[1]}, {missing} missing"}
    elif counts[0] != counts[1]:
        yield from _unlike("metric", key, f"{counts[0]} points", f"{counts[1]} points")


def _files(
    what: str, prefix: str, src: Any, dst: Any, without: tuple[str, ...]
) -> Iterator[dict[str, str]]:
    has = file.sizes(dst)
    for path, size in sorted(file.sizes(src).items()):
        if path.startswith(without):
            continue
        if path not in has:
            yield from _unlike(what, prefix + path, f"{size} bytes", None)
        elif has[path] != size:
            yield from _unlike(what, prefix + path, f"{size} bytes", f"{has[path]} bytes")
        else:
            yield from _unlike(what, prefix + path, file.digest(src, path), file.digest(dst, path))
