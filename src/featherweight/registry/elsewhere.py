"""Names that people bring from other tools, and what to use here: asked before any "did you mean" guesses.

A guess by spelling would send somebody who writes ``dora`` to ``lora``, and ``multi-label-classification`` to another
task. A test holds ``TRAINING_ARGUMENTS`` to transformers: each of its fields is a key of ``[training]`` or stands here.
"""

from __future__ import annotations

from collections.abc import Mapping

_MACHINE = "the device is found; CUDA_VISIBLE_DEVICES hides one"
_LAUNCHER = "torchrun, accelerate launch or `featherweight run --num-processes N` says which processes make a run"
_SUM = "several processes add up their gradients once a step, and count its items over all of them"
_SHARDS = "set fsdp = true: each of several processes then keeps a part of every frozen weight; there is no more to set"
_LOGGING = "--quiet, --json and history.jsonl in the run's folder say what a run says"
_HUB = "`featherweight push RUN USER/NAME` uploads a finished run"
_LOADER = "rows are memory-mapped and batched in the training process"
_TRACKIO = "trackio's own environment variables say where its data go"
_REMOVED = "transformers no longer has it either"

# Fields of TrainingArguments (some of earlier versions) that are no key of [training], and what to use, if anything.
TRAINING_ARGUMENTS: Mapping[str, str] = {
    "output_dir": "give --output-dir",
    "overwrite_output_dir": "give another --output-dir",
    "resume_from_checkpoint": "give --resume, or --resume CHECKPOINT",
    "run_name": "the recipe's own 'name' names the run",
    "group_by_length": 'set train_sampling_strategy = "group_by_length"',
    "do_train": "`featherweight run` trains and measures",
    "do_eval": "`featherweight run` trains and measures",
    "do_predict": "use `featherweight predict`",
    "save_only_model": "checkpoints hold what a resumed run needs, and the adapter is published apart from them",
    "eval_on_start": "the model is always measured before it is tuned",
    "data_seed": "seed orders the rows of train, data.split_seed chooses the rows that are measured",
    "full_determinism": "a run of one seed on one machine is always the same to the byte",
    "logging_nan_inf_filter": "steps that are not finite are left out, up to max_skipped_steps",
    "auto_find_batch_size": "where memory runs out, micro-batches are cut in half and the step stays",
    "label_names": "set data.label and data.labels",
    "remove_unused_columns": "only the columns that the recipe names are read",
    "ignore_data_skip": "a resumed run goes on at the very row where it stopped",
    "prediction_loss_only": "every evaluation has the task's figures",
    "length_column_name": "lengths are those of the tokens",
    "gradient_checkpointing_kwargs": "transformers' own are taken where gradient_checkpointing is true",
    "activation_checkpointing": "lower per_device_train_batch_size and raise gradient_accumulation_steps",
    "activation_checkpointing_kwargs": "lower per_device_train_batch_size and raise gradient_accumulation_steps",
    "optim_args": "set adam_beta1, adam_beta2, adam_epsilon and weight_decay; adafactor and sgd take no more",
    "optim_target_modules": "set method.target_modules",
    "logging_strategy": "set logging_steps",
    "logging_first_step": "set logging_steps = 1",
    "logging_dir": "TensorBoard's files are in the run's folder, or where TENSORBOARD_LOGGING_DIR says",
    "project": "WANDB_PROJECT, MLFLOW_EXPERIMENT_NAME, TRACKIO_PROJECT or COMET_PROJECT_NAME names it",
    "trackio_space_id": _TRACKIO,
    "trackio_bucket_id": _TRACKIO,
    "trackio_static_space_id": _TRACKIO,
    "log_level": _LOGGING,
    "log_level_replica": _LOGGING,
    "log_on_each_node": _LOGGING,
    "disable_tqdm": _LOGGING,
    "debug": "give --debug",
    "no_cuda": _MACHINE,
    "use_cpu": _MACHINE,
    "use_mps_device": _MACHINE,
    "tf32": "products are fp32, or set bf16",
    "half_precision_backend": "set bf16 or fp16",
    "bf16_full_eval": "evaluation runs in the precision of training",
    "fp16_full_eval": "evaluation runs in the precision of training",
    "push_to_hub": _HUB,
    "hub_token": _HUB,
    "hub_private_repo": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_always_push": _HUB,
    "hub_revision": _HUB,
    "dataloader_drop_last": _LOADER,
    "dataloader_num_workers": _LOADER,
    "dataloader_pin_memory": _LOADER,
    "dataloader_persistent_workers": _LOADER,
    "dataloader_prefetch_factor": _LOADER,
    "dataloader_multiprocessing_context": _LOADER,
    "dataloader_in_order": _LOADER,
    "local_rank": _LAUNCHER,
    "accelerator_config": _LAUNCHER,
    "parallelism_config": _LAUNCHER,
    "average_tokens_across_devices": _SUM,
    "save_on_each_node": "the first of several processes owns the run's folder",
    "ddp_find_unused_parameters": _SUM,
    "ddp_bucket_cap_mb": _SUM,
    "ddp_broadcast_buffers": _SUM,
    "ddp_static_graph": _SUM,
    "ddp_backend": "gloo on processors, nccl on GPUs",
    "ddp_timeout": "a process that is gone is noticed at once",
    "fsdp_config": _SHARDS,
    "deepspeed": _SHARDS,
    "tpu_num_cores": "processors and CUDA devices are what runs use",
    "past_index": _REMOVED,
    "fp16_opt_level": _REMOVED,
    "neftune_noise_alpha": "",
    "torch_compile": "",
    "torch_compile_backend": "",
    "torch_compile_mode": "",
    "use_liger_kernel": "",
    "liger_kernel_config": "",
    "use_cache": "",
    "torch_empty_cache_steps": "",
    "include_num_input_tokens_seen": "",
    "eval_delay": "",
    "eval_do_concat_batches": "",
    "eval_use_gather_object": "",
    "eval_accumulation_steps": "",
    "include_for_metrics": "",
    "batch_eval_metrics": "",
    "enable_jit_checkpoint": "",
    "restore_callback_states_from_checkpoint": "",
    "skip_memory_metrics": "",
}

