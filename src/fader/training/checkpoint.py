"""State of an unfinished training, saved outside the outputs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fader import digests
from fader.errors import FaderError
from fader.files import digest, replacing, shown


@dataclass(frozen=True)
class Checkpoint:
    """Where a training saves itself.

    Parameters
    ----------
    path : of the file.
    key : digest of what the training is made of (settings, inputs, machine, code), or how to get
        it, since a short training never asks; a file with another key is never resumed.
    """

    path: Path
    key: str | Callable[[], str]

    def _key(self) -> str:
        return self.key if isinstance(self.key, str) else self.key()

    def _digest(self, about: str, tensors: str) -> str:
        """Of all that is kept, and of where: another training's may have the same key."""
        return digest([shown(self.path), about, tensors])

    def save(
        self,
        epoch: int,
        history: list[dict[str, Any]],
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
    ) -> None:
        """Write modules, optimisers and history after ``epoch`` epochs, in one step."""
        from safetensors.torch import save_file

        tensors = {
            f"module/{name}/{key}": value.cpu().contiguous()
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        }
        for name, optimizer in optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                for key, value in state.items():
                    tensors[f"optimizer/{name}/{index}/{key}"] = value.cpu().contiguous()
        about = json.dumps({"key": self._key(), "epoch": epoch, "history": history})
        whole = self._digest(about, digests.of_tensors(tensors))
        with replacing(self.path) as temporary:
            save_file(tensors, temporary, {"checkpoint": about, "digest": whole})

    def load(
        self,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
    ) -> tuple[int, list[dict[str, Any]]]:
        """Restore modules and optimisers in place.

        Returns
        -------
        Epochs done and their history, or (0, []) when there is no checkpoint of this training.

        Raises
        ------
        FaderError : the file is damaged, whichever training it is of.
        """
        from safetensors import SafetensorError

        if not self.path.exists():
            return 0, []
        try:
            about, tensors = self._read()
        except (SafetensorError, ValueError, LookupError, TypeError) as error:
            raise FaderError(
                f"{shown(self.path)}: damaged checkpoint ({type(error).__name__}: {error});"
                " delete it to start again"
            ) from None
        if about["key"] != self._key():
            return 0, []
        for name, module in modules.items():
            module.load_state_dict(_below(f"module/{name}/", tensors))
        for name, optimizer in optimizers.items():
            _restore(optimizer, _below(f"optimizer/{name}/", tensors))
        return about["epoch"], about["history"]

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What is kept beside the tensors, and these; ValueError when they are not as written."""
        from safetensors import safe_open

        kept = digests.head(self.path).metadata
        if kept["digest"] != self._digest(kept["checkpoint"], digests.of_file(self.path)):
            raise ValueError("its contents are not those it was written with")
        with safe_open(self.path, framework="pt") as stream:
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
        return json.loads(kept["checkpoint"]), tensors


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = parameters_of(optimizer)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, entry = key.split("/")
        # Fused Adam pairs elements by address, so moments need their parameter's layout
        # (channels last), which a file does not keep.
        if value.shape == parameters[int(index)].shape:
            value = torch.empty_like(parameters[int(index)]).copy_(value)
        state.setdefault(int(index), {})[entry] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Parameters in the order in which the optimiser's state counts them."""
    return [p for group in optimizer.param_groups for p in group["params"]]
