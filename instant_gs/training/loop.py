"""The training loop."""

import contextlib
import functools
import operator
import pathlib

import jax

from instant_gs import cli, models
from instant_gs.config import Config
from instant_gs.data import pipeline, reader, sampler
from instant_gs.data.broken import BrokenRecords
from instant_gs.data.error import PackError
from instant_gs.training import (
    agreement,
    bad_batch,
    checkpoint,
    completeness,
    curriculum,
    distributed,
    optimizer,
    overflow,
    parallel,
    preemption,
    profile,
    provenance,
    report,
    run_folder,
    same_run,
    sample_grid,
    state,
    step,
    throughput,
    weights,
    writer,
)


def train(
    config: Config,
    workdir: str | pathlib.Path,
    init_from: str | None = None,
    motion_encoder: str | None = None,
    profile_steps: tuple[int, int] | None = None,
) -> state.TrainState:
    """Trains until ``config.train.steps``, resuming the run in ``workdir`` if there is one.

    Args:
        config: What to train; validated here.
        workdir: Receives checkpoints, ``metrics.jsonl``, TensorBoard events, sample pictures
            and, with each of these, a page about the run, ``report.html``.
        init_from: Weights directory, name of shipped weights, or run, whose parameters a fresh run
            starts from; a run that is resumed must have begun with it, or it is None.
        motion_encoder: Another one whose motion encoder a fresh run starts from.
        profile_steps: Number of the first and of the last step that ``workdir/profile`` shows.

    Returns:
        The final state.

    Raises:
        ValueError: The configuration is invalid.
        UserError: There is no data, or a pack shows another view than the model's; ``workdir``
            holds a run of another configuration or start, is in use, cannot be written, is too
            small, or is not the same folder on all hosts; hosts were told to train different
            things; or SIGTERM or Ctrl-C stopped the run, which is then saved.
        FloatingPointError: Loss or gradient was not finite; names the step, the file with its
            batch, and what to change. The newest checkpoint is from before it.
    """
    config.validate()
    agreement.check(config, init_from, motion_encoder)
    workdir = pathlib.Path(workdir)
    with (
        run_folder.held(workdir),
        preemption.StopRequest() as stop,
        contextlib.closing(profile.Window(workdir / "profile", profile_steps)) as window,
    ):
        return _train(config, workdir, init_from, motion_encoder, stop, window)


def _train(config, workdir, init_from, motion_encoder, stop, window):
    same_run.check(workdir, config, init_from, motion_encoder)
    for line in curriculum.never_reached(config):
        distributed.say(f"warning: {line}")
    mesh = parallel.mesh_of(config)
    if not config.data.packs:
        raise cli.UserError("training needs data: --config.data.packs='(\"FOLDER\",)'")
    loader, broken, uses = training_data(config)
    for use in uses:
        distributed.say(f"data: {use}")
    train_state = parallel.place(state.create(models.build(config.model), config), mesh)
    checkpointer = checkpoint.RunCheckpointer(workdir, keep=config.train.keep_checkpoints)
    begins = checkpointer.latest_step() is None
    if not begins:
        train_state, data_state, before = checkpointer.restore(train_state)
        loader.set_state(data_state)
        resumed = int(train_state.step)
        distributed.say(f"resumed {workdir} at step {resumed}")
    else:
        params, origins = start_parameters(config, train_state.params, init_from, motion_encoder)
        for line in frozen_as_drawn(config, origins):
            distributed.say(f"warning: {line}")
        if origins:
            train_state = parallel.place(state.start_from(train_state, params), mesh)
    run_folder.check_room(workdir, train_state, config.train.keep_checkpoints)
    if not begins and resumed < config.motion_pretrain.steps + config.train.steps:
        same_run.note_changes(workdir, resumed, before, config)
    if begins and jax.process_index() == 0:
        provenance.write(workdir, provenance.record(config, origins))
    metric_writer = writer.MetricWriter(workdir, int(train_state.step))
    try:
        return _run(
            *(config, workdir, mesh, train_state, loader, broken),
            *(checkpointer, metric_writer, stop, window),
        )
    finally:
        checkpointer.close()
        metric_writer.close()