_PAIRS = 'pairs of texts are two columns in data.text, such as ["premise", "hypothesis"]'
_TEXT = "the column that holds the text is data.text"

# Keys of the transformers scripts, of TRL, PEFT and of other trainers, by the section where somebody would write them.
_KEYS: Mapping[str, Mapping[str, str]] = {
    "training": {
        **{
            name: f"TrainingArguments has it, Featherweight does not{advice and f': {advice}'}"
            for name, advice in TRAINING_ARGUMENTS.items()
        },
        "evaluation_strategy": "it is called eval_strategy",
        "per_gpu_train_batch_size": "it is called per_device_train_batch_size",
        "per_gpu_eval_batch_size": "it is called per_device_eval_batch_size",
        "epochs": "it is called num_train_epochs",
        "lr": "it is called learning_rate",
        "batch_size": "it is called per_device_train_batch_size",
        "train_batch_size": "it is called per_device_train_batch_size",
        "eval_batch_size": "it is called per_device_eval_batch_size",
        "class_weight": "it is called class_weights",
        "pos_weight": "it is called class_weights",
        "label_smoothing": "it is called label_smoothing_factor",
        "gamma": "it is called focal_gamma",
        "scheduler": "it is called lr_scheduler_type",
        "optimizer": "it is called optim",
        "loraplus_lr_embedding": "LoRA of embeddings trains at 1e-6 under LoRA+, which is PEFT's default",
        "loraplus_weight_decay": "weight_decay is LoRA+'s, too",
        "beta": 'it is for task = "preference"',
        "loss_type": 'it is for task = "preference"; what else other tasks lower is training.loss',
        "precompute_ref_log_probs": "the reference is always computed once, before training",
        "ref_model": "the reference is the model that model.name names",
    },
    "data": {
        "text_pair": _PAIRS,
        "sentence1_key": _PAIRS,
        "sentence2_key": _PAIRS,
        "text_column": _TEXT,
        "text_column_name": _TEXT,
        "text_column_names": _TEXT,
        "dataset_text_field": _TEXT,
        "label_column": "the column that holds the label is data.label",
        "label_column_name": "the column that holds the label is data.label",
        "dataset_name": "it is called data.name",
        "dataset_config_name": "it is called data.config",
        "max_seq_length": "it is called data.max_length",
        "eval_file": "it is called data.validation_file",
        "dev_file": "it is called data.validation_file",
        "test_size": "it is called data.test_fraction",
        "validation_split_percentage": "it is called data.validation_fraction, a share between 0 and 1",
        "label_separator": 'it is for task = "multi-label-classification"',
        "labels_columns": 'it is for task = "multi-label-classification"',
        **dict.fromkeys(
            ["source_prefix", "source_lang", "target_lang", "max_target_length"], 'it is for task = "seq2seq-lm"'
        ),
        "max_source_length": 'it is called data.max_length, which task = "seq2seq-lm" also takes by this name, once',
        "summary_column": "the column that holds what is written is data.label",
        "val_max_target_length": "it is called data.max_target_length",
        "num_beams": "it is an option of `featherweight predict`, --num-beams",
    },
    "model": {
        "model_name_or_path": "it is called model.name",
        "path": "it is called model.name",
        "token": "set the environment's HF_TOKEN",
        "trust_remote_code": "code that comes with a model is never run",
        "num_labels": "the labels are the data's; data.labels names them",
        "torch_dtype": "it is called model.dtype",
        "load_in_4bit": 'it is model.quantization = "nf4"',
        "load_in_8bit": 'it is model.quantization = "int8"',
        "bnb_4bit_quant_type": 'it is model.quantization = "nf4"',
        "quantization_config": 'model.quantization has what there is: "nf4" or "int8"',
    },
    "method": {
        "rank": "it is called method.r",
        "alpha": "it is called method.lora_alpha",
        "dropout": "it is called method.lora_dropout",
        "task_type": "the recipe's task decides it",
        "peft_type": "it is called method.name",
        "inference_mode": "it is set where the adapter is saved",
        "total_step": "it is the number of steps that the run has",
        **dict.fromkeys(
            ["token_dim", "num_layers", "num_attention_heads", "num_transformer_submodules"], "the model decides it"
        ),
    },
}

