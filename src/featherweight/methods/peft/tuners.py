"""PEFT's tuners but for LoRA, each with what is its own. Options are by PEFT's names, in :mod:`.options`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import model_validator

from featherweight.errors import ConfigError
from featherweight.methods.peft import options
from featherweight.methods.peft.adalora import Allocation
from featherweight.methods.peft.targets import linear_layers, norm_targets
from featherweight.methods.peft.tuner import Found, Tuner


class AdaLoRAOptions(options.AdaLoraOptions):
    """With the two ranks apart: PEFT's allocator takes away what is between them."""

    @model_validator(mode="after")
    def _ranks_to_take_away(self) -> AdaLoRAOptions:
        if not 1 <= self.target_r < self.init_r:
            raise ValueError(
                f"'target_r': {self.target_r} ranks a layer are to be left of {self.init_r} (init_r), which must be "
                "more"
            )
        return self


class AdaLoRA(Tuner):
    """Zhang et al., "Adaptive budget allocation for parameter-efficient fine-tuning", 2023, arXiv 2303.10512."""

    Options = AdaLoRAOptions
    config = "AdaLoraConfig"
    trains = "low-rank updates, whose ranks go to the layers where they help"
    rate = 5e-3

    def made(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"total_step": given["tinit"] + given["tfinal"] + 1}  # until the run says how many it has

    def keeper(self, model: Any) -> Allocation:
        return Allocation(model)


class AdaMSSOptions(options.AdamssOptions):
    """Without the adaptive choice of subspaces."""

    @model_validator(mode="after")
    def _subspaces_that_stay(self) -> AdaMSSOptions:
        if self.use_asa:
            raise ValueError("'use_asa': subspaces are not chosen while training yet; leave it out")
        return self


class AdaMSS(Tuner):
    """Updates within subspaces of the weights' singular vectors."""

    Options = AdaMSSOptions
    config = "AdamssConfig"
    trains = "updates in a few subspaces of the weights"
    transposed = False


class BEFT(Tuner):
    Options = options.BeftOptions
    config = "BeftConfig"
    trains = "biases of the value projections"
    merges = False  # where a layer has no bias, there is no place for it
    transposed = False

    def require_targets(self, model: Any) -> None:
        _require_known(model, self, "BEFT")

    def targets(self, model: Any) -> Found:
        return {}


class BOFT(Tuner):
    """Liu et al., "Parameter-efficient orthogonal finetuning via butterfly factorization", 2023, arXiv 2311.06243."""

    Options = options.BOFTOptions
    config = "BOFTConfig"
    trains = "rotations of the weights, as products of sparse ones"
    transposed = False


class C3A(Tuner):
    """Chen et al., "Parameter-efficient fine-tuning via circular convolution", 2024, arXiv 2407.19342."""

    Options = options.C3AOptions
    config = "C3AConfig"
    trains = "updates made of circulant blocks"
    transposed = False
    divisors: ClassVar[Mapping[str, int]] = {"block_size": 256}


class DEFT(Tuner):
    Options = options.DeftOptions
    config = "DeftConfig"
    trains = "low-rank updates that take out a direction of the weights"


class DeLoRA(Tuner):
    """Bini et al., "DeLoRA: decoupling angles and strength in low-rank adaptation", 2025, arXiv 2503.18225."""

    Options = options.DeloraOptions
    config = "DeloraConfig"
    trains = "low-rank updates of bounded size"
    transposed = False


class FourierFT(Tuner):
    """Gao et al., "Parameter-efficient fine-tuning with discrete Fourier transform", 2024, arXiv 2405.03003."""

    Options = options.FourierFTOptions
    config = "FourierFTConfig"
    trains = "a few frequencies of the weights' update"

    def found(self, model: Any) -> dict[str, tuple[Any, str]]:
        return super().found(model) | _frequencies(model, 1000)


class FRoD(Tuner):
    Options = options.FrodOptions
    config = "FrodConfig"
    trains = "coefficients of a decomposition that layers share"

    def made(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"progressbar": False}


class GLoRA(Tuner):
    """Chavan et al., "One-for-all: generalized LoRA", 2023, arXiv 2306.07967."""

    Options = options.GloraOptions
    config = "GloraConfig"
    trains = "low-rank updates and scales of weights and biases"
    transposed = False
    unheld = "takes linear layers of the plain kind alone"


