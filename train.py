"""Train a network on ROOT files: ``python train.py data=ttH model=dnn``.

Every option is in ``configs/``; ``python train.py --help`` lists the groups, ``--cfg job`` shows the composed options.
"""

from __future__ import annotations

from omegaconf import DictConfig

from rootdata.app import building, folds, launch


@launch.main(config_path="configs", config_name="train")
def main(config: DictConfig) -> float | None:
    """Fit, test with the best checkpoint, export it, and say where everything is."""
    import pytorch_lightning as pl
    from rich.console import Console

    from rootdata.app.rebuild import export_best

    console, folder = Console(), config.paths.output_dir
    pl.seed_everything(config.seed, workers=True)
    data = building.build(config.data)
    data.prepare_data()
    model = building.build_model(config, data)
    callbacks, loggers = building.build_all(config.get("callbacks")), building.build_all(config.get("logger"))
    trainer = building.build_trainer(config, callbacks=callbacks, loggers=loggers)
    if trainer.is_global_zero:
        console.print(data.summary())
        launch.save_inputs(config, data, folder=folder)

    if config.train:
        trainer.fit(model, datamodule=data, ckpt_path=config.ckpt_path)
    checkpoint = trainer.checkpoint_callback
    best, score = getattr(checkpoint, "best_model_path", ""), getattr(checkpoint, "best_model_score", None)
    if config.test:
        trainer.test(model, datamodule=data, ckpt_path=best or config.ckpt_path, verbose=False)
    if trainer.is_global_zero:
        if config.export and (config.train or config.ckpt_path) and not folds.is_joined(config):
            export_best(trainer, model, data, folder=folder, ckpt_path=config.ckpt_path, latest=config.paths.latest)
        console.print(launch.outcome(trainer, folder=folder))
    return None if score is None else float(score)  # what a Hydra sweeper optimises


if __name__ == "__main__":
    main()
