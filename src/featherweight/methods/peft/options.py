"""Made by ``make methods`` from PEFT's own configurations: the options of its tuners, with its defaults.

``None`` stands for what PEFT then takes. What PEFT fills in itself, and what a run knows better, is not an option.
"""

from __future__ import annotations

from typing import Any, Literal

from featherweight.recipe import MethodOptions


class AdaLoraOptions(MethodOptions):
    """Of PEFT's ``AdaLoraConfig``."""

    name: Literal["adalora"] = "adalora"
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    lora_alpha: int = 8
    lora_dropout: float = 0.0
    fan_in_fan_out: bool | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    modules_to_save: list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    alpha_pattern: dict[str, Any] | None = None
    trainable_token_indices: dict[str, Any] | list[int] | None = None
    target_r: int = 8
    init_r: int = 12
    tinit: int = 0
    tfinal: int = 0
    deltaT: int = 1
    beta1: float = 0.85
    beta2: float = 0.85
    orth_reg_weight: float = 0.5


class AdamssOptions(MethodOptions):
    """Of PEFT's ``AdamssConfig``."""

    name: Literal["adamss"] = "adamss"
    r: int = 100
    num_subspaces: int = 5
    subspace_rank: int = 1
    target_modules: list[str] | str | None = None
    init_weights: Literal["orthogonal"] | None = "orthogonal"
    modules_to_save: list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    use_asa: bool = False
    asa_target_subspaces: int = 50
    init_warmup: int = 50
    final_warmup: int = 1000
    mask_interval: int = 100
    asa_importance_beta: float = 0.85
    asa_uncertainty_beta: float = 0.85
    asa_schedule_exponent: float = 3.0
    use_dynamic_rank: bool = False
    svd_threshold: float = 0.1
    random_seed: int = 0


class BeftOptions(MethodOptions):
    """Of PEFT's ``BeftConfig``."""

    name: Literal["beft"] = "beft"
    target_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    init_weights: bool = True


class BOFTOptions(MethodOptions):
    """Of PEFT's ``BOFTConfig``."""

    name: Literal["boft"] = "boft"
    boft_block_size: int = 4
    boft_block_num: int = 0
    boft_n_butterfly_factor: int = 1
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    boft_dropout: float = 0.0
    fan_in_fan_out: bool | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None
    init_weights: bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None


class C3AOptions(MethodOptions):
    """Of PEFT's ``C3AConfig``."""

    name: Literal["c3a"] = "c3a"
    block_size: int | None = None
    target_modules: list[str] | str | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    block_size_pattern: dict[str, Any] | None = None
    init_weights: Literal["gaussian", "kaiming_uniform", "xavier_uniform"] | bool | None = "xavier_uniform"


class DeftOptions(MethodOptions):
    """Of PEFT's ``DeftConfig``."""

    name: Literal["deft"] = "deft"
    r: int = 8
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    decomposition_method: Literal["relu", "qr"] = "relu"
    init_scale: float = 1.0
    alpha: int | None = None
    para: bool = False
    fan_in_fan_out: bool | None = None
    deft_dropout: float = 0.0
    init_weights: bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None


class DeloraOptions(MethodOptions):
    """Of PEFT's ``DeloraConfig``."""

    name: Literal["delora"] = "delora"
    r: int = 8
    delora_lambda: int = 15
    module_dropout: float = 0.0
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    bias: Literal["none", "all", "delora_only"] = "none"
    init_weights: bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict[str, Any] | None = None
    lambda_pattern: dict[str, Any] | None = None
    modules_to_save: list[str] | None = None


class FourierFTOptions(MethodOptions):
    """Of PEFT's ``FourierFTConfig``."""

    name: Literal["fourierft"] = "fourierft"
    n_frequency: int | None = None
    scaling: float = 150.0
    random_loc_seed: int | None = 777
    fan_in_fan_out: bool | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    n_frequency_pattern: dict[str, Any] | None = None
    init_weights: bool = False


class FrodOptions(MethodOptions):
    """Of PEFT's ``FrodConfig``."""

    name: Literal["frod"] = "frod"
    target_modules: list[str] | str | None = None
    projection_prng_key: int = 0
    save_projection: bool = True
    frod_dropout: float = 0.0
    fan_in_fan_out: bool | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None
    init_weights: bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    sparse_rate: float = 0.01
    regularization_alpha: float = 0.001
    runtime_offload_base_weight: bool = False


class GloraOptions(MethodOptions):
    """Of PEFT's ``GloraConfig``."""

    name: Literal["glora"] = "glora"
    r: int = 8
    target_modules: list[str] | str | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None
    config_A_B: Literal["lora", "vector", "constant", "none"] = "lora"
    config_C: Literal["lora", "vector", "none"] = "lora"
    config_D_E: Literal["vector", "constant", "none"] = "constant"
    init_weights: bool = True