class GraLoRA(Tuner):
    Options = options.GraloraOptions
    config = "GraloraConfig"
    trains = "low-rank updates of blocks of the weights"


class HiRA(Tuner):
    """Huang et al., "HiRA: parameter-efficient Hadamard high-rank adaptation", ICLR 2025."""

    Options = options.HiraOptions
    config = "HiraConfig"
    trains = "low-rank factors that multiply the weights"


class HRA(Tuner):
    """Yuan et al., "Bridging the gap between low-rank and orthogonal adaptation", 2024, arXiv 2405.17484."""

    Options = options.HRAOptions
    config = "HRAConfig"
    trains = "reflections of the weights"
    transposed = False


class IA3(Tuner):
    """Liu et al., "Few-shot parameter-efficient fine-tuning is better and cheaper ...", 2022, arXiv 2205.05638."""

    Options = options.IA3Options
    config = "IA3Config"
    trains = "a scale of each key, value and feed-forward activation"
    rate = 3e-2

    def require_targets(self, model: Any) -> None:
        _require_known(model, self, "IA3")

    def targets(self, model: Any) -> Found:
        return {}


class LNTuning(Tuner):
    """Zhao et al., "Tuning LayerNorm in attention", 2023, arXiv 2312.11420; of any norm that has weights."""

    Options = options.LNTuningOptions
    config = "LNTuningConfig"
    trains = "the norms"
    rate = 1e-2

    def require_targets(self, model: Any) -> None:
        """Every model that is known has norms."""

    def targets(self, model: Any) -> Found:
        reason = f"chosen automatically: every norm of {model.config.model_type}"
        return {"target_modules": (norm_targets(model), reason)} if self._asked_targets is None else {}


class LoHa(Tuner):
    """Hyeon-Woo et al., "FedPara: low-rank Hadamard product", 2021, arXiv 2108.06098."""

    Options = options.LoHaOptions
    config = "LoHaConfig"
    trains = "products, entry by entry, of low-rank updates"
    transposed = False


class LoKr(Tuner):
    """Edalati et al., "KronA", 2022, arXiv 2212.10650; Yeh et al. (LyCORIS), 2023, arXiv 2309.14859."""

    Options = options.LoKrOptions
    config = "LoKrConfig"
    trains = "Kronecker products of low-rank updates"
    transposed = False


class MiSS(Tuner):
    """Kang and Yin, "MiSS: matrix shard sharing", 2024, arXiv 2409.15371."""

    Options = options.MissOptions
    config = "MissConfig"
    trains = "one shard that is repeated over a weight"
    transposed = False


class OFT(Tuner):
    """Qiu et al., "Controlling text-to-image diffusion by orthogonal finetuning", 2023, arXiv 2306.07280."""

    Options = options.OFTOptions
    config = "OFTConfig"
    trains = "rotations of blocks of the weights"
    transposed = False
    divisors: ClassVar[Mapping[str, int]] = {"oft_block_size": 32}

    def found(self, model: Any) -> dict[str, tuple[Any, str]]:
        found = super().found(model)
        if self.options.r:  # blocks by their number, and not by their size
            found["oft_block_size"] = (0, "r says how many blocks there are")
        return found


class OSF(Tuner):
    """Orthogonal subspace fine-tuning: the weights' small singular vectors train whole, the large stay."""

    Options = options.OSFOptions
    config = "OSFConfig"
    trains = "the smaller singular vectors of the weights"
    rate = 5e-5
    merges = False
    transposed = False


class PEANuT(Tuner):
    Options = options.PeanutOptions
    config = "PeanutConfig"
    trains = "small networks that make updates from the weights"
    transposed = False


class _Prompts(Tuner):
    """Embeddings before a text; the model's own weights stay as they are, so there is nothing to merge."""

    merges = False
    packs = False
    goes_on = False
    usual_tokens: ClassVar[int] = 20

    @property
    def virtual_tokens(self) -> int:
        return self.options.num_virtual_tokens or self.usual_tokens

    def require_targets(self, model: Any) -> None:
        """Every model reads embeddings."""

    def found(self, model: Any) -> dict[str, tuple[Any, str]]:
        return {"num_virtual_tokens": (self.usual_tokens, f"usual for {self.options.name}")}


