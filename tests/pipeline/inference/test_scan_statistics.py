"""Batch norms that bring a scan onto training scans: the gain of another scanner no longer changes the scores."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rarevox.networks import DeepMedic, Geometry, HighResNet
from rarevox.pipeline.build import build
from rarevox.pipeline.bundle import STATISTICS_FILE
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json
from rarevox.pipeline.inference.calls.trained import tell_unmoved
from rarevox.pipeline.inference.dense import DenseInferer
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.inference.scan_statistics import ScanStatistics, _starts
from rarevox.pipeline.plain_data import read_yaml
from rarevox.pipeline.training.kept.checkpoint import load_weights
from rarevox.pipeline.training.kept.norm_statistics import load_statistics
from rarevox.pipeline.training.train import train
from rarevox.transforms.sampling.patches import crop_padded
from tests.conftest import SMALL

WINDOW = (16, 16, 16)


def small() -> nn.Sequential:
    """A convolution without bias, a norm with ε = 1e-12, an activation and the classes, in float64, trained."""
    torch.manual_seed(0)
    norm = nn.BatchNorm3d(4, eps=1e-12)
    layers = [nn.Conv3d(2, 4, 3, padding=1, bias=False), norm, nn.ReLU(), nn.Conv3d(4, 2, 1)]
    network = nn.Sequential(*layers).double().eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return network


def scan(seed: int = 1, side: int = 44) -> torch.Tensor:
    """Noise in a ball, 0 outside, of two channels."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, side, side, side, dtype=torch.float64, generator=generator) + 1
    place = torch.linspace(-1, 1, side)
    return image * ((place[:, None, None] ** 2 + place[:, None] ** 2 + place**2) < 1)


def compared(
    network: nn.Module, share: float = 1.0, window: tuple[int, int, int] = WINDOW, side: int = 44
) -> ScanStatistics:
    """With three training scans."""
    own = ScanStatistics(share, window)
    own.reference = own.reference_of([scan(seed, side) for seed in (2, 3, 4)], network, network)
    return own


def inferer(statistics: ScanStatistics | None, **more) -> DenseInferer:
    return DenseInferer(Geometry(receptive_field=(3, 3, 3)), statistics=statistics, **more)


def norms_of(network: nn.Module) -> dict[str, _BatchNorm]:
    return {name: one for name, one in network.named_modules() if isinstance(one, _BatchNorm)}


def test_another_gain_of_the_scanner_changes_nothing() -> None:
    """Both are the same numbers but for rounding: of float64 in the network, once to float32 in the scores."""
    network, image = small(), scan()
    for share, same in ((1.0, True), (0.0, False)):
        own = compared(network, share)
        scores = [inferer(own)(gain * image[None], network) for gain in (1.0, 3.0)]
        difference = float((scores[0] - scores[1]).abs().max())
        assert (difference <= 1e-6 * float(scores[0].abs().max())) is same
        assert same or difference > 0.1


@pytest.mark.parametrize("spread", [1e-3, 1.0])
def test_the_norm_computes_the_formula_whatever_its_epsilon(spread: float) -> None:
    """x ↦ (μ_ref + (x − μ_ref − a (μ_scan − μ_ref)) / r − μ) / √(σ² + ε), where ε is larger than σ² too."""
    norm = nn.BatchNorm3d(1, eps=1e-5, affine=False).double().eval()
    norm.running_mean.fill_(0.3 * spread)
    norm.running_var.fill_(spread**2 / 100)
    usual = torch.tensor([[0.2 * spread], [spread**2 / 90]], dtype=torch.float64)
    own = ScanStatistics(0.5, WINDOW, {"0": usual})
    network, image = nn.Sequential(norm), spread * scan()[:1]
    (scan_mean, scan_variance), filled = own.measured(image, network, network)[0]["0"], 8
    assert own.measured(image, network, network)[1] >= filled, "the share counts in full"
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    with own.of(image, network, network) as share:
        found = network(image[None])
    r = ((scan_variance + 1e-5) / (usual[1] + 1e-5)) ** (share / 2)
    moved = usual[0] + (image[None] - usual[0] - share * (scan_mean - usual[0])) / r
    expected = (moved - mean) / (variance + 1e-5).sqrt()
    assert share == 0.5 and torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_a_training_scan_is_as_it_was() -> None:
    """Its statistics are the reference's: nothing is moved but by rounding."""
    network, own = small(), ScanStatistics(1.0, WINDOW)
    own.reference = own.measured(scan(), network, network)[0]
    found = [inferer(one)(scan()[None], network) for one in (own, None)]
    assert torch.allclose(*found, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "window", "options"),
    [
        (HighResNet, WINDOW, {"width": 2}),
        # In evaluation such patches have planes of zeros between their lattices, and large ones go through in pieces.
        (HighResNet, (32, 48, 9), {"width": 16}),
        (HighResNet, (52, 52, 52), {"width": 4}),
        (DeepMedic, (51, 51, 51), {"channels": (3,) * 8, "joint": (4, 4)}),
    ],
    ids=["small", "packed", "in pieces", "valid"],
)
def test_what_is_measured_is_what_a_training_step_sees_of_pairs_of_windows(
    kind: type, window: tuple[int, int, int], options: dict
) -> None:
    """In the mean, by the forward pass of a training whose dropout does nothing; in float32 numbers agree to 1e-4."""
    torch.manual_seed(0)
    network = kind(in_channels=2, out_channels=2, **options).eval()
    image = scan(side=2 * max(window)).float()
    plain = deepcopy(network).train()
    for module in plain.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    starts, filled = _starts(image, window, 4)
    sums: dict[str, list[torch.Tensor]] = {name: [] for name in norms_of(plain)}
    for norm in norms_of(plain).values():
        norm.momentum = 1.0
    with torch.no_grad():
        for first in range(0, len(starts), 2):
            plain(torch.stack([crop_padded(image, start, window) for start in starts[first : first + 2]]))
            for name, norm in norms_of(plain).items():
                sums[name].append(torch.stack([norm.running_mean, norm.running_var]))
    found, told = ScanStatistics(1.0, window).measured(image, network, network, windows=4)
    assert told == filled and found.keys() == sums.keys()
    assert not any(module.training for module in network.modules())
    for name in found:
        assert torch.allclose(found[name], torch.stack(sums[name]).mean(0), rtol=1e-4, atol=1e-4)