_TASK_IDS = "wants to be told of every row which of several tasks it is of, and a run has one task"
_PAST = (
    "puts keys and values before a text, which transformers' models with a head do not take from PEFT any more; "
    "prompt-tuning and p-tuning put embeddings there"
)

# PEFT's tuners that a run can't tune by.
REFUSED_TUNERS: Mapping[str, str] = {
    "adaption-prompt": "has no place for the head in its file, so its answers could not be loaded again; use lora",
    "cartridge": _PAST,
    "cpt": "is for models that continue a text, and knows no other task",
    "lily": "averages its router over all tokens of a batch, so a text's answer changes with the texts beside it",
    "multitask-prompt-tuning": _TASK_IDS,
    "poly": _TASK_IDS,
    "prefix-tuning": _PAST,
    "shadow": "answers by a second network with a head of its own beside the model, which can't be measured as it",
    "trainable-tokens": "has no place for the head in its file; use lora with method.trainable_token_indices",
    "xlora": "mixes adapters that were trained before, and a run trains one",
}

# Values of `task`, of `method.name` and of `training.optim`.
_NOT_YET = "is not supported yet"
VALUES: Mapping[str, Mapping[str, str]] = {
    "task": {
        "multilabel": "is multi-label-classification",
        "text-classification": "is called sequence-classification",
        "sentiment-analysis": "is sequence-classification",
        "ner": "is token-classification",
        "text-generation": "is causal-lm",
        "sft": "is causal-lm",
        "summarization": "is seq2seq-lm",
        "translation": "is seq2seq-lm",
        "text2text-generation": "is seq2seq-lm",
        "dpo": "is preference",
        "orpo": 'is preference with training.loss_type = "orpo"',
        "ipo": 'is preference with training.loss_type = "ipo"',
        **dict.fromkeys(
            [
                "sentence-similarity",
                "question-answering", "multiple-choice",
            ],
            _NOT_YET,
        ),
    },
    "optimizer": {
        "adamw": "is called adamw_torch",
        "adam": "is called adamw_torch",
        "adamw-hf": "is called adamw_torch",
        "lora+": 'is any optimizer with training.loraplus_lr_ratio, such as 16',
        "loraplus": 'is any optimizer with training.loraplus_lr_ratio, such as 16',
        **dict.fromkeys(
            [
                "adamw-torch-xla", "adamw-torch-npu-fused", "adamw-anyprecision", "adamw-torch-4bit",
                "adamw-torch-8bit", "ademamix", "adagrad", "adamw-bnb-8bit", "adamw-8bit", "ademamix-8bit",
                "lion-8bit", "lion-32bit", "paged-adamw-32bit", "paged-adamw-8bit", "paged-ademamix-32bit",
                "paged-ademamix-8bit", "paged-lion-32bit", "paged-lion-8bit", "rmsprop", "rmsprop-bnb",
                "rmsprop-bnb-8bit", "rmsprop-bnb-32bit", "galore-adamw", "galore-adamw-8bit", "galore-adafactor",
                "galore-adamw-layerwise", "galore-adamw-8bit-layerwise", "galore-adafactor-layerwise", "lomo",
                "adalomo", "grokadamw", "schedule-free-radam", "schedule-free-adamw", "schedule-free-sgd",
                "apollo-adamw", "apollo-adamw-layerwise", "stable-adamw", "muon", "lion",
            ],
            _NOT_YET,
        ),
    },
    "method": {
        "dora": 'is method.name = "lora" with method.use_dora = true',
        "rslora": 'is method.name = "lora" with method.use_rslora = true',
        "pissa": 'is method.name = "lora" with method.init_lora_weights = "pissa"',
        "olora": 'is method.name = "lora" with method.init_lora_weights = "olora"',
        "full-fine-tuning": "is called full",
        "fine-tuning": "is called full",
        "head": "is called linear-probe",
        "qlora": 'is method.name = "lora" with model.quantization = "nf4"',
        "bitfit": _NOT_YET,
        "bone": "is called miss",
        **REFUSED_TUNERS,
    },
}  # fmt: skip


def key(location: str) -> str | None:
    """What to say of the unknown key ``section.key``; None where no other tool is known to have it."""
    section, _, name = location.rpartition(".")
    return _KEYS.get(section, {}).get(name)


def value(kind: str, name: str) -> str | None:
    """What to say of a task, method or optimizer that there is none of; None where no other tool has it, either."""
    return VALUES.get(kind, {}).get(str(name).casefold().replace("_", "-"))
