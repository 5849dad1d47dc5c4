"""Wrong settings, one of each kind: recipe and overlays, options, and words of the message."""

MODEL, DATA = "lit_bottleneck.VIBClassifier", "lit_bottleneck.data.Digits"
DECODER = "--model.decoder=lit_bottleneck.networks.MLP --model.decoder.hidden=[]"
DUAL = "--model.beta=lit_bottleneck.beta.DualBeta --model.beta.capacity"
HINGE = "--model.beta=lit_bottleneck.beta.CapacityBeta --model.beta.weight=1 --model.beta.capacity=1"
IWAE = "--model.objective=lit_bottleneck.objectives.IWAE --model.objective.num_samples=3"
HEAD = "--model.head=lit_bottleneck.networks.LogitHead"
PLATEAU = "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau --model.lr_scheduler.monitor=val/loss"
TURNED = "--data.nuisance=lit_bottleneck.data.nuisance.Rotation"
SAMPLES = (
    "--trainer.callbacks+=lit_bottleneck.callbacks.SampleQuality --trainer.callbacks.features=lit_bottleneck.metrics."
)
RESUME = "--trainer.callbacks+=lit_bottleneck.callbacks.ResumePoint"
STOP = "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping --trainer.callbacks.monitor=val/loss"
CPU = "--trainer.accelerator=cpu"

Case = tuple[str, str, str]

WHILE_PARSED: list[Case] = [
    # keys
    ("vib_digits", "--trainer.max_epoch=3", "unrecognized arguments: --trainer.max_epoch=3"),  # an abbreviation
    ("vib_digits", "--model.betta=1", "betta"),
    ("vib_digits", "--optimizer=SGD", "it is an argument of the model, --model.init_args.optimizer"),
    ("vib_digits", "--lr_scheduler.gamma=0.1", "it is an argument of the model, --model.init_args.lr_scheduler"),
    ("vib_digits", "--trainer.callbacks.monitr=1", "monitr"),
    ("", f"--model={MODEL} --data={DATA}", "encoder"),
    ("vib_digits", "--trainer=[1]", "trainer"),
    # classes
    ("vib_digits", "--model=lit_bottleneck.VIBClasifier", "VIBClasifier"),
    ("vib_digits", "--model.encoder=nowhere.Thing", "nowhere"),
    (
        "vib_digits",
        "--model.encoder=collections.OrderedDict",
        "encoder: Import path collections.OrderedDict",
    ),
    ("vib_digits", "--trainer.plugins=nonsense", "plugins"),
    # values
    ("vib_digits", "--model.latent_dim=many", "model.init_args.latent_dim: must be int; got many"),
    ("vib_digits", "--model.latent_dim={'wrong':1}", "model.init_args.latent_dim: must be int; got"),
    ("vib_digits", "--model.deterministic=perhaps", "model.init_args.deterministic: must be bool; got perhaps"),
    ("vib_digits", "--model.encoder.hidden=[16,many]", "hidden"),
    ("vib_digits", "--model.scale=linear", "scale"),
    ("vib_digits", "--model.optimizer.lr=fast", "model.init_args.optimizer.init_args.lr: must be float"),
    ("vib_digits", "--trainer.precision=12", "trainer.precision: must be Literal[64, 32, 16]"),
    ("vib_digits", "--seed_everything=-5", "seed_everything: must be at least 0 and below 2**32; got -5"),
]

WHILE_BUILT: list[Case] = [
    ("vib_digits", "--model.beta=.nan", "model (VIBClassifier): beta must be a finite number"),
    ("vib_digits", "--model.beta=-1", "beta must be a finite number that is not negative; got -1"),
    ("vib_digits", f"{DUAL}=-2", "model.init_args.beta (DualBeta): capacity"),
    ("vib_digits", f"{DUAL}=1 --model.beta.beta_init=0", "beta_init"),
    ("vib_digits", f"--model.encoder.in_features={10**30}", "model.init_args.encoder (MLP): in_features"),
    ("vib_digits", "--model.encoder.hidden=[0]", "model.init_args.encoder (MLP): hidden"),
    ("vib_digits", "--data.batch_size=0", "data (Digits): batch_size"),
    ("vib_digits", "--data.val_size=-3", "data (Digits): val_size"),
    ("vib_digits", "--data=lit_bottleneck.data.Images --data.name=MNOST", "MNOST"),
    ("vib_digits", f"{TURNED} --data.binarize=static", "binarize"),
    ("vib_digits", "--data.value_range=[-1,1] --data.binarize=static", "binarize"),
    ("vib_digits", "--trainer.max_time=soon", "trainer.max_time: must be a time above zero, DD:HH:MM:SS"),
    ("vib_digits logger/wandb", "--trainer.logger.log_model=all", "log_model"),
    ("vib_digits", "--trainer.callbacks.filename={nope", "got '{nope': expected '}' before end of string"),
    ("vib_digits", "--trainer.callbacks.filename={epoch:zz}", "filename must be text with names and formats in braces"),
    ("vib_digits", "--trainer.callbacks.filename={val/loss:d}", "got '{val/loss:d}': Unknown format code 'd'"),
    ("vib_digits", f"{RESUME} {RESUME}", "trainer.callbacks: there must be one ResumePoint at most; got 2"),
    (
        "vib_digits",
        f"{STOP} {STOP}",
        "a checkpoint cannot tell two callbacks apart, EarlyStopping{'monitor': 'val/loss'",
    ),
    (
        "vib_digits",
        "--trainer.plugins=lightning.pytorch.plugins.io.AsyncCheckpointIO",
        "AsyncCheckpointIO returns before",
    ),
    ("vib_digits", f"{CPU} --trainer.devices=-1", "trainer.devices: on a CPU must be auto, or a number"),
    ("vib_digits", f"{CPU} --trainer.precision=16-true", "set bf16-true or 32-true"),
    # sizes of networks
    ("vib_digits", "--model.latent_dim=31", "latent_dim=31 needs an encoder that returns 62 numbers per example"),
    ("vib_digits", f"{DECODER} --model.decoder.in_features=32 --model.decoder.out_features=9", "num_classes"),
    ("vae_digits", "--model.likelihood=bernoulli", "likelihood"),
    ("vae_digits", "--model.decoder.latent_dim=8", "latent_dim"),
    ("vdbgan_digits", "--model.noise_dim=5", "noise_dim=5, but the DCGANGenerator takes noise of a width of 32"),
    ("vdbgan_digits", "--model.head=torch.nn.Sigmoid", "head"),
    # objectives and penalties
    ("vae_digits", f"{IWAE} --model.deterministic=true", "objective"),
    ("vae_digits", f"{IWAE} --model.free_bits=0.1", "free_bits"),
    ("vae_digits", f"{IWAE} {HINGE}", "objective"),
    ("vdbgan_digits", "--model.gradient_penalty=-1", "weight of gradient_penalty must be a finite number above 0"),
    ("vdbgan_digits features/vib_mnist", "", "CodeFeatures"),
]