def test_a_network_without_batch_norms_is_left_alone() -> None:
    network = nn.Sequential(nn.Conv3d(2, 2, 1), nn.InstanceNorm3d(2)).double().eval()
    own = ScanStatistics(1.0, WINDOW, {"1": torch.zeros(2, 2)})
    assert own.measured(scan(), network, network)[0] == {} and not own.applies_to(network)
    assert torch.equal(*(inferer(one)(scan()[None], network) for one in (own, None)))


def test_the_boxes_of_a_scan_are_measured_once_and_another_scan_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small()
    own, asked = compared(network), []
    plain = own.measured
    monkeypatch.setattr(own, "measured", lambda *args: asked.append(1) or plain(*args))
    image = scan()
    whole = inferer(own).inside(image, network)
    for box in ([(0, 20), (0, 44), (0, 44)], [(20, 44), (0, 44), (0, 44)]):
        part = inferer(own).inside(image.view_as(image), network, box)
        assert torch.allclose(part, whole[:, box[0][0] : box[0][1]], atol=1e-6)
    assert len(asked) == 1
    other = image * 2
    del image
    inferer(own).inside(other, network)
    assert len(asked) == 2


def test_without_the_memory_for_two_patches_nothing_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small()
    own = compared(network)

    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(own, "measured", fails)
    moved, plain = inferer(own), inferer(None)
    assert torch.equal(moved(scan()[None], network), plain(scan()[None], network))
    assert moved.notes["scan_statistics"] == 0


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_features_come_onto_the_reference_before_they_are_normalised(share: float) -> None:
    network = small()
    own, norm = compared(network, share), network[1]
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    found, usual = own.measured(scan(), network, network)[0]["1"], own.reference["1"]
    x = torch.randn(1, 4, 5, 5, 5, dtype=torch.float64)
    shape = (4, 1, 1, 1)
    ratio = (found[1] / usual[1]) ** (share / 2)
    brought = usual[0].view(shape) + (x - (usual[0] + share * (found[0] - usual[0])).view(shape)) / ratio.view(shape)
    expected = norm.weight.view(shape) * (brought - mean.view(shape)) / variance.sqrt().view(shape)
    with torch.no_grad(), own.of(scan(), network, network) as used:
        assert used == share
        assert torch.allclose(norm(x), expected + norm.bias.view(shape), atol=1e-9)


def test_the_network_is_as_it_was_afterwards_and_after_a_failure() -> None:
    network, image = small(), scan()
    before, own = deepcopy(network.state_dict()), compared(network)
    inferer(own)(image[None], network)
    with pytest.raises(RuntimeError, match="broken"), own.of(image, network, network):
        raise RuntimeError("broken")

    def fails(block: torch.Tensor) -> torch.Tensor:
        network(block)
        raise RuntimeError("broken within")

    with pytest.raises(RuntimeError, match="within"), own.of(scan(7), network, fails):
        pass
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not network[1].training and network[1].momentum == 0.1


def test_a_box_has_the_numbers_of_the_whole_scan() -> None:
    network, image, box = small(), scan(), [(3, 30), (8, 21), (0, 44)]
    own = compared(network)
    whole = inferer(own).inside(image, network)
    part = inferer(own).inside(image, network, box)
    assert torch.allclose(part, whole[:, 3:30, 8:21], atol=1e-6)


def test_few_windows_count_less_and_no_tissue_gives_numbers() -> None:
    network = small()
    of_one = inferer(compared(network))
    of_one(torch.randn(1, 2, 16, 16, 16, dtype=torch.float64), network)
    assert of_one.notes["scan_statistics"] == 0.125
    flat = torch.zeros(1, 2, 12, 12, 12, dtype=torch.float64)
    assert of_one(flat, network).isfinite().all()


