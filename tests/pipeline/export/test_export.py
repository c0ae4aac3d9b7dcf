from __future__ import annotations

import importlib.util
import json
import math
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from rarevox.networks import DeepMedic
from rarevox.pipeline.build import build
from rarevox.pipeline.compose import write_yaml
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.export import export as stage
from rarevox.pipeline.export.export import export, images, load
from rarevox.pipeline.plain_data import read_yaml
from rarevox.transforms.decision import Decision
from tests import forked
from tests.pipeline.export.untrained import untrained_run


def test_every_format_gives_the_networks_logits(run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert export(run_dir, tmp_path / "out") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "export.json",
        "model.onnx",
        "model.pt2",
        "model.ts",
    ]
    told = json.loads((tmp_path / "out" / "export.json").read_text())
    assert told["classes"] == ["background", "ball", "box"]
    sizes = {"minimum": [1] * 3, "multiple": [1] * 3, "base": [0] * 3, "margin": [0] * 3, "loss_margin": [0] * 3}
    assert told["geometry"] == sizes
    assert told["files"]["model.onnx"]["opset"] >= 18
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    network, x = load(run_dir)[0], torch.randn(1, 1, 21, 9, 13)
    programs = (
        torch.jit.load(str(tmp_path / "out" / "model.ts")),
        torch.export.load(tmp_path / "out" / "model.pt2").module(),
        lambda x: torch.from_numpy(session.run(None, {"image": x.numpy()})[0]),
    )
    with torch.no_grad():
        for program in programs:
            torch.testing.assert_close(program(x), network(x), rtol=1e-4, atol=1e-4)


def test_a_file_alone(run_dir: Path, tmp_path: Path) -> None:
    assert export(run_dir, tmp_path / "brain.ts") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["brain.json", "brain.ts"]