class GraloraOptions(MethodOptions):
    """Of PEFT's ``GraloraConfig``."""

    name: Literal["gralora"] = "gralora"
    r: int = 32
    hybrid_r: int = 0
    target_modules: list[str] | str | None = None
    alpha: int = 64
    gralora_dropout: float = 0.0
    gralora_k: int = 2
    fan_in_fan_out: bool | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None
    init_weights: bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | None = None


class HiraOptions(MethodOptions):
    """Of PEFT's ``HiraConfig``."""

    name: Literal["hira"] = "hira"
    r: int = 32
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    hira_dropout: float = 0.0
    fan_in_fan_out: bool | None = None
    modules_to_save: list[str] | None = None
    init_weights: Literal["gaussian"] | bool | None = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict[str, Any] | None = None


class HRAOptions(MethodOptions):
    """Of PEFT's ``HRAConfig``."""

    name: Literal["hra"] = "hra"
    r: int = 8
    apply_GS: bool = False
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    init_weights: bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None


class IA3Options(MethodOptions):
    """Of PEFT's ``IA3Config``."""

    name: Literal["ia3"] = "ia3"
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    feedforward_modules: list[str] | str | None = None
    fan_in_fan_out: bool | None = None
    modules_to_save: list[str] | None = None
    init_ia3_weights: bool = True


class LNTuningOptions(MethodOptions):
    """Of PEFT's ``LNTuningConfig``."""

    name: Literal["ln-tuning"] = "ln-tuning"
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | str | None = None


class LoHaOptions(MethodOptions):
    """Of PEFT's ``LoHaConfig``."""

    name: Literal["loha"] = "loha"
    rank_pattern: dict[str, Any] | None = None
    alpha_pattern: dict[str, Any] | None = None
    r: int = 8
    alpha: int = 8
    rank_dropout: float = 0.0
    module_dropout: float = 0.0
    use_effective_conv2d: bool = False
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    init_weights: bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None


class LoKrOptions(MethodOptions):
    """Of PEFT's ``LoKrConfig``."""

    name: Literal["lokr"] = "lokr"
    rank_pattern: dict[str, Any] | None = None
    alpha_pattern: dict[str, Any] | None = None
    r: int = 8
    alpha: int = 8
    rank_dropout: float = 0.0
    module_dropout: float = 0.0
    use_effective_conv2d: bool = False
    decompose_both: bool = False
    decompose_factor: int = -1
    rank_dropout_scale: bool = False
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    init_weights: Literal["lycoris"] | bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None


class MissOptions(MethodOptions):
    """Of PEFT's ``MissConfig``."""

    name: Literal["miss"] = "miss"
    r: int = 64
    miss_dropout: float = 0.0
    mini_r: int = 1
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    init_weights: Literal["bat", "mini"] | bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None


class OFTOptions(MethodOptions):
    """Of PEFT's ``OFTConfig``."""

    name: Literal["oft"] = "oft"
    r: int = 0
    oft_block_size: int | None = None
    module_dropout: float = 0.0
    target_modules: list[str] | str | None = None
    fan_in_fan_out: bool | None = None
    bias: Literal["none", "all", "oft_only"] = "none"
    exclude_modules: list[str] | str | None = None
    init_weights: bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    coft: bool = False
    eps: float = 6e-05
    block_share: bool = False
    use_cayley_neumann: bool = True
    num_cayley_neumann_terms: int = 5


class OSFOptions(MethodOptions):
    """Of PEFT's ``OSFConfig``."""

    name: Literal["osf"] = "osf"
    effective_rank: float | int | None = None
    target_modules: list[str] | str | None = None
    rank_pattern: dict[str, Any] | None = None
    init_weights: bool | None = True
    modules_to_save: list[str] | None = None
    target_svd_config: dict[str, Any] | None = None


class PeanutOptions(MethodOptions):
    """Of PEFT's ``PeanutConfig``."""

    name: Literal["peanut"] = "peanut"
    r: int = 32
    depth: int = 0
    act_fn: str = "relu"
    scaling: float = 1.0
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    init_weights: bool = True


class PromptTuningOptions(MethodOptions):
    """Of PEFT's ``PromptTuningConfig``."""

    name: Literal["prompt-tuning"] = "prompt-tuning"
    num_virtual_tokens: int | None = None
    modules_to_save: list[str] | None = None
    prompt_tuning_init: Literal["TEXT", "SAMPLE_VOCAB", "RANDOM"] | str = "RANDOM"


class PsoftOptions(MethodOptions):
    """Of PEFT's ``PsoftConfig``."""

    name: Literal["psoft"] = "psoft"
    r: int = 32
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    psoft_alpha: int = 32
    psoft_dropout: float = 0.0
    fan_in_fan_out: bool | None = None
    ab_svd_init: Literal["psoft_init", "pissa_init"] = "psoft_init"
    psoft_svd: Literal["full", "lowrank"] = "full"
    psoft_svd_lowrank_niter: int = 10
    random_seed: int = 0
    psoft_orth: bool = True
    psoft_mag_b: bool = True
    psoft_mag_a: bool = True
    use_cayley_neumann: bool = False
    num_cayley_neumann_terms: int = 5
    cayley_neumann_eps: float | None = None
    modules_to_save: list[str] | None = None
    init_weights: bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None


