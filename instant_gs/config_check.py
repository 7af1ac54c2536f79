"""What a configuration must satisfy before anything is built from it."""

import dataclasses
import math
import typing

_LARGEST = 2**31 - 1  # steps are counted in 32 bits


def _one_of(name, got, choices):
    return name, got, got in choices, "one of " + ", ".join(choices)


def checks(config):
    """Yields (field, value, is it fine, what is expected) of a ``config.Config``."""
    wrong = [check for check in _type_checks(config) if not check[2]]
    if wrong:  # what follows compares and divides
        yield from wrong
        return
    yield from _model_checks(config.model)
    yield from _encoder_checks(config.model)
    yield from _motion_checks(config)
    yield from _size_checks(config.model)
    yield from _number_checks(config)
    yield from _schedule_checks(config)


def _type_checks(tree, path=""):
    """As ``checks``, of types alone: a Python file or a tuple's flag may set anything."""
    for field in dataclasses.fields(tree):
        name, value = path + field.name, getattr(tree, field.name)
        if dataclasses.is_dataclass(field.type):
            fits, expected = isinstance(value, field.type), field.type.__name__
            yield name, value, fits, expected
            if fits:
                yield from _type_checks(value, f"{name}.")
        elif name != "seed" and field.type is int:
            fits = _is_a(int, value) and value <= _LARGEST
            yield name, value, fits, f"a whole number, at most {_LARGEST}"
        else:
            yield name, value, _is_a(field.type, value), _TYPES[field.type]


_TYPES = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple[int, ...]: "a tuple of whole numbers",
    tuple[str, ...]: "a tuple of texts",
    tuple[tuple[int, int], ...]: "a tuple of pairs of whole numbers, such as ((0, 64),)",
}


def _is_a(kind, value) -> bool:
    if typing.get_origin(kind) is tuple:
        kinds = typing.get_args(kind)
        if not isinstance(value, tuple | list):  # JSON has lists alone
            return False
        if kinds[-1] is ...:
            kinds = kinds[:1] * len(value)
        return len(kinds) == len(value) and all(map(_is_a, kinds, value))
    if kind is float:
        return type(value) is not bool and isinstance(value, float | int)
    return isinstance(value, kind) and (kind is bool or type(value) is not bool)


def _model_checks(model):
    size, view, gaussians = model.image_size, model.fov_degrees, model.gaussians
    yield "model.image_size", size, size % 16 == 0 and size > 0, "a positive multiple of 16"
    yield "model.fov_degrees", view, 0 < view < 180, "degrees in (0, 180)"
    yield _one_of("model.raster_mode", model.raster_mode, ("classic", "antialiased"))
    yield _one_of("model.dtype", model.dtype, ("float32", "bfloat16"))
    yield _one_of("model.gaussians.instantiation", gaussians.instantiation, ("plane", "ray"))
    yield _one_of("model.gaussians.position", gaussians.position, ("absolute", "anchored"))
    yield _one_of("model.gaussians.cull", gaussians.cull, ("source", "none"))


def _encoder_checks(model):
    encoder = model.encoder
    unwrap, width, planes = encoder.unwrap, encoder.token_width, encoder.num_planes
    yield _one_of("model.encoder.conv_init", encoder.conv_init, ("torch", "he"))
    for name in ("low_heads", "plane_heads"):
        heads = getattr(encoder, name)
        divides = heads > 0 and width % heads == 0
        yield f"model.encoder.{name}", heads, divides, "a divisor of token_width"
    fits = width > 0 and width % 4 == 0
    yield "model.encoder.token_width", width, fits, "a positive multiple of 4 (pixel shuffle)"
    yield "model.encoder.unwrap", unwrap, unwrap >= 0 and unwrap % 16 == 0, "0 or a multiple of 16"
    yield "model.encoder.looks", encoder.looks, encoder.looks > 0, "a number > 0"
    if model.gaussians.instantiation == "ray":
        yield "model.encoder.num_planes", planes, planes == 3, "3"
        expected = "0: rays read planes of space, not of a head"
        yield "model.encoder.unwrap", unwrap, unwrap == 0, expected


