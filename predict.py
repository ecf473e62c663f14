"""Write the scores of a model beside the events: ``python predict.py bundle=outputs/.../bundle files='data/*.root'``.

Every option is in ``configs/predict.yaml``.
"""

from __future__ import annotations

from omegaconf import DictConfig

from rootdata.app import building, launch


@launch.main(config_path="configs", config_name="predict")
def main(config: DictConfig) -> None:
    """Score the events of all files, and say where the scores are."""
    from rich.console import Console

    from rootdata.analysis.friends.predict import predict

    found = predict(**building.plain(config))
    Console().print(found.summary(), highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
