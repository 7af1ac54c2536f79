"""Typed configuration: what a run is, in one tree of dataclasses.

Files under ``configs/`` build a ``Config``; every checkpoint stores the one it was trained with.
Defaults are the paper's and its authors' release. ``Config.validate`` collects every problem
instead of stopping at the first.
"""

import dataclasses
import json

from instant_gs import cli, config_check
from instant_gs.data import format as data_format


@dataclasses.dataclass
class EncoderConfig:
    """The photo encoder (image to planes). Defaults: the release, 54,147,830 parameters in all.

    ``resnet_widths`` are the channels of the stem and of the four stages, the first as wide as the
    stem; ``tail_widths`` those of the convolutions before the planes' output. ``conv_init``:
    "torch" is the release's; "he" keeps the signal's variance, which a norm-free network needs to
    learn from scratch within hours. ``shortcut`` adds a learned map and one convolution of the
    photo to the planes (``models.encoder.Shortcut``), for training from scratch. ``unwrap`` lays
    the photo out on a rough head first, on a map of that many cells a side (``models.unwrap``),
    and reads colours again where the Gaussians are (``models.reprojection``), then compares what
    they draw with the photo, ``looks`` times (``models.refinement``); 0 does none of these.
    """

    resnet_widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    aspp_width: int = 256
    aspp_rates: tuple[int, ...] = (12, 24, 36)
    token_width: int = 1024
    low_blocks: int = 2
    low_heads: int = 4
    plane_heads: int = 2
    mlp_ratio: int = 2
    branch_width: int = 128
    tail_widths: tuple[int, ...] = (256, 128, 128)
    num_planes: int = 3
    conv_init: str = "torch"
    shortcut: bool = False
    unwrap: int = 0
    looks: int = 1
    remat: bool = False


@dataclasses.dataclass
class GaussianConfig:
    """How plane features become Gaussians.

    ``instantiation``: "plane" (one Gaussian a cell of a ``grid`` x ``grid`` map) or "ray"
    (``rays`` x ``rays`` rays of the reference camera, ``samples_per_ray`` coarse and as many
    fine samples). ``position``: "absolute" is tanh(raw) as released; "anchored" adds a learned
    offset, at most ``max_offset`` world units an axis, to a rough head surface, which is what
    trains from scratch. ``cull`` is of training, and of the model's own functions: "source" drops
    Gaussians invisible under the source expression, as released, "none" keeps them; what the engine
    keeps is decided there (``inference.culling``).
    """

    instantiation: str = "plane"
    grid: int = 512
    rays: int = 64
    samples_per_ray: int = 24
    position: str = "absolute"
    max_offset: float = 0.15
    max_scale: float = 0.05
    cull: str = "source"
    feature_width: int = 48
    hidden_width: int = 96

    @property
    def count(self) -> int:
        """Gaussians of an avatar, those that culling leaves out included."""
        if self.instantiation == "plane":
            return self.grid**2
        return self.rays**2 * 2 * self.samples_per_ray


@dataclasses.dataclass
class MotionConfig:
    """Motion encoder (driving crop to code) and motion decoder (code to residual).

    ``encoder``: "learned" is small and trained here; "fan" is the release's (X-NeMo's), frozen,
    for crops of 224 and codes of 512; its weights come from ``instant_gs.convert``.
    ``residual_space``: "feature" is the paper's; "spatial" moves centres, rotations and scales
    directly, the paper's ablation. ``residual_scale`` multiplies the decoder's output.
    ``widths``, multiples of 8, and ``hidden_width`` size the learned encoder. ``crop`` is the side
    of the centred square that the encoder sees, as a share of the wide picture's side; of a
    narrower view it sees the same part of the head, which that view must show.
    """

    encoder: str = "learned"
    image_size: int = 64
    crop: float = data_format.FACE_CROP
    widths: tuple[int, ...] = (32, 64, 128, 192)
    hidden_width: int = 256
    code_width: int = 512
    residual_space: str = "feature"
    residual_scale: float = 0.01


