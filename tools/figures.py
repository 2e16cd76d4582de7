"""Tables for ``docs``, from what the benchmarks left in ``benchmarks/*.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featherweight.statistics.proportions import wilson

_BUSY = 4.0  # processes that wait for a processor, on the average of a minute
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BENCHMARKS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def training() -> str:
    """Ours against the stock script, from ``benchmarks/run.py``: a table a machine."""
    return "\n".join(_trained(name, found) for name, found in _read("results")["machines"].items())


def _trained(name: str, results: Mapping[str, Any]) -> str:
    machine, versions = results["machine"], results["versions"]
    lines = [
        "| case | first | second | samples/s | speed, median (range) | peak memory | loss differs by | MFU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, one in results["cases"].items():
        first, second = one["samples_per_second"]
        low, high = one["speed_ratio_range"]
        mfu = "" if one["mfu"] is None else f"{one['mfu']:.2f}"
        less, more = (f"{size / 1e9:.2f}" for size in reversed(one["peak_memory_bytes"]))
        lines.append(
            f"| `{case}` | {one['arms'][0]} | {one['arms'][1]} | {first:.1f}, {second:.1f} | "
            f"**{one['speed_ratio']:.2f}x** ({low:.2f} to {high:.2f}, n = {one['repeats']}) | "
            f"{more}, {less} GB ({one['memory_ratio']:.2f}x) | {one['loss_difference']:.0e} | {mfu} |"
        )
    peaks = {
        arm: [one["matrix_product_flops"][arm] / 1e9 for one in results["cases"].values()] for arm in ("stock", "ours")
    }
    used = ", ".join(f"{package} {version}" for package, version in versions.items() if package != "featherweight")
    lines += [
        "",
        f"{machine['cores']} cores of {name}, {machine['memory_bytes'] / 2**30:.0f} GiB; fp32 matrix "
        f"product {min(peaks['stock']):.0f} to {max(peaks['stock']):.0f} GFLOP/s as PyTorch makes it, "
        f"{min(peaks['ours']):.0f} to {max(peaks['ours']):.0f} as ours; {used}. Each row: "
        "`python benchmarks/run.py CASE`; all: `make benchmark`.",
        "",
    ]
    return "\n".join(lines)


def sft() -> str:
    """Supervised fine-tuning beside TRL, from ``benchmarks/sft.py``."""
    path = BENCHMARKS / "sft.json"
    parts = []
    for machine, cases in json.loads(path.read_text(encoding="utf-8"))["machines"].items():
        lines = ["| case | arm | rows/s | speed, median (range) | peak memory | loss |", "|---|---|---|---|---|---|"]
        for case, found in cases.items():
            for name, one in found["arms"].items():
                low, high = one["speed_ratio_range"]
                is_first = one is next(iter(found["arms"].values()))
                speed = (
                    ""
                    if is_first
                    else f"**{one['speed_ratio']:.2f}x** ({low:.2f} to {high:.2f}, n = {found['repeats']})"
                )
                memory = "" if is_first else f" ({one['memory_ratio']:.2f}x)"
                lines.append(
                    f"| `{case}` | {name} | {one['samples_per_second']:.2f} | {speed} | "
                    f"{one['peak_memory_bytes'] / 1e9:.2f} GB{memory} | {one['loss']:.4f} |"
                )
        rows, date = next((one["rows"], one["date"]) for one in cases.values())
        parts += [
            *lines,
            "",
            f"Supervised fine-tuning of SmolLM2-135M, {rows} rows, on 2 cores of {machine}, {date}: "
            "`python benchmarks/sft.py`; all arms learn completions alone, in batches of 8.",
            "",
        ]
    return "\n".join(parts)


def plan() -> str:
    """What ``featherweight plan`` said against what the run took, from ``benchmarks/plan.py``."""
    lines = [
        "| recipe | training planned, was (s) | ratio | peak memory planned, was (GB) | ratio |",
        "|---|---|---|---|---|",
    ]
    for recipe, found in _read("plan").items():
        time, memory = found["train_seconds"], found["peak_memory_bytes"]
        lines.append(
            f"| `{recipe}` | {time['planned']:.0f}, {time['was']:.0f} | {time['ratio']:.2f} | "
            f"{memory['planned'] / 1e9:.2f}, {memory['was'] / 1e9:.2f} | {memory['ratio']:.2f} |"
        )
    return "\n".join([*lines, "", "How true `featherweight plan` was, one run each: `python benchmarks/plan.py`.", ""])


def evidence() -> str:
    """From ``benchmarks/evidence.py``."""
    found = _read("evidence")
    predictions, twins = found["cases"]["predictions"], found["cases"]["duplicates"]
    return (
        f"`python benchmarks/evidence.py`, on {_machine(found)}: all evidence for {predictions['rows']:,} predictions "
        f"took {predictions['seconds']:.1f} s; near duplicates among {twins['rows']:,} short texts "
        f"{twins['seconds']:.0f} s and {twins['peak_memory_bytes'] / 1e9:.2f} GB, finding {twins['recall']:.1%} of "
        f"{twins['injected']:,} texts with one word changed.\n"
    )


def scale() -> str:
    """From ``benchmarks/scale.py``, where it was run."""
    if not (BENCHMARKS / "scale.json").is_file():
        return ""
    found = _read("scale")
    lines = [
        "| case | rows | classes | to the first step | in all | peak memory | longest stages |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, case in found["cases"].items():
        longest = sorted(case["stages"], key=lambda stage: -stage["seconds"])[:3]
        stages = ", ".join(f"{stage['stage']} {stage['seconds']:.0f} s" for stage in longest)
        first = "" if case["first_step_seconds"] is None else f"{case['first_step_seconds']:.0f} s"
        lines.append(
            f"| `{name}` | {case['rows']:,} | {case['classes']:,} | {first} | {case['seconds']:.0f} s | "
            f"{case['peak_memory_bytes'] / 1e9:.2f} GB | {stages} |"
        )
    lines += [
        "",
        f"Five steps on MiniLM-L6, {_machine(found)}: `python benchmarks/scale.py`. The last baseline's stage goes "
        "on through the measuring of the base model and the first steps, so peaks are those of training on 32 rows, of "
        "512 tokens each for documents.",
        "",
    ]
    return "\n".join(lines)


def predictor() -> str:
    """From ``benchmarks/predict.py``."""
    found = _read("predict")
    lines = [
        "| | SST-2 validation, texts/s | against text by text, batch 32 | IMDb reviews, texts/s "
        "| against text by text, batch 32 | first answer of a new process (s) |",
        "|---|---|---|---|---|---|",
    ]
    names = {"single": "pipeline, text by text", "batch32": "pipeline, `batch_size=32`", "torch": "the run, torch",
             "onnx": "ONNX", "onnx-int8": "ONNX int8"}  # fmt: skip
    starts = {"single": "stock"}
    for arm, name in names.items():
        cells = []
        for data in ("sst2", "imdb"):
            one = found[data].get(arm)
            cells += (
                [f"{one['texts_per_second']:.0f}", f"{one['against_single']:.1f}x, {one['against_batch32']:.1f}x"]
                if one
                else ["refused", ""]
            )
        start = found["start"].get(starts.get(arm, arm))
        lines.append(f"| {name} | {' | '.join(cells)} | {format(start['seconds'], '.2f') if start else ''} |")
    int8 = found["sst2"].get("onnx-int8")
    kept = f" int8 gave {int8['same_label_as_stock']:.1%} of the labels on SST-2." if int8 else ""
    return "\n".join(
        [
            *lines,
            "",
            f"MiniLM-L6 after the demo, reviews cut at 128 tokens, {_machine(found)}, medians of "
            f"{found['sst2']['torch']['repeats']} rounds in which the arms take turns: "
            "`python benchmarks/predict.py RUN`." + kept,
            "",
        ]
    )


def server() -> str:
    """From ``benchmarks/serve.py``."""
    found = _read("serve")
    arms, flood, memory = found["closed"], found["overload"], found["memory"]
    lines = [
        "| clients | naive, requests/s | ours | ratio | naive p50, p99 (ms) | ours p50, p99 (ms) |",
        "|---|---|---|---|---|---|",
    ]
    for clients, ratio in arms["speed_ratio"].items():
        naive, ours = arms["naive"][clients], arms["ours"][clients]
        lines.append(
            f"| {clients} | {naive['requests_per_second']:.0f} | {ours['requests_per_second']:.0f} | **{ratio:.1f}x** "
            f"| {naive['p50_ms']:.0f}, {naive['p99_ms']:.0f} | {ours['p50_ms']:.0f}, {ours['p99_ms']:.0f} |"
        )
    lines += ["", "Requests that arrive at random times, whether or not the last is answered:", ""]
    lines += ["| offered | naive p50, p99 (ms) | ours p50, p99 (ms) |", "|---|---|---|"]
    for rate, ours in found["open"]["ours"].items():
        naive = found["open"]["naive"][rate]
        lost = "" if set(naive["statuses"]) == {"200"} else " and falls behind"
        lines.append(
            f"| {rate} | {naive['p50_ms']:.0f}, {naive['p99_ms']:.0f}{lost} "
            f"| {ours['p50_ms']:.0f}, {ours['p99_ms']:.0f} |"
        )
    lines += [
        "",
        f"Ten times the capacity ({flood['offered_per_second']:.0f} requests/s) for {flood['seconds']:.0f} s, from a "
        f"generator on the same two cores: {flood['requests_per_second']:.0f} answered a second, the others refused "
        f"with 429, half of them within {flood['refused_p50_ms']:.0f} ms and 99 % within "
        f"{flood['refused_p99_ms']:.0f} ms; memory from {flood['memory_before'] / 1e6:.0f} to "
        f"{flood['memory_peak'] / 1e6:.0f} MB; {flood['recovered_after_seconds']:.1f} s afterwards all is answered "
        f"again. 8 adapters take {memory['ratio']:.2f} "
        "times the memory of one.",
        "",
        f"MiniLM-L6 (22.7 M) with LoRA on all linear layers, Rotten Tomatoes sentences, {_machine(found)} that server "
        "and generator shared, 5 s a cell: `python benchmarks/serve.py RUN`.",
        "",
    ]
    return "\n".join(lines)


def defaults() -> str:
    """What the defaults give beside their rivals and the other recipes tried, from ``benchmarks/recipes.py``."""
    lines = (BENCHMARKS / "recipes.jsonl").read_text(encoding="utf-8").splitlines()
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for one in map(json.loads, lines):
        found.setdefault((one["model"], one["set"]), {}).setdefault(one["arm"], []).append(one)
    table = [
        "| model | set | rows | classes | TF-IDF | probe | before | **defaults** (seeds) | interval | best tried |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    shown = {key: arms for key, arms in found.items() if "default" in arms}
    by_size = sorted(shown, key=lambda key: (key[0], shown[key]["default"][0]["rows"]["train"]))
    for model, name in by_size:
        arms = shown[model, name]
        ours = [_accuracy(one) for one in arms["default"]]
        first, rivals = arms["default"][0], arms.get("rivals", [{}])[0]
        rows = first["rows"]["test"]
        low, high = wilson(round(sum(ours) / len(ours) * rows), rows)
        others = {
            arm: max(map(_accuracy, runs)) for arm, runs in arms.items() if arm not in {"rivals", "before", "default"}
        }
        best = max(others, key=lambda arm: others[arm], default=None)
        spread = "" if len(ours) == 1 else f", {min(ours):.3f} to {max(ours):.3f}"
        cells = [
            model, f"`{name}`", f"{first['rows']['train']:,}", f"{first['classes']}",
            *(f"{rivals[rival]:.3f}" if rival in rivals else "" for rival in ("tfidf", "probe")),
            ", ".join(f"{_accuracy(one):.3f}" for one in arms.get("before", [])[:1]),
            f"**{sum(ours) / len(ours):.3f}** ({len(ours)}{spread})", f"{low:.3f} to {high:.3f}",
            "" if best is None else f"{others[best]:.3f} ({best})",
        ]  # fmt: skip
        table.append(f"| {' | '.join(cells)} |")
    return "\n".join([*table, ""])


def minutes() -> str:
    """Accuracy over minutes of training, from ``benchmarks/minutes.py``."""
    found = json.loads((BENCHMARKS / "minutes.json").read_text(encoding="utf-8"))
    curves = found["curves"]

    def cell(arm: str, at: float) -> str:
        known = [point for point in curves[arm] if at - 1 < point[0] <= at]
        return f"{known[-1][2]:.4f} ({known[-1][1]:,})" if known else ""

    marks = sorted({math.ceil(at) for arm in ("defaults", "stock") for at, _, _ in curves[arm]})
    (last,), (limited,) = curves["defaults"][-1:], curves["limited"]
    return "\n".join(
        [
            "| minutes of training, up to | defaults: accuracy (steps) | the stock script at the same recipe |",
            "|---|---|---|",
            *(f"| {at} | {cell('defaults', at)} | {cell('stock', at)} |" for at in marks),
            "",
            f"The defaults end after {last[0]:.1f} minutes at {last[2]:.4f}; with `training.time_limit = "
            f'"{found["minutes"]:g} min"` a run ends after {limited[0]:.1f} at {limited[2]:.4f}. One seed: '
            f"others end up to 0.01 higher. `python benchmarks/minutes.py`, on {_machine(found)}, {found['date']}.",
            "",
        ]
    )


def sweep() -> str:
    """What sweeps save, find and claim, from ``benchmarks/sweep.py``: each part that was measured."""
    found = _read("sweep")
    parts = {"sharing": _shared, "defaults": _tried, "noise": _claimed}
    lines = []
    for name, said in parts.items():
        if name in found:
            aside = ["Other work took much of the machine's time meanwhile."] if found[name]["load"] > _BUSY else []
            lines += [*said(found[name]), *aside, ""]
    last = found[max(found, key=lambda name: str(found[name]["date"]))]
    lines.append(f"`python benchmarks/sweep.py`, {_machine(last)}, {last['date']}.")
    return "\n".join([*lines, ""])


def _shared(found: Mapping[str, Any]) -> list[str]:
    arms = {
        f"{found['trials']} runs, a process each": found["runs"],
        f"a sweep of {found['trials']} trials": found["sweep"],
    }
    times = found["times"]
    return [
        f"| {found['train_rows']:,} rows of Rotten Tomatoes, MiniLM | minutes | minutes of processor time |",
        "|---|---|---|",
        *(f"| {how} | {one['seconds'] / 60:.1f} | {one['processor_seconds'] / 60:.1f} |" for how, one in arms.items()),
        f"| times as fast | {times['seconds']:.2f} | {times['processor_seconds']:.2f} |",
        "",
        f"Of the runs' minutes {found['training_seconds'] / 60:.1f} were training, which nothing shortens; each trial "
        "has the figures that its run has.",
    ]


def _tried(found: Mapping[str, Any]) -> list[str]:
    states, chosen = found["states"], found["selection"]
    return [
        f"`sweep --defaults --time-limit '{found['time_limit']}'` on {found['train_rows']:,} rows of Rotten Tomatoes, "
        f"MiniLM: {len(states)} trials ({states.count('pruned')} pruned) in {found['seconds'] / 60:.1f} minutes, "
        f'{found["processor_seconds"] / 60:.1f} of processor time. "{found["headline"]}" The winner: '
        f"{_settings(found['winner']['settings'])}; on validation it had {chosen['chosen_on']:.4f}, and choosing adds "
        f"at most {chosen['optimism_at_most']:.4f} to that."
    ]


def _claimed(found: Mapping[str, Any]) -> list[str]:
    sweeps = found["sweeps"]
    chosen, untouched = (sum(one[key] for one in sweeps) / len(sweeps) for key in ("chosen_on", "untouched"))
    return [
        f"Labels shuffled, a tiny model, {len(sweeps)} seeds, {found['trials']} trials each: {found['claims']} of "
        f"{len(sweeps)} claim anything. The winners had {chosen:.3f} in the mean on the rows that chose them, and "
        f"{untouched:.3f} on those that did not."
    ]


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}` {value:g}" for key, value in settings.items())


_NAMES = {
    "tweets": "VADER, tweets", "films": "VADER, sentences of film reviews", "snips": "SNIPS, slots",
    "wnut": "WNUT-17, entities", "entailment": "SICK, entailment", "relatedness": "SICK, relatedness",
    "stsb": "STS-B, English", "goemotions": "GoEmotions", "nlupp": "NLU++, banking",
    **{f"{name.lower()}-{shots}": f"{name}, {shots} a class" for name in ("BANKING77", "CLINC150", "HWU64")
       for shots in (5, 10)},
    "long": "film reviews, 256 tokens", "rare": "SST-2, 99 to 1",
    "rare-told": "SST-2, 99 to 1, measured on halves",
}  # fmt: skip


def _beside(sets: dict[str, Any]) -> list[str]:
    """What is compared in pairs beside the table: with a rival, at the fitted thresholds, with a setting changed."""
    lines = []
    for name, one in sets.items():
        for rival, paired in one.get("gains", {}).items():
            for statistic, gain in paired.items():
                lines.append(f"- {_NAMES[name]}: {statistic} against {rival} {_moved(gain)}.")
        gained = [f"{statistic} {_moved(gain)}" for statistic, gain in one.get("thresholds", {}).items()]
        if gained:
            lines.append(
                f"- {_NAMES[name]}: the fitted thresholds, on rows that did not choose them: {', '.join(gained)}."
            )
        if changed := one.get("changed"):
            moves = {**changed["paired"], **{f"accuracy of {label}": gain for label, gain in changed["labels"].items()}}
            shown = ", ".join(f"{what} {_moved(gain)}" for what, gain in moves.items())
            lines.append(f"- {_NAMES[name]}: `{changed['what']}` moves {shown}.")
            for rival, paired in changed["gains"].items():
                found = ", ".join(f"{statistic} {_moved(gain)}" for statistic, gain in paired.items())
                lines.append(f"- {_NAMES[name]}: with `{changed['what']}` against {rival}: {found}.")
    return [*lines, ""] if lines else []


def _moved(gain: dict[str, Any]) -> str:
    low, high = gain["confidence_interval"]
    return f"{gain['difference']:+.4f} ({low:+.4f} to {high:+.4f})"


def tasks() -> str:
    """Regression and token classification on public data, from ``benchmarks/tasks.py``."""
    found = json.loads((BENCHMARKS / "tasks.json").read_text(encoding="utf-8"))
    lines = []
    for task in dict.fromkeys(one["task"] for one in found["sets"].values()):
        sets = {name: one for name, one in found["sets"].items() if one["task"] == task}
        figures = list(next(iter(sets.values()))["figures"]["tuned"])
        lines += [
            f"| {task}: test rows | model | {' | '.join(figures)} |",
            f"|---|---|{'---|' * len(figures)}",
        ]
        for name, one in sets.items():
            for rung, values in one["figures"].items():
                shown = " | ".join(f"{values[figure]:.4f}" for figure in figures)
                lines.append(f"| {_NAMES[name]} | {rung} | {shown} |")
        lines += ["", *_beside(sets)]
    minutes = (f"{_NAMES[name]} {one['train_seconds'] / 60:.1f}" for name, one in found["sets"].items())
    return "\n".join(
        [
            *lines,
            f"Minutes of training with its evaluations: {', '.join(minutes)}. MiniLM-L6, the defaults, one seed; "
            f"`python benchmarks/tasks.py`, on {_machine(found)}, {found['date']}.",
            "",
        ]
    )


_MODELS = {"minilm-l6": "MiniLM-L6", "smollm2": "SmolLM2-135M"}


_COLUMNS = (
    "accuracy", "interval", "against lora", "trains", "minutes", "rows/s", "evaluated/s", "memory", "batches",
)  # fmt: skip


def methods() -> str:
    """Tuners and ways to hold the base model, from ``benchmarks/methods.py``."""
    found = json.loads((BENCHMARKS / "methods.json").read_text(encoding="utf-8"))
    lines = []
    for folder, arms in found["models"].items():
        in_bf16 = folder.endswith("-bf16")
        model, _, size = folder.removesuffix("-bf16").rpartition("-")
        rows, _, epochs = size.partition("x")
        heading = f"{_MODELS[model]}, {int(rows):,} rows" + (f", epochs: {epochs}" if epochs else "")
        heading += ", products in bf16" * in_bf16
        lines += [
            f"| {heading} | {' | '.join(_COLUMNS)} |",
            f"|---{'|---' * len(_COLUMNS)}|",
        ]
        for name, one in arms.items():
            low, high = one["interval"]
            against = _moved(one["beside"]) if "beside" in one else ""
            lines.append(
                f"| {name} | {one['accuracy']:.4f} | {low:.4f} to {high:.4f} | {against} | {one['trainable']:,} | "
                f"{one['seconds'] / 60:.1f} | {one['rows_a_second']:.0f} | {one['evaluated_a_second']:.0f} | "
                f"{one['peak_memory_bytes'] / 1e9:.2f} GB | {one['batches']} |"
            )
        measured = found["measured"][folder]
        lines += ["", f"`python benchmarks/methods.py`, on {_machine(measured)}, {measured['date']}.", ""]
    return "\n".join(lines)


def precision() -> str:
    """What bf16 costs in accuracy, from ``benchmarks/precision.py``."""
    found = json.loads((BENCHMARKS / "precision.json").read_text(encoding="utf-8"))
    lines = []
    for folder, one in found["models"].items():
        model, _, rows = folder.rpartition("-")
        told = one["verdict"]
        low, high = told["confidence_interval"]
        shown = "no worse" if told["non_inferior"] else "not shown to be no worse"
        lines.append(
            f"Accuracy in bf16 less that in fp32, {_MODELS[model]} on {int(rows):,} rows of SST-2, {told['seeds']} "
            f"seeds each, on {told['rows']:,} rows that chose nothing: {told['difference']:+.4f} ({low:+.4f} to "
            f"{high:+.4f}), {shown} by a margin of {told['margin']}; {told['discordant']:.2%} of the "
            "answers are right in one alone."
        )
    return "\n".join([*lines, f"`python benchmarks/precision.py`, on {_machine(found)}, {found['date']}.", ""])


def _accuracy(run: dict[str, Any]) -> float:
    """Of the last weights, on test."""
    return float(run["curve"][-1]["test_accuracy"])


def _machine(found: dict[str, Any]) -> str:
    return f"{found['machine']['cores']} cores of {found['machine']['processor']}"
