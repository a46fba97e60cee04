"""The training loop: one for every app, on accelerate."""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import DistributedDataParallelKwargs
from safetensors import SafetensorError

from priorscope.data.weights_file import share
from priorscope.device import resolve_device, resolve_dtype
from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.average import WeightAverage
from priorscope.training.checkpoint import Stateful, checkpoint_step, load_checkpoint, save_checkpoint
from priorscope.training.feed import Feed, Parts, read_parts, worker_deaths
from priorscope.training.learning_rate import rate_factor
from priorscope.training.lora import add_lora, without_lora
from priorscope.training.settings import LoopConfig
from priorscope.training.show import Display
from priorscope.training.tally import Tally
from priorscope.training.task import Task


@dataclass(frozen=True)
class FitResult:
    """How a call of :func:`fit` ended."""

    step: int
    """Steps done, those before it included."""
    finished: bool
    """Whether these are all, or the task has ended it."""
    model: Path
    """The model folder."""


def make_accelerator(config: LoopConfig) -> Accelerator:
    """The process group, device and mixed precision that ``config`` and the launcher ask for."""
    device = resolve_device(config.device)
    precision = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}[
        resolve_dtype(config.precision, device)
    ]
    if precision == "fp16" and device.type == "cpu":
        raise InputError("--precision float16 on a CPU", remedy="Use float32 or bfloat16.")
    if is_initialized():  # by an earlier training of this process; accelerate keeps one state for all
        state = AcceleratorState()
        alone = state.num_processes == 1
        if state.mixed_precision != precision or (alone and state.device.type != device.type):
            AcceleratorState._reset_state(reset_partial_state=alone)
    # a frozen or unused branch must be declared by the task (requires_grad), not searched for at every step
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=False)],
    )


