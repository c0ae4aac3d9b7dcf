"""The prediction stage: label maps for files and folders of scans, one bad scan never stopping the rest."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import require_run
from rarevox.pipeline.cohort.collect import RESULT_FILE, SUMMARY_FILE, write_results
from rarevox.pipeline.cohort.desk import Desk
from rarevox.pipeline.cohort.journal import FOLDER
from rarevox.pipeline.cohort.owners import lives
from rarevox.pipeline.console import console, progress_bar
from rarevox.pipeline.data.missing import optional_channels
from rarevox.pipeline.dicom.series import is_dicom, require_libraries
from rarevox.pipeline.dicom.stated import require_codes
from rarevox.pipeline.entries import parse_setting, put
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import claim_folder, clear_parts_below
from rarevox.pipeline.inference.crew import Crew
from rarevox.pipeline.inference.decided import threshold_settings, with_decision
from rarevox.pipeline.inference.ensemble import with_members
from rarevox.pipeline.inference.kept import may_stand, origin
from rarevox.pipeline.inference.outputs.asked import Asked, outputs_of
from rarevox.pipeline.inference.outputs.bids import roots_of
from rarevox.pipeline.inference.planning import chosen_rules, plan, with_names_that_fit
from rarevox.pipeline.inference.session import Session, begin
from rarevox.pipeline.inference.station import Prediction, begun_row, remove_files
from rarevox.pipeline.trust.gate import run_config
from rarevox.pipeline.workers.pool import Task
from rarevox.pipeline.workers.shards import parse_shard

LINKS = ".series"
"""The folder, in that of the predictions, of links to the files of chosen series."""
_WRITTEN = re.compile(
    rf"_(seg|entropy|prob_[^/]+)\.nii\.gz$|^\.|^{FOLDER}$|^{re.escape(RESULT_FILE)}$|^{re.escape(SUMMARY_FILE)}$|\.csv$"
)


def predict(
    run: str | Path,
    scans: Sequence[str | Path],
    output: str | Path,
    *,
    device: str = "auto",
    settings: Sequence[str] = (),
    overwrite: bool = True,
    masks: str | Path | None = None,
    entropy: bool = False,
    probabilities: str | None = None,
    roi: str | Path | None = None,
    others: Sequence[str | Path] = (),
    thresholds: Mapping[str, str] | None = None,
    trust: bool = False,
    manifest: str | Path | None = None,
    duplicates: str | None = None,
    shard: str | None = None,
    workers: int = 0,
    scan_minutes: float | None = None,
    engine: str = "local",
    address: str | None = None,
    worker_cpus: float | None = None,
    worker_gpus: float | None = None,
    series: Sequence[str] = (),
    lesions: bool = False,
    atlas: str | Path | None = None,
    atlas_names: str | Path | None = None,
    previews: bool = False,
    dicom: str | None = None,
    dicom_codes: str | Path | None = None,
    layout: str | None = None,
) -> int:
    """Segment scans with a trained run.

    Several calls may work at one folder at once, on one machine or many: each scan is done by one of them.

    Args:
        run: the run folder, or one that ``rarevox crossval`` wrote, whose runs form an ensemble.
        scans: files or folders; see :func:`rarevox.pipeline.data.scans.survey`. Each ends as a map or as a row that
            says why not.
        output: gets ``CASE_seg.nii.gz`` for each scan, on its grid, and ``predictions.json``.
        device: auto, cpu, cuda or cuda:i.
        settings: ``KEY=VALUE`` texts over the bundle's inference configuration.
        overwrite: False leaves out scans whose label map is there and was reported ok by an earlier call with the same
            runs and settings; see :func:`rarevox.pipeline.inference.kept.may_stand`.
        masks: folder of masks for a run that normalises inside one; see
            :func:`rarevox.pipeline.data.datalist.find_scans`.
        roi: folder of masks that say what is to be segmented, or one mask for all scans; nothing is computed outside a
            mask's bounding box but the context that it needs, and outside the mask everything is background.
        others: further runs, which form an ensemble with ``run``; see :mod:`rarevox.pipeline.inference.ensemble`.
        entropy: write ``CASE_entropy.nii.gz`` too, see :class:`rarevox.pipeline.inference.entropy.EntropyMap`.
        probabilities: ``uint8`` or ``uint16`` writes ``CASE_prob_STRUCTURE.nii.gz`` too, see
            :class:`rarevox.pipeline.inference.probabilities.ProbabilityMaps`.
        thresholds: structure → probability above which a voxel is it, in place of the run's; further ``settings``.
        trust: take the runs' configurations whatever they build; see :mod:`rarevox.pipeline.trust.gate`.
        manifest: a table of scans, instead of or beside ``scans``; see :mod:`rarevox.pipeline.data.manifest`.
        duplicates: ``tell`` or ``skip``; see :func:`rarevox.pipeline.data.duplicates.without_duplicates`.
        shard: do a share of the scans, ``i/n`` or ``auto``; see :func:`rarevox.pipeline.workers.shards.parse_shard`.
        workers: processes, each with the network loaded once; 0 computes in this process. What ends a worker (a
            decoder's crash, lack of memory) costs its scans a second try, and then one failed row.
        scan_minutes: the longest that a scan may take; needs workers.
        engine: ``local``, or ``ray`` for workers that are actors on Ray.
        address: of a Ray cluster; None starts one on this machine.
        worker_cpus: CPUs that Ray sets aside for an actor.
        worker_gpus: GPUs likewise.
        series: rules that choose series in DICOM trees; see :func:`rarevox.pipeline.dicom.rules.parse_rule`.
        lesions: write ``lesions.csv`` and ``structures.csv``; see :mod:`rarevox.pipeline.inference.lesions`.
        atlas: a volume of regions, to say in which a lesion lies.
        atlas_names: a file of their names; see :func:`rarevox.pipeline.inference.atlas.read_atlas`.
        previews: write ``CASE_preview.jpg``.
        dicom: ``binary`` or ``labelmap`` writes ``CASE_seg.dcm`` and ``CASE_report.dcm`` of scans that came as DICOM.
        dicom_codes: a file of structures' codes; see :func:`rarevox.pipeline.dicom.codes.given_codes`.
        layout: ``bids`` writes a BIDS derivative dataset.

    Returns:
        Exit status: 0, or 1 where some scans failed, or some entries are no scans.

    Raises:
        RequestError: no run, no scans, no masks where a run needs them, an output folder of another kind, in which
            calls with other runs or settings write, or that would still hold maps of other runs or settings, runs of
            different structures.
    """
    run, *others = with_members([run, *others])
    settings = [*settings, *threshold_settings(thresholds or {})]
    runs = [require_run(folder, "inference") for folder in (run, *others)]
    configs = [_config(folder, settings, trust=trust) for folder in runs]
    config = configs[0]
    share = None if shard is None else parse_shard(shard)
    crew = Crew(workers, scan_minutes, engine, address, worker_cpus, worker_gpus)
    for folder, own in zip(runs, configs, strict=True):
        if masks is None and manifest is None and own["normalisation"].get("region") == "mask":
            raise RequestError(f"{folder} normalises inside a mask; give the folder of the scans' masks with --masks")
    asked = Asked(
        entropy,
        probabilities,
        lesions=lesions or atlas is not None,
        atlas=_absolute(atlas),
        atlas_names=_absolute(atlas_names),
        previews=previews,
        dicom=dicom,
        codes=require_codes(runs[0], dicom, dicom_codes),
        layout=layout,
    )
    outputs_of(asked, config)  # refuses what is wrong with it before scans are looked for
    if series:
        require_libraries("--series")
        chosen_rules(series, config["channels"])
        claim_folder(output, holds=_holds_predictions, what="a set of predictions")
    wanted = plan(
        scans,
        config,
        manifest=manifest,
        masks=masks,
        roi=roi,
        duplicates=duplicates,
        series=series,
        links=Path(output) / LINKS,
        optional=[name for name in config["channels"] if all(name in optional_channels(own) for own in configs)],
    )
    if masks is not None and not any(map(_reads_masks, configs)):
        console.say("[yellow]--masks changes nothing[/yellow]: {} normalises whole scans", run)
    if dicom and not any(is_dicom(item["image"]) for item in wanted.items):
        raise RequestError("--dicom: none of the scans came as a DICOM series; leave the option out")
    if layout == "bids":
        asked = replace(asked, roots=roots_of(wanted.items))
    outputs = outputs_of(asked, config)
    folder = claim_folder(output, holds=_holds_predictions, what="a set of predictions")
    wanted = with_names_that_fit(wanted, folder, outputs)
    made = origin(runs, settings)
    if engine == "ray":  # whose actors stand in folders of their own
        wanted = wanted.absolute()
    paths = [str(Path(path).absolute()) for path in (run, *others, folder)]
    job = Prediction(paths[0], tuple(paths[1:-1]), device, tuple(settings), trust, asked, paths[-1], made, crew.threads)
    hands = crew.hands(job)  # loads the networks where they stand in this process: a fault of theirs comes first
    session = begin(folder, wanted, made, asdict(asked), config, outputs, keep=not overwrite)
    items, left = wanted.share(share)
    with progress_bar() as bar:
        progress = bar.add_task("predicting", total=len(items))
        desk = Desk(
            folder,
            session.ledger,
            session.journal,
            items,
            session=session.id,
            stands=lambda item, row: not overwrite and may_stand(folder, row, outputs, item),
            told=lambda case: bar.advance(progress),
        )

        def failed(task: Task, reason: str) -> Mapping[str, Any]:
            remove_files(folder, outputs, task.work["item"], task.work["earlier"])
            return begun_row(task.work["item"], reason)

        for number, row in left:
            session.journal.append({"n": number, "t": 0, "left": row})
        with _orderly(desk) as unwritten:
            hands(desk, session.others, failed)
    return _finish(folder, session, None if share is None else {str(item["case"]) for _, item in items}, unwritten)


def _config(folder: Path, settings: Sequence[str], *, trust: bool) -> dict[str, Any]:
    """A run's configuration for inference, with the settings over it."""
    config = with_decision(run_config(folder, "inference", trust=trust))
    for text in settings:
        put(config, *parse_setting(text))
    return config


def _absolute(file: str | Path | None) -> str | None:
    return None if file is None else str(Path(file).resolve())


@contextmanager
def _orderly(desk: Desk) -> Iterator[list[str]]:
    """However the work ends, what is done is in the journal and nothing is claimed any more; SIGTERM ends it like
    Ctrl-C. Why rows could not be written is added to the list."""
    unwritten: list[str] = []
    before: Any = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield unwritten
    except (KeyboardInterrupt, SystemExit):
        console.print("ended early; the same call with --keep goes on, and `rarevox collect` lists what is done")
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        if error := desk.close():
            unwritten.append(error)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _finish(folder: Path, session: Session, own: set[str] | None, unwritten: list[str]) -> int:
    """Write the files that are made of the journals, tell what failed, and give the exit status."""
    remedy = "free some space and predict again with --keep"
    try:
        tally = write_results(folder, session.ledger, counts=_all if own is None else own.__contains__)
    except OSError as error:
        unwritten.append(f"{RESULT_FILE} not written: {error.strerror or error}")
        console.print(f"{'; '.join(unwritten)}; {remedy}")
        return 1
    ledger = session.ledger
    if not any(lives(folder, one.id, one.header) for one in ledger.sources if not one.ended and one.header):
        clear_parts_below(folder)
    status = tally.tell(f"label maps and {RESULT_FILE} are in {folder}")
    if unwritten:
        console.print(f"{'; '.join(unwritten)}; {remedy}")
    return 1 if unwritten else status


def _all(case: str) -> bool:
    return True


def _reads_masks(config: Mapping[str, Any]) -> bool:
    """Whether masks count: in the normalisation, or for the bias field."""
    return config["normalisation"].get("region") == "mask" or bool(config["n4"])


def _holds_predictions(folder: Path) -> bool:
    """Whether everything in the folder is an earlier prediction's."""
    return (folder / FOLDER).is_dir() or all(_WRITTEN.search(entry.name) for entry in folder.iterdir())
