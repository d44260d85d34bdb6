"""Damaged and hostile files of a checkpoint: each is refused by its name, and none is executed."""

import json
import os
import re
import shutil

import numpy as np
import pytest

from finetune_eval.models.checkpoint_files import CheckpointFiles
from finetune_eval.models.pretrained import load_pretrained

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0\nsize 90868376\n"
PAGE = "<!DOCTYPE html>\n<html><head><title>404</title></head></html>"
JSON = (
    "config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
    "model.safetensors.index.json",
)
OTHERS = ("vocab.txt", "model.safetensors")


def load(folder, **settings):
    return load_pretrained(folder, **{"sequence_length": None, "dropout": None, **settings})


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


def folder_with(checkpoints, place, name):
    """Write a checkpoint in which the file `name` is read."""
    files = {"model.safetensors": None} if name.endswith("index.json") else {}
    folder, *_ = checkpoints.write(place, files=files)
    (folder / name).parent.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("name", JSON + OTHERS)
@pytest.mark.parametrize(
    "content, rule",
    [
        (
            POINTER,
            "is a Git LFS pointer, not the file itself; run `git lfs pull` in the folder, or download "
            "the "
            "file again.",
        ),
        (PAGE, "is a web page that was saved under this name; download the file itself again."),
        ("  \n<HTML>", "is a web page that was saved under this name; download the file itself again."),
        ("", "is empty; download it again."),
    ],
)
def test_what_is_not_the_file_is_refused(checkpoints, tmp_path, name, content, rule):
    folder = folder_with(checkpoints, tmp_path / "x", name)
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=exactly(f"{name} of `backbone` {str(folder)!r} {rule}")):
        load(folder)


@pytest.mark.parametrize("name", JSON + OTHERS)
def test_a_folder_in_the_place_of_a_file_is_refused(checkpoints, tmp_path, name):
    folder = folder_with(checkpoints, tmp_path / "x", name)
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    sentence = f"{name} of `backbone` {str(folder)!r} is a folder, but it must be a file."
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(folder)


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize(
    "content, rule",
    [
        (
            '{"a": 1',
            r"is not valid JSON \(Expecting ',' delimiter: .*\); it is damaged or cut: download it "
            r"again\.",
        ),
        ('{"a": "\\ud8', r"is not valid JSON \(.*\); it is damaged or cut: download it again\."),
        (b'{"a": "\xff"}', r"is not UTF-8 text \(byte 7\); it is damaged: download it again\."),
        ("[" * 100_000, r"is not valid JSON \(.*\); it is damaged or cut: download it again\."),
        ("3", r"must hold (an object|a list); it holds int\."),
    ],
    ids=["cut", "cut in a letter", "no UTF-8", "deep", "a number"],
)
def test_damaged_json_is_refused(checkpoints, tmp_path, name, content, rule):
    folder = folder_with(checkpoints, tmp_path / "x", name)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"^{re.escape(name)} of `backbone` '.*' {rule}$"):
        load(folder)


def test_config_json_cut_anywhere_is_refused(checkpoints, tmp_path):
    folder, *_ = checkpoints.write(tmp_path / "x")
    whole = (folder / "config.json").read_bytes()
    for size in np.linspace(0, len(whole) - 1, 20).astype(int):
        (folder / "config.json").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="^config.json of `backbone` "):
            load(folder)


def test_weights_cut_anywhere_are_refused(checkpoints, tmp_path):
    folder, *_ = checkpoints.write(tmp_path / "x")
    whole = (folder / "model.safetensors").read_bytes()
    for size in np.linspace(0, len(whole) - 1, 20).astype(int):
        (folder / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="^model.safetensors of `backbone` .* (is empty|is not a whole)"):
            load(folder)


def test_a_flipped_bit_in_the_header_of_the_weights_is_refused_or_changes_nothing(checkpoints, tmp_path):
    folder, *_ = checkpoints.write(tmp_path / "x")
    place = folder / "model.safetensors"
    whole = place.read_bytes()
    size = 8 + int.from_bytes(whole[:8], "little")
    files = CheckpointFiles(str(folder))
    expected = {name: read(files.tensors(), name) for name in files.tensors()}
    random = np.random.default_rng(0)
    refused = 0
    for byte, bit in zip(random.integers(0, size, 300), random.integers(0, 8, 300), strict=True):
        flipped = bytearray(whole)
        flipped[byte] ^= 1 << int(bit)
        place.write_bytes(flipped)
        try:
            tensors = files.tensors()
            found = {name: read(tensors, name) for name in tensors}
        except ValueError as error:
            assert str(error).startswith("model.safetensors of `backbone` ")
            refused += 1
            continue
        # What is left are letters of a name, which the loader then does not find.
        for name, value in found.items():
            if name in expected:
                np.testing.assert_array_equal(value, expected[name])
    assert refused > 100


