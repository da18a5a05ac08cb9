"""A user's own HyperModel: which space it spans, what it must keep to, what it costs, and that it trains."""

import hashlib
import json
import random
import sys
from textwrap import indent

import numpy as np
import pytest

from pipeline.errors import InvalidUsage, SpaceError
from pipeline.models.cost import ImpossibleNetwork
from pipeline.models.measure import measure
from pipeline.search.setup import FIXED_FACTS, differences, refuse_changes
from pipeline.search.spaces.loader import open_space
from pipeline.space import Builder

pytestmark = pytest.mark.heavy

SHAPE, CLASSES = (8, 8, 1), 3
HEAD = "import keras\nimport keras_tuner as kt\nfrom keras import layers\n\n"
NET = """
class Net(kt.HyperModel):
    '''A loop and a scope.

    As in the guides.
    '''

    def __init__(self, image_shape, num_classes):
        super().__init__()
        self.shape, self.classes = image_shape, num_classes

    def build(self, hp):
        print("building")
        model = keras.Sequential([keras.Input(self.shape), layers.Rescaling(1 / 255)])
        for i in range(hp.Int("depth", 1, 3)):
            model.add(layers.Conv2D(hp.Choice(f"filters_{i}", [4, 8]), 3, padding="same", activation="relu"))
        model.add(layers.GlobalAveragePooling2D())
        kind = hp.Choice("kind", ["plain", "dense"])
        with hp.conditional_scope("kind", ["dense"]):
            if kind == "dense":
                model.add(layers.Dense(hp.Int("units", 4, 11, step=4), activation="relu"))
        model.add(layers.Dropout(hp.Float("rate", 0, 0.5, step=0.2)))
        model.add(layers.Dense(self.classes, activation="softmax"))
        return model
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_file(code, name="Net"):
        (tmp_path / "mine.py").write_text(HEAD + code)
        return f"mine.py:{name}"

    return write_file


def function(*lines, output="layers.Dense(num_classes)"):
    """Return build(hp) for a model that flattens, with these lines at its beginning, where x is the image."""
    body = "\n".join(lines)
    return (
        "def build(hp, image_shape, num_classes):\n    inputs = x = keras.Input(image_shape)\n"
        f"{indent(body, '    ')}\n    x = layers.Flatten()(x)\n    return keras.Model(inputs, {output}(x))\n"
    )


def opened(reference):
    return open_space(reference, SHAPE, CLASSES)


def built(space, params=None):
    from pipeline.models.build import Pixels, build

    return build(params or space.defaults(), Pixels(SHAPE, "uint8", [0.0], [1.0]), CLASSES, space.builder)


def test_a_class_becomes_a_space_with_the_conditions_of_its_loops_and_scopes(write, capsys):
    space = opened(write(NET))
    assert (space.name, space.description, space.source) == ("mine.py:Net", "A loop and a scope.", "mine.py:Net")
    found = {param.name: (param.kind, list(param.grid()), param.default, param.when) for param in space.params}
    assert found == {
        "depth": ("int", [1, 2, 3], 1, None),
        "filters_0": ("choice", [4, 8], 4, None),
        "filters_1": ("choice", [4, 8], 4, ("depth", (2, 3))),
        "filters_2": ("choice", [4, 8], 4, ("depth", (3,))),
        "kind": ("choice", ["plain", "dense"], "plain", None),
        "units": ("int", [4, 8], 4, ("kind", ("dense",))),
        "rate": ("float", [0.0, 0.2, 0.4], 0.0, None),
    }
    assert space.size() == (2 + 4 + 8) * (1 + 2) * 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "building" in captured.err


def test_every_configuration_of_the_space_can_be_built_and_costs_what_keras_counts(write):
    space, rng = opened(write(NET)), random.Random(1)
    for _ in range(10):
        params = space.sample(rng)
        assert space.contains(params)
        model = built(space, params)
        cost = measure(params, SHAPE, CLASSES, space.builder)
        assert model.count_params() == cost.num_params
        assert cost.shapes[-1][1] == (CLASSES,)


def test_cost_of_convolutions_and_dense_layers_by_hand(write):
    lines = [
        'x = layers.Conv2D(hp.Fixed("n", 4), 3, strides=2, padding="same")(x)',
        'x = layers.DepthwiseConv2D(3, padding="same")(x)',
        'x = layers.SeparableConv2D(5, 3, padding="same", use_bias=False)(x)',
        "x = keras.Sequential([layers.Dense(2)])(x)",
    ]
    space = opened(write(function(*lines), "build"))
    cost = measure(space.defaults(), SHAPE, CLASSES, space.builder)
    assert cost.num_params == (36 + 4) + (36 + 4) + (36 + 20) + (10 + 2) + (32 * 3 + 3)
    assert cost.flops == 2 * (16 * 36 + 16 * 36 + 16 * (36 + 20) + 16 * 10 + 32 * 3)
    assert cost.depthwise_flops == 2 * (16 * 36 + 16 * 36)


def test_a_network_larger_than_any_memory_is_measured(write):
    lines = ["x = layers.Flatten()(x)", 'x = layers.Dense(hp.Choice("units", [10, 10**10]))(x)']
    space = opened(write(function(*lines), "build"))
    assert measure({"units": 10**10}, SHAPE, CLASSES, space.builder).num_params == 65 * 10**10 + 3 * 10**10 + 3


@pytest.mark.parametrize(
    "output",
    [
        'layers.Dense(num_classes, activation="softmax", name="last")',
        '(lambda x: layers.Activation("softmax")(layers.Dense(num_classes, name="last")(x)))',
        '(lambda x: layers.Softmax()(layers.Dense(num_classes, name="last")(x)))',
        'keras.Sequential([layers.Dense(num_classes, activation="softmax", name="last")])',
    ],
)
def test_a_softmax_at_the_end_is_taken_off_exactly(write, output):
    import keras

    from pipeline.models.keras_cost import leaves

    model = built(opened(write(function('hp.Int("a", 1, 2)', output=output), "build")))
    images = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), dtype=np.uint8)
    logits = np.asarray(model(images))
    kernel, bias = (np.asarray(weight) for weight in next(x for x in leaves(model) if x.name == "last").weights)
    assert logits == pytest.approx(images.reshape(5, -1).astype(np.float32) @ kernel + bias, rel=1e-4, abs=1e-3)
    assert keras.models.clone_model(model).output_shape == (None, CLASSES)


A = 'hp.Int("a", 1, 2)'


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_like_it\n", r"mine.py:5: ModuleNotFoundError: No module named 'nothing_like_it'; expected"),
        ("def build(hp:\n", r"mine.py:5: SyntaxError: .*; correct it"),
        ("raise SystemExit(3)\n", "mine.py:5: SystemExit: 3"),
        ("def other(hp): pass\n", "build is not defined; .*; use one of other"),
        ("build = 3\n", "build is of the type int"),
        ("class build(kt.HyperModel):\n    def fit(self): pass\n", "has a method fit; expected build alone"),
        ("def build(hp, size): pass\n", r"build\(hp, size\) cannot be called: missing .* 'size'; expected hp, image"),
        ("def build(hp): pass\n", "returned NoneType; expected a keras.Model; return the model"),
        (function(""), "asks for no hyperparameters"),
        (function(A, "missing"), r"mine.py:8: build raised NameError: name 'missing' .* and a 1; expected"),
        (function(A, "x = layers.Lambda(lambda x: x)(x)"), "uses keras.layers.Lambda; expected Keras' own layers"),
        (function(A, "x = x + x"), r"uses keras.src.ops.numpy.Add; .* keras.layers.Add\(\)"),
        (
            "class Own(layers.Layer):\n    def call(self, x): return x\n" + function(A, "x = Own()(x)"),
            "uses pipeline_user_code.Own; expected Keras' own layers",
        ),
        (function('if hp.Boolean("b"):', "    x = layers.Lambda(lambda x: x)(x)"), "uses keras.layers.Lambda"),
        (function(A, output="layers.Dense(5)"), r"output \(None, 8, 8, 1\) and \(None, 5\); expected .* \(None, 3\)"),
        (function(A, output='layers.Dense(num_classes, activation="sigmoid")'), "ends in a sigmoid"),
        (function('hp.Float("a", 1, 2, sampling="reverse_log")'), "a has sampling reverse_log; expected linear or log"),
        (function('hp.Int("a", 1, 5, step=2, default=2)'), "a has the default 2; expected one of its values"),
        (function('hp.Int("a%", 1, 2)'), "'a%' cannot be kept by MLflow"),
        (function('hp.Int("b", 1, 1 + hp.Int("a", 1, 2))'), "b is Int.* and also Int.*; expected one range for a name"),
        (function('hp.Choice("batch_size", [0, 8])'), "batch_size is the number 0; expected a whole number >= 1"),
        (function('hp.Choice("optimizer", ["adam", "sgd"])'), "optimizer is the text 'adam'; expected one of"),
        (
            function(A, 'with hp.conditional_scope("a", [1]):', '    hp.Int("u", 1, 4)', 'hp.Int("u", 1, 9)'),
            "u has two ranges that can hold at once",
        ),
    ],
)  # fmt: skip
def test_code_that_cannot_be_used_is_refused_before_a_search(write, code, message):
    with pytest.raises(SpaceError, match=message):
        opened(write(code, "build"))


def test_ranges_of_one_name_under_conditions_that_exclude_each_other_are_variants(write):
    lines = [
        'hp.Choice("kind", ["a", "b", "c"])',
        'for kind, most in (("a", 4), ("b", 9)):',
        '    with hp.conditional_scope("kind", [kind]):',
        '        hp.Int("units", 1, most)',
        'with hp.conditional_scope("kind", ["c"]):',
        '    hp.Int("units", 1, 9)',
    ]
    units = [p for p in opened(write(function(*lines), "build")).params if p.name == "units"]
    assert [(param.max_value, param.when) for param in units] == [(4, ("kind", ("a",))), (9, ("kind", ("b", "c")))]


def test_steps_of_a_factor_become_a_choice_and_one_value_is_fixed(write):
    lines = [
        'hp.Int("a", 2, 20, step=2, sampling="log")',
        'hp.Float("b", 0.5, 0.5)',
        'hp.Float("c", 1e-4, 1e-2, sampling="log")',
    ]
    a, b, c = opened(write(function(*lines), "build")).params
    assert (a.kind, a.values) == ("choice", (2, 4, 8, 16))
    assert (b.kind, b.values) == ("fixed", (0.5,))
    assert (c.kind, c.min_value, c.max_value, c.sampling, c.default) == ("float", 1e-4, 1e-2, "log", 1e-4)


def test_a_configuration_that_cannot_be_built_is_an_impossible_network(write):
    lines = ['for i in range(hp.Int("poolings", 1, 5)):', "    x = layers.MaxPooling2D()(x)"]
    space = opened(write(function(*lines), "build"))
    assert measure({"poolings": 3}, SHAPE, CLASSES, space.builder).num_params == 6
    with pytest.raises(ImpossibleNetwork, match=r"mine.py:8: build raised ValueError: .* and poolings 4"):
        measure({"poolings": 4}, SHAPE, CLASSES, space.builder)


def test_the_code_that_a_search_began_with_is_used_though_its_file_changed(write):
    space = opened(write(NET))
    before = measure(space.defaults(), SHAPE, CLASSES, space.builder)
    write("raise ValueError\n")
    assert built(space).count_params() == before.num_params


HELPED = (
    "from beside_mine_a import UNITS",
    "if hp.Boolean('deep'):\n    from package_of_mine import sub\n    x = layers.Dense(sub.UNITS)(x)",
    "x = layers.Dense(UNITS)(x)",
)


def forget_helpers():
    """Take the modules of these tests out of this process, as in a new one."""
    from pipeline.models.hypermodel.loader import load

    load.cache_clear()
    for name in [name for name in sys.modules if name.startswith(("beside_mine", "package_of_mine"))]:
        del sys.modules[name]


@pytest.fixture
def helped(write, tmp_path):
    """The reference of a space that imports a module, and a package when it is run."""
    files = {
        "beside_mine_a.py": "UNITS = 7\n",
        "package_of_mine/__init__.py": "",
        "package_of_mine/sub.py": "UNITS = 5\n",
    }
    (tmp_path / "package_of_mine").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "beside_mine_unused.py").write_text("")
    yield write(function(*HELPED), "build")
    forget_helpers()


def facts_of(reference, **changes):
    """Return the facts of a study as they are read from its file, of a process that starts now."""
    forget_helpers()
    facts = dict.fromkeys(FIXED_FACTS) | {"study": "s", "space": opened(reference).to_json(), **changes}
    return json.loads(json.dumps(facts))


def test_modules_beside_the_code_are_part_of_the_study(helped, tmp_path):
    before = facts_of(helped)
    modules = before["space"]["builder"]["modules"]
    assert modules["beside_mine_a.py"] == hashlib.sha256(b"UNITS = 7\n").hexdigest()
    assert set(modules) == {"beside_mine_a.py", "package_of_mine/__init__.py", "package_of_mine/sub.py"}
    assert differences(before, facts_of(helped)) == {}
    (tmp_path / "beside_mine_unused.py").write_text("UNITS = 9\n")
    assert differences(before, facts_of(helped)) == {}
    (tmp_path / "package_of_mine" / "sub.py").write_text("UNITS = 6\n")
    changed = {"space": "space: package_of_mine/sub.py changed, which mine.py imports"}
    assert differences(before, facts_of(helped)) == changed
    with pytest.raises(
        InvalidUsage, match=r"s cannot be resumed: space: package_of_mine/sub.py changed, which mine.py"
    ):
        refuse_changes(before, facts_of(helped))
    (tmp_path / "package_of_mine" / "sub.py").write_text("UNITS = 5\n")
    assert differences(before, facts_of(helped)) == {}


def test_a_space_without_such_modules_keeps_none_though_packages_lie_below_its_folder(write, tmp_path, monkeypatch):
    package = tmp_path / "env" / "site-packages"
    package.mkdir(parents=True)
    (package / "beside_mine_installed.py").write_text("UNITS = 7\n")
    monkeypatch.syspath_prepend(str(package))
    space = opened(write(function(A, "import beside_mine_installed"), "build"))
    assert "beside_mine_installed" in sys.modules
    assert set(space.to_json()["builder"]) == {"path", "name", "source"}
    forget_helpers()


def test_a_child_that_finds_a_module_edited_does_not_train(helped, tmp_path):
    from pipeline.models.hypermodel.loader import load

    builder = Builder.of(facts_of(helped)["space"])
    assert load(builder).__name__ == "build"
    (tmp_path / "beside_mine_a.py").write_text("UNITS = 8\n")
    forget_helpers()
    with pytest.raises(SpaceError, match=r"beside_mine_a.py: changed since the study began; .* mine.py imported then"):
        load(builder)


def test_code_may_import_what_lies_beside_it(write, tmp_path):
    (tmp_path / "beside_mine.py").write_text("UNITS = 7\n")
    lines = [A, "from beside_mine import UNITS", "x = layers.Dense(UNITS)(x)"]
    assert built(opened(write(function(*lines), "build"))).count_params() == (7 + 7) + (64 * 7 * 3 + 3)


def test_looking_at_code_leaves_the_gpus_to_the_children(write, monkeypatch):
    import os

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    opened(write(function(A), "build"))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.parametrize("softmax", ["", "x = layers.Softmax()(layers.Dense(num_classes)(layers.Flatten()(x)))"])
def test_a_compiled_model_keeps_its_optimizer_and_another_gets_that_of_the_search(write, softmax):
    from pipeline.space import recipe
    from pipeline.training.images import plan_steps
    from pipeline.training.recipe import compile_model

    output = "(lambda y: x)" if softmax else "layers.Dense(num_classes)"
    code = function(A, softmax, output=output).replace("return keras.Model", "model = keras.Model") + (
        '    if hp.Boolean("own"):\n        model.compile(keras.optimizers.Adadelta(0.25))\n    return model\n'
    )
    space = opened(write(code, "build"))
    found = []
    for own in (True, False):
        params = {"a": 1, "own": own}
        model = built(space, params)
        compile_model(model, recipe(params), plan_steps(640, 640, 64, 1))
        found.append(type(model.optimizer).__name__)
        assert model.output_shape == (None, CLASSES)
    assert found == ["Adadelta", "KernelMuon"]


def test_a_model_is_saved_and_loaded_by_the_rule_that_it_was_checked_by(write, tmp_path):
    import keras

    from pipeline.bundle import check_layers

    lines = [A, "x = layers.RandomFlip()(x)", "x = layers.PReLU()(layers.BatchNormalization()(x))"]
    model = built(opened(write(function(*lines), "build")))
    model.save(tmp_path / "model.keras")
    check_layers(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    images = np.full((2, *SHAPE), 200, np.uint8)
    assert np.asarray(loaded(images)) == pytest.approx(np.asarray(model(images)))