def fit(task: Task, feed: Feed, config: LoopConfig, run: RunFolder, accelerator: Accelerator) -> FitResult:
    """Train ``task``, or go on training it where ``run`` holds a checkpoint and ``config.resume`` is set.

    Steps, batches, augmentation and noise are functions of (seed, step): a run that is killed and resumed
    writes the same rows as one that is not, on the same machine.

    Parameters
    ----------
    task : Task
    feed : Feed
    config : LoopConfig
    run : RunFolder
        Gets metrics.jsonl (a row every ``log_every`` steps: mean losses, learning rate, gradient norm,
        throughput, and held-out figures where they are due), checkpoints/last.pt, model/, metrics.json.
    accelerator : Accelerator
        From :func:`make_accelerator`.

    Raises
    ------
    InputError
        If the loss is not finite (the last good checkpoint is kept), a checkpoint cannot be written, or the
        feed fails.
    """
    model = task.model
    if config.gradient_checkpointing:
        _switch_on_checkpointing(model)
    if config.lora:
        add_lora(model, config.lora, seed=config.seed)
    task.to(accelerator.device)
    trained = [weight for weight in task.parameters() if weight.requires_grad]
    optimizer = _optimizer(trained, config)
    parts = Parts(
        feed,
        config.batch_size,
        accumulate=config.accumulate,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    average = WeightAverage(model, config.ema) if config.ema else None
    wrapped, optimizer = accelerator.prepare(task, optimizer)
    tally = Tally(accelerator.device)
    state: dict[str, Stateful] = {"model": _TrainedWeights(model), "optimizer": optimizer, "tally": tally}
    if average is not None:
        state["average"] = average
    if accelerator.scaler is not None:
        state["scaler"] = accelerator.scaler
    state |= {f"task.{name}": part for name, part in task.checkpoint_parts().items()}
    path = run.checkpoints / "last.pt"
    # --precision may change: only float16 has a scaler
    start = load_checkpoint(path, state, optional=("scaler",)) if config.resume else 0
    run.drop_history_after(start or -1)
    # float16's scaler skips steps with infinite gradients by itself
    finite = ("loss",) if accelerator.scaler is not None else ("loss", "grad_norm")

    display = Display(config, start, accelerator.is_main_process, run)
    if start == 0 and accelerator.is_main_process:
        with display.paused(), _looking(task, average):
            figures = task.validate(run, 0)
        if figures:  # what training starts from
            run.log({"step": 0} | figures)
            display.row({"step": 0} | figures)
    accelerator.wait_for_everyone()
    reason = task.reason_to_end(run) if start and accelerator.is_main_process else ""
    ended = _any_process(bool(reason), accelerator)
    begin = time.monotonic()
    step = start
    stream = read_parts(
        parts,
        start * config.accumulate,
        config.steps * config.accumulate,
        config.workers,
        pin=accelerator.device.type == "cuda",
    )
    wrapped.train()
    with _asked_to_end() as ending, worker_deaths(), closing(stream), display:
        while step < config.steps and not ended:
            rate = config.lr * _factor(config, step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(item_seed(config.seed, step * accelerator.num_processes + accelerator.process_index))
            task.step = step
            losses, keys = _accumulate(wrapped, stream, config.accumulate, accelerator)
            norm = accelerator.clip_grad_norm_(trained, config.clip or math.inf)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update()
            step += 1
            tally.add(losses | {"grad_norm": norm}, keys)
            display.stepped(step)

            out_of_time = bool(config.max_seconds) and time.monotonic() - begin > config.max_seconds
            stop = step < config.steps and _any_process(out_of_time or ending.is_set, accelerator)
            last = step == config.steps
            look = last or step % config.validate_every == 0
            due = look or step % config.log_every == 0
            if due or stop or step % config.checkpoint_every == 0:
                tally.settle(accelerator)
                _refuse_bad(tally, finite, step, path)
            if due:
                means = tally.means()
                row: dict[str, Any] = {"step": step} | means | {"lr": rate} | display.throughput()
                tally.clear()
                task.told(means)
                if look and accelerator.is_main_process:
                    with display.paused(), _looking(task, average):
                        row |= task.validate(run, step)
                run.log(row)
                display.row(row)
            if look:
                reason = task.reason_to_end(run) if accelerator.is_main_process else ""
                ended = _any_process(bool(reason), accelerator)
            if stop or last or ended or step % config.checkpoint_every == 0:
                if accelerator.is_main_process:
                    _refuse_bad_weights(trained, step, path)
                    save_checkpoint(path, state, step)
                accelerator.wait_for_everyone()
            if stop:
                break
    finished = ended or step >= config.steps
    folder = run.path / "model"
    if accelerator.is_main_process:
        with _looking(task, average):
            _replace_model(task, folder)
        run.write_metrics(_result(run, step, finished))
        if not finished:
            print(f"Stopped at step {step} of {config.steps}; --resume goes on.")
        elif step < config.steps:
            print(f"Ended at step {step} of {config.steps}: {reason}.")
    accelerator.wait_for_everyone()
    return FitResult(step, finished, folder)


def _accumulate(
    wrapped: Any, stream: Iterator[dict[str, Any]], count: int, accelerator: Accelerator
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Gradients of one whole batch; mean losses over its parts, and the names of its examples."""
    total: dict[str, torch.Tensor] = {}
    keys: list[str] = []
    for part in range(count):
        batch = {
            name: value.to(accelerator.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in next(stream).items()
        }
        keys += [str(key) for key in batch.get("key", ())]
        # gradients meet once, in the last part
        with accelerator.no_sync(wrapped) if part < count - 1 else nullcontext():
            losses = wrapped(batch)
            accelerator.backward(losses["loss"] / count)
        for name, value in losses.items():
            total[name] = total.get(name, 0.0) + value.detach() / count
    return total, keys


def _optimizer(weights: list[torch.nn.Parameter], config: LoopConfig) -> torch.optim.Optimizer:
    if not weights:
        raise InputError("no weight of the model is trained")
    # one pass over each weight; on a CPU torch would otherwise make a dozen small calls for it
    fused = True if all(weight.device.type == "cpu" for weight in weights) else None
    if config.optimizer == "adam":
        return torch.optim.Adam(weights, lr=config.lr, fused=fused)
    return torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def _factor(config: LoopConfig, step: int) -> float:
    return rate_factor(step, config.steps, schedule=config.lr_schedule, warmup=config.warmup, final=config.lr_final)


def _switch_on_checkpointing(model: torch.nn.Module) -> None:
    able = getattr(model, "_supports_gradient_checkpointing", True)  # diffusers' models have the method in any case
    if not (able and hasattr(model, "enable_gradient_checkpointing")):
        raise InputError(f"{type(model).__name__} has no gradient checkpointing")
    model.enable_gradient_checkpointing()  # type: ignore[operator]


def _any_process(flag: bool, accelerator: Accelerator) -> bool:
    """Whether any process has raised the flag: all of them must stop after the same step."""
    if accelerator.num_processes == 1:
        return flag
    raised = torch.tensor(float(flag), device=accelerator.device)
    return bool(accelerator.reduce(raised, "sum") > 0)


def _refuse_bad(tally: Tally, names: Sequence[str], step: int, checkpoint: Path) -> None:
    bad = tally.first_bad(names)
    if bad is None:
        return
    what = {"loss": "loss", "grad_norm": "norm of the gradient"}[bad.name]
    shown = f" (examples {', '.join(bad.keys[:8])}{', ...' if len(bad.keys) > 8 else ''})" if bad.keys else ""
    raise _broken_down(f"the {what} became {bad.value} at step {step - bad.ago}{shown}", checkpoint)


def _refuse_bad_weights(weights: list[torch.nn.Parameter], step: int, checkpoint: Path) -> None:
    """A finite gradient can still throw the weights beyond what floats hold; such weights must not be kept."""
    if not bool(torch.nn.utils.get_total_norm([weight.detach() for weight in weights]).isfinite()):
        raise _broken_down(f"the weights are no longer finite after step {step}", checkpoint)


def _broken_down(fact: str, checkpoint: Path) -> InputError:
    good = checkpoint_step(checkpoint)
    left = f"The checkpoint of step {good} is good: --resume from it with" if good else "Start again with"
    return InputError(
        fact,
        path=checkpoint if good else None,
        remedy=f"{left} a smaller --lr or --precision float32, or mend the examples.",
    )


@contextmanager
def _looking(task: Task, average: WeightAverage | None) -> Iterator[None]:
    """Averaged weights, eval mode, no gradients."""
    task.eval()
    try:
        with torch.no_grad(), average.in_place() if average is not None else nullcontext():
            yield
    finally:
        task.train()


def _replace_model(task: Task, folder: Path) -> None:
    """Write the model aside, then swap it in."""
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with without_lora(task.model):
            task.save(aside)
        share(aside)  # files that other libraries' save_pretrained wrote
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    except (OSError, SafetensorError) as error:  # safetensors wraps a full disk into an error of its own
        raise InputError(
            f"the model cannot be written: {getattr(error, 'strerror', None) or error}",
            path=folder,
            remedy="Free some space; --resume writes it again.",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _result(run: RunFolder, step: int, finished: bool) -> dict[str, Any]:
    rows = run.history()
    # what a resumed run repeats exactly: no times
    last = {name: value for name, value in (rows[-1] if rows else {}).items() if name != "examples_per_second"}
    return last | {"step": step, "finished": finished}


class _TrainedWeights:
    """The trained weights of a model as a part of a checkpoint; frozen ones come from where they came from."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.names = {name for name, weight in model.named_parameters() if weight.requires_grad}
        self.names |= {name for name, _ in model.named_buffers()} & set(model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in self.model.state_dict().items() if name in self.names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if set(state) != self.names:
            raise InputError("holds other weights than this run trains", remedy="Resume with the same options.")
        self.model.load_state_dict(state, strict=False)


class _Flag:
    def __init__(self) -> None:
        self.is_set = False

    def __call__(self, *_: Any) -> None:
        if self.is_set:
            raise KeyboardInterrupt  # asked twice: at once
        self.is_set = True


@contextmanager
def _asked_to_end() -> Iterator[_Flag]:
    """SIGTERM (a scheduler's notice) and a first Ctrl-C end the run after the step, with a checkpoint."""
    flag = _Flag()
    try:
        before = {number: signal.signal(number, flag) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread
        yield flag
        return
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