@dataclasses.dataclass
class ModelConfig:
    """The network. ``image_size`` is the photo's side; ``dtype`` that of the computation.

    ``fov_degrees`` is what the aligned photo shows, and the view of the frontal camera whose
    rays the ray mode samples: 23.28 "wide", 18.837 in the authors' first release. ``raster_mode``
    is how pictures are drawn: "classic", or "antialiased" as in the first release.
    """

    image_size: int = 512
    fov_degrees: float = 23.28
    raster_mode: str = "classic"
    dtype: str = "float32"
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    gaussians: GaussianConfig = dataclasses.field(default_factory=GaussianConfig)
    motion: MotionConfig = dataclasses.field(default_factory=MotionConfig)


@dataclasses.dataclass
class DataConfig:
    """Teacher packs and sampling. Probabilities are per driven target, ``mirror``'s per sample.

    ``threads`` read and decode, each a batch of its own, of which as many are held ready; raise it
    where ``speed/input_seconds`` comes near the step's. The batches do not depend on it.
    ``broken``: "stop" ends training at a broken record; "skip" takes another sample instead.
    """

    packs: tuple[str, ...] = ()
    batch_size: int = 32
    driven_per_sample: int = 1
    cross_identity: float = 0.0
    same_expression: float = 0.1
    mirror: float = 0.0
    cache_gigabytes: float = 2.0
    threads: int = 4
    broken: str = "stop"


@dataclasses.dataclass
class LossSteps:
    """A number of steps of the avatar phase for each loss."""

    l1: int = 0
    lpips: int = 0
    identity: int = 0
    region: int = 0
    residual: int = 0
    mask: int = 0
    adversarial: int = 0


@dataclasses.dataclass
class LossConfig:
    """Weights of the objective. Defaults: the paper's, where it states one.

    ``region`` is the paper's detail loss (L1 on eyes and mouth); ``mask`` is L1 on coverage.
    ``driven`` and ``reconstruction`` scale the two branches. A loss counts from the step
    ``start`` on, and its weight grows linearly for ``ramp`` steps. The paper's adversarial loss
    starts "mid-training"; which step, and the ramp, are ours.
    """

    l1: float = 1.0
    lpips: float = 1.0
    lpips_network: str = "vgg"
    identity: float = 0.1
    region: float = 0.1
    residual: float = 0.001
    mask: float = 0.0
    adversarial: float = 0.025
    driven: float = 1.0
    reconstruction: float = 1.0
    start: LossSteps = dataclasses.field(default_factory=lambda: LossSteps(adversarial=125_000))
    ramp: LossSteps = dataclasses.field(default_factory=lambda: LossSteps(adversarial=5_000))


@dataclasses.dataclass
class AdversarialConfig:
    """The discriminator and its Adam; it learns from ``loss.start.adversarial`` on.

    Paper: learning rate. StyleGAN2: the rest. ``channel_base`` / side, at most ``channel_max``,
    are the channels at a side; ``group_size`` samples share a minibatch deviation, and must divide
    those that a device takes at once. ``r1`` is the gradient penalty's gamma, 0 for none, computed
    every ``r1_every`` steps.
    """

    learning_rate: float = 1e-4
    b1: float = 0.0
    b2: float = 0.99
    r1: float = 1.0
    r1_every: int = 16
    channel_base: int = 32768
    channel_max: int = 512
    condition_width: int = 512
    group_size: int = 4


@dataclasses.dataclass
class MotionPretrainConfig:
    """The motion encoder's head start: coefficients as targets, then frozen. So the pose encoder's,
    where photos are unwrapped: cameras as targets.

    ``invariance`` weighs the distance between the codes of one expression performed by two
    identities or seen from two sides: it keeps identity and viewpoint out of the code.
    ``teacher_forcing`` makes the avatar phase's codes from the pack's own coefficients and unwraps
    photos as the pack's own cameras see them, both with noise, instead of reading images, so that
    the avatar need not wait for good encoders.
    ``steps`` 0 skips the phase. ``freeze`` False goes on training the encoder jointly; the paper
    freezes it.
    """

    steps: int = 0
    learning_rate: float = 1e-3
    invariance: float = 0.1
    freeze: bool = True
    teacher_forcing: bool = False