class PromptTuning(_Prompts):
    """Lester et al., "The power of scale for parameter-efficient prompt tuning", 2021, arXiv 2104.08691."""

    Options = options.PromptTuningOptions
    config = "PromptTuningConfig"
    trains = "embeddings before every text"
    rate = 3e-2


class PTuning(_Prompts):
    """Liu et al., "GPT understands, too", 2021, arXiv 2103.10385."""

    Options = options.PromptEncoderOptions
    config = "PromptEncoderConfig"
    trains = "embeddings before every text, made by a small network"

    def found(self, model: Any) -> dict[str, tuple[Any, str]]:
        width = model.get_input_embeddings().weight.shape[1]
        return super().found(model) | {"encoder_hidden_size": (width, "as wide as the model's embeddings")}


class PSOFT(Tuner):
    Options = options.PsoftOptions
    config = "PsoftConfig"
    trains = "a rotation within the weights' main subspace"
    transposed = False


class VeRA(Tuner):
    """Kopiczko et al., "VeRA: vector-based random matrix adaptation", 2023, arXiv 2310.11454."""

    Options = options.VeraOptions
    config = "VeraConfig"
    trains = "scales of random projections that layers share"
    rate = 1e-2


class PVeRA(Tuner):
    """VeRA with a distribution for each scale."""

    Options = options.PveraOptions
    config = "PveraConfig"
    trains = "distributions of the scales of random projections"
    rate = 1e-2


class RandLoRA(Tuner):
    """Albert et al., "RandLoRA: full-rank parameter-efficient fine-tuning", 2025, arXiv 2502.00987."""

    Options = options.RandLoraOptions
    config = "RandLoraConfig"
    trains = "scales of many random low-rank updates"


class RoAd(Tuner):
    """Liao and Monz, "3-in-1: 2D rotary adaptation", 2024, arXiv 2409.00119."""

    Options = options.RoadOptions
    config = "RoadConfig"
    trains = "rotations and scales of pairs of a layer's outputs"
    transposed = False
    divisors: ClassVar[Mapping[str, int]] = {"group_size": 64}


class ShiRA(Tuner):
    """Bhardwaj et al., "Sparse high rank adapters", 2024, arXiv 2406.13175."""

    Options = options.ShiraOptions
    config = "ShiraConfig"
    trains = "a few entries of the weights"
    transposed = False


class SuperTuning(Tuner):
    Options = options.SupertuningOptions
    config = "SupertuningConfig"
    trains = "the largest or smallest entries of the weights"
    transposed = False


class TinyLoRA(Tuner):
    Options = options.TinyLoraOptions
    config = "TinyLoraConfig"
    trains = "a few numbers in the space of the weights' singular vectors"


class UniLoRA(Tuner):
    Options = options.UniLoraOptions
    config = "UniLoraConfig"
    trains = "one vector from which all low-rank updates are made"


class VBLoRA(Tuner):
    """Li et al., "VB-LoRA: extreme parameter-efficient fine-tuning with vector banks", 2024, arXiv 2405.15179."""

    Options = options.VBLoRAOptions
    config = "VBLoRAConfig"
    trains = "a bank of vectors, and which of them make up a low-rank update"
    divisors: ClassVar[Mapping[str, int]] = {"vector_length": 256}


class WaveFT(Tuner):
    """Bilican et al., "Exploring sparsity for parameter-efficient fine-tuning using wavelets", 2025."""

    Options = options.WaveFTOptions
    config = "WaveFTConfig"
    trains = "a few wavelets of the weights' update"

    def found(self, model: Any) -> dict[str, tuple[Any, str]]:
        return super().found(model) | _frequencies(model, 2592)


def _frequencies(model: Any, usual: int) -> dict[str, tuple[Any, str]]:
    smallest = min((layer.weight.numel() for layer in linear_layers(model).values()), default=usual)
    return {"n_frequency": (min(usual, smallest), "usual, or as many as the smallest layer has entries")}


def _require_known(model: Any, tuner: Tuner, name: str) -> None:
    """Raises ConfigError where neither the recipe nor PEFT's table for the architecture says what is tuned."""
    from peft.utils import constants

    table = getattr(constants, f"TRANSFORMERS_MODELS_TO_{name}_TARGET_MODULES_MAPPING")
    if tuner.options.target_modules is None and model.config.model_type not in table:
        raise ConfigError(
            f"method.target_modules: PEFT does not know which of {model.config.model_type}'s modules "
            f"{tuner.options.name} is for; name them"
        )
