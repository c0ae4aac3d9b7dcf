"""The prediction stage: label maps for files and folders of scans, one bad scan never stopping the rest."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rarevox.pipeline.cohort.journal import FOLDER
from rarevox.pipeline.cohort.rows import RESULT_FILE, SUMMARY_FILE
from rarevox.pipeline.console import console
from rarevox.pipeline.dicom.series import is_dicom, require_libraries
from rarevox.pipeline.dicom.stated import require_codes
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import claim_folder
from rarevox.pipeline.inference.calls.crew import Crew
from rarevox.pipeline.inference.calls.kept import origin
from rarevox.pipeline.inference.calls.planning import Plan, chosen_rules, plan, with_names_that_fit
from rarevox.pipeline.inference.calls.prediction import Prediction
from rarevox.pipeline.inference.calls.session import all_stand, begin
from rarevox.pipeline.inference.calls.trained import Trained
from rarevox.pipeline.inference.calls.working import work
from rarevox.pipeline.inference.decided import require_known, threshold_settings
from rarevox.pipeline.inference.outputs.asked import Asked, outputs_of
from rarevox.pipeline.inference.outputs.bids import roots_of
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
            runs and settings; see :func:`rarevox.pipeline.inference.calls.kept.may_stand`.
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
            different structures. Of a call that could not go on (its run was removed) what it did is listed.
    """
    runs = Trained.of([run, *others], [*settings, *threshold_settings(thresholds or {})], trust=trust)
    require_known(thresholds or {}, runs.config)
    runs.tell_unmoved()
    share = None if shard is None else parse_shard(shard)
    crew = Crew(workers, scan_minutes, engine, address, worker_cpus, worker_gpus)
    if masks is None and manifest is None:
        runs.require_no_masks()
    asked = Asked(
        entropy,
        probabilities,
        lesions=lesions or atlas is not None,
        atlas=_absolute(atlas),
        atlas_names=_absolute(atlas_names),
        previews=previews,
        dicom=dicom,
        codes=require_codes(runs.folders[0], dicom, dicom_codes),
        layout=layout,
    )
    outputs_of(asked, runs.config)  # refuses what is wrong with it before scans are looked for
    if series:
        require_libraries("--series")
        chosen_rules(series, runs.config["channels"])
        _claimed(output)
    named: dict[str, Any] = {"manifest": manifest, "masks": masks, "roi": roi, "duplicates": duplicates}
    named |= {"series": series, "links": Path(output) / LINKS, "optional": runs.optional}
    with _leaving_no_links(named["links"]):
        wanted = plan(scans, runs.config, **named)
    if masks is not None and not runs.reads_masks:
        console.say("[yellow]--masks changes nothing[/yellow]: {} normalises whole scans", run)
    asked = _asked_of(asked, wanted)
    outputs, folder = outputs_of(asked, runs.config), _claimed(output)
    wanted = with_names_that_fit(wanted, folder, outputs)
    made = origin(runs.folders, runs.settings)
    if engine == "ray":  # whose actors stand in folders of their own
        wanted = wanted.absolute()
    keep, items = not overwrite, wanted.share(share)[0]
    job = _job(runs, device, asked, folder, made, crew.threads(len(items)))
    done = keep and all_stand(folder, [item for _, item in items], made, asdict(asked), outputs)
    with crew.hands(job, len(items), at_once=not done) as hands:
        session = begin(folder, wanted, made, asdict(asked), runs.config, outputs, keep=keep)
        return work(folder, session, wanted, share, hands, outputs, keep=keep)


@contextmanager
def _leaving_no_links(links: Path) -> Iterator[None]:
    """Of a request that is refused after its series were chosen (``--roi`` holds no mask, say) no links are left."""
    new = not links.exists()
    try:
        yield
    except RequestError:
        if new and links.is_dir() and [*links.parent.iterdir()] == [links]:
            shutil.rmtree(links, ignore_errors=True)  # a link goes, and not what it leads to
        raise


def _asked_of(asked: Asked, wanted: Plan) -> Asked:
    """What is asked for, once the scans are known.

    Raises:
        RequestError: DICOM objects of scans that did not come as DICOM.
    """
    if asked.dicom and not any(is_dicom(item["image"]) for item in wanted.items):
        raise RequestError("--dicom: none of the scans came as a DICOM series; leave the option out")
    return replace(asked, roots=roots_of(wanted.items)) if asked.layout == "bids" else asked


def _job(runs: Trained, device: str, asked: Asked, folder: Path, made: Mapping[str, Any], threads: int) -> Prediction:
    """What is done with each scan; its paths hold wherever a worker stands."""
    return Prediction(runs.networks(device), asked, str(folder.absolute()), made=made, threads=threads)


def _absolute(file: str | Path | None) -> str | None:
    return None if file is None else str(Path(file).resolve())


def _claimed(output: str | Path) -> Path:
    return claim_folder(output, holds=_holds_predictions, what="a set of predictions")


def _holds_predictions(folder: Path) -> bool:
    """Whether everything in the folder is an earlier prediction's."""
    return (folder / FOLDER).is_dir() or all(_WRITTEN.search(entry.name) for entry in folder.iterdir())
