"""Let the real trainer read a dataset and stop before it trains: the truth that fluxkit's preview is tested against.

Run by the trainer's interpreter, in a run's folder with its rendered `config/`. The trainer does its own first stages:
it reads its config, loads the VAE and text encoders, sorts the pictures into buckets, encodes captions and pictures
into its caches, and counts its steps. One line of JSON tells what became of it; the rest is in its own cache files.
"""

import json
import os
import sys

MARK = "fluxkit-dataset:"


def main() -> None:
    """Run the stages of `train.py` up to the data backends."""
    from simpletuner.helpers.training.state_tracker import StateTracker
    from simpletuner.helpers.training.trainer import Trainer

    trainer = Trainer()
    trainer.init_noise_schedule()
    trainer.init_seed()
    trainer.init_huggingface_hub()
    trainer.init_preprocessing_models()
    trainer.init_precision(preprocessing_models_only=True)
    trainer.init_data_backend()
    trainer._recalculate_training_steps()
    buckets = {
        name: {
            str(bucket): len(images)
            for bucket, images in backend["metadata_backend"].aspect_ratio_bucket_indices.items()
        }
        for name, backend in StateTracker.get_data_backends().items()
        if "metadata_backend" in backend
    }
    told = {
        "steps_per_epoch": trainer.config.num_update_steps_per_epoch,
        "epochs": trainer.config.num_train_epochs,
        "buckets": buckets,
    }
    sys.stdout.write(f"\n{MARK}{json.dumps(told)}\n")
    sys.stdout.flush()
    os._exit(0)  # nothing that the trainer would clean up is kept


if __name__ == "__main__":
    main()