def test_without_a_reference_nothing_is_moved_and_it_is_said() -> None:
    network = small()
    alone, plain = inferer(ScanStatistics(1.0, WINDOW)), inferer(None)
    assert torch.equal(*(one(scan()[None], network) for one in (alone, plain)))
    assert alone.notes["scan_statistics"] == 0 and "scan_statistics" not in plain.notes


def test_a_scan_that_lacks_a_channel_is_left_alone() -> None:
    """The reference is of scans that have all; a channel that is 0 throughout is one that is not there."""
    network = small()
    moved, plain = inferer(compared(network)), inferer(None)
    image = scan()
    image[1] = 0
    assert torch.equal(*(one(image[None], network) for one in (moved, plain)))
    assert moved.notes["scan_statistics"] == 0
    moved(scan()[None], network)
    assert moved.notes["scan_statistics"] > 0


def test_windows_lie_in_the_tissue_and_are_always_the_same() -> None:
    image = torch.zeros(1, 60, 60, 60)
    image[:, 30:50, 30:50, 30:50] = torch.randn(1, 20, 20, 20)
    starts, filled = _starts(image, (8, 8, 8), 32)
    assert filled == pytest.approx(20**3 / 8**3) and len(starts) == 32
    centres = np.array(starts) + 4
    assert (centres >= 30).all() and (centres < 50).all()
    assert starts == _starts(image, (8, 8, 8), 32)[0]


@pytest.mark.parametrize("share", [-0.1, 1.5, "half", True])
def test_what_is_no_share_is_refused(share: object) -> None:
    with pytest.raises(RequestError, match="expected a share from 0 to 1"):
        ScanStatistics(share, WINDOW)  # type: ignore[arg-type]


def test_the_reference_of_another_network_is_refused() -> None:
    network = small()
    own = compared(network)
    own.reference = {"2": own.reference["1"]}
    with pytest.raises(RequestError, match="of another network"):
        inferer(own)(scan()[None], network)


QUICK = (*SMALL, "patch_size=[12,12,12]", "scan_statistics=1")


def test_a_run_writes_the_reference_at_its_end_and_predicts_with_it(
    dataset_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    """Of the model that was kept; one that goes on forgets it until its own end."""
    run = tmp_path / "run"
    assert train(dataset_dir, run, settings=QUICK, iterations=4, device="cpu") == 0
    config = read_yaml(run / "configs" / "inference.yaml") | {"bundle_root": str(run)}
    network = load_weights(build(config, "network_def"), run / "models" / "model.pt")
    reference = load_statistics(run / STATISTICS_FILE)
    assert {name: tuple(one.shape) for name, one in reference.items()} == {
        name: (2, norm.num_features) for name, norm in norms_of(network).items()
    }
    assert STATISTICS_FILE in (run / "sha256sums.txt").read_text()
    scans = sorted((task_dir / "imagesTr").iterdir())[:2]
    for name, more in (("moved", []), ("plain", ["scan_statistics=0"])):
        assert predict(run, scans, tmp_path / name, device="cpu", settings=more) == 0
    rows = [read_json(tmp_path / name / "predictions.json")["scans"] for name in ("moved", "plain")]
    assert all(0 < row["scan_statistics"] <= 1 for row in rows[0])
    assert all("scan_statistics" not in row for row in rows[1])
    before = (run / STATISTICS_FILE).read_bytes()
    assert train(dataset_dir, run, resume=True, iterations=8, device="cpu") == 0
    assert (run / STATISTICS_FILE).read_bytes() != before


def test_a_run_of_a_network_without_batch_norms_ends_well(dataset_dir: Path, tmp_path: Path, capsys) -> None:
    settings = ("patch_size=[16,16,16]", "network_def#width=2", "network_def#norm=instance", "scan_statistics=0.5")
    assert train(dataset_dir, tmp_path / "run", settings=settings, iterations=2, device="cpu") == 0
    assert "scan_statistics does nothing" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "run" / "sha256sums.txt").is_file() and not (tmp_path / "run" / STATISTICS_FILE).exists()


def test_a_run_that_does_not_ask_for_it_has_none(run_dir: Path) -> None:
    assert not (run_dir / STATISTICS_FILE).exists()
    assert load_statistics(run_dir / STATISTICS_FILE) is None


@pytest.mark.parametrize("there", [False, True])
def test_asked_for_where_nothing_can_be_moved_it_is_told(tmp_path: Path, capsys, there: bool) -> None:
    run = tmp_path / "run"
    if there:
        (run / "models").mkdir(parents=True)
        (run / STATISTICS_FILE).touch()
    tell_unmoved([run], ["gates={}", "scan_statistics=0"])
    assert not capsys.readouterr().err
    tell_unmoved([run], ["scan_statistics=0.5"])
    said = " ".join(capsys.readouterr().err.split())
    assert ("scan_statistics changes nothing" in said and str(run) in said.replace(" ", "")) is not there


def test_a_damaged_reference_is_told(tmp_path: Path) -> None:
    (tmp_path / "scan_statistics.pt").write_bytes(b"no statistics")
    with pytest.raises(RequestError, match="not a readable checkpoint"):
        load_statistics(tmp_path / "scan_statistics.pt")