@dataclasses.dataclass
class Multipliers:
    """Factors on the avatar phase's rate, one for each top-level group of parameters."""

    backbone: float = 1.0
    decoder: float = 1.0
    motion_decoder: float = 1.0
    motion_encoder: float = 1.0
    pose_encoder: float = 1.0
    reprojection: float = 1.0
    refinement: float = 1.0


@dataclasses.dataclass
class OptimizerConfig:
    """Adam."""

    learning_rate: float = 1e-4
    final_learning_rate_ratio: float = 1.0
    warmup_steps: int = 0
    b1: float = 0.9
    b2: float = 0.999
    clip_norm: float = 0.0
    multipliers: Multipliers = dataclasses.field(default_factory=Multipliers)
    ema_decay: float = 0.999


@dataclasses.dataclass
class TrainConfig:
    """The loop: how long, how often to look, log and save (all in steps), at which size, on what.

    ``resolutions`` lists (step of the avatar phase, side in pixels): from that step on pictures
    are rendered and compared at that size. Empty means always at ``model.image_size``. The photo
    that becomes the avatar always has that size.
    ``accumulate``: parts in which a device takes its samples, for less memory.
    ``shard_parameters``: devices that share one copy of parameters, optimizer state and
    averages, each holding a part. Neither changes what is learned (``training.parallel``).
    """

    steps: int = 250_000
    resolutions: tuple[tuple[int, int], ...] = ()
    log_every: int = 20
    image_every: int = 500
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3
    accumulate: int = 1
    shard_parameters: int = 1


class InvalidConfigError(ValueError):
    """A configuration that nothing can be built from; on a command line its flags are wrong."""

    exit_code = cli.EXIT_USAGE


@dataclasses.dataclass
class Config:
    """One run. ``seed`` fixes initialisation, sampling and augmentation."""

    name: str = "base"
    seed: int = 0
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    adversarial: AdversarialConfig = dataclasses.field(default_factory=AdversarialConfig)
    motion_pretrain: MotionPretrainConfig = dataclasses.field(default_factory=MotionPretrainConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    def validate(self) -> None:
        """Raises one InvalidConfigError that lists every problem of this configuration.

        Where a value is of a wrong type, these alone: ranges cannot be asked of it.
        """
        problems = [
            f"{name}: expected {expected}, got {got!r}"
            for name, got, good, expected in config_check.checks(self)
            if not good
        ]
        if problems:
            raise InvalidConfigError("invalid configuration:\n  " + "\n  ".join(problems))

    def to_json(self) -> str:
        """The whole tree as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Reads ``to_json``'s output.

        Raises:
            ValueError: It is no such text; a field is unknown to this version, or another type.
        """
        return _build(cls, json.loads(text), "config")


def _build(cls, values: dict, path: str):
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected fields of {cls.__name__}, got {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(
            f"{path}: unknown fields {unknown}; expected a subset of {sorted(fields)}; "
            "the file was written by another version of instant_gs"
        )
    out = {}
    for name, value in values.items():
        field_type = fields[name].type
        if dataclasses.is_dataclass(field_type):
            out[name] = _build(field_type, value, f"{path}.{name}")
            continue
        kind = {float: (float, int)}.get(field_type, field_type)
        plain = field_type in (bool, int, float, str)
        if plain and (not isinstance(value, kind) or (type(value) is bool) != (kind is bool)):
            expected = field_type.__name__
            raise ValueError(f"{path}.{name}: expected {expected}, got {value!r}")
        out[name] = tuple(value) if isinstance(value, list) else value
    return cls(**out)
