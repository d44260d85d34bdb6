"""Saved models that are damaged or hostile are refused, by name, before they cost memory or run code."""

import json
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

import finetune_eval as fe

MEMBERS = ("config.json", "metadata.json", "model.weights.h5", "assets/vocabulary.txt")


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    place = tmp_path_factory.mktemp("saved") / "model.keras"
    tiny.text_classifier().save(place)
    return place


def repacked(saved, place, changes):
    """Copy a .keras file, members replaced (None: left out), compressed."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as new:
        for name in dict.fromkeys([*old.namelist(), *changes]):
            content = changes.get(name, old.read(name) if name in old.namelist() else None)
            if content is not None:
                new.writestr(name, content)
    return place


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_that_unpacks_to_far_more_than_it_holds_is_refused(saved, tmp_path, member):
    place = tmp_path / "bomb.keras"
    unpacked = 100 << 20
    repacked(saved, place, {member: b"\0" * unpacked})
    with zipfile.ZipFile(place) as archive:
        packed = archive.getinfo(member).compress_size
    assert packed < 200_000
    sentence = (
        f"{str(place)!r} is not opened: {member} in it would unpack from {packed:,} to {unpacked:,} bytes, "
        f"which "
        "no saved model does."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        fe.load_model(place)


def test_many_members_that_unpack_to_too_much_together_are_refused(saved, tmp_path):
    place = tmp_path / "bomb.keras"
    repacked(saved, place, {f"assets/{i}.txt": b"\0" * (40 << 20) for i in range(4)})
    with pytest.raises(ValueError, match=r"is not opened: everything in it would unpack from [\d,]+ to 167,"):
        fe.load_model(place)


SMALL = """
import resource, sys, finetune_eval as fe
import finetune_eval.models.build
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    fe.load_model(sys.argv[1])
except ValueError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_bomb_costs_no_memory(saved, tmp_path):
    place = tmp_path / "bomb.keras"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in MEMBERS[:2]:
            archive.writestr(name, "{}")
        with archive.open(MEMBERS[2], "w", force_zip64=True) as member:
            for _ in range(512):
                member.write(b"\0" * (1 << 20))
    assert place.stat().st_size < 1_000_000  # 0.5 MB become 512 MB
    done = subprocess.run(
        [sys.executable, "-c", SMALL, str(place)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 50_000, done.stdout  # kilobytes


@pytest.mark.parametrize("member", MEMBERS[:3])
def test_a_file_without_one_of_its_parts_is_refused(saved, tmp_path, member):
    place = repacked(saved, tmp_path / "part.keras", {member: None})
    sentence = f"{str(place)!r} is no .keras file of a whole model: it holds no {member}."
    with pytest.raises(ValueError, match=exactly(sentence)):
        fe.load_model(place)


def test_a_model_that_was_compressed_anew_loads(saved, tmp_path, tiny):
    place = repacked(saved, tmp_path / "same.keras", {})
    np.testing.assert_array_equal(
        fe.load_model(place).predict(tiny.texts, verbose=0),
        fe.load_model(saved).predict(tiny.texts, verbose=0),
    )


def test_a_file_cut_anywhere_is_refused(saved, tmp_path):
    whole = saved.read_bytes()
    place = tmp_path / "cut.keras"
    for size in np.linspace(0, len(whole) - 1, 20).astype(int):
        place.write_bytes(whole[:size])
        sentence = (
            rf"^'{re.escape(str(place))}' (is no whole \.keras file|is no \.keras file|cannot be loaded)"
        )
        with pytest.raises(ValueError, match=sentence):
            fe.load_model(place)


def test_a_flipped_bit_is_refused_or_changes_nothing(saved, tmp_path, tiny):
    whole = saved.read_bytes()
    expected = fe.load_model(saved).predict(tiny.texts, verbose=0)
    random = np.random.default_rng(0)
    place = tmp_path / "flipped.keras"
    for byte in random.integers(0, len(whole), 20):
        flipped = bytearray(whole)
        flipped[byte] ^= 1 << int(random.integers(0, 8))
        place.write_bytes(flipped)
        try:
            found = fe.load_model(place).predict(tiny.texts, verbose=0)
        except ValueError as error:
            assert str(error).startswith(repr(str(place)))
            continue
        np.testing.assert_array_equal(found, expected)


def test_weights_that_are_not_finite_are_refused(tiny, tmp_path):
    model = tiny.text_classifier()
    kernel = model.get_layer("logits").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    model.save(tmp_path / "nan.keras")
    sentence = (
        f"{str(tmp_path / 'nan.keras')!r} holds NaN or infinity in logits/kernel: the file is damaged, or "
        f"the "
        "model diverged when it was trained; every answer would be NaN."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        fe.load_model(tmp_path / "nan.keras")


@pytest.mark.filterwarnings("ignore")
def test_a_lambda_layer_is_not_run(tmp_path):
    inputs = keras.Input((2,))
    outputs = keras.layers.Lambda(lambda x: x * 2, output_shape=(2,))(inputs)
    place = tmp_path / "lambda.keras"
    keras.Model(inputs, outputs).save(place)
    with pytest.raises(ValueError, match=rf"^'{re.escape(str(place))}' cannot be loaded \(.*[Ll]ambda"):
        fe.load_model(place)


@pytest.mark.parametrize("module, name", [("os", "system"), ("subprocess", "Popen"), ("builtins", "exec")])
def test_a_foreign_class_is_not_called(saved, tmp_path, module, name):
    with zipfile.ZipFile(saved) as archive:
        config = json.loads(archive.read("config.json"))
    config["config"]["preprocessor"] = {
        "module": module, "class_name": name, "registered_name": name, "config": {"args": "touch /tmp/x-ran"}
    }  # fmt: skip
    place = repacked(saved, tmp_path / "foreign.keras", {"config.json": json.dumps(config)})
    with pytest.raises(ValueError, match=rf"^'{re.escape(str(place))}' cannot be loaded \("):
        fe.load_model(place)


def test_what_is_no_archive_is_refused(tmp_path):
    place = tmp_path / "model.keras"
    place.write_text("version https://git-lfs.github.com/spec/v1\n")
    sentence = (
        f"{str(place)!r} is no whole .keras file (File is not a zip file); it was cut or damaged: "
        "copy it again."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        fe.load_model(place)