def start_parameters(config, own: dict, init_from: str | None, motion_encoder: str | None):
    """The parameters a fresh run starts from, and where they come from.

    Args:
        config: Of the run.
        own: Its own fresh parameters, or their shapes.
        init_from: As for ``train``.
        motion_encoder: As for ``train``.

    Returns:
        Parameters, and provenance by option, empty if there is none.

    Raises:
        ValueError: Those from elsewhere do not fit or mean something else.
        UserError: They lack what the model needs.
        FileNotFoundError: There are none.
    """
    params, origins = own, {}
    if init_from:
        made, params, facts = weights.load(init_from)
        origins["init_from"] = facts | {"folder": init_from}
        # A motion encoder that is replaced below may have seen other crops.
        names = state.HEAD_MEANING + (() if motion_encoder else state.READER_MEANING)
        state.check_same_meaning(made.model, config.model, f"--init_from={init_from}", names)
    if motion_encoder:
        made, other, facts = weights.load(motion_encoder)
        origins["motion_encoder"] = facts | {"folder": motion_encoder}
        origin = f"--motion_encoder={motion_encoder}"
        state.check_same_meaning(made.model, config.model, origin, state.READER_MEANING)
        readers = ("motion_encoder", "pose_encoder")  # the two learn together
        params = params | {name: other.get(name, {}) for name in readers if name in own}
    if origins:
        given = {"init_from": init_from, "motion_encoder": motion_encoder}
        named = ", ".join(f"--{option}={given[option]}" for option in origins)
        completeness.check_fits(own, params, named)
    return params, origins


def frozen_as_drawn(config: Config, origins: dict) -> list[str]:
    """What a fresh run of these ``origins`` (``start_parameters``) never learns, a line each."""
    if origins or config.motion_pretrain.steps or not config.motion_pretrain.freeze:
        return []
    return [
        "the motion encoder is frozen as it was drawn: expressions will mean little. Give "
        "--motion_encoder or --init_from, or set motion_pretrain.steps"
    ]


def training_data(config: Config):
    """What training reads.

    Returns:
        The iterator over this host's batches; the broken records that it meets, None if they are
        an error; and for each pack, what is used of it (``data.pack_use``).

    Raises:
        PackError: A pack cannot be read, or lacks what the configuration needs.
        UserError: A pack shows another view than the model's.
    """
    broken = BrokenRecords() if config.data.broken == "skip" else None
    packs = reader.open_packs(config.data.packs, allow_broken=broken is not None)
    loader = _loader(config, "train", config.seed, jax.process_count(), broken, packs)
    return loader, broken, sampler.SampleTable(packs, "train").uses


def _loader(
    config: Config, split: str, seed: int, hosts: int = 1, broken=None, packs=None, threads: int = 0
):
    data, pretrain = config.data, config.motion_pretrain
    return pipeline.make_loader(
        packs or data.packs,
        split,
        batch_size=data.batch_size // hosts,
        driven_per_sample=data.driven_per_sample,
        cross_identity=data.cross_identity,
        same_expression=data.same_expression,
        mirror=data.mirror,
        need_coefficients=bool(pretrain.steps) or pretrain.teacher_forcing,
        seed=seed,
        image_size=config.model.image_size,
        fov_degrees=config.model.fov_degrees,
        cache_gigabytes=data.cache_gigabytes,
        threads=threads or data.threads,
        shard_index=jax.process_index() if hosts > 1 else 0,
        shard_count=hosts,
        broken=broken,
    )


def _batch_to_show(config: Config, broken):
    """A batch of people whom training does not see, if the packs have any, and whether they do."""
    held_out = True
    try:
        loader = _loader(config, "validation", config.seed + 1, broken=broken, threads=1)
    except PackError:
        distributed.say(
            "too few identities for a validation split: sample pictures show training identities, "
            "and validation/psnr is not logged"
        )
        loader = _loader(config, "train", config.seed + 1, broken=broken, threads=1)
        held_out = False
    return next(loader), held_out