def _size_checks(model):
    """As ``checks``, of widths and counts from which networks are built."""
    encoder, gaussians, motion = model.encoder, model.gaussians, model.motion
    stages = encoder.resnet_widths
    fits = len(stages) == 5 and min(stages) > 0 and stages[0] == stages[1]
    expected = "five numbers > 0, the second as the first (nothing lies between them)"
    yield "model.encoder.resnet_widths", stages, fits, expected
    for name in ("aspp_rates", "tail_widths"):
        value = getattr(encoder, name)
        yield f"model.encoder.{name}", value, min(value, default=1) > 0, "numbers > 0"
    blocks = encoder.low_blocks
    yield "model.encoder.low_blocks", blocks, blocks >= 0, "a number >= 0"
    for name in ("aspp_width", "mlp_ratio", "branch_width", "num_planes"):
        value = getattr(encoder, name)
        yield f"model.encoder.{name}", value, value > 0, "a positive number"

    anchored = gaussians.position == "anchored"
    colors = 3 if anchored or encoder.unwrap or encoder.shortcut else 1
    for name, least, reason in (
        ("rays", 1, ""),
        ("samples_per_ray", 2, ""),
        ("feature_width", colors, ": the first three features are the colour"),
        ("hidden_width", 6 if anchored else 1, ": it begins by carrying the colour through"),
    ):
        value, reason = getattr(gaussians, name), reason if least > 2 else ""
        yield f"model.gaussians.{name}", value, value >= least, f"at least {least}{reason}"
    offset, scale = gaussians.max_offset, gaussians.max_scale
    yield "model.gaussians.max_offset", offset, 0 <= offset < math.inf, "a finite number >= 0"
    yield "model.gaussians.max_scale", scale, 0 < scale < math.inf, "a finite number > 0"

    for name in ("image_size", "hidden_width", "code_width"):
        value = getattr(motion, name)
        yield f"model.motion.{name}", value, value > 0, "a positive number"
    fits = all(width > 0 and width % 8 == 0 for width in motion.widths)
    yield "model.motion.widths", motion.widths, fits, "positive multiples of 8 (group norms)"
    residual = motion.residual_scale
    yield "model.motion.residual_scale", residual, math.isfinite(residual), "a finite number"


def _motion_checks(config):
    motion, pretrain = config.model.motion, config.motion_pretrain
    yield _one_of("model.motion.residual_space", motion.residual_space, ("feature", "spatial"))
    yield _one_of("model.motion.encoder", motion.encoder, ("learned", "fan"))
    yield _crop_check(config.model)
    if motion.encoder == "fan":
        sizes = motion.image_size, motion.code_width
        expected = 'the "fan" encoder\'s (224, 512)'
        yield "model.motion.(image_size, code_width)", sizes, sizes == (224, 512), expected
        yield "motion_pretrain.steps", pretrain.steps, pretrain.steps == 0, '0: "fan" is frozen'
        forcing = pretrain.teacher_forcing
        yield "motion_pretrain.teacher_forcing", forcing, not forcing, 'False: "fan" reads pictures'


def _crop_check(model):
    """Beyond the picture nothing is defined: training would see black there, the engine grey."""
    from instant_gs.geometry import crop as crop_lib  # here, because it imports jax

    crop, view, largest = model.motion.crop, model.fov_degrees, 1.0
    if 0 < view < 180:  # else reported elsewhere
        largest = min(1.0, 1 / crop_lib.share_in_view(1.0, view))
    # Rounded down: what it names is accepted.
    expected = f"a share of the wide picture's side in (0, {math.floor(1000 * largest) / 1000:g}]"
    if largest < 1:
        expected += f", because model.fov_degrees={view} shows no more of it"
    return "model.motion.crop", crop, 0 < crop <= largest, expected


