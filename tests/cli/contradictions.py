"""Settings that do not go together, each right by itself: recipe and overlays, options, and a word of the refusal."""

DECODER = "--model.decoder=lit_bottleneck.networks.MLP --model.decoder.hidden=[]"
DUAL = "--model.beta=lit_bottleneck.beta.DualBeta --model.beta.capacity=1"
HINGE = "--model.beta=lit_bottleneck.beta.CapacityBeta --model.beta.weight=1 --model.beta.capacity=1"
IWAE = "--model.objective=lit_bottleneck.objectives.IWAE --model.objective.num_samples=3"
HEAD = "--model.head=lit_bottleneck.networks.LogitHead"
PLATEAU = "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau --model.lr_scheduler.monitor=val/loss"
TURNED = "--data.nuisance=lit_bottleneck.data.nuisance.Rotation"
SAMPLES = (
    "--trainer.callbacks+=lit_bottleneck.callbacks.SampleQuality --trainer.callbacks.features=lit_bottleneck.metrics."
)

CONTRADICTIONS = [
    # networks, sizes and data of a classifier
    ("vib_digits", "--model.latent_dim=31", "latent_dim"),
    ("vib_digits", "--model.encoder.out_features=63", "latent_dim"),
    ("vib_digits", "--model.encoder.in_features=63", "encoder"),
    ("vib_digits", "--model.num_classes=5", "num_classes"),
    ("vib_digits", f"{DECODER} --model.decoder.in_features=32 --model.decoder.out_features=9", "num_classes"),
    ("vib_digits", f"{DECODER} --model.decoder.in_features=31 --model.decoder.out_features=10", "decoder"),
    ("vib_digits", f"{DUAL} --model.beta.beta_init=0", "beta_init"),
    ("vib_digits", "--data=lit_bottleneck.data.Ring", "encoder"),
    ("vib_digits", "--data.val_size=1438", "val_size"),
    ("vib_digits", f"{TURNED} --data.binarize=static", "binarize"),
    ("vib_digits", "--data.value_range=[-1,1] --data.binarize=static", "binarize"),
    # of a VAE
    ("vae_digits", "--model.likelihood=bernoulli", "likelihood"),
    ("vae_digits", "--model.decoder.numbers_per_output=1", "numbers_per_output"),
    ("vae_digits", "--model.decoder.latent_dim=8", "latent_dim"),
    ("vae_digits", "--model.decoder.dims=[1,8,9]", "decoder"),
    ("vae_digits", "--model.encoder.in_features=65", "encoder"),
    ("vae_digits", f"{IWAE} --model.deterministic=true", "objective"),
    ("vae_digits", f"{IWAE} --model.free_bits=0.1", "free_bits"),
    ("vae_digits", f"{IWAE} {HINGE}", "objective"),
    # of a GAN
    ("vdbgan_digits", "--model.noise_dim=5", "noise_dim"),
    ("vdbgan_digits", "--model.latent_dim=5", "latent_dim"),
    ("vdbgan_digits", "--model.generator.dims=[1,16,16]", "generator"),
    ("vdbgan_digits", "--model.encoder.dims=[1,16,16]", "encoder"),
    ("vdbgan_digits", f"{HEAD} --model.head.in_features=31", "head"),
    ("vdbgan_digits", "--model.head=torch.nn.Sigmoid", "head"),
    ("vdbgan_digits", "--data.value_range=[0,1]", "value_range"),
    ("vdbgan_digits", f"{PLATEAU} --model.lr_scheduler_interval=step", "lr_scheduler_interval"),
    ("vdbgan_digits", "--trainer.accumulate_grad_batches=2", "accumulate_grad_batches"),
    ("vdbgan_digits", "--trainer.gradient_clip_val=0.5", "gradient_clip_val"),
    ("vdbgan_digits", "--trainer.strategy=fsdp", "strategy"),
    ("vdbgan_digits trainer/ddp", "", "strategy"),
    # measurements
    ("vib_digits measure/factors", "", "factor_names"),
    ("vae_digits measure/paths", "", "classifier"),
    ("vae_digits measure/paths_mnist", "", "vib_mnist"),
    ("vdbgan_digits features/vib_mnist", "", "CodeFeatures"),
    ("vib_digits measure/paths", "--trainer.callbacks.classifier=x.ckpt", "classifier"),
    ("vdbgan_digits measure/paths", "", "Paths"),
    ("vib_digits", f"{SAMPLES}RawFeatures", "SampleQuality"),
    ("vdbgan_ring", f"{SAMPLES}InceptionFeatures --trainer.callbacks.every_n_epochs=1", "InceptionFeatures"),
    # trainer, machine and logger
    ("vib_digits", "--trainer.accelerator=tpu", "trainer: Requirement"),
    ("vib_digits", "--trainer.precision=12", "precision"),
    ("vib_digits", "--trainer.profiler=nonsense", "profiler"),
    ("vib_digits", "--trainer.plugins=nonsense", "plugins"),
    ("vib_digits", "--trainer.barebones=true", "barebones"),
    ("vib_digits", "--trainer.enable_checkpointing=false", "enable_checkpointing"),
    ("vib_digits", "--trainer.overfit_batches=1.5", "overfit_batches"),
    ("vib_digits", "--trainer.gradient_clip_algorithm=nonsense", "gradient_clip_algorithm"),
    ("vib_digits", "--trainer.max_time=soon", "soon"),
    ("vib_digits", "--trainer.max_epoch=3", "max_epoch"),  # an abbreviation
    ("vib_digits", "--trainer=[1]", "trainer"),
    ("vib_digits logger/wandb", "--trainer.logger.log_model=all", "log_model"),
]