class PveraOptions(MethodOptions):
    """Of PEFT's ``PveraConfig``."""

    name: Literal["pvera"] = "pvera"
    r: int = 256
    target_modules: list[str] | str | None = None
    projection_prng_key: int = 0
    save_projection: bool = True
    pvera_dropout: float = 0.0
    d_initial: float = 0.1
    fan_in_fan_out: bool | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None
    init_weights: bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    sample_at_inference: bool = False
    generator_seed: int | None = None


class PromptEncoderOptions(MethodOptions):
    """Of PEFT's ``PromptEncoderConfig``."""

    name: Literal["p-tuning"] = "p-tuning"
    num_virtual_tokens: int | None = None
    modules_to_save: list[str] | None = None
    encoder_reparameterization_type: Literal["MLP", "LSTM"] | str = "MLP"
    encoder_hidden_size: int | None = None
    encoder_num_layers: int = 2
    encoder_dropout: float = 0.0


class RandLoraOptions(MethodOptions):
    """Of PEFT's ``RandLoraConfig``."""

    name: Literal["randlora"] = "randlora"
    r: int = 32
    target_modules: list[str] | str | None = None
    projection_prng_key: int = 0
    save_projection: bool = True
    sparse: bool = False
    very_sparse: bool = False
    randlora_dropout: float = 0.0
    fan_in_fan_out: bool | None = None
    randlora_alpha: int = 640
    bias: str = "none"
    modules_to_save: list[str] | None = None
    init_weights: bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | None = None


class RoadOptions(MethodOptions):
    """Of PEFT's ``RoadConfig``."""

    name: Literal["road"] = "road"
    variant: Literal["road_1", "road_2", "road_4"] | str = "road_1"
    group_size: int | None = None
    init_weights: bool = True
    target_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None


class ShiraOptions(MethodOptions):
    """Of PEFT's ``ShiraConfig``."""

    name: Literal["shira"] = "shira"
    r: int = 32
    mask_type: Literal["random"] = "random"
    random_seed: int | None = None
    target_modules: list[str] | str | None = None
    fan_in_fan_out: bool | None = None
    init_weights: bool = True
    modules_to_save: list[str] | None = None


class SupertuningOptions(MethodOptions):
    """Of PEFT's ``SupertuningConfig``."""

    name: Literal["supertuning"] = "supertuning"
    target_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    sparsity: float = 0.99
    select_top: bool = True
    r: int | None = None
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    init_weights: bool = True
    save_precomputed_indices: bool = True


class TinyLoraOptions(MethodOptions):
    """Of PEFT's ``TinyLoraConfig``."""

    name: Literal["tinylora"] = "tinylora"
    r: int = 2
    u: int = 64
    weight_tying: float = 0.0
    projection_seed: int = 42
    save_projection: bool = True
    init_v_bound: float = 0.02
    target_modules: list[str] | str | None = None
    tinylora_dropout: float = 0.0
    fan_in_fan_out: bool | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None
    init_weights: bool | str = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None


class UniLoraOptions(MethodOptions):
    """Of PEFT's ``UniLoraConfig``."""

    name: Literal["unilora"] = "unilora"
    r: int = 4
    proj_seed: int = 42
    theta_d_length: int = 256
    target_modules: list[str] | str | None = None
    unilora_dropout: float = 0.0
    fan_in_fan_out: bool | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None
    init_theta_d_bound: float = 0.02
    init_weights: bool = True
    save_indices: bool = False
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None


class VBLoRAOptions(MethodOptions):
    """Of PEFT's ``VBLoRAConfig``."""

    name: Literal["vblora"] = "vblora"
    r: int = 4
    num_vectors: int = 256
    vector_length: int | None = None
    topk: int = 2
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    save_only_topk_weights: bool = False
    vblora_dropout: float = 0.0
    fan_in_fan_out: bool | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None
    init_vector_bank_bound: float = 0.02
    init_logits_std: float = 0.1
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None


class VeraOptions(MethodOptions):
    """Of PEFT's ``VeraConfig``."""

    name: Literal["vera"] = "vera"
    r: int = 256
    target_modules: list[str] | str | None = None
    projection_prng_key: int = 0
    save_projection: bool = True
    vera_dropout: float = 0.0
    d_initial: float = 0.1
    fan_in_fan_out: bool | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None
    init_weights: bool = True
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None


class WaveFTOptions(MethodOptions):
    """Of PEFT's ``WaveFTConfig``."""

    name: Literal["waveft"] = "waveft"
    n_frequency: int | None = None
    scaling: float = 25.0
    wavelet_family: str = "db1"
    use_idwt: bool = True
    random_loc_seed: int = 777
    fan_in_fan_out: bool | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: list[str] | str | None = None
    n_frequency_pattern: dict[str, Any] | None = None
    proportional_parameters: bool = False
    init_weights: bool = True