def read(tensors, name):
    return tensors.read(name, tensors._entries[name].shape)


def test_links_may_lead_out_of_the_folder_but_not_nowhere(checkpoints, tmp_path):
    """The cache of Hugging Face is made of links."""
    folder, *_ = checkpoints.write(tmp_path / "x")
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(os.path.relpath(file, linked))
    same = [checkpoints.features_of(load(place), "good film") for place in (folder, linked)]
    np.testing.assert_array_equal(*same)
    shutil.rmtree(folder)
    sentence = (
        f"config.json of `backbone` {str(linked)!r} is a symbolic link to '../x/config.json', which does "
        f"not exist."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(linked)


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors", "..\\x.safetensors", "x.bin", ".."]
)
def test_an_index_that_leads_out_of_the_folder_is_refused(checkpoints, tmp_path, name):
    folder, *_ = checkpoints.write(tmp_path / "x")
    shutil.move(folder / "model.safetensors", tmp_path / "secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    sentence = (
        f"model.safetensors.index.json of `backbone` {str(folder)!r} names the file {name!r}; a shard must "
        f"be a "
        ".safetensors file beside the index."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(folder)


@pytest.mark.parametrize(
    "index, rule",
    [
        (
            {"weight_map": ["a"]},
            "model.safetensors.index.json of `backbone` {!r} has no `weight_map` from tensors to files.",
        ),
        (
            {"weight_map": {"a": "b.safetensors"}},
            "b.safetensors of `backbone` {!r} is missing, though the index of the weights names it.",
        ),
        (
            {"weight_map": {"a": "c.safetensors"}},
            "model.safetensors.index.json of `backbone` {!r} promises "
            "the "
            "tensor 'a' in c.safetensors, which does not hold it.",
        ),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(checkpoints, tmp_path, index, rule):
    folder, *_ = checkpoints.write(tmp_path / "x")
    (folder / "model.safetensors").rename(folder / "c.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=exactly(rule.format(str(folder)))):
        load(folder)


class Bomb:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("/tmp/opened-by-a-pickle",))


@pytest.mark.parametrize(
    "name, load_as",
    [
        ("pytorch_model.bin", ""),
        ("tf_model.h5", ", from_tf=True"),
        ("flax_model.msgpack", ", from_flax=True"),
        ("pytorch_model.bin.index.json", ""),
    ],
)
def test_weights_of_another_format_are_not_opened(checkpoints, tmp_path, name, load_as):
    import pickle

    folder, *_ = checkpoints.write(tmp_path / "x", files={"model.safetensors": None})
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    sentence = (
        f"`backbone` {str(folder)!r} has its weights in {name}, which is never opened here; convert them "
        f"where you "
        f'trust the file: python -c "from transformers import AutoModel; '
        f"AutoModel.from_pretrained({str(folder)!r}"
        f'{load_as}).save_pretrained({str(folder)!r})".'
    )
    with pytest.raises(FileNotFoundError, match=exactly(sentence)):
        load(folder)
    assert not os.path.exists("/tmp/opened-by-a-pickle")


def test_a_folder_without_weights_says_so(checkpoints, tmp_path):
    folder, *_ = checkpoints.write(tmp_path / "x", files={"model.safetensors": None})
    with pytest.raises(
        FileNotFoundError, match=exactly(f"`backbone` {str(folder)!r} has no model.safetensors.")
    ):
        load(folder)


def test_an_adapter_is_not_taken_for_the_model(checkpoints, tmp_path):
    folder, *_ = checkpoints.write(tmp_path / "x")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    sentence = (
        f"`backbone` {str(folder)!r} holds an adapter (adapter_model.safetensors) and not the model it "
        f"adapts; "
        "merge them (`merge_and_unload` of the peft package) and pass the merged folder."
    )
    with pytest.raises(FileNotFoundError, match=exactly(sentence)):
        load(folder)
    folder, *_ = checkpoints.write(tmp_path / "y", adapter_config={"peft_type": "LORA"})
    sentence = (
        f"adapter_config.json of `backbone` {str(folder)!r} declares an adapter on top of the weights, "
        f"which is "
        "not computed here; merge it (`merge_and_unload` of the peft package) and pass the merged folder."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(folder)


def test_a_damaged_keras_hub_preset_is_refused_by_name(checkpoints, tmp_path):
    import finetune_eval as fe

    folder, *_ = checkpoints.write(tmp_path / "x")
    fe.build_model(folder).save_to_preset(str(tmp_path / "preset"))
    weights = tmp_path / "preset" / "model.weights.h5"
    whole = weights.read_bytes()
    weights.write_text(POINTER)
    with pytest.raises(ValueError, match=r"^model.weights.h5 of `backbone` '.*preset' is a Git LFS pointer"):
        load(tmp_path / "preset")
    weights.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "preset" / "checksums.json").unlink()  # as others write a preset
    with pytest.raises(ValueError, match=r"^model.weights.h5 of `backbone` '.*preset' cannot be read \("):
        load(tmp_path / "preset")


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_preset_with_a_cut_vocabulary_is_refused(checkpoints, tmp_path, cut):
    import finetune_eval as fe

    folder, *_ = checkpoints.write(tmp_path / "x")
    preset = tmp_path / "preset"
    fe.build_model(folder).save_to_preset(str(preset))
    words = (preset / "assets" / "tokenizer" / "vocabulary.txt").read_text().splitlines()
    (preset / "checksums.json").unlink()  # as others write a preset
    kept = words[: int(len(words) * cut)]
    (preset / "assets" / "tokenizer" / "vocabulary.txt").write_text("\n".join(kept))
    for read, argument in ((load, "backbone"), (fe.load_model, "path")):
        sentence = (
            f"vocabulary.txt of `{argument}` {str(preset)!r} has {len(kept)} tokens, but the backbone has "
            f"embeddings of {len(words)}; a file was cut, or is of another model: copy it again."
        )
        with pytest.raises(ValueError, match=exactly(sentence)):
            read(preset)


def test_a_damaged_preset_of_a_classifier_is_refused_by_name(checkpoints, tmp_path):
    import finetune_eval as fe

    folder, *_ = checkpoints.write(tmp_path / "x")
    preset = tmp_path / "preset"
    fe.build_model(folder).save_to_preset(str(preset))
    flipped = (preset / "model.weights.h5").read_bytes()
    (preset / "model.weights.h5").write_bytes(flipped[:-9] + bytes([flipped[-9] ^ 1]) + flipped[-8:])
    for read, argument in ((load, "backbone"), (fe.load_model, "path")):  # a bit of a weight
        with pytest.raises(ValueError, match=f"^model.weights.h5 of `{argument}` '.*' is not the file that"):
            read(preset)
    (preset / "model.weights.h5").write_bytes(flipped)
    for sealed in (True, False):
        for path, rule in (
            ("task.json", "is not UTF-8 text "),
            ("model.weights.h5", "cannot be read "),
            ("task.weights.h5", "cannot be read "),
            ("assets/tokenizer/vocabulary.txt", "cannot be read "),
        ):
            whole = (preset / path).read_bytes()
            (preset / path).write_bytes(
                whole[: len(whole) // 2] if path.endswith("5") else whole[:20] + b"\xff"
            )
            rule = "is not the file that checksums.json was written with: " if sealed else rule
            name = path if sealed else path.rsplit("/")[-1]
            with pytest.raises(ValueError, match=f"^{name} of `path` '.*' {rule}"):
                fe.load_model(preset)
            (preset / path).write_bytes(whole)
        fe.load_model(preset)
        (preset / "checksums.json").unlink(missing_ok=True)
    (preset / "checksums.json").write_text('{"sha256": []}')
    with pytest.raises(ValueError, match="^checksums.json of `path` '.*' holds no checksums; remove it"):
        fe.load_model(preset)


def test_without_a_network_a_file_that_may_exist_is_not_taken_for_missing(checkpoints, tmp_path, monkeypatch):
    """transformers caches the weights and the vocabulary, but not the pooling of sentence-transformers."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    snapshot, *_ = checkpoints.write(repository / "snapshots" / ("0" * 40))
    with pytest.raises(
        ConnectionError, match="^`backbone` 'hf://owner/name' must be downloaded, and that failed"
    ):
        load("hf://owner/name")
    missing = (
        repository / ".no_exist" / ("0" * 40)
    )  # what huggingface_hub writes for a file that is not there
    names = [name for name in JSON if not (snapshot / name).exists()]
    for name in [*names, "adapter_config.json", "model.safetensors.index.json"]:
        (missing / name).parent.mkdir(parents=True, exist_ok=True)
        (missing / name).touch()
    loaded = load("hf://owner/name")
    assert checkpoints.ids_of(loaded, "good film") == [2, 6, 8, 3]
    (missing / "1_Pooling/config.json").unlink()
    with pytest.raises(
        ConnectionError, match="^`backbone` 'hf://owner/name' must be downloaded, and that failed"
    ):
        load("hf://owner/name")
    assert load("hf://owner/name", pooling="mean").pooling is None  # then nobody asks