def _run(
    config, workdir, mesh, train_state, loader, broken, checkpointer, metric_writer, stop, window
):
    model = models.build(config.model)
    total = config.motion_pretrain.steps + config.train.steps
    draw = sample_grid.make(model, config)
    shown, held_out = _batch_to_show(config, broken)
    step_of = functools.cache(lambda phase: step.make(model, config, phase, mesh))
    meter = throughput.Meter(config.data.batch_size, throughput.peak(config))
    watch = overflow.Watch(config)
    number = int(train_state.step)
    finite = (number, loader.get_state())  # when that was last known
    if window.misses(number + 1, total):
        distributed.say(f"warning: --profile_steps: only steps {number + 1} to {total} are left")

    def check_finite():
        saved = checkpointer.latest_step()
        _stop_if_not_finite(config, workdir, train_state, loader, saved, *finite)

    def save():
        check_finite()
        checkpointer.save(train_state, loader.get_state(), config)

    while number < total:
        phase = curriculum.at(number, config)
        with meter.input():
            batch = _next_batch(loader, save)
        batch = parallel.split(batch, mesh)
        number += 1
        window.before(number)
        with jax.profiler.StepTraceAnnotation("step", step_num=number):
            train_state, metrics = step_of(phase)(train_state, batch)
        count = (throughput.model_flops, model, config, phase, mesh.size)
        meter.count(phase, metrics, functools.partial(*count))
        if window.ends(number):
            with meter.pause(metrics):  # a trace takes its time to be written
                window.close()
        last = number == total
        if number % config.train.log_every == 0 or last:
            values = {name: float(value) for name, value in metrics.items()}
            values["learning_rate"] = optimizer.learning_rate(config, phase.name, number - 1)
            check_finite()
            finite = (number, loader.get_state())
            checkpointer.check()
            if broken is not None:
                values["broken_records"] = len(broken)
            watch.look(number, values)
            with checkpointer.plain_errors("the log"):
                _log(metric_writer, number, total, phase.name, values, meter.read())
        if phase.name == "avatar" and (number % config.train.image_every == 0 or last):
            with meter.pause(metrics):
                ema = parallel.whole(train_state.ema, mesh)  # all hosts take part
                if jax.process_index() == 0:
                    picture, scores = draw(ema, shown)
                    with checkpointer.plain_errors("the log"):
                        metric_writer.image(number, "validation", picture)
                        if held_out:
                            named = {f"validation/{name}": scores[name] for name in scores}
                            metric_writer.scalars(number, named)
                        report.write(workdir, config)
        request = stop.after(number)
        if number % config.train.checkpoint_every == 0 or last or request:
            with meter.pause(metrics):
                save()
        if request and not last:
            raise cli.UserError(
                f"{request} stopped training after step {number} of {total}, which is saved in "
                f"{workdir}; run the same command again to resume",
                cli.EXIT_RESUMABLE,
            )
    return train_state


def _log(metric_writer, number, total, phase, values, speed):
    """One line of metrics, and one for the eye: where it is, how fast, how long still."""
    metric_writer.scalars(
        number,
        {f"{phase}/{name}": value for name, value in values.items()}
        | {f"speed/{name}": value for name, value in speed.items()},
    )
    rate = "compiled"
    if speed:
        left = speed["step_seconds"] * (total - number) / 60
        rate = f"{speed['step_seconds']:.3f} s/step, {left:.0f} min left"
    names = ("loss", "psnr_driven", "region_driven", "lpips", "coefficient_r2")
    shown = "  ".join(f"{name} {values[name]:.4g}" for name in names if name in values)
    distributed.say(f"{phase} {number}/{total} ({100 * number / total:.0f} %)  {shown}  {rate}")


def _next_batch(loader, save):
    try:
        return next(loader)
    except PackError:
        if jax.process_count() == 1:  # other hosts would have to save, too, and know of nothing
            save()
        raise


def _stop_if_not_finite(config, workdir, train_state, loader, saved, number, data_state) -> None:
    """Raises if a step since ``number``, when the iterator's state was this, was not finite.

    ``saved`` is the step of the newest checkpoint, or None.
    """
    bad = int(train_state.bad_step)
    if bad >= 0:
        path = bad_batch.write(workdir, bad, bad_batch.redraw(loader, data_state, bad - number))
        raise FloatingPointError(
            f"training stopped: loss or gradient was not finite at step {bad}; its batch is in "
            f"{path}. {_way_on(config, workdir, bad, saved)}"
        )


def _way_on(config: Config, workdir: pathlib.Path, bad: int, saved: int | None) -> str:
    """What to do about a step that was not finite: the same command would meet it again."""
    phase = curriculum.at(bad, config)
    section = {"motion": "motion_pretrain", "avatar": "optimizer"}[phase.name]
    rates = [f"{section}.learning_rate"]
    if "adversarial" in phase.judges:
        rates.append("adversarial.learning_rate")
    lower = " or ".join(
        f"--config.{name} below {operator.attrgetter(name)(config):g}" for name in rates
    )
    again = (
        f"The same command would meet it again: add {lower}, or set --config.optimizer.clip_norm "
        f"(now {config.optimizer.clip_norm:g}) to the gradient_norm that metrics.jsonl shows of "
        "better steps"
    )
    if saved is None:
        return f"{again}; it then begins anew, because nothing is saved yet"
    newest = workdir / checkpoint.CHECKPOINTS / str(saved)
    return (
        f"{again}; it then resumes at step {saved}. If it stops again, the parameters had gone "
        f"astray before: remove {newest}, too, to resume from an older one"
    )
