"""nnU-Net v2's own pipeline for a fixed wall time on lesions: a peer of `lesions.py`, run by a Python that has it.

Planned and preprocessed by nnU-Net ("3d_fullres", its own patch and batch size) before the time runs; all scans given
train (fold "all"), by its trainer's own step, polynomial decay over the wall time; prediction without mirroring.

    python benchmarks/lesions_nnunet.py SCANS.json MINUTES OUT
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

NAME = "Dataset001_Lesions"


def lay(asked: dict[str, list[str]], out: Path) -> None:
    """The raw folder of nnU-Net, of links; and its planning."""
    raw = out / "raw" / NAME
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (raw / part).mkdir(parents=True)
    for part, folder in (("train", "imagesTr"), ("test", "imagesTs")):
        for scan in map(Path, asked[part]):
            for number, channel in enumerate(asked["channels"]):
                (raw / folder / f"{scan.name}_{number:04}.nii.gz").symlink_to(scan / f"{channel}.nii.gz")
            if part == "train":
                (raw / "labelsTr" / f"{scan.name}.nii.gz").symlink_to(scan / "lesion.nii.gz")
    described = {
        "channel_names": {str(number): name for number, name in enumerate(asked["channels"])},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(asked["train"]),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(described))
    words = ["nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "3d_fullres", "-np", "1", "-npfp", "1"]
    subprocess.run(words, check=True)


def main() -> None:
    """Plan, train and label."""
    asked, minutes, out = json.loads(Path(sys.argv[1]).read_text()), float(sys.argv[2]), Path(sys.argv[3])
    for key, folder in (("nnUNet_raw", "raw"), ("nnUNet_preprocessed", "preprocessed"), ("nnUNet_results", "results")):
        os.environ[key] = str(out / folder)
    os.environ.update({"nnUNet_n_proc_DA": "1", "nnUNet_compile": "false"})
    lay(asked, out)
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    plans = json.loads((out / "preprocessed" / NAME / "nnUNetPlans.json").read_text())
    dataset = json.loads((out / "preprocessed" / NAME / "dataset.json").read_text())
    device = torch.device("cpu")
    trainer = nnUNetTrainer(plans={**plans, "continue_training": False}, configuration="3d_fullres", fold="all",
                            dataset_json=dataset, device=device)  # fmt: skip
    began, steps = time.monotonic(), 0
    trainer.on_train_start()
    trainer.network.train()
    while (gone := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - gone) ** 0.9
        trainer.train_step(next(trainer.dataloader_train))
        steps += 1
    print(f"{steps} steps of {trainer.batch_size} patches of {trainer.configuration_manager.patch_size}", flush=True)
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(tile_step_size=0.5, use_gaussian=True, use_mirroring=False,
                                perform_everything_on_device=False, device=device, allow_tqdm=False)  # fmt: skip
    weights = [trainer.network.state_dict()]
    plan, mirrored = trainer.configuration_manager, trainer.inference_allowed_mirroring_axes
    network = trainer.network.eval()
    predictor.manual_initialization(network, trainer.plans_manager, plan, weights, dataset, "nnUNetTrainer", mirrored)
    names, raw = [Path(scan).name for scan in asked["test"]], out / "raw" / NAME / "imagesTs"
    images = [[str(raw / f"{name}_{number:04}.nii.gz") for number in range(len(asked["channels"]))] for name in names]
    targets = [str(out / "maps" / name) for name in names]
    predictor.predict_from_files_sequential(images, targets, False, True, None)
    for folder in ("raw", "preprocessed", "results"):
        shutil.rmtree(out / folder, ignore_errors=True)
    os._exit(0)  # its loaders' threads do not end


if __name__ == "__main__":
    main()
