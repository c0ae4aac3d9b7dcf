"""What a training run is made of: budget, step, validation, checkpoints, logs."""

from rarevox.pipeline.faces import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "budget": ["Budget", "PolynomialDecay"],
        "dice_metric": ["HardDice"],
        "draws.hard_patches": ["HardPatches"],
        "draws.loader": ["patch_loader"],
        "draws.patch_counts": ["PatchCounts"],
        "draws.patch_dataset": ["PatchDataset"],
        "draws.scan_mining": ["ScanMining"],
        "interruption": ["Interruption"],
        "kept.checkpoint": ["load_weights"],
        "kept.initial_weights": ["InitialWeights"],
        "kept.norm_statistics": ["load_statistics"],
        "kept.run_checkpoint": ["RunCheckpoint"],
        "processes": ["share_of", "together"],
        "progress": ["ProgressLine"],
        "record.batch_record": ["BatchRecord"],
        "record.gradient_log": ["GradientLog"],
        "record.mlflow_tracker": ["mlflow_tracker"],
        "record.planting_page": ["PlantingPage"],
        "record.run_log": ["RunLog"],
        "steps.alternating": ["AlternatingStep"],
        "steps.loss_schedule": ["LossSchedule"],
        "steps.muon": ["Muon"],
        "steps.projected": ["ProjectedStep"],
        "steps.step": ["TrainingStep"],
        "steps.weight_average": ["WeightAverage"],
        "validation": ["Validation"],
    },
)