def test_what_predict_does_besides_is_told(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The norms of a program are those of the training, whatever the scan."""
    assert export(run_dir, tmp_path / "plain.ts") == 0
    assert "scan_statistics" not in capsys.readouterr().err
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    config = read_yaml(run / "configs" / "inference.yaml") | {"scan_statistics": 1.0}
    (run / "configs" / "inference.yaml").write_text(write_yaml(config))
    torch.save({"norm": torch.zeros(2, 4)}, run / "models" / "scan_statistics.pt")
    assert export(run, tmp_path / "moved.ts", trust=True) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "hold its labels against rarevox predict --set scan_statistics=0" in said
    told = [json.loads((tmp_path / f"{name}.json").read_text())["scan_statistics"] for name in ("plain", "moved")]
    assert told == [0.0, 1.0]


def test_the_rule_of_a_run_with_operating_points_stands_in_the_file(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points, temperature = {"ball": {"threshold": 0.2, "confidence": 0.8}}, 1.7
    run = Path(shutil.copytree(run_dir, tmp_path / "run"))
    file = run / "configs" / "inference.yaml"
    file.write_text(write_yaml(read_yaml(file) | {"operating_points": points, "temperature": temperature}))
    assert export(run, tmp_path / "points.ts") == 0
    assert "operating points (ball: threshold 0.2" in " ".join(capsys.readouterr().err.split())
    told = json.loads((tmp_path / "points.json").read_text())
    assert (told["operating_points"], told["temperature"], told["optional_channels"]) == (points, temperature, [])
    assert told["output"].endswith(
        "the class is the largest after temperature * ln((1 - t) / t) is added to each but the background's, t the "
        "threshold of operating_points and 0.5 where there is none"
    )
    logits = 3 * torch.randn(3, 500, generator=torch.Generator().manual_seed(0))
    raised = logits + temperature * torch.tensor([0.0, math.log(0.8 / 0.2), 0.0])[:, None]
    labels = Decision(told["operating_points"], told["classes"][1:]).classes((logits / temperature).log_softmax(0))
    assert torch.equal(raised.argmax(0), labels) and not torch.equal(logits.argmax(0), labels)


def test_a_structure_without_entries_is_no_operating_point(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(run_dir, tmp_path / "run"))
    file = run / "configs" / "inference.yaml"
    file.write_text(write_yaml(read_yaml(file) | {"operating_points": {"ball": None}}))
    assert export(run, tmp_path / "empty.ts") == 0
    assert "operating points" not in capsys.readouterr().err
    told = json.loads((tmp_path / "empty.json").read_text())
    assert (told["operating_points"], told["output"].endswith("the class is the largest")) == ({}, True)


@pytest.mark.parametrize(
    ("network", "slice_axis", "edges", "last"),
    [
        ("unet", None, (1.0, 3.0, 2.0), 2),
        ("unet2d", "auto", (1.0, 3.0, 2.0), 1),
        ("unet2d", "auto", (2.015, 2.0, 2.0), 2),
        ("unet2d", "sagittal", (1.0, 3.0, 2.0), 0),
    ],
)
def test_a_scan_made_ready_by_what_is_told_is_what_rarevox_makes_of_it(
    network: str, slice_axis: str | None, edges: tuple[float, ...], last: int, dataset_dir: Path, tmp_path: Path
) -> None:
    """From the JSON alone, by nibabel and NumPy: axes, slices, crop and normalisation."""
    # Over the whole image this normalisation is (x - mean) / standard deviation.
    settings = ["crop_to_content=true", "normalisation={_target_: rarevox.transforms.ZScored, keys: image}"]
    settings += ["network_def#channels=[4,8,8,8]"] if network == "unet" else []
    settings += [] if slice_axis is None else [f"slice_axis={slice_axis}"]
    run = untrained_run(tmp_path / "run", dataset_dir, network, settings)
    told = json.loads(json.dumps(load(run)[2]))
    assert (told["orientation"], told["slice_axis"], told["crop_to_content"]) == ("RAS", slice_axis, True)
    assert (told["spacing_mm"], told["fill_surround"], told["n4"]) == (None, False, False)
    assert ("moved to the end" in told["input"]) == (slice_axis is not None)
    assert ("that of the largest spacing" in told["input"]) == (slice_axis == "auto")

    content = np.zeros((9, 11, 13), np.float32)  # anterior, left, inferior
    content[2:7, 1:9, 3:12] = np.random.default_rng(0).uniform(1, 2, (5, 8, 9))
    affine = np.array([[0, -edges[0], 0, 5], [edges[1], 0, 0, 6], [0, 0, -edges[2], 7], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(content, affine), tmp_path / "scan.nii.gz")
    config = read_yaml(run / "configs" / "inference.yaml") | {"bundle_root": str(run)}
    expected = build(config, "preprocessing")({"image": str(tmp_path / "scan.nii.gz")})["image"].numpy()

    scan = nib.load(tmp_path / "scan.nii.gz")
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(told["orientation"])
    )
    ready = scan.as_reoriented(turn)
    assert ready.header.get_zooms() == pytest.approx(edges)
    image = np.moveaxis(np.asarray(ready.dataobj), last, -1)
    image = image[tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(image))]
    np.testing.assert_allclose(expected[0], (image - image.mean()) / image.std(), atol=1e-5)


def test_what_else_is_done_to_scans_is_told(dataset_dir: Path, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", dataset_dir, "unet", ["network_def#channels=[4,8,8,8]", "n4=true"])
    file = run / "configs" / "inference.yaml"
    config = read_yaml(file) | {"fill_surround": True, "spacing": [1.0, 1.0, 2.0]}
    file.write_text(write_yaml(config))
    told = load(run)[2]
    steps = ("fill_surround", "n4", "orientation", "spacing_mm", "slice_axis", "crop_to_content", "normalisation")
    assert [told[name] for name in steps[:-1]] == [True, True, "RAS", [1.0, 1.0, 2.0], None, False]
    assert [name for name in told if name in steps] == list(steps), "in the order of the preprocessing"
    places = [
        str(config["preprocessing"]["transforms"]).index(name)
        for name in (
            "FillSurroundd",
            "N4Correctedd",
            "Orientationd",
            "Spacingd",
            "SlicesLastd",
            "CropToContentd",
            "@normalisation",
        )
    ]
    assert places == sorted(places)
    # A run of an earlier version, and one whose scans keep their own axes.
    kept = [one for one in config["preprocessing"]["transforms"] if "Orientationd" not in str(one)]
    kept = [one for one in kept if "fill_surround" not in str(one)]
    config["preprocessing"]["transforms"] = kept
    del config["fill_surround"]
    file.write_text(write_yaml(config))
    told = load(run)[2]
    assert (told["fill_surround"], told["orientation"]) == (False, None)
    assert told["input"].endswith("*spatial are the axes of the scan")


def test_other_numbers_leave_no_file(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "read", lambda file, kind: lambda x: torch.zeros(x.shape[0], 3, *x.shape[2:]))
    with pytest.raises(RequestError, match=r"differ from the network's by .*; nothing was written"):
        export(run_dir, tmp_path, ["torchscript"])
    assert not list(tmp_path.iterdir())


def test_wrong_requests_are_one_sentence(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="is not a run"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(RequestError, match="is a file of format onnx, and --format asks for pt2"):
        export(run_dir, tmp_path / "model.onnx", ["pt2"])
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="is no folder"):
        export(run_dir, tmp_path / "file", ["pt2"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"--editable '\.\[export\]' in the checkout"):
        export(run_dir, tmp_path / "out", ["onnx"])


def test_images_differ_and_fit() -> None:
    geometry = DeepMedic(in_channels=1, out_channels=2, channels=(2,) * 8, joint=(4,)).geometry
    found = images(geometry, 1)
    assert len({x.shape[2:] for x in found}) == 4
    assert all(geometry.accepts(tuple(x.shape[2:])) for x in found)


# Of the package a fork has what a fresh process has: it is imported when it is named, or it is nowhere.
MONAIS_TOOLS = """
import json, runpy, sys
class Nowhere:
    def find_spec(self, name, *_):
        if name.partition('.')[0] == 'rarevox':
            raise ModuleNotFoundError('no module', name=name)
installed, *calls = json.loads(sys.argv[1])
if not installed:
    sys.meta_path.insert(0, Nowhere())
for name in [name for name in sys.modules if name.partition('.')[0] == 'rarevox']:
    del sys.modules[name]
for arguments in calls:
    sys.argv = ['monai.bundle', *arguments]
    try:
        runpy.run_module('monai.bundle', run_name='__main__')
        print('ended with', 0, file=sys.stderr)
    except SystemExit as end:
        print('ended with', end.code, file=sys.stderr)
assert installed == any(name.partition('.')[0] == 'rarevox' for name in sys.modules)
"""


def monai(run: Path, *calls: list[str], installed: bool) -> list[str]:
    """How MONAI's tools end in a run, called one after another; without rarevox where nothing is to find it."""
    done = forked.run(["-c", MONAIS_TOOLS, json.dumps([installed, *calls])], cwd=run)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    return [line.removeprefix("ended with ") for line in done.stderr.splitlines() if line.startswith("ended with ")]


def test_monais_tools_take_a_run(run_dir: Path, tmp_path: Path) -> None:
    inference = ["--config_file", "configs/inference.yaml"]
    verify = ["verify_net_in_out", "network_def", *inference, "--meta_file", "configs/metadata.json", "--device", "cpu"]
    export_it = ["ckpt_export", "--use_trace", "True", "--filepath", str(tmp_path / "model.ts"), *inference]
    assert monai(run_dir, verify, export_it, installed=True) == ["0", "0"]
    network, x = load(run_dir)[0], torch.randn(1, 1, 18, 21, 10)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(str(tmp_path / "model.ts"))(x), network(x), rtol=1e-4, atol=1e-4)