LATER: list[Case] = [
    # networks and data
    ("vib_digits", "--model.encoder.in_features=63", "encoder"),
    ("vib_digits", "--model.num_classes=5", "num_classes=5, but the labels of Digits have 10 values"),
    ("vib_digits", f"{DECODER} --model.decoder.in_features=31 --model.decoder.out_features=10", "decoder"),
    ("vib_digits", "--data=lit_bottleneck.data.Ring", "encoder"),
    ("vib_digits", "--data.val_size=1438", "val_size"),
    ("vae_digits", "--model.decoder.dims=[1,8,9]", "decoder"),
    ("vae_digits", "--model.encoder.in_features=65", "encoder"),
    ("vdbgan_digits", "--model.generator.dims=[1,16,16]", "generator"),
    ("vdbgan_digits", "--model.encoder.dims=[1,16,16]", "encoder"),
    ("vdbgan_digits", f"{HEAD} --model.head.in_features=31", "head"),
    ("vdbgan_digits", "--data.value_range=[0,1]", "value_range"),
    # the trainer of a GAN
    ("vdbgan_digits", "--trainer.accumulate_grad_batches=2", "set the model's accumulate_grad_batches=2 instead"),
    ("vdbgan_digits", "--trainer.gradient_clip_val=0.5", "set the model's gradient_clip_val=0.5 instead"),
    ("vdbgan_digits trainer/ddp", "", "set trainer.strategy=ddp_find_unused_parameters_true"),
    ("vdbgan_digits", "--model.optimizer=torch.optim.LBFGS", "optimizer=LBFGS evaluates the loss again within a step"),
    ("vdbgan_digits", f"{PLATEAU} --model.lr_scheduler_interval=step", "lr_scheduler_interval"),
    ("vib_digits", "--model.optimizer.betas=[2,2]", "model.init_args.optimizer (Adam): Invalid beta parameter"),
    # measurements
    ("vib_digits measure/factors", "", "factor_names"),
    ("vae_digits measure/paths", "", "classifier"),
    ("vae_digits measure/paths_mnist", "", "vib_mnist"),
    ("vib_digits measure/paths", "--trainer.callbacks.classifier=x.ckpt", "classifier"),
    ("vdbgan_digits measure/paths", "", "Paths"),
    ("vib_digits", f"{SAMPLES}RawFeatures", "SampleQuality"),
    ("vdbgan_ring", f"{SAMPLES}InceptionFeatures --trainer.callbacks.every_n_epochs=1", "InceptionFeatures"),
]

FURTHER: list[Case] = [  # of the same kinds
    ("vib_digits", "--model.encoder.out_features=63", "latent_dim"),
    ("vae_digits", "--model.decoder.numbers_per_output=1", "numbers_per_output"),
    ("vdbgan_digits", "--model.latent_dim=5", "latent_dim"),
    ("vdbgan_digits", "--trainer.strategy=fsdp", "strategy"),
    ("vib_digits", "--trainer.accelerator=tpu", "trainer: Requirement"),
    ("vib_digits", "--trainer.profiler=nonsense", "profiler"),
    ("vib_digits", "--trainer.barebones=true", "barebones"),
    ("vib_digits", "--trainer.enable_checkpointing=false", "enable_checkpointing"),
    ("vib_digits", "--trainer.overfit_batches=1.5", "overfit_batches"),
    ("vib_digits", "--trainer.gradient_clip_algorithm=nonsense", "gradient_clip_algorithm"),
]
