"""State of an unfinished training, saved outside the outputs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fader.errors import FaderError
from fader.files import replacing


@dataclass(frozen=True)
class Checkpoint:
    """Where a run saves itself, and the key that says which run it is: another key is never
    resumed."""

    path: Path
    key: str

    def save(self, epoch: int, history: list, modules: Mapping[str, nn.Module], optimizer) -> None:
        from safetensors.torch import save_file

        tensors = {
            f"{name}/{key}": value.contiguous()
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        }
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer/{index}/{key}"] = value.contiguous()
        about = {"key": self.key, "epoch": epoch, "history": history}
        with replacing(self.path) as temporary:
            save_file(tensors, temporary, {"checkpoint": json.dumps(about)})

    def load(self, modules: Mapping[str, nn.Module], optimizer) -> tuple[int, list]:
        """Restore in place; (epochs done, history), or (0, []) when there is no checkpoint of this
        run."""
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return 0, []
        try:
            with safe_open(self.path, framework="pt") as stream:
                about = json.loads(stream.metadata()["checkpoint"])
                if about["key"] != self.key:
                    return 0, []
                tensors = {key: stream.get_tensor(key) for key in filter(None, stream.keys())}
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise FaderError(
                f"{self.path}: damaged checkpoint ({error!r}); delete it to start again"
            ) from None
        for name, module in modules.items():
            prefix = f"{name}/"
            module.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
        parameters = parameters_of(optimizer)
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, index, entry = key.split("/")
                # Fused Adam pairs elements by address, so moments need their parameter's layout
                # (channels last), which a file does not keep.
                if value.shape == parameters[int(index)].shape:
                    value = torch.empty_like(parameters[int(index)]).copy_(value)
                state.setdefault(int(index), {})[entry] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        return about["epoch"], about["history"]


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """In the order in which the optimiser's state counts them."""
    return [p for group in optimizer.param_groups for p in group["params"]]
