"""The peers, each as its own documentation has it. Run by speed.py in the peers' virtual environment.

    python benchmarks/peers.py CONTESTANT JOB.json

prints one line of JSON. A job holds the rows, the weights' folder and the settings.
"""

import os
import time
from pathlib import Path

import contestant

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def hf_trainer(job, *, tuned):
    import numpy as np
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    set_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["weights"])
    if shape := job.get("shape"):  # random weights, of another size
        config = AutoConfig.from_pretrained(job["weights"], num_labels=2, **shape)
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(job["weights"], num_labels=2)

    def rows(name):
        texts, labels = job[name]
        encoded = tokenizer(texts, truncation=True, max_length=job["length"])
        return [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label}
            for ids, label in zip(encoded["input_ids"], labels, strict=True)
        ]

    class Clock(TrainerCallback):
        epochs = []

        def on_epoch_begin(self, *args, **kwargs):
            self.began = time.perf_counter()

        def on_epoch_end(self, *args, **kwargs):
            self.epochs.append(time.perf_counter() - self.began)

    # bfloat16 only where the processor has it: who tunes would not have it emulated.
    on_cpu = job.get("use_cpu", True) or not torch.cuda.is_available()
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    bf16 = "avx512_bf16" in flags or "amx_bf16" in flags if on_cpu else torch.cuda.is_bf16_supported()
    settings = {"bf16": bf16, "train_sampling_strategy": "group_by_length"} if tuned else {}
    arguments = TrainingArguments(
        output_dir=job["scratch"],
        use_cpu=on_cpu,
        num_train_epochs=job["epochs"],
        per_device_train_batch_size=job["batch"],
        per_device_eval_batch_size=2 * job["batch"],
        learning_rate=job["rate"],
        weight_decay=0.01,
        warmup_steps=max(1, round(0.1 * job["epochs"] * len(job["train"][0]) / job["batch"])),
        lr_scheduler_type="cosine",
        eval_strategy="epoch" if "validation" in job else "no",
        save_strategy="epoch" if "validation" in job else "no",
        load_best_model_at_end="validation" in job,
        logging_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        **settings,
    )
    clock = Clock()
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows("train"),
        eval_dataset=rows("validation") if "validation" in job else None,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[clock],
    )
    if job["epochs"]:
        trainer.train()
    out = {"epochs": clock.epochs, "device": "cpu" if on_cpu else torch.cuda.get_device_name()}
    if "test" in job:
        test = rows("test")
        # Trainer batches in the order of the rows: sorted by length it pads least.
        test.sort(key=lambda row: len(row["input_ids"]))
        times = []
        for _ in range(job["passes"]):
            began = time.perf_counter()
            found = trainer.predict(test)
            times.append(time.perf_counter() - began)
        out["passes"] = times
        out["accuracy"] = float(np.mean(found.predictions.argmax(1) == found.label_ids))
    return out


def sentence_transformers(job):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(job["weights"], device="cpu")
    times = []
    for _ in range(job["passes"]):
        began = time.perf_counter()
        model.encode(job["test"][0], batch_size=job["batch"], show_progress_bar=False)
        times.append(time.perf_counter() - began)
    return {"passes": times}


def onnx_runtime(job):
    import numpy as np
    import onnxruntime
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["weights"])
    model = AutoModel.from_pretrained(job["weights"]).eval()
    path = os.path.join(job["scratch"], "model.onnx")
    example = tokenizer(["one two", "three"], return_tensors="pt", padding=True)
    names = ["input_ids", "attention_mask", "token_type_ids"]

    class Hidden(torch.nn.Module):  # the exporter passes inputs by position
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, ids, mask, types):
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    torch.onnx.export(
        Hidden(),
        tuple(example[name] for name in names),
        path,
        input_names=names,
        output_names=["hidden"],
        dynamic_axes={name: {0: "rows", 1: "tokens"} for name in [*names, "hidden"]},
        opset_version=17,
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(job["passes"]):
        began = time.perf_counter()
        ids = tokenizer(job["test"][0], truncation=True, max_length=job["length"])["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for start in range(0, len(order), job["batch"]):
            rows = [ids[i] for i in order[start : start + job["batch"]]]
            padded = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
            mask = np.zeros_like(padded)
            for i, row in enumerate(rows):
                padded[i, : len(row)], mask[i, : len(row)] = row, 1
            hidden = session.run(["hidden"], dict(zip(names, (padded, mask, 0 * mask), strict=True)))[0]
            (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        times.append(time.perf_counter() - began)
    return {"passes": times}


def setfit(job):
    import numpy as np
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(job["weights"])
    data = {
        name: Dataset.from_dict({"text": job[name][0], "label": job[name][1]}) for name in ("train", "test")
    }
    arguments = TrainingArguments(
        batch_size=job["batch"], num_iterations=1, num_epochs=1, seed=job["seed"], output_dir=job["scratch"],
        save_strategy="no", report_to="none",
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=data["train"])
    trainer.train()
    predicted = np.asarray(model.predict(job["test"][0]))
    return {"epochs": [], "accuracy": float(np.mean(predicted == np.asarray(job["test"][1])))}


CONTESTANTS = {
    "hf_default": lambda job: hf_trainer(job, tuned=False),
    "hf_tuned": lambda job: hf_trainer(job, tuned=True),
    "sentence_transformers": sentence_transformers,
    "onnx_runtime": onnx_runtime,
    "setfit": setfit,
}

if __name__ == "__main__":
    contestant.main(CONTESTANTS.__getitem__)