def test_without_rarevox_monais_tools_say_in_one_sentence_that_it_must_be(run_dir: Path, tmp_path: Path) -> None:
    """The absence is that of an interpreter in which nothing finds the package."""
    inference = ["--config_file", "configs/inference.yaml"]
    ends = monai(
        run_dir,
        ["verify_net_in_out", "network_def", *inference, "--meta_file", "configs/metadata.json", "--device", "cpu"],
        ["ckpt_export", "--use_trace", "True", "--filepath", str(tmp_path / "model.ts"), *inference],
        ["run", *inference, "--dataset_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")],
        ["run", "--config_file", "configs/evaluate.yaml", "--output_dir", str(tmp_path / "out")],
        ["run", "--config_file", "configs/train.yaml"],
        installed=False,
    )
    assert ends == [
        "This bundle needs the package rarevox, which is not installed here; install it with: pip install . in the "
        "checkout of rarevox"
    ] * len(ends)
    assert len(ends) == 5 and not list(tmp_path.iterdir())


def test_a_network_of_monais_own_is_exported_by_monai_where_rarevox_is_not_installed(
    dataset_dir: Path, tmp_path: Path
) -> None:
    run = untrained_run(tmp_path / "run", dataset_dir, "unet", ["network_def#channels=[4,8,8,8]"])
    inference = ["--config_file", "configs/inference.yaml"]
    export_it = ["ckpt_export", "--use_trace", "True", "--filepath", str(tmp_path / "model.ts"), *inference]
    verify = ["verify_net_in_out", "network_def", *inference, "--meta_file", "configs/metadata.json", "--device", "cpu"]
    assert monai(run, verify, export_it, installed=False) == ["0", "0"]
    network, x = load(run)[0], torch.randn(1, 1, 16, 24, 8)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(str(tmp_path / "model.ts"))(x), network(x), rtol=1e-4, atol=1e-4)