def _number_checks(config):
    """As ``checks``, of data, losses and training: words and plain ranges."""
    data, train = config.data, config.train
    seed, largest = config.seed, 2**32 - 2  # the data take 32 bits, sample pictures the next number
    yield "seed", seed, 0 <= seed <= largest, f"a number from 0 to {largest}"
    yield _one_of("data.broken", data.broken, ("stop", "skip"))
    yield "data.packs", data.packs, all(data.packs), "folders; one is empty"
    yield _one_of("loss.lpips_network", config.loss.lpips_network, ("alexnet", "vgg"))
    for name, value in (
        ("model.gaussians.grid", config.model.gaussians.grid),
        ("data.batch_size", data.batch_size),
        ("data.driven_per_sample", data.driven_per_sample),
        ("data.threads", data.threads),
        ("train.steps", train.steps),
        ("train.log_every", train.log_every),
        ("train.image_every", train.image_every),
        ("train.checkpoint_every", train.checkpoint_every),
        ("train.keep_checkpoints", train.keep_checkpoints),
        ("train.accumulate", train.accumulate),
        ("train.shard_parameters", train.shard_parameters),
    ):
        yield name, value, value > 0, "a positive number"
    for name, value in (
        ("optimizer.learning_rate", config.optimizer.learning_rate),
        ("motion_pretrain.learning_rate", config.motion_pretrain.learning_rate),
        ("adversarial.learning_rate", config.adversarial.learning_rate),
    ):
        yield name, value, 0 < value < math.inf, "a finite number > 0"
    for name, value in (
        ("data.cache_gigabytes", data.cache_gigabytes),
        ("motion_pretrain.steps", config.motion_pretrain.steps),
        ("motion_pretrain.invariance", config.motion_pretrain.invariance),
        ("optimizer.warmup_steps", config.optimizer.warmup_steps),
        ("optimizer.clip_norm", config.optimizer.clip_norm),
    ):
        yield name, value, 0 <= value < math.inf, "a finite number >= 0"
    for name, value in (
        ("optimizer.b1", config.optimizer.b1),
        ("optimizer.b2", config.optimizer.b2),
        ("adversarial.b1", config.adversarial.b1),
        ("adversarial.b2", config.adversarial.b2),
    ):
        yield name, value, 0 <= value < 1, "a number in [0, 1)"
    for name, value in (
        ("optimizer.final_learning_rate_ratio", config.optimizer.final_learning_rate_ratio),
        ("data.cross_identity", data.cross_identity),
        ("data.same_expression", data.same_expression),
        ("data.mirror", data.mirror),
        ("optimizer.ema_decay", config.optimizer.ema_decay),
    ):
        yield name, value, 0 <= value <= 1, "a number in [0, 1]"
    for field in dataclasses.fields(config.loss):
        value = getattr(config.loss, field.name)
        if field.type is float:
            yield f"loss.{field.name}", value, 0 <= value < math.inf, "a finite weight >= 0"
    for group, factor in dataclasses.asdict(config.optimizer.multipliers).items():
        yield (
            f"optimizer.multipliers.{group}",
            factor,
            0 <= factor < math.inf,
            "a finite factor >= 0",
        )


def _schedule_checks(config):
    """As ``checks``, of what changes during training and of the discriminator."""
    for name, steps in (("start", config.loss.start), ("ramp", config.loss.ramp)):
        for loss, value in dataclasses.asdict(steps).items():
            yield f"loss.{name}.{loss}", value, value >= 0, "a number of steps >= 0"
    size, sizes = config.model.image_size, config.train.resolutions
    fits = all(len(pair) == 2 and pair[1] > 0 and size % pair[1] == 0 for pair in sizes)
    starts = [pair[0] for pair in sizes]
    in_order = not starts or (starts[0] == 0 and starts == sorted(set(starts)))
    expected = f"(step, side) pairs, steps increasing from 0, sides that divide {size}"
    yield "train.resolutions", sizes, fits and in_order, expected
    if config.loss.lpips and fits:
        large = all(side >= 32 for _, side in sizes)
        yield "train.resolutions", sizes, large, "sides of at least 32, or loss.lpips=0"
        expected = "at least 32, or train.resolutions, or loss.lpips=0"
        yield "model.image_size", size, bool(sizes) or size >= 32, expected
    adversarial = config.adversarial
    for name in ("channel_base", "channel_max", "condition_width", "group_size", "r1_every"):
        value = getattr(adversarial, name)
        yield f"adversarial.{name}", value, value > 0, "a positive number"
    yield "adversarial.r1", adversarial.r1, 0 <= adversarial.r1 < math.inf, "a finite number >= 0"
    if config.loss.adversarial:
        base = adversarial.channel_base
        expected = f"at least model.image_size={size}, which leaves one channel there"
        yield "adversarial.channel_base", base, base >= size, expected
    total = config.motion_pretrain.steps + config.train.steps
    expected = f"with motion_pretrain.steps at most {_LARGEST}"
    yield "train.steps", config.train.steps, total <= _LARGEST, expected
